"""How loud: RMS and peak in dBFS with a held peak, and the energy sums of webrtc-stats."""

from __future__ import annotations

import math
from itertools import accumulate
from threading import Lock

import numpy as np
import numpy.typing as npt

from codec import SAMPLE_RATE

FULL_SCALE = 32768.0

SILENCE_DB = -96.0
"""dBFS shown for digital silence: one step of 16 bits."""

HOLD_SECONDS = 1.5
"""A held peak stays so long, enough to be read."""

FALL_DB_PER_SECOND = 20.0
"""Then it falls, as the needle of a programme meter does."""

TOGETHER = 25
"""Blocks that are measured in one go, half a second: they take hardly longer than one."""


class LevelMeter:
    """Levels of a stream of int16 blocks; time is counted in samples.

    Blocks are measured when somebody looks, or when there are `TOGETHER`. One thread writes, any
    may look.
    """

    def __init__(self, sample_rate: int = SAMPLE_RATE) -> None:
        self._sample_rate = sample_rate
        self._lock = Lock()
        self._unmeasured: list[npt.NDArray[np.int16]] = []
        self._hold_left = 0.0
        self._power = 0.0
        """Of the latest block, full scale being 1."""
        self._peak_db = self._held_db = SILENCE_DB
        self._clipped = 0
        self._energy = 0.0
        self._samples = 0

    @property
    def rms_db(self) -> float:
        """Of the latest block, dBFS: a full-scale sine reads -3.0."""
        self._measure()
        return _decibels(math.sqrt(self._power))

    @property
    def peak_db(self) -> float:
        """Largest sample of the latest block, dBFS."""
        self._measure()
        return self._peak_db

    @property
    def held_db(self) -> float:
        """The peak, held and then falling."""
        self._measure()
        return self._held_db

    @property
    def clipped(self) -> int:
        """Samples at either end of the scale."""
        self._measure()
        return self._clipped

    @property
    def total_energy(self) -> float:
        """`totalAudioEnergy` (webrtc-stats): sum of duration * (RMS / full scale)^2, seconds."""
        self._measure()
        return self._energy / self._sample_rate

    @property
    def total_duration(self) -> float:
        """`totalSamplesDuration` (webrtc-stats), seconds."""
        self._measure()
        return self._samples / self._sample_rate

    @property
    def level(self) -> float:
        """`audioLevel` (webrtc-stats): the latest block's RMS, 0..1 linear."""
        decibels = self.rms_db
        return 0.0 if decibels <= SILENCE_DB else 10.0 ** (decibels / 20.0)

    def update(self, pcm: npt.NDArray[np.int16]) -> None:
        """The next block, int16 [n] of any n, which is not to be changed any more."""
        if not len(pcm):
            return
        with self._lock:
            self._unmeasured.append(pcm)
            if len(self._unmeasured) == TOGETHER:
                self._measure_held()

    def _measure(self) -> None:
        with self._lock:
            if self._unmeasured:
                self._measure_held()

    def _measure_held(self) -> None:
        """Takes in the blocks that nobody has measured; the lock is held."""
        sizes = [len(pcm) for pcm in self._unmeasured]
        starts = [0, *accumulate(sizes[:-1])]
        together = np.concatenate(self._unmeasured)
        self._unmeasured.clear()
        high = np.maximum.reduceat(together, starts).tolist()
        low = np.minimum.reduceat(together, starts).tolist()
        if max(high) == 32767 or min(low) == -32768:
            self._clipped += int(np.count_nonzero((together == 32767) | (together == -32768)))
        wide = together.astype(np.float64)
        squares = np.add.reduceat(wide * wide, starts).tolist()
        self._energy += sum(squares) / FULL_SCALE**2
        self._samples += len(together)
        self._power = squares[-1] / sizes[-1] / FULL_SCALE**2
        for size, above, below in zip(sizes, high, low, strict=True):
            # as Python ints: the minimum of int16 has no positive twin
            self._hold(_decibels(max(above, -below) / FULL_SCALE), size / self._sample_rate)

    def _hold(self, peak_db: float, seconds: float) -> None:
        self._peak_db = peak_db
        if peak_db >= self._held_db:
            self._held_db = peak_db
            self._hold_left = HOLD_SECONDS
            return
        self._hold_left -= seconds
        if self._hold_left < 0.0:
            self._held_db = max(peak_db, self._held_db - FALL_DB_PER_SECOND * seconds)


def _decibels(ratio: float) -> float:
    return max(SILENCE_DB, 20.0 * math.log10(ratio)) if ratio > 0.0 else SILENCE_DB
