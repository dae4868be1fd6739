"""What a call was like: one JSON object for tools, one table for people. Schema: docs/json.md."""

# ruff: noqa: N815 - W3C webrtc-stats spells its names in camel case

from __future__ import annotations

import importlib.metadata
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from rich.table import Table
from rich.text import Text

from app.delay import DelaySummary, Stage
from codec.frame import FrameSource

Json = dict[str, Any]
"""What `json.dumps` takes: nested dicts of str, bool, int, finite float and None."""


@dataclass(frozen=True, slots=True, kw_only=True)
class InboundStats:
    """RTCInboundRtpStreamStats of https://www.w3.org/TR/webrtc-stats/: seconds, bytes, samples."""

    packetsReceived: int = 0
    packetsLost: int = 0
    packetsDiscarded: int = 0
    packetsDuplicated: int = 0
    bytesReceived: int = 0
    jitter: float | None = None
    fecPacketsReceived: int = 0
    fecPacketsDiscarded: int = 0
    jitterBufferDelay: float = 0.0
    jitterBufferTargetDelay: float = 0.0
    jitterBufferMinimumDelay: float = 0.0
    jitterBufferEmittedCount: int = 0
    totalSamplesReceived: int = 0
    concealedSamples: int = 0
    silentConcealedSamples: int = 0
    concealmentEvents: int = 0
    insertedSamplesForDeceleration: int = 0
    removedSamplesForAcceleration: int = 0
    audioLevel: float = 0.0
    totalAudioEnergy: float = 0.0
    totalSamplesDuration: float = 0.0
    totalProcessingDelay: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class RemoteStats:
    """RTCRemoteInboundRtpStreamStats: what the peer reports about our stream by RTCP."""

    packetsLost: int | None = None
    fractionLost: float | None = None
    jitter: float | None = None
    roundTripTime: float | None = None
    totalRoundTripTime: float = 0.0
    roundTripTimeMeasurements: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class OutboundStats:
    """RTCOutboundRtpStreamStats and, under `remote`, what the peer says of it."""

    packetsSent: int = 0
    bytesSent: int = 0
    targetBitrate: float | None = None
    audioLevel: float = 0.0
    totalAudioEnergy: float = 0.0
    totalSamplesDuration: float = 0.0
    remote: RemoteStats = field(default_factory=RemoteStats)


@dataclass(frozen=True, slots=True)
class Bitrate:
    """Payload bits per second, averaged over the call."""

    opus: float
    """LBRR included."""
    dred: float
    red: float = 0.0
    """Copies of earlier packets."""

    @property
    def total(self) -> float:
        return self.opus + self.dred + self.red


@dataclass(frozen=True, slots=True)
class DredUse:
    """Whether redundancy travels and helps, and if not, why not."""

    carried: int = 0
    """Packets received that carry a DRED extension."""
    parsed: int = 0
    """Of these, packets whose DRED could be read."""
    used: int = 0
    """Frames played out of it."""
    span_ms: float | None = None
    """Past speech in one packet, the mean."""
    reason: str | None = None
    """Why a stage before is zero; None when all is well."""

    def __str__(self) -> str:
        text = f"carried in {self.carried} packets, parsed {self.parsed}, used {self.used} frames"
        if self.span_ms is not None:
            text += f", {self.span_ms:.0f} ms deep"
        return f"{text} ({self.reason})" if self.reason else text


@dataclass(frozen=True, slots=True)
class DeadlineReport:
    """How punctual playout was. Work is timed from the tick's nominal waking until the sound was
    there: 0 if it was before."""

    total: int = 0
    missed: int = 0
    worst_ms: float = 0.0
    """By which the worst miss overran its deadline; 0 when none was missed."""
    p50_ms: float | None = None
    p99_ms: float | None = None
    p999_ms: float | None = None
    max_ms: float | None = None
    wake_p999_ms: float | None = None
    wake_max_ms: float | None = None
    """By how much the playout thread woke too late, whether or not a frame was ready by then."""
    machine_stalls: int | None = None
    """Misses that befell an idle control timer too: the machine's doing. None: no such timer."""


@dataclass(frozen=True, slots=True)
class ProcessReport:
    """What the call cost this process."""

    cpu_percent: float
    """Of one core, averaged over the call; helpers' processes included."""
    helpers_percent: float
    """Of that, what helpers' processes took."""
    rss_start_mb: float
    """Resident memory when media began, 10^6 bytes."""
    rss_end_mb: float
    realtime: bool = False
    """Whether the system ran us ahead of ordinary work."""


@dataclass(frozen=True, slots=True)
class MarkerReport:
    """Delay by markers found in the played sound, beside the one by the clocks."""

    heard: int
    p50: float | None
    p95: float | None
    max: float | None
    """Seconds."""

    @classmethod
    def of(cls, delays: Sequence[float]) -> MarkerReport:
        """From every delay heard, in seconds."""
        if not delays:
            return cls(0, None, None, None)
        p50, p95 = np.percentile(delays, [50, 95])
        return cls(len(delays), float(p50), float(p95), max(delays))


@dataclass(frozen=True, kw_only=True)
class CallReport:
    """One side of a call."""

    side: str
    """`call`, `listen` or `simulate`."""
    peer: str | None = None
    codec: str | None = None
    recovery: str | None = None
    buffer: str | None = None
    """The jitter buffer's delay, or how it chooses one."""
    duration: float = 0.0
    """Seconds."""
    ended: str | None = None
    """Why the call was over."""
    seed: int | None = None
    netem: str | None = None
    loss_trace: str | None = None
    inbound: InboundStats = field(default_factory=InboundStats)
    outbound: OutboundStats = field(default_factory=OutboundStats)
    frames: Mapping[FrameSource, int] = field(default_factory=dict)
    """Frames played by how they were obtained; sources left out count as 0."""
    sent_bitrate: Bitrate | None = None
    received_bitrate: Bitrate | None = None
    delay: DelaySummary | None = None
    markers: MarkerReport | None = None
    deadline: DeadlineReport = field(default_factory=DeadlineReport)
    dred: DredUse | None = None
    process: ProcessReport | None = None
    version: str = field(default_factory=lambda: installed_version())

    def as_dict(self) -> Json:
        """The report as docs/json.md describes it."""
        return _rounded(
            {
                "version": self.version,
                "side": self.side,
                "peer": self.peer,
                "codec": self.codec,
                "recovery": self.recovery,
                "buffer": self.buffer,
                "duration_s": self.duration,
                "ended": self.ended,
                "seed": self.seed,
                "netem": self.netem,
                "loss_trace": self.loss_trace,
                "inbound": asdict(self.inbound),
                "outbound": asdict(self.outbound),
                "frames": {"total": self.total_frames}
                | {source.value: self.frames.get(source, 0) for source in FrameSource},
                "bitrate_bps": self._bitrates(),
                "delay_ms": self._delay(),
                "deadline": asdict(self.deadline),
                "dred": asdict(self.dred) if self.dred else None,
                "process": asdict(self.process) if self.process else None,
            }
        )

    def to_json(self, indent: int | None = None) -> str:
        """One JSON object."""
        return json.dumps(self.as_dict(), indent=indent, ensure_ascii=False, allow_nan=False)

    def table(self) -> Table:
        """The summary for people."""
        return summary_table([self])

    @property
    def total_frames(self) -> int:
        return sum(self.frames.values())

    def _bitrates(self) -> Json:
        sent, received = self.sent_bitrate, self.received_bitrate
        # a side that only listens, or simulates, has one stream to speak of
        main = sent or received
        return {
            "opus": main.opus if main else None,
            "dred": main.dred if main else None,
            "red": main.red if main else None,
            "sent": asdict(sent) if sent else None,
            "received": asdict(received) if received else None,
        }

    def _delay(self) -> Json:
        delay, markers = self.delay, self.markers
        figures = ("p50", "p95", "p99", "max", "mean", "uncertainty")
        return {
            "frames": delay.frames if delay else 0,
            **{name: _ms(getattr(delay, name, None)) for name in figures},
            "breakdown": {stage.value: _ms(s) for stage, s in delay.breakdown.items()}
            if delay
            else None,
            "markers": {"heard": markers.heard}
            | {name: _ms(getattr(markers, name)) for name in ("p50", "p95", "max")}
            if markers
            else None,
        }


def summary_table(reports: Sequence[CallReport], title: str | None = None) -> Table:
    """One column per side; rows that no side has anything to say about are left out."""
    table = Table(title=title, title_justify="left", show_edge=False, pad_edge=False)
    table.add_column("", style="dim", no_wrap=True)
    for report in reports:
        table.add_column(report.side, overflow="fold")
    rows = [_table_rows(report) for report in reports]
    for section in rows[0]:
        for label in rows[0][section]:
            cells = [side[section][label] for side in rows]
            if any(cells):
                # as Text: an address such as [fe80::1] must not be read as markup
                table.add_row(label, *(Text(cell or "-") for cell in cells))
        table.add_section()
    return table


def installed_version() -> str:
    """Of the project; "unknown" when run from a tree that is not installed."""
    try:
        return importlib.metadata.version("dredcall")
    except importlib.metadata.PackageNotFoundError:
        return "unknown"


def _table_rows(report: CallReport) -> dict[str, dict[str, str | None]]:
    """Section -> label -> text, with the same keys whatever the report; None: nothing to say."""
    inbound, remote, delay = report.inbound, report.outbound.remote, report.delay
    total = report.total_frames
    return {
        "call": {
            "peer": report.peer,
            "duration": f"{report.duration:.1f} s",
            "ended": report.ended,
            "codec": report.codec,
            "recovery": report.recovery,
            "jitter buffer": report.buffer,
            "impairment": ", ".join(filter(None, (report.netem, report.loss_trace))) or None,
            "seed": None if report.seed is None else str(report.seed),
        },
        "network": {
            "packets received": str(inbound.packetsReceived),
            "packets lost": _share(
                inbound.packetsLost, inbound.packetsLost + inbound.packetsReceived
            ),
            "discarded": str(inbound.packetsDiscarded) if inbound.packetsDiscarded else None,
            "jitter": _milliseconds(inbound.jitter),
            "packets sent": str(report.outbound.packetsSent),
            "round trip": _milliseconds(remote.roundTripTime),
            "sending": _kilobits(report.sent_bitrate),
            "receiving": _kilobits(report.received_bitrate),
        },
        "frames": {
            "frames played": str(total),
            **{
                f"  {source.value}": _share(report.frames[source], total)
                if report.frames.get(source)
                else None
                for source in FrameSource
            },
            "DRED": str(report.dred) if report.dred else None,
        },
        "delay": {
            "mouth to ear": str(delay) if delay and delay.frames else None,
            **_breakdown_rows(delay),
            "by markers": _marker_text(report.markers),
        },
        "deadline": {
            "deadlines missed": _deadline_text(report.deadline) if report.deadline.total else None,
            "work per frame": _work_text(report.deadline),
            "processor": _process_text(report.process),
        },
    }


def _breakdown_rows(delay: DelaySummary | None) -> dict[str, str | None]:
    known = delay.breakdown if delay else {}
    return {f"  {stage.replace('_', ' ')}": _milliseconds(known.get(stage)) for stage in Stage}


def _marker_text(markers: MarkerReport | None) -> str | None:
    if markers is None:
        return None
    if markers.p50 is None or markers.max is None:
        return "none heard"
    return f"{1e3 * markers.p50:.1f} ms (max {1e3 * markers.max:.1f}, {markers.heard} heard)"


def _deadline_text(deadline: DeadlineReport) -> str:
    text = _share(deadline.missed, deadline.total)
    if deadline.missed:
        text += f", worst by {deadline.worst_ms:.1f} ms"
        if deadline.machine_stalls is not None:
            text += f", {deadline.machine_stalls} with the whole machine"
    return text


def _work_text(deadline: DeadlineReport) -> str | None:
    if deadline.p50_ms is None or deadline.p99_ms is None:
        return None
    return f"{deadline.p50_ms:.2f} ms (p99 {deadline.p99_ms:.2f})"


def _process_text(process: ProcessReport | None) -> str | None:
    if process is None:
        return None
    scheduling = "real-time" if process.realtime else "ordinary"
    return f"{process.cpu_percent:.1f} % of a core, {scheduling} priority"


def _share(part: int, total: int) -> str:
    return f"{part} ({100.0 * part / total:.1f} %)" if total else str(part)


def _milliseconds(seconds: float | None) -> str | None:
    return None if seconds is None else f"{1e3 * seconds:.1f} ms"


def _kilobits(bitrate: Bitrate | None) -> str | None:
    if bitrate is None:
        return None
    text = f"{bitrate.opus / 1e3:.1f} kb/s Opus + {bitrate.dred / 1e3:.1f} kb/s DRED"
    return f"{text} + {bitrate.red / 1e3:.1f} kb/s RED" if bitrate.red else text


def _ms(seconds: float | None) -> float | None:
    return None if seconds is None else 1e3 * seconds


def _rounded(value: Json) -> Json:
    """Floats to 6 places, for less was not measured; JSON has no word for the infinite."""

    def walk(node: Any) -> Any:
        if isinstance(node, dict):
            return {key: walk(child) for key, child in node.items()}
        if isinstance(node, float):
            return round(node, 6) if math.isfinite(node) else None
        return node

    result: Json = walk(value)
    return result
