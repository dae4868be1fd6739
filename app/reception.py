"""From received media to the jitter buffer, and to the beat of playout."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from app.net.rtp import RtpReceived
from jitterbuffer import JitterBuffer, MediaPacket

BEAT_PACKETS = (1, 50)
"""After so many packets playout is aligned: the first says when about, fifty how fast they are."""

BEAT_INTERVAL = 250
"""Packets, 5 s, after which what has become of the beat is looked at again."""

BEAT_MARGIN = 0.5e-3
"""Seconds behind the exact instant: what comes a little late must not wait a whole frame."""


def media_packets(received: RtpReceived) -> Iterable[MediaPacket]:
    """What the jitter buffer takes in of it, in that order."""
    ssrc = received.ssrc
    packet = MediaPacket(received.sequence, received.timestamp, ssrc, received.payload)
    if not received.copies:
        return (packet,)
    return packet, *(
        MediaPacket(copy.sequence, copy.timestamp, ssrc, copy.payload, is_copy=True)
        for copy in received.copies
    )


class Reception:
    """Puts packets into the buffer; `align` is that of the sink that plays from it.

    With `keeps_beat` the sink has a clock of its own once it has begun, as a device has.
    """

    def __init__(
        self, buffer: JitterBuffer, align: Callable[[float], None], *, keeps_beat: bool = False
    ) -> None:
        self._buffer = buffer
        self._align = align
        self._keeps_beat = keeps_beat
        self._packets = 0

    def take(self, received: RtpReceived) -> None:
        """One packet of the peer's, on arrival, and the earlier ones that it repeats."""
        for packet in media_packets(received):
            self._buffer.push(packet, received.arrival)
        self._put_on_beat(received.arrival)

    def _put_on_beat(self, arrival: float) -> None:
        """Playout of a sink that may choose falls just behind the target delay."""
        self._packets += 1
        beat = None
        if self._packets in BEAT_PACKETS:
            beat = self._buffer.on_time(arrival + self._buffer.target_delay)
        elif self._packets % BEAT_INTERVAL == 0 and not self._keeps_beat:
            beat = self._buffer.better_beat()
        if beat is not None:
            self._align(beat + BEAT_MARGIN)
