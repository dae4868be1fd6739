"""The sending side of a call: captured frames in, Opus payloads with media timestamps out."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from app.audio.base import CapturedFrame, silent_frame
from app.marker import MarkerInjector
from app.meter import LevelMeter
from app.net.red import RedEncoder
from app.redundancy import Redundancy
from codec import FRAME_SECONDS, FRAME_TICKS, RTP_CLOCK, SAMPLE_RATE
from codec.dred import DredEncoder, attach_dred
from codec.frame import PcmFrame
from codec.opus import OpusEncoder
from jitterbuffer.plan import DRED_REACH

RESYNC = 3 * FRAME_SECONDS
"""Seconds. Capture this much later than expected means lost frames, not a drifting clock."""

TICKS_PER_SAMPLE = RTP_CLOCK // SAMPLE_RATE


class EncodedFrame(NamedTuple):
    payload: bytes
    timestamp: int
    """Ticks of 48 kHz since the first frame."""
    captured_at: float
    encoded_at: float
    """Monotonic instant at which the payload was ready, in seconds."""
    is_red: bool = False
    """Whether the payload repeats packets before it (RFC 2198)."""


class Sender:
    """Encodes on the source's thread and gives each frame to `emit`, which must not block.

    `ended` is called once, when the source has no more frames.
    """

    def __init__(
        self,
        encoder: OpusEncoder,
        emit: Callable[[EncodedFrame], None],
        ended: Callable[[], None],
        clock: Callable[[], float],
        redundancy: Redundancy,
        dred: DredEncoder | None = None,
        red: RedEncoder | None = None,
        injector: MarkerInjector | None = None,
        rtp_origin: int = 0,
    ) -> None:
        """`rtp_origin` is the RTP timestamp of media time 0: markers lie on a grid of RTP time."""
        self._encoder = encoder
        self._emit = emit
        self._ended = ended
        self._clock = clock
        self._injector = injector
        self._rtp_origin = rtp_origin
        self._next_timestamp = 0
        self._expected_at: float | None = None
        self._redundancy = redundancy
        self._adapted_to = redundancy
        self._dred = dred
        self._red = red
        self.meter = LevelMeter()
        self.frames = 0
        self.payload_bytes = 0
        """Opus and all redundancy."""
        self.dred_bytes = 0
        """By which DRED made packets larger."""
        self.dred_packets = 0
        """Packets sent with DRED."""
        self.red_bytes = 0
        """By which copies made packets larger."""

    def protect(self, redundancy: Redundancy) -> None:
        """How much redundancy to send, from the next frame on. Any thread."""
        self._redundancy = redundancy

    def deliver(self, frame: CapturedFrame | None) -> None:
        """Next 20 ms from the source, or None at its end. Source's thread."""
        if frame is None:
            self._ended()
            return
        self._adapt()
        self._skip_lost_capture(frame.captured_at)
        pcm = frame.pcm
        if self._injector:
            # the time on the wire, which wraps: the peer may never have seen the one before
            wire = (self._rtp_origin + self._next_timestamp) & 0xFFFF_FFFF
            pcm = self._injector.mix(pcm, wire // TICKS_PER_SAMPLE)
        self.meter.update(pcm)
        packet = self._encode(pcm)
        payload = self._repeat(packet)
        self.frames += 1
        self.payload_bytes += len(payload)
        self._emit(
            EncodedFrame(
                payload,
                self._next_timestamp,
                frame.captured_at,
                self._clock(),
                is_red=payload is not packet,
            )
        )
        self._next_timestamp += FRAME_TICKS

    def _adapt(self) -> None:
        wanted = self._redundancy
        if wanted is not self._adapted_to:
            self._adapted_to = wanted
            self._encoder.expected_loss = wanted.expected_loss_percent
            self._encoder.lbrr = wanted.lbrr
            self._encoder.bitrate = wanted.opus_bitrate

    def _encode(self, pcm: PcmFrame) -> bytes:
        """The Opus packet of a frame, with DRED about the frames before it in its padding."""
        packet = self._encoder.encode(pcm)
        if self._dred is None:
            return packet
        self._dred.push(pcm)
        if not self._adapted_to.dred_ms:
            return packet
        about = self._dred.payload(
            max_ms=self._adapted_to.dred_ms, max_bytes=self._adapted_to.dred_bytes
        )
        protected = attach_dred(packet, about)
        self.dred_packets += bool(about)
        self.dred_bytes += len(protected) - len(packet)
        return protected

    def _repeat(self, packet: bytes) -> bytes:
        """The packet, with those before it if they are to be repeated."""
        if self._red is None:
            return packet
        repeated = self._red.protect(packet, self._next_timestamp, self._adapted_to.red_copies)
        if repeated is None:
            return packet
        self.red_bytes += len(repeated) - len(packet)
        return repeated

    def _skip_lost_capture(self, captured_at: float) -> None:
        """Media time follows capture: frames the source lost leave a step in the timestamps."""
        if self._expected_at is not None:
            gap = captured_at - self._expected_at
            if gap > RESYNC:
                frames = round(gap / FRAME_SECONDS)
                self._next_timestamp += frames * FRAME_TICKS
                if self._dred:
                    # DRED counts back from now: what was not captured takes its place as silence
                    for _ in range(min(frames, DRED_REACH)):
                        self._dred.push(silent_frame())
        self._expected_at = captured_at + FRAME_SECONDS
