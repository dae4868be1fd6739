"""Detail that guessing takes away."""

from __future__ import annotations

import numpy as np

from codec.features import NUM_BANDS, NUM_FEATURES
from codec.sharpening import FINE, TYPICAL, sharpen

FEATURES = np.random.default_rng(0).normal(size=(50, NUM_FEATURES)).astype(np.float32)


def test_fine_structure_varies_more_the_finer_it_is() -> None:
    before, after = FEATURES.std(0), sharpen(FEATURES, 0.5).std(0)
    growth = (after / before)[FINE:NUM_BANDS]
    assert (np.diff(growth) > 0).all()
    assert growth[0] > 1
    assert np.isclose(growth[-1], 1.5)


def test_level_tilt_and_pitch_stay() -> None:
    kept = [*range(FINE), *range(NUM_BANDS, NUM_FEATURES)]
    assert np.array_equal(sharpen(FEATURES, 0.5)[:, kept], FEATURES[:, kept])


def test_the_typical_stays() -> None:
    features = np.zeros((1, NUM_FEATURES), np.float32)
    features[0, FINE:NUM_BANDS] = TYPICAL
    assert np.array_equal(sharpen(features, 0.7), features)


def test_the_argument_stays() -> None:
    before = FEATURES.copy()
    sharpen(FEATURES, 1.0)
    assert np.array_equal(FEATURES, before)
