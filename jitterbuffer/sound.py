"""Decoded sound that waits to be heard, and what each sample of it is."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from codec import FRAME, RTP_CLOCK, SAMPLE_RATE
from codec.frame import FramePlan, FrameSource, PcmFrame
from jitterbuffer.timescale import MAX_PERIOD, Pcm, Stretched

TICKS = RTP_CLOCK // SAMPLE_RATE
"""Of the RTP clock, per sample."""


@dataclass(frozen=True, slots=True)
class PlayedPart:
    """Samples of one frame that follow each other in a block as they did when they were said."""

    offset: int
    """Of its first sample in the block."""
    samples: int
    plan: FramePlan
    source: FrameSource
    """How the frame was really obtained."""
    timestamp: int
    """Of its first sample (48 kHz, extended)."""
    begins: bool
    """Whether nothing of the frame was heard before."""
    stretched: int
    """Samples put in (> 0) or left out (< 0) right before it."""


@dataclass(frozen=True, slots=True)
class PlayedBlock:
    """20 ms of playout. Only a frame whose action is HOLD is not one of the sender's."""

    pcm: PcmFrame
    parts: tuple[PlayedPart, ...]
    """In order; together they are the block."""


_NOTHING = np.zeros(0, np.int64)


def _samples_of(frame: int) -> npt.NDArray[np.int64]:
    return np.arange(frame * FRAME, (frame + 1) * FRAME)


class Sound:
    """A queue of samples that knows which frame, and which sample of it, each was made from."""

    def __init__(self) -> None:
        self.pcm: Pcm = np.zeros(0, np.int16)
        self.heard: Pcm = np.zeros(MAX_PERIOD, np.int16)
        """The last samples that were taken out."""
        self._origin = _NOTHING
        """Number of the frame, counted here, times 320, plus that of the sample in it. Not kept
        while the queue is one frame."""
        self._frames: dict[int, tuple[FramePlan, FrameSource]] = {}
        self._appended = 0
        self._begun = -1
        self._last = -1
        self._is_one_frame = False
        """Whether the queue is one frame as it was decoded, as nearly always."""

    def __len__(self) -> int:
        """Samples."""
        return len(self.pcm)

    def append(self, pcm: PcmFrame, plan: FramePlan, source: FrameSource) -> None:
        self._frames[self._appended] = plan, source
        if len(self.pcm):
            self._spell_out()
            self._origin = np.concatenate([self._origin, _samples_of(self._appended)])
            self.pcm = np.concatenate([self.pcm, pcm])
        else:
            self._is_one_frame = True
            self.pcm = pcm
        self._appended += 1

    def _spell_out(self) -> None:
        """Gives each sample its origin, if the queue has been one frame until now."""
        if self._is_one_frame:
            self._is_one_frame = False
            self._origin = _samples_of(self._appended - 1)

    def stretch(self, stretched: Stretched) -> int:
        """Puts stretched sound in place of what there is; by how many samples it is longer."""
        longer = len(stretched.pcm) - len(self.pcm)
        self._spell_out()
        self._origin = np.where(
            stretched.origin < 0,
            self._origin[0] + stretched.origin,
            self._origin[np.maximum(stretched.origin, 0)],
        )
        self.pcm = stretched.pcm
        return longer

    def take(self) -> PlayedBlock:
        """The next 320 samples; there must be as many."""
        assert len(self) >= FRAME
        pcm = self.pcm[:FRAME]
        self.pcm = self.pcm[FRAME:]
        self.heard = pcm[-MAX_PERIOD:]
        if self._is_one_frame:
            self._is_one_frame = False
            self._origin = _NOTHING
            begin = (self._appended - 1) * FRAME
            parts: tuple[PlayedPart, ...] = (self._part(0, FRAME, begin, self._last),)
            self._last = begin + FRAME - 1
        else:
            origin, self._origin = self._origin[:FRAME], self._origin[FRAME:]
            breaks = (origin[1:] != origin[:-1] + 1) | (origin[1:] % FRAME == 0)
            starts = [0, *(1 + np.flatnonzero(breaks)).tolist()]
            parts = tuple(
                self._part(at, end, int(origin[at]), int(origin[at - 1]) if at else self._last)
                for at, end in zip(starts, [*starts[1:], FRAME], strict=True)
            )
            self._last = int(origin[-1])
        oldest = min(self._last, self._begun * FRAME) // FRAME - 1
        for number in [number for number in self._frames if number < oldest]:
            del self._frames[number]
        return PlayedBlock(pcm, parts)

    def drop(self) -> None:
        """Forgets what has not been taken."""
        self.pcm, self._origin, self._is_one_frame = self.pcm[:0], _NOTHING, False

    def _part(self, at: int, end: int, origin: int, before: int) -> PlayedPart:
        number, sample = divmod(origin, FRAME)
        plan, source = self._frames[number]
        begins = number > self._begun
        self._begun = max(self._begun, number)
        return PlayedPart(
            offset=at,
            samples=end - at,
            plan=plan,
            source=source,
            timestamp=plan.timestamp + TICKS * sample,
            begins=begins,
            stretched=before + 1 - origin,
        )
