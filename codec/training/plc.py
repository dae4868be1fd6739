"""Train the predictor of lost features: `python -m codec.training.plc --data DIR --out RUN`.

RUN receives `log.txt` and `plc.pt`; `python -m codec.training.export RUN FILE.onnx` writes the
network the codec runs. At the end its errors are compared with repeating the last known frame and
with a linear predictor, by the position in the hole.
"""

import argparse
import json
import logging
import math
import os
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional

from codec.features import NUM_BANDS, NUM_FEATURES, PERIODICITY, PITCH
from codec.training.dataset import Dataset, Split
from codec.training.loss_pattern import frame_losses
from codec.training.plc_model import LOST, RECEIVED, REDUNDANT, FeaturePredictor, onnx_model

Array = npt.NDArray[np.float32]

CHECKPOINT = "plc.pt"
GAIN_DB = (-20.0, 8.0)
C0_PER_DECADE = 2 * math.sqrt(18)
KNOWN_WEIGHT = 0.25
"""Of the frames whose prediction nobody will hear, against those that are lost."""
REDUNDANT_SHARE = 0.2
"""Share of the holes whose features come late, out of redundancy."""
REDUNDANT_ERROR = np.array([0.4] + [0.15] * 17 + [0.05, 0.1], np.float32)
"""Standard deviation of what coding does to features, about that of mid quantisation levels."""
HORIZONS = 30
"""Frames of a hole that the comparison reaches: 300 ms."""
LINEAR_CONTEXT = 4

log = logging.getLogger("plc")


@dataclass(frozen=True)
class Settings:
    """What a run is made with."""

    rate: float = 2e-3
    batch: int = 48
    frames: int = 250
    seed: int = 1


def band_matrix() -> Tensor:
    """[18, 18]: log10 band energies are cepstra times this (the orthonormal DCT-III)."""
    n, k = np.meshgrid(np.arange(NUM_BANDS), np.arange(NUM_BANDS))
    basis = np.sqrt(2 / NUM_BANDS) * np.cos((n + 0.5) * k * np.pi / NUM_BANDS)
    basis[0] /= np.sqrt(2)
    return torch.from_numpy(basis.astype(np.float32))


BANDS = band_matrix()


def prediction_error(predicted: Tensor, target: Tensor) -> Tensor:
    """Error of each frame, [...], of features [..., 20].

    Absolute errors, so that an uncertain future gives its median, a plausible frame, and not the
    blur of a mean: of the cepstra, of the log band energies, of the periodicity, and of the pitch
    where there is one. The pitch term is steep below a tenth of an octave and flat above half of
    one: octave slips of the tracker are not worth learning.
    """
    error = predicted - target
    cepstra = error[..., :NUM_BANDS].abs().mean(-1)
    bands = (error[..., :NUM_BANDS] @ BANDS).abs().mean(-1)
    octaves = error[..., PITCH].abs()
    pitch = octaves.clamp(max=0.5) + 4 * octaves.clamp(max=0.1)
    voiced = functional.relu(target[..., PERIODICITY] + 0.5)
    return cepstra + bands + voiced * pitch + 0.5 * error[..., PERIODICITY].abs()


class Batches:
    """Random excerpts of a split with random losses; equal seeds draw equal batches."""

    def __init__(self, data: Dataset, split: Split, frames: int, copies: list[int] | None = None):
        self._features = data.features
        self._frames = frames
        self._runs = [run for run in data.runs(split, copies=copies) if run[1] > frames]
        if not self._runs:
            raise ValueError(f"no recording of the {split} split has {frames + 1} frames")
        self._share = np.cumsum([count for _, count in self._runs])

    def draw(self, count: int, seed: tuple[int, ...]) -> tuple[Tensor, Tensor, Tensor]:
        """True features [B, T+1, 20], features as received [B, T, 20], flags [B, T]."""
        rng = np.random.default_rng(seed)
        frames = self._frames
        true = np.empty((count, frames + 1, NUM_FEATURES), np.float32)
        flag = np.full((count, frames), RECEIVED, np.float32)
        for row in range(count):
            drawn = int(rng.integers(self._share[-1]))
            first, length = self._runs[int(np.searchsorted(self._share, drawn, side="right"))]
            begin = first + int(rng.integers(length - frames))
            true[row] = self._features[begin : begin + frames + 1]
            true[row, :, 0] += C0_PER_DECADE * rng.uniform(*GAIN_DB) / 20
            lost = frame_losses(frames, rng)
            flag[row, lost] = LOST
            starts = np.flatnonzero(np.diff(lost, prepend=False) & lost)
            ends = np.flatnonzero(np.diff(lost, append=False) & lost) + 1
            for a, b in zip(starts, ends, strict=True):
                if rng.random() < REDUNDANT_SHARE:
                    flag[row, a:b] = REDUNDANT
        coded = true[:, :frames] + REDUNDANT_ERROR * rng.standard_normal(
            (count, frames, NUM_FEATURES), np.float32
        )
        given = np.where((flag == REDUNDANT)[..., None], coded, true[:, :frames])
        given[flag == LOST] = 0
        return torch.from_numpy(true), torch.from_numpy(given), torch.from_numpy(flag)


def loss_of(model: FeaturePredictor, true: Tensor, given: Tensor, flag: Tensor) -> Tensor:
    """Mean error of the predictions that are heard, plus a little of the others."""
    error = prediction_error(model(given, flag).features[:, :-1], true[:, 1:-1])
    heard = flag[:, 1:] == LOST
    weight = torch.where(heard, 1.0, KNOWN_WEIGHT)
    return (error * weight).sum() / weight.sum()


def train(
    data: Dataset,
    run: Path,
    settings: Settings,
    minutes: float,
    clock: Callable[[], float] = time.monotonic,
    log_every: int = 100,
) -> FeaturePredictor:
    """Train for `minutes` and leave `plc.pt` in the folder `run`."""
    batches = Batches(data, "train", settings.frames)
    torch.manual_seed(settings.seed)
    model = FeaturePredictor()
    sample = np.concatenate([data.features[a : a + n : 10] for a, n in data.runs("train")])
    model.set_statistics(sample)
    optimiser = torch.optim.Adam(model.parameters(), lr=settings.rate, betas=(0.9, 0.98))
    started = saved = clock()
    updates = 0
    recent: list[float] = []

    def save() -> None:
        hours = updates * settings.batch * settings.frames / 360_000
        state = {
            "model": model.state_dict(),
            "settings": asdict(settings),
            "updates": updates,
            "audio_hours": round(hours, 2),
        }
        torch.save(state, run / f"{CHECKPOINT}.part")
        os.replace(run / f"{CHECKPOINT}.part", run / CHECKPOINT)

    while (progress := (clock() - started) / (60 * minutes)) < 1:
        rate = settings.rate * min(1.0, (updates + 1) / 30)
        rate *= max(0.02, 0.5 * (1 + math.cos(math.pi * progress)))
        for group in optimiser.param_groups:
            group["lr"] = rate
        loss = loss_of(model, *batches.draw(settings.batch, (settings.seed, updates)))
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        updates += 1
        recent.append(float(loss.detach()))
        if updates % log_every == 0:
            log.info("update %d loss %.4f rate %.2e", updates, np.mean(recent), rate)
            recent = []
        if clock() - saved > 120:
            save()
            saved = clock()
    save()
    return model


def fit_linear(data: Dataset) -> Array:
    """Least squares from the last known frames to each frame of a hole: [HORIZONS, 4*20+1, 20]."""
    inputs, targets = [], []
    for first, count in data.runs("train", copies=[0]):
        for end in range(LINEAR_CONTEXT, count - HORIZONS, 7):
            inputs.append(data.features[first + end - LINEAR_CONTEXT : first + end].ravel())
            targets.append(data.features[first + end : first + end + HORIZONS])
    x = np.stack(inputs).astype(np.float64)
    x = np.concatenate([x, np.ones((len(x), 1))], 1)
    y = np.stack(targets).astype(np.float64).reshape(len(x), -1)
    solution = np.linalg.solve(x.T @ x + np.eye(x.shape[1]), x.T @ y)
    return solution.reshape(-1, HORIZONS, NUM_FEATURES).transpose(1, 0, 2).astype(np.float32)


def figures(predicted: Array, target: Array) -> dict[str, float]:
    """Mean absolute errors over frames [n, 20]: cepstra, dB per band, octaves where voiced."""
    error = np.abs(predicted - target)
    bands = np.abs((predicted - target)[:, :NUM_BANDS] @ BANDS.numpy())
    voiced = target[:, PERIODICITY] > 0.1
    return {
        "cepstrum": float(error[:, :NUM_BANDS].mean()),
        "band_db": float(10 * bands.mean()),
        "pitch_octaves": float(error[voiced, PITCH].mean()) if voiced.any() else math.nan,
        "periodicity": float(error[:, PERIODICITY].mean()),
    }


POSITIONS = ((1, 1), (2, 2), (3, 4), (5, 8), (9, 14), (15, 22), (23, 30))
"""First and last 10 ms frame of a hole, counted from 1, of the rows of the comparison."""


def compare(model: FeaturePredictor, data: Dataset) -> list[dict[str, Any]]:
    """Errors in holes of 300 ms on unseen speakers, for each range of `POSITIONS` and predictor."""
    linear = fit_linear(data)
    before = 100
    given, true = [], []
    for first, count in data.runs("valid", copies=[0]):
        for begin in range(0, count - before - HORIZONS, 20):
            piece = data.features[first + begin : first + begin + before + HORIZONS]
            if piece[before - 10 : before, 0].mean() > 1:  # not in a pause
                true.append(piece[before:])
                given.append(piece[:before])
    known, target = np.stack(given), np.stack(true)
    features = torch.from_numpy(np.pad(known, ((0, 0), (0, HORIZONS), (0, 0))))
    flag = torch.ones(len(known), before + HORIZONS)
    flag[:, before:] = LOST
    with torch.no_grad():
        network = model(features, flag).features[:, before - 1 : -1].numpy()
    context = known[:, -LINEAR_CONTEXT:].reshape(len(known), -1)
    context = np.concatenate([context, np.ones((len(context), 1), np.float32)], 1)
    predictions = {
        "network": network,
        "hold": np.repeat(known[:, -1:], HORIZONS, 1),
        "linear": np.einsum("ni,hij->nhj", context, linear),
    }
    return [
        {"from": a, "to": b, "predictor": name}
        | figures(p[:, a - 1 : b].reshape(-1, 20), target[:, a - 1 : b].reshape(-1, 20))
        for a, b in POSITIONS
        for name, p in predictions.items()
    ]


def export_plc(run: Path, out: Path) -> dict[str, Any]:
    """Write the ONNX network of a run; -> its metadata. Raises OSError if RUN has no `plc.pt`."""
    state = torch.load(run / CHECKPOINT, weights_only=True)
    metadata = {k: state[k] for k in ("updates", "audio_hours", "settings")}
    scratch = out.with_suffix(".part")
    scratch.write_bytes(onnx_model(state["model"], {"training": json.dumps(metadata)}))
    os.replace(scratch, out)
    return metadata


def main(argv: list[str] | None = None) -> int:
    d = Settings()
    parser = argparse.ArgumentParser(prog="codec.training.plc", description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="made by codec.training.prepare")
    parser.add_argument("--out", type=Path, required=True, help="folder of the run")
    parser.add_argument("--minutes", type=float, default=25, help="of wall clock (default 25)")
    parser.add_argument("--rate", type=float, default=d.rate, help="Adam's step (default 0.002)")
    parser.add_argument("--batch", type=int, default=d.batch, help="sequences per update")
    parser.add_argument("--seed", type=int, default=d.seed)
    arguments = parser.parse_args(argv)
    run: Path = arguments.out
    settings = Settings(rate=arguments.rate, batch=arguments.batch, seed=arguments.seed)
    try:
        run.mkdir(parents=True, exist_ok=True)
        data = Dataset.open(arguments.data)
        logging.basicConfig(
            level=logging.INFO,
            format="%(asctime)s %(message)s",
            handlers=[logging.StreamHandler(), logging.FileHandler(run / "log.txt")],
        )
        torch.set_num_threads(1)
        model = train(data, run, settings, arguments.minutes)
    except (OSError, ValueError) as error:
        print(f"codec.training.plc: {error}", file=sys.stderr)
        return 2
    for row in compare(model, data):
        log.info(json.dumps(row))
    return 0


if __name__ == "__main__":
    sys.exit(main())
