"""Saying missing frames before they are due, on trial.

A frame that has not come may still come; if not, it has to be rebuilt within milliseconds of its
playout. So it is rebuilt earlier, by a copy of the concealer, and the one after it by a copy of
that copy. What another packet holds of it is decoded by a copy of the decoder. If a frame is then
asked for as it was foreseen, copies and sound are taken as they are; if not, the originals have
lost nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, Self

import numpy as np
import numpy.typing as npt

from codec.frame import FrameSource, PcmFrame
from codec.opus import OpusDecoder

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
class InPacket:
    """A missing frame that another packet holds."""

    source: FrameSource
    packet: bytes


Cue = Features | InPacket | None
"""What a missing frame is made from; None for a guess."""

Say = Callable[[Concealer, OpusDecoder | None], tuple[PcmFrame, OpusDecoder | None]]
"""Says a frame on trial, with a concealer that it may change, after a trial that has left this
decoder, if any was decoded. It leaves a decoder too: never the original."""


@dataclass(frozen=True, slots=True)
class Trial:
    """A frame that was said on trial."""

    number: int
    concealer: Concealer
    """The copy that has said it."""
    decoder: OpusDecoder | None
    """The copy that has decoded it, or a frame on trial before it."""
    cue: Cue
    pcm: PcmFrame

    @property
    def source(self) -> FrameSource:
        """How the frame was obtained."""
        if isinstance(self.cue, InPacket):
            return self.cue.source
        return FrameSource.PLC if self.cue is None else FrameSource.DRED

    def is_of(self, cue: Cue) -> bool:
        """Whether from this the same frame would be made."""
        if isinstance(cue, np.ndarray) and isinstance(self.cue, np.ndarray):
            return np.array_equal(cue, self.cue)
        if isinstance(cue, InPacket) and isinstance(self.cue, InPacket):
            return cue == self.cue
        return cue is self.cue


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

        def say(
            concealer: Concealer, decoder: OpusDecoder | None
        ) -> tuple[PcmFrame, OpusDecoder | None]:
            return concealer.conceal() if features is None else concealer.rebuild(features), decoder

        self._rehearse(features, say, after)

    def rehearse_decoding(self, frame: InPacket, decode: Say, *, after: int = 0) -> None:
        """The same for a frame that another packet holds. Raises what `decode` raises too."""
        self._rehearse(frame, decode, after)

    def _rehearse(self, cue: Cue, say: Say, after: int) -> None:
        if after > len(self._trials):
            raise ValueError(f"{after} frames are not rehearsed, only {len(self._trials)}")
        kept, replaced = self._trials[:after], self._trials[after:]
        if replaced and replaced[0].is_of(cue):
            return
        concealer = (kept[-1].concealer if kept else self._concealer).copy()
        pcm, decoder = say(concealer, kept[-1].decoder if kept else None)
        if replaced:
            self._replaced = self._trials
        self._trials = [*kept, Trial(self._count, concealer, decoder, cue, pcm)]
        self._count += 1

    def fall_back(self) -> None:
        """Takes the trials back that others have replaced since the last frame was heard, if any.

        What replaced them was made too late.
        """
        if self._replaced:
            self._trials, self._replaced = self._replaced, []

    def perform(self) -> Trial | None:
        """The next frame as it was rehearsed, whatever it is; None if it was not."""
        if not self._trials:
            return None
        trial, *self._trials = self._trials
        self._concealer, self._replaced = trial.concealer, []
        self.performed = trial.number
        return trial

    def perform_as(self, cue: Cue) -> Trial | None:
        """The same, but only if it was made from this."""
        return self.perform() if self._trials and self._trials[0].is_of(cue) else None

    def good(self, pcm: PcmFrame) -> PcmFrame:
        """See `Concealer`; so below."""
        return self._unrehearsed().good(pcm)

    def expect_loss(self, features: Features | None = None) -> None:
        self._unrehearsed().expect_loss(features)

    def past(self, samples: int, onward: int) -> npt.NDArray[np.int16] | None:
        return self._unrehearsed().past(samples, onward)

    def conceal(self) -> PcmFrame:
        trial = self.perform_as(None)
        return self._unrehearsed().conceal() if trial is None else trial.pcm

    def rebuild(self, features: Features) -> PcmFrame:
        trial = self.perform_as(features)
        return self._unrehearsed().rebuild(features) if trial is None else trial.pcm

    def forget(self) -> None:
        """Drops all trials: what comes does not go on from what was heard."""
        self._trials, self._replaced, self.performed = [], [], None

    def _unrehearsed(self) -> Concealer:
        """The concealer, which is about to go on from where it is."""
        self.forget()
        return self._concealer
