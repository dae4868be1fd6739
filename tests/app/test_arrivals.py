"""Arrivals are written as they were seen, read back strictly, and replayed to the packet."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.arrivals import (
    HEADER,
    ArrivalRecorder,
    ArrivalReplay,
    ArrivalsError,
    ArrivalTrace,
    frozen_network,
    load_arrivals,
    parse_arrivals,
)
from app.net.rtp import RtpReceived
from app.options import UsageError
from codec import FRAME_SECONDS, FRAME_TICKS

RTP, RTCP = bytes([0x80, 111]) + bytes(20), bytes([0x80, 200]) + bytes(20)


def received(
    number: int, arrival: float, *, first: int = 65_530, origin: int = 2**32 - 5000
) -> RtpReceived:
    """Packet `number` of a stream whose numbers soon wrap."""
    return RtpReceived(
        sequence=(first + number) % 2**16,
        timestamp=(origin + number * FRAME_TICKS) % 2**32,
        ssrc=1,
        marker=False,
        payload_type=111,
        payload=bytes(60),
        arrival=arrival,
    )


def recorded(path: Path, packets: list[RtpReceived]) -> ArrivalTrace:
    recorder = ArrivalRecorder(path)
    for packet in packets:
        recorder.add(packet)
    recorder.close()
    assert recorder.error is None
    assert recorder.dropped == 0
    return load_arrivals(path)


def lines(*rows: str) -> str:
    return "\n".join([HEADER, *rows]) + "\n"


def test_what_is_recorded_is_what_is_replayed(tmp_path: Path) -> None:
    transits = {n: 0.030 + 0.001 * (n * 7 % 11) for n in range(40) if n not in (5, 6, 20)}
    arrivals = sorted((n * FRAME_SECONDS + transit, n) for n, transit in transits.items())
    trace = recorded(tmp_path / "a.csv", [received(n, 1e5 + at) for at, n in arrivals])
    fastest = min(transits.values())
    assert len(trace) == 40
    for n in range(40):
        expected = [transits[n] - fastest] if n in transits else []
        assert trace[n] == pytest.approx(expected, abs=2e-6)


def test_a_file_has_one_line_per_packet(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    recorded(path, [received(0, 50.0), received(1, 50.0213)])
    assert path.read_text() == lines("0.000000,65530,4294962296,60", "0.021300,65531,4294963256,60")


def test_copies_and_stragglers_keep_their_places(tmp_path: Path) -> None:
    order = [(0, 0.00), (2, 0.04), (1, 0.05), (2, 0.06), (3, 0.06)]
    trace = recorded(tmp_path / "a.csv", [received(n, at) for n, at in order])
    assert [list(trace[n]) for n in range(4)] == [
        pytest.approx(transits, abs=2e-6) for transits in ([0.0], [0.03], [0.0, 0.02], [0.0])
    ]


def test_a_trace_that_has_ended_begins_again() -> None:
    trace = ArrivalTrace([(0.0,), (), (0.5,)])
    assert [trace[n] for n in range(7)] == [(0.0,), (), (0.5,), (0.0,), (), (0.5,), (0.0,)]


def test_a_replay_counts_media_and_lets_reports_pass() -> None:
    link = ArrivalReplay(ArrivalTrace([(0.1,), (), (0.0, 0.3)]))
    for n in range(3):
        link.push(RTP + bytes([n]), float(n))
        link.push(RTCP, float(n))
    came = []
    while (due := link.next_due()) is not None:
        came += [(round(each.at, 3), each.data) for each in link.pop_due(due)]
    assert came == [
        (0.0, RTCP),
        (0.1, RTP + b"\0"),
        (1.0, RTCP),
        (2.0, RTP + b"\2"),
        (2.0, RTCP),
        (2.3, RTP + b"\2"),
    ]


def test_a_frozen_network_lets_all_through_at_one_instant() -> None:
    trace = frozen_network(1.0, packets=100, at=10)
    came = [n * FRAME_SECONDS + trace[n][0] for n in range(100)]
    assert came[:10] == pytest.approx([n * FRAME_SECONDS for n in range(10)])
    assert came[10:61] == pytest.approx([1.2] * 51)
    assert came[61:] == pytest.approx([n * FRAME_SECONDS for n in range(61, 100)])


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "line 1: expected arrival_s"),
        ("0 1 1 0\n", "line 1: expected arrival_s"),
        (lines(), "no packets"),
        (lines("0,1,2"), "line 2: 3 values"),
        (lines("0,1,2,3", ""), "line 3: 1 values"),
        (lines("-1,1,2,3"), "line 2: arrival_s '-1'"),
        (lines("nan,1,2,3"), "line 2: arrival_s 'nan'"),
        (lines("1e3,1,2,3"), "line 2: arrival_s '1e3'"),
        (lines("0,65536,2,3"), "line 2: sequence '65536' is not 0-65535"),
        (lines("0,1,4294967296,3"), "line 2: timestamp '4294967296'"),
        (lines("0,1,2,x"), "line 2: bytes 'x'"),
        (lines("0,٣,2,3"), "line 2: sequence"),
        (lines("0.5,1,0,3", "0.4,2,960,3"), "line 3: arrived before"),
        (lines("0,1,0,3", "0.1,5000,960,3"), "line 3: sequence 5000 is 4999 packets from 1"),
        (lines("0,1,0,3", "0.1,2,2000000000,3"), "line 3: timestamp 2000000000 does not fit"),
    ],
)
def test_what_is_wrong_with_a_recording_is_named(text: str, complaint: str) -> None:
    with pytest.raises(ArrivalsError) as raised:
        parse_arrivals(text, "arrivals.csv")
    assert str(raised.value).startswith("arrivals.csv")
    assert complaint in str(raised.value)
    assert "\n" not in str(raised.value)


@given(
    st.text() | st.lists(st.text(alphabet="0123456789.,-x\n"), max_size=5).map(lambda r: lines(*r))
)
def test_no_text_does_more_than_be_refused(text: str) -> None:
    trace = None
    with suppress(ArrivalsError):
        trace = parse_arrivals(text)
    assert trace is None or len(trace)


def test_few_lines_cannot_ask_for_much_memory() -> None:
    rows = [f"0,{n * 3000 % 2**16},0,60" for n in range(1500)]
    with pytest.raises(ArrivalsError, match="more than 4194304"):
        parse_arrivals(lines(*rows))


def test_files_that_cannot_be_read_or_made_are_named(tmp_path: Path) -> None:
    with pytest.raises(ArrivalsError, match=r"missing\.csv"):
        load_arrivals(tmp_path / "missing.csv")
    with pytest.raises(UsageError, match="--record-arrivals"):
        ArrivalRecorder(tmp_path / "missing" / "a.csv")


def test_a_full_disk_ends_the_recording_not_the_call() -> None:
    recorder = ArrivalRecorder(Path("/dev/full"))
    for n in range(3000):
        recorder.add(received(n, float(n)))
    recorder.close()
    recorder.close()
    assert recorder.error is not None
    assert "/dev/full" in recorder.error
