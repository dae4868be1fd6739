"""What is done for frames that are missing before they are due, from what has come by then."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from codec import FRAME_SECONDS, FRAME_TICKS
from codec.frame import FramePlan, FrameSource
from jitterbuffer.buffer import JitterBuffer
from jitterbuffer.plan import Decision, HolePlan
from jitterbuffer.store import StoredPacket

if TYPE_CHECKING:
    from codec.receiver import SpeechDecoder  # brings the networks' runtime, slow to load

FORESIGHT = 1.4 * FRAME_SECONDS
"""Seconds of target delay from which on the next packet is usually there when a frame is played."""
LATE = 2 * FRAME_SECONDS
"""Seconds behind the fastest at which a packet that has not come is rather lost than late."""

IN_CASE = 3
"""Until so many frames are ready, missing ones behind them are made in case they stay missing."""

READS = 2
"""Packets whose DRED is read per frame, at most: some 0.3 ms each."""


class Foresight:
    """Prepares a decoder for what a jitter buffer is going to ask it for, on the same thread."""

    def __init__(self, buffer: JitterBuffer, decoder: SpeechDecoder) -> None:
        self._buffer = buffer
        self._decoder = decoder

    def read_ahead(self) -> None:
        """Learns what the packets behind the next hole know of it, as the plan depends on that."""
        for _ in range(READS):
            hole = self._buffer.hole()
            unread = [v for v in hole.views() if v.dred_span is None] if hole else []
            if not unread:
                return
            view = unread[0]
            span = self._decoder.describes(view.payload, view.timestamp)
            self._buffer.learn_span(view, span)

    def run_networks(self) -> None:
        """Decodes what is known of the next hole, newest frame first."""
        hole = self._buffer.hole()
        for slot, decision in hole.steps if hole is not None else ():
            if decision.source is FrameSource.DRED and decision.packet is not None:
                packet = decision.packet
                oldest = _timestamp(packet, slot)
                self._decoder.prepare(packet.payload, packet.timestamp, oldest)
                return

    def rehearse(
        self, timestamp: int, ready: int, *, resumed: bool, most: int, last: bool
    ) -> Iterator[None]:
        """Lets the decoder say what comes after frame `timestamp` if it stays missing.

        That frame is the last that has been made; `ready` blocks wait to be heard; what was made
        last came as it was said (`resumed`), or not. `most` frames are made, one after the other;
        at the `last` look just the one that is due.
        """
        target = self._buffer.target_delay
        if target < FORESIGHT or self._buffer.has_next():
            return
        hole = self._buffer.hole()
        lost = 0 if last else min(IN_CASE, int((target - FORESIGHT - LATE) / FRAME_SECONDS + 1))
        if not ready:
            # with nothing behind it the first is more likely late than lost
            lost = max(lost, 1 if last or hole is not None or not resumed else 0)
        before = self._decoder.rehearsed
        if not before and resumed and not last and (lost > ready or not ready):
            self._expect_loss(_foreseen(hole, timestamp, 0))
        for after in range(lost - ready):
            known = self._decoder.rehearsed
            if len(known) < after or len(set(known).difference(before)) == most:
                return
            self._decoder.rehearse(_foreseen(hole, timestamp, after), after=after)
            if self._decoder.rehearsed != known:
                yield

    def _expect_loss(self, plan: FramePlan) -> None:
        """Lets the decoder get ready for a frame, if the vocoder is to say it."""
        if plan.source is FrameSource.DRED:
            self._decoder.expect_loss(plan)
        elif plan.source is FrameSource.PLC:
            self._decoder.expect_loss()


def _foreseen(hole: HolePlan | None, timestamp: int, after: int) -> FramePlan:
    """How a frame that is missing would be made from what is here now.

    It is the one that follows frame `timestamp`, or the one `after` so many. Behind the hole, where
    packets are, it is a guess, for when there is no time to decode them.
    """
    steps = hole.steps if hole is not None else ()
    slot, decision = steps[after] if after < len(steps) else (0, Decision(FrameSource.PLC))
    packet = decision.packet
    if packet is None:
        return FramePlan(decision.source, timestamp + (1 + after) * FRAME_TICKS)
    return FramePlan(
        decision.source,
        _timestamp(packet, slot),
        packet=packet.payload,
        distance=packet.slot - slot,
    )


def _timestamp(packet: StoredPacket, slot: int) -> int:
    """Of the frame in a slot, seen from a packet behind it."""
    return packet.timestamp - (packet.slot - slot) * FRAME_TICKS
