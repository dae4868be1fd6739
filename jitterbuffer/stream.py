"""One sender's numbering and timing: extended numbers, frame slots, how fast packets are."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import deque
from typing import NamedTuple

from codec import FRAME_TICKS, RTP_CLOCK
from jitterbuffer.packet import MediaPacket
from jitterbuffer.sequence import seq_diff, ts_diff, unwrap_sequence, unwrap_timestamp

MAX_DROPOUT = 3000
"""Packets by which a sequence number may run ahead within one stream (RFC 3550, A.1)."""
MAX_MISORDER = 100
"""Packets by which it may lag behind (RFC 3550, A.1)."""
MAX_PROBATION_GAP = 10
"""Packets by which the two that prove a new source may be apart: RFC 3550 asks for 1, which heavy
loss would not grant for long."""
HISTORY = 128
"""Sequence numbers, a power of two above MAX_MISORDER, by which copies are known."""

REFERENCE_PACKETS = 100
"""Arrivals that say how fast packets are: 2 s, long enough that a spike does not fill them."""
FEW = 20
FAST_SHARE = 0.1
IN_TIME_SHARE = 0.75


class RecentDelays:
    """Relative delays (arrival - media time, seconds) of the last `REFERENCE_PACKETS` arrivals."""

    def __init__(self, relative: float) -> None:
        self._recent = deque([relative])
        self._sorted = [relative]

    def add(self, relative: float) -> None:
        self._recent.append(relative)
        insort(self._sorted, relative)
        if len(self._recent) > REFERENCE_PACKETS:
            oldest = self._recent.popleft()
            del self._sorted[bisect_left(self._sorted, oldest)]

    def keep_last(self, count: int) -> None:
        """Forgets all but the last `count`, at least 1."""
        while len(self._recent) > max(1, count):
            self._recent.popleft()
        self._sorted = sorted(self._recent)

    @property
    def fast(self) -> float:
        """What the fastest tenth keeps. Never the smallest but of one, so that no single packet
        can pull it down."""
        count = len(self._sorted)
        return self._sorted[min(max(1, int(count * FAST_SHARE)), count - 1)]

    @property
    def fastest(self) -> float:
        """What all keep but two, which may be strays; one, while there are few. After a burst that
        ends a stall it is right at once."""
        return self._sorted[min(2 if len(self._sorted) > FEW else 1, len(self._sorted) - 1)]

    @property
    def slow(self) -> float:
        """What three quarters keep."""
        return self._sorted[int((len(self._sorted) - 1) * IN_TIME_SHARE)]


class Location(NamedTuple):
    """Where a packet lies in its stream."""

    sequence: int
    """Extended."""
    timestamp: int
    """Extended."""
    slot: int
    """Frames since the first packet, to the nearest."""
    relative: float
    """Arrival less media time, seconds."""


class Stream:
    """The numbering of one source, begun by its first packet."""

    def __init__(self, packet: MediaPacket, arrival: float, max_delay: float) -> None:
        self.ssrc = packet.ssrc
        self._max_delay = max_delay
        self._origin = packet.timestamp
        self._highest = packet.sequence
        self._history = {packet.sequence % HISTORY: (packet.sequence, packet.timestamp)}
        relative = arrival - packet.timestamp / RTP_CLOCK
        self._delays = RecentDelays(relative)
        self.first = Location(packet.sequence, packet.timestamp, 0, relative)

    def locate(self, packet: MediaPacket, arrival: float) -> Location | None:
        """Where `packet` belongs; None when it cannot be of this stream.

        It must have the SSRC, a sequence number within the bounds of RFC 3550, A.1, and a
        timestamp that fits the time of arrival to within `max_delay`. A timestamp is extended by
        the time of arrival, so that no pause is too long.
        """
        if packet.ssrc != self.ssrc:
            return None
        ahead = seq_diff(packet.sequence, self._highest)
        if not -MAX_MISORDER <= ahead <= MAX_DROPOUT:
            return None
        fast = self._delays.fast
        expected = round((arrival - fast) * RTP_CLOCK)
        timestamp = unwrap_timestamp(packet.timestamp, expected)
        relative = arrival - timestamp / RTP_CLOCK
        if abs(relative - fast) > self._max_delay:
            return None
        slot = (timestamp - self._origin + FRAME_TICKS // 2) // FRAME_TICKS
        sequence = unwrap_sequence(packet.sequence, self._highest)
        return Location(sequence, timestamp, slot, relative)

    def has_received(self, packet: MediaPacket) -> bool:
        """Whether `packet` is a copy of a recent one."""
        known = self._history.get(packet.sequence % HISTORY)
        return packet.ssrc == self.ssrc and known == (packet.sequence, packet.timestamp)

    def note(self, packet: MediaPacket, location: Location) -> None:
        """Takes in a packet that is new, other than the first."""
        self._highest = max(self._highest, location.sequence)
        self._history[packet.sequence % HISTORY] = (packet.sequence, packet.timestamp)
        self._delays.add(location.relative)

    def restart_timing(self, packets: int) -> None:
        """Forgets how fast packets were before the last so many."""
        self._delays.keep_last(packets)

    def timestamp(self, slot: int) -> int:
        """Extended RTP timestamp of a slot."""
        return self._origin + slot * FRAME_TICKS

    @property
    def reference(self) -> float:
        """Relative delay (arrival - media time, seconds) of the fastest packets."""
        return self._delays.fastest

    def due(self, instant: float, target: float, *, in_time: bool = True) -> float:
        """The slot, with fraction, to play at `instant` for the fastest packets to wait `target`.

        With `in_time` the fastest are a tenth, and at most a quarter of the packets is to be late:
        on a path where some overtake the others by more than the target, the fastest are no
        measure. Without, it is for the target to see to that.
        """
        offset = self._delays.fastest + target
        if in_time:
            offset = max(self._delays.fast + target, self._delays.slow)
        return ((instant - offset) * RTP_CLOCK - self._origin) / FRAME_TICKS


def proves_source(
    first: tuple[MediaPacket, float], second: tuple[MediaPacket, float], max_delay: float
) -> bool:
    """Whether two stray packets with their arrivals follow each other as one sender's would."""
    (a, a_arrival), (b, b_arrival) = first, second
    ahead = seq_diff(b.sequence, a.sequence)
    elapsed = ts_diff(b.timestamp, a.timestamp) / RTP_CLOCK
    return (
        a.ssrc == b.ssrc
        and 0 < abs(ahead) <= MAX_PROBATION_GAP
        and elapsed * ahead > 0
        and abs(b_arrival - a_arrival - elapsed) <= max_delay
    )
