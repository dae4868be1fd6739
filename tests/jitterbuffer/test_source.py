"""Strays, forgeries, restarts and new sources."""

from __future__ import annotations

import pytest

from codec.frame import FrameSource
from jitterbuffer import JitterBuffer, MediaPacket
from tests.jitterbuffer.playout import TICK, Playout, S, Sender, payload, played

SENDER = Sender()
OTHER = Sender(sequence=40_000, timestamp=3_000_000_000, ssrc=0xBEEF)
RESTARTED = Sender(sequence=40_000, timestamp=3_000_000_000, ssrc=SENDER.ssrc)


def playout(target_ms: float = 60) -> Playout:
    return Playout(JitterBuffer(target_delay=target_ms / 1000))


STRAYS = {
    "of another source": MediaPacket(51, 51 * 960, 0xBAD, payload(666)),
    "with a wild sequence number": MediaPacket(40_000, 51 * 960, SENDER.ssrc, payload(666)),
    "with a wild timestamp": MediaPacket(51, 2**31, SENDER.ssrc, payload(666)),
    "from the future": MediaPacket(51, (50 + 150) * 960, SENDER.ssrc, payload(666)),
    "from the past": MediaPacket(51, (50 - 150) * 960 % 2**32, SENDER.ssrc, payload(666)),
}


@pytest.mark.parametrize("kind", STRAYS)
def test_one_stray_packet_changes_nothing(kind: str) -> None:
    line = playout()
    drawn = line.run([*SENDER.packets(range(300)), (50 * TICK + 0.001, STRAYS[kind])], 303)
    assert drawn == [S, S, S, *range(300)]
    assert line.buffer.stats.packets_stray == 1
    assert set(line.delays().values()) == {60.0}


@pytest.mark.parametrize("kind", STRAYS)
def test_stray_packets_between_those_of_the_stream_change_nothing(kind: str) -> None:
    line = playout()
    strays = [(n * TICK + 0.001, STRAYS[kind]) for n in range(50, 60)]
    assert line.run([*SENDER.packets(range(300)), *strays], 303) == [S, S, S, *range(300)]


def test_a_second_source_does_not_take_over_while_the_first_goes_on() -> None:
    second = [(n * TICK + 0.001, OTHER.packet(n)) for n in range(50, 250)]
    line = playout()
    assert line.run([*SENDER.packets(range(300)), *second], 303) == [S, S, S, *range(300)]
    assert line.buffer.stats.packets_stray == 200


def test_one_early_packet_within_the_bounds_does_not_move_playout() -> None:
    early = MediaPacket(101, 101 * 960, SENDER.ssrc, payload(101))
    packets = [packet for packet in SENDER.packets(range(200)) if packet[1].sequence != 101]
    line = playout()
    assert line.run([*packets, (50 * TICK, early)], 203) == [S, S, S, *range(200)]


@pytest.mark.parametrize("successor", [OTHER, RESTARTED])
def test_a_new_source_plays_within_the_target_delay_of_its_first_packet(
    successor: Sender,
) -> None:
    switched = [(TICK * (100 + n), successor.packet(n)) for n in range(50)]
    line = playout()
    drawn = line.run([*SENDER.packets(range(100)), *switched], 153)
    # The second packet proves the source; then what the old one has left is given up.
    assert drawn[:101] == [S, S, S, *range(98)]
    assert drawn[101:103] == [S, S]
    assert drawn[103:] == [*range(50)]
    assert line.buffer.stats.source_changes == 1
    assert [i for i, plan in enumerate(line.plans) if plan.new_source] == [103]


def test_a_new_source_may_lose_packets_at_its_beginning() -> None:
    switched = [(TICK * (100 + n), OTHER.packet(n)) for n in range(50) if n not in (1, 2, 4)]
    line = playout()
    drawn = line.run([*SENDER.packets(range(100)), *switched], 153)
    assert played(drawn)[-46:] == [0, 3, *range(5, 50)][-46:]


def test_two_packets_that_do_not_follow_each_other_prove_nothing() -> None:
    liars = [
        (2.001, MediaPacket(7, 5_000, 0xBAD, payload(1))),
        (2.002, MediaPacket(900, 5_960, 0xBAD, payload(2))),
        (2.003, MediaPacket(901, 900_000_000, 0xBAD, payload(3))),
        (2.004, MediaPacket(902, 5_960, 0xBAD2, payload(4))),
    ]
    line = playout()
    numbers = [n for n in range(300) if n not in (100, 101)]
    drawn = line.run([*SENDER.packets(numbers), *liars], 303)
    assert played(drawn) == numbers
    assert line.buffer.stats.source_changes == 0
    assert line.buffer.stats.packets_stray == 4


def test_an_empty_payload_is_a_packet_like_another() -> None:
    packets = SENDER.packets(range(5))
    packets[2] = (packets[2][0], MediaPacket(2, 2 * 960, SENDER.ssrc, b""))
    line = playout()
    assert line.run(packets, 8) == [S, S, S, 0, 1, -1, 3, 4]
    assert line.plans[5].source is FrameSource.PACKET
    assert line.plans[5].packet == b""
