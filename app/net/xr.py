"""RTCP extended reports: the VoIP metrics block (RFC 3611)."""

from __future__ import annotations

import struct
from dataclasses import dataclass

from app.net.bursts import GMIN, BurstMetrics

RTCP_XR = 207
VOIP_METRICS = 7

UNAVAILABLE = 127
"""For levels, echo return loss, R factors and opinion scores: we measure none of them."""

_BLOCK = struct.Struct("!BBHL 4B HHHH bbBB BBBB BBHHH")
_WORDS = _BLOCK.size // 4 - 1
"""The block's length as it states it: 8, and no other (section 4.7)."""

_MAX_MS = 0xFFFF


@dataclass(frozen=True, slots=True)
class ExtendedReport:
    ssrc: int
    """Who reports."""
    bursts: dict[int, BurstMetrics]
    """By the SSRC of the stream it is about."""


def _share(value: float) -> int:
    """0..1 as a fraction of 256; the RFC cuts off and caps at 255."""
    return max(0, min(255, int(256 * value)))


def _milliseconds(value: float) -> int:
    return max(0, min(_MAX_MS, round(value)))


def pack_voip_metrics(
    ssrc: int, about: int, metrics: BurstMetrics, round_trip: float | None
) -> bytes:
    """An XR packet of `ssrc` with one VoIP metrics block about the stream `about`.

    `round_trip` in seconds. Discards, end system delay and jitter buffer are not known to who
    receives the packets: 0. Nothing is said of concealment ("unspecified").
    """
    block = _BLOCK.pack(
        *(VOIP_METRICS, 0, _WORDS, about),
        *(_share(metrics.loss_rate), 0),
        *(_share(metrics.burst_density), _share(metrics.gap_density)),
        *(_milliseconds(metrics.burst_ms), _milliseconds(metrics.gap_ms)),
        *(_milliseconds(1e3 * (round_trip or 0.0)), 0),
        *(UNAVAILABLE, UNAVAILABLE, UNAVAILABLE, GMIN),
        *(UNAVAILABLE, UNAVAILABLE, UNAVAILABLE, UNAVAILABLE),
        *(0, 0, 0, 0, 0),
    )
    return struct.pack("!BBHL", 2 << 6, RTCP_XR, 1 + len(block) // 4, ssrc) + block


def parse_extended_report(body: bytes) -> ExtendedReport:
    """What follows the header of an XR packet. Blocks of other types, or lengths, are skipped.

    Raises ValueError if a block is longer than the packet.
    """
    if len(body) < 4:
        raise ValueError("RTCP extended report without SSRC")
    report = ExtendedReport(int.from_bytes(body[:4], "big"), {})
    position = 4
    while position < len(body):
        if len(body) - position < 4:
            raise ValueError("RTCP extended report block header is truncated")
        kind, _, words = struct.unpack_from("!BBH", body, position)
        end = position + 4 + 4 * words
        if end > len(body):
            raise ValueError("RTCP extended report block is truncated")
        if kind == VOIP_METRICS and words == _WORDS:
            fields = _BLOCK.unpack_from(body, position)
            about, loss, _, burst_density, gap_density, burst, gap = fields[3:10]
            report.bursts[about] = BurstMetrics(
                loss / 256, burst_density / 256, gap_density / 256, float(burst), float(gap)
            )
        position = end
    return report
