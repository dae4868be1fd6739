"""Copies of packets fill holes exactly, and nothing is learnt from them about the network."""

from __future__ import annotations

from dataclasses import replace

import pytest

from codec import FRAME_SECONDS, FRAME_TICKS
from codec.frame import FrameSource
from jitterbuffer import JitterBuffer, MediaPacket

PACKET, RED, PLC = FrameSource.PACKET, FrameSource.RED, FrameSource.PLC
COPIES = frozenset({RED, PLC})
TARGET = 0.06


def packet(number: int) -> MediaPacket:
    return MediaPacket(
        (65530 + number) % 2**16, 1000 + FRAME_TICKS * number, 7, b"\x08\x80speech%d" % number
    )


def copy(number: int) -> MediaPacket:
    return replace(packet(number), is_copy=True)


class Line:
    """A buffer to which packets come 20 ms apart, each with copies of those before it."""

    def __init__(self, copies: int, recovery: frozenset[FrameSource] = COPIES) -> None:
        self.copies = copies
        self.buffer = JitterBuffer(target_delay=TARGET, recovery=recovery)
        self.now = 100.0

    def receive(self, number: int, late: float = 0.0) -> None:
        arrival = self.now + number * FRAME_SECONDS + late
        self.buffer.push(packet(number), arrival)
        for back in range(1, self.copies + 1):
            if number - back >= 0:
                self.buffer.push(copy(number - back), arrival)

    def run(self, frames: int, lost: set[int]) -> list[FrameSource]:
        """What is played of so many packets."""
        played = []
        for n in range(frames + 3):
            if n < frames and n not in lost:
                self.receive(n)
            plan = self.buffer.pull(self.now + n * FRAME_SECONDS)
            if n >= 3:
                if plan.packet is not None:
                    assert plan.packet == packet(n - 3).payload
                    assert plan.timestamp == packet(n - 3).timestamp
                    assert plan.distance == 0
                played.append(plan.source)
        return played


@pytest.mark.parametrize(
    ("copies", "lost", "played"),
    [
        (1, {4}, "....R..."),
        (1, {4, 5}, "....pR.."),
        (2, {4, 5}, "....RR.."),
        (2, {3, 4, 5}, "...pRR.."),
        (1, set(), "........"),
    ],
)
def test_as_many_lost_packets_are_had_as_there_are_copies(
    copies: int, lost: set[int], played: str
) -> None:
    letters = {PACKET: ".", RED: "R", PLC: "p"}
    line = Line(copies)
    assert "".join(letters[source] for source in line.run(8, lost)) == played
    stats = line.buffer.stats
    assert stats.packets_duplicated == stats.packets_discarded == stats.packets_stray == 0
    assert stats.fec_packets_received - stats.fec_packets_discarded == played.count("R")
    assert stats.concealed_samples == 320 * played.count("p")
    assert stats.jitter_buffer_emitted_count == 320 * played.count(".")


def test_copies_that_were_not_asked_for_are_passed_over() -> None:
    line = Line(1, frozenset({PLC}))
    assert RED not in line.run(8, {4})
    assert line.buffer.stats.fec_packets_received == 0


def test_a_packet_that_comes_after_its_copy_takes_its_place() -> None:
    line = Line(1)
    for n in (0, 1, 3):
        line.receive(n)
    line.receive(2, late=0.03)
    sources = [line.buffer.pull(line.now + TARGET + n * FRAME_SECONDS).source for n in range(4)]
    assert sources == [PACKET] * 4
    stats = line.buffer.stats
    assert (stats.packets_duplicated, stats.packets_discarded) == (0, 0)
    assert stats.fec_packets_discarded == stats.fec_packets_received


def test_a_packet_that_comes_after_its_copy_was_played_is_late() -> None:
    line = Line(1)
    assert line.run(8, {4}).count(RED) == 1
    line.receive(4, late=0.2)
    assert line.buffer.stats.packets_late == 1


def test_a_copy_neither_begins_a_stream_nor_proves_another() -> None:
    buffer = JitterBuffer(target_delay=TARGET, recovery=COPIES)
    buffer.push(copy(0), 100.0)
    assert len(buffer) == 0
    buffer.push(packet(0), 100.0)
    stranger = replace(packet(5), ssrc=8)
    buffer.push(stranger, 100.1)
    buffer.push(replace(copy(4), ssrc=8), 100.1)
    assert buffer.stats.source_changes == 0
    assert len(buffer) == 1


def test_copies_do_not_change_when_frames_are_played() -> None:
    with_copies, without = Line(2), Line(0)
    lost = {n for n in range(200) if n % 7 in (2, 3)}
    with_copies.run(200, lost)
    without.run(200, lost)
    played = [line.buffer.stats for line in (with_copies, without)]
    assert played[0].jitter_buffer_delay == pytest.approx(played[1].jitter_buffer_delay)
    assert played[0].removed_samples_for_acceleration == 0
    assert played[0].resyncs == 0
