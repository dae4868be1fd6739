from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import random
import socket
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

import aiohttp
import pytest
from aiohttp import web

from app.net import signalling
from app.net.errors import CallError
from app.net.sdp import MAX_SDP, Answer, MediaDescription, Offer, SdpError
from app.net.signalling import SDP_TYPE, SignallingServer, hang_up, place_call, reach

LOOPBACK = "127.0.0.1"
OFFER = Offer(MediaDescription(LOOPBACK, 5004, ssrc=1, cname="caller"), 1)
OURS = MediaDescription(LOOPBACK, 6000, ssrc=2, cname="callee")


@dataclass
class Listener:
    """A server and what it was told."""

    server: SignallingServer = field(init=False)
    offers: list[tuple[Offer, str]] = field(default_factory=list)
    hangups: int = 0
    failure: Exception | None = None
    gate: asyncio.Event | None = None

    def __post_init__(self) -> None:
        self.server = SignallingServer(LOOPBACK, 0, self.on_offer, self.on_hangup)

    async def on_offer(self, offer: Offer, caller: str) -> Answer:
        self.offers.append((offer, caller))
        if self.gate:
            await self.gate.wait()
        if self.failure:
            raise self.failure
        return offer.answer(OURS, 9)

    async def on_hangup(self) -> None:
        self.hangups += 1

    @property
    def url(self) -> str:
        return f"http://{LOOPBACK}:{self.server.port}/call"

    async def call(self) -> tuple[Answer, str]:
        return await place_call(LOOPBACK, self.server.port, OFFER)

    async def request(
        self, method: str, url: str = "", body: bytes = b"", content_type: str = SDP_TYPE
    ) -> tuple[int, str, dict[str, str]]:
        headers = {"Content-Type": content_type}
        async with (
            aiohttp.ClientSession() as client,
            client.request(method, url or self.url, data=body, headers=headers) as response,
        ):
            return response.status, await response.text(), dict(response.headers)


@pytest.fixture
async def listener() -> AsyncIterator[Listener]:
    listener = Listener()
    await listener.server.start()
    yield listener
    await listener.server.close()


async def test_a_call_is_placed_and_hung_up(listener: Listener) -> None:
    answer, resource = await listener.call()

    assert answer == OFFER.answer(OURS, 9)
    assert resource.startswith(listener.url + "/")
    assert listener.offers == [(OFFER, LOOPBACK)]

    await hang_up(resource)
    assert listener.hangups == 1


async def test_the_answer_is_as_whip_wants_it(listener: Listener) -> None:
    status, text, headers = await listener.request("POST", body=OFFER.to_sdp().encode())

    assert status == 201
    assert headers["Content-Type"].startswith(SDP_TYPE)
    assert headers["Location"].startswith("/call/")
    assert Answer.parse(text, OFFER).media == OURS


async def test_a_second_caller_finds_the_line_busy_until_the_first_hangs_up(
    listener: Listener,
) -> None:
    _, resource = await listener.call()

    with pytest.raises(CallError, match="is busy"):
        await listener.call()
    status, _, headers = await listener.request("POST", body=OFFER.to_sdp().encode())
    assert (status, headers["Retry-After"]) == (503, "5")

    await hang_up(resource)
    await listener.call()
    assert len(listener.offers) == 2


async def test_the_line_is_busy_while_an_offer_is_considered(listener: Listener) -> None:
    listener.gate = asyncio.Event()
    first = asyncio.create_task(listener.call())
    while not listener.offers:
        await asyncio.sleep(0.005)

    with pytest.raises(CallError, match="is busy"):
        await listener.call()

    listener.gate.set()
    await first


async def test_a_call_that_ended_otherwise_frees_the_line(listener: Listener) -> None:
    _, resource = await listener.call()
    listener.server.end_call()

    await hang_up(resource)  # no longer known, and no error
    await listener.call()

    assert listener.hangups == 0


async def test_only_who_knows_the_resource_can_hang_up(listener: Listener) -> None:
    await listener.call()

    status, _, _ = await listener.request("DELETE", listener.url + "/guess")

    assert status == 404
    assert listener.hangups == 0


@pytest.mark.parametrize("method", ["PATCH", "GET", "PUT", "OPTIONS"])
async def test_other_methods_are_not_allowed(listener: Listener, method: str) -> None:
    _, resource = await listener.call()

    assert (await listener.request(method, resource))[0] == 405
    assert (await listener.request(method))[0] == 405


@pytest.mark.parametrize("content_type", ["text/plain", "application/sdp-like", ""])
async def test_an_offer_of_another_type_is_not_read(listener: Listener, content_type: str) -> None:
    status, _, _ = await listener.request(
        "POST", body=OFFER.to_sdp().encode(), content_type=content_type
    )

    assert status == 415
    assert listener.offers == []


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"", "v=0"),
        (b"hello", "v=0"),
        (b"\xff\xfe", "UTF-8"),
        (OFFER.to_sdp().replace("RTP/AVP", "RTP/SAVP").encode(), "RTP/SAVP"),
        (OFFER.to_sdp().replace(LOOPBACK, "198.51.100.9").encode(), "198.51.100.9"),
    ],
)
async def test_a_bad_offer_is_refused_in_one_line(
    listener: Listener, body: bytes, reason: str
) -> None:
    status, text, _ = await listener.request("POST", body=body)

    assert status == 400
    assert reason in text
    assert text.count("\n") == 1
    assert listener.offers == []
    await listener.call()


async def test_a_body_beyond_the_limit_is_refused(listener: Listener) -> None:
    status, _, _ = await listener.request("POST", body=b"v=0\r\n" + bytes(MAX_SDP))

    assert status == 413


@pytest.mark.parametrize(
    ("failure", "status", "text"),
    [
        (SdpError("the offer is odd"), 400, "the offer is odd\n"),
        (CallError("no microphone"), 500, "no microphone\n"),
        (RuntimeError("secret"), 500, "the call cannot be taken\n"),
    ],
)
async def test_a_call_that_cannot_be_taken_leaves_the_line_free(
    listener: Listener, failure: Exception, status: int, text: str
) -> None:
    listener.failure = failure
    answered = await listener.request("POST", body=OFFER.to_sdp().encode())
    with pytest.raises(CallError, match=text.strip()):
        await listener.call()

    assert answered[:2] == (status, text)
    listener.failure = None
    await listener.call()


async def test_a_slow_sender_is_cut_off(
    listener: Listener, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(signalling, "BODY_TIME", 0.05)
    reader, writer = await asyncio.open_connection(LOOPBACK, listener.server.port)
    writer.write(
        b"POST /call HTTP/1.1\r\nHost: x\r\nContent-Type: application/sdp\r\n"
        b"Content-Length: 100\r\n\r\nv=0"
    )

    async with asyncio.timeout(5):
        assert b" 408 " in await reader.readline()
    writer.close()


async def test_a_connection_that_says_nothing_is_closed_in_the_end(
    listener: Listener, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(signalling, "CONNECTION_TIME", 0.05)
    reader, writer = await asyncio.open_connection(LOOPBACK, listener.server.port)

    async with asyncio.timeout(5):
        assert await reader.read() == b""
    writer.close()


async def test_connections_beyond_the_limit_are_closed_at_once(
    listener: Listener, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(signalling, "MAX_CONNECTIONS", 2)
    held = [await asyncio.open_connection(LOOPBACK, listener.server.port) for _ in range(3)]

    async with asyncio.timeout(5):
        assert await held[2][0].read() == b""
    for _, writer in held:
        writer.close()
    async with asyncio.timeout(5):
        while not listener.offers:  # the server may take a moment to see them go
            with contextlib.suppress(CallError):
                await listener.call()


async def test_garbage_on_the_port_neither_stops_the_server_nor_fills_the_log(
    listener: Listener, caplog: pytest.LogCaptureFixture
) -> None:
    rng = random.Random(4)
    valid = b"POST /call HTTP/1.1\r\nHost: x\r\nContent-Type: application/sdp\r\n\r\n"
    starts = [b"", b"POST ", b"GET / HTTP/1.1\r\n", valid, b"\x16\x03\x01", b"SSH-2.0-x\r\n"]
    for _ in range(60):
        _, writer = await asyncio.open_connection(LOOPBACK, listener.server.port)
        writer.write(rng.choice(starts) + rng.randbytes(rng.randrange(300)))
        writer.write_eof()
        writer.close()
    for _ in range(30):
        _, writer = await asyncio.open_connection(LOOPBACK, listener.server.port)
        mutated = bytearray(valid)
        mutated[rng.randrange(len(mutated))] = rng.randrange(256)
        writer.write(bytes(mutated))
        writer.close()

    await asyncio.sleep(0.1)
    await listener.call()
    assert [r for r in caplog.records if r.levelno >= logging.WARNING] == []


async def test_a_port_in_use_is_named(listener: Listener) -> None:
    second = Listener()
    second.server = SignallingServer(
        LOOPBACK, listener.server.port, second.on_offer, second.on_hangup
    )

    with pytest.raises(
        CallError, match=f"TCP port {listener.server.port} of 127.0.0.1 is already in use"
    ):
        await second.server.start()


def unused_port() -> int:
    with socket.socket() as sock:
        sock.bind((LOOPBACK, 0))
        return int(sock.getsockname()[1])


async def test_a_peer_that_does_not_listen_is_reported() -> None:
    port = unused_port()

    with pytest.raises(CallError, match=f"127.0.0.1 port {port}: connection refused"):
        await place_call(LOOPBACK, port, OFFER)
    with pytest.raises(CallError, match="connection refused"):
        await place_call("localhost", port, OFFER)


@pytest.mark.parametrize(
    ("host", "reason"),
    [("no-such-host.invalid", "unknown host"), ("a b", "a b port 8600"), ("", "port 8600")],
)
async def test_a_host_that_does_not_exist_is_reported(host: str, reason: str) -> None:
    with pytest.raises(CallError, match=reason):
        await place_call(host, 8600, OFFER)


async def test_the_addresses_on_the_way_are_those_of_the_connection(listener: Listener) -> None:
    # the listener is on one of the two addresses the name may have
    assert await reach("localhost", listener.server.port) == (LOOPBACK, LOOPBACK)
    await listener.call()


async def test_a_way_that_leads_nowhere_is_reported() -> None:
    with pytest.raises(CallError, match=r"localhost port \d+: connection refused"):
        await reach("localhost", unused_port())
    with pytest.raises(CallError, match=r"no-such-host\.invalid: unknown host"):
        await reach("no-such-host.invalid", 8600)


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (OSError(errno.EHOSTUNREACH, "Connect call failed"), "no route to the host"),
        (OSError("Multiple exceptions: [Errno 101] a, [Errno 111] b"), "connection refused"),
        (OSError("Multiple exceptions: [Errno 113] a, [Errno 101] b"), "no route to the host"),
        (OSError("odd"), "odd"),
    ],
)
def test_failures_to_connect_are_put_into_words(error: OSError, text: str) -> None:
    assert text in signalling._explain(error)


async def test_a_peer_that_does_not_answer_is_given_up(listener: Listener) -> None:
    listener.gate = asyncio.Event()

    with pytest.raises(CallError, match=r"no answer within 0\.1 s"):
        await place_call(LOOPBACK, listener.server.port, OFFER, timeout=0.1)
    listener.gate.set()


async def stranger(reply: bytes) -> tuple[asyncio.Server, int]:
    """A server of another kind."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if reply[:4] == b"HTTP":
            await reader.readuntil(b"t=0 0")
        writer.write(reply)
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(answer, LOOPBACK, 0)
    return server, server.sockets[0].getsockname()[1]


def http(status: str, headers: str = "", body: bytes = b"") -> bytes:
    return f"HTTP/1.1 {status}\r\n{headers}Content-Length: {len(body)}\r\n\r\n".encode() + body


ANSWER = OFFER.answer(OURS, 9).to_sdp().encode()
TYPE = f"Content-Type: {SDP_TYPE}\r\n"


@pytest.mark.parametrize(
    ("reply", "reason"),
    [
        (b"SSH-2.0-OpenSSH_9.2\r\n", "not a dredcall endpoint"),
        (b"", "not a dredcall endpoint"),
        (http("200 OK"), "not a dredcall endpoint"),
        (http("404 Not Found"), "not a dredcall endpoint .HTTP status 404."),
        (http("302 Found", "Location: http://127.0.0.1/\r\n"), "HTTP status 302"),
        (http("201 Created", TYPE, ANSWER), "names no resource"),
        (http("201 Created", TYPE + "Location: http://evil.example/x\r\n", ANSWER), "another host"),
        (http("201 Created", TYPE + "Location: /call/1\r\n", b"v=1"), "v=0"),
        (http("201 Created", TYPE + "Location: /call/1\r\n", b"\xff"), "utf-8"),
        (http("201 Created", TYPE + "Location: /call/1\r\n", bytes(MAX_SDP + 1)), "longer"),
        (
            http("400 Bad Request", "Content-Type: text/plain\r\n", b"no \x1b[31mway\n" * 99),
            r"refused: no  \[31mway",
        ),
    ],
)
async def test_what_is_not_an_endpoint_is_told_apart(reply: bytes, reason: str) -> None:
    server, port = await stranger(reply)

    with pytest.raises(CallError, match=reason) as failure:
        await place_call(LOOPBACK, port, OFFER)

    assert "\n" not in str(failure.value)
    assert "\x1b" not in str(failure.value)
    server.close()


async def test_hanging_up_at_a_peer_that_is_gone_is_reported() -> None:
    with pytest.raises(CallError, match="hanging up"):
        await hang_up(f"http://{LOOPBACK}:{unused_port()}/call/x")


async def test_hanging_up_where_it_is_refused_is_reported() -> None:
    async def teapot(request: web.Request) -> web.Response:
        return web.Response(status=418)

    application = web.Application()
    application.router.add_delete("/call/x", teapot)
    runner = web.AppRunner(application)
    await runner.setup()
    site = web.TCPSite(runner, LOOPBACK, 0)
    await site.start()
    port = runner.addresses[0][1]

    with pytest.raises(CallError, match="HTTP status 418"):
        await hang_up(f"http://{LOOPBACK}:{port}/call/x")
    await runner.cleanup()


async def test_the_server_takes_calls_over_ipv6_too() -> None:
    listener = Listener()
    listener.server = SignallingServer("::1", 0, listener.on_offer, listener.on_hangup)
    try:
        await listener.server.start()
    except CallError as error:
        pytest.skip(f"no IPv6 here: {error}")
    offer = Offer(MediaDescription("::1", 5004, ssrc=1, cname="caller"), 1)

    _, resource = await place_call("::1", listener.server.port, offer)
    await hang_up(resource)

    assert listener.offers == [(offer, "::1")]
    assert listener.hangups == 1
    await listener.server.close()


async def test_closing_the_server_frees_its_port(listener: Listener) -> None:
    await listener.server.close()

    with pytest.raises(CallError, match="refused"):
        await listener.call()
