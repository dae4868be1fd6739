"""What is heard between speech: how loud it is, and whether there is only that."""

from __future__ import annotations

import numpy as np

from codec.frame import PcmFrame, powers


class Background:
    """Tells speech from what is heard between: by energy, against the least of late.

    Looked at when somebody wants to know, or 500 ms have come together: on a network where time
    is never stretched nobody does.
    """

    RISE = 1.003
    """Per frame: what has become louder for good is background after half a minute."""
    ABOVE = 4.0
    LEAST = 15.0**2
    """Power, int16."""
    TOGETHER = 25

    def __init__(self) -> None:
        self._floor = np.inf
        self._last = np.inf
        """Power of the last frame that was looked at."""
        self._unseen: list[PcmFrame] = []

    def add(self, pcm: PcmFrame) -> None:
        """Takes in a frame, which is not to be changed afterwards."""
        self._unseen.append(pcm)
        if len(self._unseen) == self.TOGETHER:
            self._look()

    @property
    def is_passive(self) -> bool:
        """Whether the last frame is no louder than the background."""
        self._look()
        return self._last <= self.ABOVE * self._floor + self.LEAST

    def _look(self) -> None:
        if not self._unseen:
            return
        for power in powers(np.stack(self._unseen)):
            self._floor = min(power, self._floor * self.RISE + 1.0)
            self._last = power
        self._unseen.clear()
