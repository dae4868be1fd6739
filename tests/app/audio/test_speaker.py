"""Playout on a simulated device: what is heard, and when."""

from __future__ import annotations

from queue import SimpleQueue

import numpy as np
import numpy.typing as npt
import pytest

from app.audio.base import Prepare, RenderedFrame, silent_frame
from app.audio.speaker import SpeakerSink, WarmUp, _Block
from tests.app.audio.bench import Bench, until

BLOCK = 0.01
DELAY = 0.05
"""From a callback to the ear."""


class Blocks(SimpleQueue[_Block | None]):
    """Knows how many blocks the playout thread is through with."""

    def __init__(self) -> None:
        self.puts = self.gets = self.done = 0

    def put(self, item: _Block | None, block: bool = True, timeout: float | None = None) -> None:
        self.puts += 1
        super().put(item)

    def get(self, block: bool = True, timeout: float | None = None) -> _Block | None:
        if timeout is not None:  # only the wait for further blocks has one
            self.done = self.gets
        item = super().get(block, timeout)
        self.gets += 1
        return item


class Playout:
    """A sink on the bench whose frames begin with an impulse as high as their number."""

    def __init__(self, bench: Bench, prepare: Prepare | None = None) -> None:
        self.bench = bench
        self.sink = SpeakerSink(clock=bench.clock)
        self.playout_at: list[float] = []
        self.levels: list[float] = []
        """Seconds of sound that lay ready before each block."""
        self.heard: list[npt.NDArray[np.int16]] = []
        self.sink._blocks = self.blocks = Blocks()
        self.began = bench.now + DELAY
        """When the first block is heard."""
        self.sink.start(self.render, prepare)

    def render(self, playout_at: float) -> RenderedFrame:
        pcm = silent_frame()
        self.playout_at.append(playout_at)
        pcm[0] = 1000 + len(self.playout_at)
        return RenderedFrame(pcm, self.bench.now)

    def run(self, blocks: int, burst: int = 1) -> None:
        """Lets the device take `blocks` blocks in all, `burst` at once."""
        rate = self.bench.rate
        size = round(rate * BLOCK)
        for _ in range(blocks // burst):
            for k in range(burst):
                self.heard.append(self.bench.take(size, self.bench.now + DELAY + k * BLOCK))
            until(lambda: self.blocks.done == self.blocks.puts)
            self.levels.append(len(self.sink._ring) / rate)
            self.bench.now += burst * BLOCK

    def impulses(self) -> list[float]:
        """When the frames' first samples were heard."""
        sound = np.concatenate(self.heard)[:, 0]
        loud = np.flatnonzero(np.abs(sound) > 500)
        starts = [i for i in loud if not (np.abs(sound[max(0, i - 20) : i]) > 500).any()]
        peaks = [i + int(np.argmax(sound[i : i + 20])) for i in starts]
        return [self.began + peak / self.bench.rate for peak in peaks]


@pytest.mark.parametrize("rate", [16_000, 44_100, 48_000])
def test_a_frame_is_heard_at_the_instant_it_was_rendered_for(
    monkeypatch: pytest.MonkeyPatch, rate: int
) -> None:
    playout = Playout(Bench(monkeypatch, rate))
    playout.run(120)
    playout.sink.stop()
    heard = playout.impulses()
    assert len(heard) > 40
    assert heard == pytest.approx(playout.playout_at[: len(heard)], abs=1.5 / rate + 1e-6)
    assert playout.sink.stats.underruns == 0
    assert playout.sink.stats.resyncs == 0


def test_20_ms_are_ready_beyond_what_the_device_takes_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    playout = Playout(Bench(monkeypatch, 48_000))
    playout.run(100)
    playing = [level for level in playout.levels if level]
    assert len(playing) > 50
    assert min(playing) >= BLOCK + 0.02
    assert max(playing) <= BLOCK + 0.02 + 0.02  # frames come whole
    playout.sink.stop()


def test_a_device_that_takes_two_blocks_at_once_never_runs_dry(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    playout = Playout(Bench(monkeypatch, 48_000))
    playout.run(120, burst=2)
    playout.sink.stop()
    heard = playout.impulses()
    assert playout.sink.stats.underruns == 0
    assert np.diff(heard) == pytest.approx(np.full(len(heard) - 1, 0.02), abs=2 / 48_000)


def test_a_device_that_runs_fast_is_followed(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench(monkeypatch, 48_000)
    playout = Playout(bench)
    for _ in range(400):
        playout.run(1)
        bench.now -= BLOCK * 0.001
    playout.sink.stop()
    steps = np.diff(playout.playout_at)[100:]
    assert steps.mean() == pytest.approx(0.02 * 0.999, rel=1e-4)
    assert playout.sink.stats.resyncs == 0


def test_a_ring_that_ran_dry_is_an_underrun_and_the_clock_moves_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    bench = Bench(monkeypatch, 48_000)
    playout = Playout(bench)
    playout.run(60)
    before = len(playout.playout_at)
    sink = playout.sink
    assert sink.stats.underruns == 0
    sink._ring.taken = sink._ring.written  # what a stall leaves: an empty ring
    playout.run(20)
    sink.stop()
    assert sink.stats.underruns == 1
    assert sink.stats.resyncs == 1
    assert before < len(playout.playout_at)


def test_every_channel_plays_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    playout = Playout(Bench(monkeypatch, 16_000, channels=2))
    playout.run(60)
    playout.sink.stop()
    sound = np.concatenate(playout.heard)
    assert sound.any()
    np.testing.assert_array_equal(sound[:, 0], sound[:, 1])


def test_only_silence_is_played_until_the_device_is_steady() -> None:
    warm_up = WarmUp(48_000)
    answers = []
    now = heard = 50.0
    for k in range(60):
        if k == 3:
            now += 1.4  # the device swallowed three blocks and then waits
            heard += 1.4
        answers.append(warm_up.add(_Block(now, 480, 0, heard, True)))
        now += 0.01 if k >= 3 else 0.0001
        heard += 0.01
    assert answers.index(True) == 23


def test_a_device_that_never_becomes_steady_is_played_on_all_the_same() -> None:
    warm_up = WarmUp(48_000)
    for k in range(301):
        ready = warm_up.add(_Block(50 + 0.01 * k, 480, 0, 50 + (k % 2) * 0.2 + 0.01 * k, True))
        assert ready == (k >= 300)


def test_between_two_frames_there_is_a_first_and_a_last_look_at_the_next(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    looks: list[tuple[float, bool]] = []

    def prepare(playout_at: float, last: bool) -> bool:
        looks.append((playout_at, last))
        return False

    playout = Playout(Bench(monkeypatch, 48_000), prepare)
    playout.run(100)
    playout.sink.stop()
    steady = looks[-20:]
    assert [last for _, last in steady] in ([False, True] * 10, [True, False] * 10)
    # the frame that was looked for is the one that is rendered then
    assert {round(at, 6) for at, _ in steady[:-2]} <= {round(at, 6) for at in playout.playout_at}


def test_closing_ends_the_stream_and_the_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench(monkeypatch, 48_000)
    playout = Playout(bench)
    playout.run(30)
    playout.sink.stop()
    assert bench.closed
    assert playout.sink._thread is not None
    assert not playout.sink._thread.is_alive()
    with pytest.raises(RuntimeError):
        playout.sink.start(playout.render)
