from __future__ import annotations

import struct
from random import Random
from statistics import mean

import pytest
from aiortc.rtp import RtcpByePacket, RtcpRrPacket, RtcpSdesPacket, RtcpSourceInfo, RtcpSrPacket
from hypothesis import given, settings
from hypothesis import strategies as st

from app.net.rtcp import (
    COMPENSATION,
    RtcpTimer,
    cname_in,
    ntp_from_unix_ns,
    ntp_seconds_between,
    ntp_short,
    parse_compound,
    round_trip_time,
    rtcp_interval,
)

EMPTY_RR = bytes(RtcpRrPacket(ssrc=1))


def test_ntp_time_counts_from_1900() -> None:
    assert ntp_from_unix_ns(0) == 2_208_988_800 << 32
    assert ntp_from_unix_ns(1_500_000_000) == (2_208_988_801 << 32) + (1 << 31)


def test_ntp_time_goes_on_after_the_era_ends_in_2036() -> None:
    before = ntp_from_unix_ns(2_085_978_495_500_000_000)
    after = ntp_from_unix_ns(2_085_978_496_250_000_000)

    assert after < before
    assert ntp_seconds_between(before, after) == pytest.approx(0.75)
    assert ntp_seconds_between(after, before) == pytest.approx(-0.75)


def test_the_round_trip_of_figure_2_of_rfc_3550() -> None:
    last_report = ntp_short(0xB44DB705_20000000)
    assert last_report == 0xB7052000

    assert round_trip_time(0xB7108000, last_report, 0x00054000) == 6.125


def test_a_round_trip_crosses_the_wrap_of_short_ntp_time() -> None:
    assert round_trip_time(0x00008000, 0xFFFF8000, 0x00004000) == 0.75


def test_a_round_trip_is_never_negative() -> None:
    assert round_trip_time(100, 90, 12) == 0


def compute(seed: int = 1, *, members: int = 2, senders: int = 2, bandwidth: float = 400) -> float:
    return rtcp_interval(
        members=members,
        senders=senders,
        bandwidth=bandwidth,
        we_sent=True,
        average_size=120,
        minimum=1,
        rng=Random(seed),
    )


def test_intervals_are_spread_over_half_to_one_and_a_half() -> None:
    intervals = [compute(seed) for seed in range(500)]

    assert min(intervals) >= 0.5 / COMPENSATION
    assert max(intervals) <= 1.5 / COMPENSATION
    assert mean(intervals) == pytest.approx(1 / COMPENSATION, rel=0.05)


def test_the_interval_grows_when_the_bandwidth_does_not_suffice() -> None:
    # two members' 120 bytes each at 60 bytes/s take 4 s
    assert compute(bandwidth=60) == pytest.approx(4 * compute())


def test_few_senders_share_a_quarter_of_the_bandwidth() -> None:
    # 100 members, 10 senders: 10 * 120 bytes at a quarter of 400 bytes/s, 12 s
    assert compute(members=100, senders=10) == pytest.approx(12 * compute())


def test_the_first_report_comes_after_half_the_interval_and_later_ones_after_all_of_it() -> None:
    rng = Random(1)
    timer = RtcpTimer(100.0, rng, session_bandwidth=64_000, minimum=1.0)
    assert 100.0 + 0.25 / COMPENSATION <= timer.due <= 100.0 + 0.75 / COMPENSATION

    timer.restart(101.0, we_sent=True)
    assert 101.0 + 0.5 / COMPENSATION <= timer.due <= 101.0 + 1.5 / COMPENSATION


def test_reports_stay_within_a_twentieth_of_a_narrow_session() -> None:
    timer = RtcpTimer(0.0, Random(2), session_bandwidth=8_000, minimum=0.0)
    now, sent = 0.0, 0
    for _ in range(1000):
        while not timer.expired(now, we_sent=True):
            now = timer.due
        timer.account(100)  # ours
        timer.account(100)  # the peer's
        timer.restart(now, we_sent=True)
        sent += 2 * 128
    assert sent * 8 / now == pytest.approx(400, rel=0.05)


def test_a_report_that_is_due_may_be_put_off_but_not_beyond_the_longest_interval() -> None:
    put_off = 0
    for seed in range(50):
        timer = RtcpTimer(0.0, Random(seed), session_bandwidth=640_000, minimum=1.0)
        assert not timer.expired(timer.due - 0.001, we_sent=True)
        put_off += not timer.expired(timer.due, we_sent=True)
        assert timer.expired(0.75 / COMPENSATION, we_sent=True)
    assert 0 < put_off < 50


def test_a_compound_is_taken_apart() -> None:
    name = RtcpSdesPacket([RtcpSourceInfo(1, [(1, b"me@here")])])
    pieces, unknown = parse_compound(EMPTY_RR + bytes(name) + bytes(RtcpByePacket([1])))

    assert [type(piece) for piece in pieces] == [RtcpRrPacket, RtcpSdesPacket, RtcpByePacket]
    assert isinstance(pieces[1], RtcpSdesPacket)
    assert cname_in(pieces[1], 1) == "me@here"
    assert cname_in(pieces[1], 2) is None
    assert unknown == 0


def test_pieces_of_other_types_are_counted() -> None:
    feedback = struct.pack("!BBHL", 0x80, 205, 1, 1)
    pieces, unknown = parse_compound(EMPTY_RR + feedback + feedback)

    assert len(pieces) == 1
    assert unknown == 2


def test_profile_extensions_of_a_report_are_passed_over() -> None:
    info = struct.pack("!LQLLL", 9, 5 << 32, 6, 7, 8)
    pieces, _ = parse_compound(struct.pack("!BBH", 0x80, 200, 8) + info + b"extended")

    assert isinstance(pieces[0], RtcpSrPacket)
    assert (pieces[0].ssrc, pieces[0].sender_info.packet_count) == (9, 7)


def test_padding_is_taken_off_the_last_piece() -> None:
    padded = struct.pack("!BBHL", 0xA0, 201, 2, 1) + b"\0\0\0\4"
    pieces, _ = parse_compound(padded)

    assert pieces == [RtcpRrPacket(ssrc=1)]


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "start"),
        (bytes(RtcpByePacket([1])), "start"),
        (EMPTY_RR[:-1], "start"),
        (EMPTY_RR + b"\x80\xca\0", "truncated"),
        (EMPTY_RR + b"\x80\xca\0\x01", "truncated"),
        (EMPTY_RR + b"\x40\xca\0\0", "version"),
        (struct.pack("!BBHL", 0xA0, 201, 2, 1) + b"\0\0\0\4" + EMPTY_RR, "padding"),
        (struct.pack("!BBHL", 0xA0, 201, 2, 1) + b"\0\0\0\x0d", "padding"),
        (struct.pack("!BBHL", 0x81, 201, 1, 1), "report"),
        (EMPTY_RR + struct.pack("!BBH", 0x82, 203, 1) + b"abcd", "bye"),
    ],
)
def test_a_compound_that_contradicts_itself_is_refused(data: bytes, reason: str) -> None:
    with pytest.raises(ValueError, match=f"(?i){reason}"):
        parse_compound(data)


@settings(deadline=None)
@given(st.binary(max_size=200))
def test_any_bytes_after_a_report_parse_or_are_refused(rest: bytes) -> None:
    try:
        pieces, unknown = parse_compound(EMPTY_RR + rest)
    except ValueError:
        return
    assert 1 <= len(pieces) + unknown <= 2 + len(rest) // 4
