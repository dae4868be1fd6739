"""A call between two headsets: what one party says is heard by the other, and how late."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from app.audio.base import CapturedFrame, RenderedFrame, silent_frame
from app.audio.microphone import MicrophoneSource
from app.audio.speaker import SpeakerSink
from app.control_timer import ControlTimer
from app.marker import MarkerDetector, MarkerHit, MarkerInjector, SentMarker, match_markers
from codec import FRAME
from codec.frame import FrameSource
from tests.app.calls import (
    LOOPBACK,
    PATIENCE,
    Endpoint,
    books_agree,
    endpoints,
    equal_timer,
    unless_stalled,
)
from tests.app.test_report import violations
from tests.devices.pulse import Headset, PulseDevices

ENOUGH = 4
"""Markers to hear each way."""

WANDERS = 0.045
"""Seconds. A sound server says of its own delays what is true to within its buffers."""

LAST_FRAMES = 100
"""Two seconds, when the headsets hear markers."""

MEDIAN_MS = 5.0
"""By which two medians of a falling delay may differ, one of bins and one of lines."""


class Mouth:
    """Plays a marker a second into a microphone."""

    def __init__(self, headset: Headset) -> None:
        self._injector = MarkerInjector()
        self._frames = 0
        self.said: list[SentMarker] = []
        self._speaker = SpeakerSink(headset.feed)

    def start(self) -> None:
        self._speaker.start(self._render)

    def stop(self) -> None:
        self._speaker.stop()

    def _render(self, playout_at: float) -> RenderedFrame:
        first = self._frames * FRAME
        self._frames += 1
        second, within = divmod(first, self._injector.grid.samples)
        if within == 0:
            self.said.append(SentMarker(second, playout_at))
        return RenderedFrame(self._injector.mix(silent_frame(), first), playout_at)


class Ear:
    """Listens at a speaker for markers."""

    def __init__(self, headset: Headset) -> None:
        self.heard: list[MarkerHit] = []
        self.enough = threading.Event()
        self._detector = MarkerDetector()
        self._microphone = MicrophoneSource(headset.heard)

    def start(self) -> None:
        self._microphone.start(self._deliver)

    def stop(self) -> None:
        self._microphone.stop()

    def _deliver(self, frame: CapturedFrame | None) -> None:
        assert frame is not None, "the device has gone"
        self.heard += self._detector.push(frame.pcm, frame.captured_at)
        if len(self.heard) >= ENOUGH:
            self.enough.set()


@dataclass
class Conversation:
    listener: Endpoint
    caller: Endpoint
    timer: ControlTimer
    delays: dict[str, list[float]]
    """Seconds from mouth to ear, by who listens, as measured at the headsets."""


@pytest.fixture(scope="module")
def conversation(
    pulse_devices: PulseDevices, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Conversation]:
    """Party a calls party b, both say markers, and a hangs up."""
    folder = tmp_path_factory.mktemp("headsets")
    with endpoints() as start:

        def party(headset: Headset, *arguments: str) -> Endpoint:
            return start(
                folder,
                *arguments,
                "--sink",
                f"device:{headset.speaker}",
                source=f"device:{headset.microphone}",
                environment=pulse_devices.environment,
            )

        timer = equal_timer()
        listener = party(pulse_devices.b, "listen", "--host", LOOPBACK, "--port", "0")
        caller = party(pulse_devices.a, "call", f"{LOOPBACK}:{listener.port}")
        mouths = {"listen": Mouth(pulse_devices.a), "call": Mouth(pulse_devices.b)}
        ears = {"listen": Ear(pulse_devices.b), "call": Ear(pulse_devices.a)}
        for side in (listener, caller):
            side.wait_until_heard(50)
        parts: list[Mouth | Ear] = [*mouths.values(), *ears.values()]
        for part in parts:
            part.start()
        try:
            for name, ear in ears.items():
                assert ear.enough.wait(PATIENCE), f"{name} has heard only {len(ear.heard)} markers"
        finally:
            for part in parts:
                part.stop()
        caller.interrupt(signal.SIGINT)
        assert (caller.end(), listener.end()) == (0, 0), (caller.said, listener.said)
        delays = {
            name: [m.delay for m in match_markers(ear.heard, mouths[name].said, max_delay=1.5)]
            for name, ear in ears.items()
        }
        timer.stop()
        yield Conversation(listener, caller, timer, delays)


@pytest.mark.slow
def test_markers_said_into_one_headset_are_heard_in_the_other_as_late_as_the_report_says(
    conversation: Conversation, record_property: Callable[[str, object], None]
) -> None:
    for side in (conversation.listener, conversation.caller):
        measured = conversation.delays[side.name]
        assert len(measured) >= ENOUGH - 1
        reported = side.report["delay_ms"]["p50"]
        record_property(side.name, {"measured": measured, "reported": reported})
        delays = [entry.delay_ms for entry in side.ledger if entry.delay_ms is not None]
        assert reported == pytest.approx(np.median(delays), abs=MEDIAN_MS)
        # a device may start late, and the delay come down when the markers are yet to be said
        meanwhile = float(np.median(delays[-LAST_FRAMES:]))
        with unless_stalled(conversation.timer):
            assert float(np.median(measured)) == pytest.approx(meanwhile / 1e3, abs=WANDERS)


def test_a_call_with_devices_is_heard_out_of_its_own_packets(conversation: Conversation) -> None:
    for side in (conversation.listener, conversation.caller):
        sources = [entry.source for entry in side.ledger]
        assert sources.count(FrameSource.PACKET) > 0.9 * (len(sources) - 50)
        assert books_agree(side.recording, side.ledger)
        report = side.report
        assert violations(report) == []
        assert report["inbound"]["packetsLost"] == 0


def test_a_call_with_devices_ends_like_any_other(conversation: Conversation) -> None:
    assert conversation.caller.said[-1] == "dredcall: hung up"
    assert conversation.listener.said[-1] == "dredcall: the peer hung up"


def test_a_device_of_another_name_is_refused_in_one_line(
    pulse_devices: PulseDevices, tmp_path: Path
) -> None:
    with endpoints() as start:
        side = start(
            tmp_path,
            "listen",
            "--sink",
            "device:spk_c",
            environment=pulse_devices.environment,
            kept=False,
        )
        assert side.end() == 2
    (line,) = side.said
    assert "spk_c" in line
    assert "spk_a" in line
