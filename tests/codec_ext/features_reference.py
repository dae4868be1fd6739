"""The features in float64 NumPy, one definition at a time, with no regard for speed."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy.signal import ellip, lfilter

Array = npt.NDArray[np.float64]

HOP = 160
CENTRES = 4 * np.array([0, 1, 2, 3, 4, 5, 6, 7, 8, 10, 12, 14, 16, 20, 24, 28, 34, 40])
COMPENSATION = np.array(
    [0.8, 1, 1, 1, 1, 1, 1, 1, 2 / 3, 0.5, 0.5, 0.5, 1 / 3, 0.25, 0.25, 0.2, 1 / 6, 0.173913]
)
LAGS = np.arange(32, 256)


def emphasised(pcm: npt.NDArray[np.int16]) -> Array:
    signal = pcm.astype(np.float64)
    return signal - 0.85 * np.concatenate([[0.0], signal[:-1]])


def windows(signal: Array) -> Array:
    """[n, 320]: hop k with the hop before it."""
    hops = signal.reshape(-1, HOP)
    return np.hstack([np.vstack([np.zeros(HOP), hops[:-1]]), hops])


def dct() -> Array:
    k, i = np.ogrid[:18, :18]
    matrix: Array = np.sqrt(2 / 18) * np.cos(np.pi * k * (i + 0.5) / 18)
    matrix[0] /= np.sqrt(2)
    return matrix


def cepstrum(window: Array) -> Array:
    """320 pre-emphasised samples -> 18 coefficients."""
    rising = np.sin(np.pi / 2 * np.sin(np.pi / 2 * (np.arange(HOP) + 0.5) / HOP) ** 2)
    power = np.abs(np.fft.fft(window * np.concatenate([rising, rising[::-1]])) / 320) ** 2
    energy = np.zeros(18)
    for band in range(17):
        for bin_ in range(CENTRES[band], CENTRES[band + 1]):
            fraction = (bin_ - CENTRES[band]) / (CENTRES[band + 1] - CENTRES[band])
            energy[band] += (1 - fraction) * power[bin_]
            energy[band + 1] += fraction * power[bin_]
    energy[[0, 17]] *= 2
    level = np.log10(1e-2 + energy)
    loudest = follow = -2.0
    for band in range(18):
        level[band] = max(level[band], loudest - 8, follow - 2.5)
        loudest = max(loudest, level[band])
        follow = max(follow - 2.5, level[band])
    coefficients: Array = dct() @ level
    coefficients[0] -= 4
    return coefficients


def lpc(coefficients: Array) -> Array:
    """18 coefficients -> 16 predictor taps."""
    level = dct().T @ (coefficients + 4 * (np.arange(18) == 0))
    energy = 10**level * COMPENSATION
    spectrum = np.append(np.interp(np.arange(160), CENTRES, energy), 0.0)
    ac = 320 * np.fft.irfft(spectrum, 320)[:17]
    ac[0] += ac[0] * 1e-4 + 320 / 12 / 38
    ac *= 1 - 6e-5 * np.arange(17) ** 2
    # Each order solves its normal equations afresh; the recursion's residual decides the last.
    taps = np.zeros(16)
    for order in range(1, 17):
        matrix = ac[np.abs(np.subtract.outer(np.arange(order), np.arange(order)))]
        taps[:order] = np.linalg.solve(matrix, ac[1 : order + 1])
        if ac[0] - taps[:order] @ ac[1 : order + 1] < 0.001 * ac[0]:
            break
    return taps


def low_passed_residual(signal: Array, predictors: Array) -> Array:
    padded = np.concatenate([np.zeros(16), signal])
    residual = signal.copy()
    for n in range(len(signal)):
        residual[n] -= predictors[n // HOP] @ padded[n : n + 16][::-1]
    b, a = ellip(2, 2, 20, 1200 / 8000)
    filtered: Array = lfilter(b, a, residual)
    return filtered


def correlations(residual: Array, hop: int, length: int) -> Array:
    """Of the `length` samples up to the end of a hop with those each of LAGS earlier."""
    end = (hop + 1) * HOP
    padded = np.concatenate([np.zeros(1000), residual])
    x = padded[1000 + end - length : 1000 + end]
    past = np.array([padded[1000 + end - length - lag : 1000 + end - lag] for lag in LAGS])
    found: Array = past @ x / np.sqrt(1 + np.sum(past**2, axis=1) * np.sum(x**2))
    return found


class Tracker:
    """Forward dynamic programming over the lags, in units of squared correlation."""

    def __init__(self) -> None:
        octaves = np.log2(LAGS)
        distance = np.abs(np.subtract.outer(octaves, octaves))
        reach = np.floor(LAGS * (2**0.02 - 1) + 0.5)[:, None]
        self.near = np.abs(np.subtract.outer(LAGS, LAGS)) <= reach
        self.cost = 0.7 * distance
        self.preference = 1 - 0.15 * (octaves - 5)
        self.score = np.zeros(len(LAGS))

    def step(self, correlation: Array) -> int:
        """Index of the best lag once this hop's correlations are known."""
        free = np.where(self.near, self.score[None, :], -np.inf).max(axis=1)
        free = np.maximum(free, self.score.max() - 0.4)
        reached = (free[None, :] - self.cost).max(axis=1) - self.score.max()
        self.score = reached + np.maximum(correlation, 0) ** 2 * self.preference
        return int(np.argmax(self.score))


def extract(pcm: npt.NDArray[np.int16]) -> Array:
    """int16 [160 * n] -> [n, 20]."""
    signal = emphasised(pcm)
    cepstra = np.array([cepstrum(window) for window in windows(signal)])
    residual = low_passed_residual(signal, np.array([lpc(c) for c in cepstra]))
    tracker = Tracker()
    rows = []
    for hop, coefficients in enumerate(cepstra):
        correlation = correlations(residual, hop, 2 * HOP)
        best = tracker.step(correlation)
        period = float(LAGS[best])
        if 0 < best < len(LAGS) - 1:
            left, middle, right = correlation[best - 1 : best + 2]
            if left - 2 * middle + right < 0:
                top = 0.5 * (left - right) / (left - 2 * middle + right)
                period += float(np.clip(top, -0.49, 0.49))
        c = correlations(residual, hop, HOP)[best]
        periodicity = np.log1p(np.exp(5 * c)) / np.log1p(np.exp(5)) - 0.5
        rows.append([*coefficients, np.log2(256 / period) - 1.5, periodicity])
    return np.array(rows)
