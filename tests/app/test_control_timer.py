"""The timer that tells the machine's stalls from ours."""

from __future__ import annotations

import os
import time

import pytest

from app.control_timer import ControlTimer, Stall
from app.pacing import Miss


def test_a_miss_is_the_machines_when_its_stall_cost_the_deadline() -> None:
    control = ControlTimer()
    control.add(Stall(0, 10.000, 10.008))
    assert control.count_explained([Miss(due=9.999, deadline=10.004, finished=10.010)]) == 1


def test_a_miss_is_ours_when_the_machine_ran_or_stalled_too_little() -> None:
    control = ControlTimer()
    control.add(Stall(0, 10.000, 10.0011))
    control.add(Stall(0, 10.005, 10.009))
    assert not control.count_explained([Miss(due=9.999, deadline=10.004, finished=10.030)])
    assert not control.count_explained([Miss(due=11.0, deadline=11.005, finished=11.006)])
    misses = [Miss(10.004, 10.008, 10.010), Miss(11.0, 11.005, 11.006)]
    assert control.count_explained(misses) == 1


def test_stalls_of_two_processors_at_once_do_not_add_up() -> None:
    control = ControlTimer()
    miss = Miss(due=10.000, deadline=10.005, finished=10.011)
    for processor in (0, 1):
        control.add(Stall(processor, 10.001, 10.005))
    assert not control.count_explained([miss])
    control.add(Stall(1, 10.007, 10.010))
    assert control.count_explained([miss])


def test_a_stall_that_began_long_before_counts() -> None:
    control = ControlTimer()
    control.add(Stall(0, 5.0, 12.0))
    for k in range(100):
        control.add(Stall(1, 6.0 + k / 100, 6.002 + k / 100))
    assert control.count_explained([Miss(due=10.0, deadline=10.005, finished=12.001)])


def test_late_ticks_are_counted_and_the_worst_is_known() -> None:
    control = ControlTimer()
    for k in range(3000):
        control.add(Stall(0, k, k + (0.004 if k == 7 else 0.002)))
    assert control.stalled == 3000
    assert control.longest == pytest.approx(0.004)
    assert list(control.stalls)[-1] == (0, 2999, 2999.002)


def test_the_process_ticks_on_every_processor_by_the_monotonic_clock_and_ends() -> None:
    control = ControlTimer(0.005, threshold=0.0)
    before = time.monotonic()
    control.start()
    process = control._process
    assert process is not None
    with pytest.raises(RuntimeError):
        control.start()
    time.sleep(0.4)
    control.stop()
    assert process.poll() is not None
    assert all(before <= due <= woke <= time.monotonic() for _, due, woke in control.stalls)
    seen = {stall.processor for stall in control.stalls}
    assert seen == set(sorted(os.sched_getaffinity(0))[:4])


def test_stopping_what_never_ran_is_harmless() -> None:
    ControlTimer().stop()
