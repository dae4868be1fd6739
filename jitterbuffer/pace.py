"""Whether playout moves on, waits or leaves frames out: what the delay says, and what a hole."""

from __future__ import annotations

from codec import FRAME_SECONDS
from codec.frame import FrameSource, HoleAction
from jitterbuffer.plan import Decision

SKIP_AT_ONCE = 6.0
"""Frames of excess delay that are left out in one go: a stalled sink, a fast route after a slow."""
CATCHES_UP = 3.0
"""Frames more that an adaptive buffer at least takes out bit by bit; more if it may wait longer."""
INSERT_BELOW = -0.5
"""Frames of excess delay, below which a fixed buffer plays a hole once more: half way down from 0,
so that the next frame left out is half a frame off."""
RAISE_BELOW = -0.15
"""The same where the target says what is needed: just more than the fastest packets' jitter."""
SHED_WHEN_SETTLED = 2.0
"""Frames of excess delay that cost a spoken frame; less waits for a pause or a hole."""
SETTLING = 2.0
"""Seconds from the start of playout in which one frame of excess is enough."""
SHED_INTERVAL = 0.2
"""Seconds between spoken frames that are left out."""
LEAVE_AFTER = 2
"""Frames of concealment from which on it is not left for a single packet."""
LONGEST_DOUBT = 5
"""Frames for which it then goes on, 100 ms: NetEq's limit."""

EARLY = 1e-3
"""Frames. Instants on a grid of 20 ms are equal only to within rounding."""


class Pace:
    """Decides about time, one frame after the other; delays are in frames, `excess` over target.

    `hold` is how long, in seconds, playout may wait beyond the target for what follows a hole.
    """

    def __init__(self, hold: float | None = None) -> None:
        """None: a fixed target, which no hole may exceed."""
        self.hold = (hold or 0.0) / FRAME_SECONDS
        """Frames."""
        self._skip_from = SKIP_AT_ONCE
        if hold is not None:
            self._skip_from += max(self.hold, CATCHES_UP)
        self.raise_below = INSERT_BELOW if hold is None else RAISE_BELOW
        self._started = self._last_shed = 0.0
        self._concealed = 0
        self._doubted = 0
        self._held = 0
        """Frames waited in the hole that playout is in, or has just left."""

    def start(self, instant: float) -> None:
        """Playout begins."""
        self._started = self._last_shed = instant
        self._concealed = self._doubted = self._held = 0

    def skips(self, excess: float) -> int:
        """Frames to leave out in one go."""
        return int(excess) if excess >= self._skip_from else 0

    def leaves_out(
        self, decision: Decision, excess: float, instant: float, *, is_open: bool, stretched: bool
    ) -> bool:
        """Whether the frame is not to be played.

        `is_open`: nothing behind it has come. `stretched`: spoken frames are stretched instead.
        """
        if decision.is_free:
            waiting = is_open and decision.source is FrameSource.PLC
            return excess >= 1.0 - EARLY + (self.hold if waiting else 0.0)
        if stretched or instant - self._last_shed < SHED_INTERVAL:
            return False
        settling = instant - self._started < SETTLING
        if excess < (1.0 if settling else SHED_WHEN_SETTLED) - EARLY:
            return False
        self._last_shed = instant
        return True

    def waits(self, decision: Decision, excess: float, *, is_open: bool, longest: float) -> bool:
        """Whether the frame keeps its place, and concealment or silence is played in addition.

        `longest`: frames by which waiting can pay, within what may be waited.
        """
        if decision.is_free and excess <= self.raise_below:
            return True
        if not is_open or excess >= min(self.hold, longest) - EARLY:
            return False
        if decision.source is FrameSource.PLC:
            return True
        # one packet with nothing behind it would soon be followed by the next hole
        if decision.is_free or self._concealed < LEAVE_AFTER or self._doubted >= LONGEST_DOUBT:
            return False
        self._doubted += 1
        return True

    def played(self, source: FrameSource, *, waited: bool, is_pause: bool) -> HoleAction:
        """Takes in what was decided; what it means for the hole, if there is one."""
        self._concealed = self._concealed + 1 if source is FrameSource.PLC else 0
        if is_pause:
            return HoleAction.NONE
        if waited:
            self._held += 1
            return HoleAction.HOLD
        if source in (FrameSource.PLC, FrameSource.SILENCE):
            return HoleAction.PAST
        late = self._held > 0
        if source in (FrameSource.PACKET, FrameSource.RED):
            self._held = self._doubted = 0
        if late:
            return HoleAction.LATE
        return HoleAction.NONE if source is FrameSource.PACKET else HoleAction.RESTORE
