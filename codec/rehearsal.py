"""Saying a missing frame before it is due, on trial.

A frame that has not come may still come; if not, it has to be rebuilt within milliseconds of its
playout. So it is rebuilt earlier, by a copy of the concealer. If the frame is then asked for as it
was foreseen, copy and sound are taken as they are; if not, the original has lost nothing.
"""

from __future__ import annotations

from typing import Protocol, Self

import numpy as np
import numpy.typing as npt

from codec.frame import FrameSource, PcmFrame

Features = npt.NDArray[np.float32]


class Concealer(Protocol):
    """Fills holes from what was heard before, in place of libopus's own concealment.

    Every frame of playout goes through one of these, in order. Frames are int16 [320].
    """

    def good(self, pcm: PcmFrame) -> PcmFrame:
        """A frame that is right; returns it as it is to be heard, joined to what it follows."""

    def expect_loss(self, features: Features | None = None) -> None:
        """The frame after the one that was good is likely to be missing.

        `features` are its own, as for `rebuild`, if they are known.
        """

    def conceal(self) -> PcmFrame:
        """A guess at a missing frame."""

    def past(self, samples: int, onward: int) -> npt.NDArray[np.int16] | None:
        """After a missing frame, what was heard last, int16 [samples]; else None.

        The last `onward` of them are still to come: they say how the sound would go on.
        """

    def rebuild(self, features: Features) -> PcmFrame:
        """A missing frame whose features are known, float32 [2 to 4, 20]: one row per 10 ms.

        Rows after the second are of what follows.
        """

    def copy(self) -> Self:
        """An independent concealer that continues from the same frame."""


class RehearsedConcealer:
    """A concealer that can say the next frame ahead of time; it changes nothing that is heard."""

    def __init__(self, concealer: Concealer) -> None:
        self._concealer = concealer
        self._trial: Concealer | None = None
        """A copy that has said the next frame already."""
        self._features: Features | None = None
        """From these, or as a guess."""
        self._pcm = np.zeros(0, np.int16)
        self.rehearsals = 0
        """Frames said in case, so far."""

    def rehearse(self, features: Features | None = None) -> None:
        """Says the next frame as it is if it stays missing; `features` as for `rebuild`."""
        if self._is_foreseen(features):
            return
        trial = self._concealer.copy()
        self._pcm = trial.conceal() if features is None else trial.rebuild(features)
        self._trial, self._features = trial, features
        self.rehearsals += 1

    def perform(self) -> tuple[PcmFrame, FrameSource] | None:
        """The next frame as it was rehearsed, and what it is; None if it was not."""
        if self._trial is None:
            return None
        return self._perform(), FrameSource.PLC if self._features is None else FrameSource.DRED

    def good(self, pcm: PcmFrame) -> PcmFrame:
        """See `Concealer`; so below."""
        self._trial = None
        return self._concealer.good(pcm)

    def expect_loss(self, features: Features | None = None) -> None:
        self._trial = None
        self._concealer.expect_loss(features)

    def past(self, samples: int, onward: int) -> npt.NDArray[np.int16] | None:
        self._trial = None
        return self._concealer.past(samples, onward)

    def conceal(self) -> PcmFrame:
        if self._is_foreseen(None):
            return self._perform()
        self._trial = None
        return self._concealer.conceal()

    def rebuild(self, features: Features) -> PcmFrame:
        if self._is_foreseen(features):
            return self._perform()
        self._trial = None
        return self._concealer.rebuild(features)

    def _is_foreseen(self, features: Features | None) -> bool:
        if self._trial is None:
            return False
        if features is None or self._features is None:
            return features is self._features
        return np.array_equal(features, self._features)

    def _perform(self) -> PcmFrame:
        assert self._trial is not None
        self._concealer, self._trial = self._trial, None
        return self._pcm
