"""Pacing under a clock that moves only when somebody sleeps or works."""

from __future__ import annotations

import random

import pytest

from app.pacing import Deadlines, Distribution, Pacer


class Clock:
    """A fake clock; `oversleep` gives the seconds by which each sleep overruns, in turn."""

    def __init__(self, oversleep: list[float] | None = None) -> None:
        self.now = 1000.0
        self.oversleep = oversleep or []
        self.slept: list[float] = []

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        assert seconds > 0
        self.slept.append(seconds)
        self.now += seconds + (self.oversleep.pop(0) if self.oversleep else 0.0)


def pacer(clock: Clock, *, lead: float = 0.0, resync_after: int = 5) -> Pacer:
    return Pacer(0.02, lead=lead, resync_after=resync_after, clock=clock, sleep=clock.sleep)


def test_deadlines_are_exactly_a_period_apart() -> None:
    clock = Clock()
    pace = pacer(clock)
    pace.start(1000.5)
    deadlines = [pace.wait() for _ in range(1000)]
    assert deadlines == [1000.5 + k * 0.02 for k in range(1000)]


def test_work_and_oversleeping_do_not_add_up() -> None:
    rng = random.Random(1)
    clock = Clock([rng.uniform(0, 0.004) for _ in range(500)])
    pace = pacer(clock)
    pace.start(1000.0)
    for k in range(500):
        pace.wait()
        assert 0 <= clock.now - (1000.0 + k * 0.02) < 0.00401
        clock.now += 0.012


def test_a_tick_wakes_its_lead_ahead_of_the_deadline() -> None:
    clock = Clock()
    pace = pacer(clock, lead=0.005)
    pace.start(1000.1)
    assert pace.wait() == 1000.1
    assert clock.now == pytest.approx(1000.095)


def test_an_unstarted_pacer_starts_with_its_first_wait() -> None:
    clock = Clock()
    pace = pacer(clock, lead=0.005)
    assert pace.wait() == pytest.approx(1000.005)
    assert clock.slept == []


def test_a_short_stall_is_caught_up_with() -> None:
    clock = Clock()
    pace = pacer(clock)
    pace.start(1000.0)
    pace.wait()
    clock.now += 0.07
    deadlines = [pace.wait() for _ in range(5)]
    assert deadlines == pytest.approx([1000.02, 1000.04, 1000.06, 1000.08, 1000.10])
    assert clock.now == pytest.approx(1000.10)
    assert (pace.resyncs, pace.skipped) == (0, 0)


def test_a_long_stall_moves_the_schedule_and_is_counted() -> None:
    clock = Clock()
    pace = pacer(clock, lead=0.005)
    pace.start(1000.0)
    pace.wait()
    clock.now += 60
    resumed = clock.now
    assert pace.wait() == pytest.approx(resumed + 0.005)
    assert pace.wait() == pytest.approx(resumed + 0.025)
    assert pace.resyncs == 1
    assert pace.skipped == pytest.approx(60 - 0.015)
    assert pace.lateness.max == pytest.approx(60 - 0.015)


def test_an_aligned_schedule_moves_by_half_a_period_at_most() -> None:
    for instant in (1000.507, 990.007, 1003.987, 1000.5, 1000.512):
        clock = Clock()
        pace = pacer(clock, lead=0.005)
        pace.start(1000.5)
        pace.wait()
        pace.align(instant)
        following, after = pace.wait(), pace.wait()
        assert 0.0099 < following - 1000.5 < 0.0301
        assert after - following == pytest.approx(0.02)
        periods = (following - instant) / 0.02
        assert periods == pytest.approx(round(periods), abs=1e-6)


def test_lateness_is_what_the_sleep_overran() -> None:
    clock = Clock([0.0] * 98 + [0.003, 0.008])
    pace = pacer(clock)
    pace.start(1000.1)
    for _ in range(100):
        pace.wait()
    assert pace.lateness.count == 100
    assert pace.lateness.quantile(0.5) == pytest.approx(0, abs=1e-6)
    assert pace.lateness.quantile(0.99) == pytest.approx(0.003, rel=0.05)
    assert pace.lateness.max == pytest.approx(0.008)


def test_work_done_after_its_deadline_is_a_miss_with_its_instants() -> None:
    clock = Clock()
    pace = pacer(clock, lead=0.005)
    pace.start(1000.1)
    in_time = []
    for cost in (0.004, 0.0075, 0.001):
        pace.wait()
        clock.now += cost
        in_time.append(pace.finished())
    assert in_time == [True, False, True]
    deadlines = pace.deadlines
    assert (deadlines.total, deadlines.missed) == (3, 1)
    assert deadlines.worst == pytest.approx(0.0025)
    (miss,) = deadlines.misses
    assert miss.due == pytest.approx(1000.115)
    assert miss.deadline == pytest.approx(1000.12)
    assert miss.finished == pytest.approx(1000.1225)
    assert deadlines.busy.max == pytest.approx(0.0075)


def test_a_late_waking_counts_against_the_deadline() -> None:
    clock = Clock([0.006])
    pace = pacer(clock, lead=0.005)
    pace.start(1000.1)
    pace.wait()
    assert not pace.finished()
    assert pace.deadlines.worst == pytest.approx(0.001)


def test_the_memory_of_misses_is_bounded() -> None:
    deadlines = Deadlines()
    for k in range(5000):
        deadlines.record(k, k + 0.005, k + 0.006)
    assert deadlines.missed == 5000
    assert len(deadlines.misses) == 1000
    assert deadlines.misses[-1].due == 4999


def test_a_period_that_is_not_positive_is_refused() -> None:
    with pytest.raises(ValueError, match="-1"):
        Pacer(-1)


def test_quantiles_are_within_five_percent() -> None:
    rng = random.Random(2)
    durations = [rng.lognormvariate(-7, 2) for _ in range(5000)]
    distribution = Distribution()
    for duration in durations:
        distribution.add(duration)
    durations.sort()
    for q in (0.01, 0.5, 0.9, 0.99, 0.999):
        exact = durations[int(q * 5000) - 1]
        assert exact <= distribution.quantile(q) <= exact * 1.0501
    assert distribution.max == durations[-1]


def test_an_empty_distribution_is_all_zeros() -> None:
    assert Distribution().summary_ms() == {"p50": 0, "p99": 0, "p999": 0, "max": 0}


def test_durations_beyond_the_buckets_are_kept_as_the_maximum() -> None:
    distribution = Distribution()
    for seconds in (-1.0, 0.0, 1e6):
        distribution.add(seconds)
    assert distribution.max == 1e6
    assert distribution.quantile(0.5) == 0
    assert distribution.quantile(1) <= 1e6
