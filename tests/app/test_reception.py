"""Reception puts playout on a beat, and mends it where the sink lets it."""

from __future__ import annotations

import math

import pytest

from app.net.rtp import RtpReceived
from app.reception import BEAT_INTERVAL, BEAT_MARGIN, Reception
from codec import FRAME_SECONDS, FRAME_TICKS
from jitterbuffer import JitterBuffer

TARGET = 0.03


class Call:
    """Packets of which the first 60 are slow, and a playout thread that is moved as it is told."""

    def __init__(self, slow: float, *, keeps_beat: bool = False) -> None:
        self.slow = slow
        self.buffer = JitterBuffer(target_delay=TARGET)
        self.aligned: list[float] = []
        self.reception = Reception(self.buffer, self.align, keeps_beat=keeps_beat)
        self.playout = 0.0
        self.packets = 0

    def align(self, instant: float) -> None:
        self.aligned.append(instant)
        self.playout += math.remainder(instant - self.playout, FRAME_SECONDS)

    def run(self, packets: int) -> float:
        """After so many packets: by how much frames are played later than the target, seconds."""
        for number in range(self.packets, self.packets + packets):
            sent = number * FRAME_SECONDS
            arrival = sent + (self.slow if number < 60 else 0.0)
            self.reception.take(
                RtpReceived(
                    sequence=number,
                    timestamp=number * FRAME_TICKS,
                    ssrc=1,
                    marker=False,
                    payload_type=96,
                    payload=bytes([0x48, 0, number % 256]),
                    arrival=arrival,
                )
            )
            while self.playout < sent + FRAME_SECONDS:
                plan = self.buffer.pull(self.playout)
                late = self.playout - plan.timestamp / FRAME_TICKS * FRAME_SECONDS - TARGET
                self.playout += FRAME_SECONDS
        self.packets += packets
        return late


def test_the_beat_is_chosen_with_the_first_packet_and_again_with_the_fiftieth() -> None:
    call = Call(0.0)
    assert call.run(200) == pytest.approx(BEAT_MARGIN)
    assert len(call.aligned) == 2


@pytest.mark.parametrize("slow", [0.004, 0.008, 0.015])
def test_a_slow_start_is_made_up_for_by_a_sink_without_a_clock_of_its_own(slow: float) -> None:
    call = Call(slow)
    assert call.run(200) == pytest.approx(slow + BEAT_MARGIN)
    assert call.run(4 * BEAT_INTERVAL) == pytest.approx(BEAT_MARGIN)
    aligned = len(call.aligned)
    assert aligned <= 4
    call.run(4 * BEAT_INTERVAL)
    assert len(call.aligned) == aligned
    assert call.buffer.stats.removed_samples_for_acceleration == 0


def test_a_sink_that_keeps_its_beat_is_left_alone() -> None:
    call = Call(0.008, keeps_beat=True)
    assert call.run(1000) == pytest.approx(0.008 + BEAT_MARGIN)
    assert len(call.aligned) == 2
