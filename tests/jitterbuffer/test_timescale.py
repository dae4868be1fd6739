"""Taking out and putting in pitch periods: how long, how smooth, and where not."""

from __future__ import annotations

import numpy as np
import pytest

from jitterbuffer.timescale import (
    ALIKE_ENOUGH,
    MAX_PERIOD,
    MIN_PERIOD,
    SPAN,
    Pcm,
    accelerate,
    expand,
)
from tests.app.calls import MAN, clip

RATE = 16_000


def voiced(samples: int, period: float, begin: int = 0) -> Pcm:
    """A vowel without end: harmonics of 16 kHz / `period`, phases as of a pulse train."""
    n = np.arange(begin, begin + samples)
    harmonics = range(1, int(period / 2))
    tones = [np.cos(2 * np.pi * k * n / period) / k for k in harmonics]
    pcm: Pcm = np.rint(4000 * np.sum(tones, axis=0)).astype(np.int16)
    return pcm


def sharpest_step(pcm: Pcm) -> int:
    """The largest second difference: a click is one."""
    return int(np.abs(np.diff(pcm.astype(np.int64), 2)).max())


@pytest.mark.parametrize("period", [45.0, 80.0, 117.3, 160.0, 229.6])
def test_acceleration_takes_out_whole_periods_and_nothing_else(period: float) -> None:
    sound = voiced(640, period)
    shorter = accelerate(sound)
    assert shorter is not None
    removed = len(sound) - len(shorter.pcm)
    assert MIN_PERIOD <= removed <= MAX_PERIOD
    assert removed / period == pytest.approx(round(removed / period), abs=1 / period)
    # what follows is the same vowel in the same phase
    assert np.corrcoef(shorter.pcm, sound[: len(shorter.pcm)])[0, 1] > 0.98
    assert np.array_equal(shorter.pcm[-160:], sound[-160:])
    assert sharpest_step(shorter.pcm) <= 1.05 * sharpest_step(sound)


@pytest.mark.parametrize("period", [45.0, 80.0, 117.3, 160.0, 229.6])
def test_expansion_puts_in_whole_periods_and_nothing_else(period: float) -> None:
    sound = voiced(640, period)
    heard, new = sound[:320], sound[320:]
    longer = expand(heard, new)
    assert longer is not None
    inserted = len(longer.pcm) - len(new)
    assert inserted / period == pytest.approx(round(inserted / period), abs=1 / period)
    assert np.array_equal(longer.pcm[inserted:], new)
    whole = np.concatenate([heard, longer.pcm])
    going_on = voiced(len(whole), period)
    assert np.corrcoef(whole[: 320 + inserted], going_on[: 320 + inserted])[0, 1] > 0.98
    assert sharpest_step(whole) <= 1.05 * sharpest_step(sound)


def test_what_does_not_repeat_itself_is_left_alone() -> None:
    rng = np.random.default_rng(5)
    noise = rng.normal(0, 3000, 640).astype(np.int16)
    assert accelerate(noise) is None
    assert expand(noise[:320], noise[320:]) is None
    n = np.arange(640) / RATE
    sweep = (8000 * np.sin(2 * np.pi * (400 * n + 17_500 * n**2))).astype(np.int16)
    assert accelerate(sweep) is None
    onset = voiced(640, 100)
    onset[:120] //= 16
    assert accelerate(onset) is None
    assert expand(onset[:320] // 8, onset[320:]) is None


def test_silence_and_passive_sound_may_be_cut_anywhere() -> None:
    rng = np.random.default_rng(6)
    for sound, passive in [
        (np.zeros(640, np.int16), False),
        (rng.normal(0, 10, 640).astype(np.int16), False),
        (rng.normal(0, 100, 640).astype(np.int16), True),
    ]:
        shorter = accelerate(sound, passive=passive)
        longer = expand(sound[:320], sound[320:], passive=passive)
        assert shorter is not None
        assert longer is not None
        assert len(shorter.pcm) < 640
        assert len(longer.pcm) > 320


def test_origins_say_which_sample_each_is_made_of() -> None:
    sound = voiced(640, 100)
    shorter = accelerate(sound)
    assert shorter is not None
    steps = np.diff(shorter.origin)
    assert list(steps[steps != 1]) == [1 + 640 - len(shorter.pcm)]
    assert (shorter.origin[0], shorter.origin[-1]) == (0, 639)
    longer = expand(sound[:320], sound[320:])
    assert longer is not None
    steps = np.diff(longer.origin)
    assert list(steps[steps != 1]) == [1 - (len(longer.pcm) - 320)]
    assert longer.origin[-1] == 319
    for stretched, source, shift in [(shorter, sound, 0), (longer, sound, 320)]:
        taken = source[stretched.origin + shift].astype(np.int64)
        assert np.abs(stretched.pcm - taken).max() <= 0.05 * 32768


def test_too_little_sound_is_refused() -> None:
    sound = voiced(640, 100)
    with pytest.raises(ValueError, match=str(SPAN - 1)):
        accelerate(sound[: SPAN - 1])
    with pytest.raises(ValueError, match="100"):
        expand(sound[:100], sound[100:])


def test_full_scale_sound_does_not_wrap() -> None:
    square = np.where(np.arange(640) // 50 % 2, 32767, -32768).astype(np.int16)
    shorter = accelerate(square)
    assert shorter is not None
    assert set(np.unique(shorter.pcm)) <= {-32768, 32767}


def test_speech_is_stretched_without_clicks() -> None:
    speech = clip(MAN)
    done = 0
    for start in range(16_000, len(speech) - 640, 1600):
        before, sound = speech[start - 320 : start], speech[start : start + 640]
        limit = 1.2 * sharpest_step(np.concatenate([before, sound])) + 50
        shorter = accelerate(sound, threshold=ALIKE_ENOUGH)
        if shorter is not None:
            done += 1
            assert sharpest_step(np.concatenate([before, shorter.pcm])) <= limit
        longer = expand(before, sound[:320], threshold=ALIKE_ENOUGH)
        if longer is not None:
            done += 1
            assert sharpest_step(np.concatenate([before, longer.pcm])) <= limit
    assert done > 20
