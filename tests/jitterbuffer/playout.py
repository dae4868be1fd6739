"""A virtual clock that feeds a jitter buffer and draws what it plays."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from codec.dred_packet import attach_dred
from codec.dred_syntax import MIN_BYTES
from codec.frame import FramePlan, FrameSource
from codec.opus_packet import packet_frames
from jitterbuffer import JitterBuffer, MediaPacket

S, P = "silence", "plc"
"""How frames without a packet are drawn; packets by their number, LBRR ones as "lbrr 7" (their own
number), DRED ones as "dred 9" (that of the packet used)."""

TICK = 0.02


def payload(number: int, *, lbrr: bool = False, dred: bool = False) -> bytes:
    """An Opus packet (SILK, wide band, 20 ms) as far as its LBRR flag, and a number after it."""
    frame = bytes([0x40 if lbrr else 0x00]) + number.to_bytes(4, "big")
    packet = bytes([0x48]) + frame
    return attach_dred(packet, bytes(MIN_BYTES)) if dred else packet


def number_of(packet: bytes) -> int:
    """The number in a packet that `payload` made; -1 of an empty one."""
    if not packet:
        return -1
    ((begin, _),) = packet_frames(packet)
    return int.from_bytes(packet[begin + 1 : begin + 5], "big")


@dataclass(frozen=True)
class Sender:
    """Makes packet `number` of a stream that sends one every 20 ms from time 0 on."""

    sequence: int = 0
    timestamp: int = 0
    ssrc: int = 0xC0FFEE
    lbrr: bool = False
    dred: bool = False

    def packet(self, number: int, *, skipped: int = 0) -> MediaPacket:
        """`skipped` of the frames before it were not sent (DTX)."""
        return MediaPacket(
            (self.sequence + number - skipped) % 2**16,
            (self.timestamp + 960 * number) % 2**32,
            self.ssrc,
            payload(number, lbrr=self.lbrr, dred=self.dred),
        )

    def packets(
        self, numbers: Iterable[int], *, late: dict[int, float] | None = None
    ) -> list[tuple[float, MediaPacket]]:
        """These packets with the times of their arrival: on the beat, but for `late` (seconds)."""
        late = late or {}
        return [(TICK * n + late.get(n, 0.0), self.packet(n)) for n in numbers]


class Playout:
    """Pulls every 20 ms of its own clock, which begins at 0."""

    def __init__(self, buffer: JitterBuffer) -> None:
        self.buffer = buffer
        self.plans: list[FramePlan] = []
        self.instants: list[float] = []
        self.ticks = 0

    def run(self, arrivals: Iterable[tuple[float, MediaPacket]], until: int) -> list[object]:
        """Plays to tick number `until`; draws the frames of these ticks."""
        begun = len(self.plans)
        waiting = sorted(arrivals, key=lambda arrival: arrival[0])
        while self.ticks < until:
            now = TICK * self.ticks
            while waiting and waiting[0][0] <= now + 1e-9:
                arrival, packet = waiting.pop(0)
                self.buffer.push(packet, arrival)
            self.plans.append(self.buffer.pull(now))
            self.instants.append(now)
            self.ticks += 1
        for arrival, packet in waiting:
            self.buffer.push(packet, arrival)
        return [draw(plan) for plan in self.plans[begun:]]

    def delays(self) -> dict[int, float]:
        """By packet number, how long after it was sent on the beat it was played, milliseconds."""
        return {
            number_of(plan.packet): round(1000 * (at - TICK * number_of(plan.packet)), 3)
            for plan, at in zip(self.plans, self.instants, strict=True)
            if plan.source is FrameSource.PACKET and plan.packet is not None
        }


def draw(plan: FramePlan) -> object:
    if plan.source is FrameSource.PACKET:
        assert plan.packet is not None
        return number_of(plan.packet)
    if plan.source is FrameSource.LBRR:
        assert plan.packet is not None
        return f"lbrr {number_of(plan.packet) - plan.distance}"
    if plan.source is FrameSource.DRED:
        assert plan.packet is not None
        return f"dred {number_of(plan.packet)}"
    return plan.source.value


def played(drawn: list[object]) -> list[int]:
    """The numbers of the packets among drawn frames."""
    return [frame for frame in drawn if isinstance(frame, int)]
