"""One sender's numbering and timing: extended numbers, frame slots, how fast packets are."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import deque
from dataclasses import dataclass

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

REFERENCE_PACKETS = 100
"""Arrivals that say how fast packets are: 2 s, long enough that a spike does not fill them."""
FASTER_PACKETS = 10
"""Of those, so many may be faster than the reference: packets that overtake the others on a
reordering path must not make all others late."""
FIRST_PACKETS = 50
"""Until so many have come, one may be faster: a start in the burst after a stall, where all but the
last are slow, must not be measured by the slow ones."""


class FastArrivals:
    """The relative delay (arrival - media time, seconds) that the fastest tenth of packets keeps.

    Of the last `REFERENCE_PACKETS` arrivals. Never the smallest, even of a few, so that no single
    packet can pull it down; of a single arrival, that.
    """

    def __init__(self, relative: float) -> None:
        self._recent = deque([relative])
        self._sorted = [relative]

    def add(self, relative: float) -> None:
        self._recent.append(relative)
        insort(self._sorted, relative)
        if len(self._recent) > REFERENCE_PACKETS:
            oldest = self._recent.popleft()
            del self._sorted[bisect_left(self._sorted, oldest)]

    @property
    def value(self) -> float:
        count = len(self._sorted)
        beyond_first = (count - FIRST_PACKETS) / (REFERENCE_PACKETS - FIRST_PACKETS)
        return self._sorted[min(max(1, int(FASTER_PACKETS * beyond_first)), count - 1)]


@dataclass(frozen=True, slots=True)
class Location:
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
        self._received = 1
        relative = arrival - packet.timestamp / RTP_CLOCK
        self._fastest = FastArrivals(relative)
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
        expected = round((arrival - self.fastest) * RTP_CLOCK)
        timestamp = unwrap_timestamp(packet.timestamp, expected)
        relative = arrival - timestamp / RTP_CLOCK
        if abs(relative - self.fastest) > self._max_delay:
            return None
        slot = (timestamp - self._origin + FRAME_TICKS // 2) // FRAME_TICKS
        sequence = unwrap_sequence(packet.sequence, self._highest)
        return Location(sequence, timestamp, slot, relative)

    def is_new(self, sequence: int) -> bool:
        """Whether this extended number has not been noted before."""
        behind = self._highest - sequence
        return behind < 0 or not self._received >> behind & 1

    def note(self, location: Location) -> None:
        """Takes in a packet that is new, other than the first."""
        ahead = location.sequence - self._highest
        if ahead > 0:
            self._highest = location.sequence
            self._received = (self._received << ahead | 1) & ((1 << (MAX_MISORDER + 1)) - 1)
        else:
            self._received |= 1 << -ahead
        self._fastest.add(location.relative)

    def restart_timing(self, location: Location) -> None:
        """Forgets how fast packets were; from now on `location` is the measure."""
        self._fastest = FastArrivals(location.relative)

    @property
    def fastest(self) -> float:
        """Relative delay of the fastest packets, seconds."""
        return self._fastest.value

    def timestamp(self, slot: int) -> int:
        """Extended RTP timestamp of a slot."""
        return self._origin + slot * FRAME_TICKS

    def due(self, instant: float) -> float:
        """The slot, with fraction, whose frame the fastest packets deliver at `instant`."""
        return ((instant - self.fastest) * RTP_CLOCK - self._origin) / FRAME_TICKS


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
