"""Packets that have arrived and not been played, by frame slot."""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from dataclasses import dataclass
from typing import NamedTuple

from codec import FRAME_TICKS


class Carried(NamedTuple):
    """What a packet says about frames before its own."""

    lbrr: bool
    """The one frame before it."""
    dred: int
    """Bytes of Deep REDundancy of our kind."""


@dataclass(slots=True)
class StoredPacket:
    """A packet in its slot, with what a recovery plan needs to know of it."""

    slot: int
    """Number of its 20 ms frame since the stream's first packet."""
    sequence: int
    """Extended: it does not wrap."""
    timestamp: int
    """Extended, 48 kHz."""
    arrival: float
    payload: bytes
    carries: Carried
    redundancy_used: bool = False
    is_copy: bool = False
    dred_span: tuple[int, int] | None = None
    """Timestamps of the oldest and the newest frame that its DRED describes; None: not read yet."""

    @property
    def redundancy_wasted(self) -> bool:
        """Whether it carries redundancy that no frame was made from."""
        return any(self.carries) and not self.redundancy_used

    def describes(self, slot: int) -> bool:
        """Whether its DRED, as far as it has been read, says what the frame in `slot` was."""
        if not self.carries.dred:
            return False
        if self.dred_span is None:
            return True
        oldest, newest = self.dred_span
        return oldest <= self.timestamp - (self.slot - slot) * FRAME_TICKS <= newest


class PacketStore:
    """At most one packet per slot, in order of slots; who inserts bounds the range of slots."""

    def __init__(self) -> None:
        self._packets: dict[int, StoredPacket] = {}
        self._slots: list[int] = []

    def __len__(self) -> int:
        return len(self._slots)

    def __contains__(self, slot: int) -> bool:
        return slot in self._packets

    def insert(self, packet: StoredPacket) -> None:
        assert packet.slot not in self._packets
        self._packets[packet.slot] = packet
        insort(self._slots, packet.slot)

    def remove(self, slot: int) -> StoredPacket:
        self._slots.remove(slot)
        return self._packets.pop(slot)

    def get(self, slot: int) -> StoredPacket | None:
        return self._packets.get(slot)

    def first(self) -> StoredPacket | None:
        return self._packets[self._slots[0]] if self._slots else None

    def last(self) -> StoredPacket | None:
        return self._packets[self._slots[-1]] if self._slots else None

    def after(self, slot: int) -> StoredPacket | None:
        """The next packet behind `slot`."""
        index = bisect_right(self._slots, slot)
        return self._packets[self._slots[index]] if index < len(self._slots) else None

    def take_before(self, slot: int) -> list[StoredPacket]:
        """Removes and gives all packets in front of `slot`, in order."""
        if not self._slots or self._slots[0] >= slot:
            return []
        index = bisect_left(self._slots, slot)
        taken = [self._packets.pop(s) for s in self._slots[:index]]
        del self._slots[:index]
        return taken

    def take_all(self) -> list[StoredPacket]:
        """Removes and gives everything, in order."""
        taken = [self._packets[s] for s in self._slots]
        self._packets.clear()
        self._slots.clear()
        return taken
