"""How loud: RMS and peak in dBFS with a held peak, and the energy sums of webrtc-stats."""

from __future__ import annotations

import math

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


class LevelMeter:
    """Levels of a stream of int16 blocks; time is counted in samples. One thread writes."""

    def __init__(self, sample_rate: int = SAMPLE_RATE) -> None:
        self._sample_rate = sample_rate
        self._hold_left = 0.0
        self.rms_db = SILENCE_DB
        """Of the latest block, dBFS: a full-scale sine reads -3.0."""
        self.peak_db = SILENCE_DB
        """Largest sample of the latest block, dBFS."""
        self.held_db = SILENCE_DB
        """The peak, held and then falling."""
        self.clipped = 0
        """Samples at either end of the scale."""
        self.total_energy = 0.0
        """`totalAudioEnergy` (webrtc-stats): sum of duration * (RMS / full scale)^2, seconds."""
        self.total_duration = 0.0
        """`totalSamplesDuration` (webrtc-stats), seconds."""

    @property
    def level(self) -> float:
        """`audioLevel` (webrtc-stats): the latest block's RMS, 0..1 linear."""
        return 0.0 if self.rms_db <= SILENCE_DB else 10.0 ** (self.rms_db / 20.0)

    def update(self, pcm: npt.NDArray[np.int16]) -> None:
        """The next block, int16 [n] of any n."""
        if not len(pcm):
            return
        # the maximum's negative twin does not exist in int16: compare both ends as Python ints
        high, low = int(pcm.max()), int(pcm.min())
        if high == 32767 or low == -32768:
            self.clipped += int(np.count_nonzero((pcm == 32767) | (pcm == -32768)))
        wide = pcm.astype(np.float32)
        power = float(np.dot(wide, wide)) / len(pcm) / (FULL_SCALE * FULL_SCALE)
        seconds = len(pcm) / self._sample_rate
        self.total_energy += power * seconds
        self.total_duration += seconds
        self.rms_db = _decibels(math.sqrt(power))
        self.peak_db = _decibels(max(high, -low) / FULL_SCALE)
        if self.peak_db >= self.held_db:
            self.held_db = self.peak_db
            self._hold_left = HOLD_SECONDS
            return
        self._hold_left -= seconds
        if self._hold_left < 0.0:
            self.held_db = max(self.peak_db, self.held_db - FALL_DB_PER_SECOND * seconds)


def _decibels(ratio: float) -> float:
    return max(SILENCE_DB, 20.0 * math.log10(ratio)) if ratio > 0.0 else SILENCE_DB
