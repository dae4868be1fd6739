"""Where the time between mouth and ear goes: every played frame's delay, stage by stage."""

from __future__ import annotations

import math
from array import array
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

import numpy as np

from codec import FRAME_SECONDS, SAMPLE_RATE

BIN = 0.000_25
"""Seconds: the error of a percentile, fine beside a 20 ms frame and coarse beside the clocks."""

SPAN = 5.0
"""Seconds covered by bins; longer ago than that, nobody talks any more."""


class Stage(StrEnum):
    """The parts of the way, in order; their delays add up to the total."""

    FRAMING = "framing"
    """Waiting for the frame to be full: always 20 ms."""
    LOOKAHEAD = "lookahead"
    """The Opus encoder's algorithmic delay: decoded sound lags behind the captured by it."""
    ENCODE = "encode"
    """From the full frame to the datagram handed to the socket."""
    NETWORK = "network"
    """From there to the packet's arrival; holds ENCODE too when the sending is not known."""
    JITTER_BUFFER = "jitter_buffer"
    """Waiting between arrival and playout, what decoding and the device take excepted."""
    DECODE = "decode"
    DEVICE = "device"
    """From the sound handed over to the sound heard."""


class FrameTiming(NamedTuple):
    """What is known about one played frame. Instants are monotonic seconds on our clock."""

    playout_at: float
    """When its first sample is heard (output latency included)."""
    captured_at: float | None = None
    """When its first sample left the microphone; None: clocks not related yet, or no such frame."""
    sent_at: float | None = None
    """When its packet was handed to the peer's socket, if that is known."""
    arrival: float | None = None
    """When its own packet arrived; None for a frame that was rebuilt or concealed."""
    decode_seconds: float = 0.0
    output_latency: float = 0.0


class DurationHistogram:
    """Percentiles of a stream of durations in constant memory.

    Equal bins from 0 to `span`; what lies outside is counted in the end bins. A percentile is off
    by one bin at most, inside the span; `min`, `max` and `mean` are exact.
    """

    def __init__(self, bin_seconds: float = BIN, span: float = SPAN) -> None:
        if not 0.0 < bin_seconds < span:
            raise ValueError(f"bins of {bin_seconds} s do not divide a span of {span} s")
        self.bin_seconds = bin_seconds
        self.count = 0
        self.min = math.inf
        self.max = -math.inf
        self._sum = 0.0
        self._bins = array("q", [0]) * math.ceil(span / bin_seconds)

    def add(self, seconds: float) -> None:
        """Takes in one finite duration. Clocks in error make negative ones: they count."""
        self.count += 1
        self._sum += seconds
        if seconds < self.min:
            self.min = seconds
        if seconds > self.max:
            self.max = seconds
        index = int(seconds / self.bin_seconds)
        self._bins[max(0, min(len(self._bins) - 1, index))] += 1

    @property
    def mean(self) -> float | None:
        """Seconds, None when empty."""
        return self._sum / self.count if self.count else None

    def percentile(self, percent: float) -> float | None:
        """The duration (s) that `percent` (0..100) of all do not exceed; None when empty."""
        if not 0.0 <= percent <= 100.0:
            raise ValueError(f"percentile {percent} is not in 0..100")
        bins = np.array(self._bins)  # a copy: another thread may be adding
        below = np.cumsum(bins)
        count = int(below[-1])
        if not count:
            return None
        # nearest rank, spread evenly over the bin it falls in
        rank = max(1, math.ceil(percent / 100.0 * count))
        index = int(np.searchsorted(below, rank))
        inside = int(bins[index])
        place = (rank - (int(below[index]) - inside) - 0.5) / inside
        return max(self.min, min(self.max, (index + place) * self.bin_seconds))


@dataclass(frozen=True, slots=True)
class DelaySummary:
    """Delays in seconds; None where nothing was measured."""

    frames: int
    """Played frames whose total is known."""
    mean: float | None
    p50: float | None
    p95: float | None
    p99: float | None
    max: float | None
    breakdown: dict[Stage, float | None]
    """Means over the frames that came in their own packet: their sum is those frames' mean."""
    uncertainty: float | None
    """Half width of what the relation of the clocks leaves open; None: clocks not related."""

    def __str__(self) -> str:
        if self.p50 is None or self.p95 is None or self.max is None:
            return "unknown"
        text = f"{1e3 * self.p50:.1f} ms (p95 {1e3 * self.p95:.1f}, max {1e3 * self.max:.1f})"
        if self.uncertainty is not None:
            text += f" ± {1e3 * self.uncertainty:.1f} ms"
        return text


class DelayAccount:
    """The delays of all frames of a call; written by the playout thread, read by any.

    `lookahead_samples` (at 16 kHz) is the encoder's. Set `clock_uncertainty` (s) whenever the
    relation between the peer's clock and ours is re-estimated; 0 when they are one clock.
    """

    def __init__(self, lookahead_samples: int) -> None:
        if lookahead_samples < 0:
            raise ValueError(f"look-ahead of {lookahead_samples} samples is negative")
        self.lookahead = lookahead_samples / SAMPLE_RATE
        self.clock_uncertainty: float | None = None
        self.total = DurationHistogram()
        self.last: float | None = None
        """Seconds: the latest frame whose total is known."""
        self._related = False
        self._forget_stages()

    def add(self, timing: FrameTiming) -> float | None:
        """Accounts for one played frame; its mouth-to-ear delay in seconds if that is known."""
        if timing.captured_at is not None and not self._related:
            # only frames whose every stage is known count from now on, so that the means add up
            self._related = True
            self._forget_stages()
        if timing.arrival is not None and (timing.captured_at is not None or not self._related):
            self._add_stages(timing, timing.arrival)
        if timing.captured_at is None:
            return None
        total = timing.playout_at - timing.captured_at + self.lookahead
        self.total.add(total)
        self.last = total
        return total

    def mean(self, stage: Stage) -> float | None:
        """Seconds; None when it was never known."""
        seconds, count = self._stages[stage]
        return seconds / count if count else None

    def summary(self) -> DelaySummary:
        """All delays so far."""
        total = self.total
        return DelaySummary(
            frames=total.count,
            mean=total.mean,
            p50=total.percentile(50),
            p95=total.percentile(95),
            p99=total.percentile(99),
            max=total.max if total.count else None,
            breakdown={stage: self.mean(stage) for stage in Stage},
            uncertainty=self.clock_uncertainty,
        )

    def _forget_stages(self) -> None:
        self._own = self._on_the_way = self._sendings = 0
        """Frames that came in their own packet, those of known capture, those of known sending."""
        self._jitter_buffer = self._decode = self._device = self._network = self._encode = 0.0
        """Seconds, summed over these."""

    def _add_stages(self, timing: FrameTiming, arrival: float) -> None:
        decode, device = timing.decode_seconds, timing.output_latency
        self._own += 1
        self._decode += decode
        self._device += device
        self._jitter_buffer += timing.playout_at - arrival - decode - device
        if timing.captured_at is None:
            return
        sent = full = timing.captured_at + FRAME_SECONDS
        if timing.sent_at is not None:
            sent = timing.sent_at
            self._sendings += 1
            self._encode += sent - full
        self._on_the_way += 1
        self._network += arrival - sent

    @property
    def _stages(self) -> dict[Stage, tuple[float, int]]:
        """Seconds in each, and of how many frames they are the sum."""
        return {
            Stage.FRAMING: (self._own * FRAME_SECONDS, self._own),
            Stage.LOOKAHEAD: (self._own * self.lookahead, self._own),
            Stage.ENCODE: (self._encode, self._sendings),
            Stage.NETWORK: (self._network, self._on_the_way),
            Stage.JITTER_BUFFER: (self._jitter_buffer, self._own),
            Stage.DECODE: (self._decode, self._own),
            Stage.DEVICE: (self._device, self._own),
        }
