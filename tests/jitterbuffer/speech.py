"""Real speech, coded once, and a receiver that hears it under a virtual clock."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

import numpy as np

from codec import FRAME, FRAME_SECONDS, FRAME_TICKS, RTP_CLOCK, SAMPLE_RATE
from codec.dred import DredEncoder, attach_dred
from codec.frame import FramePlan, FrameSource, HoleAction, PcmFrame
from codec.opus import OpusEncoder
from codec.receiver import SpeechDecoder
from jitterbuffer import (
    JitterBuffer,
    Latency,
    LatencyPolicy,
    MediaPacket,
    PlayedPart,
    PlayoutReceiver,
)
from jitterbuffer.timescale import Pcm
from tests.app.calls import MAN, clip

TICK = FRAME_SECONDS
BEAT = 0.0105
"""Seconds by which playout instants lie behind the arrivals of packets without delay, mod 20 ms."""


@functools.cache
def coded(frames: int = 400) -> list[bytes]:
    """Opus packets of a talker, with LBRR and 400 ms of DRED."""
    opus = OpusEncoder(expected_loss=20)
    dred = DredEncoder(lookahead=opus.lookahead)
    packets = []
    for frame in clip(MAN)[: frames * FRAME].reshape(-1, FRAME):
        dred.push(frame)
        packets.append(attach_dred(opus.encode(frame), dred.payload(max_ms=400, max_bytes=40)))
    return packets


def balanced() -> LatencyPolicy:
    return LatencyPolicy.of(Latency.BALANCED)


def patient() -> LatencyPolicy:
    """Waits for what follows a hole, up to three frames longer than the target."""
    return LatencyPolicy(worth=0.035, hold=0.060, min_delay=0.030, max_delay=0.400)


class PlanDecoder(SpeechDecoder):
    """Takes every plan for carried out and sounds like a vowel: for tests of time, not of sound."""

    SPAN = 20
    """Frames that every packet's DRED describes."""

    def __init__(self) -> None:
        super().__init__()
        self._said = 0

    def carry_out(self, plan: FramePlan, *, hurry: bool = False) -> tuple[PcmFrame, FrameSource]:
        n = np.arange(self._said, self._said + FRAME)
        self._said += FRAME
        pcm = np.rint(3000 * np.sin(2 * np.pi * n / 100) + 2000 * np.sin(2 * np.pi * n / 50))
        return pcm.astype(np.int16), plan.source

    def describes(self, packet: bytes, timestamp: int) -> tuple[int, int]:
        return timestamp - self.SPAN * FRAME_TICKS, timestamp - FRAME_TICKS

    def prepare(self, packet: bytes, timestamp: int, oldest: int) -> None:
        pass


def prepare(receiver: PlayoutReceiver, playout_at: float, *, last: bool = False) -> bool:
    """Has all done that can be done now; whether the next pull finds everything ready."""
    for _ in receiver.preparing(playout_at, last=last):
        pass
    return receiver.ready > 0


@dataclass
class Frame:
    """A frame as it was first heard."""

    at: float
    part: PlayedPart

    @property
    def number(self) -> int:
        return round(self.part.plan.timestamp / FRAME_TICKS)

    @property
    def delay(self) -> float:
        """Milliseconds from when its packet would have come at best."""
        return round(1e3 * (self.at - self.part.timestamp / RTP_CLOCK), 3)

    @property
    def action(self) -> HoleAction:
        return self.part.plan.action


@dataclass
class Heard:
    pcm: Pcm
    frames: list[Frame] = field(default_factory=list)

    def played(self) -> list[int]:
        """Numbers of the sender's frames, in order of playout."""
        return [f.number for f in self.spoken()]

    def sources(self) -> dict[int, FrameSource]:
        return {f.number: f.part.source for f in self.spoken()}

    def spoken(self) -> list[Frame]:
        """Frames of the sender's: neither additions nor silence."""
        left_aside = (HoleAction.HOLD, FrameSource.SILENCE)
        return [f for f in self.frames if not {f.action, f.part.source} & {*left_aside}]

    def delays(self, begin: int = 0, end: int = 10**9) -> list[float]:
        """Of the frames with these numbers that came in their own packets."""
        return [
            f.delay
            for f in self.frames
            if f.part.source is FrameSource.PACKET and begin <= f.number < end
        ]


class Line:
    """A receiver and the arrivals it gets."""

    def __init__(
        self,
        target: float | LatencyPolicy,
        decoder: SpeechDecoder | None = None,
        packets: Callable[[int], bytes] | None = None,
    ) -> None:
        self.buffer = JitterBuffer(target_delay=target)
        self.receiver = PlayoutReceiver(self.buffer, decoder or SpeechDecoder())
        self.payload = packets or (lambda number: coded()[number % len(coded())])

    def packet(
        self, number: int, *, skipped: int = 0, ssrc: int = 1, shift: int = 0
    ) -> MediaPacket:
        """Frame `number`; `skipped` of those before it were never sent."""
        return MediaPacket(
            (number - skipped) % 2**16,
            (number * FRAME_TICKS + shift) % 2**32,
            ssrc,
            self.payload(number),
        )

    def packets(
        self, numbers: Iterable[int], late: Callable[[int], float] = lambda number: 0.0
    ) -> Iterator[tuple[float, MediaPacket]]:
        """On the beat, but for `late` (seconds)."""
        for number in numbers:
            yield TICK * number + late(number), self.packet(number)

    def run(
        self, arrivals: Iterable[tuple[float, MediaPacket]], seconds: float, beat: float = BEAT
    ) -> Heard:
        """What is heard of these packets from time 0 on."""
        waiting = sorted(arrivals, key=lambda arrival: arrival[0])
        waiting.reverse()
        heard = []
        frames = []
        for tick in range(round(seconds / TICK)):
            now = tick * TICK + beat
            while waiting and waiting[-1][0] <= now:
                arrival, packet = waiting.pop()
                self.receiver.push(packet, arrival)
            block = self.receiver.pull(now)
            assert block.pcm.shape == (FRAME,)
            heard.append(block.pcm)
            frames += [
                Frame(now + part.offset / SAMPLE_RATE, part) for part in block.parts if part.begins
            ]
            if not prepare(self.receiver, now + TICK):
                prepare(self.receiver, now + TICK, last=True)
        return Heard(np.concatenate(heard), frames)
