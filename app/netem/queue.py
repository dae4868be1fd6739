"""Packets on their way through an impaired link, until a caller's clock says they have arrived."""

from __future__ import annotations

from heapq import heappop, heappush
from itertools import count

from app.netem.model import Delivery, Netem


class InTransit:
    """Deliveries in order of arrival, those of one instant as they were put in."""

    def __init__(self) -> None:
        self._order = count()
        self._heap: list[tuple[float, int, Delivery]] = []

    def __len__(self) -> int:
        return len(self._heap)

    def put(self, delivery: Delivery) -> None:
        """One more is on its way."""
        heappush(self._heap, (delivery.at, next(self._order), delivery))

    def pop_due(self, now: float) -> list[Delivery]:
        """What has arrived by `now`, in order of arrival."""
        due = []
        while self._heap and self._heap[0][0] <= now:
            due.append(heappop(self._heap)[2])
        return due

    def next_due(self) -> float | None:
        """The instant at which the next packet arrives; None when nothing is on its way."""
        return self._heap[0][0] if self._heap else None


class NetemQueue(InTransit):
    """A `Netem` that keeps what is on its way. For one thread; the caller owns the clock.

    After each `push` and `pop_due`, sleep until `next_due()` and pop again. At most `spec.limit`
    packets are kept, even if nobody pops; those beyond are counted as overflowed.
    """

    def __init__(self, netem: Netem) -> None:
        super().__init__()
        self.netem = netem

    def push(self, data: bytes, now: float) -> None:
        """A packet enters the link at `now`."""
        for delivery in self.netem.process(data, now):
            if len(self) >= self.netem.spec.limit:
                self.netem.counters.overflowed += 1
                self.netem.counters.delivered -= 1
            else:
                self.put(delivery)
