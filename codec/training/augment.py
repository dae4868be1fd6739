"""What microphones and rooms do to a recording: level, spectral colour, background noise."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

LEVEL_DB = (-20.0, 6.0)
COLOUR = 0.3
"""Bound of each coefficient of the second-order filter: mild, some +-6 dB over the band."""
NOISE_PROBABILITY = 0.3
NOISE_SNR_DB = (20.0, 45.0)
FULL_SCALE = 32767.0

Signal = npt.NDArray[np.float64]


def alter(pcm: npt.NDArray[np.int16], rng: np.random.Generator) -> npt.NDArray[np.int16]:
    """A copy of int16 [n] with random level and colour and, sometimes, low noise.

    The colour is (1 + b1 z^-1 + b2 z^-2) / (1 + a1 z^-1 + a2 z^-2) with small random coefficients,
    as in RNNoise's training (Valin 2018, arXiv 1709.08243). Raising the level stops short of
    clipping.
    """
    if not np.any(pcm):
        return pcm.copy()
    signal = pcm.astype(np.float64)
    power = np.mean(signal**2)

    b1, b2, a1, a2 = rng.uniform(-COLOUR, COLOUR, 4)
    # The poles' radius is at most 0.72: 128 taps hold all that int16 can.
    signal = filtered(signal, (1.0, b1, b2), (a1, a2), taps=128)
    signal *= np.sqrt(power / np.mean(signal**2))

    if rng.random() < NOISE_PROBABILITY:
        snr = 10 ** (rng.uniform(*NOISE_SNR_DB) / 10)
        white = rng.standard_normal(len(signal))
        noise = filtered(white, (1.0, 0.0, 0.0), (-rng.uniform(0.0, 0.95), 0.0), taps=256)
        signal += noise * np.sqrt(power / snr / np.mean(noise**2))

    headroom = 20 * np.log10(FULL_SCALE / np.max(np.abs(signal)))
    low, high = LEVEL_DB
    signal *= 10 ** (min(headroom, rng.uniform(low, max(low, min(high, headroom)))) / 20)
    return np.rint(signal).astype(np.int16)


def filtered(
    signal: Signal, forward: tuple[float, float, float], back: tuple[float, float], taps: int
) -> Signal:
    """A second-order filter (leading feedback coefficient 1), its response cut to `taps`."""
    response = np.zeros(taps)
    for n in range(taps):
        response[n] = (
            (forward[n] if n < 3 else 0.0)
            - (back[0] * response[n - 1] if n > 0 else 0.0)
            - (back[1] * response[n - 2] if n > 1 else 0.0)
        )
    return np.convolve(signal, response)[: len(signal)]
