"""Capture from a simulated device: what was said, and when."""

from __future__ import annotations

import numpy as np
import pytest

from app.audio.base import CapturedFrame
from app.audio.microphone import MicrophoneSource
from tests.app.audio.bench import Bench, until
from tests.app.audio.clips import dominant, sine

BLOCK = 0.01
AGE = 0.015
"""Of a block's first sample when the callback comes."""


class Capture:
    """A microphone on the bench."""

    def __init__(self, bench: Bench) -> None:
        self.bench = bench
        self.frames: list[CapturedFrame] = []
        self.ended = 0
        self.source = MicrophoneSource(clock=bench.clock)
        self.source.start(self.deliver)

    def deliver(self, frame: CapturedFrame | None) -> None:
        if frame is None:
            self.ended += 1
        else:
            self.frames.append(frame)

    def say(self, pcm: np.ndarray) -> None:
        """Blocks of 10 ms of int16 [n] at the device's rate, as time passes."""
        size = round(self.bench.rate * BLOCK)
        for start in range(0, len(pcm), size):
            self.bench.give(pcm[start : start + size], self.bench.now - AGE)
            until(lambda: len(self.source._ring) == 0)
            self.bench.now += BLOCK


@pytest.mark.parametrize("rate", [16_000, 44_100, 48_000])
def test_a_frame_was_captured_when_its_first_sample_was_said(
    monkeypatch: pytest.MonkeyPatch, rate: int
) -> None:
    bench = Bench(monkeypatch, rate)
    capture = Capture(bench)
    began = bench.now - AGE
    pcm = np.zeros(rate, np.int16)
    clicks = range(rate // 10, rate, rate // 10)
    pcm[list(clicks)] = 20_000
    capture.say(pcm)
    until(lambda: len(capture.frames) >= 49)
    capture.source.stop()
    heard = [
        frame.captured_at + int(np.argmax(frame.pcm)) / 16_000
        for frame in capture.frames
        if frame.pcm.max() > 4000
    ]
    said = [began + click / rate for click in clicks]
    assert heard == pytest.approx(said[: len(heard)], abs=1 / 16_000 + 1e-6)
    assert len(heard) >= 8
    assert np.diff([frame.captured_at for frame in capture.frames]) == pytest.approx(
        np.full(len(capture.frames) - 1, 0.02)
    )


def test_the_first_channel_is_heard_at_its_pitch(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench(monkeypatch, 48_000, channels=2)
    capture = Capture(bench)
    capture.say(sine(1000, 1.0, 48_000))
    until(lambda: len(capture.frames) >= 49)
    capture.source.stop()
    pcm = np.concatenate([frame.pcm for frame in capture.frames])
    assert dominant(pcm[:15_000]) == pytest.approx(1000, abs=2)
    assert np.abs(pcm[200:]).max() == pytest.approx(8000, rel=0.02)


def test_a_reader_that_stands_still_costs_sound_and_is_counted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    bench = Bench(monkeypatch, 16_000)
    source = MicrophoneSource(clock=bench.clock)
    source._stream, source._channels = bench._open(
        bench.device, "input", source._callback, source._finished, 0.0
    )
    for _ in range(130):  # the ring holds a second
        bench.give(np.ones(160, np.int16), bench.now)
    assert source.overflows == 30
    assert len(source._ring) == 16_000
    assert source._blocks.qsize() == 100


def test_after_a_gap_frames_lie_where_they_were_said(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench(monkeypatch, 16_000)
    capture = Capture(bench)
    capture.say(np.zeros(16_000, np.int16))
    bench.now += 3
    click = np.zeros(16_000, np.int16)
    click[8000] = 20_000
    said = bench.now - AGE + 0.5
    capture.say(click)
    until(lambda: len(capture.frames) >= 100)
    capture.source.stop()
    (heard,) = [
        frame.captured_at + int(np.argmax(frame.pcm)) / 16_000
        for frame in capture.frames
        if frame.pcm.max() > 10_000
    ]
    assert heard == pytest.approx(said, abs=1e-4)


def test_a_device_that_ends_ends_the_source_once(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench(monkeypatch, 16_000)
    capture = Capture(bench)
    capture.say(np.zeros(3200, np.int16))
    bench.finished()
    until(lambda: capture.ended == 1)
    capture.source.stop()
    assert capture.ended == 1
    assert bench.closed


def test_stopping_is_not_ending(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench(monkeypatch, 16_000)
    capture = Capture(bench)
    capture.say(np.zeros(3200, np.int16))
    capture.source.stop()
    bench.finished()
    assert capture.ended == 0
    assert bench.closed
