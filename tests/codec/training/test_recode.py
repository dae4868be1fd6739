"""Data sets with features as redundancy conveys them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="training needs the train extra")
pytest.importorskip("onnx", reason="training needs the train extra")

from codec.training.dataset import FEATURES, INDEX, SIGNAL, Dataset, Entry, write_index  # noqa: E402
from codec.training.rdovae_model import RdoVae  # noqa: E402
from codec.training.recode import FRAMES, main, recode  # noqa: E402
from tests.codec.training.test_rdovae_training import Array, wandering  # noqa: E402

LANES = 4


@pytest.fixture(scope="module")
def model() -> RdoVae:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    model = RdoVae()
    model.start_from_statistics(torch.tensor(wandering(6000, 3)))
    return model


def rms(x: Array) -> float:
    return float(np.sqrt(np.mean(np.square(x))))


def test_coded_features_are_those_of_their_own_frames(model: RdoVae) -> None:
    features = wandering(2 + 2 * LANES * FRAMES, 4)
    coded = recode(features, model, share=1.0, lanes=LANES)
    inside = slice(2, 2 + 2 * LANES * FRAMES)
    error = rms((coded - features)[inside])
    assert 0 < error < rms(features) / 2
    for shift in (-2, -1, 1, 2):
        assert error < 0.8 * rms((coded - np.roll(features, shift, axis=0))[inside])


def test_a_share_of_the_seconds_is_coded(model: RdoVae) -> None:
    features = wandering(2 + 20 * LANES * FRAMES, 5)
    coded = recode(features, model, share=0.25, lanes=LANES)
    changed = (coded != features).any(1)[2:].reshape(-1, FRAMES)
    whole = changed.mean(1)
    assert set(whole) <= {0.0, 1.0}
    assert 0.1 < whole.mean() < 0.4


def test_the_command_makes_a_data_set_beside_another(model: RdoVae, tmp_path: Path) -> None:
    source, out = tmp_path / "data", tmp_path / "coded"
    source.mkdir()
    features = wandering(3 * 256 * FRAMES // 2, 6)
    np.save(source / FEATURES, features)
    np.save(source / SIGNAL, np.zeros(160 * len(features), np.int16))
    write_index(source / INDEX, [Entry("a.wav", "a", "train", 0, 0, len(features))])
    weights = {name: value.numpy() for name, value in model.state_dict().items()}
    np.savez(tmp_path / "rdovae.npz", **weights)
    command = ["--data", str(source), "--weights", str(tmp_path / "rdovae.npz"), "--out", str(out)]
    assert main(command) == 0
    made = Dataset.open(out)
    assert made.entries == Dataset.open(source).entries
    assert 0.2 < (made.features != features).any(1).mean() < 0.5  # 1 of 1.5 blocks in a lane


def test_weights_that_are_none_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--data", str(tmp_path), "--weights", "x", "--out", str(tmp_path / "o")]) == 2
    assert "no data set" in capsys.readouterr().err
