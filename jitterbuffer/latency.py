"""What delay is worth: the policies of the adaptive buffer."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

LONGEST_DELAY = 2.0
"""Seconds: no target is longer."""


class Latency(StrEnum):
    """How dear time is, beside frames that are not heard as they were said."""

    LOW = "low"
    """Quick answers: one packet in a hundred is worth 15 ms."""
    BALANCED = "balanced"
    """One in a hundred is worth 40 ms: what is lost alone or in twos and threes is rebuilt."""
    ROBUST = "robust"
    """One in a hundred is worth 150 ms: long holes are waited for."""


@dataclass(frozen=True, slots=True)
class LatencyPolicy:
    """The numbers behind a `Latency`; durations in seconds."""

    worth: float
    """Delay that is given for one frame in a hundred."""
    hold: float
    """By how much playout may wait, beyond the target, for what follows an open hole. A hold is
    taken back within a second, so it costs less delay than a target that is always so much higher,
    and misses less; but it lengthens the hole by guesses, and the taking back is heard by some."""
    min_delay: float
    max_delay: float

    def __post_init__(self) -> None:
        if not 0.0 <= self.min_delay <= self.max_delay <= LONGEST_DELAY:
            raise ValueError(
                f"delays from {1e3 * self.min_delay:g} to {1e3 * self.max_delay:g} ms are not "
                f"within 0 to {1e3 * LONGEST_DELAY:g} ms, the least first"
            )

    @classmethod
    def of(
        cls, latency: Latency, min_delay: float | None = None, max_delay: float | None = None
    ) -> LatencyPolicy:
        """The policy of that name, with other bounds if they are given.

        A bound that contradicts the policy's other one moves it. Raises ValueError.
        """
        policy = _POLICIES[latency]
        low = policy.min_delay if min_delay is None else min_delay
        high = policy.max_delay if max_delay is None else max_delay
        if max_delay is None:
            high = max(low, high)
        if min_delay is None:
            low = min(low, high)
        return cls(policy.worth, policy.hold, low, high)


_POLICIES = {
    # In 30 ms the packet after a lone loss is there, with its LBRR.
    Latency.LOW: LatencyPolicy(worth=0.015, hold=0.0, min_delay=0.020, max_delay=0.150),
    Latency.BALANCED: LatencyPolicy(worth=0.040, hold=0.040, min_delay=0.030, max_delay=0.400),
    Latency.ROBUST: LatencyPolicy(worth=0.150, hold=0.160, min_delay=0.060, max_delay=1.000),
}
