"""The jitter buffer: packets in as they arrive, one frame plan out per 20 ms of playout."""

from __future__ import annotations

import math
import threading
from collections.abc import Set as AbstractSet
from dataclasses import replace

from codec import FRAME, FRAME_SECONDS, FRAME_TICKS
from codec.frame import FramePlan, FrameSource, HoleAction
from jitterbuffer.backlog import Backlog
from jitterbuffer.beat import Beat
from jitterbuffer.intake import Intake, look_into
from jitterbuffer.latency import LatencyPolicy
from jitterbuffer.pace import EARLY, Pace
from jitterbuffer.packet import MediaPacket
from jitterbuffer.plan import Decision, HolePlan, decide, plan_hole
from jitterbuffer.stats import JitterBufferStats
from jitterbuffer.store import StoredPacket
from jitterbuffer.target import TargetDelay

RECOVERY = frozenset({FrameSource.RED, FrameSource.LBRR, FrameSource.DRED, FrameSource.PLC})

LONGEST_MAX_DELAY = 60.0
"""Seconds. Bounds the memory of a buffer to some 6000 packets."""
SPARE_SLOTS = 10
"""Room for playout that lags behind its target by what is not yet corrected."""
CONCEAL_FRAMES = 50
"""Frames of concealment in a row, after which there is silence: 1 s."""


class JitterBuffer:
    """A buffer of a fixed or an adaptive delay: what the fastest packets wait before playout.

    `target_delay` is that delay in seconds, or the policy by which it is chosen and by which holes
    are waited for. `push` may be called from one thread (the event loop) and `pull` from another
    (playout): both hold a lock for a bounded search among at most `max_delay` of packets, and never
    decode.

    `notice` is how long before a frame is heard it is asked for, in seconds: an adaptive delay
    takes that into account. `recovery` says which of RED, LBRR, DRED and PLC may fill holes. Raises
    ValueError when a delay is out of range or `recovery` names another source.
    """

    def __init__(
        self,
        *,
        target_delay: float | LatencyPolicy,
        max_delay: float = 2.0,
        notice: float = 0.0,
        recovery: AbstractSet[FrameSource] = RECOVERY,
    ) -> None:
        if not FRAME_SECONDS <= max_delay <= LONGEST_MAX_DELAY:
            raise ValueError(
                f"max_delay {max_delay} s is not in {FRAME_SECONDS}..{LONGEST_MAX_DELAY}"
            )
        if not recovery <= RECOVERY:
            raise ValueError(f"cannot recover by {', '.join(sorted(recovery - RECOVERY))}")
        self._max_delay = max_delay
        self._recovery = frozenset(recovery)
        self._lock = threading.Lock()
        self._stats = JitterBufferStats()
        self._backlog = Backlog(round(2 * max_delay / FRAME_SECONDS) + SPARE_SLOTS, self._stats)
        self._intake = Intake(
            self._backlog, self._stats, max_delay=max_delay, recovery=self._recovery
        )
        self._pace = Pace()
        if isinstance(target_delay, LatencyPolicy):
            self._intake.adaptive = TargetDelay(target_delay, notice)
            self._pace = Pace(target_delay.hold)
            target_delay = self._intake.adaptive.seconds
        self._fixed = self._checked(target_delay)
        self._expected: int | None = None
        """The slot after the last that was played: what lies between has been left out."""
        self._has_played = False
        self._excess: float | None = None
        self._beat = Beat()
        self._concealed_run = 0

    @property
    def target_delay(self) -> float:
        """Seconds. May be set at any time, which makes it fixed; playout comes to it as after a
        disturbance."""
        adaptive = self._intake.adaptive
        return adaptive.seconds if adaptive is not None else self._fixed

    @target_delay.setter
    def target_delay(self, value: float) -> None:
        self._fixed = self._checked(value)
        if self._intake.adaptive is not None:
            self._intake.adaptive = None
            self._pace = Pace()

    def _checked(self, target: float) -> float:
        if not 0.0 <= target <= self._max_delay:
            raise ValueError(f"target_delay {target} s is not in 0..{self._max_delay}")
        return target

    def push(self, packet: MediaPacket, arrival: float) -> None:
        """Takes in a packet that arrived at `arrival` (seconds, the clock of `pull`).

        The packet that brought a copy is pushed before it.
        """
        carries = look_into(packet)
        with self._lock:
            self._intake.push(packet, arrival, carries)

    def pull(self, playout_at: float, *, queued: float | None = None) -> FramePlan:
        """What to play next, in the 20 ms from `playout_at` on. Call it in order of playout.

        A caller that stretches time may call it less or more often than every 20 ms. It says how
        many seconds of sound it still has, that are heard before this frame; then no spoken frame
        is left out to make up for delay, see `excess`.
        """
        with self._lock:
            decision, slot, action, left_out = self._next(playout_at, queued is not None)
            return self._plan(decision, slot, playout_at + (queued or 0.0), action, left_out)

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

    def has_next(self, frames: int = 1) -> bool:
        """Whether the own packets of the next frames, or copies of them, are here."""
        with self._lock:
            position, store = self._backlog.position, self._backlog.store
            return position is not None and all(position + k in store for k in range(frames))

    def is_settled(self) -> bool:
        """Whether nothing that is likely still to come would change what is played next.

        Its packet is here; or it is behind its time, by what the network did lately, and so is all
        that lies between it and the packet that brings it back. After concealment, which one packet
        alone may not be reason enough to leave, something behind must have come as well.
        """
        with self._lock:
            position, store = self._backlog.position, self._backlog.store
            if position is None or (self._concealed_run and self._backlog.is_open()):
                return False
            if position in store:
                return True
            packet = self._decide().packet
            return packet is not None and self._intake.reordering.is_over(packet.slot - 1)

    def hole(self) -> HolePlan | None:
        """The plan for the first hole at or ahead of playout, None if there is none."""
        with self._lock:
            if self._backlog.position is None:
                return None
            return plan_hole(
                self._backlog.position, self._backlog.store, self._backlog.before, self._recovery
            )

    def learn_span(self, packet: StoredPacket, span: tuple[int, int]) -> None:
        """Takes in which frames, by timestamp, the DRED of a packet of `hole` describes."""
        with self._lock:
            packet.dred_span = span
            self._intake.reach = max(0, (packet.timestamp - span[0]) // FRAME_TICKS)

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
            if self._intake.stream is None:
                return None
            due = self._due(near)
        return near + (round(due) - due) * FRAME_SECONDS

    def better_beat(self) -> float | None:
        """An instant at which frames had better begin, or whole frames from it.

        None if they lay at the target, at times at least, since this was last asked: what a hiccup
        of the machine or of the network has left behind, a sink that may choose its beat takes out
        without a trace.
        """
        with self._lock:
            return self._beat.better()

    @property
    def stats(self) -> JitterBufferStats:
        """A copy of the counters."""
        with self._lock:
            return replace(self._stats, frames=dict(self._stats.frames))

    def __len__(self) -> int:
        """Packets held."""
        with self._lock:
            return len(self._backlog.store)

    # Playout

    def _next(
        self, playout_at: float, stretched: bool
    ) -> tuple[Decision, int | None, HoleAction, int]:
        """What to play, the slot it is for, what that means in a hole, and frames left out.

        No slot before playout has started.
        """
        if self._backlog.position is None and not self._start(playout_at):
            self._excess = self._expected = None
            return Decision(FrameSource.SILENCE), None, HoleAction.NONE, 0
        assert self._backlog.position is not None
        excess = self._due(playout_at) - self._backlog.position
        skipped = self._pace.skips(excess)
        if skipped:
            self._shed(skipped)
            excess -= skipped
        decision = self._decide()
        while self._pace.leaves_out(
            decision, excess, playout_at, is_open=self._backlog.is_open(), stretched=stretched
        ):
            self._shed(1)
            excess -= 1.0
            decision = self._decide()
        self._excess = excess
        self._beat.note(excess, playout_at)
        slot = self._backlog.position
        is_open = self._backlog.is_open()
        longest = self._longest_wait() if is_open else 0.0
        waits = self._pace.waits(decision, excess, is_open=is_open, longest=longest)
        if waits:
            self._stats.inserted_samples_for_deceleration += FRAME
            if not decision.is_free:
                decision = Decision(self._concealment)
        else:
            self._backlog.position += 1
        action = self._pace.played(decision.source, waited=waits, is_pause=decision.is_pause)
        left_out = 0 if self._expected is None else slot - self._expected
        self._expected = self._backlog.position
        return decision, slot, action, left_out

    def _longest_wait(self) -> float:
        """Frames: what is late comes after all, what is lost comes back in another packet.

        Without redundancy, waiting for what is lost would bring nothing.
        """
        adaptive, hold = self._intake.adaptive, self._pace.hold
        if hold and adaptive is not None and adaptive.comes_late(hold * FRAME_SECONDS):
            return hold
        return self._intake.reached

    @property
    def _concealment(self) -> FrameSource:
        return FrameSource.PLC if FrameSource.PLC in self._recovery else FrameSource.SILENCE

    def _start(self, playout_at: float) -> bool:
        """Whether the first packet, or one behind it, is due; if so, playout starts there."""
        first = self._backlog.store.first()
        if first is None:
            return False
        due = math.floor(self._due(playout_at) + EARLY)
        if due < first.slot:
            return False
        # Packets faster than the first have moved the start: what is late by them is left out.
        self._backlog.skip_to(due)
        self._backlog.position = due
        self._pace.start(playout_at)
        self._expected = None
        self._has_played = True
        self._intake.dry = 0
        return True

    def _due(self, instant: float) -> float:
        """The slot, with fraction, to be played then."""
        assert self._intake.stream is not None
        fixed = self._intake.adaptive is None
        return self._intake.stream.due(instant, self.target_delay, in_time=fixed)

    def _shed(self, frames: int) -> None:
        assert self._backlog.position is not None
        self._backlog.position += frames
        self._backlog.skip_to(self._backlog.position)
        self._stats.removed_samples_for_acceleration += frames * FRAME

    def _decide(self) -> Decision:
        assert self._backlog.position is not None
        return decide(
            self._backlog.position, self._backlog.store, self._backlog.before, self._recovery
        )

    def _plan(
        self,
        decision: Decision,
        slot: int | None,
        playout_at: float,
        action: HoleAction,
        left_out: int,
    ) -> FramePlan:
        """Keeps the books of `decision` and puts it into words."""
        source, packet = decision.source, decision.packet
        if source is FrameSource.PLC and self._concealed_run >= CONCEAL_FRAMES:
            source = FrameSource.SILENCE
        concealed = packet is None and not decision.is_pause and self._has_played
        self._concealed_run = self._concealed_run + 1 if concealed else 0
        self._stats.count_frame(source, concealed=concealed, received=self._has_played)
        self._intake.dry = 0 if packet is not None else self._intake.dry + 1
        if packet is None or slot is None:
            return FramePlan(source, self._timestamp(slot), action=action, left_out=left_out)
        timestamp = self._timestamp(slot)
        if source in (FrameSource.PACKET, FrameSource.RED):
            timestamp = packet.timestamp
            if source is FrameSource.PACKET:
                self._stats.count_delay(playout_at - packet.arrival, self.target_delay)
            played = self._backlog.store.take_before(slot + 1)
            self._backlog.leave_behind(played)
            self._stats.fec_packets_discarded += sum(p.redundancy_wasted for p in played)
        else:
            packet.redundancy_used = True
        new_source, self._intake.new_source = self._intake.new_source, False
        return FramePlan(
            source,
            timestamp,
            packet.payload,
            packet.arrival,
            packet.slot - slot,
            new_source,
            action,
            left_out,
        )

    def _timestamp(self, slot: int | None) -> int:
        """Extended timestamp of a slot, or of the first packet; 0 before there is one."""
        if self._intake.stream is None:
            return 0
        if slot is None:
            first = self._backlog.store.first()
            slot = first.slot if first is not None else 0
        return self._intake.stream.timestamp(slot)
