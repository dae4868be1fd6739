"""The words of `--netem`: the grammar of tc-netem(8), read into a `NetemSpec`."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import TypeVar

from app.netem.spec import (
    Chance,
    Delay,
    Distribution,
    GilbertElliottLoss,
    Loss,
    NetemError,
    NetemSpec,
    RandomLoss,
    Rate,
    Reorder,
    StateLoss,
)

MAX_SPEC_CHARACTERS = 4096
MAX_TIME_NS = (2**32 - 1) * 1000
"""tc's: 32 bits of microseconds, a little over an hour."""
MAX_LIMIT = 1_000_000
"""Packets. Bounds the memory of a queue; above any use in a voice call."""
MAX_GAP = 2**32 - 1
MAX_RATE = 10**15
"""bits/s. Above any link."""
MAX_BYTES = 65_535
"""Of overheads and cells."""
PROBABILITY_STEP = Decimal("1e-20")
"""Far below tc's 2**-32; what keeps a probability printable."""

# A bare number is a count of microseconds, bits per second and percent, as in tc(8).
TIME_UNITS = {
    "": 10**3,
    **dict.fromkeys(("ns", "nsec", "nsecs"), 1),
    **dict.fromkeys(("us", "usec", "usecs"), 10**3),
    **dict.fromkeys(("ms", "msec", "msecs"), 10**6),
    **dict.fromkeys(("s", "sec", "secs"), 10**9),
}
RATE_UNITS = {"": 1, "bit": 1, "bps": 8} | {
    prefix + unit: scale * bits
    for unit, bits in (("bit", 1), ("bps", 8))
    for prefix, scale in {
        **{letter: 1000 ** (i + 1) for i, letter in enumerate("kmgt")},
        **{letter + "i": 1024 ** (i + 1) for i, letter in enumerate("kmgt")},
    }.items()
}

_NUMBER = re.compile(r"([0-9]{1,30}(?:\.[0-9]{0,30})?|\.[0-9]{1,30})(?:e([+-]?[0-9]{1,2}))?", re.I)
_INTEGER = re.compile(r"[+-]?[0-9]{1,12}")

OPTIONS = "delay, loss, duplicate, reorder, gap, corrupt, distribution, rate or limit"
REFUSED = {
    "slot": "slots are not supported",
    "ecn": "marking is not supported, only loss",
    "seed": "give --seed instead",
}

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class _Word:
    text: str
    position: int
    """Of its first character, counted from 1."""

    def wrong(self, expected: str) -> NetemError:
        shown = self.text if len(self.text) <= 40 else self.text[:37] + "..."
        return NetemError(f"netem: {shown!r} at character {self.position}: expected {expected}")

    @property
    def starts_number(self) -> bool:
        return self.text[0] in "+-.0123456789"


class _Reader:
    """The words of a spec, one after the other."""

    def __init__(self, spec: str) -> None:
        if len(spec) > MAX_SPEC_CHARACTERS:
            raise NetemError(f"netem: the spec is longer than {MAX_SPEC_CHARACTERS} characters")
        self._words = [_Word(m[0], m.start() + 1) for m in re.finditer(r"\S+", spec)]
        self._next = 0

    def peek(self) -> _Word | None:
        return self._words[self._next] if self._next < len(self._words) else None

    def take(self, expected: str) -> _Word:
        word = self.peek()
        if word is None:
            after = f" after {self._words[-1].text[:40]!r}" if self._words else ""
            raise NetemError(f"netem: the spec ends{after}: expected {expected}")
        self._next += 1
        return word

    def read(self, parse: Callable[[_Word, str], _T], expected: str) -> _T:
        return parse(self.take(expected), expected)

    def read_if_number(self, parse: Callable[[_Word, str], _T], expected: str, default: _T) -> _T:
        word = self.peek()
        if word is None or not word.starts_number:
            return default
        return self.read(parse, expected)


def parse_netem(spec: str) -> NetemSpec:
    """The impairments that `spec` asks for, in the words of tc-netem(8).

    Options may stand in any order, each once. An empty spec impairs nothing. Raises NetemError,
    which names the wrong word, its position and what was expected there.
    """
    reader = _Reader(spec)
    found = _Found()
    seen: dict[str, _Word] = {}
    while (word := reader.peek()) is not None:
        reader.take(OPTIONS)
        name = {"latency": "delay", "drop": "loss"}.get(word.text, word.text)
        if name in REFUSED:
            raise NetemError(f"netem: {name!r} at character {word.position}: {REFUSED[name]}")
        read = OPTION_READERS.get(name)
        if read is None:
            raise word.wrong(f"one of {OPTIONS}")
        if name in seen:
            raise word.wrong(f"{name} only once")
        seen[name] = word
        read(reader, found)
    _check_combination(found, seen)
    return found.spec()


class _Found:
    """What has been read so far; `distribution` and `gap` may stand apart from their option."""

    def __init__(self) -> None:
        self.delay: Delay | None = None
        self.distribution: Distribution | None = None
        self.loss: Loss | None = None
        self.duplicate: Chance | None = None
        self.reorder: Reorder | None = None
        self.gap: int | None = None
        self.corrupt: Chance | None = None
        self.rate: Rate | None = None
        self.limit = NetemSpec().limit

    def spec(self) -> NetemSpec:
        delay, reorder = self.delay, self.reorder
        if delay is not None and self.distribution is not None:
            delay = replace(delay, distribution=self.distribution)
        if reorder is not None and self.gap:
            reorder = replace(reorder, gap=self.gap)
        return NetemSpec(
            delay, self.loss, self.duplicate, reorder, self.corrupt, self.rate, self.limit
        )


def _check_combination(found: _Found, seen: dict[str, _Word]) -> None:
    if "distribution" in seen and (found.delay is None or not found.delay.jitter_ns):
        raise seen["distribution"].wrong("a delay with a jitter for it to shape")
    if "gap" in seen and found.reorder is None:
        raise seen["gap"].wrong("a reorder that it belongs to")
    if "reorder" in seen and (found.delay is None or not found.delay.time_ns):
        raise seen["reorder"].wrong("a delay that the reordered packets are spared")


def _read_delay(reader: _Reader, found: _Found) -> None:
    time_ns = reader.read(_time, "a delay such as 100ms")
    jitter_ns = reader.read_if_number(_time, "a jitter such as 20ms", None)
    correlation = 0.0
    if jitter_ns is not None:
        correlation = reader.read_if_number(_percent, "a correlation such as 25%", 0.0)
    found.delay = Delay(time_ns, jitter_ns or 0, correlation)


def _read_distribution(reader: _Reader, found: _Found) -> None:
    names = "uniform, normal, pareto or paretonormal"
    word = reader.take(names)
    if word.text not in set(Distribution):
        raise word.wrong(names)
    found.distribution = Distribution(word.text)


def _read_loss(reader: _Reader, found: _Found) -> None:
    expected = "a percentage, random, state or gemodel"
    word = reader.peek()
    if word is not None and word.text == "state":
        found.loss = _read_state_loss(reader)
    elif word is not None and word.text == "gemodel":
        found.loss = _read_gemodel_loss(reader)
    elif word is not None and word.text == "random":
        reader.take(expected)
        found.loss = RandomLoss(*_read_chance(reader, "loss"))
    elif word is None or word.starts_number:
        found.loss = RandomLoss(*_read_chance(reader, "loss"))
    else:
        raise word.wrong(expected)


def _read_state_loss(reader: _Reader) -> StateLoss:
    reader.take("state")
    p13 = reader.read(_percent, "p13, a percentage")
    given = [p13]
    for name in ("p31", "p32", "p23", "p14"):
        word = reader.peek()
        if word is None or not word.starts_number:
            break
        given.append(reader.read(_percent, f"{name}, a percentage"))
        if name == "p32" and not _fits(given[1], given[2]):
            raise word.wrong("p32 of at most 100% less p31")
        if name == "p14" and not _fits(given[0], given[4]):
            raise word.wrong("p14 of at most 100% less p13")
    defaults = [p13, _complement(p13), 0.0, 1.0, 0.0]
    return StateLoss(*(given + defaults[len(given) :]))


def _read_gemodel_loss(reader: _Reader) -> GilbertElliottLoss:
    reader.take("gemodel")
    p = reader.read(_percent, "p, a percentage")
    r = reader.read_if_number(_percent, "r, a percentage", None)
    bad_loss = good_loss = None
    if r is not None:
        bad_loss = reader.read_if_number(_percent, "1-h, a percentage", None)
    if bad_loss is not None:
        good_loss = reader.read_if_number(_percent, "1-k, a percentage", None)
    return GilbertElliottLoss(
        p,
        _complement(p) if r is None else r,
        1.0 if bad_loss is None else bad_loss,
        good_loss or 0.0,
    )


def _read_duplicate(reader: _Reader, found: _Found) -> None:
    found.duplicate = Chance(*_read_chance(reader, "duplicate"))


def _read_corrupt(reader: _Reader, found: _Found) -> None:
    found.corrupt = Chance(*_read_chance(reader, "corrupt"))


def _read_reorder(reader: _Reader, found: _Found) -> None:
    found.reorder = Reorder(*_read_chance(reader, "reorder"))


def _read_chance(reader: _Reader, name: str) -> tuple[float, float]:
    probability = reader.read(_percent, f"a {name} percentage such as 5%")
    return probability, reader.read_if_number(_percent, "a correlation such as 25%", 0.0)


def _read_gap(reader: _Reader, found: _Found) -> None:
    found.gap = _integer(reader.take("a gap in packets"), "a gap in packets", 1, MAX_GAP)


def _read_limit(reader: _Reader, found: _Found) -> None:
    found.limit = _integer(reader.take("a limit in packets"), "a limit in packets", 1, MAX_LIMIT)


def _read_rate(reader: _Reader, found: _Found) -> None:
    bits_per_second = reader.read(_rate, "a rate such as 100kbit")
    extras: list[int] = []
    for name, low in (
        ("packet overhead", -MAX_BYTES),
        ("cell size", 0),
        ("cell overhead", -MAX_BYTES),
    ):
        word = reader.peek()
        if word is None or not word.starts_number:
            break
        extras.append(_integer(reader.take(name), f"a {name} in bytes", low, MAX_BYTES))
    found.rate = Rate(bits_per_second, *extras)


OPTION_READERS: dict[str, Callable[[_Reader, _Found], None]] = {
    "delay": _read_delay,
    "distribution": _read_distribution,
    "loss": _read_loss,
    "duplicate": _read_duplicate,
    "reorder": _read_reorder,
    "gap": _read_gap,
    "corrupt": _read_corrupt,
    "rate": _read_rate,
    "limit": _read_limit,
}


def _number(word: _Word, units: dict[str, int], expected: str) -> Decimal:
    """The number in `word` times its unit; exact for any sensible count of digits."""
    match = _NUMBER.match(word.text)
    if match is None:
        raise word.wrong(expected)
    scale = units.get(word.text[match.end() :].lower())
    if scale is None:
        raise word.wrong(expected)
    return Decimal(match[0]) * scale


def _time(word: _Word, expected: str) -> int:
    nanoseconds = _number(word, TIME_UNITS, expected)
    if nanoseconds > MAX_TIME_NS:
        raise word.wrong(f"a time of at most {MAX_TIME_NS // 10**9}s")
    return round(nanoseconds)


def _rate(word: _Word, expected: str) -> int:
    bits_per_second = _number(word, RATE_UNITS, expected)
    if not 1 <= bits_per_second <= MAX_RATE:
        raise word.wrong(f"a rate of 1bit to {MAX_RATE // 10**12}tbit")
    return round(bits_per_second)


def _percent(word: _Word, expected: str) -> float:
    percent = _number(word, {"": 1, "%": 1}, expected)
    if percent > 100:
        raise word.wrong("a percentage of 0% to 100%")
    return float((percent / 100).quantize(PROBABILITY_STEP))


def _integer(word: _Word, expected: str, low: int, high: int) -> int:
    if not _INTEGER.fullmatch(word.text):
        raise word.wrong(expected)
    value = int(word.text)
    if not low <= value <= high:
        raise word.wrong(f"{expected}, {low} to {high}")
    return value


def _complement(probability: float) -> float:
    return float(1 - Decimal(repr(probability)))


def _fits(first: float, second: float) -> bool:
    """Whether two ways out of one state leave a probability of staying that is not negative."""
    return Decimal(repr(first)) + Decimal(repr(second)) <= 1
