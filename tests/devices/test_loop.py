"""Sound that leaves by a device comes back by another."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from app.audio import list_devices, parse_sink, parse_source
from app.audio.base import CapturedFrame, RenderedFrame, silent_frame
from app.audio.microphone import MicrophoneSource
from app.audio.source import tone_frames
from app.audio.speaker import SpeakerSink
from tests.app.audio.clips import Ear, dominant
from tests.devices.pulse import PulseDevices, pulse_server

ROOT = Path(__file__).parents[2]

LOUD = 3000


class Mouth:
    """Renders silence, then from frame `onset` on a tone."""

    def __init__(self, frequency: float, onset: int = 0) -> None:
        self.playout_at: list[float] = []
        self.onset = onset
        self.sound = tone_frames(frequency, -10.0)

    def __call__(self, playout_at: float) -> RenderedFrame:
        self.playout_at.append(playout_at)
        pcm = next(self.sound) if len(self.playout_at) > self.onset else silent_frame()
        return RenderedFrame(pcm, playout_at)


def onset_of(frames: list[CapturedFrame]) -> float:
    """The instant at which sound begins."""
    for frame in frames:
        loud = np.flatnonzero(np.abs(frame.pcm) > LOUD)
        if len(loud):
            return frame.captured_at + int(loud[0]) / 16_000
    raise AssertionError("nothing was heard")


def test_the_devices_are_listed_by_name(pulse_devices: PulseDevices) -> None:
    listed = {device.name: device for device in list_devices()}
    for worn in (pulse_devices.a, pulse_devices.b):
        assert listed[worn.microphone].inputs > 0
        assert listed[worn.speaker].outputs > 0
    source = parse_source(f"device:{pulse_devices.a.microphone.upper()}")
    assert isinstance(source, MicrophoneSource)
    assert parse_sink(f"device:{listed[pulse_devices.b.speaker].number}").name == "spk_b"


def test_a_tone_played_on_one_device_is_captured_on_the_other(
    pulse_devices: PulseDevices, record_property: Callable[[str, object], None]
) -> None:
    speaker = SpeakerSink(pulse_devices.a.feed)
    microphone = MicrophoneSource(pulse_devices.a.microphone)
    mouth, ear = Mouth(1000, onset=60), Ear(enough=200)
    microphone.start(ear)
    speaker.start(mouth)
    try:
        assert ear.done.wait(30)
    finally:
        speaker.stop()
        microphone.stop()
    began = onset_of(ear.frames)
    loop = began - mouth.playout_at[60]
    record_property("onset_error_ms", round(1e3 * loop, 2))
    record_property("playout", speaker.stats.as_dict())
    # A null sink has no air: sound is captured when it is played, if both clocks are right. The
    # sound server's own word for its delays wanders by 15 ms, and buffers that run dry on a busy
    # machine delay the tone.
    assert -0.05 < loop < 0.5
    pcm = np.concatenate([frame.pcm for frame in ear.frames if frame.captured_at > began])
    assert dominant(pcm[:8000]) == pytest.approx(1000, abs=3)
    assert np.abs(pcm[800:8000]).max() == pytest.approx(32767 * 10**-0.5, rel=0.05)


def test_captured_frames_lie_end_to_end_on_the_clock(pulse_devices: PulseDevices) -> None:
    microphone = MicrophoneSource(pulse_devices.a.microphone)
    ear = Ear(enough=150)
    microphone.start(ear)
    try:
        assert ear.done.wait(30)
    finally:
        microphone.stop()
    captured = [frame.captured_at for frame in ear.frames[50:150]]
    assert np.median(np.diff(captured)) == pytest.approx(0.020, abs=0.001)
    assert all(frame.pcm.shape == (320,) for frame in ear.frames)


def test_two_headsets_do_not_hear_each_other(pulse_devices: PulseDevices) -> None:
    speakers = [SpeakerSink(worn.speaker) for worn in (pulse_devices.a, pulse_devices.b)]
    microphones = [MicrophoneSource(worn.heard) for worn in (pulse_devices.a, pulse_devices.b)]
    ears = [Ear(enough=150), Ear(enough=150)]
    for source, ear in zip(microphones, ears, strict=True):
        source.start(ear)
    for sink, frequency in zip(speakers, (500, 2000), strict=True):
        sink.start(Mouth(frequency))
    for ear in ears:
        assert ear.done.wait(30)
    for sink in speakers:
        sink.stop()
    for source in microphones:
        source.stop()
    for ear, frequency, other in ((ears[0], 500, 2000), (ears[1], 2000, 500)):
        spectrum = np.abs(np.fft.rfft(ear.pcm[-16_000:] * np.hanning(16_000)))
        assert spectrum[frequency] > 100 * spectrum[other]


def test_the_device_sets_the_pace_of_playout(pulse_devices: PulseDevices) -> None:
    speaker = SpeakerSink(pulse_devices.a.speaker)
    enough = threading.Event()
    instants: list[float] = []

    def render(playout_at: float) -> RenderedFrame:
        instants.append(playout_at)
        if len(instants) == 200:
            enough.set()
        return RenderedFrame(silent_frame(), playout_at)

    speaker.start(render)
    try:
        assert enough.wait(30)
    finally:
        speaker.stop()
    steps = np.diff(instants)
    assert np.median(steps) == pytest.approx(0.020, abs=0.001)
    assert speaker.stats.deadlines.total == len(instants)


def test_a_device_of_the_wrong_direction_or_name_is_refused(pulse_devices: PulseDevices) -> None:
    with pytest.raises(ValueError, match="mic_c") as caught:
        parse_source("device:mic_c")
    assert "mic_a" in str(caught.value)
    with pytest.raises(ValueError, match="several"):
        parse_sink("device:spk_")


DYING = """
import os, signal, sys, threading
from app.audio import parse_sink, parse_source
from app.audio.base import RenderedFrame, silent_frame

ended, unheard = threading.Event(), threading.Semaphore(0)
sink, source = parse_sink("device:feed_a"), parse_source("device:mic_a")
captured = threading.Event()
def deliver(frame):
    captured.set()
    if frame is None:
        ended.set()
def render(playout_at):
    if ended.is_set():
        unheard.release()
    return RenderedFrame(silent_frame(), playout_at)
source.start(deliver)
sink.start(render)
assert captured.wait(30)
os.kill(int(sys.argv[1]), signal.SIGKILL)
assert ended.wait(30), "the source did not end"
for _ in range(50):
    assert unheard.acquire(timeout=30), "rendering stopped"
source.stop()
sink.stop()
print("survived")
"""


def test_a_device_that_disappears_ends_the_source_and_playout_goes_on_unheard(
    pulse_devices: PulseDevices,
) -> None:
    with pulse_server() as doomed:
        environment = {**os.environ, **doomed.environment, "HOME": os.environ.get("HOME", "/")}
        done = subprocess.run(
            [sys.executable, "-c", DYING, str(doomed.pid)],
            cwd=ROOT,
            env=environment,
            capture_output=True,
            text=True,
            timeout=120,
        )
    assert done.stdout == "survived\n", done.stderr
    assert "has stopped" in done.stderr
