"""RTCP: compound packets, their timing, NTP arithmetic (RFC 3550 section 6)."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from random import Random

from aiortc.rtp import (
    RTCP_BYE,
    RTCP_RR,
    RTCP_SDES,
    RTCP_SR,
    RtcpByePacket,
    RtcpRrPacket,
    RtcpSdesPacket,
    RtcpSrPacket,
)

from app.net.bursts import BurstMetrics
from app.net.xr import RTCP_XR, ExtendedReport, parse_extended_report

NTP_UNIX_OFFSET = 2_208_988_800
"""Seconds from 1900 to 1970."""

SDES_CNAME = 1

UDP_IP_HEADER = 28
"""Bytes per datagram that count as RTCP traffic too (RFC 3550 section 6.2)."""

BANDWIDTH_SHARE = 0.05
SENDER_SHARE = 0.25
COMPENSATION = 2.71828 - 1.5
"""Timer reconsideration makes the mean interval shorter by this factor (RFC 3550 section 6.3.1)."""

RtcpPiece = RtcpSrPacket | RtcpRrPacket | RtcpSdesPacket | RtcpByePacket | ExtendedReport


def ntp_from_unix_ns(nanoseconds: int) -> int:
    """Wall-clock time as a 64-bit NTP timestamp, seconds in the upper half."""
    seconds, rest = divmod(nanoseconds, 1_000_000_000)
    return (((seconds + NTP_UNIX_OFFSET) << 32) + (rest << 32) // 1_000_000_000) & (2**64 - 1)


def ntp_short(ntp: int) -> int:
    """The middle 32 bits, in 1/65536 s: what LSR is made of."""
    return (ntp >> 16) & 0xFFFF_FFFF


def ntp_seconds_between(earlier: int, later: int) -> float:
    """Seconds from one 64-bit NTP timestamp to another, across the end of an era too."""
    return (((later - earlier + 2**63) & (2**64 - 1)) - 2**63) / 2**32


def round_trip_time(arrival: int, last_report: int, delay: int) -> float:
    """A - LSR - DLSR in seconds (RFC 3550 section 6.4.1), all three in 1/65536 s, 32 bit.

    Rounding can take a quick path a few units below zero; that is zero.
    """
    units = ((arrival - last_report - delay + 2**31) & 0xFFFF_FFFF) - 2**31
    return max(0, units) / 65536


def parse_compound(data: bytes) -> tuple[list[RtcpPiece], int]:
    """The pieces of a compound packet that we know, and how many there are of other types.

    Raises ValueError if it fails a check of RFC 3550 appendix A.2 or a piece contradicts its
    length. Profile-specific extensions after the report blocks are passed over.
    """
    pieces: list[RtcpPiece] = []
    unknown = 0
    position = 0
    if len(data) < 8 or data[1] not in (RTCP_SR, RTCP_RR):
        raise ValueError("RTCP does not start with a report")
    while position < len(data):
        if len(data) - position < 4:
            raise ValueError("RTCP header is truncated")
        first, kind, words = struct.unpack_from("!BBH", data, position)
        end = position + 4 + 4 * words
        if first >> 6 != 2:
            raise ValueError("RTCP version is not 2")
        if end > len(data):
            raise ValueError("RTCP packet is truncated")
        body = data[position + 4 : end]
        if first & 0x20:
            if end != len(data):
                raise ValueError("RTCP padding before the last packet")
            if not body or not 0 < body[-1] <= len(body):
                raise ValueError("RTCP padding length is invalid")
            body = body[: -body[-1]]
        piece = _parse_piece(kind, first & 0x1F, body)
        if piece:
            pieces.append(piece)
        else:
            unknown += 1
        position = end
    return pieces, unknown


def _parse_piece(kind: int, count: int, body: bytes) -> RtcpPiece | None:
    if kind == RTCP_SR:
        return RtcpSrPacket.parse(body[: 24 + 24 * count], count)
    if kind == RTCP_RR:
        return RtcpRrPacket.parse(body[: 4 + 24 * count], count)
    if kind == RTCP_SDES:
        return RtcpSdesPacket.parse(body, count)
    if kind == RTCP_BYE:
        return RtcpByePacket.parse(body, count)
    if kind == RTCP_XR:
        return parse_extended_report(body)
    return None


def cname_in(description: RtcpSdesPacket, ssrc: int) -> str | None:
    """The canonical name the source gives itself."""
    for chunk in description.chunks:
        if chunk.ssrc == ssrc:
            for kind, value in chunk.items:
                if kind == SDES_CNAME:
                    return value.decode("utf-8", "replace")
    return None


@dataclass(frozen=True, slots=True)
class SenderInfo:
    """What the peer says it has sent."""

    ntp: int
    """Wall-clock time of the report, 64 bit."""
    rtp_timestamp: int
    """Of the same instant."""
    packets: int
    octets: int


@dataclass(frozen=True, slots=True)
class ReceptionReport:
    """What the peer says about the reception of our stream."""

    fraction_lost: float
    """0..1, since its previous report."""
    packets_lost: int
    """Since the beginning; duplicates may take it below zero."""
    highest_sequence: int
    """Extended by the count of wraps."""
    jitter: float
    """Seconds."""
    round_trip: float | None
    """Seconds; None if the report does not answer a sender report of ours."""


@dataclass(frozen=True, slots=True)
class ReportReceived:
    ssrc: int
    sender: SenderInfo | None
    reception: ReceptionReport | None
    bursts: BurstMetrics | None
    """What the peer says about loss in our stream over the last seconds, if it does."""
    arrival: float
    """Monotonic seconds."""


@dataclass(frozen=True, slots=True)
class ByeReceived:
    ssrc: int
    arrival: float
    """Monotonic seconds."""


def rtcp_interval(
    *,
    members: int,
    senders: int,
    bandwidth: float,
    we_sent: bool,
    average_size: float,
    minimum: float,
    rng: Random,
) -> float:
    """Seconds until the next report (RFC 3550 section 6.3.1, appendix A.7).

    `bandwidth` is RTCP's share, in bytes per second. Halve `minimum` for the first report.
    """
    contenders = members
    if senders <= members * SENDER_SHARE:
        if we_sent:
            bandwidth *= SENDER_SHARE
            contenders = senders
        else:
            bandwidth *= 1 - SENDER_SHARE
            contenders -= senders
    interval = max(minimum, average_size * contenders / bandwidth)
    return interval * (rng.random() + 0.5) / COMPENSATION


class RtcpTimer:
    """When to report in a session of two.

    RFC 3550 asks for at least 5 s between reports on average, or 360 s divided by the session's
    kb/s (section 6.2), so that large groups do not flood their links when they form. Two parties
    cannot: the default minimum of 1 s costs about 1 kb/s each way and lets loss be reported while
    it still matters. The bound of 5 % of the session's bandwidth, shared by both, is kept.
    """

    def __init__(self, now: float, rng: Random, *, session_bandwidth: int, minimum: float) -> None:
        self._rng = rng
        self._bandwidth = session_bandwidth / 8 * BANDWIDTH_SHARE
        self._minimum = minimum
        self._average_size = 128.0
        self._previous = now
        self._first = True
        self.due = now + self._interval(we_sent=False)

    def _interval(self, we_sent: bool) -> float:
        return rtcp_interval(
            members=2,
            senders=2 if we_sent else 1,
            bandwidth=self._bandwidth,
            we_sent=we_sent,
            average_size=self._average_size,
            minimum=self._minimum / 2 if self._first else self._minimum,
            rng=self._rng,
        )

    def account(self, size: int) -> None:
        """A compound packet of `size` bytes was sent or received."""
        self._average_size += (size + UDP_IP_HEADER - self._average_size) / 16

    def expired(self, now: float, we_sent: bool) -> bool:
        """Whether to report now. If so, `restart` is to follow; if not, `due` may have moved."""
        if now < self.due:
            return False
        # reconsideration (RFC 3550 section 6.3.6)
        self.due = self._previous + self._interval(we_sent)
        return self.due <= now

    def restart(self, now: float, we_sent: bool) -> None:
        """A report goes out now."""
        self._first = False
        self._previous = now
        self.due = now + self._interval(we_sent)
