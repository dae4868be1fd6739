"""What is heard does not depend on what was said on trial."""

from __future__ import annotations

import random

import numpy as np
import pytest

from codec import FRAME
from codec.concealer import Concealer
from codec.features import FeatureExtractor
from codec.frame import FrameSource
from codec.rehearsal import RehearsedConcealer
from tests.app.calls import MAN, clip


def test_no_rehearsal_right_wrong_or_in_vain_changes_a_sample() -> None:
    rng = random.Random(3)
    pcm = clip(MAN)[: 150 * FRAME]
    features = FeatureExtractor().process(pcm)
    plain, rehearsed = Concealer(seed=5), RehearsedConcealer(Concealer(seed=5))
    for i, frame in enumerate(pcm[: 146 * FRAME].reshape(-1, FRAME)):
        known = features[2 * i : 2 * i + 4]
        for _ in range(rng.randrange(4)):
            after = rng.randint(0, len(rehearsed.rehearsed))
            known_then = features[2 * (i + after) :][:4]
            rehearsed.rehearse(rng.choice([None, known_then, known_then[:2]]), after=after)
            if rng.random() < 0.2:
                rehearsed.fall_back()
        fate = rng.choices("grc", [6, 2, 2])[0]
        if fate == "g":
            heard = [plain.good(frame), rehearsed.good(frame)]
            if rng.random() < 0.5:
                plain.expect_loss()
                rehearsed.expect_loss()
        elif fate == "r":
            heard = [plain.rebuild(known), rehearsed.rebuild(known)]
        else:
            heard = [plain.conceal(), rehearsed.conceal()]
        np.testing.assert_array_equal(heard[0], heard[1])
        if fate != "g" and rng.random() < 0.5:
            np.testing.assert_array_equal(plain.past(640, 104), rehearsed.past(640, 104))


class Counting(Concealer):
    """Counts, over all its copies, the frames it has been asked to make."""

    made = 0

    def conceal(self) -> np.ndarray[tuple[int], np.dtype[np.int16]]:
        Counting.made += 1
        return super().conceal()


def test_a_frame_that_was_foreseen_is_not_made_again() -> None:
    concealer = RehearsedConcealer(Counting())
    concealer.good(clip(MAN)[:FRAME])
    Counting.made = 0
    for _ in range(2):
        concealer.rehearse()
        concealer.rehearse(after=1)
        concealer.rehearse()  # as foreseen already
        concealer.conceal()
    assert Counting.made == 3


def test_frames_rehearsed_in_a_row_are_those_that_would_be_said_in_a_row() -> None:
    pcm = clip(MAN)[100 * FRAME : 106 * FRAME]
    features = FeatureExtractor().process(pcm)[2:]
    plain, rehearsed = Concealer(seed=5), RehearsedConcealer(Concealer(seed=5))
    for concealer in (plain, rehearsed):
        concealer.good(pcm[:FRAME])
    for after, known in enumerate((None, features[2:6], None)):
        rehearsed.rehearse(known, after=after)
    np.testing.assert_array_equal(rehearsed.conceal(), plain.conceal())
    np.testing.assert_array_equal(rehearsed.rebuild(features[2:6]), plain.rebuild(features[2:6]))
    np.testing.assert_array_equal(rehearsed.conceal(), plain.conceal())
    assert rehearsed.performed == 2


def test_a_frame_that_turns_out_otherwise_is_made_anew_and_so_is_what_follows() -> None:
    pcm = clip(MAN)[100 * FRAME : 102 * FRAME]
    features = FeatureExtractor().process(pcm)
    concealer = RehearsedConcealer(Counting())
    concealer.good(pcm[:FRAME])
    Counting.made = 0
    for after in range(3):
        concealer.rehearse(after=after)
    assert list(concealer.rehearsed) == [0, 1, 2]
    concealer.rehearse(features, after=1)
    assert list(concealer.rehearsed) == [0, 3]
    concealer.conceal()
    assert list(concealer.rehearsed) == [3]
    concealer.conceal()
    assert list(concealer.rehearsed) == []
    assert Counting.made == 4
    with pytest.raises(ValueError, match="not rehearsed"):
        concealer.rehearse(after=1)


def test_what_was_replaced_too_late_is_taken_back_until_a_frame_is_heard() -> None:
    pcm = clip(MAN)[100 * FRAME : 102 * FRAME]
    features = FeatureExtractor().process(pcm)
    concealer = RehearsedConcealer(Concealer())
    concealer.good(pcm[:FRAME])
    for after in range(2):
        concealer.rehearse(after=after)
    concealer.rehearse(features)
    assert list(concealer.rehearsed) == [2]
    concealer.fall_back()
    concealer.fall_back()
    assert list(concealer.rehearsed) == [0, 1]
    guess = concealer.perform()
    assert guess is not None
    assert guess.source is FrameSource.PLC
    assert concealer.performed == 0
    concealer.rehearse(features)
    assert list(concealer.rehearsed) == [3]
    concealer.rebuild(features)
    assert concealer.performed == 3
    concealer.fall_back()
    assert list(concealer.rehearsed) == []
    concealer.good(pcm[FRAME:])
    assert concealer.performed is None
    assert concealer.perform() is None
