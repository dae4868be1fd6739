"""What an impairment is made of: frozen values that print as the tc-netem words they came from."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from enum import StrEnum

DEFAULT_LIMIT = 1000
"""Packets that may wait at a time: tc's default."""


class NetemError(ValueError):
    """A wrong impairment or loss trace; the message names the word and what was expected."""


class Distribution(StrEnum):
    """The shape of the delay about its mean."""

    UNIFORM = "uniform"
    NORMAL = "normal"
    PARETO = "pareto"
    PARETONORMAL = "paretonormal"


@dataclass(frozen=True, slots=True)
class Delay:
    """`delay TIME [JITTER [CORRELATION]] [distribution NAME]`."""

    time_ns: int
    jitter_ns: int = 0
    """Scale of the distribution: its standard deviation, or half the width of the uniform one."""
    correlation: float = 0.0
    distribution: Distribution = Distribution.NORMAL

    def __str__(self) -> str:
        words = ["delay", format_time(self.time_ns)]
        if self.jitter_ns or self.correlation:
            words.append(format_time(self.jitter_ns))
        if self.correlation:
            words.append(format_percent(self.correlation))
        if self.jitter_ns and self.distribution is not Distribution.NORMAL:
            words += ["distribution", self.distribution.value]
        return " ".join(words)


@dataclass(frozen=True, slots=True)
class Chance:
    """An event of one packet: its probability and the correlation of its random numbers."""

    probability: float
    correlation: float = 0.0

    def __str__(self) -> str:
        words = [format_percent(self.probability)]
        if self.correlation:
            words.append(format_percent(self.correlation))
        return " ".join(words)


@dataclass(frozen=True, slots=True)
class RandomLoss(Chance):
    """`loss random P [CORRELATION]`."""

    def __str__(self) -> str:
        return f"loss random {Chance.__str__(self)}"


@dataclass(frozen=True, slots=True)
class StateLoss:
    """`loss state p13 [p31 [p32 [p23 [p14]]]]`: a Markov chain of four states.

    1 received, 2 received within a burst, 3 lost within a burst, 4 a loss alone, after which the
    next packet is always received (Salsano et al., the GI model).
    """

    p13: float
    p31: float
    p32: float
    p23: float
    p14: float

    def __str__(self) -> str:
        values = (self.p13, self.p31, self.p32, self.p23, self.p14)
        return "loss state " + " ".join(map(format_percent, values))


@dataclass(frozen=True, slots=True)
class GilbertElliottLoss:
    """`loss gemodel p [r [1-h [1-k]]]`: p good to bad, r bad to good, and each state's loss."""

    p: float
    r: float
    bad_loss: float
    """1-h."""
    good_loss: float
    """1-k."""

    def __str__(self) -> str:
        values = (self.p, self.r, self.bad_loss, self.good_loss)
        return "loss gemodel " + " ".join(map(format_percent, values))


Loss = RandomLoss | StateLoss | GilbertElliottLoss


@dataclass(frozen=True, slots=True)
class Reorder(Chance):
    """`reorder P [CORRELATION] [gap N]`: packets that go at once while the others wait."""

    gap: int = 1
    """At least N-1 packets are delayed between two that are not."""

    def __str__(self) -> str:
        gap = f" gap {self.gap}" if self.gap != 1 else ""
        return f"reorder {Chance.__str__(self)}{gap}"


@dataclass(frozen=True, slots=True)
class Rate:
    """`rate RATE [PACKETOVERHEAD [CELLSIZE [CELLOVERHEAD]]]`."""

    bits_per_second: int
    packet_overhead: int = 0
    """Bytes on top of each packet; negative strips a header."""
    cell_size: int = 0
    """Bytes of payload in a link cell; 0 = no cells."""
    cell_overhead: int = 0
    """Bytes of header of each cell."""

    def seconds(self, size: int) -> float:
        """How long `size` bytes keep the link busy."""
        size = max(0, size + self.packet_overhead)
        if self.cell_size:
            cells = -(-size // self.cell_size)
            size = max(0, cells * (self.cell_size + self.cell_overhead))
        return 8 * size / self.bits_per_second

    def __str__(self) -> str:
        extras = [self.packet_overhead, self.cell_size, self.cell_overhead]
        while extras and not extras[-1]:
            extras.pop()
        return " ".join(["rate", format_rate(self.bits_per_second), *map(str, extras)])


@dataclass(frozen=True, slots=True)
class NetemSpec:
    """All impairments of one direction; `str()` is a spec that parses to the same value."""

    delay: Delay | None = None
    loss: Loss | None = None
    duplicate: Chance | None = None
    reorder: Reorder | None = None
    corrupt: Chance | None = None
    rate: Rate | None = None
    limit: int = DEFAULT_LIMIT

    def __str__(self) -> str:
        words = [str(part) for part in (self.delay, self.loss) if part is not None]
        if self.duplicate is not None:
            words.append(f"duplicate {self.duplicate}")
        if self.reorder is not None:
            words.append(str(self.reorder))
        if self.corrupt is not None:
            words.append(f"corrupt {self.corrupt}")
        if self.rate is not None:
            words.append(str(self.rate))
        if self.limit != DEFAULT_LIMIT:
            words.append(f"limit {self.limit}")
        return " ".join(words)


def format_time(nanoseconds: int) -> str:
    """In the largest unit that leaves a whole number."""
    for unit, scale in (("s", 10**9), ("ms", 10**6), ("us", 10**3)):
        if nanoseconds % scale == 0:
            return f"{nanoseconds // scale}{unit}"
    return f"{nanoseconds}ns"


def format_percent(probability: float) -> str:
    """Digits enough that parsing gives back the very same float."""
    percent = (Decimal(repr(probability)) * 100).normalize()
    return f"{percent:f}%"


def format_rate(bits_per_second: int) -> str:
    """In the largest decimal unit that leaves a whole number."""
    for unit, scale in (("gbit", 10**9), ("mbit", 10**6), ("kbit", 10**3)):
        if bits_per_second % scale == 0:
            return f"{bits_per_second // scale}{unit}"
    return f"{bits_per_second}bit"
