"""A data set small enough to train on in a test."""

from pathlib import Path

import numpy as np
import pytest

from codec.features import HOP, FeatureExtractor
from codec.training.dataset import FEATURES, INDEX, SIGNAL, Entry, write_index


def voice(frames: int, period: int, seed: int) -> np.ndarray:
    """Pulses through two resonances and a little noise: int16 [160 * frames]."""
    rng = np.random.default_rng(seed)
    excitation = rng.standard_normal(frames * HOP) * 30
    excitation[::period] += 4000
    signal = np.zeros(len(excitation) + 2)
    for n, e in enumerate(excitation):
        signal[n + 2] = e + 1.7 * signal[n + 1] - 0.8 * signal[n]
    return np.clip(signal[2:], -30000, 30000).astype(np.int16)


@pytest.fixture(scope="session")
def small_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    signals = [voice(80, period, seed) for seed, period in enumerate((90, 130, 110))]
    features = [FeatureExtractor().process(signal) for signal in signals]
    np.save(folder / SIGNAL, np.concatenate(signals))
    np.save(folder / FEATURES, np.concatenate(features))
    splits = ("train", "train", "valid")
    write_index(
        folder / INDEX,
        [
            Entry(f"{i}.wav", f"speaker{i}", split, 0, 80 * i, 80)  # type: ignore[arg-type]
            for i, split in enumerate(splits)
        ],
    )
    return folder
