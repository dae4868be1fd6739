"""Features as DRED conveys them, in part of a data set, for a vocoder that has to speak from them.

    python -m codec.training.recode --data DATA --weights RUN/rdovae.npz --out DATA2

DATA2 is DATA, but every other second, chosen at random, has features that went through the RDO-VAE
at a random level. What coding averages away a vocoder can learn to put back. Signals are linked,
not copied.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from codec.training.dataset import FEATURES, INDEX, SIGNAL, Dataset
from codec.training.rdovae import STEPS, gather, load_weights
from codec.training.rdovae_model import LEVELS, PAIR, RdoVae

Array = npt.NDArray[np.float32]

FRAMES = 2 * STEPS
"""Of a block, 1 s."""
NEWEST_LEVELS = (3, 12)
SLOPES = (2, 3, 4, 6, 8)
"""Levels per 16 latents."""


@torch.no_grad()
def recode(
    features: Array, model: RdoVae, *, share: float, lanes: int = 256, seed: int = 0
) -> Array:
    """Features float32 [n, 20] with a `share` of their blocks coded and decoded.

    The encoder walks through `lanes` stretches at once; file borders mean nothing to it.
    """
    random = np.random.default_rng(seed)
    out = np.array(features, np.float32)
    blocks = (len(features) - 2) // (FRAMES * lanes)
    starts = 2 + FRAMES * blocks * np.arange(lanes)
    state = torch.zeros(2, lanes, model.encoder_recurrent)
    run = list(range(STEPS - 1, -1, -2))
    for block in range(blocks):
        first = starts + FRAMES * block
        windows = np.stack([features[f - 2 : f + FRAMES] for f in first], 1)
        pairs = torch.tensor(windows.reshape(STEPS + 1, 2, lanes, -1).swapaxes(1, 2).copy())
        pairs = pairs.reshape(STEPS + 1, lanes, PAIR)
        latents, hidden, state = model.encode(pairs, state)
        level = _levels(random, len(run), lanes)
        decoded = model.decode(
            model.latent_quantiser(latents[run], level).hard,
            model.state_quantiser(model.initial_state(hidden[run[0]]), level[0]).hard,
            level,
        )
        assert decoded.shape == gather(pairs, run).shape
        oldest_first = decoded.flip(0, 2).permute(1, 0, 2, 3).reshape(lanes, FRAMES, -1).numpy()
        for lane in np.flatnonzero(random.random(lanes) < share):
            out[first[lane] : first[lane] + FRAMES] = oldest_first[lane]
    return out


def _levels(random: np.random.Generator, length: int, lanes: int) -> torch.Tensor:
    newest = random.integers(NEWEST_LEVELS[0], NEWEST_LEVELS[1] + 1, lanes)
    slope = random.choice(SLOPES, lanes)
    level = newest + (slope * np.arange(length)[:, None] + 8) // 16
    return torch.tensor(np.minimum(level, LEVELS - 1))


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="codec.training.recode", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--data", type=Path, required=True, help="made by codec.training.prepare")
    parser.add_argument("--weights", type=Path, required=True, help="rdovae.npz")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--share", type=float, default=0.5, help="of blocks (default 0.5)")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(argv)
    torch.set_num_threads(1)
    try:
        if not 0 <= options.share <= 1:
            raise ValueError(f"--share {options.share:g} is not in 0-1")
        data = Dataset.open(options.data)
        model = RdoVae()
        load_weights(model, options.weights)
        options.out.mkdir(parents=True, exist_ok=True)
        coded = recode(data.features, model, share=options.share, seed=options.seed)
        np.save(options.out / FEATURES, coded)
        shutil.copyfile(options.data / INDEX, options.out / INDEX)
        (options.out / SIGNAL).unlink(missing_ok=True)
        os.symlink((options.data / SIGNAL).resolve(), options.out / SIGNAL)
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        print(f"codec.training.recode: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
