"""The jitter buffer: packets in as they arrive, one frame plan out per 20 ms of playout."""

from __future__ import annotations

import math
import threading
from collections.abc import Set as AbstractSet
from dataclasses import replace

from codec import FRAME, FRAME_SECONDS
from codec.dred_packet import dred_size
from codec.frame import FramePlan, FrameSource
from codec.opus_packet import has_lbrr
from jitterbuffer.packet import MediaPacket
from jitterbuffer.plan import Decision, Predecessor, decide
from jitterbuffer.stats import JitterBufferStats
from jitterbuffer.store import Carried, PacketStore, StoredPacket
from jitterbuffer.stream import Location, Stream, proves_source

RECOVERY = frozenset({FrameSource.RED, FrameSource.LBRR, FrameSource.DRED, FrameSource.PLC})

LONGEST_MAX_DELAY = 60.0
"""Seconds. Bounds the memory of a buffer to some 6000 packets."""
SPARE_SLOTS = 10
"""Room for playout that lags behind its target by what is not yet corrected."""
SKIP_AT_ONCE = 6.0
"""Frames of excess delay that are left out in one go: a stalled sink, a fast route after a slow."""
INSERT_BELOW = -0.5
"""Frames of excess delay, below which a hole is played once more: half way down from 0, so that the
next frame left out is half a frame off."""
SHED_WHEN_SETTLED = 2.0
"""Frames of excess delay that cost a spoken frame; less waits for a pause or a hole."""
SETTLING = 2.0
"""Seconds from the start of playout in which one frame of excess is enough."""
SHED_INTERVAL = 0.2
"""Seconds between spoken frames that are left out."""
DRY_FRAMES = 15
"""Frames in a row made without a packet, after which playout may be wrong about the time."""
LATE_RUN = 0.1
"""Seconds of late packets and none in time that then start it anew. After a stall the late ones
come in a burst shorter than this, with some in time at its end."""
CONCEAL_FRAMES = 50
"""Frames of concealment in a row, after which there is silence: 1 s."""

_EARLY = 1e-3
"""Frames. Instants on a grid of 20 ms are equal only to within rounding."""


class JitterBuffer:
    """A buffer of a fixed delay, in seconds: what the fastest packets wait from arrival to playout.

    `push` may be called from one thread (the event loop) and `pull` from another (playout): both
    hold a lock for a bounded search among at most `max_delay` of packets, and never decode.

    `recovery` says which of RED, LBRR, DRED and PLC may fill holes. Raises ValueError when a delay
    is out of range or `recovery` names another source.
    """

    def __init__(
        self,
        *,
        target_delay: float,
        max_delay: float = 2.0,
        recovery: AbstractSet[FrameSource] = RECOVERY,
    ) -> None:
        if not FRAME_SECONDS <= max_delay <= LONGEST_MAX_DELAY:
            raise ValueError(
                f"max_delay {max_delay} s is not in {FRAME_SECONDS}..{LONGEST_MAX_DELAY}"
            )
        if not recovery <= RECOVERY:
            raise ValueError(f"cannot recover by {', '.join(sorted(recovery - RECOVERY))}")
        self._max_delay = max_delay
        self.target_delay = target_delay
        self._recovery = frozenset(recovery)
        self._capacity = round(2 * max_delay / FRAME_SECONDS) + SPARE_SLOTS
        self._lock = threading.Lock()
        self._stats = JitterBufferStats()
        self._store = PacketStore()
        self._stream: Stream | None = None
        self._stray: tuple[MediaPacket, float] | None = None
        self._position: int | None = None
        """The next slot to be played; None while playout waits for its start."""
        self._before: Predecessor | None = None
        self._has_played = False
        self._new_source = False
        self._started = 0.0
        self._last_shed = 0.0
        self._dry = 0
        self._late_since = 0.0
        self._late_packets = 0
        self._concealed_run = 0

    @property
    def target_delay(self) -> float:
        """Seconds. May be set at any time; playout comes to it as after a disturbance."""
        return self._target_delay

    @target_delay.setter
    def target_delay(self, value: float) -> None:
        if not 0.0 <= value <= self._max_delay:
            raise ValueError(f"target_delay {value} s is not in 0..{self._max_delay}")
        self._target_delay = value

    def push(self, packet: MediaPacket, arrival: float) -> None:
        """Takes in a packet that arrived at `arrival` (seconds, the clock of `pull`).

        The packet that brought a copy is pushed before it.
        """
        carries = self._look_into(packet)
        with self._lock:
            if packet.is_copy:
                self._push_copy(packet, arrival, carries)
            else:
                self._push(packet, arrival, carries)

    def pull(self, playout_at: float) -> FramePlan:
        """What to play in the 20 ms from `playout_at` on. Call it once for each frame, in order."""
        with self._lock:
            decision, slot = self._next(playout_at)
            return self._plan(decision, slot, playout_at)

    def on_time(self, near: float) -> float | None:
        """The instant nearest to `near` at which a frame is due to the very target delay.

        None before the first packet. For sinks that may choose their beat.
        """
        with self._lock:
            if self._stream is None:
                return None
            due = self._stream.due(near, self._target_delay)
        return near + (round(due) - due) * FRAME_SECONDS

    @property
    def stats(self) -> JitterBufferStats:
        """A copy of the counters."""
        with self._lock:
            return replace(self._stats, frames=dict(self._stats.frames))

    def __len__(self) -> int:
        """Packets held."""
        with self._lock:
            return len(self._store)

    # Arrival

    @staticmethod
    def _look_into(packet: MediaPacket) -> Carried:
        return Carried(lbrr=has_lbrr(packet.payload), dred=dred_size(packet.payload))

    def _push(self, packet: MediaPacket, arrival: float, carries: Carried) -> None:
        stream = self._stream
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
        self._accept(packet, location, arrival, carries)

    def _push_copy(self, packet: MediaPacket, arrival: float, carries: Carried) -> None:
        """A copy fills its slot if that is empty, and says nothing about the network."""
        stream = self._stream
        location = stream.locate(packet, arrival) if stream is not None else None
        if stream is None or location is None or FrameSource.RED not in self._recovery:
            return
        self._stats.fec_packets_received += 1
        slot = location.slot
        overtaken = self._before is not None and slot <= self._before.slot
        past = overtaken or (self._position is not None and slot < self._position)
        known = stream.has_received(packet) or slot in self._store
        if past or known or not self._make_room(slot):
            self._stats.fec_packets_discarded += 1
            return
        self._store.insert(
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
        self._stream = Stream(packet, arrival, self._max_delay)
        self._accept(packet, self._stream.first, arrival, carries)

    def _probe(self, packet: MediaPacket, arrival: float, carries: Carried) -> None:
        """A packet that does not fit: the second that fits the first begins a new source."""
        self._stats.packets_stray += 1
        stray, self._stray = self._stray, (packet, arrival)
        if stray is None or not proves_source(stray, self._stray, self._max_delay):
            return
        self._stats.packets_stray -= 2
        self._stats.source_changes += 1
        self._discard(self._store.take_all())
        self._stray = self._position = self._before = None
        self._new_source = True
        first, first_arrival = stray
        self._begin(first, first_arrival, self._look_into(first))
        self._push(packet, arrival, carries)

    def _accept(
        self, packet: MediaPacket, location: Location, arrival: float, carries: Carried
    ) -> None:
        slot = location.slot
        stored = StoredPacket(
            slot, location.sequence, location.timestamp, arrival, packet.payload, carries
        )
        self._stats.fec_packets_received += any(carries)
        self._stats.dred_packets_received += carries.dred > 0
        self._stats.dred_bytes_received += carries.dred
        overtaken = self._before is not None and slot <= self._before.slot
        if overtaken or (self._position is not None and slot < self._position):
            if overtaken or len(self._store) or not self._is_late_for_good(arrival):
                self._stats.packets_late += 1
                self._pass([stored])
                self._discard([stored])
                return
            assert self._stream is not None
            self._stream.restart_timing(self._late_packets)
            self._stats.resyncs += 1
            self._position = None
        held = self._store.get(slot)
        if held is not None and held.is_copy:
            self._discard([self._store.remove(slot)])
        elif held is not None or not self._make_room(slot):
            self._discard([stored])
            return
        self._store.insert(stored)

    def _is_late_for_good(self, arrival: float) -> bool:
        """Whether playout has long run ahead of all that comes; asked once for each late packet."""
        if self._dry < DRY_FRAMES:
            self._late_packets = 0
            return False
        if not self._late_packets:
            self._late_since = arrival
        self._late_packets += 1
        return arrival - self._late_since >= LATE_RUN

    def _make_room(self, slot: int) -> bool:
        """Keeps the span of the store within bounds; the newest stay. False: `slot` is too old."""
        oldest = slot - self._capacity + 1
        last = self._store.last()
        if self._position is None:
            if last is not None and slot <= last.slot - self._capacity:
                return False
        elif oldest > self._position:
            self._position = oldest
        self._skip_to(oldest)
        return True

    # Playout

    def _next(self, playout_at: float) -> tuple[Decision, int | None]:
        """The decision for this pull and the slot it is for; None before playout has started."""
        if self._position is None and not self._start(playout_at):
            return Decision(FrameSource.SILENCE), None
        assert self._position is not None
        excess = self._excess(playout_at)
        if excess >= SKIP_AT_ONCE:
            self._shed(int(excess))
            excess -= int(excess)
        decision = self._decide()
        while excess >= 1.0 - _EARLY and (decision.is_free or self._may_shed(excess, playout_at)):
            if not decision.is_free:
                self._last_shed = playout_at
            self._shed(1)
            excess -= 1.0
            decision = self._decide()
        slot = self._position
        if decision.is_free and excess <= INSERT_BELOW:
            self._stats.inserted_samples_for_deceleration += FRAME
        else:
            self._position += 1
        return decision, slot

    def _start(self, playout_at: float) -> bool:
        """Whether the first packet, or one behind it, is due; if so, playout starts there."""
        first = self._store.first()
        if first is None:
            return False
        assert self._stream is not None
        due = math.floor(self._stream.due(playout_at, self._target_delay) + _EARLY)
        if due < first.slot:
            return False
        # Packets faster than the first have moved the start: what is late by them is left out.
        self._skip_to(due)
        self._position = due
        self._started = self._last_shed = playout_at
        self._has_played = True
        self._dry = 0
        return True

    def _excess(self, playout_at: float) -> float:
        """Frames by which the fastest packets wait longer than the target; 0 to 1 is right."""
        assert self._stream is not None
        assert self._position is not None
        return self._stream.due(playout_at, self._target_delay) - self._position

    def _may_shed(self, excess: float, playout_at: float) -> bool:
        """Whether it is time to leave out a frame although it is spoken."""
        if playout_at - self._last_shed < SHED_INTERVAL:
            return False
        settling = playout_at - self._started < SETTLING
        return excess >= (1.0 if settling else SHED_WHEN_SETTLED) - _EARLY

    def _shed(self, frames: int) -> None:
        assert self._position is not None
        self._position += frames
        self._skip_to(self._position)
        self._stats.removed_samples_for_acceleration += frames * FRAME

    def _decide(self) -> Decision:
        assert self._position is not None
        return decide(self._position, self._store, self._before, self._recovery)

    def _plan(self, decision: Decision, slot: int | None, playout_at: float) -> FramePlan:
        """Keeps the books of `decision` and puts it into words."""
        source, packet = decision.source, decision.packet
        if source is FrameSource.PLC and self._concealed_run >= CONCEAL_FRAMES:
            source = FrameSource.SILENCE
        concealed = packet is None and not decision.is_pause and self._has_played
        self._concealed_run = self._concealed_run + 1 if concealed else 0
        self._stats.count_frame(source, concealed=concealed, received=self._has_played)
        self._dry = 0 if packet is not None else self._dry + 1
        if packet is None or slot is None:
            return FramePlan(source, self._timestamp(slot))
        timestamp = self._timestamp(slot)
        if source in (FrameSource.PACKET, FrameSource.RED):
            timestamp = packet.timestamp
            if source is FrameSource.PACKET:
                self._stats.count_delay(playout_at - packet.arrival, self._target_delay)
            played = self._store.take_before(slot + 1)
            self._pass(played)
            self._stats.fec_packets_discarded += sum(p.redundancy_wasted for p in played)
        else:
            packet.redundancy_used = True
        new_source, self._new_source = self._new_source, False
        return FramePlan(
            source, timestamp, packet.payload, packet.arrival, packet.slot - slot, new_source
        )

    def _timestamp(self, slot: int | None) -> int:
        """Extended timestamp of a slot, or of the first packet; 0 before there is one."""
        if self._stream is None:
            return 0
        if slot is None:
            first = self._store.first()
            slot = first.slot if first is not None else 0
        return self._stream.timestamp(slot)

    def _skip_to(self, slot: int) -> None:
        """Gives up everything in front of `slot`."""
        skipped = self._store.take_before(slot)
        self._pass(skipped)
        self._discard(skipped)

    def _pass(self, packets: list[StoredPacket]) -> None:
        """Playout has left these behind, played or not."""
        for packet in packets:
            if self._before is None or packet.slot > self._before.slot:
                self._before = Predecessor.of(packet)

    def _discard(self, packets: list[StoredPacket]) -> None:
        """Counts packets that are never played."""
        self._stats.packets_discarded += sum(not p.is_copy for p in packets)
        self._stats.fec_packets_discarded += sum(p.is_copy or p.redundancy_wasted for p in packets)
