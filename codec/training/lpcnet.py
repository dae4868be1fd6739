"""Train LPCNet: `python -m codec.training.lpcnet --data DIR --out RUN`; see docs/training.md.

RUN receives `log.txt`, `curve.tsv` and `checkpoint.pt`. The same command goes on from the
checkpoint when there is one. `python -m codec.training.export RUN FILE.npz` writes the weights.
"""

import argparse
import json
import logging
import os
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import torch

from codec.training import sparsity
from codec.training.dataset import Dataset
from codec.training.lpcnet_batches import Batch, SequenceSampler, feature_statistics
from codec.training.lpcnet_kernel import sample_loss
from codec.training.lpcnet_model import LPCNet

SAMPLE_RATE = 16_000
CHECKPOINT = "checkpoint.pt"
SPARSE = "gru_a_recurrent_weight"
VALIDATION_ROWS = 64

log = logging.getLogger("lpcnet")


@dataclass(frozen=True)
class Settings:
    """What a run is made with; kept in its checkpoint and in the exported file."""

    rate: float = 1e-3
    """Adam's step at the start; it falls as 1 / (1 + 2p) with the progress p, then linearly."""
    anneal: float = 0.3
    """Share of the run, at its end, in which the rate falls to 3 % of what it was."""
    batch: int = 32
    """Sequences per update."""
    frames: int = 15
    """Length of a sequence in 10 ms frames, from a zero state."""
    noise: float = 1.0
    """Scale of the noise injected into the signal history."""
    density: tuple[float, float, float] = (0.3, 0.3, 0.45)
    """Share of blocks kept in GRU A's recurrent matrix: update, reset, candidate."""
    prune_first: int = 100
    prune_last: int = 2500
    """Updates between which the matrix thins out."""
    prune_every: int = 20
    quantise_from: float = 1.1
    """Progress from which the large matrices are rounded to 8 bits in the forward pass."""
    ema: float = 0.998
    """Decay per update of the averaged weights, the ones that are validated and exported."""
    validation: int = 256
    """Sequences that are validated on."""
    seed: int = 1


@dataclass(frozen=True)
class Budget:
    """How long to train: hours of audio, or seconds of wall clock, whichever is given."""

    audio_hours: float | None = None
    wall_seconds: float | None = None


class Trainer:
    """The state of a run: weights, Adam's moments, averages, counters."""

    def __init__(self, data: Dataset, settings: Settings, threads: int) -> None:
        self.settings = settings
        self.threads = threads
        self.samplers = {
            split: SequenceSampler(data, split, settings.frames) for split in ("train", "valid")
        }
        torch.manual_seed(settings.seed)
        self.model = LPCNet()
        mean, std = feature_statistics(data)
        self.model.get_buffer("feature_mean").copy_(torch.from_numpy(mean))
        self.model.get_buffer("feature_std").copy_(torch.from_numpy(std))
        self._begin()

    def _begin(self) -> None:
        self.active = sparsity.active_blocks(self.sparse_weight)
        self.optimiser = torch.optim.Adam(
            self.model.parameters(), lr=self.settings.rate, betas=(0.9, 0.99), eps=1e-9
        )
        self.average = {k: v.clone() for k, v in self.model.state_dict().items()}
        self.updates = 0
        self.audio_seconds = 0.0
        self.wall_seconds = 0.0
        self.ancestry: dict[str, Any] = {}

    @property
    def sparse_weight(self) -> torch.nn.Parameter:
        return self.model.get_parameter(SPARSE)

    @property
    def density(self) -> float:
        return float(self.active.float().mean())

    def start_from(self, weights: Path) -> None:
        """Begin with the weights of a file; what it says of its own training is kept."""
        with np.load(weights, allow_pickle=False) as arrays:
            self.model.load_arrays({k: arrays[k] for k in arrays.files if k != "metadata"})
            metadata = json.loads(str(arrays["metadata"])) if "metadata" in arrays else {}
        self._begin()
        self.ancestry = metadata

    def progress(self, budget: Budget) -> float:
        """Share of the budget that is spent, 0..1."""
        if budget.audio_hours is not None:
            return min(1.0, self.audio_seconds / 3600 / budget.audio_hours)
        if budget.wall_seconds is not None:
            return min(1.0, self.wall_seconds / max(budget.wall_seconds, 1.0))
        raise ValueError("a budget of audio hours or of wall-clock time is needed")

    def learning_rate(self, progress: float) -> float:
        s = self.settings
        warm = min(1.0, (self.updates + 1) / 100)
        hold = 1 - s.anneal
        if progress < hold:
            return s.rate * warm / (1 + 2 * progress)
        return s.rate / (1 + 2 * hold) * max(0.03, (1 - progress) / s.anneal)

    def draw(self, update: int) -> Batch:
        """The batch of that update; it depends on nothing else but settings and data."""
        s = self.settings
        return self.samplers["train"].draw(s.batch, (s.seed, update), s.noise)

    def update(self, batch: Batch, progress: float) -> tuple[float, float]:
        """One step of Adam; -> loss in nats per sample, gradient norm."""
        for group in self.optimiser.param_groups:
            group["lr"] = self.learning_rate(progress)
        weights = self.model(batch.features, progress >= self.settings.quantise_from)
        loss = sample_loss(weights, batch.inputs, batch.targets, self.threads)
        self.optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        norm = float(torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0))
        self.optimiser.step()
        self.updates += 1
        self.audio_seconds += batch.targets.numel() / SAMPLE_RATE
        self._thin_out()
        with torch.no_grad():
            decay = min(self.settings.ema, 1 - 4 / (self.updates + 8))
            state = self.model.state_dict()
            torch._foreach_lerp_(list(self.average.values()), list(state.values()), 1 - decay)
        return float(loss.detach()), norm

    def _thin_out(self) -> None:
        s = self.settings
        due = s.prune_first <= self.updates <= s.prune_last and self.updates % s.prune_every == 0
        if due or self.updates == s.prune_last:
            now = [
                sparsity.scheduled_density(d, self.updates, s.prune_first, s.prune_last)
                for d in s.density
            ]
            self.active = sparsity.prune(self.sparse_weight, self.active, now)
        # Adam's moments outlive a pruned block, so it is cleared after every step
        sparsity.apply(self.sparse_weight, self.active)

    def averaged(self) -> LPCNet:
        """The averaged weights with the present blocks."""
        model = LPCNet()
        model.load_state_dict(self.average)
        sparsity.apply(model.get_parameter(SPARSE), self.active)
        return model

    def validate(self, noise: float) -> float:
        """Nats per sample of the averaged weights on fixed sequences of unseen speakers."""
        model, sampler = self.averaged(), self.samplers["valid"]
        losses = []
        with torch.no_grad():
            for i in range(self.settings.validation // VALIDATION_ROWS):
                batch = sampler.draw(
                    VALIDATION_ROWS, (0, i), noise, SequenceSampler.validation_sequence
                )
                weights = model(batch.features)
                losses.append(
                    float(sample_loss(weights, batch.inputs, batch.targets, self.threads))
                )
        return float(np.mean(losses))

    def save(self, path: Path) -> None:
        state = {
            "settings": asdict(self.settings),
            "model": self.model.state_dict(),
            "average": self.average,
            "optimiser": self.optimiser.state_dict(),
            "active": self.active,
            "updates": self.updates,
            "audio_seconds": self.audio_seconds,
            "wall_seconds": self.wall_seconds,
            "ancestry": self.ancestry,
        }
        scratch = path.with_suffix(".part")
        torch.save(state, scratch)
        os.replace(scratch, path)

    def restore(self, path: Path) -> None:
        """Take up the run that `save` wrote."""
        state = torch.load(path, weights_only=True)
        self.model.load_state_dict(state["model"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.average = state["average"]
        self.active = state["active"]
        self.updates = state["updates"]
        self.audio_seconds = state["audio_seconds"]
        self.wall_seconds = state["wall_seconds"]
        self.ancestry = state["ancestry"]


class Curve:
    """Rows of figures appended to RUN/curve.tsv."""

    COLUMNS = (
        "updates",
        "audio_hours",
        "loss",
        "gradient",
        "rate",
        "density",
        "speed",
        "clean",
        "noisy",
    )

    def __init__(self, path: Path) -> None:
        self._path = path
        if not path.exists():
            path.write_text("\t".join(self.COLUMNS) + "\n")

    def append(self, **figures: float) -> None:
        row = [f"{figures[c]:.6g}" if c in figures else "" for c in self.COLUMNS]
        with self._path.open("a") as file:
            file.write("\t".join(row) + "\n")


def train(
    trainer: Trainer,
    budget: Budget,
    run: Path,
    *,
    log_every: int = 100,
    validate_every: int = 500,
    checkpoint_every: float = 180.0,
    clock: Callable[[], float] = time.monotonic,
) -> None:
    """Train until the budget is spent; `run` is a folder, times are in seconds."""
    curve = Curve(run / "curve.tsv")
    log.info("begin: clean %.4f noisy %.4f", trainer.validate(0.0), trainer.validate(1.0))
    wall_before, started = trainer.wall_seconds, clock()
    saved = noted = started
    noted_audio = trainer.audio_seconds
    recent: list[tuple[float, float]] = []
    # the next batch is prepared while the kernel runs, which holds no lock of the interpreter
    with ThreadPoolExecutor(1) as pool:
        coming = pool.submit(trainer.draw, trainer.updates)
        while (progress := trainer.progress(budget)) < 1:
            batch = coming.result()
            coming = pool.submit(trainer.draw, trainer.updates + 1)
            recent.append(trainer.update(batch, progress))
            now = clock()
            trainer.wall_seconds = wall_before + now - started
            if trainer.updates % log_every == 0:
                loss, norm = np.mean(recent, 0)
                figures = {
                    "updates": trainer.updates,
                    "audio_hours": trainer.audio_seconds / 3600,
                    "loss": loss,
                    "gradient": norm,
                    "rate": trainer.learning_rate(progress),
                    "density": trainer.density,
                    "speed": (trainer.audio_seconds - noted_audio) / max(now - noted, 1e-9),
                }
                if trainer.updates % validate_every == 0:
                    figures |= {"clean": trainer.validate(0.0), "noisy": trainer.validate(1.0)}
                curve.append(**figures)
                log.info(" ".join(f"{k} {v:.5g}" for k, v in figures.items()))
                recent, noted, noted_audio = [], clock(), trainer.audio_seconds
            if now - saved > checkpoint_every:
                trainer.save(run / CHECKPOINT)
                saved = now
    trainer.save(run / CHECKPOINT)
    log.info("end: clean %.4f noisy %.4f", trainer.validate(0.0), trainer.validate(1.0))


def seconds_until(time_of_day: str, now: datetime) -> float:
    """Seconds from `now` to the next HH:MM of its clock. Raises ValueError on anything else."""
    then = datetime.combine(now.date(), datetime.strptime(time_of_day, "%H:%M").time())
    return (then + timedelta(days=then <= now) - now).total_seconds()


def _parser() -> argparse.ArgumentParser:
    d = Settings()
    p = argparse.ArgumentParser(prog="codec.training.lpcnet", description="Train LPCNet.")
    p.add_argument("--data", type=Path, required=True, help="folder made by codec.training.prepare")
    p.add_argument("--out", type=Path, required=True, help="folder of the run, outside the sources")
    p.add_argument("--init", type=Path, help="weight file to start from; ignored when resuming")
    budget = p.add_mutually_exclusive_group(required=True)
    budget.add_argument("--hours", type=float, help="of audio to see, in all")
    budget.add_argument("--minutes", type=float, help="of wall clock, in all")
    budget.add_argument("--end", metavar="HH:MM", help="time of day at which to have finished")
    p.add_argument("--rate", type=float, default=d.rate, help="Adam's step (default %(default)g)")
    p.add_argument("--anneal", type=float, default=d.anneal, help="share of the run it falls in")
    p.add_argument("--ema", type=float, default=d.ema, help="decay of the averaged weights")
    p.add_argument(
        "--batch", type=int, default=d.batch, help="sequences per update, a multiple of 16"
    )
    p.add_argument("--density", type=float, nargs=3, default=d.density, metavar=("Z", "R", "N"))
    p.add_argument(
        "--prune",
        type=int,
        nargs=2,
        default=(d.prune_first, d.prune_last),
        metavar=("FIRST", "LAST"),
        help="updates between which blocks are removed (default %(default)s)",
    )
    p.add_argument(
        "--quantise-from",
        type=float,
        default=d.quantise_from,
        metavar="SHARE",
        help="share of the run after which weights are rounded to 8 bits (default: never)",
    )
    p.add_argument("--noise", type=float, default=d.noise, help="scale of the injected noise")
    p.add_argument("--seed", type=int, default=d.seed)
    p.add_argument("--threads", type=int, default=2, help="of the kernel; 0: plain PyTorch")
    return p


def main(argv: list[str] | None = None) -> int:
    arguments = _parser().parse_args(argv)
    run: Path = arguments.out
    try:
        run.mkdir(parents=True, exist_ok=True)
        logging.basicConfig(
            level=logging.INFO,
            format="%(asctime)s %(message)s",
            handlers=[logging.StreamHandler(), logging.FileHandler(run / "log.txt")],
        )
        torch.set_num_threads(1)  # the cores belong to the kernel's own threads
        settings = Settings(
            rate=arguments.rate,
            anneal=arguments.anneal,
            ema=arguments.ema,
            batch=arguments.batch,
            density=tuple(arguments.density),
            prune_first=arguments.prune[0],
            prune_last=arguments.prune[1],
            noise=arguments.noise,
            quantise_from=arguments.quantise_from,
            seed=arguments.seed,
        )
        trainer = Trainer(Dataset.open(arguments.data), settings, arguments.threads)
        if (run / CHECKPOINT).exists():
            trainer.restore(run / CHECKPOINT)
            log.info("resuming at update %d", trainer.updates)
        elif arguments.init:
            trainer.start_from(arguments.init)
        if arguments.end:
            left = seconds_until(arguments.end, datetime.now())
            budget = Budget(wall_seconds=trainer.wall_seconds + left)
        elif arguments.minutes:
            budget = Budget(wall_seconds=60 * arguments.minutes)
        else:
            budget = Budget(audio_hours=arguments.hours)
    except (OSError, ValueError) as error:
        print(f"codec.training.lpcnet: {error}", file=sys.stderr)
        return 2
    train(trainer, budget, run)
    return 0


if __name__ == "__main__":
    sys.exit(main())
