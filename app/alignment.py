"""Heard sound, put back to where it was said."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from codec import FRAME
from codec.frame import FrameSource, HoleAction, PcmFrame
from jitterbuffer import PlayedPart
from jitterbuffer.sound import TICKS
from jitterbuffer.timescale import MAX_PERIOD


class Alignment:
    """Takes in what is played, and knows what of it stands for which sample of the source.

    What is decoded lags behind what was said by `lookahead` samples. Silence and what is played
    while a hole is waited for stand for nothing.
    """

    def __init__(self, frames: int, lookahead: int) -> None:
        """`frames` of 20 ms are said."""
        self._lookahead = lookahead
        self._sound = np.zeros(frames * FRAME, np.int16)
        self._known = np.zeros(frames * FRAME, bool)

    @property
    def complete(self) -> bool:
        """Whether the last sample has been heard."""
        return bool(self._known[-1])

    def add(self, pcm: PcmFrame, parts: Iterable[PlayedPart], ticks: Callable[[int], int]) -> None:
        """20 ms of playout; `ticks` gives the RTP time since the first frame's of a timestamp."""
        for part in parts:
            start = ticks(part.timestamp) // TICKS
            held = part.plan.action is HoleAction.HOLD
            if part.source is FrameSource.SILENCE or held or start < 0:
                continue
            place = slice(start, start + part.samples)
            sound = pcm[part.offset : part.offset + part.samples]
            self._sound[place] = sound[: len(self._sound[place])]
            self._known[place] = True

    def result(self, samples: int) -> npt.NDArray[np.int16]:
        """What was heard for each of the first `samples`, 0 where nothing was.

        A pitch period left out by time stretching is filled with the one before.
        """
        edges = np.flatnonzero(np.diff(self._known.astype(np.int8))) + 1
        for left, right in pairwise(edges.tolist()):
            gap = right - left
            if not self._known[left] and gap <= min(MAX_PERIOD, left):
                self._sound[left:right] = self._sound[left - gap : left]
        aligned = np.zeros(samples, np.int16)
        heard = self._sound[self._lookahead :][:samples]
        aligned[: len(heard)] = heard
        return aligned
