"""Whether packets are lost one by one or in bursts, after RFC 3611 section 4.7.2."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import exp

from codec import FRAME_SECONDS

GMIN = 16
"""So many packets in a row have to arrive for a burst to be over: the value the RFC recommends."""

REORDER_WINDOW = 8
"""Packets. One that is overtaken by as many counts as lost: 160 ms late, it is no longer heard."""
ALL_ARRIVED = (1 << REORDER_WINDOW) - 1
"""The undecided ones, one bit each, if all have come."""

MEMORY = 500
"""Packets, 10 s."""

FORGOTTEN = 0.05
"""Weight below which a burst is no longer reported, 30 s after a single one."""

PACKET_MS = 1e3 * FRAME_SECONDS


@dataclass(frozen=True, slots=True)
class BurstMetrics:
    """Loss of the recent past, divided into bursts and the gaps between them.

    A burst begins and ends with a lost packet and contains no 16 received in a row; a lone loss,
    with at least 16 received on either side, belongs to the gap.
    """

    loss_rate: float
    """0..1, of all packets."""
    burst_density: float
    """0..1, share of packets lost within bursts; 0 if there are none."""
    gap_density: float
    """0..1, share of packets lost within gaps."""
    burst_ms: float
    """Mean duration of a burst; 0 if there are none."""
    gap_ms: float
    """Mean duration of a gap, the present one included; 0 if there are none."""


@dataclass(slots=True)
class _Tally:
    """Decided packets in order. Sums are forgotten exponentially, except for what is still open."""

    decay: float
    """What a packet is still worth when the next comes."""
    burst_packets: float = 0.0
    burst_lost: float = 0.0
    gap_packets: float = 0.0
    gap_lost: float = 0.0
    bursts: float = 0.0
    burst_length: float = 0.0
    gaps: float = 0.0
    gap_length: float = 0.0
    clean: int = 0
    """Packets received since, that are not in the sums yet."""
    open_gap: int = 0
    """Packets since the latest burst."""
    span: int = 0
    """Packets from the first to the last loss that have not turned out a burst or a lone one."""
    lost: int = 0
    """Of those."""
    since: int = 0
    """Packets received after them, fewer than Gmin."""

    def receive(self) -> None:
        if not self.lost:
            self.clean += 1
            return
        self.since += 1
        if self.since == GMIN:
            self.settle()

    def lose(self, count: int) -> None:
        """`count` packets in a row, 1 and more."""
        self._add_clean()
        self.span += self.since + count
        self.lost += count
        self.since = 0

    def settle(self) -> None:
        """No further loss joins the open ones."""
        self._add_clean()
        if self.lost > 1:
            weight = self._age(self.span)
            self.burst_packets += weight
            self.burst_lost += weight * self.lost / self.span
            self.bursts += 1
            self.burst_length += self.span
            if self.open_gap:
                self.gaps += 1
                self.gap_length += self.open_gap
                self.open_gap = 0
        elif self.lost:
            self._prolong_gap(1, 1)
        self._prolong_gap(self.since, 0)
        self.span = self.lost = self.since = 0

    def _add_clean(self) -> None:
        """Only once there is something to tell them from: mostly nothing is lost for long."""
        if self.clean:
            self._prolong_gap(self.clean, 0)
            self.clean = 0

    def _prolong_gap(self, packets: int, lost: int) -> None:
        weight = self._age(packets)
        self.gap_packets += weight
        self.gap_lost += lost
        self.open_gap += packets

    def _age(self, packets: int) -> float:
        """Makes all that was before worth less; returns the worth of the packets themselves."""
        factor = self.decay**packets
        self.burst_packets *= factor
        self.burst_lost *= factor
        self.gap_packets *= factor
        self.gap_lost *= factor
        self.bursts *= factor
        self.burst_length *= factor
        self.gaps *= factor
        self.gap_length *= factor
        return (1 - factor) / (1 - self.decay)


class BurstMeter:
    """Follows one stream by its sequence numbers. Constant memory, constant time per packet.

    A packet is decided, received or lost, when the highest number is `REORDER_WINDOW` ahead.
    What was `memory` packets ago counts 1/e of what happens now.
    """

    def __init__(self, memory: float = MEMORY) -> None:
        self._tally = _Tally(exp(-1 / memory))
        self._highest: int | None = None
        self._undecided = 0
        """How many numbers, the highest included, may still be filled."""
        self._arrived = 0
        """Bit i: whether the number i below the highest has come."""

    def update(self, sequence: int) -> None:
        """A packet has come, `sequence` extended by the count of wraps. Duplicates do no harm."""
        if self._arrived == ALL_ARRIVED and sequence - 1 == self._highest:  # as nearly always
            self._highest = sequence
            self._tally.receive()
            return
        if self._highest is None:
            self._highest, self._undecided, self._arrived = sequence, 1, 1
            return
        ahead = sequence - self._highest
        if ahead <= 0:
            if -ahead < self._undecided:
                self._arrived |= 1 << -ahead
            return
        undecided = self._undecided + ahead
        self._decide(undecided - REORDER_WINDOW)
        self._highest = sequence
        self._undecided = min(undecided, REORDER_WINDOW)
        self._arrived = (self._arrived << ahead | 1) & ALL_ARRIVED if ahead < REORDER_WINDOW else 1

    def _decide(self, count: int) -> None:
        """The oldest `count` numbers; what is beyond the undecided ones has not come either."""
        for index in range(self._undecided - 1, max(-1, self._undecided - 1 - count), -1):
            if self._arrived >> index & 1:
                self._tally.receive()
            else:
                self._tally.lose(1)
        if count > self._undecided:
            self._tally.lose(count - self._undecided)

    def restart(self) -> None:
        """The sender counts anew: the next number follows none. What was counted remains."""
        self._decide(self._undecided)
        self._highest = None
        self._undecided = self._arrived = 0

    def metrics(self) -> BurstMetrics | None:
        """Of the recent past up to the last decided packet; None before that.

        As the RFC has it, the stream counts as preceded and followed by packets that arrive: a
        burst that may still go on is reported as it is now.
        """
        now = replace(self._tally)
        now.settle()
        packets = now.burst_packets + now.gap_packets
        if not packets:
            return None
        recent = now.bursts > FORGOTTEN
        gaps = now.gaps + bool(now.open_gap)
        return BurstMetrics(
            loss_rate=min(1.0, (now.burst_lost + now.gap_lost) / packets),
            burst_density=min(1.0, now.burst_lost / now.burst_packets) if recent else 0.0,
            gap_density=min(1.0, now.gap_lost / now.gap_packets) if now.gap_packets else 0.0,
            burst_ms=PACKET_MS * now.burst_length / now.bursts if recent else 0.0,
            gap_ms=PACKET_MS * (now.gap_length + now.open_gap) / gaps if gaps else 0.0,
        )
