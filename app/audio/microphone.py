"""Capture from an audio device."""

from __future__ import annotations

import logging
import threading
import time
from queue import Empty, SimpleQueue
from typing import Any

import numpy as np

from app.audio.base import CapturedFrame, Deliver
from app.audio.device_clock import DeviceClock, block_instant
from app.audio.devices import LATENCY, find_device, open_stream, start_stream
from app.audio.resample import Resampler
from app.audio.ring import SampleRing
from app.pacing import Clock
from codec import FRAME, SAMPLE_RATE

RING_SECONDS = 1.0

SILENT_DEVICE = 5.0
"""Seconds without a callback after which a device is given up: sound servers may take a second
or two to start."""

logger = logging.getLogger(__name__)


class MicrophoneSource:
    """The first channel of an input device, at whatever rate it runs.

    PortAudio's callback copies blocks into a ring; a thread of our own converts the rate, cuts
    frames and delivers them. Raises AudioError when there is no such device.
    """

    def __init__(
        self,
        device: str | None = None,
        *,
        latency: float = LATENCY,
        clock: Clock = time.monotonic,
    ) -> None:
        """`device`: see `find_device`; `latency`: seconds of the device's buffer, as a wish."""
        self.device = find_device(device, "input")
        self.name = self.device.name
        self.overflows = 0
        """Blocks that were lost because nobody took them in time."""
        self._latency = latency
        self._now = clock
        self._channels = 1
        self._ring = SampleRing(round(self.device.rate * RING_SECONDS))
        self._blocks: SimpleQueue[tuple[int, float] | None] = SimpleQueue()
        self._stopping = threading.Event()
        self._stream: Any = None
        self._thread: threading.Thread | None = None

    def start(self, deliver: Deliver) -> None:
        """Opens the device. Raises AudioError when it refuses."""
        if self._thread is not None:
            raise RuntimeError(f"{self.name} was started before")
        self._stream, self._channels = open_stream(
            self.device, "input", self._callback, self._finished, self._latency
        )
        start_stream(self._stream, self.device)
        self._thread = threading.Thread(
            target=self._run, args=(deliver,), name=f"source {self.name}", daemon=True
        )
        self._thread.start()

    def stop(self) -> None:
        """Closes the device; not to be called from `deliver`."""
        self._stopping.set()
        if self._stream is not None:
            self._stream.close(ignore_errors=True)
        if self._thread is not None:
            self._blocks.put(None)
            self._thread.join()

    def _callback(self, data: Any, frames: int, times: Any, status: Any) -> None:
        now = self._now()
        if status.input_overflow:
            self.overflows += 1
        ring = self._ring
        position = ring.written
        if ring.capacity - len(ring) < frames:
            self.overflows += 1
            return
        ring.write(np.frombuffer(data, np.int16)[:: self._channels])
        instant = block_instant(
            now, times.inputBufferAdcTime, times.currentTime, -frames / self.device.rate
        )
        self._blocks.put((position, instant))

    def _finished(self) -> None:
        self._blocks.put(None)

    def _run(self, deliver: Deliver) -> None:
        rate = self.device.rate
        clock = DeviceClock(rate)
        resampler = Resampler(rate, SAMPLE_RATE)
        taken = np.empty(self._ring.capacity, np.int16)
        pending = np.empty(0, np.int16)
        frames = 0
        while True:
            try:
                block = self._blocks.get(timeout=SILENT_DEVICE)
            except Empty:
                block = None
            if self._stopping.is_set():
                return
            if block is None:
                logger.warning("the audio input device %s has stopped", self.device)
                deliver(None)
                return
            clock.update(*block)
            count = self._ring.read_into(taken)
            pending = np.concatenate((pending, resampler.process(taken[:count])))
            while len(pending) >= FRAME:
                captured_at = clock.instant(frames * FRAME * rate / SAMPLE_RATE)
                deliver(CapturedFrame(pending[:FRAME].copy(), captured_at))
                pending = pending[FRAME:]
                frames += 1
                if self._stopping.is_set():
                    return
