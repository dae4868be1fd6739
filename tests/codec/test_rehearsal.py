"""What is heard does not depend on what was said on trial."""

from __future__ import annotations

import random

import numpy as np

from codec import FRAME
from codec.concealer import Concealer
from codec.features import FeatureExtractor
from codec.rehearsal import RehearsedConcealer
from tests.app.calls import MAN, clip


def test_no_rehearsal_right_wrong_or_in_vain_changes_a_sample() -> None:
    rng = random.Random(3)
    pcm = clip(MAN)[: 150 * FRAME]
    features = FeatureExtractor().process(pcm)
    plain, rehearsed = Concealer(seed=5), RehearsedConcealer(Concealer(seed=5))
    for i, frame in enumerate(pcm[: 146 * FRAME].reshape(-1, FRAME)):
        known = features[2 * i : 2 * i + 4]
        for foreseen in rng.sample([None, known, known[:2]], rng.randrange(3)):
            rehearsed.rehearse(foreseen)
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
        concealer.rehearse()  # as foreseen already
        concealer.conceal()
    assert Counting.made == 2
