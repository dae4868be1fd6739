"""Saying missing frames before they are due, on trial.

A frame that has not come may still come; if not, it has to be rebuilt within milliseconds of its
playout. So it is rebuilt earlier, by a copy of the concealer, and the one after it by a copy of
that copy. If a frame is then asked for as it was foreseen, copy and sound are taken as they are; if
not, the original has lost nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
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


@dataclass(frozen=True, slots=True)
class Trial:
    """A frame that was said on trial."""

    number: int
    concealer: Concealer
    """The copy that has said it."""
    features: Features | None
    """What it was made from; None for a guess."""
    pcm: PcmFrame

    def is_of(self, features: Features | None) -> bool:
        """Whether from these features, or as a guess, the same frame would be made."""
        if features is None or self.features is None:
            return features is self.features
        return np.array_equal(features, self.features)


class RehearsedConcealer:
    """A concealer that can say the next frames ahead of time; it changes nothing that is heard."""

    def __init__(self, concealer: Concealer) -> None:
        self._concealer = concealer
        self._trials: list[Trial] = []
        """Of the next frames, in order."""
        self._replaced: list[Trial] = []
        """What they were before the last of them was made in place of others."""
        self._count = 0
        self.performed: int | None = None
        """The number of the trial that the last frame was taken from, if it was."""

    @property
    def rehearsed(self) -> tuple[int, ...]:
        """The next frames that are said already, as numbers: each trial has one of its own."""
        return tuple(trial.number for trial in self._trials)

    def rehearse(self, features: Features | None = None, *, after: int = 0) -> None:
        """Says a frame as it is if it stays missing; `features` as for `rebuild`.

        It is the next one, or the one `after` so many that are rehearsed. Raises ValueError if they
        are not.
        """
        if after > len(self._trials):
            raise ValueError(f"{after} frames are not rehearsed, only {len(self._trials)}")
        if after < len(self._trials) and self._trials[after].is_of(features):
            return
        kept = self._trials[:after]
        trial = (kept[-1].concealer if kept else self._concealer).copy()
        pcm = trial.conceal() if features is None else trial.rebuild(features)
        if after < len(self._trials):
            self._replaced = self._trials
        self._trials = [*kept, Trial(self._count, trial, features, pcm)]
        self._count += 1

    def fall_back(self) -> None:
        """Takes the trials back that others have replaced since the last frame was heard, if any.

        What replaced them was made too late.
        """
        if self._replaced:
            self._trials, self._replaced = self._replaced, []

    def perform(self) -> tuple[PcmFrame, FrameSource] | None:
        """The next frame as it was rehearsed, and what it is; None if it was not."""
        if not self._trials:
            return None
        source = FrameSource.PLC if self._trials[0].features is None else FrameSource.DRED
        return self._perform(), source

    def good(self, pcm: PcmFrame) -> PcmFrame:
        """See `Concealer`; so below."""
        return self._unrehearsed().good(pcm)

    def expect_loss(self, features: Features | None = None) -> None:
        self._unrehearsed().expect_loss(features)

    def past(self, samples: int, onward: int) -> npt.NDArray[np.int16] | None:
        return self._unrehearsed().past(samples, onward)

    def conceal(self) -> PcmFrame:
        if self._trials and self._trials[0].is_of(None):
            return self._perform()
        return self._unrehearsed().conceal()

    def rebuild(self, features: Features) -> PcmFrame:
        if self._trials and self._trials[0].is_of(features):
            return self._perform()
        return self._unrehearsed().rebuild(features)

    def _unrehearsed(self) -> Concealer:
        """The concealer, which is about to go on from where it is."""
        self._trials, self._replaced, self.performed = [], [], None
        return self._concealer

    def _perform(self) -> PcmFrame:
        trial, *self._trials = self._trials
        self._concealer, self._replaced = trial.concealer, []
        self.performed = trial.number
        return trial.pcm
