"""The null sink under a clock that moves only when it sleeps or renders."""

from __future__ import annotations

import threading

import numpy as np
import pytest

from app.audio import Prepare
from app.audio.base import RenderedFrame, silent_frame
from app.audio.sink import NullSink


class Playout:
    """A render function that costs what it is told to, in turn, and then says it is done."""

    def __init__(self, costs: list[float]) -> None:
        self.now = 10.0
        self.costs = costs
        self.playout_at: list[float] = []
        self.called_at: list[float] = []
        self.ready_at: float | None = None
        """What is said of every frame; None: when it was rendered."""
        self.done = threading.Event()
        self.sink = NullSink(lead=0.005, clock=self.clock, sleep=self.sleep)

    def clock(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds

    def render(self, playout_at: float) -> RenderedFrame:
        self.playout_at.append(playout_at)
        self.called_at.append(self.now)
        self.now += self.costs.pop(0)
        if not self.costs:
            self.done.set()
            self.sink._stopping.set()
        ready_at = self.now if self.ready_at is None else self.ready_at
        return RenderedFrame(silent_frame(), ready_at)

    def run(self, prepare: Prepare | None = None) -> None:
        self.sink.start(self.render, prepare)
        assert self.done.wait(10)
        self.sink.stop()


def test_frames_are_rendered_ahead_of_a_steady_playout_clock() -> None:
    playout = Playout([0.001] * 100)
    playout.run()
    assert playout.playout_at == pytest.approx([10.005 + 0.02 * k for k in range(100)])
    ahead = np.subtract(playout.playout_at, playout.called_at)
    assert ahead == pytest.approx(np.full(100, 0.005))
    assert playout.sink.stats.deadlines.missed == 0


def test_a_frame_that_is_ready_after_its_playout_instant_is_a_missed_deadline() -> None:
    playout = Playout([0.004, 0.009, 0.006, 0.004])
    playout.run()
    stats = playout.sink.stats.as_dict()
    assert (stats["frames"], stats["missed"]) == (4, 2)
    assert stats["worst_ms"] == pytest.approx(4)
    assert stats["render_ms"]["max"] == pytest.approx(9)
    assert playout.playout_at == pytest.approx([10.005, 10.025, 10.045, 10.065])


def test_a_stall_moves_the_playout_clock_and_is_counted() -> None:
    playout = Playout([0.001, 2.0, 0.001, 0.001])
    playout.run()
    assert playout.sink.stats.resyncs == 1
    assert np.diff(playout.playout_at) == pytest.approx([0.02, 2.0, 0.02])


def test_nothing_is_rendered_after_stop() -> None:
    sink = NullSink()
    rendered = threading.Semaphore(0)
    count = 0

    def render(playout_at: float) -> RenderedFrame:
        nonlocal count
        count += 1
        rendered.release()
        return RenderedFrame(silent_frame(), playout_at)

    sink.start(render)
    assert rendered.acquire(timeout=10)
    sink.stop()
    stopped_at = count
    with pytest.raises(RuntimeError):
        sink.start(render)
    assert count == stopped_at


def test_a_sink_that_never_started_can_be_stopped() -> None:
    NullSink().stop()


def test_what_is_not_ready_is_prepared_again_11_ms_ahead_of_its_instant() -> None:
    playout = Playout([0.001] * 4)
    prepared: list[tuple[float, float]] = []
    lasts: list[bool] = []

    def prepare(playout_at: float, last: bool) -> bool:
        prepared.append((playout.now, playout_at))
        lasts.append(last)
        return len(prepared) == 1

    playout.run(prepare)
    # ready at once before the second frame; looked at twice before the others
    assert lasts[:5] == [False, False, True, False, True]
    assert [at for _, at in prepared[:5]] == pytest.approx([10.025, 10.045, 10.045, 10.065, 10.065])
    assert [now for now, _ in prepared[:5]] == pytest.approx(
        [10.001, 10.021, 10.034, 10.041, 10.054]
    )
    assert playout.playout_at == pytest.approx([10.005, 10.025, 10.045, 10.065])
    assert playout.sink.stats.deadlines.missed == 0


@pytest.mark.parametrize(("ready", "missed"), [(10.0, 0), (10.023, 1), (None, 2)])
def test_a_frame_that_was_ready_is_in_time_however_late_the_thread_wakes(
    ready: float | None, missed: int
) -> None:
    playout = Playout([0.001] * 3)
    playout.ready_at = ready

    def oversleep(seconds: float) -> None:
        playout.now += seconds + 0.012

    playout.sink._pacer._sleep = oversleep
    playout.run()
    # the first is asked for at once: nobody sleeps before it
    assert playout.sink.stats.deadlines.missed == missed
