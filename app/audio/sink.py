"""A sink without a device, paced by the clock."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from app.audio.base import PlayoutStats, Render
from app.pacing import Clock, Pacer
from codec import FRAME_SECONDS

LEAD = 0.005
"""Seconds ahead of the playout instant at which a frame is begun."""


class NullSink:
    """Renders every 20 ms and throws the sound away; `lead` seconds to render each frame."""

    name = "null"

    def __init__(
        self,
        *,
        lead: float = LEAD,
        clock: Clock = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.stats = PlayoutStats()
        self._pacer = Pacer(
            FRAME_SECONDS, lead=lead, deadlines=self.stats.deadlines, clock=clock, sleep=sleep
        )
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self, render: Render) -> None:
        """The first frame is played `lead` seconds from now."""
        if self._thread is not None:
            raise RuntimeError("the null sink was started before")
        self._thread = threading.Thread(
            target=self._run, args=(render,), name="sink null", daemon=True
        )
        self._thread.start()

    def align(self, instant: float) -> None:
        """Frames begin at `instant`, whole frames before or after it."""
        self._pacer.align(instant)

    def stop(self) -> None:
        """Ends playout; may be called from `render` itself."""
        self._stopping.set()
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join()

    def _run(self, render: Render) -> None:
        play_paced(self._pacer, render, self._stopping, self.stats)


def play_paced(
    pacer: Pacer, render: Render, stopping: threading.Event, stats: PlayoutStats
) -> None:
    """Renders to the pacer's deadlines until told to stop; its lateness goes into `stats`."""
    stats.lateness = pacer.lateness
    resyncs = stats.resyncs
    while True:
        playout_at = pacer.wait()
        stats.resyncs = resyncs + pacer.resyncs
        if stopping.is_set():
            return
        render(playout_at)
        pacer.finished()
