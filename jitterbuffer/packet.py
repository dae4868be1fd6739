"""What the jitter buffer takes in."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class MediaPacket:
    """One RTP packet of one 20 ms Opus frame. `payload` is kept as it is, not copied."""

    sequence: int
    """16 bit."""
    timestamp: int
    """32 bit, 48 kHz."""
    ssrc: int
    payload: bytes
    is_copy: bool = False
    """Whether it came as redundancy in a later packet (RFC 2198), under numbers of its own."""
