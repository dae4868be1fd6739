"""What the rest of the program sees of audio: frames with instants, sources and sinks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

import numpy as np

from app.pacing import Deadlines, Distribution
from codec import FRAME
from codec.frame import PcmFrame


class AudioError(ValueError):
    """A file, device or specification that will not do; one line that names it and says why."""


class CapturedFrame(NamedTuple):
    """One frame as it left the microphone."""

    pcm: PcmFrame
    """int16 [320], 16 kHz, the receiver's to keep."""
    captured_at: float
    """Monotonic instant of the first sample, in seconds."""


Deliver = Callable[[CapturedFrame | None], None]
"""Takes a frame, every 20 ms, on the source's thread; None once, when the source has ended."""


class RenderedFrame(NamedTuple):
    """One frame for a sink to play."""

    pcm: PcmFrame
    """int16 [320], 16 kHz, the receiver's to keep."""
    ready_at: float
    """Monotonic instant from which on it, or what would have been played in its place, was
    there."""


Render = Callable[[float], RenderedFrame]
"""Gives the frame whose first sample is heard at the given monotonic instant."""

Prepare = Callable[[float, bool], bool]
"""Does what can be done for the frame heard at the given monotonic instant, after the frame before
it has been handed over; whether it is ready. The flag says that this is the last chance. Called on
the thread of `Render`."""


class AudioSource(Protocol):
    """Where speech comes from. It is started once and stopped once."""

    name: str

    def start(self, deliver: Deliver) -> None:
        """Begins to deliver on a thread of its own. Raises AudioError if a device refuses."""

    def stop(self) -> None:
        """Ends delivery; on return no call to `deliver` is under way or follows."""


class AudioSink(Protocol):
    """Where speech is heard. It is started once and stopped once."""

    name: str
    stats: PlayoutStats

    def start(self, render: Render, prepare: Prepare | None = None) -> None:
        """Begins to render on a playout thread. Raises AudioError if a device refuses.

        With `prepare`, the time between two frames is used for what can be done ahead.
        """

    def align(self, instant: float) -> None:
        """Asks that a frame begin at this monotonic instant, or whole frames from it.

        A device that has a clock of its own does not listen.
        """

    def stop(self) -> None:
        """Ends playout; on return no call to `render` is under way or follows."""


@dataclass(slots=True)
class PlayoutStats:
    """How well a sink kept time; `deadlines` are the playout instants."""

    deadlines: Deadlines = field(default_factory=Deadlines)
    lateness: Distribution = field(default_factory=Distribution)
    """Of the playout thread's waking, in seconds: behind the clock, or the device's callback."""
    underruns: int = 0
    """Blocks for which the device found too little; 0 without a device."""
    resyncs: int = 0
    """How often the playout clock jumped: a stall of ours, or a gap of the device."""

    def as_dict(self) -> dict[str, Any]:
        """For reports: durations in ms; `worst_ms` is the worst overrun of a deadline."""
        return {
            "frames": self.deadlines.total,
            "missed": self.deadlines.missed,
            "worst_ms": round(1e3 * self.deadlines.worst, 3),
            "underruns": self.underruns,
            "resyncs": self.resyncs,
            "render_ms": self.deadlines.busy.summary_ms(),
            "wake_late_ms": self.lateness.summary_ms(),
        }


def silent_frame() -> PcmFrame:
    """20 ms of zeros."""
    return np.zeros(FRAME, np.int16)
