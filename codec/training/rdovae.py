"""Train the RDO-VAE: `python -m codec.training.rdovae --data DIR --out RUN [--hours H]`.

DIR holds `features.npy` and `index.tsv` as `codec.training.dataset` writes them. RUN receives
`rdovae.log`, `checkpoint.pt` (to resume from, with the same command) and `rdovae.npz` (the
weights). The learning rate follows the share of `--hours` that has been spent training, so a slow
machine makes fewer steps and still ends annealed.
"""

from __future__ import annotations

import argparse
import math
import os
import time
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from codec.training.dataset import Dataset, Split
from codec.training.rdovae_model import LEVELS, PAIR, RdoVae, distortion, relevance, trade_off

Array = npt.NDArray[np.float32]

STEPS = 50
"""Encoder steps per update: 1 s, which two interleaved runs of 25 latents cover exactly once."""
SLOPES = (0, 2, 3, 4, 6, 8, 12, 16)
"""Level steps per 16 latents that a DRED header can name."""
LEVELS_IN_USE = (2, 8)
"""Range of q0 (its end left out) that calls choose with the bits they are given."""
SLOPE_IN_USE = 7
"""dQ of calls: the default of `DredEncoder`."""
CHECKPOINT = "checkpoint.pt"
HARD_RATE_WEIGHT = 0.1
STATE_RATE_STEPS = 2000
"""Steps over which the price of the initial state rises to its due.

Until the decoder has learned to use it, the cheapest state is one that says nothing.
"""
PEAK_RATE = 1.5e-3


def joined(data: Dataset, split: Split, copies: Iterable[int] | None = None) -> Array:
    """The features of a split alone, its files one after another."""
    return np.concatenate(
        [data.features[first : first + n] for first, n in data.runs(split, copies=copies)]
    )


def sample(features: Array, frames: int) -> Array:
    """About so many frames, in passages of 4 s from everywhere."""
    starts = np.linspace(0, max(0, len(features) - 400), max(1, frames // 400)).astype(int)
    return np.concatenate([features[start : start + 400] for start in starts])


class Lanes:
    """Parallel walks through a corpus, so that the encoder's state is as old as in a call."""

    RESTART = 1 / 16

    def __init__(self, features: Array, count: int, seed: int) -> None:
        self.features = features
        self.random = np.random.default_rng(seed)
        self.position = np.zeros(count, np.int64)
        self.gain = np.zeros(count, np.float32)
        self.fresh = np.ones(count, bool)

    def next(self) -> tuple[Array, npt.NDArray[np.bool_]]:
        """Pairs float32 [1+STEPS, lanes, 40], and which lanes begin a new walk with them."""
        frames = 2 * STEPS
        limit = len(self.features) - frames - 2
        restart = self.fresh | (self.position > limit)
        restart |= self.random.random(len(restart)) < self.RESTART
        self.fresh[:] = False
        count = int(restart.sum())
        self.position[restart] = self.random.integers(0, limit, count)
        # Loudness moves only the first cepstral coefficient; a unit is 2.4 dB.
        self.gain[restart] = self.random.uniform(-2.5, 1.5, count)
        out = np.empty((1 + STEPS, len(restart), PAIR), np.float32)
        for lane, first in enumerate(self.position):
            window = np.array(self.features[first : first + frames + 2])
            window[:, 0] += self.gain[lane]
            out[:, lane] = window.reshape(-1, PAIR)
        self.position += frames
        return out, restart


def runs(short: bool) -> list[list[int]]:
    """Encoder steps that each redundancy payload consists of, newest first."""
    if short:
        return [list(range(newest, newest - 24, -2)) for newest in (49, 48, 25, 24)]
    return [list(range(newest, -1, -2)) for newest in (49, 48)]


def draw_levels(batch: int, length: int) -> Tensor:
    """Levels [length, batch] of payloads: half of them as calls use them, half at random."""
    newest = torch.randint(0, LEVELS, (batch,))
    slope = torch.tensor(SLOPES)[torch.randint(0, len(SLOPES), (batch,))]
    slope = slope * (torch.rand(batch) < 0.5)
    in_use = torch.rand(batch) < 0.5
    newest = torch.where(in_use, torch.randint(*LEVELS_IN_USE, (batch,)), newest)
    slope = torch.where(in_use, SLOPES[SLOPE_IN_USE], slope)
    index = torch.arange(length)[:, None]
    level: Tensor = (newest + (slope * index + 8) // 16).clamp(max=LEVELS - 1)
    return level


def gather(pairs: Tensor, run: list[int]) -> Tensor:
    """Feature vectors [N, B, 4, 20] that a run of latents describes, newest first."""
    index = torch.tensor(run)
    both = torch.cat([pairs[index], pairs[index + 1]], -1)
    return both.reshape(*both.shape[:2], 4, -1).flip(2)


def loss_of(
    model: RdoVae, pairs: Tensor, state: Tensor, *, short: bool, state_price: float = 1.0
) -> tuple[Tensor, Tensor, tuple[float, float, float]]:
    """Loss of one segment, the encoder's next state, (distortion, latent bits, state bits)."""
    latents, hidden, state = model.encode(pairs, state)
    selection = runs(short)
    batch = pairs.shape[1] * len(selection)
    level = draw_levels(batch, len(selection[0]))
    target = torch.cat([gather(pairs, run) for run in selection], 1)
    latent = model.latent_quantiser(torch.cat([latents[run] for run in selection], 1), level)
    initial = model.state_quantiser(
        model.initial_state(torch.cat([hidden[run[0]] for run in selection])), level[0]
    )
    # Half of the payloads decode noise, which has a gradient, half true rounding.
    rounded = torch.rand(batch) < 0.5
    decoded = model.decode(
        torch.where(rounded[:, None], latent.hard, latent.soft),
        torch.where(rounded[:, None], initial.hard, initial.soft),
        level,
    )
    error = (distortion(target, decoded) * relevance(target)).mean(-1)
    weight = trade_off(level).sqrt()
    rate = latent.soft_bits + HARD_RATE_WEIGHT * latent.hard_bits
    initial_rate = initial.soft_bits + HARD_RATE_WEIGHT * initial.hard_bits
    state_cost = state_price * (initial_rate * weight[0]).mean() / len(level)
    loss = (error / weight + rate * weight).mean() + state_cost
    with torch.no_grad():
        summary = (
            error.mean().item(),
            latent.hard_bits.mean().item(),
            initial.hard_bits.mean().item(),
        )
    return loss, state, summary


@torch.no_grad()
def validate(model: RdoVae, features: Array) -> str:
    """Distortion and bits of hard-quantised 1 s payloads by level, and of q0 = 6, dQ = 5."""
    lanes = min(12, len(features) // (8 * STEPS))
    if not lanes:
        return f"  {len(features)} frames are too few to validate"
    steps = min(len(features) // (2 * lanes) - 1, 1000)
    stride = len(features) // lanes
    windows = np.stack([features[k * stride : k * stride + 2 * steps + 2] for k in range(lanes)], 1)
    pairs = torch.tensor(windows.reshape(steps + 1, 2, lanes, -1).swapaxes(1, 2))
    pairs = pairs.reshape(steps + 1, lanes, PAIR)
    latents, hidden, _ = model.encode(pairs, torch.zeros(2, lanes, model.encoder_recurrent))
    selection = [list(range(end, end - STEPS, -2)) for end in range(STEPS + 49, steps, 97)]
    target = torch.cat([gather(pairs, run) for run in selection], 1)
    latent = torch.cat([latents[run] for run in selection], 1)
    initial = model.initial_state(torch.cat([hidden[run[0]] for run in selection]))
    voiced = target[..., 19] > 0.2
    lines = []
    for newest, slope in [(0, 0), (3, 0), (6, 0), (9, 0), (12, 0), (15, 0), (6, 8), (9, 8)]:
        level = (newest + (slope * torch.arange(25) + 8) // 16).clamp(max=LEVELS - 1)
        level = level[:, None].expand(25, len(initial))
        q = model.latent_quantiser(latent, level)
        s = model.state_quantiser(initial, level[0])
        out = model.decode(q.hard, s.hard, level)
        cepstrum = (out - target)[..., :18].square().mean().sqrt().item()
        pitch = ((out - target)[..., 18].abs() * math.log(2))[voiced]
        bits, state_bits = q.hard_bits.mean().item(), s.hard_bits.mean().item()
        lines.append(
            f"  q0 {newest:2d} slope {slope:2d}: D {distortion(target, out).mean().item():.4f}"
            f" cepstrum rms {cepstrum:.3f} pitch median {100 * pitch.median().item():.1f} %"
            f" over 10 %: {100 * (pitch > 0.1).float().mean().item():.1f} %"
            f" newest D {distortion(target[:1], out[:1]).mean().item():.4f}"
            f" bits/40 ms {bits:.1f} state {state_bits:.1f} 1 s {25 * bits + state_bits:.0f}"
        )
    return "\n".join(lines)


def weights(model: RdoVae) -> dict[str, Array]:
    return {name: value.detach().numpy().copy() for name, value in model.state_dict().items()}


def load_weights(model: RdoVae, path: Path) -> None:
    """Take every array of an exported npz; KeyError or ValueError if it is of another model."""
    with np.load(path) as arrays:
        model.load_state_dict({name: torch.tensor(arrays[name]) for name in arrays.files})


def save_atomically(path: Path, write: object, value: object) -> None:
    """Write beside `path`, then rename, so that a killed run leaves the last good file."""
    partial = path.with_name("partial-" + path.name)
    assert callable(write)
    write(value, partial)
    os.replace(partial, path)


class Training:
    """One run: model, optimiser, lanes and the time spent."""

    def __init__(self, data: Path, out: Path, *, hours: float, batch: int, seed: int) -> None:
        torch.manual_seed(seed)
        self.out = out
        self.seconds = hours * 3600
        dataset = Dataset.open(data)
        self.features = joined(dataset, "train")
        self.held_out = joined(dataset, "valid", copies=[0])
        self.model = RdoVae()
        self.model.start_from_statistics(torch.tensor(sample(self.features, 400_000)))
        self.lanes = Lanes(self.features, batch, seed)
        self.state = torch.zeros(2, batch, self.model.encoder_recurrent)
        statistics = list(self.model.latent_quantiser.parameters())
        known = {id(p) for p in statistics}
        networks = [p for p in self.model.parameters() if id(p) not in known]
        self.optimiser = torch.optim.Adam(
            [
                {"params": networks, "factor": 1.0},
                # Each of these is touched by one payload in sixteen.
                {"params": statistics, "factor": 2.0},
            ],
            PEAK_RATE,
            betas=(0.9, 0.98),
        )
        self.step = 0
        self.spent = 0.0
        self.state_rate_steps = STATE_RATE_STEPS

    def start_from(self, path: Path) -> None:
        """Start from exported weights. Latents that came to nothing get another chance."""
        load_weights(self.model, path)
        self.state_rate_steps = 1
        revived = self.model.revive(torch.tensor(sample(self.features, 40_000)))
        self.say(f"{path}: {revived} latents that were of no use begin anew")

    def say(self, text: str) -> None:
        print(text, flush=True)
        with (self.out / "rdovae.log").open("a") as log:
            log.write(text + "\n")

    def resume(self) -> None:
        path = self.out / CHECKPOINT
        if not path.exists():
            return
        kept = torch.load(path, weights_only=True)
        self.model.load_state_dict(kept["model"])
        self.optimiser.load_state_dict(kept["optimiser"])
        self.step, self.spent = kept["step"], kept["spent"]
        self.state_rate_steps = kept["state_rate_steps"]
        self.lanes.random = np.random.default_rng(self.step)
        self.say(f"resumed at step {self.step}, {self.spent:.0f} s")

    def save(self) -> None:
        kept = {
            "model": self.model.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "step": self.step,
            "spent": self.spent,
            "state_rate_steps": self.state_rate_steps,
        }
        save_atomically(self.out / CHECKPOINT, torch.save, kept)
        partial = self.out / "partial-rdovae.npz"
        np.savez(partial, **weights(self.model))  # type: ignore[arg-type]
        os.replace(partial, self.out / "rdovae.npz")

    def rate(self) -> float:
        """Warm-up over 200 steps, then a cosine over nine tenths of the time, down to 1 %."""
        done = min(1.0, self.spent / self.seconds)
        fall = 0.5 + 0.5 * math.cos(math.pi * max(0.0, done - 0.1) / 0.9)
        return PEAK_RATE * min(1.0, (self.step + 1) / 200) * max(0.01, fall)

    def update(self) -> tuple[float, float, float, float]:
        """One step; returns loss, distortion, bits per latent, bits of an initial state."""
        pairs, fresh = self.lanes.next()
        self.state[:, torch.tensor(fresh)] = 0
        for group in self.optimiser.param_groups:
            group["lr"] = self.rate() * group["factor"]
        loss, state, summary = loss_of(
            self.model,
            torch.tensor(pairs),
            self.state,
            short=self.step % 2 == 1,
            state_price=min(1.0, self.step / self.state_rate_steps),
        )
        self.state = state.detach()
        self.optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimiser.step()
        self.step += 1
        return (loss.item(), *summary)

    def run(self, *, save_every: float, validate_every: float) -> None:
        recent: list[tuple[float, float, float, float]] = []
        last_save = last_validation = self.spent
        began = time.monotonic() - self.spent
        while self.spent < self.seconds:
            recent.append(self.update())
            self.spent = time.monotonic() - began
            if self.step % 100 == 0:
                loss, error, bits, state_bits = np.mean(recent, 0)
                self.say(
                    f"{self.step} {self.spent:.0f} s loss {loss:.4f} D {error:.4f}"
                    f" bits/40 ms {bits:.2f} state {state_bits:.1f} lr {self.rate():.2e}"
                )
                recent = []
            if self.spent - last_save > save_every:
                last_save = self.spent
                self.save()
            if self.spent - last_validation > validate_every:
                last_validation = self.spent
                self.say(validate(self.model, self.held_out))
        self.save()
        self.say("finished\n" + validate(self.model, self.held_out))


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--hours", type=float, default=6.0, help="training time (default 6)")
    parser.add_argument("--batch", type=int, default=48, help="parallel 1 s segments (default 48)")
    parser.add_argument("--init", type=Path, help="start from the weights in this .npz")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--save-minutes", type=float, default=3.0)
    parser.add_argument("--validate-minutes", type=float, default=8.0)
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    options.out.mkdir(parents=True, exist_ok=True)
    training = Training(
        options.data, options.out, hours=options.hours, batch=options.batch, seed=options.seed
    )
    if options.init and not (options.out / CHECKPOINT).exists():
        training.start_from(options.init)
    training.resume()
    training.run(save_every=60 * options.save_minutes, validate_every=60 * options.validate_minutes)


if __name__ == "__main__":
    main()
