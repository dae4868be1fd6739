"""The timer that tells the machine's stalls from ours."""

from __future__ import annotations

import time

import pytest

from app.control_timer import ControlTimer
from app.pacing import Miss


def test_a_miss_is_the_machines_when_its_stall_cost_the_deadline() -> None:
    control = ControlTimer(threshold=0.003)
    control.add(10.000, 10.008)
    assert control.explains(Miss(due=9.999, deadline=10.004, finished=10.010))


def test_a_miss_is_ours_when_the_machine_ran_or_stalled_too_little() -> None:
    control = ControlTimer(threshold=0.003)
    control.add(10.000, 10.0001)
    control.add(10.005, 10.009)
    assert not control.explains(Miss(due=9.999, deadline=10.004, finished=10.030))
    assert not control.explains(Miss(due=11.0, deadline=11.005, finished=11.006))
    misses = [Miss(10.004, 10.008, 10.010), Miss(11.0, 11.005, 11.006)]
    assert control.count_explained(misses) == 1


def test_ticks_are_counted_and_late_ones_kept() -> None:
    control = ControlTimer(threshold=0.003)
    for k in range(3000):
        control.add(k, k + (0.004 if k % 2 else 0.001))
    assert control.lateness.count == 3000
    assert control.stalled == 1500
    assert list(control.stalls)[-1] == (2999, 2999.004)


def test_the_process_ticks_on_the_monotonic_clock_and_ends() -> None:
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
    assert control.lateness.count > 0
    assert all(before <= due <= woke <= time.monotonic() for due, woke in control.stalls)


def test_stopping_what_never_ran_is_harmless() -> None:
    ControlTimer().stop()
