"""What a call is asked to do: the options shared by `call`, `listen` and `demo`, checked."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from app.net.red import MAX_COPIES
from app.netem import NetemSpec
from codec.frame import FrameSource
from jitterbuffer.latency import LONGEST_DELAY, Latency, LatencyPolicy


class UsageError(ValueError):
    """An option that cannot be used as given; the text is one line for the user."""


class Recovery(StrEnum):
    """What lost frames may be rebuilt from; neural concealment fills what is left."""

    OPUS_PLC = "opus-plc"
    """Nothing, and libopus conceals."""
    PLC = "plc"
    """Nothing."""
    LBRR = "lbrr"
    RED = "red"
    """Whole packets, repeated in those that follow."""
    DRED = "dred"
    LBRR_DRED = "lbrr+dred"

    @property
    def sources(self) -> frozenset[FrameSource]:
        """Of lost frames."""
        sources = {FrameSource.PLC}
        if self is Recovery.RED:
            sources.add(FrameSource.RED)
        if self in (Recovery.LBRR, Recovery.LBRR_DRED):
            sources.add(FrameSource.LBRR)
        if self in (Recovery.DRED, Recovery.LBRR_DRED):
            sources.add(FrameSource.DRED)
        return frozenset(sources)

    @property
    def lbrr(self) -> bool:
        return FrameSource.LBRR in self.sources

    @property
    def red(self) -> bool:
        return FrameSource.RED in self.sources

    @property
    def dred(self) -> bool:
        return FrameSource.DRED in self.sources


@dataclass(frozen=True, slots=True)
class Impairment:
    """What is done to the datagrams of one direction."""

    netem: NetemSpec | None = None
    loss_trace: Path | None = None

    def __bool__(self) -> bool:
        return self.netem is not None or self.loss_trace is not None


@dataclass(frozen=True, slots=True)
class CallOptions:
    """One side of a call. Paths are written to only if given."""

    source: str = "device"
    loop: bool = False
    """Whether a source file is repeated for ever."""
    sink: str = "device"
    record: Path | None = None
    ledger: Path | None = None
    pcap: Path | None = None
    record_arrivals: Path | None = None
    timeline: Path | None = None
    bitrate: int = 24_000
    """Opus target, bits/s."""
    complexity: int = 6
    """Of the Opus encoder, 0-10. 6 takes over a quarter of the time off 9 and costs 0.005 PLCMOS; 5
    would cost 0.04."""
    expected_loss: int | None = None
    """Loss hint for the encoder in percent; None follows the peer's RTCP reports."""
    recovery: Recovery = Recovery.LBRR_DRED
    dred_ms: int | None = None
    """How far back DRED reaches, 0-1000; None follows the peer's reports."""
    red_copies: int = 1
    """By how many packets each is repeated with RED, 1-2."""
    buffer_ms: float | None = None
    """Fixed time from a packet's arrival to its playout; None: as `latency` and the network say."""
    latency: Latency = Latency.BALANCED
    min_delay_ms: float | None = None
    max_delay_ms: float | None = None
    """Bounds of an adaptive buffer; None: those of `latency`."""
    outbound: Impairment = Impairment()
    inbound: Impairment = Impairment()
    seed: int = 1
    probe: bool = False
    """Mix delay markers into what is sent, and look for them in what is heard."""
    duration: float | None = None
    """Hang up after so many seconds."""
    timeout: float = 10.0
    """Give up when nothing has come from the peer for so many seconds."""
    libopus: Path | None = None

    def __post_init__(self) -> None:
        _within("--bitrate", self.bitrate, 6_000, 510_000, "bits/s")
        _within("--complexity", self.complexity, 0, 10, "")
        _within("--timeout", self.timeout, 1, 3_600, "s")
        _within("--red-copies", self.red_copies, 1, MAX_COPIES, "")
        if self.dred_ms is not None:
            _within("--dred-ms", self.dred_ms, 0, 1_000, "ms")
        if self.expected_loss is not None:
            _within("--expected-loss", self.expected_loss, 0, 100, "percent")
        if self.duration is not None:
            _within("--duration", self.duration, 0.1, 86_400, "s")
        self._check_buffer()

    def _check_buffer(self) -> None:
        longest = 1e3 * LONGEST_DELAY
        if self.buffer_ms is not None:
            _within("--buffer", self.buffer_ms, 0, longest, "ms")
        low, high = self.min_delay_ms, self.max_delay_ms
        for flag, bound in (("--min-delay", low), ("--max-delay", high)):
            if bound is None:
                continue
            if self.buffer_ms is not None:
                raise UsageError(f"{flag} {bound:g} bounds an adaptive buffer, not a fixed one")
            _within(flag, bound, 0, longest, "ms")
        if low is not None and high is not None and low > high:
            raise UsageError(f"--min-delay {low:g} is more than --max-delay {high:g}")

    @property
    def target_delay(self) -> float | LatencyPolicy:
        """What the jitter buffer aims at: seconds, or a policy."""
        if self.buffer_ms is not None:
            return self.buffer_ms / 1e3
        bounds = (self.min_delay_ms, self.max_delay_ms)
        return LatencyPolicy.of(self.latency, *(None if b is None else b / 1e3 for b in bounds))

    @property
    def buffer_text(self) -> str:
        """The same in words."""
        delay = self.target_delay
        if isinstance(delay, float):
            return f"{1e3 * delay:g} ms"
        return f"{self.latency}, {1e3 * delay.min_delay:g} to {1e3 * delay.max_delay:g} ms"


def parse_buffer(text: str) -> float | None:
    """`fixed:MS` -> ms, `adaptive` -> None. Raises UsageError on anything else."""
    if text == "adaptive":
        return None
    kind, _, value = text.partition(":")
    try:
        if kind == "fixed":
            return float(value)
    except ValueError:
        pass
    raise UsageError(f"--buffer: '{text}' is neither adaptive nor fixed:MS, for example fixed:30")


def _within(flag: str, value: float, low: float, high: float, unit: str) -> None:
    if not low <= value <= high:
        raise UsageError(f"{flag}: {value:g} is not between {low:g} and {high:g} {unit}".rstrip())
