"""What is played, frame by frame: order, holes, recovery, pauses."""

from __future__ import annotations

from typing import Any

import pytest

from codec.frame import FrameSource
from jitterbuffer import JitterBuffer, MediaPacket
from jitterbuffer.buffer import CONCEAL_FRAMES
from jitterbuffer.plan import DRED_REACH
from tests.jitterbuffer.playout import P, Playout, S, Sender, played

SENDER = Sender()
WITH_LBRR = Sender(lbrr=True)
WITH_DRED = Sender(dred=True)


def playout(target_ms: float = 40, **arguments: Any) -> Playout:
    return Playout(JitterBuffer(target_delay=target_ms / 1000, **arguments))


def test_before_anything_has_come_there_is_silence() -> None:
    line = playout()
    assert line.run([], 3) == [S, S, S]
    assert line.buffer.stats.total_samples_received == 0
    assert line.buffer.stats.concealed_samples == 0


def test_the_first_packet_is_played_the_target_delay_after_its_arrival() -> None:
    assert playout(40).run(SENDER.packets(range(6)), 6) == [S, S, 0, 1, 2, 3]


def test_without_a_target_delay_packets_are_played_as_they_come() -> None:
    assert playout(0).run(SENDER.packets(range(4)), 4) == [0, 1, 2, 3]


def test_packets_out_of_order_are_played_in_order() -> None:
    arrivals = SENDER.packets(range(6), late={1: 0.035, 3: 0.03})
    assert playout().run(arrivals, 8) == [S, S, 0, 1, 2, 3, 4, 5]


def test_packets_out_of_order_at_the_very_start_are_played_in_order() -> None:
    arrivals = [(0.0, SENDER.packet(1)), (0.001, SENDER.packet(0)), (0.02, SENDER.packet(2))]
    assert played(playout().run(arrivals, 6)) == [0, 1, 2]


def test_duplicates_are_played_once_and_counted() -> None:
    packets = SENDER.packets(range(4))
    line = playout()
    # Twins of packets that wait, and one of a packet that has been played.
    assert line.run([*packets, *packets[1:3], (0.07, packets[0][1])], 6) == [S, S, 0, 1, 2, 3]
    assert line.buffer.stats.packets_duplicated == 3
    assert line.buffer.stats.packets_discarded == 0


def test_a_late_packet_is_discarded_and_counted() -> None:
    line = playout()
    assert line.run(SENDER.packets(range(5), late={1: 0.05}), 7) == [S, S, 0, P, 2, 3, 4]
    stats = line.buffer.stats
    assert (stats.packets_late, stats.packets_discarded, stats.concealed_samples) == (1, 1, 320)


def test_numbers_wrap_around() -> None:
    sender = Sender(sequence=2**16 - 3, timestamp=2**32 - 2 * 960)
    line = playout()
    late = {3: 0.035}
    assert line.run(sender.packets(range(8), late=late), 10) == [S, S, 0, 1, 2, 3, 4, 5, 6, 7]
    timestamps = [plan.timestamp for plan in line.plans[2:]]
    assert timestamps == [2**32 + 960 * i for i in range(-2, 6)]


def test_a_packet_older_than_the_first_may_wrap_backwards() -> None:
    sender = Sender(sequence=2**16 - 1, timestamp=2**32 - 960)
    arrivals = [(0.0, sender.packet(1)), (0.001, sender.packet(0))]
    assert played(playout().run(arrivals, 5)) == [0, 1]


def test_the_lbrr_of_the_next_packet_fills_a_hole() -> None:
    line = playout()
    drawn = line.run(WITH_LBRR.packets([0, 1, 3, 4]), 7)
    assert drawn == [S, S, 0, 1, "lbrr 2", 3, 4]
    plan = line.plans[4]
    assert plan.distance == 1
    assert plan.timestamp == 2 * 960
    assert plan.arrival == pytest.approx(0.06)
    stats = line.buffer.stats
    assert (stats.fec_packets_received, stats.fec_packets_discarded) == (4, 3)
    assert stats.concealed_samples == 0


def test_lbrr_reaches_back_one_frame_only() -> None:
    drawn = playout().run(WITH_LBRR.packets([0, 3, 4]), 7)
    assert drawn == [S, S, 0, P, "lbrr 2", 3, 4]


def test_lbrr_that_comes_too_late_does_not_help() -> None:
    drawn = playout(0).run(WITH_LBRR.packets([0, 2, 3]), 4)
    assert drawn == [0, P, 2, 3]


def test_a_packet_without_lbrr_does_not_fill_the_hole_before_it() -> None:
    assert playout().run(SENDER.packets([0, 2]), 5) == [S, S, 0, P, 2]


def test_recovery_can_be_limited() -> None:
    line = playout(recovery={FrameSource.PLC})
    assert line.run(WITH_LBRR.packets([0, 2]), 5) == [S, S, 0, P, 2]
    line = playout(recovery=frozenset())
    assert line.run(WITH_LBRR.packets([0, 2]), 5) == [S, S, 0, S, 2]
    assert line.buffer.stats.silent_concealed_samples == 320


def test_a_recovery_that_the_buffer_does_not_plan_is_refused() -> None:
    with pytest.raises(ValueError, match="packet"):
        JitterBuffer(target_delay=0.04, recovery={FrameSource.PACKET})


@pytest.mark.parametrize("target", [-0.01, 2.1, float("nan")])
def test_a_target_beyond_the_bounds_is_refused(target: float) -> None:
    with pytest.raises(ValueError, match="target_delay"):
        JitterBuffer(target_delay=target)


def test_a_pause_of_the_sender_is_silence_and_no_loss() -> None:
    # Frames 3 to 5 were not sent: the timestamp steps, the sequence does not.
    resumed = [(0.02 * n, SENDER.packet(n, skipped=3)) for n in (6, 7)]
    line = playout(80)
    drawn = line.run([*SENDER.packets(range(3)), *resumed], 12)
    assert drawn == [S, S, S, S, 0, 1, 2, S, S, S, 6, 7]
    stats = line.buffer.stats
    assert stats.concealed_samples == 0
    assert stats.concealment_events == 0


def test_an_announced_pause_is_silence_before_anything_follows() -> None:
    last = SENDER.packet(2)
    announcement = MediaPacket(last.sequence, last.timestamp, last.ssrc, b"\x48")
    line = playout()
    arrivals = [
        *SENDER.packets(range(2)),
        (0.04, announcement),
        (0.4, SENDER.packet(20, skipped=17)),
    ]
    drawn = line.run(arrivals, 24)
    assert drawn[:4] == [S, S, 0, 1]
    assert drawn[5:22] == [S] * 17
    assert drawn[22] == 20
    assert line.buffer.stats.concealed_samples == 320  # what may have followed packet 20


def test_a_loss_inside_a_pause_is_taken_for_a_loss() -> None:
    arrivals = [*SENDER.packets(range(2)), (0.1, SENDER.packet(5, skipped=2))]
    assert playout(80).run(arrivals, 10) == [S, S, S, S, 0, 1, P, P, P, 5]


def test_concealment_ends_in_silence() -> None:
    line = playout(0)
    drawn = line.run(SENDER.packets(range(1)), CONCEAL_FRAMES + 4)
    assert drawn == [0] + [P] * CONCEAL_FRAMES + [S] * 3
    stats = line.buffer.stats
    assert stats.concealment_events == 1
    assert stats.silent_concealed_samples == 3 * 320


def test_timestamps_off_the_grid_of_frames_fall_into_the_nearest_slot() -> None:
    packets = [
        MediaPacket(n, 960 * n + offset, 1, SENDER.packet(n).payload)
        for n, offset in enumerate([0, 0, 120, -360, 479, 0])
    ]
    line = playout()
    drawn = line.run([(0.02 * n, packet) for n, packet in enumerate(packets)], 8)
    assert drawn == [S, S, 0, 1, 2, 3, 4, 5]
    assert line.plans[4].timestamp == 2 * 960 + 120


def test_statistics_have_their_names_of_webrtc() -> None:
    line = playout()
    line.run(WITH_LBRR.packets([0, 1, 3, 4, 7]), 10)
    stats = line.buffer.stats
    assert stats.webrtc() == {
        "packetsDiscarded": 0,
        "fecPacketsReceived": 5,
        "fecPacketsDiscarded": 3,
        "jitterBufferDelay": pytest.approx(5 * 320 * 0.04),
        "jitterBufferTargetDelay": pytest.approx(5 * 320 * 0.04),
        "jitterBufferEmittedCount": 5 * 320,
        "totalSamplesReceived": 8 * 320,
        "concealedSamples": 320,
        "silentConcealedSamples": 0,
        "concealmentEvents": 1,
        "insertedSamplesForDeceleration": 0,
        "removedSamplesForAcceleration": 0,
    }
    assert stats.frames == {
        FrameSource.PACKET: 5,
        FrameSource.RED: 0,
        FrameSource.LBRR: 2,
        FrameSource.DRED: 0,
        FrameSource.PLC: 1,
        FrameSource.SILENCE: 2,
    }


def test_a_long_hole_is_filled_from_the_dred_of_the_packet_behind_it() -> None:
    line = playout(120)
    drawn = line.run(WITH_DRED.packets([0, 1, 6, 7]), 14)
    assert drawn == [S] * 6 + [0, 1, "dred 6", "dred 6", "dred 6", "dred 6", 6, 7]
    assert [plan.distance for plan in line.plans[8:12]] == [4, 3, 2, 1]


def test_lbrr_is_better_than_dred_where_there_are_both() -> None:
    packets = Sender(lbrr=True, dred=True).packets([0, 3, 4])
    assert playout(80).run(packets, 9) == [S] * 4 + [0, "dred 3", "lbrr 2", 3, 4]


def test_dred_comes_from_a_later_packet_if_the_next_one_carries_none() -> None:
    arrivals = [*SENDER.packets([0, 3]), *WITH_DRED.packets([4])]
    assert playout(80).run(arrivals, 9) == [S] * 4 + [0, "dred 4", "dred 4", 3, 4]


def test_dred_is_not_asked_about_what_lies_further_back_than_it_can_reach() -> None:
    line = playout(1500)
    drawn = line.run(WITH_DRED.packets([0, DRED_REACH + 2]), 75 + DRED_REACH + 3)
    assert drawn[75:] == [0, P, *["dred 54"] * DRED_REACH, 54]


def test_dred_is_left_alone_when_it_is_not_asked_for() -> None:
    line = playout(80, recovery=frozenset({FrameSource.PLC}))
    assert line.run(WITH_DRED.packets([0, 2, 3]), 8) == [S] * 4 + [0, P, 2, 3]
