"""Sources without a device, paced as if their sound were being captured: files, tones, silence."""

from __future__ import annotations

import math
import os
import threading
import time
from collections.abc import Callable, Iterator
from itertools import chain, repeat

import numpy as np

from app.audio.base import AudioError, CapturedFrame, Deliver, silent_frame
from app.audio.file import file_frames
from app.pacing import Clock, Distribution, Pacer
from codec import FRAME, FRAME_SECONDS, SAMPLE_RATE
from codec.frame import PcmFrame


class PacedSource:
    """Delivers frames at the pace of a microphone.

    A frame is delivered at the instant at which its last sample would have been captured. After a
    long stall the schedule moves: no frame is left out, all later ones are captured later.
    """

    def __init__(
        self,
        name: str,
        frames: Iterator[PcmFrame],
        *,
        clock: Clock = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.name = name
        self._frames = frames
        self._clock = clock
        # A frame's own deadline is the instant at which the next one is due.
        self._pacer = Pacer(FRAME_SECONDS, lead=FRAME_SECONDS, clock=clock, sleep=sleep)
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None

    @property
    def lateness(self) -> Distribution:
        """Seconds by which deliveries began late."""
        return self._pacer.lateness

    def start(self, deliver: Deliver) -> None:
        """The first frame counts as captured from now on."""
        if self._thread is not None:
            raise RuntimeError(f"{self.name} was started before")
        self._thread = threading.Thread(
            target=self._run, args=(deliver,), name=f"source {self.name}", daemon=True
        )
        self._thread.start()

    def stop(self) -> None:
        """Ends delivery; may be called from `deliver` itself."""
        self._stopping.set()
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join()

    def _run(self, deliver: Deliver) -> None:
        self._pacer.start(self._clock() + 2 * FRAME_SECONDS)
        for pcm in self._frames:
            captured_at = self._pacer.wait() - 2 * FRAME_SECONDS
            if self._stopping.is_set():
                return
            deliver(CapturedFrame(pcm, captured_at))
            self._pacer.finished()
            if self._stopping.is_set():
                return
        deliver(None)


class FileSource(PacedSource):
    """An audio file of any kind that FFmpeg reads, in mono at 16 kHz; its last frame is padded.

    Raises AudioError at once when there is no sound to be had from it.
    """

    def __init__(self, path: str | os.PathLike[str], *, loop: bool = False) -> None:
        frames = file_frames(path, loop=loop)
        first = next(frames)
        super().__init__(os.fspath(path), chain([first], frames))


class ToneSource(PacedSource):
    """A sine without end; `level` is that of its peak in dBFS."""

    def __init__(self, frequency: float = 440.0, level: float = -20.0) -> None:
        if not 0 < frequency < SAMPLE_RATE / 2:
            raise AudioError(f"tone frequency {frequency:g} Hz is not between 0 and 8000")
        if not -120 <= level <= 0:
            raise AudioError(f"tone level {level:g} dBFS is not in -120..0")
        super().__init__(f"tone {frequency:g} Hz", tone_frames(frequency, level))


class SilenceSource(PacedSource):
    """Zeros without end."""

    def __init__(self) -> None:
        super().__init__("silence", (silent_frame() for _ in repeat(None)))


def tone_frames(frequency: float, level: float) -> Iterator[PcmFrame]:
    """Frames of a sine of `frequency` Hz whose peak is at `level` dBFS."""
    amplitude = 32767 * 10 ** (level / 20)
    step = 2 * math.pi * frequency / SAMPLE_RATE
    ramp = step * np.arange(FRAME)
    phase = 0.0
    while True:
        yield np.rint(amplitude * np.sin(phase + ramp)).astype(np.int16)
        phase = math.fmod(phase + step * FRAME, 2 * math.pi)
