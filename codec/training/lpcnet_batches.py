"""Training sequences for LPCNet out of a prepared data set."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from codec.features import HOP, ORDER, PREEMPHASIS, SYNTHESIS_LAG, cepstrum_to_lpc
from codec.training.dataset import Dataset, Split
from codec.training.lpcnet_kernel import quantise_history
from codec.training.lpcnet_model import CONTEXT_AFTER, CONTEXT_BEFORE

GAIN_DB = (-20.0, 8.0)
UNCHANGED = 0.3
"""Share of sequences that keep their level."""
PEAK = 28_000
"""No gain raises a sequence above this."""
NOISE_STD = 4.0
NO_NOISE = 0.2
"""Share of sequences with an exact history."""
SILENCE_C0 = 1.0
"""A sequence whose c0 averages less is near silence..."""
SILENCE_KEPT = 0.15
"""...and is taken this often only."""
C0_PER_DECADE = 2 * np.sqrt(18)
"""c0 is the sum of 18 log10 energies over sqrt(18), and energy goes with the square of the gain."""


class Batch(NamedTuple):
    features: Tensor
    """float [B, F + 4, 20]"""
    inputs: Tensor
    """uint8 [B, F * 160, 3]"""
    targets: Tensor
    """uint8 [B, F * 160]"""


@dataclass(frozen=True)
class Sequence:
    """Frames [first, first + F) of a data set, to be heard at `gain` times their level."""

    first: int
    gain: float
    noise_std: float


class SequenceSampler:
    """Draws sequences of `frames` frames from one split; equal generators draw equal batches."""

    def __init__(self, data: Dataset, split: Split, frames: int) -> None:
        self._data = data
        self.frames = frames
        margin = CONTEXT_BEFORE + CONTEXT_AFTER + frames
        runs = [(first, count) for first, count in data.runs(split) if count > margin]
        if not runs:
            raise ValueError(f"no recording of the {split} split has {margin + 1} frames")
        # recording i offers the starts [first + CONTEXT_BEFORE, first + count - frames - 1]
        self._first = np.array([first + CONTEXT_BEFORE for first, _ in runs])
        self._ends = np.cumsum([count - margin + 1 for _, count in runs])

    def _start(self, rng: np.random.Generator) -> int:
        drawn = int(rng.integers(self._ends[-1]))
        run = int(np.searchsorted(self._ends, drawn, side="right"))
        return int(self._first[run]) + drawn - (int(self._ends[run - 1]) if run else 0)

    def training_sequence(self, rng: np.random.Generator, noise: float) -> Sequence:
        """A sequence with random level and noise; `noise` scales the latter's deviation."""
        while True:
            first = self._start(rng)
            loudness = self._data.features[first : first + self.frames, 0].mean()
            if loudness > SILENCE_C0 or rng.random() < SILENCE_KEPT:
                break
        gain = float(10 ** (rng.uniform(*GAIN_DB) / 20)) if rng.random() >= UNCHANGED else 1.0
        begin = first * HOP - SYNTHESIS_LAG
        samples = self._data.signal[begin : begin + self.frames * HOP]
        gain = min(gain, PEAK / (1 + float(np.abs(samples.astype(np.int32)).max())))
        # mostly small: the square of a uniform variable
        deviation = 0.0 if rng.random() < NO_NOISE else noise * NOISE_STD * rng.random() ** 2
        return Sequence(first, gain, deviation)

    def validation_sequence(self, rng: np.random.Generator, noise: float) -> Sequence:
        """As `training_sequence`, at the level of the recording."""
        drawn = self.training_sequence(rng, noise)
        return Sequence(drawn.first, 1.0, drawn.noise_std)

    def batch(self, sequences: list[Sequence], rng: np.random.Generator) -> Batch:
        """Features, history and targets of `sequences`; `rng` draws the noise."""
        frames, samples = self.frames, self.frames * HOP
        features = np.empty(
            (len(sequences), frames + CONTEXT_BEFORE + CONTEXT_AFTER, 20), np.float32
        )
        signal = np.empty((len(sequences), ORDER + samples), np.float32)
        noise = np.zeros((len(sequences), samples), np.int8)
        for row, s in enumerate(sequences):
            features[row] = self._data.features[
                s.first - CONTEXT_BEFORE : s.first + frames + CONTEXT_AFTER
            ]
            features[row, :, 0] += C0_PER_DECADE * np.log10(s.gain)
            begin = s.first * HOP - SYNTHESIS_LAG
            pcm = self._data.signal[begin - ORDER - 1 : begin + samples].astype(np.float32)
            signal[row] = s.gain * (pcm[1:] - np.float32(PREEMPHASIS) * pcm[:-1])
            if s.noise_std > 0:
                steps = rng.laplace(scale=s.noise_std / np.sqrt(2), size=samples)
                noise[row] = np.clip(np.rint(steps), -127, 127)
        own = features[:, CONTEXT_BEFORE : CONTEXT_BEFORE + frames]
        lpc = cepstrum_to_lpc(np.ascontiguousarray(own.reshape(-1, own.shape[-1])))
        inputs, targets = quantise_history(signal, lpc.reshape(-1, frames, ORDER), noise)
        return Batch(*(torch.from_numpy(a) for a in (features, inputs, targets)))

    def draw(
        self,
        count: int,
        seed: tuple[int, ...],
        noise: float = 1.0,
        draw: Callable[["SequenceSampler", np.random.Generator, float], Sequence] | None = None,
    ) -> Batch:
        """`count` sequences that depend on nothing but the data, the arguments and `seed`."""
        rng = np.random.default_rng(seed)
        one = draw or SequenceSampler.training_sequence
        return self.batch([one(self, rng, noise) for _ in range(count)], rng)


def feature_statistics(data: Dataset) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """Mean and standard deviation, [20] each, over the training recordings."""
    parts = [data.features[first : first + count : 10] for first, count in data.runs("train")]
    sample = np.concatenate(parts).astype(np.float64)
    return sample.mean(0).astype(np.float32), sample.std(0).astype(np.float32)
