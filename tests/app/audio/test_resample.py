"""Rate conversion at the edge."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

from app.audio.resample import Resampler
from tests.app.audio.clips import dominant, sine

RATES = [(48_000, 16_000), (44_100, 16_000), (16_000, 48_000), (16_000, 44_100), (8_000, 16_000)]


def convert(pcm: npt.NDArray[np.int16], from_rate: int, to_rate: int) -> npt.NDArray[np.int16]:
    resampler = Resampler(from_rate, to_rate)
    step = from_rate // 100
    return np.concatenate([resampler.process(pcm[i : i + step]) for i in range(0, len(pcm), step)])


@pytest.mark.parametrize(("from_rate", "to_rate"), RATES)
def test_an_impulse_stays_at_its_instant(from_rate: int, to_rate: int) -> None:
    pcm = np.zeros(from_rate, np.int16)
    pcm[from_rate // 2] = 20_000
    assert np.argmax(np.abs(convert(pcm, from_rate, to_rate))) == to_rate // 2


@pytest.mark.parametrize(("from_rate", "to_rate"), RATES)
def test_no_more_than_2_ms_are_held_back(from_rate: int, to_rate: int) -> None:
    resampler = Resampler(from_rate, to_rate)
    given = got = 0
    for _ in range(200):
        got += len(resampler.process(np.zeros(from_rate // 100, np.int16)))
        given += from_rate // 100
        assert 0 <= given / from_rate - got / to_rate <= 0.0021


@pytest.mark.parametrize(("from_rate", "to_rate"), RATES)
def test_a_tone_keeps_pitch_and_level(from_rate: int, to_rate: int) -> None:
    heard = convert(sine(2000, 1.0, from_rate), from_rate, to_rate)
    assert dominant(heard[: to_rate * 9 // 10], to_rate) == pytest.approx(2000, abs=3)
    assert np.abs(heard[1000:-1000]).max() == pytest.approx(8000, rel=0.02)


def test_what_16_khz_cannot_carry_does_not_fold_back() -> None:
    heard = convert(sine(11_000, 1.0, 48_000), 48_000, 16_000)
    assert np.abs(heard[1000:-1000]).max() < 8


def test_equal_rates_pass_through() -> None:
    pcm = sine(300, 0.1)
    np.testing.assert_array_equal(Resampler(16_000, 16_000).process(pcm), pcm)
