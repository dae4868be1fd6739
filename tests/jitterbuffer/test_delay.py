"""Delay over time: what losses, spikes, pauses and clocks do to it, and for how long."""

from __future__ import annotations

import random
from itertools import pairwise
from typing import Any

import pytest

from jitterbuffer import JitterBuffer
from tests.jitterbuffer.playout import TICK, P, Playout, Sender, played

SENDER = Sender()


def playout(target_ms: float = 60, **arguments: Any) -> Playout:
    return Playout(JitterBuffer(target_delay=target_ms / 1000, **arguments))


def test_one_lost_packet_costs_no_lasting_delay() -> None:
    line = playout()
    numbers = [n for n in range(200) if n != 50]
    assert line.run(SENDER.packets(numbers), 203)[50:56] == [47, 48, 49, P, 51, 52]
    assert set(line.delays().values()) == {60.0}


@pytest.mark.parametrize("burst", [2, 10, 45])
def test_a_burst_of_losses_costs_no_lasting_delay(burst: int) -> None:
    line = playout()
    line.run(SENDER.packets(n for n in range(200) if not 50 <= n < 50 + burst), 203)
    assert set(line.delays().values()) == {60.0}
    assert line.buffer.stats.packets_discarded == 0


def test_a_spike_costs_the_late_packets_and_no_lasting_delay() -> None:
    # The link stands still for 300 ms, then delivers all at once.
    late = {n: TICK * (65 - n) for n in range(50, 65)}
    line = playout()
    drawn = line.run(SENDER.packets(range(300), late=late), 303)
    assert played(drawn) == [n for n in range(300) if not 50 <= n < 62]
    assert set(line.delays().values()) == {60.0}


def test_a_spike_of_a_second_costs_no_lasting_delay() -> None:
    late = {n: TICK * (100 - n) for n in range(50, 100)}
    line = playout()
    drawn = line.run(SENDER.packets(range(300), late=late), 303)
    assert drawn[-1] == 299
    delays = line.delays()
    assert set(delays.values()) == {60.0}
    # What came in time with the last of the spike is played, too.
    assert played(drawn)[50:54] == [97, 98, 99, 100]


def test_a_spike_that_drains_slowly_is_forgotten_within_seconds() -> None:
    # A queue of 600 ms that empties at double speed.
    late = {n: max(0.0, 0.6 - 0.01 * (n - 50)) for n in range(50, 110)}
    line = playout()
    line.run(SENDER.packets(range(500), late=late), 505)
    delays = line.delays()
    assert all(60.0 <= delays[n] <= 80.0 for n in range(250, 500))


def test_an_unlucky_first_packet_does_not_fix_the_delay() -> None:
    line = playout()
    drawn = line.run(SENDER.packets(range(200), late={0: 0.15}), 203)
    delays = line.delays()
    assert max(delays[n] for n in range(10, 200)) < 80.0
    assert played(drawn)[-1] == 199


def test_a_burst_at_the_start_does_not_fix_the_delay() -> None:
    # A sender whose first frames were held up by its own start.
    line = playout()
    line.run(SENDER.packets(range(200), late={0: 0.1, 1: 0.08, 2: 0.06, 3: 0.04, 4: 0.02}), 203)
    assert max(line.delays().values()) <= 80.0
    assert all(line.delays()[n] == 60.0 for n in range(20, 200))


def test_jitter_within_the_target_costs_nothing() -> None:
    rng = random.Random(7)
    late = {n: 0.05 * rng.random() for n in range(500)}
    line = playout()
    drawn = line.run(SENDER.packets(range(500), late=late), 505)
    stats = line.buffer.stats
    assert stats.packets_late == 0
    assert len(played(drawn)) >= 498
    delays = [delay for n, delay in line.delays().items() if n >= 100]
    assert max(delays) - min(delays) == 0.0
    assert max(delays) < 60.0 + 20.0 + 10.0


def test_stragglers_do_not_turn_playout_back() -> None:
    # 20 to 29 come a second late, one by one, when 30 has long been played and nothing follows.
    late = dict.fromkeys(range(20, 30), 1.0)
    line = playout()
    drawn = line.run(SENDER.packets(range(31), late=late), 100)
    assert played(drawn) == [*range(20), 30]
    assert line.buffer.stats.packets_late == 10
    assert line.buffer.stats.resyncs == 0


def test_stragglers_do_not_start_playout_anew_while_others_are_in_time() -> None:
    late = dict.fromkeys(range(50, 70), 0.5)
    line = playout(400)
    drawn = line.run(SENDER.packets(range(200), late=late), 230)
    assert played(drawn) == [n for n in range(200) if not 50 <= n < 70]
    assert set(line.delays().values()) == {400.0}
    assert line.buffer.stats.resyncs == 0


def test_a_slower_route_is_followed_when_nothing_comes_in_time() -> None:
    late = dict.fromkeys(range(100, 400), 0.2)
    line = playout()
    drawn = line.run(SENDER.packets(range(400), late=late), 413)
    assert line.buffer.stats.resyncs == 1
    delays = line.delays()
    assert all(260.0 <= delays[n] < 280.0 for n in range(130, 400))
    # 300 ms without anything to play and 100 ms of late packets pass first.
    assert played(drawn) == [*range(100), *range(113, 400)]


def test_a_slightly_slower_route_is_followed_at_the_next_hole() -> None:
    late = dict.fromkeys(range(100, 400), 0.04)
    line = playout()
    numbers = [n for n in range(400) if n != 250]
    drawn = line.run(SENDER.packets(numbers, late=late), 405)
    delays = line.delays()
    assert delays[249] == 60.0
    assert delays[251] == 100.0
    assert drawn[252:257] == [249, P, P, P, 251]
    assert line.buffer.stats.inserted_samples_for_deceleration == 2 * 320


def test_a_faster_route_is_followed_by_leaving_out_frames() -> None:
    late = dict.fromkeys(range(100), 0.2)
    line = playout()
    line.run(SENDER.packets(range(300), late=late), 303)
    delays = line.delays()
    assert delays[80] == 260.0
    assert all(60.0 <= delays[n] < 80.0 for n in range(180, 300))
    assert line.buffer.stats.removed_samples_for_acceleration == 10 * 320


def test_one_frame_of_excess_waits_for_a_hole() -> None:
    late = dict.fromkeys(range(200), 0.015)
    line = playout()
    numbers = [n for n in range(400) if n != 300]
    drawn = line.run(SENDER.packets(numbers, late=late), 403)
    delays = line.delays()
    assert delays[299] == 80.0
    assert delays[301] == 60.0
    assert drawn[303:306] == [299, 301, 302]


def test_a_stalled_sink_is_caught_up_at_once() -> None:
    line = playout()
    line.run(SENDER.packets(range(100)), 80)
    line.ticks += 50
    drawn = line.run(SENDER.packets(range(100, 200)), 203)
    assert drawn[0] == 127
    assert set(line.delays().values()) == {60.0}


def test_a_sink_that_starts_late_plays_what_is_recent() -> None:
    line = playout()
    for arrival, packet in SENDER.packets(range(1000)):
        line.buffer.push(packet, arrival)
    line.ticks = 1000
    assert line.run(SENDER.packets(range(1000, 1010)), 1005) == [997, 998, 999, 1000, 1001]


def test_a_sender_that_stands_still_is_taken_up_where_it_was() -> None:
    # Its timestamps do not go on while it is away: 5 s is beyond max_delay.
    late = dict.fromkeys(range(100, 200), 5.0)
    line = playout()
    drawn = line.run(SENDER.packets(range(200), late=late), 453)
    assert played(drawn) == [*range(200)]
    assert line.delays()[199] == 5060.0


def test_a_long_silence_in_step_with_the_clock_changes_nothing() -> None:
    day = 24 * 3600 * 50
    line = playout()
    line.run(SENDER.packets(range(100)), 103)
    line.ticks = day
    line.run(
        [(TICK * (day + n), SENDER.packet(day + n, skipped=day - 100)) for n in range(50)], day + 53
    )
    delays = line.delays()
    assert delays[day + 10] == pytest.approx(60.0)


@pytest.mark.parametrize("drift", [-300e-6, 300e-6])
def test_a_drifting_clock_cannot_carry_the_delay_away(drift: float) -> None:
    # Ten minutes with losses: 180 ms in all.
    rng = random.Random(3)
    packets = [
        (TICK * n * (1 + drift), SENDER.packet(n)) for n in range(30_000) if rng.random() > 0.02
    ]
    line = playout()
    line.run(packets, 30_000)
    waits = [
        at - plan.arrival
        for plan, at in zip(line.plans, line.instants, strict=True)
        if plan.arrival is not None and plan.distance == 0
    ]
    assert min(waits) > 0.035
    assert max(waits) < 0.105


def test_the_target_can_be_moved() -> None:
    line = playout(40)
    numbers = [n for n in range(300) if n % 10]
    line.run(SENDER.packets(numbers), 100)
    line.buffer.target_delay = 0.1
    line.run(SENDER.packets(n for n in range(100, 300) if n % 10), 200)
    assert line.delays()[191] == 100.0
    line.buffer.target_delay = 0.04
    drawn = line.run(SENDER.packets(n for n in range(200, 300) if n % 10), 300)
    assert line.delays()[max(played(drawn))] == 40.0


def test_frames_never_go_back() -> None:
    rng = random.Random(5)
    late = {n: rng.expovariate(1 / 0.08) for n in range(2000)}
    line = playout()
    drawn = played(line.run(SENDER.packets(range(2000), late=late), 2010))
    assert all(a < b for a, b in pairwise(drawn))
    assert len(drawn) > 800
    assert len(drawn) == len(set(drawn))


def test_packets_that_overtake_the_rest_do_not_make_the_rest_late() -> None:
    # One in twenty goes at once on a path of 200 ms.
    late = {n: 0.0 if n % 20 == 7 else 0.2 for n in range(600)}
    line = playout()
    drawn = line.run(SENDER.packets(range(600), late=late), 613)
    assert played(drawn)[-400:] == [*range(200, 600)]
    assert all(200.0 <= line.delays()[n] <= 260.0 for n in range(200, 600))
    assert line.buffer.stats.packets_late == 0


def test_at_most_a_quarter_is_late_however_wide_the_jitter() -> None:
    # A quarter of the packets overtakes the rest by more than the target.
    late = {n: 0.0 if n % 4 == 3 else 0.2 for n in range(600)}
    line = playout()
    drawn = line.run(SENDER.packets(range(600), late=late), 613)
    assert played(drawn)[-500:] == [*range(100, 600)]


def test_a_sink_may_ask_for_the_beat_that_meets_the_target_exactly() -> None:
    buffer = JitterBuffer(target_delay=0.06)
    assert buffer.on_time(0.0) is None
    for number in range(60):
        arrival = TICK * number + (0.004 if number % 10 else 0.0)
        buffer.push(SENDER.packet(number), arrival)
    beat = buffer.on_time(1.25)
    assert beat is not None
    assert abs(beat - 1.25) <= TICK / 2
    # Nine packets in ten take 4 ms longer than the fastest.
    assert (beat - 0.06) % TICK == pytest.approx(0.004, abs=1e-6)
