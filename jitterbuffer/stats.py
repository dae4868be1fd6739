"""What a jitter buffer has done, under the names of W3C webrtc-stats."""

from __future__ import annotations

from dataclasses import dataclass, field

from codec import FRAME
from codec.frame import FrameSource


def _no_frames() -> dict[FrameSource, int]:
    return dict.fromkeys(FrameSource, 0)


@dataclass(slots=True)
class JitterBufferStats:
    """Cumulative counters; samples are of 16 kHz.

    Names that `webrtc()` lists are those of RTCInboundRtpStreamStats; the others are our own.
    """

    packets_discarded: int = 0
    """Never played because they came late or early, or were skipped over; no duplicates."""
    packets_late: int = 0
    """Those of `packets_discarded` whose playout had passed."""
    packets_duplicated: int = 0
    packets_stray: int = 0
    """Of another source, or of numbers that cannot be this one's, and not confirmed by a second."""
    fec_packets_received: int = 0
    """Media packets that carry LBRR or DRED, and copies of packets (RED)."""
    fec_packets_discarded: int = 0
    """Those that were not needed."""
    dred_packets_received: int = 0
    """Media packets that carry DRED of our kind."""
    dred_bytes_received: int = 0
    """By which it made them larger."""
    jitter_buffer_delay: float = 0.0
    """Seconds from arrival to playout, summed over emitted samples."""
    jitter_buffer_target_delay: float = 0.0
    """Seconds, summed likewise."""
    jitter_buffer_emitted_count: int = 0
    """Samples that came out of the buffer in packets of their own."""
    total_samples_received: int = 0
    """All samples since playout began, concealed ones and pauses included."""
    concealed_samples: int = 0
    """Made from no packet, holds included; what redundancy brings back is not among them."""
    silent_concealed_samples: int = 0
    concealment_events: int = 0
    """Runs of concealed samples."""
    inserted_samples_for_deceleration: int = 0
    """Played in addition: stretched sound, and concealment or silence that delays what follows."""
    removed_samples_for_acceleration: int = 0
    """Stretched sound and frames left out, to come back to the target delay."""
    resyncs: int = 0
    """How often playout was anchored anew within one source."""
    source_changes: int = 0
    frames: dict[FrameSource, int] = field(default_factory=_no_frames)
    """Plans given, by source; the decoder counts what became of them."""
    is_concealing: bool = False
    """Whether the last frame was concealed."""

    def count_frame(self, source: FrameSource, *, concealed: bool, received: bool) -> None:
        """One frame is planned; `received` once playout has begun. Call it in order of playout."""
        self.frames[source] += 1
        if received:
            self.total_samples_received += FRAME
        if concealed:
            self.concealment_events += not self.is_concealing
            self.concealed_samples += FRAME
            if source is FrameSource.SILENCE:
                self.silent_concealed_samples += FRAME
        self.is_concealing = concealed

    def count_delay(self, delay: float, target: float) -> None:
        """One frame leaves the buffer in its own packet, `delay` seconds after it arrived."""
        self.jitter_buffer_delay += delay * FRAME
        self.jitter_buffer_target_delay += target * FRAME
        self.jitter_buffer_emitted_count += FRAME

    def webrtc(self) -> dict[str, int | float]:
        """The counters that W3C webrtc-stats defines, under its names."""
        return {
            "packetsDiscarded": self.packets_discarded,
            "fecPacketsReceived": self.fec_packets_received,
            "fecPacketsDiscarded": self.fec_packets_discarded,
            "jitterBufferDelay": self.jitter_buffer_delay,
            "jitterBufferTargetDelay": self.jitter_buffer_target_delay,
            "jitterBufferEmittedCount": self.jitter_buffer_emitted_count,
            "totalSamplesReceived": self.total_samples_received,
            "concealedSamples": self.concealed_samples,
            "silentConcealedSamples": self.silent_concealed_samples,
            "concealmentEvents": self.concealment_events,
            "insertedSamplesForDeceleration": self.inserted_samples_for_deceleration,
            "removedSamplesForAcceleration": self.removed_samples_for_acceleration,
        }
