"""The background of a talker: learnt from what is heard, played where nothing is known."""

from __future__ import annotations

import copy

import numpy as np
import numpy.typing as npt

from codec.features import HOP, NUM_BANDS, PREEMPHASIS

Pcm = npt.NDArray[np.int16]
Signal = npt.NDArray[np.float32]

WINDOW = 2 * HOP
BINS = HOP + 1
CENTRES = 4 * np.array([0, 1, 2, 3, 4, 5, 6, 7, 8, 10, 12, 14, 16, 20, 24, 28, 34, 40])
"""Bins of 50 Hz the 18 bands are centred on (docs/features.md)."""

SMOOTHING = 0.15
"""Share of a new vector in the energies whose minimum is taken: about 60 ms."""
STRETCH = 40
"""Vectors of which one minimum is kept: 400 ms."""
STRETCHES = 8
"""Minima kept: 3.2 s, longer than anyone speaks without a gap in every band."""
BIAS = 0.15
"""log10 units by which such minima of steady noise lie under its mean."""
SILENT = -1.9
"""log10 energy of a band under which it holds nothing: its lower limit is -2."""


def _cepstrum_to_bands() -> npt.NDArray[np.float64]:
    """[18, 18]: log10 band energies are cepstra (with c0 whole) times this."""
    n, k = np.meshgrid(np.arange(NUM_BANDS), np.arange(NUM_BANDS))
    basis = np.sqrt(2 / NUM_BANDS) * np.cos((n + 0.5) * k * np.pi / NUM_BANDS)
    basis[0] /= np.sqrt(2)
    return np.asarray(basis, np.float64)


def _triangles() -> npt.NDArray[np.float64]:
    """[18, 161]: how much of each bin belongs to a band; columns sum to 1."""
    bins = np.arange(BINS)
    return np.stack([np.interp(bins, CENTRES, row) for row in np.eye(NUM_BANDS)])


_BANDS = _cepstrum_to_bands()
_TRIANGLES = _triangles()
_DOUBLED = np.where((np.arange(NUM_BANDS) == 0) | (np.arange(NUM_BANDS) == NUM_BANDS - 1), 2, 1)
_BAND_WEIGHT = _DOUBLED * _TRIANGLES[:, :HOP].sum(axis=1)
"""Energy of a band over the mean energy of its bins."""

_rising = np.sin(np.pi / 2 * np.sin(np.pi / 2 * (np.arange(HOP) + 0.5) / HOP) ** 2)
_ANALYSIS = np.concatenate([_rising, _rising[::-1]])
_OVERLAP = np.sin(np.pi * (np.arange(WINDOW) + 0.5) / WINDOW)
"""Squares of neighbours add up to 1, and so do the powers of independent noises."""

_BIN_TO_VARIANCE = WINDOW**2 / np.sum(_ANALYSIS**2)
"""Variance of white noise over the energy of its bins, |DFT / 320|^2 of windowed samples."""
_DEEMPHASIS = 1 / np.abs(1 - PREEMPHASIS * np.exp(-1j * np.pi * np.arange(BINS) / HOP)) ** 2

_ages = np.subtract.outer(np.arange(STRETCH), np.arange(STRETCH))
_NEW = np.where(_ages >= 0, SMOOTHING * (1 - SMOOTHING) ** np.maximum(_ages, 0), 0)
_OLD = (1 - SMOOTHING) ** np.arange(1, STRETCH + 1)[:, None]
"""Weights of a stretch's vectors, and of what was before them, in each of its smoothed ones."""


class ComfortNoise:
    """Estimate of one stream's background, and a source of noise like it."""

    def __init__(self, seed: int = 0) -> None:
        self._random = np.random.default_rng(seed)
        self._smooth: npt.NDArray[np.float64] | None = None
        self._minima = np.full((STRETCHES, NUM_BANDS), np.inf)
        self._age = 0
        self._gain = np.zeros(BINS)
        self._stale = False
        self._tail = np.zeros(HOP)

    def copy(self) -> ComfortNoise:
        """An independent source that continues from the same sample."""
        other = copy.copy(self)
        other._random = copy.deepcopy(self._random)
        other._minima = self._minima.copy()
        return other

    def learn(self, features: npt.NDArray[np.float32]) -> None:
        """Features float32 [n, 20] of what was received.

        The background is each band's minimum over the last seconds (R. Martin, "Noise power
        spectral density estimation based on optimal smoothing and minimum statistics", 2001).
        Digital silence says nothing about it.
        """
        cepstra = features[:, :NUM_BANDS].astype(np.float64)
        cepstra[:, 0] += 4
        levels = cepstra @ _BANDS
        heard = levels[levels.max(axis=1) >= SILENT]
        while len(heard):
            stretch, start = divmod(self._age, STRETCH)
            self._follow(heard[: STRETCH - start], stretch % STRETCHES, begins=not start)
            heard = heard[STRETCH - start :]

    def _follow(self, bands: npt.NDArray[np.float64], stretch: int, *, begins: bool) -> None:
        """Levels [n, 18] of one stretch, the first of it if it begins."""
        count = len(bands)
        before = bands[0] if self._smooth is None else self._smooth
        smooth = _NEW[:count, :count] @ bands + _OLD[:count] * before
        self._smooth = smooth[-1]
        lowest = smooth.min(axis=0)
        row = self._minima[stretch]
        row[:] = lowest if begins else np.minimum(row, lowest)
        self._age += count
        self._stale = True

    def noise(self, hops: int) -> Signal:
        """The next 10 ms hops of noise, float32 [160 n] in int16 units; zeros before any speech."""
        if self._stale:
            floor = self._minima.min(axis=0)
            energy = np.where(floor > SILENT, 10 ** (floor + BIAS), 0) / _BAND_WEIGHT
            density = energy @ _TRIANGLES
            self._gain = np.sqrt(density * _BIN_TO_VARIANCE * _DEEMPHASIS)
            self._stale = False
        out = np.empty((hops, HOP), np.float32)
        for hop in out:
            white = np.fft.rfft(self._random.standard_normal(WINDOW))
            block = np.fft.irfft(white * self._gain, WINDOW) * _OVERLAP
            hop[:] = self._tail + block[:HOP]
            self._tail = block[HOP:]
        return out.reshape(-1)
