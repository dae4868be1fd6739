"""What is made before it is asked for, and what waits for more to come."""

from __future__ import annotations

import numpy as np
import pytest

from codec.concealer import Concealer
from codec.dred import DredDecoder
from codec.frame import FrameSource
from codec.receiver import SpeechDecoder
from jitterbuffer.foresight import IN_CASE
from jitterbuffer.receiver import AHEAD
from jitterbuffer.reordering import PERIOD, Reordering
from tests.jitterbuffer.playout import payload
from tests.jitterbuffer.speech import BEAT, TICK, Line, PlanDecoder, coded, patient, prepare


@pytest.mark.parametrize(("delay", "ready_blocks"), [(0.030, 1), (0.150, AHEAD)])
def test_what_is_certain_is_made_ahead_and_heard_unchanged(delay: float, ready_blocks: int) -> None:
    arrivals = [(TICK * n, n) for n in range(60) if n not in (20, 21, 40)]
    heard = []
    most = 0
    for ahead in (False, True):
        line = Line(delay, SpeechDecoder(concealer=Concealer(), dred=DredDecoder()))
        waiting = list(arrivals)
        pcm = []
        for tick in range(68):
            now = tick * TICK + BEAT
            while waiting and waiting[0][0] <= now:
                arrival, number = waiting.pop(0)
                line.receiver.push(line.packet(number), arrival)
            pcm.append(line.receiver.pull(now).pcm)
            if ahead:
                # with 30 ms to wait, the next packet has come when a frame is played
                ready = prepare(line.receiver, now + TICK)
                assert ready == (line.receiver.ready > 0)
                most = max(most, line.receiver.ready)
                prepare(line.receiver, now + TICK, last=True)
        heard.append(np.concatenate(pcm))
        assert most == (ready_blocks if ahead else 0)
    np.testing.assert_array_equal(heard[0], heard[1])


def test_a_guess_is_not_followed_by_a_frame_decoded_ahead() -> None:
    line = Line(patient(), PlanDecoder(), packets=payload)
    for number in range(10):
        line.receiver.push(line.packet(number), TICK * number)
        line.receiver.pull(TICK * number + BEAT)
    for tick in range(10, 14):
        line.receiver.pull(TICK * tick + BEAT)
    line.receiver.push(line.packet(14), TICK * 14)
    assert not prepare(line.receiver, TICK * 14 + BEAT)


def test_in_a_hurry_what_was_made_ready_is_played_and_not_what_has_come_since() -> None:
    heard = {}
    for hurry in (False, True):
        line = Line(0.040, SpeechDecoder(concealer=Concealer(), dred=DredDecoder()))
        for number in range(30):
            line.receiver.push(line.packet(number), TICK * number)
        for tick in range(30):
            line.receiver.pull(0.040 + tick * TICK)
        now = 0.040 + 30 * TICK
        prepare(line.receiver, now)
        prepare(line.receiver, now, last=True)
        line.receiver.push(line.packet(32), now)
        block = line.receiver.pull(now, hurry=hurry)
        heard[hurry] = [part.source for part in block.parts if part.begins]
        # the frame after it is made from what has come
        following = line.receiver.pull(now + TICK).parts
        assert following[0].source is FrameSource.LBRR
    assert heard == {False: [FrameSource.DRED], True: [FrameSource.PLC]}


def spoken() -> Line:
    """160 ms of delay, and packets of one who is speaking already."""
    decoder = SpeechDecoder(concealer=Concealer(), dred=DredDecoder())
    return Line(0.160, decoder, packets=lambda number: coded()[40 + number])


def ready_ahead(line: Line, numbers: list[int]) -> list[int]:
    """Numbers of the frames made ahead when frame 9 has just been played."""
    for number in range(10):
        line.receiver.push(line.packet(number), TICK * number)
    for tick in range(8, 18):
        line.receiver.pull(TICK * tick + BEAT)
    for number in numbers:
        line.receiver.push(line.packet(number), TICK * number)
    for _ in range(AHEAD + 1):
        prepare(line.receiver, TICK * 18 + BEAT)
    blocks = [line.receiver.pull(TICK * (18 + k) + BEAT) for k in range(line.receiver.ready)]
    return [round(part.plan.timestamp / 960) for block in blocks for part in block.parts]


def test_frames_are_made_ahead_up_to_a_limit() -> None:
    line = Line(0.160, PlanDecoder(), packets=payload)
    assert ready_ahead(line, [10, 11, 12, 13, 14, 15, 16]) == [10, 11, 12, 13]


def test_nothing_is_made_ahead_of_what_may_still_come() -> None:
    line = Line(0.160, PlanDecoder(), packets=payload)
    assert ready_ahead(line, [10, 11]) == [10, 11]


def test_on_a_network_that_keeps_the_order_a_hole_is_filled_as_soon_as_it_can_be() -> None:
    line = spoken()
    assert ready_ahead(line, [10, 13, 14]) == [10, 11, 12, 13]
    made = line.buffer.stats.frames
    assert made[FrameSource.DRED] + made[FrameSource.LBRR] == 2


def test_where_packets_overtake_each_other_those_of_a_hole_are_waited_for_as_long() -> None:
    for newest, ready in ((16, [10]), (17, [10, 11, 12, 13])):
        line = spoken()
        # one has come four frames behind a later one
        for number in (0, 1, 2, 3, 4, 5, 6, 7, 8):
            if number != 4:
                line.receiver.push(line.packet(number), TICK * number)
        line.receiver.push(line.packet(4), TICK * 8)
        assert ready_ahead(line, [10, *range(13, newest + 1)]) == ready, newest


def test_concealment_is_never_made_ahead_as_if_it_were_certain() -> None:
    line = Line(0.160, SpeechDecoder(concealer=Concealer()), packets=payload)
    assert ready_ahead(line, [10, 13, 14, 15, 16]) == [10]


@pytest.mark.parametrize(("target", "made"), [(0.060, [0, 1]), (0.080, [1, 1]), (0.160, [2, 2])])
def test_how_much_is_made_in_case_depends_on_what_is_still_likely_to_come(
    target: float, made: list[int]
) -> None:
    decoder = SpeechDecoder(concealer=Concealer(), dred=DredDecoder())
    line = Line(target, decoder, packets=lambda number: coded()[40 + number])
    for number in range(10):
        line.receiver.push(line.packet(number), TICK * number)
    first = round(target / TICK)
    for tick in range(first, first + 10):
        line.receiver.pull(TICK * tick + BEAT)
    due = TICK * (first + 10) + BEAT
    for last, frames in zip((False, True), made, strict=True):
        assert not prepare(line.receiver, due, last=last)
        assert len(line.receiver.rehearsed) == frames


def test_what_is_missing_behind_frames_that_are_ready_is_made_in_case() -> None:
    line = spoken()
    assert ready_ahead(line, [10, 11]) == [10, 11]
    assert len(line.receiver.rehearsed) == IN_CASE - 2


def test_what_the_next_packet_holds_of_a_missing_frame_is_decoded_in_case_too() -> None:
    line = spoken()
    # packets overtake each other here: the one that is missing may still come
    for number in (0, 1, 2, 3, 5, 6, 7, 8, 4, 9, 11):
        line.receiver.push(line.packet(number), TICK * number)
    for tick in range(8, 18):
        line.receiver.pull(TICK * tick + BEAT)
    due = TICK * 18 + BEAT
    assert not prepare(line.receiver, due)
    in_case = line.receiver.rehearsed
    block = line.receiver.pull(due)
    assert [part.source for part in block.parts if part.begins] == [FrameSource.LBRR]
    assert line.receiver.performed == in_case[0]


def test_reordering_is_the_most_of_ten_to_twenty_seconds() -> None:
    order = Reordering()
    for slot in (0, 1, 5, 2, 3, 4, 6):
        order.arrived(slot)
    assert order.frames == 3
    assert not order.is_over(3)
    order.arrived(7)
    assert order.is_over(3)
    assert not order.is_over(4)
    for slot in range(8, PERIOD):
        order.arrived(slot)
    assert order.frames == 3
    for slot in range(PERIOD, 2 * PERIOD):
        order.arrived(slot)
    assert order.frames == 3
    for slot in range(2 * PERIOD, 2 * PERIOD + 10):
        order.arrived(slot)
    assert order.frames == 0


def test_reordering_forgets_over_a_pause_of_any_length_and_stays_bounded() -> None:
    order = Reordering()
    for slot in (0, 200, 1):
        order.arrived(slot)
    assert order.frames == 50
    order.arrived(10**9)
    assert order.frames == 0
