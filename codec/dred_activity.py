"""Whether a frame holds anything worth sending twice."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from codec.frame import powers

FLOOR_DBFS = -65.0
"""Quieter than any speech that one could follow, and where the noise estimate starts."""
ABOVE_NOISE_DB = 9.0
NOISE_RISE_DB = 0.1
"""Per frame: 5 dB a second, so that a fan is noise after a few seconds and a vowel is not."""
HANGOVER = 8
"""Frames, 160 ms: word ends fade below any threshold."""


class ActivityDetector:
    """Level against a noise floor that falls at once and rises slowly."""

    def __init__(self) -> None:
        self._noise = FLOOR_DBFS
        self._remaining = 0

    def push(self, pcm: npt.NDArray[np.int16]) -> bool:
        """True if the next frame, int16 [320], is active."""
        sound = pcm.astype(np.float32)
        return self._push(float(sound @ sound) / len(sound))

    def push_all(self, frames: npt.NDArray[np.int16]) -> list[bool]:
        """The same of some frames at once, int16 [n, 320]: much cheaper than one by one."""
        return [self._push(power) for power in powers(frames)]

    def _push(self, power: float) -> bool:
        """`power` is that of a frame, in units of int16."""
        level = 10 * math.log10(power / 32768**2 + 1e-12)
        self._noise = max(FLOOR_DBFS, min(level, self._noise + NOISE_RISE_DB))
        if level > self._noise + ABOVE_NOISE_DB:
            self._remaining = HANGOVER
            return True
        self._remaining = max(0, self._remaining - 1)
        return self._remaining > 0
