"""A ring of samples between one thread that writes and one that reads."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt


class SampleRing:
    """int16 samples, oldest first, without a lock.

    One thread may call `write`, one other `read_into`: each moves a counter of its own only after
    it has copied, and only looks at the other's.
    """

    def __init__(self, capacity: int) -> None:
        self._samples = np.zeros(capacity, np.int16)
        self.written = 0
        """Samples ever written."""
        self.taken = 0
        """Samples ever read."""

    def __len__(self) -> int:
        return self.written - self.taken

    @property
    def capacity(self) -> int:
        """Samples that fit."""
        return len(self._samples)

    def write(self, pcm: npt.NDArray[np.int16]) -> int:
        """Appends as much of `pcm` as fits; returns how many samples that was."""
        count = min(len(pcm), self.capacity - len(self))
        start = self.written % self.capacity
        first = min(count, self.capacity - start)
        self._samples[start : start + first] = pcm[:first]
        self._samples[: count - first] = pcm[first:count]
        self.written += count
        return count

    def read_into(self, out: npt.NDArray[np.int16]) -> int:
        """Fills the front of `out` with the oldest samples; returns how many there were."""
        count = min(len(out), len(self))
        start = self.taken % self.capacity
        first = min(count, self.capacity - start)
        out[:first] = self._samples[start : start + first]
        out[first:count] = self._samples[: count - first]
        self.taken += count
        return count
