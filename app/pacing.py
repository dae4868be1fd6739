"""Ticking every 20 ms on absolute deadlines, and knowing how late one was."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from codec import FRAME_SECONDS

Clock = Callable[[], float]
"""An instant in seconds that never goes back, as `time.monotonic`."""

RESYNC_PERIODS = 5
"""A tick later than this many periods starts a new schedule: catching up on 100 ms of audio in a
burst serves nobody, and a suspended machine would owe thousands of ticks."""

KEPT_MISSES = 1000


class Distribution:
    """Quantiles of many durations in bounded memory: logarithmic buckets 5 % wide from 1 µs on.

    A quantile is the upper edge of its bucket, so at most 5 % too high; `max` is exact.
    """

    FLOOR = 1e-6
    STEP = math.log(1.05)
    BUCKETS = 400  # up to 5 minutes

    def __init__(self) -> None:
        self.count = 0
        self.max = 0.0
        self._buckets = [0] * self.BUCKETS

    def add(self, seconds: float) -> None:
        """Takes in one duration; a negative one counts as 0."""
        self.count += 1
        if seconds > self.max:
            self.max = seconds
        index = 0
        if seconds > self.FLOOR:
            index = min(self.BUCKETS - 1, math.ceil(math.log(seconds / self.FLOOR) / self.STEP))
        self._buckets[index] += 1

    def quantile(self, q: float) -> float:
        """The duration in seconds that a share `q` (0..1) does not exceed; 0 when empty."""
        wanted = q * self.count
        seen = 0
        for index, count in enumerate(self._buckets):
            seen += count
            if count and seen >= wanted:
                edge = self.FLOOR * math.exp(index * self.STEP) if index else 0.0
                return min(edge, self.max)
        return 0.0

    def summary_ms(self) -> dict[str, float]:
        """`{p50, p99, p999, max}` in milliseconds."""
        quantiles = {"p50": self.quantile(0.5), "p99": self.quantile(0.99)}
        quantiles |= {"p999": self.quantile(0.999), "max": self.max}
        return {name: round(1e3 * seconds, 3) for name, seconds in quantiles.items()}


@dataclass(frozen=True, slots=True)
class Miss:
    """One piece of work that was not done in time. Monotonic instants, in seconds."""

    due: float
    """When it could have begun at the earliest: the tick's nominal waking."""
    deadline: float
    finished: float


class Deadlines:
    """The account of work that had to be finished by certain instants.

    Written by one thread; the numbers may be read by any.
    """

    def __init__(self) -> None:
        self.total = 0
        self.missed = 0
        self.worst = 0.0
        """Seconds by which the worst miss overran its deadline; 0 when none was missed."""
        self.misses: deque[Miss] = deque(maxlen=KEPT_MISSES)
        """The latest misses, for telling what caused them."""
        self.busy = Distribution()
        """From the nominal waking to the end of the work, in seconds."""

    def record(self, due: float, deadline: float, finished: float) -> bool:
        """Accounts for one piece of work; True when it was in time."""
        self.total += 1
        self.busy.add(finished - due)
        if finished <= deadline:
            return True
        self.missed += 1
        self.worst = max(self.worst, finished - deadline)
        self.misses.append(Miss(due, deadline, finished))
        return False


class Pacer:
    """Wakes its thread `lead` seconds before each deadline, `period` apart, without drift.

        while running:
            deadline = pacer.wait()
            work()
            pacer.finished()

    A tick that comes late shortens the next wait, so the rate holds; one that comes later than
    `resync_after` periods moves the schedule instead, and `resyncs` and `skipped` count it.
    """

    def __init__(
        self,
        period: float = FRAME_SECONDS,
        *,
        lead: float = 0.0,
        resync_after: int = RESYNC_PERIODS,
        deadlines: Deadlines | None = None,
        clock: Clock = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        if period <= 0:
            raise ValueError(f"period {period} s is not positive")
        self.period = period
        self.lead = lead
        self.resyncs = 0
        """How often the schedule was moved."""
        self.skipped = 0.0
        """Seconds by which the schedule was moved, all in all."""
        self.lateness = Distribution()
        """From the nominal waking to the actual, in seconds."""
        self.deadlines = deadlines or Deadlines()
        self._resync_after = resync_after * period
        self._clock = clock
        self._sleep = sleep
        self._anchor: float | None = None
        self._align_to: float | None = None
        self._tick = 0
        self._due = self._deadline = 0.0

    def start(self, first_deadline: float | None = None) -> None:
        """Fixes the schedule; the first deadline is `lead` from now if not given.

        `wait` starts a pacer that was not started.
        """
        self._anchor = self._clock() + self.lead if first_deadline is None else first_deadline
        self._tick = 0

    def align(self, instant: float) -> None:
        """Moves the schedule by half a period at most, so that a deadline falls on `instant` or
        whole periods from it. Takes effect with the next `wait`. Any thread."""
        self._align_to = instant

    def wait(self) -> float:
        """Sleeps until `lead` before the next deadline and returns that deadline."""
        deadline = self.next_deadline
        if self._align_to is not None:
            deadline += math.remainder(self._align_to - deadline, self.period)
            self._anchor, self._tick, self._align_to = deadline, 0, None
        due = deadline - self.lead
        now = self._clock()
        if now - due > self._resync_after:
            self.lateness.add(now - due)
            self.resyncs += 1
            self.skipped += now - due
            due, deadline = now, now + self.lead
            self._anchor, self._tick = deadline, 0
        else:
            while now < due:
                self._sleep(due - now)
                now = self._clock()
            self.lateness.add(now - due)
        self._tick += 1
        self._due, self._deadline = due, deadline
        return deadline

    @property
    def next_deadline(self) -> float:
        """The deadline of the next tick, if the schedule is not moved until then."""
        if self._anchor is None:
            self.start()
            assert self._anchor is not None
        # a product, not a running sum: rounding does not add up over hours
        return self._anchor + self._tick * self.period

    def wait_ahead(self, seconds: float) -> None:
        """Sleeps until so long before the next tick's waking; not at all if that is past."""
        until = self.next_deadline - self.lead - seconds
        while (now := self._clock()) < until:
            self._sleep(until - now)

    def finished(self, instant: float | None = None) -> bool:
        """Says that the work of this tick is done, or was at `instant`; True when it made its
        deadline."""
        instant = self._clock() if instant is None else instant
        return self.deadlines.record(self._due, self._deadline, instant)
