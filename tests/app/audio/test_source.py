"""Paced sources under a clock that moves only when they sleep."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest

from app.audio.base import AudioError, CapturedFrame
from app.audio.source import FileSource, PacedSource, SilenceSource, ToneSource, tone_frames
from tests.app.audio.clips import Ear, dominant, sine, write_clip


class Clock:
    def __init__(self) -> None:
        self.now = 50.0

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


def paced(frames: int, clock: Clock) -> PacedSource:
    pcm = (np.full(320, k, np.int16) for k in range(frames))
    return PacedSource("numbers", pcm, clock=clock, sleep=clock.sleep)


def test_a_frame_is_delivered_when_its_last_sample_is_captured() -> None:
    clock = Clock()
    source = paced(100, clock)
    ear = Ear()
    delivered: list[float] = []

    def deliver(frame: CapturedFrame | None) -> None:
        delivered.append(clock.now)
        ear(frame)

    source.start(deliver)
    assert ear.done.wait(10)
    captured = [frame.captured_at for frame in ear.frames]
    assert captured == pytest.approx([50 + 0.02 * k for k in range(100)])
    assert delivered[:100] == pytest.approx([at + 0.02 for at in captured])
    assert [frame.pcm[0] for frame in ear.frames] == list(range(100))
    assert ear.ended
    source.stop()


def test_slow_delivery_delays_no_later_frame() -> None:
    clock = Clock()
    source = paced(50, clock)
    ear = Ear()

    def deliver(frame: CapturedFrame | None) -> None:
        ear(frame)
        clock.now += 0.015

    source.start(deliver)
    assert ear.done.wait(10)
    assert ear.frames[-1].captured_at == pytest.approx(50 + 0.02 * 49)
    assert source.lateness.max < 1e-6


def test_after_a_long_stall_frames_are_captured_later_but_none_is_lost() -> None:
    clock = Clock()
    source = paced(10, clock)
    ear = Ear()

    def deliver(frame: CapturedFrame | None) -> None:
        ear(frame)
        if len(ear.frames) == 5 and frame is not None:
            clock.now += 3

    source.start(deliver)
    assert ear.done.wait(10)
    steps = np.diff([frame.captured_at for frame in ear.frames])
    assert steps == pytest.approx([0.02] * 4 + [3.0] + [0.02] * 4)
    assert [frame.pcm[0] for frame in ear.frames] == list(range(10))


def test_nothing_is_delivered_after_stop() -> None:
    source = SilenceSource()
    ear = Ear(enough=2)
    source.start(ear)
    assert ear.done.wait(10)
    source.stop()
    count = len(ear.frames)
    assert not ear.ended
    with pytest.raises(RuntimeError):
        source.start(ear)
    assert len(ear.frames) == count


def test_a_source_may_be_stopped_from_its_own_delivery() -> None:
    source = SilenceSource()
    ear = Ear(enough=1)

    def deliver(frame: CapturedFrame | None) -> None:
        source.stop()
        ear(frame)

    source.start(deliver)
    assert ear.done.wait(10)
    source._thread.join()  # type: ignore[union-attr]
    assert len(ear.frames) == 1


def test_a_source_that_never_started_can_be_stopped() -> None:
    SilenceSource().stop()


def test_a_file_is_delivered_whole_and_then_ends(tmp_path: Path) -> None:
    samples = sine(500, 0.1)
    source = FileSource(write_clip(tmp_path / "clip.wav", samples, 16_000))
    ear = Ear()
    source.start(ear)
    assert ear.done.wait(10)
    assert ear.ended
    np.testing.assert_array_equal(ear.pcm, samples)
    steps = np.diff([frame.captured_at for frame in ear.frames])
    assert steps.min() > 0.0199


def test_a_tone_has_its_frequency_its_level_and_no_seam() -> None:
    pcm = np.concatenate(list(itertools.islice(tone_frames(1234.5, -12.0), 50)))
    assert dominant(pcm) == pytest.approx(1234.5, abs=1)
    assert np.abs(pcm).max() == pytest.approx(32767 * 10 ** (-12 / 20), rel=0.001)
    n = np.arange(len(pcm))
    ideal = 32767 * 10 ** (-12 / 20) * np.sin(2 * np.pi * 1234.5 / 16_000 * n)
    assert np.abs(pcm - ideal).max() <= 0.51


@pytest.mark.parametrize(
    ("frequency", "level", "named"),
    [(0, -20, "0 Hz"), (8000, -20, "8000 Hz"), (float("nan"), -20, "nan"), (440, 1, "1 dBFS")],
)
def test_a_tone_out_of_range_is_refused(frequency: float, level: float, named: str) -> None:
    with pytest.raises(AudioError, match=named):
        ToneSource(frequency, level)


def test_silence_is_zeros() -> None:
    source = SilenceSource()
    ear = Ear(enough=2)
    source.start(ear)
    assert ear.done.wait(10)
    source.stop()
    assert not ear.pcm.any()
