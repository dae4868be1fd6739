"""Playout on an audio device."""

from __future__ import annotations

import logging
import threading
import time
from queue import Empty, SimpleQueue
from typing import Any, NamedTuple

import numpy as np

from app.audio.base import PlayoutStats, Prepare, Render
from app.audio.device_clock import DeviceClock, block_instant
from app.audio.devices import (
    BLOCK_SECONDS,
    LATENCY,
    Device,
    find_device,
    open_stream,
    start_stream,
)
from app.audio.resample import Resampler
from app.audio.ring import SampleRing
from app.audio.sink import LEAD, play_paced
from app.pacing import Clock, Pacer
from codec import FRAME, FRAME_SECONDS, SAMPLE_RATE

RING_SECONDS = 0.5

WARM_UP = 0.2
"""Seconds of steady silence played first: devices take several blocks at once when they start,
then none for a while, and their word for when a block will be heard is worth nothing until then."""

LONGEST_WARM_UP = 3.0
"""Seconds after which playout begins however unsteady the device is."""

SILENT_DEVICE = 5.0
"""Seconds without a callback after which a device is given up."""

MAX_BURST = 0.060
"""Seconds of sound: more at once is a device catching up, not its habit."""

logger = logging.getLogger(__name__)


class _Block(NamedTuple):
    now: float
    frames: int
    position: int
    """Of the ring, after the block."""
    instant: float
    """At which the sample at `position` will be heard if the next block follows."""
    short: bool
    """The ring held less than the block."""


class BurstGauge:
    """How much a device takes at once, in samples: the most within the last one to two seconds.

    Callbacks that follow each other faster than half a block are one burst.
    """

    def __init__(self, rate: int) -> None:
        self._rate = rate
        self._last = float("-inf")
        self._burst = 0
        self._since = float("-inf")
        self._recent = self._before = 0

    def add(self, now: float, frames: int) -> None:
        """Takes in one callback."""
        close = now - self._last < frames / self._rate / 2
        self._burst = self._burst + frames if close else frames
        self._last = now
        if now - self._since >= 1:
            self._since, self._before, self._recent = now, self._recent, 0
        self._recent = max(self._recent, self._burst)

    @property
    def samples(self) -> int:
        """The burst to be ready for."""
        return min(round(MAX_BURST * self._rate), max(self._recent, self._before))


class WarmUp:
    """Tells when a device that was just started has become steady."""

    def __init__(self, rate: int) -> None:
        self._clock = DeviceClock(rate)
        self._rate = rate
        self._taken = 0
        self._steady_since = 0
        self._began: float | None = None

    def add(self, block: _Block) -> bool:
        """Takes in one block; True when sound may begin."""
        jumps = self._clock.jumps
        self._began = block.now if self._began is None else self._began
        self._taken += block.frames
        self._clock.update(self._taken, block.instant)
        if self._clock.jumps > jumps:
            self._steady_since = self._taken
        steady = (self._taken - self._steady_since) / self._rate
        return steady >= WARM_UP or block.now - self._began >= LONGEST_WARM_UP


class SpeakerSink:
    """An output device at whatever rate it runs; all its channels play the same.

    The device keeps the time: whenever a callback has taken its block from the ring, the playout
    thread fills the ring up again to what the device takes at once and `ahead` seconds more. So
    `render` is called as often as the device's own clock needs it, 50 times a second on the
    average. If the device disappears, frames go on being rendered on the clock, unheard.
    Raises AudioError when there is no such device.
    """

    def __init__(
        self,
        device: str | None = None,
        *,
        ahead: float = FRAME_SECONDS,
        latency: float = LATENCY,
        clock: Clock = time.monotonic,
    ) -> None:
        """`device`: see `find_device`; `latency`: seconds of the device's buffer, as a wish."""
        self.device: Device = find_device(device, "output")
        self.name = self.device.name
        self.stats = PlayoutStats()
        self._latency = latency
        self._now = clock
        self._ahead = round(ahead * self.device.rate)
        self._channels = 1
        self._ring = SampleRing(round(RING_SECONDS * self.device.rate))
        self._mono = np.zeros(round(RING_SECONDS * self.device.rate), np.int16)
        self._blocks: SimpleQueue[_Block | None] = SimpleQueue()
        self._playing = False
        self._stopping = threading.Event()
        self._stream: Any = None
        self._thread: threading.Thread | None = None

    def start(self, render: Render, prepare: Prepare | None = None) -> None:
        """Opens the device. Raises AudioError when it refuses."""
        if self._thread is not None:
            raise RuntimeError(f"{self.name} was started before")
        self._stream, self._channels = open_stream(
            self.device, "output", self._callback, self._finished, self._latency
        )
        start_stream(self._stream, self.device)
        self._thread = threading.Thread(
            target=self._run, args=(render, prepare), name=f"sink {self.name}", daemon=True
        )
        self._thread.start()

    def align(self, instant: float) -> None:
        """The device decides when frames begin."""

    def stop(self) -> None:
        """Closes the device; not to be called from `render`."""
        self._stopping.set()
        if self._thread is not None:
            self._blocks.put(None)
            self._thread.join()
        if self._stream is not None:
            self._stream.close(ignore_errors=True)

    def _callback(self, data: Any, frames: int, times: Any, status: Any) -> None:
        now = self._now()
        out = np.frombuffer(data, np.int16)
        mono = out if self._channels == 1 else self._mono[:frames]
        got = self._ring.read_into(mono)
        mono[got:] = 0
        if self._channels > 1:
            out.reshape(-1, self._channels)[:] = mono[:, None]
        if self._playing and (got < frames or status.output_underflow):
            self.stats.underruns += 1
        start = block_instant(now, times.outputBufferDacTime, times.currentTime, BLOCK_SECONDS)
        end = start + frames / self.device.rate
        self._blocks.put(_Block(now, frames, self._ring.taken, end, got < frames))

    def _finished(self) -> None:
        self._blocks.put(None)

    def _run(self, render: Render, prepare: Prepare | None) -> None:
        if self._play(render, prepare):
            return
        logger.warning("the audio output device %s has stopped", self.device)
        pacer = Pacer(FRAME_SECONDS, lead=LEAD, deadlines=self.stats.deadlines)
        play_paced(pacer, render, prepare, self._stopping, self.stats)

    def _play(self, render: Render, prepare: Prepare | None) -> bool:
        """Plays until told to stop (True) or until the device is gone (False)."""
        rate = self.device.rate
        clock = DeviceClock(rate)
        gauge = BurstGauge(rate)
        resampler = Resampler(SAMPLE_RATE, rate)
        deadlines = self.stats.deadlines
        warm_up = WarmUp(rate)
        rendered = 0
        warm = False
        begun = 0.0
        while True:
            try:
                blocks = [self._blocks.get(timeout=SILENT_DEVICE)]
            except Empty:
                return self._stopping.is_set()
            while not self._blocks.empty():
                blocks.append(self._blocks.get())
            for block in blocks:
                if self._stopping.is_set():
                    return True
                if block is None:
                    return False
                begun = block.now
                gauge.add(begun, block.frames)
                clock.update(block.position, block.instant, jump=block.short)
                if not warm:
                    warm = warm_up.add(block)
                    clock.jumps = 0
            if not warm:
                continue
            self.stats.resyncs = clock.jumps
            self.stats.lateness.add(self._now() - begun)
            before = rendered
            while len(self._ring) < gauge.samples + self._ahead:
                playout_at = clock.instant(rendered * FRAME * rate / SAMPLE_RATE)
                pcm = render(playout_at).pcm
                finished = self._now()
                deadlines.record(begun, playout_at, finished)
                begun = finished
                rendered += 1
                self._ring.write(resampler.process(pcm))
                self._playing = True
                if self._stopping.is_set():
                    return True
            if prepare is not None and rendered:
                # of two blocks that a frame lasts, the second may be the last chance before
                last = rendered == before
                prepare(clock.instant(rendered * FRAME * rate / SAMPLE_RATE), last)
