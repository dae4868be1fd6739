from __future__ import annotations

import struct
from random import Random

import pytest
from aiortc.rtp import RtpPacket
from hypothesis import given, settings
from hypothesis import strategies as st

from app.net.rtp import (
    MAX_DROPOUT,
    RtpReceived,
    RtpSender,
    SourceStatistics,
    parse_rtp,
    random_ssrc,
    sequence_difference,
    timestamp_difference,
)

FRAME = 0.02
TICKS = 960


@pytest.mark.parametrize(
    ("a", "b", "ahead"),
    [
        (0, 0, 0),
        (1, 0, 1),
        (0, 1, -1),
        (0, 65535, 1),
        (65535, 0, -1),
        (32767, 0, 32767),
        (32768, 0, -32768),
        (10, 65530, 16),
    ],
)
def test_sequence_numbers_are_compared_across_the_wrap(a: int, b: int, ahead: int) -> None:
    assert sequence_difference(a, b) == ahead


@settings(deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(-(2**31), 2**31 - 1))
def test_timestamps_are_compared_across_the_wrap(start: int, step: int) -> None:
    assert timestamp_difference((start + step) % 2**32, start) == step


def test_an_ssrc_is_never_the_one_to_avoid() -> None:
    taken = Random(7).getrandbits(32)

    assert random_ssrc(Random(7), avoid=taken) != taken
    assert random_ssrc(Random(7)) == taken


def sender_at(seed: int) -> RtpSender:
    return RtpSender(ssrc=0xABCD, payload_type=111, rng=Random(seed))


def test_packets_are_numbered_and_stamped_from_a_random_start() -> None:
    sender = sender_at(1)

    packets = [
        RtpPacket.parse(sender.packetise(bytes([i]) * 5, i * TICKS, i * FRAME, marker=i == 0))
        for i in range(3)
    ]

    first = packets[0].sequence_number
    assert [p.sequence_number for p in packets] == [(first + i) % 2**16 for i in range(3)]
    assert [(p.timestamp - sender.origin) % 2**32 for p in packets] == [0, 960, 1920]
    assert [p.marker for p in packets] == [1, 0, 0]
    assert {(p.ssrc, p.payload_type) for p in packets} == {(0xABCD, 111)}
    assert [p.payload for p in packets] == [b"\0" * 5, b"\1" * 5, b"\2" * 5]
    assert (sender.packets, sender.octets) == (3, 15)
    assert first != RtpPacket.parse(sender_at(2).packetise(b"x", 0, 0.0, False)).sequence_number


@given(st.binary(max_size=40) | st.binary(max_size=40).map(b"\x80\x6f".__add__))
def test_packets_are_read_as_aiortc_reads_them(data: bytes) -> None:
    try:
        expected = RtpPacket.parse(data)
    except (ValueError, struct.error):
        with pytest.raises((ValueError, struct.error)):
            parse_rtp(data, 1.0)
        return
    assert parse_rtp(data, 1.0) == RtpReceived(
        sequence=expected.sequence_number,
        timestamp=expected.timestamp,
        ssrc=expected.ssrc,
        marker=bool(expected.marker),
        payload_type=expected.payload_type,
        payload=expected.payload,
        arrival=1.0,
    )


def test_a_sender_counts_on_through_both_wraps() -> None:
    sender = sender_at(3)

    packets = [
        RtpPacket.parse(sender.packetise(b"x", i * 2**20, 0.0, marker=False))
        for i in range(2**16 + 2)
    ]

    assert packets[2**16].sequence_number == packets[0].sequence_number
    assert packets[2**12].timestamp == packets[0].timestamp


def test_a_sender_tells_the_timestamp_of_any_instant_after_its_latest_packet() -> None:
    sender = sender_at(4)
    sender.packetise(b"x", 9600, captured_at=50.0, marker=False)

    assert (sender.timestamp_at(50.0) - sender.origin) % 2**32 == 9600
    assert (sender.timestamp_at(50.25) - sender.origin) % 2**32 == 9600 + 12_000
    assert sender_at(4).timestamp_at(123.0) == sender.origin


def received(*sequences: int) -> SourceStatistics:
    source = SourceStatistics(sequences[0])
    for sequence in sequences:
        source.update_sequence(sequence)
    return source


def test_complete_reception_has_no_loss() -> None:
    report = received(10, 11, 12, 13).report()

    assert (report.packets_lost, report.fraction_lost, report.highest_sequence) == (0, 0, 13)


def test_holes_are_lost_packets() -> None:
    # 10..19 expected, three of them missing: 3/10 of 256 is 76.8, rounded down
    report = received(10, 11, 13, 14, 15, 18, 19).report()

    assert (report.packets_lost, report.fraction_lost) == (3, 76)


def test_the_fraction_is_of_the_interval_and_the_count_is_of_all_time() -> None:
    source = received(0, 1, 3)
    assert source.report().fraction_lost == 64  # one of four

    for sequence in (4, 5, 6, 7):
        source.update_sequence(sequence)
    report = source.report()

    assert (report.packets_lost, report.fraction_lost) == (1, 0)
    assert source.report().fraction_lost == 0  # nothing expected, nothing lost


def test_late_packets_are_no_longer_lost() -> None:
    assert received(1, 2, 5, 4, 3).lost == 0


def test_duplicates_make_the_count_negative_but_not_the_fraction() -> None:
    report = received(1, 2, 2, 2, 3).report()

    assert (report.packets_lost, report.fraction_lost) == (-2, 0)


def test_the_highest_sequence_counts_wraps() -> None:
    assert received(65534, 65535, 0, 1).report().highest_sequence == 0x1_0001
    assert received(65534, 1, 65535, 0).report().highest_sequence == 0x1_0001


def test_a_packet_far_out_of_sequence_is_refused_until_a_second_confirms_it() -> None:
    source = received(100, 101)

    assert not source.update_sequence(101 + MAX_DROPOUT)
    assert source.update_sequence(102)
    assert not source.update_sequence(40_000)
    assert source.update_sequence(40_001)

    assert source.highest_sequence == 40_001
    assert source.update_sequence(40_002)


def test_counts_survive_a_restart_of_the_sender() -> None:
    source = received(100, 102, 103)  # one lost
    source.update_sequence(30_000)
    for sequence in (30_001, 30_002, 30_005):  # two lost
        source.update_sequence(sequence)

    assert source.lost == 3
    assert source.received == 6


def test_jitter_is_the_mean_deviation_of_transit_by_sixteenths() -> None:
    # RFC 3550 section 6.4.1: J += (|D| - J) / 16. Deviations 480, 480 and 0 ticks by hand:
    # 30, then 30 + 450 / 16 = 58.125, then 58.125 * 15 / 16 = 54.4921875
    source = SourceStatistics(0)
    for i, lateness in enumerate([0.0, 0.01, 0.0, 0.0]):
        source.update_jitter(i * TICKS, 5.0 + i * FRAME + lateness)

    assert source.jitter == pytest.approx(54.4921875)
    assert source.report().jitter == 54


def test_jitter_is_zero_for_even_arrivals_across_the_timestamp_wrap() -> None:
    source = SourceStatistics(0)
    for i in range(10):
        source.update_jitter((2**32 - 4 * TICKS + i * TICKS) % 2**32, i * FRAME)

    assert source.jitter == pytest.approx(0, abs=1e-6)


def test_a_restarted_media_clock_is_not_jitter() -> None:
    source = SourceStatistics(0)
    for i in range(5):
        source.update_jitter(i * TICKS, i * FRAME)
    source.update_jitter(2**31, 5 * FRAME)
    source.update_jitter(2**31 + TICKS, 6 * FRAME)

    assert source.jitter == pytest.approx(0, abs=1e-6)


@settings(deadline=None)
@given(st.lists(st.integers(0, 65535), min_size=1, max_size=200))
def test_any_sequence_of_numbers_gives_a_report_that_fits_its_fields(numbers: list[int]) -> None:
    source = SourceStatistics(numbers[0])
    for number in numbers:
        source.update_sequence(number)
        report = source.report()
        assert 0 <= report.fraction_lost <= 255
        assert -(2**23) <= report.packets_lost < 2**23
        assert 0 <= report.highest_sequence < 2**32
    assert 0 < source.received <= len(numbers)
