"""What has arrived and waits, and how far playout has come."""

from __future__ import annotations

from jitterbuffer.plan import Predecessor
from jitterbuffer.stats import JitterBufferStats
from jitterbuffer.store import PacketStore, StoredPacket


class Backlog:
    """Packets ahead of playout, at most `capacity` slots of them, and the last one behind it."""

    def __init__(self, capacity: int, stats: JitterBufferStats) -> None:
        self.store = PacketStore()
        self.position: int | None = None
        """The next slot to be played; None while playout waits for its start."""
        self.before: Predecessor | None = None
        self._capacity = capacity
        self._stats = stats

    def is_overtaken(self, slot: int) -> bool:
        """Whether playout has left a packet behind that belongs behind `slot`, or there."""
        return self.before is not None and slot <= self.before.slot

    def is_past(self, slot: int) -> bool:
        """Whether its time is over."""
        return self.is_overtaken(slot) or (self.position is not None and slot < self.position)

    def is_open(self) -> bool:
        """Whether nothing has come of what is behind the next frame."""
        assert self.position is not None
        return self.store.after(self.position) is None

    def make_room(self, slot: int) -> bool:
        """Keeps the span of the store within bounds; the newest stay. False: `slot` is too old."""
        oldest = slot - self._capacity + 1
        last = self.store.last()
        if self.position is None:
            if last is not None and slot <= last.slot - self._capacity:
                return False
        elif oldest > self.position:
            self.position = oldest
        self.skip_to(oldest)
        return True

    def skip_to(self, slot: int) -> None:
        """Gives up everything in front of `slot`."""
        skipped = self.store.take_before(slot)
        if skipped:
            self.leave_behind(skipped)
            self.discard(skipped)

    def clear(self) -> None:
        """Gives up everything: another source follows."""
        self.discard(self.store.take_all())
        self.position = self.before = None

    def leave_behind(self, packets: list[StoredPacket]) -> None:
        """Playout has passed these, played or not."""
        for packet in packets:
            if self.before is None or packet.slot > self.before.slot:
                self.before = Predecessor.of(packet)

    def discard(self, packets: list[StoredPacket]) -> None:
        """Counts packets that are never played."""
        self._stats.packets_discarded += sum(not p.is_copy for p in packets)
        self._stats.fec_packets_discarded += sum(p.is_copy or p.redundancy_wasted for p in packets)
