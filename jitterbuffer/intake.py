"""The arriving side: whose packet it is, where it belongs, and what it says about the network."""

from __future__ import annotations

from collections.abc import Set as AbstractSet

from codec.dred_packet import dred_size
from codec.frame import FrameSource
from codec.opus_packet import has_lbrr
from jitterbuffer.backlog import Backlog
from jitterbuffer.packet import MediaPacket
from jitterbuffer.reordering import Reordering
from jitterbuffer.stats import JitterBufferStats
from jitterbuffer.store import Carried, StoredPacket
from jitterbuffer.stream import Location, Stream, proves_source
from jitterbuffer.target import TargetDelay

DRY_FRAMES = 15
"""Frames in a row made without a packet, after which playout may be wrong about the time."""
LATE_RUN = 0.1
"""Seconds of late packets and none in time that then start it anew. After a stall the late ones
come in a burst shorter than this, with some in time at its end."""

FIRST_REACH = 10
"""Frames that DRED is taken to reach back until one has been read: 200 ms."""


def look_into(packet: MediaPacket) -> Carried:
    """What the packet says about frames before its own."""
    return Carried(lbrr=has_lbrr(packet.payload), dred=dred_size(packet.payload))


class Intake:
    """Puts packets into the backlog; follows the stream, changes of it, and the target delay."""

    def __init__(
        self,
        backlog: Backlog,
        stats: JitterBufferStats,
        *,
        max_delay: float,
        recovery: AbstractSet[FrameSource],
    ) -> None:
        self.stream: Stream | None = None
        self.adaptive: TargetDelay | None = None
        """What is told of each packet, if anything is."""
        self.reordering = Reordering()
        self.reach = FIRST_REACH
        """Frames that DRED reaches back, by the packet that was read last."""
        self.reached = 0
        """Frames that the packet that came last reaches back: 1 with LBRR alone."""
        self.dry = 0
        """Frames that playout has made without a packet, in a row."""
        self.new_source = False
        """Whether another source has followed; for playout to take back."""
        self._backlog = backlog
        self._stats = stats
        self._max_delay = max_delay
        self._recovery = recovery
        self._stray: tuple[MediaPacket, float] | None = None
        self._late_since = 0.0
        self._late_packets = 0

    def push(self, packet: MediaPacket, arrival: float, carries: Carried) -> None:
        """Takes in a packet, or a copy of one."""
        if packet.is_copy:
            self._push_copy(packet, arrival, carries)
        else:
            self._push(packet, arrival, carries)

    def _push(self, packet: MediaPacket, arrival: float, carries: Carried) -> None:
        stream = self.stream
        if stream is None:
            self._begin(packet, arrival, carries)
            return
        if stream.has_received(packet):
            self._stats.packets_duplicated += 1
            return
        location = stream.locate(packet, arrival)
        if location is None:
            self._probe(packet, arrival, carries)
            return
        self._stray = None
        stream.note(packet, location)
        self._follow(stream, location, carries)
        self._accept(packet, location, arrival, carries)

    def _push_copy(self, packet: MediaPacket, arrival: float, carries: Carried) -> None:
        """A copy fills its slot if that is empty, and says nothing about the network."""
        stream, backlog = self.stream, self._backlog
        location = stream.locate(packet, arrival) if stream is not None else None
        if stream is None or location is None or FrameSource.RED not in self._recovery:
            return
        self._stats.fec_packets_received += 1
        if self.adaptive is not None:
            late = location.relative - stream.reference
            self.adaptive.copy_arrived(location.sequence, late)
        slot = location.slot
        known = stream.has_received(packet) or slot in backlog.store
        if backlog.is_past(slot) or known or not backlog.make_room(slot):
            self._stats.fec_packets_discarded += 1
            return
        backlog.store.insert(
            StoredPacket(
                slot,
                location.sequence,
                location.timestamp,
                arrival,
                packet.payload,
                carries,
                is_copy=True,
            )
        )

    def _begin(self, packet: MediaPacket, arrival: float, carries: Carried) -> None:
        self.stream = Stream(packet, arrival, self._max_delay)
        self.reordering = Reordering()
        if self.adaptive is not None:
            self.adaptive.renumber()
        self._follow(self.stream, self.stream.first, carries)
        self._accept(packet, self.stream.first, arrival, carries)

    def _follow(self, stream: Stream, location: Location, carries: Carried) -> None:
        """Lets the target delay, and what is still waited for, follow the network."""
        self.reordering.arrived(location.slot)
        lbrr = carries.lbrr and FrameSource.LBRR in self._recovery
        dred = self.reach if carries.dred and FrameSource.DRED in self._recovery else 0
        self.reached = max(int(lbrr), dred)
        if self.adaptive is not None:
            self.adaptive.arrived(
                location.sequence,
                location.relative,
                stream.reference,
                lbrr=lbrr,
                dred_frames=dred,
            )

    def _probe(self, packet: MediaPacket, arrival: float, carries: Carried) -> None:
        """A packet that does not fit: the second that fits the first begins a new source."""
        self._stats.packets_stray += 1
        stray, self._stray = self._stray, (packet, arrival)
        if stray is None or not proves_source(stray, self._stray, self._max_delay):
            return
        self._stats.packets_stray -= 2
        self._stats.source_changes += 1
        self._backlog.clear()
        self._stray = None
        self.new_source = True
        first, first_arrival = stray
        self._begin(first, first_arrival, look_into(first))
        self._push(packet, arrival, carries)

    def _accept(
        self, packet: MediaPacket, location: Location, arrival: float, carries: Carried
    ) -> None:
        slot, backlog = location.slot, self._backlog
        stored = StoredPacket(
            slot, location.sequence, location.timestamp, arrival, packet.payload, carries
        )
        self._stats.fec_packets_received += any(carries)
        self._stats.dred_packets_received += carries.dred > 0
        self._stats.dred_bytes_received += carries.dred
        if backlog.is_past(slot):
            waits = len(backlog.store) or backlog.is_overtaken(slot)
            if waits or not self._is_late_for_good(arrival):
                self._stats.packets_late += 1
                backlog.leave_behind([stored])
                backlog.discard([stored])
                return
            assert self.stream is not None
            self.stream.restart_timing(self._late_packets)
            self._stats.resyncs += 1
            backlog.position = None
        held = backlog.store.get(slot)
        if held is not None and held.is_copy:
            backlog.discard([backlog.store.remove(slot)])
        elif held is not None or not backlog.make_room(slot):
            backlog.discard([stored])
            return
        backlog.store.insert(stored)

    def _is_late_for_good(self, arrival: float) -> bool:
        """Whether playout has long run ahead of all that comes; asked once for each late packet."""
        if self.dry < DRY_FRAMES:
            self._late_packets = 0
            return False
        if not self._late_packets:
            self._late_since = arrival
        self._late_packets += 1
        return arrival - self._late_since >= LATE_RUN
