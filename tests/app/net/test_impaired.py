from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator

import pytest

from app.net.impaired import ImpairedTransport
from app.net.transport import UdpTransport
from app.netem import Netem, NetemQueue, parse_netem
from tests.app.net.test_transport import LOOPBACK, Inbox


@pytest.fixture
async def ends() -> AsyncIterator[tuple[UdpTransport, UdpTransport]]:
    a, b = await UdpTransport.open(LOOPBACK), await UdpTransport.open(LOOPBACK)
    a.connect(*b.local)
    b.connect(*a.local)
    yield a, b
    a.close()
    b.close()


def netem(spec: str, seed: int = 1) -> NetemQueue:
    return NetemQueue(Netem(parse_netem(spec), seed=seed))


async def test_without_impairments_nothing_changes(
    ends: tuple[UdpTransport, UdpTransport],
) -> None:
    a, b = ImpairedTransport(ends[0]), ImpairedTransport(ends[1])
    inbox = Inbox()
    b.set_receiver(inbox)

    a.send(b"x")

    assert await inbox.wait_for(1) == [b"x"]
    assert a.local == ends[0].local


@pytest.mark.parametrize("outbound", [True, False])
async def test_lost_datagrams_do_not_arrive_and_the_others_do_in_order(
    ends: tuple[UdpTransport, UdpTransport], outbound: bool
) -> None:
    queue = netem("loss 50%")
    a = ImpairedTransport(ends[0], outbound=queue if outbound else None)
    b = ImpairedTransport(ends[1], inbound=None if outbound else queue)
    inbox = Inbox()
    b.set_receiver(inbox)

    for i in range(60):
        a.send(bytes([i]))
        await asyncio.sleep(0)
    link = Netem(parse_netem("loss 50%"), seed=1)
    expected = [i for i in range(60) if link.process(bytes([i]), 0.0)]

    assert await inbox.wait_for(len(expected)) == [bytes([i]) for i in expected]
    assert 10 < len(expected) < 50


@pytest.mark.parametrize("outbound", [True, False])
async def test_delayed_datagrams_arrive_later_by_as_much(
    ends: tuple[UdpTransport, UdpTransport], outbound: bool
) -> None:
    queue = netem("delay 60ms")
    a = ImpairedTransport(ends[0], outbound=queue if outbound else None)
    b = ImpairedTransport(ends[1], inbound=None if outbound else queue)
    inbox = Inbox()
    b.set_receiver(inbox)

    sent = []
    for i in range(5):
        sent.append(time.monotonic())
        a.send(bytes([i]))
        await asyncio.sleep(0.01)

    await inbox.wait_for(5)
    assert all(arrival >= at + 0.0599 for at, arrival in zip(sent, inbox.arrivals, strict=True))
    assert inbox.datagrams == [bytes([i]) for i in range(5)]


async def test_inbound_arrival_is_the_instant_the_link_computed(
    ends: tuple[UdpTransport, UdpTransport], monkeypatch: pytest.MonkeyPatch
) -> None:
    queue = netem("delay 25ms")
    entered: list[float] = []
    push = queue.push

    def note(data: bytes, now: float) -> None:
        entered.append(now)
        push(data, now)

    monkeypatch.setattr(queue, "push", note)
    inbox = Inbox()
    ImpairedTransport(ends[1], inbound=queue).set_receiver(inbox)
    ends[0].send(b"x")
    await inbox.wait_for(1)

    assert inbox.arrivals[0] == pytest.approx(entered[0] + 0.025)


async def test_a_datagram_that_overtakes_is_not_held_up_by_the_timer_of_another(
    ends: tuple[UdpTransport, UdpTransport],
) -> None:
    a = ImpairedTransport(ends[0], outbound=netem("delay 300ms reorder 100% gap 2"))
    inbox = Inbox()
    ends[1].set_receiver(inbox)

    a.send(b"slow")
    a.send(b"fast")

    assert await inbox.wait_for(2) == [b"fast", b"slow"]
    assert inbox.arrivals[1] - inbox.arrivals[0] > 0.25


async def test_threads_may_send_while_the_loop_releases(
    ends: tuple[UdpTransport, UdpTransport],
) -> None:
    a = ImpairedTransport(ends[0], outbound=netem("delay 5ms 5ms"))
    inbox = Inbox()
    ends[1].set_receiver(inbox)

    def send() -> None:
        for i in range(50):
            a.send(bytes([i]))
            time.sleep(0.001)

    thread = threading.Thread(target=send)
    thread.start()

    assert sorted(await inbox.wait_for(50)) == [bytes([i]) for i in range(50)]
    thread.join()


async def test_what_is_on_its_way_at_the_end_is_lost(
    ends: tuple[UdpTransport, UdpTransport],
) -> None:
    a = ImpairedTransport(ends[0], outbound=netem("delay 20ms"))
    inbox = Inbox()
    ends[1].set_receiver(inbox)
    a.send(b"never")

    a.close()
    await asyncio.sleep(0.05)

    assert inbox.datagrams == []
