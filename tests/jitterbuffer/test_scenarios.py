"""What networks do to a call, and what the adaptive receiver makes of it: delay over time."""

from __future__ import annotations

import math
import random
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

from codec.frame import FramePlan, FrameSource, HoleAction, PcmFrame
from jitterbuffer import Latency, LatencyPolicy, MediaPacket
from tests.jitterbuffer.playout import payload
from tests.jitterbuffer.speech import TICK, Heard, Line, PlanDecoder, balanced, patient

CLEAN = 30.5
"""Milliseconds from arrival to playout without jitter or loss."""


def bursts(packets: int, loss: float, mean: float, seed: int = 1) -> list[bool]:
    """Gilbert losses: which packets do not come."""
    rng = random.Random(seed)
    lost, state = [], False
    for _ in range(packets):
        state = rng.random() < ((1 - 1 / mean) if state else loss / (1 - loss) / mean)
        lost.append(state)
    return lost


def arrived(lost: list[bool]) -> list[int]:
    return [number for number, is_lost in enumerate(lost) if not is_lost]


def test_a_clean_call_is_never_stretched_and_waits_no_longer_than_a_fixed_buffer() -> None:
    line = Line(balanced())
    heard = line.run(line.packets(range(400)), 8.0)
    assert set(heard.delays()) == {CLEAN}
    stats = line.buffer.stats
    assert stats.inserted_samples_for_deceleration == 0
    assert stats.removed_samples_for_acceleration == 0
    assert stats.concealed_samples == 0


@pytest.mark.parametrize("beat", [0.003, 0.007, 0.012, 0.017])
def test_a_little_jitter_stretches_nothing_whatever_the_beat(beat: float) -> None:
    rng = random.Random(1)
    line = Line(balanced())
    heard = line.run(line.packets(range(400), lambda n: rng.uniform(0, 0.003)), 8.0, beat)
    delays = heard.delays(5)
    assert max(delays) - min(delays) < 0.01
    assert max(delays) < 30 + 3 + 20
    assert line.buffer.stats.removed_samples_for_acceleration == 0


def test_one_lost_packet_costs_no_lasting_delay() -> None:
    line = Line(balanced())
    heard = line.run(line.packets(n for n in range(400) if n != 100), 8.0)
    assert set(heard.delays()) == {CLEAN}
    assert heard.sources()[100] is FrameSource.LBRR
    assert heard.played() == list(range(len(heard.played())))


def test_a_hole_longer_than_the_delay_is_waited_for_filled_late_and_caught_up() -> None:
    line = Line(patient(), PlanDecoder())
    heard = line.run(line.packets(n for n in range(400) if not 100 <= n < 105), 8.0)
    hole = [f for f in heard.frames if 100 <= f.number <= 105]
    assert [f.action for f in hole] == [
        *[HoleAction.HOLD] * 3,
        HoleAction.PAST,
        *[HoleAction.LATE] * 5,
    ]
    assert [f.part.source for f in hole][-5:] == [
        *[FrameSource.DRED] * 3,
        FrameSource.LBRR,
        FrameSource.PACKET,
    ]
    assert max(heard.delays()) == CLEAN + 60
    assert max(heard.delays(160)) <= CLEAN + 3
    assert heard.played() == list(range(len(heard.played())))


def test_for_low_latency_nothing_is_waited_for_and_the_end_of_a_hole_restored() -> None:
    line = Line(LatencyPolicy.of(Latency.LOW, min_delay=0.03), PlanDecoder())
    heard = line.run(line.packets(n for n in range(400) if not 100 <= n < 105), 8.0)
    hole = [f for f in heard.frames if 100 <= f.number < 105]
    assert [f.action for f in hole] == [*[HoleAction.PAST] * 4, HoleAction.RESTORE]
    assert set(heard.delays()) == {CLEAN}


def bare(number: int) -> bytes:
    """A packet without redundancy."""
    return b"\x48\x00speech"


def held(heard: Heard, end: int) -> int:
    return sum(f.action is HoleAction.HOLD and f.number < end for f in heard.frames)


def test_without_redundancy_no_lost_packet_is_waited_for() -> None:
    line = Line(patient(), PlanDecoder(), bare)
    heard = line.run(line.packets(n for n in range(400) if n % 40 >= 5), 8.0)
    assert held(heard, 380) == 0
    assert set(heard.delays()) == {CLEAN}


def test_without_redundancy_packets_that_come_late_are_waited_for() -> None:
    # every 2 s all stands still for 80 ms: not often enough to wait so long all the time
    policy = replace(patient(), worth=0.005)
    line = Line(policy, PlanDecoder(), bare)
    heard = line.run(
        line.packets(range(1000), lambda n: TICK * (4 - n % 100) if n % 100 < 4 else 0.0), 20.0
    )
    assert line.buffer.target_delay == policy.min_delay
    assert held(heard, 980) >= 2 * 8
    missing = [n for n in range(200, 980) if heard.sources().get(n) is not FrameSource.PACKET]
    assert not missing
    assert max(heard.delays(160, 200)) <= CLEAN + 20


def test_where_only_the_next_packet_reaches_back_one_frame_is_waited_for() -> None:
    line = Line(patient(), PlanDecoder(), lambda number: payload(number, lbrr=True))
    heard = line.run(line.packets(n for n in range(400) if n % 40 >= 5), 8.0)
    assert held(heard, 380) == 9  # one for each hole after the first packet
    assert max(heard.delays(60)) <= CLEAN + 20 + 1


@pytest.mark.parametrize("beat", [0.0098, 0.0105])
@pytest.mark.parametrize("lost", [1, 2, 3, 6])
def test_no_hole_costs_lasting_delay_whether_waited_for_or_not(lost: int, beat: float) -> None:
    line = Line(balanced(), PlanDecoder())
    numbers = (n for n in range(200) if not 50 <= n < 50 + lost)
    heard = line.run(line.packets(numbers), 4.0, beat)
    before, after = heard.delays(10, 50), heard.delays(150)
    assert max(after) <= max(before) + 3


def test_jitter_is_waited_for() -> None:
    rng = random.Random(2)
    line = Line(balanced(), PlanDecoder())
    heard = line.run(line.packets(range(1000), lambda n: rng.expovariate(1 / 0.02)), 20.0)
    sources = heard.sources()
    late = [n for n in range(300, 980) if sources.get(n) is not FrameSource.PACKET]
    assert len(late) < 0.02 * 680
    assert np.mean(heard.delays(300)) < 130


def test_after_jitter_the_delay_comes_down_again() -> None:
    rng = random.Random(3)
    late = [rng.expovariate(1 / 0.02) if n < 300 else 0.0 for n in range(2000)]
    line = Line(balanced(), PlanDecoder())
    heard = line.run(line.packets(range(2000), lambda n: late[n]), 40.0)
    assert max(heard.delays(280, 300)) > 60
    assert max(heard.delays(1700)) < 65


@pytest.mark.parametrize("drift", [-300e-6, 300e-6])
def test_a_drifting_clock_is_followed_without_a_slip(drift: float) -> None:
    # 18 ms in all
    line = Line(balanced())
    packets = [(TICK * n * (1 + drift), line.packet(n)) for n in range(3000)]
    heard = line.run(packets, 59.0)
    waits = [
        1e3 * (f.at - f.part.plan.arrival)
        for f in heard.frames
        if f.part.plan.arrival is not None and f.number > 10
    ]
    assert min(waits) > 25
    assert max(waits) < 30 + 20 + 12
    assert all(f.part.plan.left_out == 0 for f in heard.frames)
    assert all(f.action is HoleAction.NONE for f in heard.frames)
    assert heard.played() == list(range(len(heard.played())))


@pytest.mark.parametrize("policy", [balanced(), patient()])
def test_a_freeze_of_two_seconds_is_over_within_two_more(policy: LatencyPolicy) -> None:
    # nothing comes for 2 s, then everything at once
    line = Line(policy)
    heard = line.run(
        line.packets(range(500), lambda n: max(0, 6 - TICK * n) if n >= 200 else 0), 10
    )
    assert max(heard.delays(200)) <= CLEAN + 60
    assert max(heard.delays(400)) < CLEAN + 10  # less than a period: for the next pause
    frozen = [f for f in heard.frames if 200 <= f.number < 300]
    assert sum(f.action is HoleAction.HOLD for f in frozen) == policy.hold / TICK


def test_even_who_would_miss_nothing_comes_back_within_seconds_of_a_freeze() -> None:
    line = Line(LatencyPolicy.of(Latency.ROBUST), PlanDecoder())
    heard = line.run(
        line.packets(range(1000), lambda n: max(0, 6 - TICK * n) if n >= 200 else 0), 20
    )
    assert max(heard.delays(200)) < 400
    assert max(heard.delays(500)) < 60 + 20 + 1  # 4 s after its end


def test_a_whole_frame_too_late_is_not_kept() -> None:
    # the way becomes shorter by almost a frame, and the beat stays as it is
    line = Line(LatencyPolicy.of(Latency.LOW), PlanDecoder())
    way = line.packets(range(1500), lambda n: 0.019 if n < 200 else 0.0)
    heard = line.run(way, 30.0, beat=0.0005)
    assert min(heard.delays(250, 500)) > 40
    assert max(heard.delays(1000)) < 21
    assert line.buffer.stats.removed_samples_for_acceleration == 320


def test_a_beat_that_a_hiccup_has_left_behind_is_mended_without_stretching() -> None:
    line = Line(balanced())
    packets = [*line.packets(range(600))]
    late = line.run(packets[:250], 5.0, beat=0.008)
    assert max(late.delays(50)) == pytest.approx(48)
    beats = [0.008]
    for begin in (250, 350, 450):
        better = line.buffer.better_beat()
        if better is not None:  # moved as the pacer would
            beats.append(beats[-1] + math.remainder(better - beats[-1], TICK))
        for n in range(begin, begin + 100):
            line.receiver.push(packets[n][1], packets[n][0])
            line.receiver.pull(TICK * n + beats[-1])
    assert beats[-1] % TICK == pytest.approx(0.01)
    assert len(beats) == 3
    assert line.buffer.excess == pytest.approx(0.0)
    assert line.buffer.stats.removed_samples_for_acceleration == 0


def test_the_silence_behind_the_end_is_no_frame() -> None:
    line = Line(balanced())
    line.run(line.packets(range(50)), 1.02)
    block = line.receiver.drain()
    assert block.pcm.shape == (320,)
    assert not any(part.begins for part in block.parts)


def test_a_burst_that_is_late_does_not_flap_between_concealment_and_speech() -> None:
    # from packet 100 on each comes 95 ms late, just as its time is over
    line = Line(balanced(), PlanDecoder())
    heard = line.run(line.packets(range(400), lambda n: 0.095 if n >= 100 else 0.0), 8.0)
    changes = sum(
        (a.part.source is FrameSource.PLC) != (b.part.source is FrameSource.PLC)
        for a, b in pairwise(f for f in heard.frames if f.number < 380)
    )
    assert changes <= 4
    assert heard.sources()[379] is FrameSource.PACKET


@pytest.mark.parametrize("seed", [1, 2])
def test_a_third_of_the_packets_out_of_order_are_played_in_order(seed: int) -> None:
    rng = random.Random(seed)
    late = [0.06 if rng.random() < 0.3 else 0.0 for _ in range(1000)]
    line = Line(balanced(), PlanDecoder())
    heard = line.run(line.packets(range(1000), lambda n: late[n]), 20.0)
    assert heard.played() == sorted(set(heard.played()))
    assert sum(heard.sources()[n] is FrameSource.PACKET for n in range(100, 990)) > 0.99 * 890


def test_duplicates_change_nothing() -> None:
    once, twice = Line(balanced()), Line(balanced())
    lost = bursts(400, 0.1, 2)
    packets = list(once.packets(arrived(lost)))
    again = [(at + 0.005 * (n % 5), packet) for n, (at, packet) in enumerate(packets)]
    a, b = once.run(packets, 8.0), twice.run([*packets, *again], 8.0)
    assert np.array_equal(a.pcm, b.pcm)
    assert twice.buffer.stats.packets_duplicated >= len(packets) - 5


def test_at_sixty_percent_loss_most_is_rebuilt_within_bounds() -> None:
    lost = bursts(2000, 0.6, 2.5)
    line = Line(balanced(), PlanDecoder())
    heard = line.run(line.packets(arrived(lost)), 40.0)
    sources = heard.sources()
    missing = [n for n in range(200, 1900) if lost[n]]
    rebuilt = sum(sources.get(n) in (FrameSource.LBRR, FrameSource.DRED) for n in missing)
    assert rebuilt > 0.8 * len(missing)
    assert np.mean(heard.delays(200)) < 250
    assert max(heard.delays()) < 400 + 60 + 40
    assert sum(sources.get(n) is FrameSource.PACKET for n in arrived(lost)[50:700]) > 640


def test_a_pause_changes_nothing() -> None:
    line = Line(balanced())
    spoken = [*line.packets(range(100))]
    at, last = spoken.pop()
    spoken.append((at, replace(last, payload=b"\x48")))  # by which the sender falls silent
    later = [(TICK * n, line.packet(n, skipped=150)) for n in range(250, 400)]
    heard = line.run([*spoken, *later], 8.0)
    assert set(heard.delays()) == {CLEAN}
    assert heard.sources()[249 + 100] is FrameSource.PACKET
    assert line.buffer.stats.concealed_samples == 0


@pytest.mark.parametrize("ssrc", [1, 2])
def test_a_sender_that_starts_anew_is_heard_at_once(ssrc: int) -> None:
    line = Line(balanced())
    shift = 3_000_000_000
    anew = [(TICK * n, line.packet(n + 40_000, ssrc=ssrc, shift=shift)) for n in range(200, 400)]
    heard = line.run([*line.packets(range(200)), *anew], 8.0)
    first = next(f for f in heard.frames if f.part.plan.new_source)
    assert first.at <= TICK * 200 + 0.075
    assert line.buffer.stats.source_changes == 1
    assert heard.frames[-1].part.source is FrameSource.PACKET


def test_a_jump_of_timestamps_is_followed() -> None:
    line = Line(balanced())
    jumped = [(TICK * n, line.packet(n, shift=10**9)) for n in range(200, 400)]
    heard = line.run([*line.packets(range(200)), *jumped], 8.0)
    after = [f for f in heard.frames if f.at > 4.2]
    assert all(f.part.source is FrameSource.PACKET for f in after)
    assert line.buffer.stats.packets_discarded <= 2


def test_a_slower_route_is_followed_and_a_faster_one_too() -> None:
    line = Line(balanced(), PlanDecoder())
    heard = line.run(line.packets(range(900), lambda n: 0.15 if 300 <= n < 600 else 0.0), 18.0)
    assert all(175 <= delay < 250 for delay in heard.delays(330, 590))
    assert max(heard.delays(750)) < 55
    whole = [f.number for f in heard.frames if f.part.source is FrameSource.PACKET]
    assert whole == sorted(set(whole))


def test_a_lost_minute_and_forged_packets_do_no_harm() -> None:
    line = Line(balanced())
    rng = random.Random(5)
    forged = [
        (
            rng.uniform(0, 8),
            MediaPacket(rng.randrange(2**16), rng.randrange(2**32), rng.choice([1, 9]), bytes(9)),
        )
        for _ in range(500)
    ]
    heard = line.run([*line.packets(range(400)), *forged], 8.0)
    assert sum(source is FrameSource.PACKET for source in heard.sources().values()) > 300


def share_rebuilt(target: float | LatencyPolicy, lost: list[bool]) -> tuple[float, float]:
    """Of the lost frames; and the mean delay, ms."""
    line = Line(target, PlanDecoder())
    heard = line.run(line.packets(arrived(lost)), TICK * len(lost))
    sources = heard.sources()
    missing = [n for n, is_lost in enumerate(lost[:-50]) if is_lost]
    rebuilt = sum(sources.get(n) in (FrameSource.LBRR, FrameSource.DRED) for n in missing)
    return rebuilt / len(missing), float(np.mean(heard.delays()))


def test_at_100_ms_most_is_rebuilt_and_holds_lie_above_the_line_of_fixed_delays() -> None:
    # short bursts, and some long ones, as they are on real networks: 20 % in all
    lost = [a or b for a, b in zip(bursts(2000, 0.15, 1.4), bursts(2000, 0.05, 6, 7), strict=True)]
    at_60, _ = share_rebuilt(0.06, lost)
    at_100, _ = share_rebuilt(0.1, lost)
    at_200, _ = share_rebuilt(0.2, lost)
    assert at_100 > 0.78
    share, delay = share_rebuilt(patient(), lost)
    assert 60 < delay < 140
    assert share > at_60 + (at_200 - at_60) * (delay - 60) / 140


def test_a_pull_makes_up_one_frame_at_most_and_decodes_two() -> None:
    class Counting(PlanDecoder):
        def __init__(self) -> None:
            super().__init__()
            self.plans: list[FrameSource] = []

        def carry_out(
            self, plan: FramePlan, *, hurry: bool = False
        ) -> tuple[PcmFrame, FrameSource]:
            self.plans.append(plan.source)
            return super().carry_out(plan, hurry=hurry)

    decoder = Counting()
    line = Line(balanced(), decoder)
    rng = random.Random(4)
    lost = bursts(1000, 0.3, 4)
    waiting = list(line.packets(arrived(lost), lambda n: rng.expovariate(1 / 0.01)))
    for tick in range(1000):
        now = TICK * tick + 0.0105
        for at, packet in [entry for entry in waiting if entry[0] <= now]:
            line.receiver.push(packet, at)
        waiting = [entry for entry in waiting if entry[0] > now]
        decoder.plans.clear()
        line.receiver.pull(now)
        made_up = [s for s in decoder.plans if s in (FrameSource.DRED, FrameSource.PLC)]
        assert len(made_up) <= 1
        assert len(decoder.plans) <= 2
        assert line.receiver.queued < 3 * 320
