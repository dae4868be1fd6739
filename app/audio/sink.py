"""A sink without a device, paced by the clock."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from app.audio.base import PlayoutStats, Prepare, Render
from app.pacing import Clock, Pacer
from codec import FRAME_SECONDS

LEAD = 0.008
"""Seconds ahead of the playout instant at which a frame is begun that was not made ready before:
two to three times what the dearest one takes, as the machine may be busy."""

LAST_LOOK = 0.006
"""Seconds ahead of that at which what is still missing is looked for once more: as late as leaves
time to get ready without it."""


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

    def start(self, render: Render, prepare: Prepare | None = None) -> None:
        """The first frame is played `lead` seconds from now."""
        if self._thread is not None:
            raise RuntimeError("the null sink was started before")
        self._thread = threading.Thread(
            target=self._run, args=(render, prepare), name="sink null", daemon=True
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

    def _run(self, render: Render, prepare: Prepare | None) -> None:
        play_paced(self._pacer, render, prepare, self._stopping, self.stats)


def play_paced(
    pacer: Pacer,
    render: Render,
    prepare: Prepare | None,
    stopping: threading.Event,
    stats: PlayoutStats,
) -> None:
    """Renders to the pacer's deadlines until told to stop; its lateness goes into `stats`.

    The sound of a frame that was ready before is there in time, however late this thread wakes.
    """
    stats.lateness = pacer.lateness
    resyncs = stats.resyncs
    while True:
        playout_at = pacer.wait()
        stats.resyncs = resyncs + pacer.resyncs
        if stopping.is_set():
            return
        pacer.finished(render(playout_at).ready_at)
        if prepare is not None:
            prepare_paced(pacer, prepare)


def prepare_paced(pacer: Pacer, prepare: Prepare) -> None:
    """Gets ready for the pacer's next deadline, in two goes if it takes them."""
    if not prepare(pacer.next_deadline, False):
        pacer.wait_ahead(LAST_LOOK)
        prepare(pacer.next_deadline, True)
