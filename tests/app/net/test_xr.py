from __future__ import annotations

import struct
from random import Random

import pytest
from aiortc.rtp import RtcpReceiverInfo, RtcpRrPacket, RtpPacket
from hypothesis import given
from hypothesis import strategies as st

from app.net.bursts import BurstMetrics
from app.net.rtcp import ReportReceived
from app.net.session import DropReason, RtpSession
from app.net.xr import pack_voip_metrics, parse_extended_report
from codec import FRAME_SECONDS, FRAME_TICKS

NTP_AT_ZERO = 3_900_000_000 << 32
METRICS = BurstMetrics(0.25, 0.75, 0.0078125, 240.0, 4000.0)

US, PEER = 1, 2


def ntp(now: float) -> int:
    return NTP_AT_ZERO + round(now * 2**32)


def sessions() -> tuple[RtpSession, RtpSession]:
    us, peer = (
        RtpSession(
            now=0.0, rng=Random(i), cname="me@here", payload_type=111, ssrc=i, peer_ssrc=3 - i
        )
        for i in (US, PEER)
    )
    return us, peer


def talk(us: RtpSession, peer: RtpSession, arrived: str, first: int = 0) -> None:
    for i, outcome in enumerate(arrived, first):
        now = i * FRAME_SECONDS
        packet = us.packetise(b"opus", i * FRAME_TICKS, now)
        if outcome == ".":
            peer.receive(packet, now, ntp(now))


def report(us: RtpSession, data: bytes, now: float) -> ReportReceived:
    (event,) = us.receive(data, now, ntp(now))
    assert isinstance(event, ReportReceived)
    return event


def test_the_block_is_that_of_the_rfc_field_by_field() -> None:
    packet = pack_voip_metrics(PEER, US, METRICS, round_trip=0.1234)

    assert packet == struct.pack(
        "!BBHL BBHL BBBB HHHH BBBB BBBB BBHHH",
        *(0x80, 207, 10, PEER),
        *(7, 0, 8, US),
        *(64, 0, 192, 2),
        *(240, 4000, 123, 0),
        *(127, 127, 127, 16),
        *(127, 127, 127, 127),
        *(0, 0, 0, 0, 0),
    )


def test_what_is_packed_is_read() -> None:
    read = parse_extended_report(pack_voip_metrics(PEER, US, METRICS, None)[4:])

    assert (read.ssrc, read.bursts) == (PEER, {US: METRICS})


@given(
    st.builds(
        BurstMetrics,
        *[st.floats(0, 1)] * 3,
        *[st.floats(0, 1e12)] * 2,
    ),
    st.none() | st.floats(0, 1e6),
)
def test_metrics_are_cut_to_what_the_fields_hold(
    metrics: BurstMetrics, round_trip: float | None
) -> None:
    packet = pack_voip_metrics(PEER, US, metrics, round_trip)
    read = parse_extended_report(packet[4:]).bursts[US]

    assert metrics.loss_rate - 1 / 128 <= read.loss_rate <= metrics.loss_rate
    assert metrics.burst_density - 1 / 128 <= read.burst_density <= metrics.burst_density
    assert read.burst_ms == min(round(metrics.burst_ms), 65535)
    assert read.gap_ms == min(round(metrics.gap_ms), 65535)


def test_blocks_of_other_types_and_lengths_are_skipped() -> None:
    voip = pack_voip_metrics(PEER, US, METRICS, None)[8:]
    receiver_time = struct.pack("!BBHQ", 4, 0, 2, 5)
    short_voip = struct.pack("!BBHL", 7, 0, 1, US)
    body = struct.pack("!L", PEER) + receiver_time + short_voip + voip + receiver_time

    assert parse_extended_report(body).bursts == {US: METRICS}


@pytest.mark.parametrize("body", [b"", b"abc", b"abcd\x07", b"abcd\x07\0\0\x08" + bytes(31)])
def test_a_report_that_contradicts_its_length_is_refused(body: bytes) -> None:
    with pytest.raises(ValueError, match="extended report"):
        parse_extended_report(body)


@given(
    st.binary(max_size=200)
    | st.lists(
        st.builds(
            lambda kind, words, body: struct.pack("!BBH", kind, 0, words) + body,
            st.sampled_from([1, 4, 7, 255]),
            st.integers(0, 9) | st.just(0xFFFF),
            st.binary(max_size=40),
        )
    ).map(b"".join)
)
def test_any_bytes_are_read_or_refused(rest: bytes) -> None:
    try:
        read = parse_extended_report(b"abcd" + rest)
    except ValueError:
        return
    assert len(read.bursts) <= len(rest) // 36
    for metrics in read.bursts.values():
        assert 0 <= metrics.loss_rate < 1
        assert 0 <= metrics.burst_ms <= 65535


def test_the_sender_learns_in_what_bursts_its_packets_are_lost() -> None:
    us, peer = sessions()
    talk(us, peer, ("." * 90 + "x" * 10) * 3 + "." * 30)

    bursts = report(us, peer.make_report(7.0, ntp(7.0)), 7.0).bursts

    assert bursts is not None
    assert bursts.burst_ms == 200
    assert bursts.burst_density > 0.99
    assert bursts.gap_density == 0
    assert bursts.loss_rate == pytest.approx(0.1, abs=0.02)


def test_the_round_trip_goes_out_as_soon_as_it_is_known() -> None:
    us, peer = sessions()
    talk(us, peer, "." * 20)
    talk(peer, us, "." * 20)
    peer.receive(us.make_report(1.0, ntp(1.0)), 1.05, ntp(1.05))
    us.receive(peer.make_report(1.05, ntp(1.05)), 1.10, ntp(1.10))
    talk(peer, us, ".", first=60)
    answer = us.make_report(1.3, ntp(1.3))

    block = answer.rindex(struct.pack("!BBHL", 7, 0, 8, PEER))
    assert struct.unpack_from("!H", answer, block + 16) == (100,)


def test_nothing_is_said_of_a_source_that_was_not_heard_since() -> None:
    us, peer = sessions()
    talk(us, peer, "." * 20)

    assert report(us, peer.make_report(1.0, ntp(1.0)), 1.0).bursts is not None
    assert report(us, peer.make_report(2.0, ntp(2.0)), 2.0).bursts is None


def test_peers_without_extended_reports_tell_of_no_bursts() -> None:
    us, _ = sessions()
    block = RtcpReceiverInfo(US, 25, 10, 100, 0, 0, 0)

    event = report(us, bytes(RtcpRrPacket(PEER, [block])), 1.0)

    assert event.reception is not None
    assert event.bursts is None


def test_metrics_of_another_reporter_or_about_another_stream_do_not_count() -> None:
    us, _ = sessions()
    foreign = pack_voip_metrics(99, US, METRICS, None) + pack_voip_metrics(PEER, 99, METRICS, None)

    assert report(us, bytes(RtcpRrPacket(PEER)) + foreign, 1.0).bursts is None


def test_a_broken_extended_report_takes_its_compound_with_it() -> None:
    us, _ = sessions()
    broken = struct.pack("!BBHLBBH", 0x80, 207, 2, PEER, 7, 0, 8)

    assert us.receive(bytes(RtcpRrPacket(PEER)) + broken, 1.0, ntp(1.0)) == []
    assert us.dropped == {DropReason.MALFORMED: 1}


def test_bursts_are_counted_across_the_wrap_and_not_across_a_restart() -> None:
    us, peer = sessions()

    def numbered(begin: int, arrived: str) -> BurstMetrics | None:
        for i, outcome in enumerate(arrived):
            if outcome == ".":
                packet = RtpPacket(111, 0, (begin + i) & 0xFFFF, i * FRAME_TICKS, US, b"opus")
                peer.receive(packet.serialize(), i * FRAME_SECONDS, ntp(i * FRAME_SECONDS))
        return report(us, peer.make_report(100.0, ntp(100.0)), 100.0).bursts

    bursts = numbered(64_541, ("." * 990 + "x" * 10) * 3 + "." * 998)
    assert bursts is not None
    assert (bursts.burst_ms, bursts.gap_ms) == (200, 19_800)

    after = numbered(20_000, "." * 4000)
    assert after is not None
    assert (after.loss_rate, after.burst_ms) == (0, 0)
