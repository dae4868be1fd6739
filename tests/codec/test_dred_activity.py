"""What counts as worth sending twice."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from codec.dred_activity import HANGOVER, ActivityDetector


def noise(frames: int, dbfs: float, seed: int = 0) -> npt.NDArray[np.int16]:
    random = np.random.default_rng(seed)
    return random.normal(0, 32768 * 10 ** (dbfs / 20), (frames, 320)).round().astype(np.int16)


def heard(*parts: npt.NDArray[np.int16]) -> list[bool]:
    detector = ActivityDetector()
    return [detector.push(pcm) for pcm in np.concatenate(parts)]


def test_digital_silence_and_faint_hiss_are_not_active() -> None:
    assert not any(heard(np.zeros((50, 320), np.int16), noise(50, -75)))


def test_a_sound_is_active_at_once_and_for_a_while_after() -> None:
    found = heard(noise(20, -75), noise(10, -30), np.zeros((40, 320), np.int16))
    assert found == [False] * 20 + [True] * (10 + HANGOVER - 1) + [False] * (40 - HANGOVER + 1)


def test_a_steady_noise_stops_being_active_within_ten_seconds() -> None:
    found = heard(noise(600, -40))
    assert all(found[:50])
    assert not any(found[500:])


def test_speech_over_a_steady_noise_is_active() -> None:
    assert all(heard(noise(600, -40), noise(20, -25, seed=1))[600:])


def test_noise_that_ends_is_forgotten_at_once() -> None:
    found = heard(noise(600, -40), noise(20, -70), noise(20, -45))
    assert all(found[620:])


def test_frames_may_be_judged_together() -> None:
    frames = np.concatenate([noise(30, -75), noise(10, -30), noise(30, -75, seed=1)])
    detector = ActivityDetector()
    together = [
        active
        for at in range(0, len(frames), 7)
        for active in detector.push_all(frames[at : at + 7])
    ]
    assert together == heard(frames)
