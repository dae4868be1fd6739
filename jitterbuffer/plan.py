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
    that follows; the DRED of the nearest packet behind that carries any, which knows this frame
    best; then concealment. A frame that cannot be concealed either is silence.
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
            if following.carries.dred:
                return Decision(FrameSource.DRED, following)
            following = store.after(following.slot)
    if FrameSource.PLC in allowed:
        return Decision(FrameSource.PLC)
    return Decision(FrameSource.SILENCE)


def _was_never_sent(before: Predecessor | None, following: StoredPacket | None) -> bool:
    """Whether a gap is a pause: the timestamp steps, the sequence does not (RFC 7587, 4.1).

    As long as nothing has followed, the sender's announcement must do.
    """
    if before is None:
        return False
    if following is None:
        return before.announces_silence
    return following.sequence == before.sequence + 1
