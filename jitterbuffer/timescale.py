"""Time-scale modification of speech by whole pitch periods (WSOLA).

One period is taken out, or put in once more, where the signal repeats itself, with a cross-fade
over its length; pitch and formants stay as they are. Lags are searched and judged as in NetEq.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Pcm = npt.NDArray[np.int16]
Signal = npt.NDArray[np.float32]

MIN_PERIOD = 40
"""Samples: 2.5 ms."""
MAX_PERIOD = 240
"""Samples: 15 ms."""
SPAN = 2 * MAX_PERIOD
"""Samples that are looked at, 30 ms: half of them are compared with those one lag away."""

ALIKE = 0.9
"""Correlation of two neighbouring periods from which on one may stand for both."""
ALIKE_ENOUGH = 0.7
"""The same, where much delay has to be made up."""
LEVEL_RATIO = 2.5
"""Energies of the two periods may differ by this factor."""
QUIET = 25.0
"""RMS, int16: under it (-62 dBFS) nobody hears what is cut."""

MAX_FADE = 160
"""Samples over which background is cross-faded, by power: noises are not alike."""

_COARSE = 4
"""Decimation for the first search, to 4 kHz."""


@dataclass(frozen=True, slots=True)
class Stretched:
    """Sound after one operation."""

    pcm: Pcm
    origin: npt.NDArray[np.int64]
    """For each sample the place in the input of the one that it is mostly made of. Negative: that
    many samples before its beginning."""


def accelerate(sound: Pcm, *, threshold: float = ALIKE, passive: bool = False) -> Stretched | None:
    """`sound` (int16, `SPAN` samples or more) without one of its first periods.

    None if that would be heard: the correlation is under `threshold`, unless the sound is
    `passive`, background without speech. Raises ValueError if it is too short.
    """
    if len(sound) < SPAN:
        raise ValueError(f"{len(sound)} samples where {SPAN} are due")
    first = sound[:SPAN].astype(np.float32)
    period = _lag(first)
    out, into = first[:period], first[period : 2 * period]
    if not _alike(out, into, threshold, passive):
        return None
    fade = _fade(period)
    joined = (1 - fade) * out + fade * into
    places = np.arange(len(sound) - period)
    return Stretched(
        np.concatenate([_rounded(joined), sound[2 * period :]]),
        np.where(places < period // 2, places, places + period),
    )


def expand(
    heard: Pcm, sound: Pcm, *, threshold: float = ALIKE, passive: bool = False
) -> Stretched | None:
    """`sound` (int16, `MAX_PERIOD` samples or more) with a period more in front of it.

    `heard` (int16, `MAX_PERIOD` samples or more) is what comes before. None and ValueError as for
    `accelerate`.
    """
    if min(len(sound), len(heard)) < MAX_PERIOD:
        raise ValueError(f"{len(heard)} and {len(sound)} samples where {MAX_PERIOD} are due")
    around = np.concatenate([heard[-MAX_PERIOD:], sound[:MAX_PERIOD]]).astype(np.float32)
    period = _lag(around[::-1])
    out, into = (around[at : at + period] for at in (MAX_PERIOD, MAX_PERIOD - period))
    if not _alike(out, into, threshold, passive):
        return None
    fade = _fade(period)
    joined = (1 - fade) * out + fade * into
    inserted = np.arange(period)
    return Stretched(
        np.concatenate([_rounded(joined), sound]),
        np.concatenate(
            [np.where(inserted < period // 2, inserted, inserted - period), np.arange(len(sound))]
        ),
    )


def cut(sound: Pcm, samples: int) -> Stretched:
    """`sound` (int16) without so many samples near its beginning; for background only."""
    over = min(MAX_FADE, len(sound) - samples)
    begin, end = sound[:over].astype(np.float32), sound[samples : samples + over].astype(np.float32)
    fade = np.sin(np.pi / 2 * _fade(over))
    joined = np.clip(np.sqrt(1 - fade**2) * begin + fade * end, -32768, 32767)
    places = np.arange(len(sound) - samples)
    return Stretched(
        np.concatenate([_rounded(joined), sound[samples + over :]]),
        np.where(places < over // 2, places, places + samples),
    )


def _lag(signal: Signal) -> int:
    """The lag at which the first half of `signal`, float32 [SPAN], repeats itself best."""
    coarse = signal.reshape(-1, _COARSE).mean(axis=1)
    lag = MIN_PERIOD + _COARSE * _best(coarse, MIN_PERIOD // _COARSE, MAX_PERIOD // _COARSE)
    low = max(MIN_PERIOD, lag - _COARSE)
    return low + _best(signal, low, min(MAX_PERIOD, lag + _COARSE))


def _alike(first: Signal, second: Signal, threshold: float, passive: bool) -> bool:
    """Whether one stretch of sound may stand for its neighbour."""
    energies = float(first @ first), float(second @ second)
    if passive or max(energies) < len(first) * QUIET**2:
        return True
    if max(energies) > LEVEL_RATIO * min(energies):
        return False
    return float(first @ second) >= threshold * math.sqrt(energies[0] * energies[1])


def _best(signal: Signal, low: int, high: int) -> int:
    """Of the lags `low` to `high`, how far from `low` the most alike half of `signal` lies."""
    half = len(signal) // 2
    shifted = np.lib.stride_tricks.sliding_window_view(signal, half)[low : high + 1]
    energy = np.einsum("ij,ij->i", shifted, shifted)
    return int(np.argmax(shifted @ signal[:half] / np.sqrt(energy + 1.0)))


def _fade(period: int) -> Signal:
    """Weights of what comes in, float32 [period]; linear, for both are alike."""
    return np.linspace(0, 1, period + 2, dtype=np.float32)[1:-1]


def _rounded(signal: Signal) -> Pcm:
    return np.rint(signal).astype(np.int16)
