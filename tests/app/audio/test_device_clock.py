"""Following a device's clock."""

from __future__ import annotations

import random

import pytest

from app.audio.device_clock import DeviceClock, block_instant
from app.audio.speaker import BurstGauge


def test_a_steady_device_maps_exactly() -> None:
    clock = DeviceClock(48_000)
    for k in range(100):
        clock.update(480 * k, 7.0 + 0.01 * k)
    assert clock.instant(48_000) == pytest.approx(8.0)
    assert clock.jumps == 0


def test_jitter_is_averaged_out() -> None:
    rng = random.Random(3)
    clock = DeviceClock(48_000)
    for k in range(1000):
        clock.update(480 * k, 7.0 + 0.01 * k + rng.uniform(-0.004, 0.004))
        if k > 200:
            assert clock.instant(480 * k) == pytest.approx(7.0 + 0.01 * k, abs=0.0015)


def test_drift_is_followed() -> None:
    clock = DeviceClock(48_000)
    period = 0.01 * (1 + 200e-6)
    for k in range(360_000):
        clock.update(480 * k, 7.0 + period * k)
    assert clock.instant(480 * 359_999) == pytest.approx(7.0 + period * 359_999, abs=1e-4)
    assert clock.jumps == 0


def test_a_gap_moves_the_map_at_once() -> None:
    clock = DeviceClock(16_000)
    clock.update(0, 1.0)
    clock.update(160, 1.51)
    assert clock.instant(160) == pytest.approx(1.51)
    assert clock.jumps == 1
    clock.update(320, 1.53, jump=True)
    assert clock.instant(320) == pytest.approx(1.53)
    assert clock.jumps == 2


def test_the_drivers_clock_is_translated_to_ours() -> None:
    assert block_instant(100.0, 1.7e9 + 0.03, 1.7e9, 0.01) == pytest.approx(100.03)
    assert block_instant(100.0, 5.0, 5.02, -0.01) == pytest.approx(99.98)


@pytest.mark.parametrize(("block", "stream"), [(0.0, 12.0), (12.0, 0.0), (99.0, 12.0), (-1, 12.0)])
def test_a_driver_that_does_not_know_is_not_believed(block: float, stream: float) -> None:
    assert block_instant(100.0, block, stream, 0.01) == pytest.approx(100.01)


def test_blocks_in_quick_succession_are_one_burst() -> None:
    gauge = BurstGauge(48_000)
    for k in range(100):
        gauge.add(5 + 0.02 * k, 480)
        gauge.add(5 + 0.02 * k + 0.0002, 480)
    assert gauge.samples == 960


def test_a_burst_is_forgotten_after_two_seconds() -> None:
    gauge = BurstGauge(48_000)
    for k in range(4):
        gauge.add(5.0 + k * 1e-4, 480)
    assert gauge.samples == 1920
    for k in range(210):
        gauge.add(5.1 + k * 0.01, 480)
    assert gauge.samples == 480


def test_a_device_that_catches_up_is_not_followed_without_bound() -> None:
    gauge = BurstGauge(48_000)
    for k in range(100):
        gauge.add(5.0 + k * 1e-4, 480)
    assert gauge.samples == round(0.060 * 48_000)
