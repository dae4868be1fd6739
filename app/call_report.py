"""From the counters of a call in progress to its snapshot and, at the end, its report."""

from __future__ import annotations

import os
import resource
import sys
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING

from app.control_timer import ControlTimer
from app.liveview import CallSnapshot, Level
from app.meter import LevelMeter
from app.net.session import RtpSession
from app.options import CallOptions, Impairment
from app.playout import Playout
from app.report import (
    Bitrate,
    CallReport,
    DeadlineReport,
    DredUse,
    InboundStats,
    MarkerReport,
    OutboundStats,
    ProcessReport,
    RemoteStats,
)
from app.sender import Sender
from codec.frame import FrameSource
from codec.receiver import SpeechDecoder
from jitterbuffer import JitterBuffer

if TYPE_CHECKING:
    from app.call import Call, CallEnd


@dataclass(slots=True)
class ProcessMeter:
    """CPU time and memory of this process, from its making on.

    Helpers count once they have ended.
    """

    own_start: float
    helpers_start: float
    rss_start: float

    @classmethod
    def start(cls) -> ProcessMeter:
        own, helpers = map(_cpu_seconds, (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
        return cls(own, helpers, _rss_mb())

    def report(self, seconds: float, realtime: bool) -> ProcessReport:
        """Over `seconds` of wall-clock time."""
        own = _cpu_seconds(resource.RUSAGE_SELF) - self.own_start
        helpers = _cpu_seconds(resource.RUSAGE_CHILDREN) - self.helpers_start
        percent = 100 / max(seconds, 1e-3)
        return ProcessReport(
            percent * (own + helpers), percent * helpers, self.rss_start, _rss_mb(), realtime
        )


def snapshot(call: Call, peer: str) -> CallSnapshot:
    """The call at this instant. Any thread."""
    inbound = call.session.stats()["inbound-rtp"]
    remote = call.session.stats()["remote-inbound-rtp"]
    delay = call.delay
    jitter_buffer = call.buffer.stats
    emitted = jitter_buffer.jitter_buffer_emitted_count
    return CallSnapshot(
        elapsed=call.seconds,
        state="in call" if inbound["packetsReceived"] else "connecting",
        peer=peer,
        codec=call.outbound.codec_name(),
        recovery=call.options.recovery,
        sending=_sent_bitrate(call),
        receiving=_received_bitrate(call),
        packets_received=int(inbound["packetsReceived"] or 0),
        packets_lost=int(inbound["packetsLost"] or 0),
        frames=dict(call.playout.frames),
        jitter=inbound["jitter"],
        round_trip=remote["roundTripTime"],
        buffer=jitter_buffer.jitter_buffer_delay / emitted if emitted else None,
        delay=delay.last,
        delay_p95=delay.total.percentile(95),
        uncertainty=delay.clock_uncertainty,
        deadlines_missed=call.sink.stats.deadlines.missed,
        microphone=_level(call.sender.meter),
        speaker=_level(call.playout.meter),
        dred=_dred_use(call),
        note=call.output_error,
    )


def report(call: Call, end: CallEnd, *, side: str, peer: str, control: ControlTimer) -> CallReport:
    """The whole call, once it is over."""
    options = call.options
    markers = MarkerReport.of(call.probe.delays) if call.probe else None
    return CallReport(
        side=side,
        peer=peer,
        codec=call.outbound.codec_name(),
        recovery=options.recovery,
        buffer=options.buffer_text,
        duration=call.seconds,
        ended=str(end),
        seed=options.seed if options.outbound or options.inbound else None,
        netem=_impairments(options, "netem"),
        loss_trace=_impairments(options, "loss_trace"),
        inbound=inbound_stats(call.session, call.buffer, call.playout),
        outbound=outbound_stats(call.session, call.sender, call.outbound.bitrate),
        frames=dict(call.playout.frames),
        sent_bitrate=_sent_bitrate(call),
        received_bitrate=_received_bitrate(call),
        delay=call.delay.summary(),
        markers=markers,
        deadline=_deadlines(call, control),
        dred=_dred_use(call),
        process=call.process.report(call.seconds, call.realtime),
    )


def dred_use(
    buffer: JitterBuffer, decoder: SpeechDecoder, playout: Playout, *, offered: bool
) -> DredUse:
    """Whether DRED, which the peer has `offered` or not, reaches us and helps."""
    carried, used = buffer.stats.dred_packets_received, playout.frames[FrameSource.DRED]
    reason = None
    if not offered:
        reason = "the peer does not offer it"
    elif not carried:
        reason = "the peer sees no need for it" if playout.frames else "nothing received yet"
    elif not used:
        reason = "no hole needed it"
    if decoder.dred_damaged:
        reason = f"unreadable in {decoder.dred_damaged} packets"
    return DredUse(carried=carried, parsed=decoder.dred_parsed, used=used, reason=reason)


def inbound_stats(session: RtpSession, buffer: JitterBuffer, playout: Playout) -> InboundStats:
    """What has been received and played."""
    names = {field.name for field in fields(InboundStats)}
    received = session.stats()["inbound-rtp"]
    jitter_buffer = buffer.stats
    values = {**received, **jitter_buffer.webrtc()}
    meter = playout.meter
    return InboundStats(
        **{name: value for name, value in values.items() if name in names},  # type: ignore[arg-type]
        packetsDuplicated=jitter_buffer.packets_duplicated,
        audioLevel=meter.level,
        totalAudioEnergy=meter.total_energy,
        totalSamplesDuration=meter.total_duration,
        totalProcessingDelay=playout.processing_delay,
    )


def outbound_stats(session: RtpSession, sender: Sender, bitrate: int) -> OutboundStats:
    """What has been sent, with `bitrate` (bits/s) as the target, and what the peer says of it."""
    statistics = session.stats()
    sent, remote = statistics["outbound-rtp"], statistics["remote-inbound-rtp"]
    meter = sender.meter
    return OutboundStats(
        packetsSent=int(sent["packetsSent"] or 0),
        bytesSent=int(sent["bytesSent"] or 0),
        targetBitrate=float(bitrate),
        audioLevel=meter.level,
        totalAudioEnergy=meter.total_energy,
        totalSamplesDuration=meter.total_duration,
        remote=RemoteStats(**remote),  # type: ignore[arg-type]
    )


def _deadlines(call: Call, control: ControlTimer) -> DeadlineReport:
    deadlines = call.sink.stats.deadlines
    work = deadlines.busy.summary_ms() if deadlines.total else {}
    wake = call.sink.stats.lateness.summary_ms() if deadlines.total else {}
    return DeadlineReport(
        total=deadlines.total,
        missed=deadlines.missed,
        worst_ms=1e3 * deadlines.worst,
        p50_ms=work.get("p50"),
        p99_ms=work.get("p99"),
        p999_ms=work.get("p999"),
        max_ms=work.get("max"),
        wake_p999_ms=wake.get("p999"),
        wake_max_ms=wake.get("max"),
        machine_stalls=control.count_explained(deadlines.misses),
    )


def _dred_use(call: Call) -> DredUse | None:
    if not call.options.recovery.dred:
        return None
    offered = bool(call.remote.opus.sprop_dred_duration)
    return dred_use(call.buffer, call.decoder, call.playout, offered=offered)


def _sent_bitrate(call: Call) -> Bitrate | None:
    sender = call.sender
    return mean_bitrate(sender.payload_bytes, sender.dred_bytes, call.seconds, sender.red_bytes)


def _received_bitrate(call: Call) -> Bitrate | None:
    dred = call.buffer.stats.dred_bytes_received
    session = call.session
    return mean_bitrate(session.bytes_received, dred, call.seconds, session.red_bytes_received)


def mean_bitrate(
    payload_bytes: int, dred_bytes: int, seconds: float, red_bytes: int = 0
) -> Bitrate | None:
    """Of `payload_bytes`, redundancy included, in so many seconds; None without any."""
    if not payload_bytes or seconds <= 0:
        return None
    opus_bytes = payload_bytes - dred_bytes - red_bytes
    return Bitrate(*(8 * count / seconds for count in (opus_bytes, dred_bytes, red_bytes)))


def _level(meter: LevelMeter) -> Level:
    return Level(meter.rms_db, meter.held_db)


def _impairments(options: CallOptions, kind: str) -> str | None:
    ways = {"sending": options.outbound, "receiving": options.inbound}
    stated = [
        f"{way}: {getattr(impairment, kind)}"
        for way, impairment in ways.items()
        if _states(impairment, kind)
    ]
    return ", ".join(stated) or None


def _states(impairment: Impairment, kind: str) -> bool:
    return getattr(impairment, kind) is not None


def _cpu_seconds(who: int) -> float:
    usage = resource.getrusage(who)
    return usage.ru_utime + usage.ru_stime


def _rss_mb() -> float:
    """Resident memory now, 10^6 bytes; its peak where the system does not tell."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE") / 1e6
    except OSError:
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak / 1e6 if sys.platform == "darwin" else peak * 1024 / 1e6
