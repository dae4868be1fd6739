"""A device on the bench: PortAudio's side of a stream, called by the test block by block.

Only the hardware is simulated, and only its clock: rings, threads, resamplers and callbacks are
the real ones.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from app.audio import microphone, speaker
from app.audio.devices import Device


@dataclass
class Times:
    """PortAudio's time of a callback, on its own clock."""

    currentTime: float  # noqa: N815
    inputBufferAdcTime: float = 0.0  # noqa: N815
    outputBufferDacTime: float = 0.0  # noqa: N815


@dataclass
class Status:
    """PortAudio's flags of a callback."""

    input_overflow: bool = False
    output_underflow: bool = False


class Bench:
    """Stands for PortAudio; `now` is its time and ours, and moves only here."""

    OFFSET = 1e6
    """Seconds between PortAudio's clock and ours."""

    def __init__(self, patch: pytest.MonkeyPatch, rate: int, channels: int = 1) -> None:
        self.device = Device(0, "bench", "test", channels, channels, rate, True, True)
        self.rate = rate
        self.channels = channels
        self.now = 100.0
        self.closed = False
        self._callback: Callable[..., None] = lambda *_: None
        self.finished: Callable[[], None] = lambda: None
        for module in (microphone, speaker):
            patch.setattr(module, "find_device", lambda wanted, direction: self.device)
            patch.setattr(module, "open_stream", self._open)
            patch.setattr(module, "start_stream", lambda stream, device: None)

    def clock(self) -> float:
        """For the source or sink under test."""
        return self.now

    def close(self, ignore_errors: bool = True) -> None:
        """PortAudio's."""
        self.closed = True

    def _open(
        self,
        device: Device,
        direction: str,
        callback: Callable[..., None],
        finished: Callable[[], None],
        latency: float,
    ) -> tuple[Any, int]:
        self._callback, self.finished = callback, finished
        return self, self.channels

    def take(self, frames: int, heard_at: float) -> npt.NDArray[np.int16]:
        """One output callback; int16 [frames, channels]."""
        data = np.full(frames * self.channels, 99, np.int16)
        current = self.now + self.OFFSET
        times = Times(current, outputBufferDacTime=heard_at + self.OFFSET)
        self._callback(data, frames, times, Status())
        return data.reshape(frames, self.channels)

    def give(self, pcm: npt.NDArray[np.int16], captured_at: float) -> None:
        """One input callback of int16 [frames]; further channels get noise."""
        data = np.full((len(pcm), self.channels), 77, np.int16)
        data[:, 0] = pcm
        times = Times(self.now + self.OFFSET, inputBufferAdcTime=captured_at + self.OFFSET)
        self._callback(data.tobytes(), len(pcm), times, Status())


def until(condition: Callable[[], bool]) -> None:
    """Waits for another thread to have done what it does."""
    for _ in range(20_000):
        if condition():
            return
        time.sleep(0.0005)
    raise AssertionError("nothing happened")
