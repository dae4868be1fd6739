"""Where a device's samples lie on the monotonic clock."""

from __future__ import annotations

MAX_OFFSET = 2.0
"""Seconds between a callback and its block's instant; more is a driver's nonsense."""

JUMP = 0.050
"""Seconds: the clock follows a larger error at once, since a gap explains it and drift does not."""

GAIN = 0.05
"""Share of the error that each block corrects. At 100 blocks/s the jitter of callbacks averages
out over 0.2 s, and a device that is 100 ppm off is followed within 20 µs."""


class DeviceClock:
    """Maps sample positions of a device to monotonic instants, block by block.

    The device's crystal is not the computer's, so the map is followed, not extrapolated.
    """

    def __init__(self, rate: int) -> None:
        self.rate = rate
        self.jumps = 0
        """How often the map changed by more than `JUMP`, or was told to."""
        self._origin: float | None = None

    def update(self, position: int, instant: float, *, jump: bool = False) -> None:
        """Takes in that the sample at `position` lies at `instant`.

        `jump` says that samples were inserted or lost, so that the past tells nothing.
        """
        origin = instant - position / self.rate
        if self._origin is None:
            self._origin = origin
            return
        error = origin - self._origin
        if jump or abs(error) > JUMP:
            self._origin = origin
            self.jumps += 1
        else:
            self._origin += GAIN * error

    def instant(self, position: float) -> float:
        """The instant of a sample. Only after the first `update`."""
        assert self._origin is not None
        return self._origin + position / self.rate


def block_instant(now: float, block_time: float, stream_time: float, fallback: float) -> float:
    """The monotonic instant of a block's first sample, from PortAudio's own clock.

    `block_time` (ADC or DAC) and `stream_time` (of the callback) are on PortAudio's clock, which
    may be the wall clock; `now` is the same moment on ours. Drivers that know nothing give 0 or
    worse, and then the instant is `now + fallback`.
    """
    offset = block_time - stream_time
    known = block_time > 0 and stream_time > 0 and abs(offset) <= MAX_OFFSET
    return now + (offset if known else fallback)
