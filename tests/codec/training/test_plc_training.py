import json
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

torch = pytest.importorskip("torch", reason="training needs the train extra")
pytest.importorskip("onnx", reason="training needs the train extra")
ort = pytest.importorskip("onnxruntime")

from codec.features import NUM_FEATURES  # noqa: E402
from codec.training import export  # noqa: E402
from codec.training.dataset import Dataset  # noqa: E402
from codec.training.loss_pattern import LONGEST_BURST, frame_losses, loss_pattern  # noqa: E402
from codec.training.plc import (  # noqa: E402
    BANDS,
    CHECKPOINT,
    Batches,
    Settings,
    figures,
    loss_of,
    main,
    prediction_error,
    train,
)
from codec.training.plc_model import (  # noqa: E402
    LOST,
    RECEIVED,
    REDUNDANT,
    STATE,
    FeaturePredictor,
    hold,
)


def bursts(lost: npt.NDArray[np.bool_]) -> npt.NDArray[np.int64]:
    edges = np.flatnonzero(np.diff(np.concatenate([[False], lost, [False]])))
    return edges[1::2] - edges[::2]


def test_losses_come_in_bursts_with_a_heavy_tail() -> None:
    rng = np.random.default_rng(0)
    patterns = [loss_pattern(500, rng) for _ in range(400)]
    lengths = np.concatenate([bursts(p) for p in patterns])
    rates = [p.mean() for p in patterns]
    # recorded calls: means of 1.4 to 3.2 packets, half or more of the bursts single, some of 1 s
    assert 1.4 < lengths.mean() < 3.5
    assert 0.45 < (lengths == 1).mean() < 0.75
    assert 30 < lengths.max() <= LONGEST_BURST
    assert min(rates) < 0.05
    assert max(rates) > 0.45


def test_a_packet_is_two_frames() -> None:
    rng = np.random.default_rng(1)
    for _ in range(50):
        lost = frame_losses(101, rng)
        assert lost.shape == (101,)
        edges = np.flatnonzero(np.diff(lost))
        assert len(set(edges % 2)) <= 1


def test_lost_frames_hold_the_last_known_one() -> None:
    features = torch.arange(1.0, 6.0)[None, :, None].expand(1, 5, NUM_FEATURES)
    known = torch.tensor([[False, True, False, False, True]])
    assert hold(features, known)[0, :, 0].tolist() == [0, 2, 2, 2, 5]


def test_the_bands_are_those_of_the_feature_definition() -> None:
    # an orthonormal transform, and c0 alone is the same level in every band
    torch.testing.assert_close(BANDS @ BANDS.T, torch.eye(18), atol=1e-5, rtol=0)
    torch.testing.assert_close(BANDS[0], torch.full((18,), 18**-0.5), atol=1e-6, rtol=0)


def test_pitch_does_not_matter_where_there_is_none() -> None:
    target = torch.zeros(2, 20)
    target[:, 19] = torch.tensor([-0.5, 0.4])
    wrong = target.clone()
    wrong[:, 18] += 0.2
    unvoiced, voiced = prediction_error(wrong, target)
    assert unvoiced == 0
    assert voiced > 0.3


def test_an_untrained_predictor_repeats_the_last_frame(small_data: Path) -> None:
    model = FeaturePredictor()
    true, given, flag = Batches(Dataset.open(small_data), "train", 60).draw(4, (1,))
    predicted, held = model(given, flag)
    torch.testing.assert_close(predicted, held)
    torch.testing.assert_close(held[flag == RECEIVED], true[:, :60][flag == RECEIVED])
    assert set(flag.flatten().tolist()) <= {RECEIVED, LOST, REDUNDANT}
    assert given[flag == LOST].abs().max() == 0


def test_training_decreases_the_error(small_data: Path, tmp_path: Path) -> None:
    torch.set_num_threads(1)
    data = Dataset.open(small_data)
    settings = Settings(batch=4, frames=40, rate=5e-3)
    ticks = iter(range(1000))
    # a clock of two seconds an update: it is read twice each
    model = train(data, tmp_path, settings, minutes=1.5, clock=lambda: float(next(ticks)))
    held_out = Batches(data, "train", 60).draw(16, (9, 9))
    with torch.no_grad():
        trained = loss_of(model, *held_out)
        untrained = loss_of(FeaturePredictor(), *held_out)
    assert trained < 0.95 * untrained
    assert (tmp_path / CHECKPOINT).exists()


def test_the_exported_step_is_the_trained_sequence(small_data: Path, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = FeaturePredictor()
    data = Dataset.open(small_data)
    model.set_statistics(np.array(data.features))
    torch.nn.init.normal_(model.out.weight, std=0.1)
    state = {"model": model.state_dict(), "updates": 3, "audio_hours": 0.1, "settings": {}}
    torch.save(state, tmp_path / CHECKPOINT)
    out = tmp_path / "plc.onnx"
    assert export.main([str(tmp_path), str(out)]) == 0

    _, given, flag = Batches(data, "train", 60).draw(1, (4,))
    flag[0, 30:33], flag[0, 33:35] = LOST, REDUNDANT
    with torch.no_grad():
        expected = model(given, flag).features[0].numpy()
    session = ort.InferenceSession(str(out), providers=["CPUExecutionProvider"])
    assert json.loads(session.get_modelmeta().custom_metadata_map["training"])["updates"] == 3
    carried = np.zeros(STATE, np.float32)
    for t in range(60):
        inputs = {"features": given[0, t : t + 1].numpy(), "lost": flag[:, t : t + 1].numpy()}
        prediction, carried = session.run(None, inputs | {"state": carried})
        np.testing.assert_allclose(prediction[0], expected[t], atol=1e-4)
        assert carried.shape == (STATE,)


def test_figures_are_in_the_units_they_name() -> None:
    target = np.zeros((3, 20), np.float32)
    target[:, 19] = 0.4
    off = target.copy()
    off[:, 0] += 18**0.5  # a decade of energy in every band
    off[:, 18] += 1
    result = figures(off, target)
    assert result["band_db"] == pytest.approx(10, abs=1e-4)
    assert result["pitch_octaves"] == pytest.approx(1)
    assert result["periodicity"] == 0


def test_a_missing_data_set_gives_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--data", str(tmp_path / "none"), "--out", str(tmp_path / "run")]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1
