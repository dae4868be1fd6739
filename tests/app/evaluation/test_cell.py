"""What is judged of a cell: sound put back to where it was said, and sound as it was played."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from app.evaluation.cell import Cell, Clip, frame_letters, played_speech
from app.evaluation.conditions import parse_conditions
from app.evaluation.networks import NOTHING, Network
from codec import FRAME
from tests.app.calls import MAN

BURSTS = bytes(1 if 12 <= i % 25 < 17 else 0 for i in range(250))


def cell(condition: str, buffer: str, network: Network) -> Cell:
    (chosen,) = parse_conditions([condition])
    return Cell(Clip(MAN, 0, MAN.name, 1.0, 6.0), chosen, buffer, network, (), 0)


def silent_stretches(pcm: npt.NDArray[np.int16]) -> int:
    """Half frames of nothing but zeros."""
    halves = pcm[: len(pcm) // (FRAME // 2) * (FRAME // 2)].reshape(-1, FRAME // 2)
    return int((~halves.any(axis=1)).sum())


def test_where_time_is_kept_what_was_played_is_what_was_said_to_the_sample() -> None:
    result = cell("dred", "fixed:60", NOTHING).hear()
    played = played_speech(result)
    assert len(played) >= len(result.aligned)
    np.testing.assert_array_equal(played[: len(result.aligned)], result.aligned)


def test_a_frame_that_was_skipped_is_a_gap_in_aligned_sound_but_nobody_heard_one() -> None:
    bursts = Network("bursts", losses=BURSTS)
    result = cell("lbrr", "balanced", bursts).hear()
    assert "_" in frame_letters(result).strip("_")
    assert silent_stretches(result.aligned) > 0
    assert silent_stretches(played_speech(result)) == 0
