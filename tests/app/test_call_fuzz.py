"""A call in progress is fed everything but what it expects, and goes on."""

from __future__ import annotations

import contextlib
import socket
import struct
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from aiortc.rtp import RtcpByePacket, RtpPacket
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from app.net.errors import CallError
from app.net.rtcp import parse_compound
from app.net.session import is_rtcp
from codec import FRAME_TICKS
from codec.frame import FrameSource
from tests.app.calls import LOOPBACK, Endpoint, endpoints
from tests.app.peer import Peer
from tests.app.test_report import violations

DATAGRAMS = 400
REQUESTS = 40


SETTLED = 100
"""Packets after which numbers that had jumped are believed again, and after forged ones that were
ahead of time the true ones are no longer taken for late: 2 s, by which a packet of the running
stream may be ahead at most. What is drawn here varies with what else pytest has imported."""


@dataclass
class Line:
    """A listener in a call with a peer that may send anything."""

    listener: Endpoint
    peer: Peer
    memory: int
    """Bytes resident when the call had just begun."""


def resident(endpoint: Endpoint) -> int:
    status = Path(f"/proc/{endpoint.process.pid}/status").read_text()
    (line,) = (line for line in status.splitlines() if line.startswith("VmRSS"))
    return 1024 * int(line.split()[1])


@pytest.fixture(scope="module")
def line(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Line]:
    with endpoints() as start:
        folder = tmp_path_factory.mktemp("fuzz")
        listener = start(folder, "listen", "--host", LOOPBACK, "--port", "0")
        peer = Peer(listener.port, seed=9)
        peer.start()
        listener.wait_until_heard(50)
        yield Line(listener, peer, resident(listener))
        peer.close()


def ends_the_call(data: bytes, peer: Peer) -> bool:
    """A goodbye in the peer's name does, rightly."""
    if not is_rtcp(data):
        return False
    with contextlib.suppress(ValueError, struct.error):
        pieces, _ = parse_compound(data)
        return any(isinstance(piece, RtcpByePacket) for piece in pieces)
    return False


def mutated(data: bytes, cuts: tuple[float, float], flips: list[tuple[float, int]]) -> bytes:
    """A stretch of `data` with some bytes changed."""
    begin, end = sorted(int(cut * len(data)) for cut in cuts)
    changed = bytearray(data if begin == end else data[begin:end])
    for place, value in flips:
        if changed:
            changed[int(place * len(changed)) % len(changed)] ^= value
    return bytes(changed)


FRACTION = st.floats(0, 1, allow_nan=False)
CUTS = st.one_of(
    st.just((0.0, 1.0)), st.tuples(st.just(0.0), FRACTION), st.tuples(FRACTION, FRACTION)
)
FLIPS = st.lists(st.tuples(FRACTION, st.integers(1, 255)), max_size=8)

in_one_call = settings(
    max_examples=DATAGRAMS,
    deadline=None,
    database=None,
    # an example has effects on the call and cannot be repeated
    phases=[Phase.generate],
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


def test_the_fuzzer_s_own_notion_of_a_goodbye_is_right(line: Line) -> None:
    goodbye = line.peer.goodbye()
    assert ends_the_call(goodbye, line.peer)
    assert not ends_the_call(line.peer.report(), line.peer)
    assert not ends_the_call(b"\xff\xff\xff", line.peer)


def test_garbage_from_the_peer_s_own_port_disturbs_nothing(line: Line) -> None:
    @seed(1)
    @in_one_call
    @given(st.binary(max_size=1500))
    def send(data: bytes) -> None:
        if not ends_the_call(data, line.peer):
            line.peer.send(data)

    send()
    goes_on(line)


def test_mutated_and_cut_packets_and_reports_disturb_nothing(line: Line) -> None:
    @seed(2)
    @in_one_call
    @given(st.booleans(), CUTS, FLIPS)
    def send(report: bool, cuts: tuple[float, float], flips: list[tuple[float, int]]) -> None:
        data = mutated(line.peer.report() if report else line.peer.latest, cuts, flips)
        if not ends_the_call(data, line.peer):
            line.peer.send(data)

    send()
    goes_on(line)


def test_packets_of_the_right_source_with_any_payload_disturb_nothing(line: Line) -> None:
    @seed(3)
    @in_one_call
    @given(st.binary(max_size=400), st.integers(0, 63), st.integers(1, 3))
    def send(payload: bytes, config: int, ahead: int) -> None:
        packet = RtpPacket.parse(line.peer.latest)
        packet.sequence_number = (packet.sequence_number + ahead) % 2**16
        packet.timestamp = (packet.timestamp + ahead * FRAME_TICKS) % 2**32
        # a TOC byte that asks for any of the coding modes, and anything after it
        packet.payload = bytes([config << 2 & 0xFF]) + payload
        line.peer.send(packet.serialize())

    send()
    goes_on(line)


def test_datagrams_from_another_port_are_ignored_though_they_bear_the_peer_s_name(
    line: Line,
) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stranger:
        stranger.bind((LOOPBACK, 0))
        stranger.sendto(line.peer.goodbye(), line.peer.there)
        for ahead in range(100):
            packet = RtpPacket.parse(line.peer.latest)
            packet.sequence_number = (packet.sequence_number + 30_000 + ahead) % 2**16
            packet.timestamp = (packet.timestamp + 48_000 * 60 + ahead * FRAME_TICKS) % 2**32
            packet.payload = b"\xff" * 100
            stranger.sendto(packet.serialize(), line.peer.there)
    goes_on(line)


def test_http_garbage_leaves_the_call_and_the_port_alone(line: Line) -> None:
    port = line.listener.port

    @seed(4)
    @settings(in_one_call, max_examples=REQUESTS)
    @given(
        st.one_of(
            st.binary(max_size=3000),
            st.binary(max_size=300).map(
                lambda body: (
                    b"POST /call HTTP/1.1\r\nHost: x\r\nContent-Type: application/sdp\r\n"
                    b"Content-Length: " + str(len(body)).encode() + b"\r\n\r\n" + body
                )
            ),
            st.text(max_size=200).map(
                lambda path: f"DELETE /call/{path} HTTP/1.1\r\n\r\n".encode()
            ),
            st.binary(max_size=300).map(lambda rest: b"POST /call HTTP/1.1\r\n" + rest),
        )
    )
    def request(data: bytes) -> None:
        with socket.create_connection((LOOPBACK, port), timeout=10) as connection:
            connection.sendall(data)
            connection.shutdown(socket.SHUT_WR)
            with contextlib.suppress(ConnectionError):
                connection.recv(4096)

    request()
    with pytest.raises(CallError, match="is busy"):
        Peer(port, seed=10)
    goes_on(line)


def goes_on(line: Line) -> None:
    """What is sent from now on is played, to the last second."""
    process = line.listener.process
    assert process.poll() is None, line.listener.said
    before = len(line.peer.sent)
    time.sleep(3.0)
    fresh = set(line.peer.sent[before + SETTLED :])
    time.sleep(0.4)  # until they have been heard and written down
    ledger = line.listener.path("csv").read_text().splitlines()[1:]
    played = {
        int(row.split(",")[1]) & 0xFFFF_FFFF for row in ledger if f",{FrameSource.PACKET}," in row
    }
    with line.peer.unless_it_was_late(before):
        assert len(fresh) > 40
        assert len(fresh & played) > 0.9 * len(fresh)


def test_the_call_ends_in_order_nothing_was_logged_and_memory_is_bounded(line: Line) -> None:
    grown = resident(line.listener) - line.memory
    assert grown < 20e6
    line.peer.hang_up()
    assert line.listener.end() == 0
    assert line.listener.said[1:] == ["dredcall: the peer hung up"]
    report = line.listener.report
    assert violations(report) == []
    assert line.peer.heard > 100
