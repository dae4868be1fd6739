"""The RTP session of a call: one stream each way and the reports about them, without I/O."""

from __future__ import annotations

import struct
from collections import Counter
from enum import StrEnum
from random import Random

from aiortc.rtp import RtcpByePacket, RtcpRrPacket, RtcpSdesPacket, RtcpSrPacket

from app.net.bursts import BurstMetrics
from app.net.clockmap import ClockEstimate, ClockMap
from app.net.red import RedError, unpack_red
from app.net.reports import ReportExchange
from app.net.rtcp import ByeReceived, ReportReceived, RtcpTimer, cname_in, parse_compound
from app.net.rtp import (
    MAX_DATAGRAM,
    RtpReceived,
    RtpSender,
    SourceStatistics,
    parse_rtp,
    random_ssrc,
)
from app.net.xr import ExtendedReport
from codec import RTP_CLOCK

Event = RtpReceived | ReportReceived | ByeReceived

Stats = dict[str, dict[str, int | float | None]]

RTCP_TYPES = range(192, 224)
"""Second bytes that mark RTCP on a shared port (RFC 5761 section 4)."""


def is_rtcp(data: bytes) -> bool:
    """Whether a datagram on a shared port is RTCP; total, any bytes."""
    return len(data) >= 2 and data[1] in RTCP_TYPES


class DropReason(StrEnum):
    """Why a datagram, or a part of it, led to no event."""

    TOO_LARGE = "too large"
    MALFORMED = "malformed"
    LOOP = "own SSRC"
    WRONG_SSRC = "wrong SSRC"
    WRONG_PAYLOAD_TYPE = "wrong payload type"
    PROBATION = "source on probation"
    OUT_OF_RUN = "sequence out of run"
    EMPTY = "no payload"
    UNKNOWN_RTCP = "unknown RTCP packet"


class RtpSession:
    """Packetises, parses, counts and reports. Bytes, time and randomness are arguments.

    `packetise` may run on one thread while the rest runs on another.

    Media is taken from one source only: `peer_ssrc` if signalling announced it (`a=ssrc`),
    otherwise the first to send two packets in sequence (RFC 3550 appendix A.1), of which the first
    is held back and delivered with the second. The source stays until its BYE; after that its late
    packets are dropped, and another may follow if none was announced.

    A packet with our own SSRC is a loop or a collision and is dropped either way (RFC 3550 section
    8.2). Collisions are avoided beforehand by choosing an SSRC other than the announced one.
    """

    def __init__(
        self,
        *,
        now: float,
        rng: Random,
        cname: str,
        payload_type: int,
        red_payload_type: int | None = None,
        ssrc: int | None = None,
        peer_ssrc: int | None = None,
        session_bandwidth: int = 64_000,
        minimum_interval: float = 1.0,
    ) -> None:
        """`session_bandwidth` in bits/s, `minimum_interval` of RTCP and `now` in seconds.

        `red_payload_type` if it was agreed to send redundancy by RFC 2198.
        """
        self.ssrc = random_ssrc(rng, avoid=peer_ssrc) if ssrc is None else ssrc
        self.dropped: Counter[DropReason] = Counter()
        self.bytes_received = 0
        """Of accepted RTP payload."""
        self.red_bytes_received = 0
        """Of these, copies of earlier packets and what it takes to tell them apart."""
        self.last_heard: float | None = None
        """Monotonic instant of the peer's latest valid RTP or RTCP."""
        self._payload_type = payload_type
        self._red_payload_type = red_payload_type
        self._sender = RtpSender(self.ssrc, payload_type, rng)
        timer = RtcpTimer(now, rng, session_bandwidth=session_bandwidth, minimum=minimum_interval)
        self._reports = ReportExchange(self._sender, cname, timer)
        self._announced_ssrc = peer_ssrc
        self._source_ssrc = peer_ssrc
        self._departed_ssrc: int | None = None
        self._source: SourceStatistics | None = None
        self._candidate: RtpReceived | None = None

    @property
    def rtp_origin(self) -> int:
        """What is added to media timestamps: RTP begins at a random one."""
        return self._sender.origin

    @property
    def peer_ssrc(self) -> int | None:
        """The source media is taken from, once known."""
        return self._source_ssrc

    @property
    def round_trip(self) -> float | None:
        """Seconds, by the peer's latest report that answers one of ours."""
        return self._reports.round_trip

    @property
    def clock_map(self) -> ClockMap:
        return self._reports.clock_map

    def packetise(
        self,
        payload: bytes,
        timestamp: int,
        captured_at: float,
        marker: bool = False,
        red: bool = False,
    ) -> bytes:
        """The RTP packet of one Opus packet, or of one that repeats others before it (`red`).

        `timestamp` counts 48 kHz ticks from 0, `captured_at` is the monotonic instant of its first
        sample: sender reports tie the one to the other. `marker` on the first packet after silence
        (RFC 7587 section 4.1).
        """
        payload_type = self._red_payload_type if red else None
        return self._sender.packetise(payload, timestamp, captured_at, marker, payload_type)

    @property
    def rtcp_due_at(self) -> float:
        """Monotonic instant at which to ask `rtcp_due` next."""
        return self._reports.timer.due

    def rtcp_due(self, now: float) -> bool:
        """Whether `make_report` is to be called now. Asking may put the next report off."""
        return self._reports.report_due(now)

    def make_report(self, now: float, ntp: int) -> bytes:
        """A compound packet of SR or RR and SDES, and the timer set for the next.

        If anything was received since the previous one, XR follows. `ntp` is the wall-clock time
        at `now`, 64-bit NTP (see `WallClock`).
        """
        return self._reports.make_report(now, ntp, self._source, self._source_ssrc)

    def make_bye(self, now: float, ntp: int) -> bytes:
        """The last compound packet of the session, ending in BYE.

        To be sent at once: only sessions of fifty and more delay it (RFC 3550 section 6.3.7).
        """
        return self._reports.make_bye(now, ntp, self._source, self._source_ssrc)

    def receive(self, data: bytes, arrival: float, ntp: int) -> list[Event]:
        """What a datagram amounts to; nothing, and a count in `dropped`, if it is of no use.

        Total: any bytes. `arrival` is its monotonic instant, `ntp` the wall-clock time then.
        """
        if len(data) > MAX_DATAGRAM:
            return self._drop(DropReason.TOO_LARGE)
        try:
            if is_rtcp(data):
                return self._receive_rtcp(data, arrival, ntp)
            return self._receive_rtp(parse_rtp(data, arrival))
        except (ValueError, struct.error):
            return self._drop(DropReason.MALFORMED)

    def _drop(self, reason: DropReason) -> list[Event]:
        self.dropped[reason] += 1
        return []

    def _unwanted(self, ssrc: int) -> DropReason | None:
        if ssrc == self.ssrc:
            return DropReason.LOOP
        if ssrc == self._departed_ssrc or self._source_ssrc not in (None, ssrc):
            return DropReason.WRONG_SSRC
        return None

    def _receive_rtp(self, received: RtpReceived) -> list[Event]:
        if reason := self._unwanted(received.ssrc):
            return self._drop(reason)
        if self._source_ssrc is None:
            return self._put_on_probation(received)
        if self._source is None:
            self._start_source(received)
        return self._accept(received)

    def _put_on_probation(self, received: RtpReceived) -> list[Event]:
        if not self._is_media(received.payload_type):
            return self._drop(DropReason.WRONG_PAYLOAD_TYPE)
        held, self._candidate = self._candidate, received
        if held is None:
            return []
        follows = received.sequence == (held.sequence + 1) & 0xFFFF
        if received.ssrc != held.ssrc or not follows:
            return self._drop(DropReason.PROBATION)
        self._candidate = None
        self._start_source(held)
        return self._accept(held) + self._accept(received)

    def _start_source(self, first: RtpReceived) -> None:
        self._source_ssrc = first.ssrc
        self._source = SourceStatistics(first.sequence)
        self._reports.on_new_source(first.ssrc)

    def _accept(self, received: RtpReceived) -> list[Event]:
        """Counts a packet of the right source and delivers it if it is of use."""
        assert self._source
        if not self._source.update_sequence(received.sequence):
            return self._drop(DropReason.OUT_OF_RUN)
        self.last_heard = received.arrival
        if not self._is_media(received.payload_type):
            return self._drop(DropReason.WRONG_PAYLOAD_TYPE)
        self._source.update_jitter(received.timestamp, received.arrival)
        size = len(received.payload)
        if received.payload_type == self._red_payload_type:
            try:
                received = self._unpack(received)
            except RedError:
                return self._drop(DropReason.MALFORMED)
        if not received.payload:
            return self._drop(DropReason.EMPTY)
        self.bytes_received += size
        self.red_bytes_received += size - len(received.payload)
        return [received]

    def _is_media(self, payload_type: int) -> bool:
        return payload_type in (self._payload_type, self._red_payload_type)

    def _unpack(self, received: RtpReceived) -> RtpReceived:
        payload, copies = unpack_red(
            received.payload, self._payload_type, received.sequence, received.timestamp
        )
        return received._replace(payload_type=self._payload_type, payload=payload, copies=copies)

    def _receive_rtcp(self, data: bytes, arrival: float, ntp: int) -> list[Event]:
        pieces, unknown = parse_compound(data)
        report = pieces[0]
        assert isinstance(report, RtcpSrPacket | RtcpRrPacket)
        ssrc = report.ssrc
        if reason := self._unwanted(ssrc):
            return self._drop(reason)
        if unknown:
            self.dropped[DropReason.UNKNOWN_RTCP] += unknown
        self._reports.timer.account(len(data))
        self.last_heard = arrival
        name: str | None = None
        bursts: BurstMetrics | None = None
        gone = False
        for piece in pieces:
            if isinstance(piece, RtcpSdesPacket):
                name = cname_in(piece, ssrc) or name
            elif isinstance(piece, ExtendedReport) and piece.ssrc == ssrc:
                bursts = piece.bursts.get(self.ssrc, bursts)
            elif isinstance(piece, RtcpByePacket):
                gone = gone or ssrc in piece.sources
        events: list[Event] = [self._reports.on_report(report, name, bursts, arrival, ntp)]
        if gone:
            events.append(ByeReceived(ssrc, arrival))
            self._departed_ssrc = ssrc
            self._source_ssrc = self._announced_ssrc
            self._candidate = None
        return events

    def captured_at(self, timestamp: int) -> ClockEstimate | None:
        """When the peer captured the sample of an RTP timestamp, by our clock. Any thread."""
        return self.clock_map.estimate(timestamp)

    def stats(self) -> Stats:
        """Counters by their W3C webrtc-stats names; times in seconds. None: not known yet."""
        source, reception = self._source, self._reports.reception
        info = self._reports.sender_info
        return {
            "inbound-rtp": {
                "packetsReceived": source.received if source else 0,
                "bytesReceived": self.bytes_received,
                "packetsLost": source.lost if source else 0,
                "jitter": source.jitter / RTP_CLOCK if source else None,
            },
            "outbound-rtp": {
                "packetsSent": self._sender.packets,
                "bytesSent": self._sender.octets,
            },
            "remote-inbound-rtp": {
                "packetsLost": reception.packets_lost if reception else None,
                "fractionLost": reception.fraction_lost if reception else None,
                "jitter": reception.jitter if reception else None,
                "roundTripTime": self._reports.round_trip,
                "totalRoundTripTime": self._reports.total_round_trip,
                "roundTripTimeMeasurements": self._reports.round_trips,
            },
            "remote-outbound-rtp": {
                "packetsSent": info.packets if info else None,
                "bytesSent": info.octets if info else None,
            },
        }
