from __future__ import annotations

import asyncio
import socket
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable

import pytest

from app.net.errors import CallError
from app.net.rtp import MAX_DATAGRAM
from app.net.transport import (
    HELD,
    TransportCount,
    UdpTransport,
    local_address_towards,
)

LOOPBACK = "127.0.0.1"


class Inbox:
    """Collects datagrams and lets a test wait for a number of them."""

    def __init__(self) -> None:
        self.datagrams: list[bytes] = []
        self.arrivals: list[float] = []
        self._changed = asyncio.Event()

    def __call__(self, data: bytes, arrival: float) -> None:
        self.datagrams.append(data)
        self.arrivals.append(arrival)
        self._changed.set()

    async def wait_for(self, count: int) -> list[bytes]:
        async with asyncio.timeout(5):
            while len(self.datagrams) < count:
                self._changed.clear()
                await self._changed.wait()
        return self.datagrams


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not condition():
            await asyncio.sleep(0.005)


@pytest.fixture
async def ends() -> AsyncIterator[tuple[UdpTransport, UdpTransport]]:
    a, b = await UdpTransport.open(LOOPBACK), await UdpTransport.open(LOOPBACK)
    a.connect(*b.local)
    b.connect(*a.local)
    yield a, b
    a.close()
    b.close()


@pytest.fixture
def stranger() -> socket.socket:
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.bind((LOOPBACK, 0))
    return sock


async def test_datagrams_go_both_ways(ends: tuple[UdpTransport, UdpTransport]) -> None:
    inboxes = [Inbox(), Inbox()]
    for end, inbox in zip(ends, inboxes, strict=True):
        end.set_receiver(inbox)

    ends[0].send(b"there")
    ends[1].send(b"and back")

    assert await inboxes[1].wait_for(1) == [b"there"]
    assert await inboxes[0].wait_for(1) == [b"and back"]
    assert ends[0].counts == {TransportCount.SENT: 1, TransportCount.RECEIVED: 1}


async def test_ipv6_works_as_well() -> None:
    try:
        a = await UdpTransport.open("::1")
    except CallError as error:
        pytest.skip(f"no IPv6 here: {error}")
    b = await UdpTransport.open("::1")
    inbox = Inbox()
    b.connect(*a.local)
    b.set_receiver(inbox)
    a.connect(*b.local)

    a.send(b"six")

    assert await inbox.wait_for(1) == [b"six"]
    a.close()
    b.close()


async def test_any_thread_may_send(ends: tuple[UdpTransport, UdpTransport]) -> None:
    inbox = Inbox()
    ends[1].set_receiver(inbox)

    def send() -> None:
        for i in range(20):
            ends[0].send(bytes([i]))

    thread = threading.Thread(target=send)
    thread.start()

    assert await inbox.wait_for(20) == [bytes([i]) for i in range(20)]
    thread.join()


async def test_what_comes_before_the_peer_is_known_is_sifted_by_it(
    stranger: socket.socket,
) -> None:
    a, b = await UdpTransport.open(LOOPBACK), await UdpTransport.open(LOOPBACK)
    inbox = Inbox()
    b.set_receiver(inbox)
    a.connect(*b.local)
    stranger.sendto(b"intruder", b.local)
    sent_at = time.monotonic()
    a.send(b"early")
    await asyncio.sleep(0.05)
    assert inbox.datagrams == []

    b.connect(*a.local)

    assert inbox.datagrams == [b"early"]
    assert sent_at - 0.01 < inbox.arrivals[0] < time.monotonic() - 0.04
    assert b.counts[TransportCount.FOREIGN] == 1
    a.close()
    b.close()
    stranger.close()


async def test_what_comes_before_anybody_listens_is_kept_up_to_a_bound(
    ends: tuple[UdpTransport, UdpTransport],
) -> None:
    a, b = ends
    for i in range(HELD + 5):
        a.send(bytes([i]))
    await until(lambda: b.counts[TransportCount.OVERFLOWED] == 5)
    inbox = Inbox()

    b.set_receiver(inbox)

    assert inbox.datagrams == [bytes([i]) for i in range(HELD)]


async def test_a_stranger_is_not_heard(
    ends: tuple[UdpTransport, UdpTransport], stranger: socket.socket
) -> None:
    a, b = ends
    inbox = Inbox()
    b.set_receiver(inbox)

    stranger.sendto(b"intruder", b.local)
    a.send(b"friend")

    assert await inbox.wait_for(1) == [b"friend"]
    assert b.counts[TransportCount.RECEIVED] == 1
    stranger.close()


async def test_arrival_is_when_the_datagram_came_not_when_the_loop_found_time(
    ends: tuple[UdpTransport, UdpTransport],
) -> None:
    if sys.platform != "linux":
        pytest.skip("only Linux stamps datagrams in the kernel")
    a, b = ends
    inbox = Inbox()
    b.set_receiver(inbox)

    a.send(b"x")
    sent_at = time.monotonic()
    time.sleep(0.2)  # the loop is held up
    await inbox.wait_for(1)

    assert inbox.arrivals[0] < sent_at + 0.1


async def test_too_large_a_datagram_is_counted_and_dropped(
    ends: tuple[UdpTransport, UdpTransport],
) -> None:
    a, b = ends
    inbox = Inbox()
    b.set_receiver(inbox)

    a.send(bytes(MAX_DATAGRAM + 1))
    a.send(bytes(MAX_DATAGRAM))

    assert [len(data) for data in await inbox.wait_for(1)] == [MAX_DATAGRAM]
    assert b.counts[TransportCount.TOO_LARGE] == 1


async def test_a_closed_port_at_the_peer_is_noted_and_raises_nothing(
    ends: tuple[UdpTransport, UdpTransport],
) -> None:
    a, b = ends
    began = time.monotonic()
    assert not a.refused_since(began)
    b.close()

    a.send(b"anybody?")
    await until(lambda: a.refused_since(began))
    a.send(b"still nobody?")

    assert a.counts[TransportCount.REFUSED] >= 1
    assert not a.refused_since(time.monotonic())


async def test_a_peer_that_opens_its_port_again_is_reached(
    ends: tuple[UdpTransport, UdpTransport],
) -> None:
    a, b = ends
    b.close()
    for _ in range(3):
        a.send(b"lost")
        await asyncio.sleep(0.01)
    again = await UdpTransport.open(*b.local)
    inbox = Inbox()
    again.connect(*a.local)
    again.set_receiver(inbox)

    a.send(b"found")

    assert await inbox.wait_for(1) == [b"found"]
    again.close()


async def test_what_cannot_be_sent_is_counted(ends: tuple[UdpTransport, UdpTransport]) -> None:
    a, _ = ends
    unconnected = await UdpTransport.open(LOOPBACK)

    unconnected.send(b"to nobody")
    a.send(bytes(70_000))
    a.close()
    a.close()
    a.send(b"too late")

    assert unconnected.counts == {TransportCount.UNSENT: 1}
    assert a.counts == {TransportCount.UNSENT: 2}
    unconnected.close()


async def test_a_port_in_use_is_named(ends: tuple[UdpTransport, UdpTransport]) -> None:
    port = ends[0].local[1]

    with pytest.raises(CallError, match=f"UDP port {port} of 127.0.0.1: the port is in use"):
        await UdpTransport.open(LOOPBACK, port)


@pytest.mark.parametrize(
    ("address", "reason"),
    [("host.example", "not an IP address"), ("198.51.100.1", "not an address of this machine")],
)
async def test_an_address_that_is_not_ours_cannot_be_bound(address: str, reason: str) -> None:
    with pytest.raises(CallError, match=reason):
        await UdpTransport.open(address)


async def test_a_peer_of_the_other_ip_version_is_refused() -> None:
    end = await UdpTransport.open(LOOPBACK)

    with pytest.raises(CallError, match="other IP version"):
        end.connect("::1", 5000)
    end.close()


async def test_our_address_depends_on_where_the_peer_is() -> None:
    assert await local_address_towards("127.0.0.1", 9) == "127.0.0.1"
    assert await local_address_towards("localhost", 9) in ("127.0.0.1", "::1")


async def test_an_unknown_host_is_named() -> None:
    with pytest.raises(CallError, match=r"no-such-host\.invalid: unknown host"):
        await local_address_towards("no-such-host.invalid", 9)
    with pytest.raises(CallError, match="unknown host"):
        await local_address_towards("a" * 70 + ".invalid", 9)
