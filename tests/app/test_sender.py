"""Captured frames become packets with media time; nothing the source does breaks the axis."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
import pytest

from app.audio.base import CapturedFrame, silent_frame
from app.marker import MARKER, MarkerGrid, MarkerInjector
from app.net.red import RedEncoder, unpack_red
from app.redundancy import Redundancy
from app.sender import EncodedFrame, Sender
from codec import FRAME, FRAME_SECONDS, FRAME_TICKS
from codec.dred import DredEncoder
from codec.extensions import packet_extensions
from codec.frame import PcmFrame
from codec.opus import OpusDecoder, OpusEncoder, has_lbrr
from tests.app.calls import MAN, clip

PLAIN = Redundancy(
    expected_loss_percent=0, lbrr=False, dred_ms=0, dred_bytes=0, opus_bitrate=24_000
)
PROTECTED = Redundancy(
    expected_loss_percent=20, lbrr=True, dred_ms=400, dred_bytes=200, opus_bitrate=20_000
)


@dataclass
class Line:
    """A sender and what it has sent."""

    redundancy: Redundancy = PLAIN
    dred: DredEncoder | None = None
    red: RedEncoder | None = None
    injector: MarkerInjector | None = None
    rtp_origin: int = 0
    sent: list[EncodedFrame] = field(default_factory=list)
    ends: int = 0

    def __post_init__(self) -> None:
        self.encoder = OpusEncoder(lbrr=self.redundancy.lbrr)
        self.sender = Sender(
            self.encoder,
            emit=self.sent.append,
            ended=self._ended,
            clock=lambda: 99.0,
            redundancy=self.redundancy,
            dred=self.dred,
            red=self.red,
            injector=self.injector,
            rtp_origin=self.rtp_origin,
        )

    def _ended(self) -> None:
        self.ends += 1

    def say(self, frames: list[PcmFrame], at: float) -> float:
        """Captures frames from `at` on; the instant after them."""
        for n, pcm in enumerate(frames):
            self.sender.deliver(CapturedFrame(pcm, at + n * FRAME_SECONDS))
        return at + len(frames) * FRAME_SECONDS


def speech(frames: int) -> list[PcmFrame]:
    return [frame.copy() for frame in clip(MAN)[8000:][: FRAME * frames].reshape(-1, FRAME)]


def test_packets_carry_the_speech_20_ms_apart() -> None:
    line = Line()
    said = speech(50)
    line.say(said, 10.0)
    line.sender.deliver(None)
    assert [frame.timestamp for frame in line.sent] == [FRAME_TICKS * n for n in range(50)]
    assert line.sent[3].captured_at == 10.06
    assert {frame.encoded_at for frame in line.sent} == {99.0}
    assert line.ends == 1
    decoder = OpusDecoder()
    heard = np.concatenate([decoder.decode(frame.payload) for frame in line.sent])
    lag = line.encoder.lookahead
    assert np.corrcoef(heard[lag:], np.concatenate(said)[: len(heard) - lag])[0, 1] > 0.9
    assert line.sender.frames == 50
    assert line.sender.payload_bytes == sum(len(frame.payload) for frame in line.sent)


def test_frames_the_source_lost_leave_a_step_in_media_time() -> None:
    line = Line()
    at = line.say(speech(3), 0.0)
    line.say(speech(2), at + 0.200)
    assert [frame.timestamp // FRAME_TICKS for frame in line.sent] == [0, 1, 2, 13, 14]


def test_a_clock_that_drifts_or_jitters_leaves_none() -> None:
    line = Line()
    at = 0.0
    for n, pcm in enumerate(speech(100)):
        line.say([pcm], at + 0.015 * (n % 2))
        at += 0.0201
    assert [frame.timestamp // FRAME_TICKS for frame in line.sent] == [*range(100)]


def test_redundancy_changes_with_the_next_frame() -> None:
    line = Line(dred=DredEncoder())
    at = line.say(speech(40), 0.0)
    assert not any(packet_extensions(frame.payload) for frame in line.sent)
    line.sender.protect(PROTECTED)
    line.say(speech(60)[20:], at)
    before, after = line.sent[:40], line.sent[40:]
    assert not any(has_lbrr(frame.payload) for frame in before)
    assert any(has_lbrr(frame.payload) for frame in after[2:])
    assert all(packet_extensions(frame.payload) for frame in after)
    assert line.sender.dred_packets == len(after)
    assert line.encoder.bitrate == 20_000
    at_most = PROTECTED.dred_bytes + 8
    assert 0 < line.sender.dred_bytes <= at_most * len(after)


def dred_of(payload: bytes) -> bytes:
    (extension,) = packet_extensions(payload)
    return bytes(extension.payload)


def test_dred_keeps_the_time_of_frames_that_were_not_captured() -> None:
    said = speech(60)
    gap = 10
    stalled, silent = (Line(PROTECTED, dred=DredEncoder()) for _ in range(2))
    at = stalled.say(said[:40], 0.0)
    stalled.say(said[40:], at + gap * FRAME_SECONDS)
    silent.say([*said[:40], *([silent_frame()] * gap), *said[40:]], 0.0)
    assert [frame.timestamp for frame in stalled.sent[-20:]] == [
        frame.timestamp for frame in silent.sent[-20:]
    ]
    for one, other in zip(stalled.sent[-20:], silent.sent[-20:], strict=True):
        assert dred_of(one.payload) == dred_of(other.payload)


@pytest.mark.parametrize(
    ("origin", "expected"),
    [
        # 0.1 s past a marker
        (48_000 * 7 + 4800, [6400, 14_400]),
        # 0.2 s before timestamps wrap, and then on a grid from 0
        (2**32 - 9600, [3200, 11_200]),
    ],
)
def test_markers_lie_on_a_grid_of_the_time_on_the_wire(origin: int, expected: list[int]) -> None:
    line = Line(injector=MarkerInjector(MarkerGrid(0.5)), rtp_origin=origin)
    line.say([silent_frame()] * 48, 0.0)
    decoder = OpusDecoder()
    heard = np.concatenate([decoder.decode(frame.payload) for frame in line.sent])
    loud = np.flatnonzero(np.abs(heard.astype(int)) > 1000)
    begins = loud[np.diff(loud, prepend=-10_000) > 4000]
    assert np.allclose(begins, expected, atol=MARKER // 3)


def test_packets_repeat_the_ones_before_them_when_told_to() -> None:
    red = RedEncoder(111)
    line = Line(red=red)
    at = line.say(speech(3), 0.0)
    line.sender.protect(replace(PLAIN, red_copies=2))
    at = line.say(speech(4), at)
    line.sender.protect(PLAIN)
    line.say(speech(1), at)

    assert [frame.is_red for frame in line.sent] == [False] * 3 + [True] * 4 + [False]
    plain = [
        unpack_red(frame.payload, 111, n, frame.timestamp)[0] if frame.is_red else frame.payload
        for n, frame in enumerate(line.sent)
    ]
    for n in range(3, 7):
        _, copies = unpack_red(line.sent[n].payload, 111, n, line.sent[n].timestamp)
        assert [copy.payload for copy in copies] == [plain[n - 1], plain[n - 2]]
        assert [copy.timestamp for copy in copies] == [FRAME_TICKS * (n - 1), FRAME_TICKS * (n - 2)]
    assert line.sender.payload_bytes == sum(len(frame.payload) for frame in line.sent)
    assert line.sender.red_bytes == line.sender.payload_bytes - sum(map(len, plain))


def test_nothing_is_repeated_across_a_long_gap_in_capture() -> None:
    line = Line(replace(PLAIN, red_copies=1), red=RedEncoder(111))
    line.say(speech(2), 0.0)
    line.say(speech(2), 1.0)
    assert [frame.is_red for frame in line.sent] == [False, True, False, True]
