"""Levels and held peaks."""

import numpy as np
import numpy.typing as npt
import pytest

from app.meter import SILENCE_DB, LevelMeter
from codec import FRAME, SAMPLE_RATE


def sine(amplitude: float, samples: int = SAMPLE_RATE) -> npt.NDArray[np.int16]:
    t = np.arange(samples) / SAMPLE_RATE
    return np.rint(amplitude * np.sin(2 * np.pi * 1000 * t)).astype(np.int16)


def test_a_full_scale_sine_reads_minus_3_rms_and_0_peak() -> None:
    meter = LevelMeter()
    meter.update(sine(32767))
    assert meter.rms_db == pytest.approx(-3.01, abs=0.01)
    assert meter.peak_db == pytest.approx(0.0, abs=0.01)
    assert meter.level == pytest.approx(0.7071, abs=1e-3)


def test_energy_adds_up_as_webrtc_stats_defines_it() -> None:
    meter = LevelMeter()
    for begin in range(0, SAMPLE_RATE, FRAME):
        meter.update(sine(16384)[begin : begin + FRAME])
    assert meter.total_duration == pytest.approx(1.0)
    assert meter.total_energy == pytest.approx(0.125, rel=1e-3)


def test_a_peak_is_held_and_then_falls_to_the_present_level() -> None:
    meter = LevelMeter()
    meter.update(np.array([-32768], np.int16))
    quiet = sine(328, FRAME)
    for _ in range(70):  # 1.4 s
        meter.update(quiet)
    assert meter.held_db == 0.0
    for _ in range(50):
        meter.update(quiet)
    assert -20.0 < meter.held_db < -15.0
    for _ in range(100):
        meter.update(quiet)
    assert meter.held_db == pytest.approx(-40.0, abs=0.1)


def test_silence_has_a_level_that_can_be_printed() -> None:
    meter = LevelMeter()
    meter.update(np.zeros(FRAME, np.int16))
    meter.update(np.zeros(0, np.int16))
    assert meter.rms_db == meter.peak_db == meter.held_db == SILENCE_DB
    assert meter.level == 0.0


def test_clipped_samples_are_counted() -> None:
    meter = LevelMeter()
    meter.update(np.array([32767, -32768, 32766, -32767], np.int16))
    assert meter.clipped == 2


def test_it_makes_no_difference_how_often_somebody_looks() -> None:
    random = np.random.default_rng(1)
    watched, left_alone = LevelMeter(), LevelMeter()
    for number in range(237):
        loud = 10 ** random.uniform(1, 4.6)
        block = np.clip(random.normal(0, loud, random.integers(1, 400)), -32768, 32767)
        for meter in (watched, left_alone):
            meter.update(block.astype(np.int16))
        if number % 3:
            assert watched.held_db >= watched.peak_db
    for figure in ("rms_db", "peak_db", "held_db", "clipped", "total_energy", "total_duration"):
        assert getattr(watched, figure) == pytest.approx(getattr(left_alone, figure)), figure
