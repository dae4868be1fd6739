"""One RTP stream each way: sequence arithmetic, packetisation, reception statistics (RFC 3550)."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random
from struct import Struct
from typing import NamedTuple

from aiortc.rtp import RtpPacket, clamp_packets_lost

from app.net.bursts import BurstMeter
from app.net.red import Copy
from codec import RTP_CLOCK

MAX_DATAGRAM = 2048
"""Bytes. No network without jumbo frames carries more than 1500 in one piece."""

_HEADER = Struct("!BBHII")
PLAIN = 0x80
"""First byte of a packet of version 2 with no padding, no header extension and no CSRC."""

MAX_DROPOUT = 3000
MAX_MISORDER = 100
"""Sequence steps that still belong to the same run of packets (RFC 3550 appendix A.1)."""

MAX_TRANSIT_STEP = 5 * RTP_CLOCK
"""A transit time that changes by more means a restarted clock; it would drown the mean."""


def sequence_difference(a: int, b: int) -> int:
    """How far sequence number a is ahead of b, -32768..32767."""
    return ((a - b + 0x8000) & 0xFFFF) - 0x8000


def timestamp_difference(a: int, b: int) -> int:
    """How many ticks RTP timestamp a is ahead of b, -2**31..2**31-1."""
    return ((a - b + 0x8000_0000) & 0xFFFF_FFFF) - 0x8000_0000


def random_ssrc(rng: Random, avoid: int | None = None) -> int:
    """A synchronisation source identifier other than `avoid`, the peer's."""
    while (ssrc := rng.getrandbits(32)) == avoid:
        pass
    return ssrc


class RtpReceived(NamedTuple):
    """A media packet of the peer."""

    sequence: int
    """16 bit, wraps."""
    timestamp: int
    """32 bit, wraps, 48 kHz ticks from the sender's random origin."""
    ssrc: int
    marker: bool
    payload_type: int
    payload: bytes
    arrival: float
    """Monotonic seconds."""
    copies: tuple[Copy, ...] = ()
    """Earlier packets that came along as redundancy, newest first."""


def parse_rtp(data: bytes, arrival: float) -> RtpReceived:
    """An RTP packet, whatever its SSRC and payload type. Raises ValueError, struct.error.

    What nearly every packet looks like is read here, anything else by aiortc's parser.
    """
    if len(data) >= _HEADER.size and data[0] == PLAIN:
        _, second, sequence, timestamp, ssrc = _HEADER.unpack_from(data)
        payload = data[_HEADER.size :]
        return RtpReceived(
            sequence, timestamp, ssrc, second > 0x7F, second & 0x7F, payload, arrival
        )
    packet = RtpPacket.parse(data)
    return RtpReceived(
        packet.sequence_number,
        packet.timestamp,
        packet.ssrc,
        bool(packet.marker),
        packet.payload_type,
        packet.payload,
        arrival,
    )


class RtpSender:
    """Numbers and stamps the packets of one stream.

    Sequence and timestamp start at random values (RFC 3550 section 5.1): a known start helps an
    attack on encryption, and wrap-around is met early in every deployment.
    """

    def __init__(self, ssrc: int, payload_type: int, rng: Random) -> None:
        self.ssrc = ssrc
        self.payload_type = payload_type
        self._sequence = rng.getrandbits(16)
        self.origin = rng.getrandbits(32)
        self._latest: tuple[int, float] | None = None
        self.packets = 0
        self.octets = 0
        """Of payload, without headers and padding (RFC 3550 section 6.4.1)."""

    def packetise(
        self,
        payload: bytes,
        timestamp: int,
        captured_at: float,
        marker: bool,
        payload_type: int | None = None,
    ) -> bytes:
        header = _HEADER.pack(
            PLAIN,
            marker << 7 | (self.payload_type if payload_type is None else payload_type),
            self._sequence,
            (self.origin + timestamp) & 0xFFFF_FFFF,
            self.ssrc,
        )
        self._sequence = (self._sequence + 1) & 0xFFFF
        self._latest = (timestamp, captured_at)
        self.packets += 1
        self.octets += len(payload)
        return header + payload

    def timestamp_at(self, now: float) -> int:
        """RTP timestamp of the sample captured at `now`, had there been one.

        Counted on from the latest packet, as a sender report needs it. Random origin before any.
        """
        timestamp, captured_at = self._latest or (0, now)
        return (self.origin + timestamp + round((now - captured_at) * RTP_CLOCK)) & 0xFFFF_FFFF


@dataclass(frozen=True, slots=True)
class ReceptionStatistics:
    """What a report block says, in the units it says it in."""

    fraction_lost: int
    """Of the packets expected since the previous report, in 1/256."""
    packets_lost: int
    """Since the beginning, signed 24 bit; duplicates make it fall below zero."""
    highest_sequence: int
    """Extended by the count of wraps."""
    jitter: int
    """Ticks."""


class SourceStatistics:
    """Reception of one source after RFC 3550 appendices A.1, A.3 and A.8.

    Probation is left to the session, which knows whether the source was announced.
    """

    def __init__(self, sequence: int) -> None:
        """`sequence` is that of the first packet, which is still to be counted."""
        self.received = 0
        self.jitter = 0.0
        """Smoothed difference of transit times, ticks."""
        self.bursts = BurstMeter()
        self._transit: tuple[float, int] | None = None
        self._lost_earlier = 0
        self._restart(sequence)

    def _restart(self, sequence: int) -> None:
        self._base = sequence
        self._highest = sequence
        self._cycles = 0
        self._after_bad: int | None = None
        self._received_at_base = self.received
        self._expected_prior = 0
        self._received_prior = self.received

    def update_sequence(self, sequence: int) -> bool:
        """Counts a packet. False: its number is out of the run, and it is to be dropped.

        Two such packets in sequence mean that the sender has restarted, and counting begins anew.
        """
        ahead = (sequence - self._highest) & 0xFFFF
        if ahead < MAX_DROPOUT:
            if sequence < self._highest:
                self._cycles += 1 << 16
            self._highest = sequence
        elif ahead <= 0x1_0000 - MAX_MISORDER:
            if sequence != self._after_bad:
                self._after_bad = (sequence + 1) & 0xFFFF
                return False
            self._lost_earlier = self.lost
            self._restart(sequence)
            self.bursts.restart()
        self.received += 1
        self.bursts.update(self.highest_sequence + sequence_difference(sequence, self._highest))
        return True

    def update_jitter(self, timestamp: int, arrival: float) -> None:
        if self._transit:
            earlier_arrival, earlier_timestamp = self._transit
            step = (arrival - earlier_arrival) * RTP_CLOCK
            step -= timestamp_difference(timestamp, earlier_timestamp)
            if abs(step) < MAX_TRANSIT_STEP:
                self.jitter += (abs(step) - self.jitter) / 16
        self._transit = (arrival, timestamp)

    @property
    def highest_sequence(self) -> int:
        return self._cycles + self._highest

    @property
    def expected(self) -> int:
        """Packets since the sender (re)started."""
        return self.highest_sequence - self._base + 1

    @property
    def lost(self) -> int:
        """Expected less received, over all runs; duplicates count as received."""
        return self._lost_earlier + self.expected - (self.received - self._received_at_base)

    def report(self) -> ReceptionStatistics:
        """For the interval since the previous call."""
        expected = self.expected - self._expected_prior
        lost = expected - (self.received - self._received_prior)
        self._expected_prior = self.expected
        self._received_prior = self.received
        return ReceptionStatistics(
            fraction_lost=min(255, (lost << 8) // expected) if expected > 0 and lost > 0 else 0,
            packets_lost=clamp_packets_lost(self.lost),
            highest_sequence=self.highest_sequence & 0xFFFF_FFFF,
            jitter=min(int(self.jitter), 0xFFFF_FFFF),
        )
