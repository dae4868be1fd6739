import dataclasses
import json
import shutil
from datetime import datetime
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="training needs the train extra")

from torch import Tensor  # noqa: E402

from codec.training import export, native, sparsity  # noqa: E402
from codec.training.dataset import Dataset  # noqa: E402
from codec.training.lpcnet import (  # noqa: E402
    CHECKPOINT,
    SPARSE,
    Budget,
    Settings,
    Trainer,
    main,
    seconds_until,
    train,
)
from codec.training.lpcnet_batches import SequenceSampler  # noqa: E402
from codec.training.lpcnet_kernel import library, quantise_history, sample_loss  # noqa: E402
from codec.training.lpcnet_model import (  # noqa: E402
    FRAME,
    SHAPES,
    LPCNet,
    SampleWeights,
    fake_quantise,
    reference_loss,
)

ROWS = 16
needs_kernel = pytest.mark.skipif(library() is None, reason="no C compiler")
SMALL = Settings(
    batch=16, frames=2, prune_first=1, prune_last=3, prune_every=1, rate=2e-3, validation=64
)


def small_trainer(data: Path, threads: int = 1) -> Trainer:
    torch.set_num_threads(1)
    return Trainer(Dataset.open(data), SMALL, threads)


def pruned_network(frames: int) -> tuple[SampleWeights, Tensor, Tensor, Tensor]:
    torch.manual_seed(3)
    model = LPCNet()
    weight = model.get_parameter(SPARSE)
    active = sparsity.prune(weight, sparsity.active_blocks(weight), (0.2, 0.3, 0.5))
    sparsity.apply(weight, active)
    features = 0.5 * torch.randn(ROWS, frames + 4, 20)
    weights = SampleWeights(*(w.detach().requires_grad_() for w in model(features)))
    inputs = torch.randint(0, 256, (ROWS, frames * FRAME, 3), dtype=torch.uint8)
    targets = torch.randint(0, 256, (ROWS, frames * FRAME), dtype=torch.uint8)
    return weights, inputs, targets, active


@needs_kernel
def test_the_kernel_agrees_with_autograd_in_loss_and_every_gradient() -> None:
    torch.set_num_threads(1)
    weights, inputs, targets, active = pruned_network(frames=1)
    expected = reference_loss(weights, inputs, targets)
    fused = sample_loss(weights, inputs, targets, threads=1)
    assert fused.item() == pytest.approx(expected.item(), rel=1e-6)
    for name, want, have in zip(
        SampleWeights._fields,
        torch.autograd.grad(expected, weights),
        torch.autograd.grad(3 * fused, weights),
        strict=True,
    ):
        if name == "recurrent_a":
            sparsity.apply(want, active)  # the kernel skips what is pruned
        # float32 sums over 2560 samples in another order
        assert (have / 3 - want).norm() <= 1e-5 * want.norm(), name


@needs_kernel
def test_threads_change_nothing_but_the_order_of_sums() -> None:
    weights, inputs, targets, _ = pruned_network(frames=1)
    doubled = weights._replace(
        condition_a=weights.condition_a.repeat(2, 1, 1),
        condition_b=weights.condition_b.repeat(2, 1, 1),
    )
    arguments = inputs.repeat(2, 1, 1), targets.repeat(2, 1)
    one, two = (sample_loss(doubled, *arguments, threads=n) for n in (1, 2))
    assert one.item() == pytest.approx(two.item(), rel=1e-6)
    for a, b in zip(
        torch.autograd.grad(one, weights), torch.autograd.grad(two, weights), strict=True
    ):
        assert (a - b).norm() <= 1e-5 * a.norm()


@needs_kernel
def test_without_gradients_the_kernel_gives_the_same_loss() -> None:
    weights, inputs, targets, _ = pruned_network(frames=2)
    with_gradient = sample_loss(weights, inputs, targets)
    with torch.no_grad():
        without = sample_loss(weights, inputs, targets)
    assert without.item() == pytest.approx(with_gradient.item(), rel=1e-7)


@needs_kernel
def test_the_kernel_quantises_history_as_numpy_does() -> None:
    rng = np.random.default_rng(2)
    signal = rng.normal(0, 800, (3, 16 + 2 * FRAME)).astype(np.float32)
    lpc = rng.normal(0, 0.1, (3, 2, 16)).astype(np.float32)
    noise = rng.integers(-3, 4, (3, 2 * FRAME)).astype(np.int8)
    fast = quantise_history(signal, lpc, noise)
    slow = quantise_history(signal, lpc, noise, use_kernel=False)
    # a rounding that falls the other way is fed back, so equality cannot be asked of every sample
    for a, b in zip(fast, slow, strict=True):
        assert np.mean(a != b) < 0.02


def test_history_without_noise_follows_the_signal() -> None:
    t = np.arange(16 + 2 * FRAME)
    signal = (3000 * np.sin(t / 9)).astype(np.float32)[None]
    lpc = np.zeros((1, 2, 16), np.float32)
    lpc[..., 0] = 0.9
    inputs, targets = quantise_history(signal, lpc, np.zeros((1, 2 * FRAME), np.int8), False)
    assert inputs[0, 0, 2] == 128
    np.testing.assert_array_equal(inputs[0, 1:, 2], targets[0, :-1])
    heard = inputs[0, 1:, 0].astype(float) - 128
    linear = np.sign(heard) * 32768 / 255 * (256 ** (np.abs(heard) / 128) - 1)
    # the excitation is some 300 and an 8-bit mu-law step there 4 % of it; then once more as input
    assert np.abs(linear - signal[0, 16:-1]).max() < 200


def test_a_compiler_that_is_missing_leaves_pytorch(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("CC", "/nonexistent/compiler")
    source = Path(native.__file__).with_name("lpcnet_kernel.c")
    assert native.load.__wrapped__(source) is None
    assert len(caplog.records) == 1


def test_a_source_that_does_not_compile_leaves_pytorch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    source = tmp_path / "broken.c"
    source.write_text("int main( {")
    assert native.load(source) is None
    assert len(caplog.records) == 1


def test_pruning_reaches_the_density_and_keeps_the_diagonal() -> None:
    torch.manual_seed(0)
    weight = torch.randn(768, 256)
    active = sparsity.active_blocks(weight)
    assert active.all()
    for step in (0.9, 0.5, 0.3):
        before = active
        active = sparsity.prune(weight, active, (step, step, 1.5 * step if step < 0.5 else step))
        assert not (active & ~before).any()
        sparsity.apply(weight, active)
    for gate, density in zip(active.chunk(3), (0.3, 0.3, 0.45), strict=True):
        assert gate.float().mean().item() == pytest.approx(density, abs=1e-3)
        assert gate[sparsity.diagonal_blocks(256)].all()
    for gate in weight.chunk(3):
        assert gate.diagonal().ne(0).all()
    assert torch.equal(sparsity.active_blocks(weight), active)


def test_the_largest_blocks_survive() -> None:
    weight = torch.full((768, 256), 0.01)
    weight[256:272, 100:104] = 1.0
    kept = sparsity.prune(weight, sparsity.active_blocks(weight), (0.1, 0.1, 0.1))
    assert kept[16, 25]


def test_fake_quantisation_has_127_steps_a_row_and_passes_the_gradient() -> None:
    weight = torch.tensor([[0.5, -1.27, 0.004], [2.0, 0.01, 0.0]], requires_grad=True)
    quantised = fake_quantise(weight)
    steps = quantised.detach() / (weight.detach().abs().amax(1, keepdim=True) / 127)
    torch.testing.assert_close(steps, steps.round(), atol=1e-4, rtol=0)
    quantised.sum().backward()  # type: ignore[no-untyped-call]
    assert torch.equal(weight.grad, torch.ones(2, 3))


def test_batches_depend_on_their_seed_alone(small_data: Path) -> None:
    sampler = SequenceSampler(Dataset.open(small_data), "train", 3)
    first, again, other = (sampler.draw(4, (1, k)) for k in (7, 7, 8))
    for a, b in zip(first, again, strict=True):
        assert torch.equal(a, b)
    assert not torch.equal(first.targets, other.targets)
    assert first.features.shape == (4, 7, 20)
    assert first.inputs.shape == (4, 480, 3)


def test_a_few_updates_decrease_the_loss(small_data: Path) -> None:
    trainer = small_trainer(small_data)
    before = trainer.validate(0.0)
    losses = [trainer.update(trainer.draw(0), 0.0)[0] for _ in range(8)]
    assert losses[-1] < losses[0] - 0.3
    trainer.average = {k: v.clone() for k, v in trainer.model.state_dict().items()}
    assert trainer.validate(0.0) < before


def test_a_resumed_run_ends_with_the_same_bits(small_data: Path, tmp_path: Path) -> None:
    def updates(trainer: Trainer, count: int) -> None:
        for _ in range(count):
            trainer.update(trainer.draw(trainer.updates), 0.1)

    straight = small_trainer(small_data)
    updates(straight, 4)
    broken_off = small_trainer(small_data)
    updates(broken_off, 2)
    broken_off.save(tmp_path / CHECKPOINT)
    resumed = small_trainer(small_data)
    resumed.restore(tmp_path / CHECKPOINT)
    updates(resumed, 2)
    assert resumed.updates == straight.updates
    for name, weight in straight.model.state_dict().items():
        assert torch.equal(weight, resumed.model.state_dict()[name]), name
    for name, weight in straight.average.items():
        assert torch.equal(weight, resumed.average[name]), name


def test_a_run_logs_exports_and_starts_another(small_data: Path, tmp_path: Path) -> None:
    trainer = small_trainer(small_data)
    run, out = tmp_path / "run", tmp_path / "lpcnet.npz"
    run.mkdir()
    train(trainer, Budget(audio_hours=4 * 16 * 0.02 / 3600), run, log_every=2, validate_every=4)
    assert trainer.updates == 4
    rows = (run / "curve.tsv").read_text().splitlines()
    assert [row.split("\t")[0] for row in rows] == ["updates", "2", "4"]
    assert trainer.density == pytest.approx(0.35, abs=1e-3)

    assert export.main([str(run), str(out)]) == 0
    with np.load(out, allow_pickle=False) as arrays:
        assert set(arrays.files) == {*SHAPES, "metadata"}
        for name, shape in SHAPES.items():
            assert arrays[name].shape == shape
            assert arrays[name].dtype == np.float32
        metadata = json.loads(str(arrays["metadata"]))
        blocks = sparsity.active_blocks(torch.from_numpy(arrays[SPARSE]))
    assert metadata["updates"] == 4
    assert metadata["density"] == pytest.approx(blocks.float().mean().item(), abs=1e-4)
    assert metadata["settings"]["batch"] == 16

    heir = small_trainer(small_data)
    heir.start_from(out)
    assert heir.ancestry == metadata
    assert heir.density == trainer.density
    assert heir.validate(0.0) == pytest.approx(trainer.validate(0.0), rel=1e-6)


def test_pytorch_alone_trains_too(small_data: Path) -> None:
    settings = dataclasses.replace(SMALL, frames=1, batch=2)
    trainer = Trainer(Dataset.open(small_data), settings, threads=0)
    loss, norm = trainer.update(trainer.draw(0), 0.0)
    assert 0 < loss < 8.5
    assert norm > 0


def test_the_rate_falls_and_anneals(small_data: Path) -> None:
    trainer = small_trainer(small_data)
    trainer.updates = 1000
    rates = [trainer.learning_rate(p / 20) for p in range(20)]
    assert rates == sorted(rates, reverse=True)
    assert trainer.learning_rate(1.0) == pytest.approx(0.03 * SMALL.rate / 2.4)


def test_an_hour_of_the_day_is_always_ahead() -> None:
    assert seconds_until("02:00", datetime(2026, 5, 1, 23, 0)) == 3 * 3600
    assert seconds_until("23:30", datetime(2026, 5, 1, 23, 0)) == 1800
    with pytest.raises(ValueError, match="25:00"):
        seconds_until("25:00", datetime(2026, 5, 1))


def test_bad_arguments_give_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--data", str(tmp_path / "none"), "--out", str(tmp_path / "run"), "--hours", "1"]
    assert main(arguments) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1
    assert export.main([str(tmp_path), str(tmp_path / "a.npz")]) == 2
    assert export.main([str(tmp_path), str(tmp_path / "a.bin")]) == 2
    shutil.rmtree(tmp_path / "run")
