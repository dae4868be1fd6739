"""The RTCP side of a session: reports sent, reports received, and what both together tell."""

from __future__ import annotations

from random import Random

from aiortc.rtp import (
    RtcpByePacket,
    RtcpReceiverInfo,
    RtcpRrPacket,
    RtcpSdesPacket,
    RtcpSenderInfo,
    RtcpSourceInfo,
    RtcpSrPacket,
)

from app.net.bursts import BurstMetrics
from app.net.clockmap import ClockMap, shares_wall_clock
from app.net.rtcp import (
    SDES_CNAME,
    ReceptionReport,
    ReportReceived,
    RtcpTimer,
    SenderInfo,
    ntp_short,
    round_trip_time,
)
from app.net.rtp import RtpSender, SourceStatistics
from app.net.xr import pack_voip_metrics
from codec import RTP_CLOCK

REPORTS_REMEMBERED = 64
"""Sender reports an answer may refer to; older ones say nothing about the present round trip."""


def make_cname(rng: Random, host_token: str) -> str:
    """A canonical name for one call: random before the @ as RFC 7022 asks, the host token after it.

    32 characters: with these, an SDES chunk ends on a 32-bit boundary.
    """
    return f"{rng.getrandbits(60):015x}@{host_token}"


class ReportExchange:
    """Writes our reports and reads the peer's."""

    def __init__(self, sender: RtpSender, cname: str, timer: RtcpTimer) -> None:
        self.cname = cname
        self.timer = timer
        self.clock_map = ClockMap()
        self.sender_info: SenderInfo | None = None
        self.reception: ReceptionReport | None = None
        self.round_trip: float | None = None
        """Seconds, the latest measured."""
        self.round_trips = 0
        self.total_round_trip = 0.0
        """Seconds, the sum of all measured."""
        self._sender = sender
        self._sent_before = (0, 0)
        self._received_before = 0
        self._sent: dict[int, None] = {}
        self._latest: tuple[int, float] | None = None
        self._latest_ssrc: int | None = None

    def report_due(self, now: float) -> bool:
        # between two parties the first may go out at once (RFC 3550 section 6.2), and only with it
        # does the peer know when what it hears was captured
        if self._sender.packets and not self._sent:
            return True
        return self.timer.expired(now, self._we_sent())

    def make_report(
        self, now: float, ntp: int, source: SourceStatistics | None, source_ssrc: int | None
    ) -> bytes:
        data = self._compound(now, ntp, source, source_ssrc)
        self.timer.account(len(data))
        self.timer.restart(now, self._we_sent())
        self._sent_before = (self._sent_before[1], self._sender.packets)
        return data

    def make_bye(
        self, now: float, ntp: int, source: SourceStatistics | None, source_ssrc: int | None
    ) -> bytes:
        bye = RtcpByePacket(sources=[self._sender.ssrc])
        return self._compound(now, ntp, source, source_ssrc) + bytes(bye)

    def _we_sent(self) -> bool:
        """Since the report before the previous one (RFC 3550 section 6.4)."""
        return self._sender.packets > self._sent_before[0]

    def _compound(
        self, now: float, ntp: int, source: SourceStatistics | None, source_ssrc: int | None
    ) -> bytes:
        blocks = []
        extended = b""
        # only about sources heard since the previous report (RFC 3550 section 6.4)
        if source and source_ssrc is not None and source.received != self._received_before:
            self._received_before = source.received
            blocks.append(self._block(now, source, source_ssrc))
            extended = self._extended(source, source_ssrc)
        first: RtcpSrPacket | RtcpRrPacket
        if self._we_sent():
            info = RtcpSenderInfo(
                ntp_timestamp=ntp,
                rtp_timestamp=self._sender.timestamp_at(now),
                packet_count=self._sender.packets & 0xFFFF_FFFF,
                octet_count=self._sender.octets & 0xFFFF_FFFF,
            )
            first = RtcpSrPacket(self._sender.ssrc, info, blocks)
            self._sent[ntp_short(ntp)] = None
            if len(self._sent) > REPORTS_REMEMBERED:
                del self._sent[next(iter(self._sent))]
        else:
            first = RtcpRrPacket(self._sender.ssrc, blocks)
        name = RtcpSourceInfo(self._sender.ssrc, [(SDES_CNAME, self.cname.encode())])
        return bytes(first) + bytes(RtcpSdesPacket([name])) + extended

    def _extended(self, source: SourceStatistics, ssrc: int) -> bytes:
        metrics = source.bursts.metrics()
        if metrics is None:
            return b""
        return pack_voip_metrics(self._sender.ssrc, ssrc, metrics, self.round_trip)

    def _block(self, now: float, source: SourceStatistics, ssrc: int) -> RtcpReceiverInfo:
        statistics = source.report()
        last_report = delay = 0
        if self._latest:
            last_report, arrival = self._latest
            delay = min(max(0, round((now - arrival) * 65536)), 0xFFFF_FFFF)
        return RtcpReceiverInfo(
            ssrc=ssrc,
            fraction_lost=statistics.fraction_lost,
            packets_lost=statistics.packets_lost,
            highest_sequence=statistics.highest_sequence,
            jitter=statistics.jitter,
            lsr=last_report,
            dlsr=delay,
        )

    def on_report(
        self,
        report: RtcpSrPacket | RtcpRrPacket,
        name: str | None,
        bursts: BurstMetrics | None,
        arrival: float,
        ntp: int,
    ) -> ReportReceived:
        """`ntp` is the wall-clock time at `arrival`; CNAME and extended report come beside it."""
        sender: SenderInfo | None = None
        if isinstance(report, RtcpSrPacket):
            info = report.sender_info
            sender = SenderInfo(
                info.ntp_timestamp, info.rtp_timestamp, info.packet_count, info.octet_count
            )
            self.sender_info = sender
            self._latest = (ntp_short(sender.ntp), arrival)
            self._latest_ssrc = report.ssrc
            self.clock_map.on_sender_report(sender.ntp, sender.rtp_timestamp)
            if name is not None and shares_wall_clock(self.cname, name):
                self.clock_map.on_shared_wall_clock(ntp, arrival)
        reception: ReceptionReport | None = None
        for block in report.reports:
            if block.ssrc == self._sender.ssrc:
                reception = self._read_block(block, ntp)
        if sender and reception and reception.round_trip is not None:
            self.clock_map.on_exchange(sender.ntp, arrival, reception.round_trip)
        return ReportReceived(report.ssrc, sender, reception, bursts, arrival)

    def _read_block(self, block: RtcpReceiverInfo, ntp: int) -> ReceptionReport:
        round_trip = None
        if block.lsr in self._sent:
            round_trip = round_trip_time(ntp_short(ntp), block.lsr, block.dlsr)
            self.round_trip = round_trip
            self.round_trips += 1
            self.total_round_trip += round_trip
        self.reception = ReceptionReport(
            fraction_lost=block.fraction_lost / 256,
            packets_lost=block.packets_lost,
            highest_sequence=block.highest_sequence,
            jitter=block.jitter / RTP_CLOCK,
            round_trip=round_trip,
        )
        return self.reception

    def on_new_source(self, ssrc: int) -> None:
        """Media is taken from `ssrc` from now on; what another source reported is void."""
        self._received_before = 0
        if self._latest_ssrc != ssrc:
            self._latest = None
            self.sender_info = None
            self.clock_map.reset()
