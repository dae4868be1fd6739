"""The plan for a hole: what is past, and from which packet each other frame is made."""

from __future__ import annotations

import numpy as np

from codec import FRAME_TICKS
from codec.concealer import Concealer
from codec.dred import DredDecoder
from codec.frame import FrameSource, HoleAction
from codec.receiver import SpeechDecoder
from jitterbuffer import JitterBuffer
from jitterbuffer.plan import HolePlan
from tests.jitterbuffer.playout import Playout, Sender
from tests.jitterbuffer.speech import Line, patient

SENDER = Sender(lbrr=True, dred=True)


def drawn(plan: HolePlan | None) -> list[object]:
    """`slot`: what it would be made from."""
    assert plan is not None
    return [
        (slot, decision.source.value, decision.packet.slot if decision.packet else None)
        for slot, decision in plan.steps
    ]


def test_without_a_hole_there_is_no_plan() -> None:
    line = Playout(JitterBuffer(target_delay=0.1))
    assert line.buffer.hole() is None
    line.run(SENDER.packets(range(20)), 15)
    assert line.buffer.hole() is None


def test_a_hole_ahead_is_planned_from_the_nearest_packet_behind_it() -> None:
    line = Playout(JitterBuffer(target_delay=0.2))
    line.run(SENDER.packets([0, 1, 2, 3, 7, 8, 9, 10]), 11)
    plan = line.buffer.hole()
    assert drawn(plan) == [(4, "dred", 7), (5, "dred", 7), (6, "lbrr", 7)]
    assert plan is not None
    assert list(plan.past) == []
    assert [view.slot for view in plan.views()] == [7]


def test_frames_of_a_hole_whose_time_is_over_are_past() -> None:
    line = Playout(JitterBuffer(target_delay=0.04))
    line.run(SENDER.packets([0, 1, 2, 8, 9]), 9)
    plan = line.buffer.hole()
    assert plan is not None
    assert list(plan.past) == [3, 4, 5, 6]
    assert drawn(plan) == [(7, "lbrr", 8)]


def test_several_packets_may_each_know_a_part_of_a_long_hole() -> None:
    line = Playout(JitterBuffer(target_delay=0.24))
    line.run(SENDER.packets([0, 10, 11, 12]), 13)
    spans = {10: (7, 8), 11: (5, 9), 12: (2, 11)}
    for _ in spans:
        plan = line.buffer.hole()
        assert plan is not None
        unread = [view for view in plan.views() if view.dred_span is None]
        for view in unread:
            oldest, newest = spans[view.slot]
            line.buffer.learn_span(view, (oldest * FRAME_TICKS, newest * FRAME_TICKS))
    assert drawn(line.buffer.hole()) == [
        (1, "plc", None),
        *[(slot, "dred", 12) for slot in (2, 3, 4)],
        *[(slot, "dred", 11) for slot in (5, 6)],
        *[(slot, "dred", 10) for slot in (7, 8)],
        (9, "lbrr", 10),
    ]


def test_a_packet_whose_redundancy_is_damaged_is_passed_over() -> None:
    line = Playout(JitterBuffer(target_delay=0.1))
    line.run(SENDER.packets([0, 4, 5]), 6)
    plan = line.buffer.hole()
    assert plan is not None
    line.buffer.learn_span(plan.views()[0], (4 * FRAME_TICKS, 4 * FRAME_TICKS - 1))
    assert drawn(line.buffer.hole()) == [(1, "dred", 5), (2, "dred", 5), (3, "lbrr", 4)]


def test_what_begins_as_a_guess_and_goes_on_rebuilt_joins_without_a_click() -> None:
    decoder = SpeechDecoder(concealer=Concealer(), dred=DredDecoder())
    line = Line(patient(), decoder)
    heard = line.run(line.packets(n for n in range(140) if not 100 <= n < 107), 2.8)
    hole = [f for f in heard.frames if 100 <= f.number < 107]
    actions = [f.action for f in hole]
    assert actions[:3] == [HoleAction.HOLD] * 3
    assert HoleAction.LATE in actions
    assert any(f.part.source is FrameSource.DRED for f in hole)
    begin = round(hole[0].at * 16_000) - 320
    sound = heard.pcm[begin : begin + 14 * 320].astype(np.int64)
    around = np.abs(np.diff(heard.pcm.astype(np.int64), 2))
    # no sample stands out from what the talker does anyway
    assert np.abs(np.diff(sound, 2)).max() <= 1.5 * np.sort(around)[-20]
    assert decoder.dred_uncovered == 0
