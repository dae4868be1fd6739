"""Where within 20 ms frames had better begin, for a sink that may choose."""

from __future__ import annotations

import math

from codec import FRAME_SECONDS

SLACK = 0.15
"""Frames of excess, 3 ms, that a beat of one's own choice may keep; where it lacks, a third."""
LONGEST_SHIFT = 0.45
"""Frames by which it is moved at a time: by half a frame, nearer and farther are the same."""


class Beat:
    """Watches by how much playout misses its target all the time, which another beat would not."""

    def __init__(self) -> None:
        self._pulled_at = 0.0
        self._least, self._most = math.inf, -math.inf
        """Excess since the beat was looked at, frames."""

    def note(self, excess: float, playout_at: float) -> None:
        """A frame heard at `playout_at` is due `excess` frames after the target."""
        self._pulled_at = playout_at
        self._least, self._most = min(self._least, excess), max(self._most, excess)

    def better(self) -> float | None:
        """An instant at which frames had better begin; None if all is well, or was at times."""
        least, most = self._least, self._most
        self._least, self._most = math.inf, -math.inf
        if SLACK < least < math.inf:
            shift = -min(least, LONGEST_SHIFT)
        elif -math.inf < most < -SLACK / 3:
            shift = min(-most, LONGEST_SHIFT)
        else:
            return None
        return self._pulled_at + shift * FRAME_SECONDS
