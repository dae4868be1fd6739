"""The jitter buffer: packets in as they arrive, one frame plan out per 20 ms of playout."""

from __future__ import annotations

import math
import threading
from collections.abc import Set as AbstractSet
from dataclasses import replace

from codec import FRAME, FRAME_SECONDS, FRAME_TICKS
from codec.dred_packet import dred_size
from codec.frame import FramePlan, FrameSource, HoleAction
from codec.opus_packet import has_lbrr
from jitterbuffer.latency import LatencyPolicy
from jitterbuffer.pace import EARLY, Pace
from jitterbuffer.packet import MediaPacket
from jitterbuffer.plan import Decision, HolePlan, Predecessor, decide, plan_hole
from jitterbuffer.stats import JitterBufferStats
from jitterbuffer.store import Carried, PacketStore, StoredPacket
from jitterbuffer.stream import Location, Stream, proves_source
from jitterbuffer.target import TargetDelay

RECOVERY = frozenset({FrameSource.RED, FrameSource.LBRR, FrameSource.DRED, FrameSource.PLC})

LONGEST_MAX_DELAY = 60.0
"""Seconds. Bounds the memory of a buffer to some 6000 packets."""
SPARE_SLOTS = 10
"""Room for playout that lags behind its target by what is not yet corrected."""
DRY_FRAMES = 15
"""Frames in a row made without a packet, after which playout may be wrong about the time."""
LATE_RUN = 0.1
"""Seconds of late packets and none in time that then start it anew. After a stall the late ones
come in a burst shorter than this, with some in time at its end."""
CONCEAL_FRAMES = 50
"""Frames of concealment in a row, after which there is silence: 1 s."""

FIRST_REACH = 10
"""Frames that DRED is taken to reach back until one has been read: 200 ms."""


class JitterBuffer:
    """A buffer of a fixed or an adaptive delay: what the fastest packets wait before playout.

    `target_delay` is that delay in seconds, or the policy by which it is chosen and by which holes
    are waited for. `push` may be called from one thread (the event loop) and `pull` from another
    (playout): both hold a lock for a bounded search among at most `max_delay` of packets, and never
    decode.

    `recovery` says which of RED, LBRR, DRED and PLC may fill holes. Raises ValueError when a delay
    is out of range or `recovery` names another source.
    """

    def __init__(
        self,
        *,
        target_delay: float | LatencyPolicy,
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
        self._adaptive: TargetDelay | None = None
        self._pace = Pace()
        if isinstance(target_delay, LatencyPolicy):
            self._adaptive = TargetDelay(target_delay)
            self._pace = Pace(target_delay.hold)
            target_delay = self._adaptive.seconds
        self._fixed = self._checked(target_delay)
        self._reach = FIRST_REACH
        """Frames that DRED reaches back, by the packet that was read last."""
        self._reached = 0
        """The same of the packet that came last: 0 without DRED."""
        self._recovery = frozenset(recovery)
        self._capacity = round(2 * max_delay / FRAME_SECONDS) + SPARE_SLOTS
        self._lock = threading.Lock()
        self._stats = JitterBufferStats()
        self._store = PacketStore()
        self._stream: Stream | None = None
        self._stray: tuple[MediaPacket, float] | None = None
        self._position: int | None = None
        """The next slot to be played; None while playout waits for its start."""
        self._expected: int | None = None
        """The slot after the last that was played: what lies between has been left out."""
        self._before: Predecessor | None = None
        self._has_played = False
        self._new_source = False
        self._excess: float | None = None
        self._dry = 0
        self._late_since = 0.0
        self._late_packets = 0
        self._concealed_run = 0

    @property
    def target_delay(self) -> float:
        """Seconds. May be set at any time, which makes it fixed; playout comes to it as after a
        disturbance."""
        return self._adaptive.seconds if self._adaptive is not None else self._fixed

    @target_delay.setter
    def target_delay(self, value: float) -> None:
        self._fixed = self._checked(value)
        if self._adaptive is not None:
            self._adaptive = None
            self._pace = Pace()

    def _checked(self, target: float) -> float:
        if not 0.0 <= target <= self._max_delay:
            raise ValueError(f"target_delay {target} s is not in 0..{self._max_delay}")
        return target

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

    def pull(self, playout_at: float, *, queued: float | None = None) -> FramePlan:
        """What to play next, in the 20 ms from `playout_at` on. Call it in order of playout.

        A caller that stretches time may call it less or more often than every 20 ms. It says how
        many seconds of sound it still has, that are heard before this frame; then no spoken frame
        is left out to make up for delay, see `excess`.
        """
        with self._lock:
            decision, slot, action, left_out = self._next(playout_at, queued is not None)
            plan = self._plan(decision, slot, playout_at + (queued or 0.0))
            return replace(plan, action=action, left_out=left_out)

    @property
    def excess(self) -> float | None:
        """Frames by which playout lay behind the target delay when it was last asked for one.

        None before the start. To be brought between 0 and 1, by stretching time.
        """
        return self._excess

    @property
    def raise_below(self) -> float:
        """The excess, negative, from which on playout is to be slowed down."""
        return self._pace.raise_below

    def has_next(self) -> bool:
        """Whether the next frame's own packet, or a copy of it, is here."""
        with self._lock:
            return self._position is not None and self._position in self._store

    def hole(self) -> HolePlan | None:
        """The plan for the first hole at or ahead of playout, None if there is none."""
        with self._lock:
            if self._position is None:
                return None
            return plan_hole(self._position, self._store, self._before, self._recovery)

    def learn_span(self, packet: StoredPacket, span: tuple[int, int]) -> None:
        """Takes in which frames, by timestamp, the DRED of a packet of `hole` describes."""
        with self._lock:
            packet.dred_span = span
            self._reach = max(0, (packet.timestamp - span[0]) // FRAME_TICKS)

    def count_stretch(self, samples: int) -> None:
        """The caller has put so many samples in, or taken them out if negative."""
        with self._lock:
            self._stats.inserted_samples_for_deceleration += max(0, samples)
            self._stats.removed_samples_for_acceleration += max(0, -samples)

    def on_time(self, near: float) -> float | None:
        """The instant nearest to `near` at which a frame is due to the very target delay.

        None before the first packet. For sinks that may choose their beat.
        """
        with self._lock:
            if self._stream is None:
                return None
            due = self._due(near)
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
        self._follow(location, carries)
        self._accept(packet, location, arrival, carries)

    def _push_copy(self, packet: MediaPacket, arrival: float, carries: Carried) -> None:
        """A copy fills its slot if that is empty, and says nothing about the network."""
        stream = self._stream
        location = stream.locate(packet, arrival) if stream is not None else None
        if stream is None or location is None or FrameSource.RED not in self._recovery:
            return
        self._stats.fec_packets_received += 1
        if self._adaptive is not None:
            late = location.relative - stream.reference
            self._adaptive.copy_arrived(location.sequence, late)
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
        if self._adaptive is not None:
            self._adaptive.renumber()
        self._follow(self._stream.first, carries)
        self._accept(packet, self._stream.first, arrival, carries)

    def _follow(self, location: Location, carries: Carried) -> None:
        """Lets the target delay follow the network."""
        reaches = bool(carries.dred) and FrameSource.DRED in self._recovery
        self._reached = self._reach if reaches else 0
        if self._adaptive is None:
            return
        assert self._stream is not None
        self._adaptive.arrived(
            location.sequence,
            location.relative,
            self._stream.reference,
            lbrr=carries.lbrr and FrameSource.LBRR in self._recovery,
            dred_frames=self._reached,
        )

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

    def _next(
        self, playout_at: float, stretched: bool
    ) -> tuple[Decision, int | None, HoleAction, int]:
        """What to play, the slot it is for, what that means in a hole, and frames left out.

        No slot before playout has started.
        """
        if self._position is None and not self._start(playout_at):
            self._excess = self._expected = None
            return Decision(FrameSource.SILENCE), None, HoleAction.NONE, 0
        assert self._position is not None
        excess = self._due(playout_at) - self._position
        skipped = self._pace.skips(excess)
        if skipped:
            self._shed(skipped)
            excess -= skipped
        decision = self._decide()
        while self._pace.leaves_out(
            decision, excess, playout_at, is_open=self._is_open(), stretched=stretched
        ):
            self._shed(1)
            excess -= 1.0
            decision = self._decide()
        self._excess = excess
        slot = self._position
        waits = self._pace.waits(decision, excess, is_open=self._is_open(), reach=self._reached)
        if waits:
            self._stats.inserted_samples_for_deceleration += FRAME
            if not decision.is_free:
                decision = Decision(self._concealment)
        else:
            self._position += 1
        action = self._pace.played(decision.source, waited=waits, is_pause=decision.is_pause)
        left_out = 0 if self._expected is None else slot - self._expected
        self._expected = self._position
        return decision, slot, action, left_out

    @property
    def _concealment(self) -> FrameSource:
        return FrameSource.PLC if FrameSource.PLC in self._recovery else FrameSource.SILENCE

    def _is_open(self) -> bool:
        """Whether nothing has come of what is behind the next frame."""
        assert self._position is not None
        return self._store.after(self._position) is None

    def _start(self, playout_at: float) -> bool:
        """Whether the first packet, or one behind it, is due; if so, playout starts there."""
        first = self._store.first()
        if first is None:
            return False
        due = math.floor(self._due(playout_at) + EARLY)
        if due < first.slot:
            return False
        # Packets faster than the first have moved the start: what is late by them is left out.
        self._skip_to(due)
        self._position = due
        self._pace.start(playout_at)
        self._expected = None
        self._has_played = True
        self._dry = 0
        return True

    def _due(self, instant: float) -> float:
        """The slot, with fraction, to be played then."""
        assert self._stream is not None
        fixed = self._adaptive is None
        return self._stream.due(instant, self.target_delay, in_time=fixed)

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
                self._stats.count_delay(playout_at - packet.arrival, self.target_delay)
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
