"""The recovery ladder: what one frame of playout is made from, given what has arrived."""

from __future__ import annotations

from collections.abc import Set as AbstractSet
from dataclasses import dataclass

from codec.frame import FrameSource
from jitterbuffer.store import PacketStore, StoredPacket

DRED_REACH = 52
"""Frames that a packet's DRED can reach back at most, 1.04 s
(draft-ietf-mlcodec-opus-dred)."""

DTX_BYTES = 2
"""An Opus packet of at most so many bytes announces that the sender falls silent (libopus; RFC
6716, section 3.1)."""


@dataclass(frozen=True, slots=True)
class Predecessor:
    """The last packet known in front of a frame: what tells silence from loss."""

    slot: int
    sequence: int
    announces_silence: bool

    @classmethod
    def of(cls, packet: StoredPacket) -> Predecessor:
        return cls(packet.slot, packet.sequence, len(packet.payload) <= DTX_BYTES)


@dataclass(frozen=True, slots=True)
class Decision:
    """How to make a frame, and from which packet."""

    source: FrameSource
    packet: StoredPacket | None = None
    is_pause: bool = False
    """Whether the sender sent nothing: silence that is right, no concealment."""

    @property
    def is_free(self) -> bool:
        """Whether this frame carries no speech of the sender's: it may be left out or repeated."""
        return self.packet is None


def decide(
    slot: int,
    store: PacketStore,
    before: Predecessor | None,
    allowed: AbstractSet[FrameSource],
) -> Decision:
    """The best way to the frame in `slot`, of those `allowed`.

    The packet itself, or a copy of it; silence if the sender sent none; the LBRR of the packet
    that follows; the DRED of the nearest packet behind that describes it, which knows it best; then
    concealment. A frame that cannot be concealed either is silence.
    """
    packet = store.get(slot)
    if packet is not None:
        return Decision(FrameSource.RED if packet.is_copy else FrameSource.PACKET, packet)
    following = store.after(slot)
    if _was_never_sent(before, following):
        return Decision(FrameSource.SILENCE, is_pause=True)
    if (
        FrameSource.LBRR in allowed
        and following is not None
        and following.slot == slot + 1
        and following.carries.lbrr
    ):
        return Decision(FrameSource.LBRR, following)
    if FrameSource.DRED in allowed:
        while following is not None and following.slot - slot <= DRED_REACH:
            if following.describes(slot):
                return Decision(FrameSource.DRED, following)
            following = store.after(following.slot)
    if FrameSource.PLC in allowed:
        return Decision(FrameSource.PLC)
    return Decision(FrameSource.SILENCE)


@dataclass(frozen=True, slots=True)
class HolePlan:
    """What is to become of the first hole at or ahead of playout, by what has arrived."""

    past: range
    """Slots of the hole whose time is over."""
    steps: tuple[tuple[int, Decision], ...]
    """How each of the others would be made now, oldest first, up to the next packet."""

    def views(self) -> list[StoredPacket]:
        """Packets whose DRED the steps build on, the one behind the hole first."""
        packets = {
            d.packet.slot: d.packet
            for _, d in self.steps
            if d.source is FrameSource.DRED and d.packet
        }
        return [packets[slot] for slot in sorted(packets)]


def plan_hole(
    position: int,
    store: PacketStore,
    before: Predecessor | None,
    allowed: AbstractSet[FrameSource],
) -> HolePlan | None:
    """The plan for the hole at `position`, or else for the first one behind it.

    None if there is no hole in front of the newest packet.
    """
    last = store.last()
    if last is None or last.slot - position + 1 <= len(store):
        return None
    first = position
    while (packet := store.get(first)) is not None:
        before, first = Predecessor.of(packet), first + 1
    past = range(before.slot + 1 if before is not None else position, position)
    steps = []
    slot = first
    while slot not in store:
        steps.append((slot, decide(slot, store, before, allowed)))
        slot += 1
    return HolePlan(past if first == position else range(0), tuple(steps))


def _was_never_sent(before: Predecessor | None, following: StoredPacket | None) -> bool:
    """Whether a gap is a pause: the timestamp steps, the sequence does not (RFC 7587, 4.1).

    As long as nothing has followed, the sender's announcement must do.
    """
    if before is None:
        return False
    if following is None:
        return before.announces_silence
    return following.sequence == before.sequence + 1
