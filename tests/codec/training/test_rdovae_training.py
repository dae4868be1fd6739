"""The RDO-VAE's model, trainer and export, on features that a toy process makes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

torch = pytest.importorskip("torch", reason="training needs the train extra")
pytest.importorskip("onnx", reason="training needs the train extra")

from codec.dred_model import DredModel  # noqa: E402
from codec.training.dataset import FEATURES, INDEX, SIGNAL, Entry, write_index  # noqa: E402
from codec.training.export_rdovae import export, quantised_tables  # noqa: E402
from codec.training.export_rdovae import main as export_main  # noqa: E402
from codec.training.rdovae import (  # noqa: E402
    STEPS,
    Lanes,
    Training,
    draw_levels,
    gather,
    load_weights,
    loss_of,
    main,
    runs,
    validate,
)
from codec.training.rdovae_model import LEVELS, RdoVae, distortion, relevance, trade_off  # noqa: E402
from codec.training.rdovae_report import main as report_main  # noqa: E402

Array = npt.NDArray[np.float32]


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    torch.set_num_threads(1)
    yield
    torch.set_flush_denormal(False)  # training does, for the whole process


def wandering(frames: int, seed: int) -> Array:
    """Features that move slowly about, as speech's do, [frames, 20]."""
    random = np.random.default_rng(seed)
    drive = random.normal(0, 1, (frames, 20))
    for t in range(1, frames):
        drive[t] = 0.9 * drive[t - 1] + 0.43 * drive[t]
    features = drive * np.linspace(3, 0.3, 20)
    features[:, 18:] = np.tanh(features[:, 18:]) / 2
    return features.astype(np.float32)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("features")
    features = wandering(3000, 1)
    np.save(folder / FEATURES, features)
    np.save(folder / SIGNAL, np.zeros(160 * len(features), np.int16))
    write_index(
        folder / INDEX,
        [
            Entry("a.wav", "one", "train", 0, 0, 2000),
            Entry("b.wav", "two", "valid", 0, 2000, 1000),
        ],
    )
    return folder


@pytest.fixture
def model() -> RdoVae:
    torch.manual_seed(3)
    model = RdoVae()
    model.start_from_statistics(torch.tensor(wandering(4000, 2)))
    return model


def pairs(steps: int, batch: int = 1) -> Any:
    lanes = [wandering(2 * steps + 2, 10 + b).reshape(-1, 40) for b in range(batch)]
    return torch.tensor(np.stack(lanes, 1))


def silent(batch: int = 1) -> Any:
    return torch.zeros(2, batch, RdoVae().encoder_recurrent)


@torch.no_grad()
def test_a_latent_knows_nothing_of_later_features(model: RdoVae) -> None:
    x = pairs(30)
    changed = x.clone()
    changed[21:] += 1
    before, hidden, _ = model.encode(x, silent())
    after, other, _ = model.encode(changed, silent())
    torch.testing.assert_close(after[:20], before[:20])
    torch.testing.assert_close(other[:20], hidden[:20])
    assert (after[20] - before[20]).abs().max() > 0.01


@torch.no_grad()
def test_an_encoder_may_be_run_step_by_step(model: RdoVae) -> None:
    x = pairs(12)
    whole, _, last = model.encode(x, silent())
    state = silent()
    for t in range(12):
        latent, _, state = model.encode(x[t : t + 2], state)
        torch.testing.assert_close(latent[0], whole[t], atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(state, last, atol=1e-4, rtol=1e-4)


@torch.no_grad()
def test_what_is_newer_does_not_depend_on_what_is_older(model: RdoVae) -> None:
    latents, initial = torch.randn(10, 1, 32), torch.randn(1, 48)
    level = torch.full((10, 1), 6)
    before = model.decode(latents, initial, level)
    latents[6:] += 1
    after = model.decode(latents, initial, level)
    torch.testing.assert_close(after[:6], before[:6])
    assert (after[6] - before[6]).abs().max() > 0.01


@torch.no_grad()
def test_an_untrained_model_is_already_a_transform_coder(model: RdoVae) -> None:
    x = pairs(STEPS, 4)
    latents, hidden, _ = model.encode(x, silent(4))
    run = runs(False)[0]
    errors = []
    for q in (0, 5, 15):
        level = torch.full((len(run), 4), q)
        quantised = model.latent_quantiser(latents[run], level)
        decoded = model.decode(quantised.hard, model.initial_state(hidden[run[0]]), level)
        errors.append(distortion(gather(x, run), decoded).mean().item())
    nothing = distortion(gather(x, run), model.mean.expand(len(run), 4, 4, 20)).mean().item()
    assert errors[0] < errors[1] < errors[2] < nothing
    assert errors[0] < 0.1 * nothing


@torch.no_grad()
def test_latents_of_no_use_begin_anew_where_they_help(model: RdoVae) -> None:
    model.latent_quantiser.decay[:, 20:] = -20
    model.latent_quantiser.zero[:, 20:] = 0
    x, run = pairs(STEPS, 8), runs(False)[0]

    def error() -> float:
        latents, hidden, _ = model.encode(x, silent(8))
        used = model.latent_quantiser.used()
        level = torch.zeros(len(run), 8, dtype=torch.int64)
        sent = model.latent_quantiser(latents[run], level).hard * used
        decoded = model.decode(sent, model.initial_state(hidden[run[0]]), level)
        return distortion(gather(x, run), decoded).mean().item()

    before = error()
    assert model.revive(torch.tensor(wandering(8000, 4))) == 12
    assert model.latent_quantiser.used().all()
    assert error() < 0.8 * before


def test_two_runs_cover_a_segment_once_and_every_latent_describes_its_own_frames() -> None:
    assert sorted(step for run in runs(False) for step in run) == list(range(STEPS))
    x = torch.arange(2 * (STEPS + 1) * 20.0).reshape(STEPS + 1, 1, 40)
    frames = gather(x, [49, 47])[:, 0, :, 0] / 20
    assert frames.tolist() == [[101, 100, 99, 98], [97, 96, 95, 94]]
    for run in runs(True):
        assert min(run) >= 0
        assert len(run) == 12


def test_levels_stay_within_range_and_never_get_finer_into_the_past() -> None:
    torch.manual_seed(1)
    level = draw_levels(2000, 25)
    assert level.min() == 0
    assert level.max() == LEVELS - 1
    assert (level.diff(dim=0) >= 0).all()
    assert level[0].unique().numel() == LEVELS


def test_coarser_levels_value_a_bit_more() -> None:
    assert (trade_off(torch.arange(LEVELS)).diff() > 0).all()


def test_the_rate_of_rounded_values_is_that_of_the_code_with_their_tables(model: RdoVae) -> None:
    quantiser = model.latent_quantiser
    torch.manual_seed(5)
    x = torch.randn(40, 32) * 5
    level = torch.full((40,), 7)
    with torch.no_grad():
        found = quantiser(x, level)
        scale, _, r, p0 = (t[7].double() for t in quantiser.tables())
    symbols = torch.round(found.hard.double() * scale)
    zero = -torch.log2(p0)
    beyond = -torch.log2((1 - p0) / 2 * (1 - r)) - (symbols.abs() - 1) * torch.log2(r)
    expected = torch.where(symbols == 0, zero, beyond).sum(-1)
    torch.testing.assert_close(found.hard_bits.double(), expected, rtol=1e-3, atol=1e-2)


def test_quiet_frames_count_less_than_loud_ones() -> None:
    target = torch.zeros(25, 1, 4, 20)
    target[3, 0, 1, 0] = 20
    weight = relevance(target)
    assert weight[3, 0, 1] > 0.95
    assert weight[0, 0, 0] < 0.3


def test_lanes_walk_on_where_they_were(data: Path) -> None:
    features = np.load(data / FEATURES)
    lanes = Lanes(features, 40, seed=1)
    lanes.RESTART = 0.0  # type: ignore[misc]
    first, fresh = lanes.next()
    assert fresh.all()
    second, fresh = lanes.next()
    kept = ~fresh
    assert kept.any()
    # The pair before a segment is the last pair of the one before it.
    np.testing.assert_array_equal(second[0][kept], first[-1][kept])


def loss_on_other_data(model: RdoVae) -> float:
    torch.manual_seed(0)
    with torch.no_grad():
        return float(loss_of(model, pairs(STEPS, 16), silent(16), short=False)[0])


def test_training_lowers_the_loss_and_goes_on_where_it_stopped(data: Path, tmp_path: Path) -> None:
    training = Training(data, tmp_path, hours=0.1, batch=4, seed=1)
    # The start is close to the best for so simple a process: spoil it, and skip the warm-up.
    with torch.no_grad():
        training.model.to_features.weight.mul_(0.5)
    training.step = 200
    before = loss_on_other_data(training.model)
    for _ in range(30):
        training.update()
    reached = loss_on_other_data(training.model)
    assert reached < 0.9 * before
    training.save()

    resumed = Training(data, tmp_path, hours=0.1, batch=4, seed=1)
    resumed.resume()
    assert resumed.step == 230
    assert loss_on_other_data(resumed.model) == pytest.approx(reached, rel=1e-5)
    for _ in range(15):
        resumed.update()
    assert loss_on_other_data(resumed.model) < reached


def test_the_command_trains_validates_and_starts_from_exported_weights(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, models = tmp_path / "run", tmp_path / "models"
    arguments = ["--data", str(data), "--hours", "0.0003", "--batch", "2"]
    main([*arguments, "--out", str(out)])
    printed = capsys.readouterr().out
    assert "bits/40 ms" in printed
    assert (out / "rdovae.log").read_text() in printed
    export_main([str(out / "rdovae.npz"), "--out", str(models)])
    assert "latent" in capsys.readouterr().out
    model = RdoVae()
    load_weights(model, models / "dred_rdovae.npz")
    main([*arguments, "--out", str(tmp_path / "again"), "--init", str(models / "dred_rdovae.npz")])
    assert "begin anew" in capsys.readouterr().out
    report_main(["--data", str(data), "--models", str(models)])
    rows = capsys.readouterr().out.splitlines()[2:]
    sizes = [float(row.split("|")[5]) for row in rows]
    assert sizes[:6] == sorted(sizes[:6], reverse=True)


def test_too_little_held_out_speech_is_said(model: RdoVae) -> None:
    assert "too few" in validate(model, wandering(100, 1))


@torch.no_grad()
def test_exported_networks_compute_what_the_model_computes(model: RdoVae, tmp_path: Path) -> None:
    for parameter in model.parameters():
        parameter.add_(0.02 * torch.randn_like(parameter))
    # One dimension that is never sent.
    model.latent_quantiser.decay[:, 5] = -20
    kept, _ = export(model, tmp_path)
    assert kept == 31
    exported = DredModel(tmp_path)
    x = pairs(50)
    latents, hidden, state = model.encode(x, silent())
    found, initial, next_state = exported.encode(x[:, 0].numpy(), exported.encoder_state())
    _, latent_map = quantised_tables(model.latent_quantiser)
    _, state_map = quantised_tables(model.state_quantiser)
    np.testing.assert_allclose(found, latents[:, 0].numpy() @ latent_map, atol=1e-3)
    np.testing.assert_allclose(
        initial, model.initial_state(hidden)[:, 0].numpy() @ state_map, atol=1e-3
    )
    np.testing.assert_allclose(next_state, state.numpy(), atol=1e-4)

    run = runs(False)[0]
    sent = latents[run]
    sent[..., 5] = 0
    whole = model.initial_state(hidden[run[0]]) * torch.tensor(state_map.any(1))
    level = torch.arange(25) % 16
    expected = model.decode(sent, whole, level[:, None])[:, 0].reshape(-1, 20).numpy()
    features, _ = exported.decode(found[run].copy(), level.numpy(), exported.start(initial[run[0]]))
    np.testing.assert_allclose(features, expected, atol=2e-3)


@torch.no_grad()
def test_exported_tables_quantise_as_in_training(model: RdoVae, tmp_path: Path) -> None:
    export(model, tmp_path)
    statistics = DredModel(tmp_path).statistics
    _, mapping = quantised_tables(model.latent_quantiser)
    x = torch.randn(200, 32) * 3
    for q in (0, 8, 15):
        level = torch.full((200,), q)
        trained = model.latent_quantiser(x, level)
        scale = model.latent_quantiser.tables()[0][q]
        symbols = torch.round(trained.hard * scale).numpy()[:, mapping.any(1)]
        found = statistics.latent.quantise(x.numpy() @ mapping, q)
        # 8-bit tables move few values over a rounding border.
        assert np.mean(found != symbols) < 0.06
        assert np.abs(found - symbols).max() <= 1
