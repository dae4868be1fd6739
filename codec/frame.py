"""What the jitter buffer asks of the decoder: one plan per 20 ms frame of playout."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

import numpy as np
import numpy.typing as npt

PcmFrame = npt.NDArray[np.int16]
"""int16 [320]: 20 ms at 16 kHz, mono."""


def powers(frames: npt.NDArray[np.int16]) -> list[float]:
    """Mean squares of frames, int16 [n, 320]: all at once takes hardly longer than one."""
    sound = frames.astype(np.float32)
    means: list[float] = (np.einsum("ij,ij->i", sound, sound) / sound.shape[1]).tolist()
    return means


class FrameSource(StrEnum):
    """How a frame of playout was obtained, best first."""

    PACKET = "packet"
    RED = "red"
    """Out of a copy of its packet (RFC 2198): the same sound."""
    LBRR = "lbrr"
    DRED = "dred"
    PLC = "plc"
    SILENCE = "silence"


class HoleAction(StrEnum):
    """What is done about time in a hole, frame by frame."""

    NONE = "none"
    """There is no hole, or it is over."""
    HOLD = "hold"
    """Concealed without moving on: playout waits for what fills the hole."""
    LATE = "late"
    """Played after such a wait."""
    RESTORE = "restore"
    """Rebuilt at its time."""
    PAST = "past"
    """Concealed at its time: nothing that came by then says what it was."""


@dataclass(frozen=True, slots=True)
class FramePlan:
    """One frame to be produced.

    `packet` is what `source` is decoded from: the frame's own packet (PACKET), a copy of it (RED)
    or one that follows it (LBRR, DRED). It is None for PLC and SILENCE.
    """

    source: FrameSource
    timestamp: int
    """RTP timestamp of the frame (48 kHz, extended: it does not wrap)."""
    packet: bytes | None = None
    arrival: float | None = None
    """Monotonic instant at which `packet` arrived, in seconds."""
    distance: int = 0
    """Frames from this one to that of `packet`: 0 for PACKET and RED, 1 for LBRR."""
    new_source: bool = False
    """Whether this is the first frame of another sender: nothing before it belongs to it."""
    action: HoleAction = HoleAction.NONE
    left_out: int = 0
    """Frames before this one that are not played at all, to catch up."""
