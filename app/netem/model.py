"""An impaired link: what becomes of each packet, and when it arrives. No sockets, no clock.

The order of operations is that of Linux's sch_netem: duplication, loss, corruption, limit, then
reordering or delay and rate. A copy goes through all but duplication on its own.
"""

from __future__ import annotations

from dataclasses import dataclass
from heapq import heappop, heappush
from random import Random
from typing import NamedTuple

from app.netem.distributions import CorrelatedRandom, derive_seed, deviation
from app.netem.loss import loss_process
from app.netem.spec import Chance, NetemSpec
from app.netem.trace import LossTrace


class Delivery(NamedTuple):
    """A packet that leaves the link at the instant `at`, in the seconds of the caller's clock."""

    at: float
    data: bytes


@dataclass(slots=True)
class NetemCounters:
    """What the link has done, in packets."""

    offered: int = 0
    delivered: int = 0
    lost: int = 0
    """By the model or the trace, copies included."""
    duplicated: int = 0
    corrupted: int = 0
    reordered: int = 0
    """Sent at once while others wait."""
    overflowed: int = 0
    """Dropped because `limit` packets were waiting."""


class Netem:
    """One direction of a link, deterministic under `seed`.

    Each kind of event draws from random numbers of its own, so that adding a delay, say, leaves
    the losses where they were. A packet is lost when the spec or `trace` says so; the trace has
    one entry per call of `process` and does not count copies. At most `spec.limit` instants are
    kept in memory.
    """

    def __init__(self, spec: NetemSpec, *, seed: int, trace: LossTrace | None = None) -> None:
        self.spec = spec
        self.counters = NetemCounters()
        self._trace = trace
        self._lose = loss_process(spec.loss, derive_seed(seed, "loss"))
        self._duplicate = _Events(spec.duplicate, derive_seed(seed, "duplicate"))
        self._reorder = _Events(spec.reorder, derive_seed(seed, "reorder"))
        self._corrupt = _Events(spec.corrupt, derive_seed(seed, "corrupt"))
        self._bits = Random(derive_seed(seed, "bits"))
        correlation = spec.delay.correlation if spec.delay else 0.0
        self._jitter = CorrelatedRandom(derive_seed(seed, "delay"), correlation)
        self._delayed_since_reorder = 0
        self._link_free = float("-inf")
        self._waiting: list[float] = []

    def process(self, data: bytes, now: float) -> list[Delivery]:
        """The deliveries of a packet that enters at `now`: none, one, or two; the copy first."""
        index = self.counters.offered
        self.counters.offered += 1
        copies = 1
        if self._duplicate.happens():
            self.counters.duplicated += 1
            copies += 1
        # As in sch_netem a packet both doubled and lost arrives once; a trace takes both copies.
        if self._lose():
            self.counters.lost += 1
            copies -= 1
        if self._trace is not None and self._trace[index]:
            self.counters.lost += copies
            copies = 0
        if not copies:
            return []
        original = self._damaged(data)
        if self._is_full(now):
            self.counters.overflowed += copies
            return []
        deliveries = []
        if copies == 2:
            if self._lose():
                self.counters.lost += 1
            elif not self._is_full(now, room_for=2):
                deliveries.append(self._send(self._damaged(data), now))
            else:
                self.counters.overflowed += 1
        deliveries.append(self._send(original, now))
        self.counters.delivered += len(deliveries)
        return deliveries

    def _is_full(self, now: float, room_for: int = 1) -> bool:
        while self._waiting and self._waiting[0] <= now:
            heappop(self._waiting)
        return len(self._waiting) + room_for > self.spec.limit

    def _damaged(self, data: bytes) -> bytes:
        """`data`, with one bit flipped if its turn has come."""
        if not self._corrupt.happens() or not data:
            return data
        self.counters.corrupted += 1
        bit = self._bits.randrange(8 * len(data))
        damaged = bytearray(data)
        damaged[bit // 8] ^= 1 << bit % 8
        return bytes(damaged)

    def _send(self, data: bytes, now: float) -> Delivery:
        if self._jumps_the_queue():
            self.counters.reordered += 1
            self._delayed_since_reorder = 0
            return Delivery(now, data)
        self._delayed_since_reorder += 1
        at = now + self._delay()
        rate = self.spec.rate
        if rate is not None:
            # The link sends one packet after the other, so that jitter does not reorder.
            at = max(at, self._link_free) + rate.seconds(len(data))
            self._link_free = at
        heappush(self._waiting, at)
        return Delivery(at, data)

    def _jumps_the_queue(self) -> bool:
        reorder = self.spec.reorder
        if reorder is None or self._delayed_since_reorder < reorder.gap - 1:
            return False
        return self._reorder.happens()

    def _delay(self) -> float:
        """Seconds; never negative, however wide the jitter."""
        delay = self.spec.delay
        if delay is None:
            return 0.0
        if not delay.jitter_ns:
            return delay.time_ns / 1e9
        shift = deviation(delay.distribution, self._jitter.next())
        return max(0.0, (delay.time_ns + delay.jitter_ns * shift) / 1e9)


class _Events:
    """Whether an option that may be absent strikes the next packet."""

    def __init__(self, chance: Chance | None, seed: int) -> None:
        self._probability = chance.probability if chance else 0.0
        self._numbers = CorrelatedRandom(seed, chance.correlation if chance else 0.0)

    def happens(self) -> bool:
        return self._probability > 0.0 and self._numbers.below(self._probability)
