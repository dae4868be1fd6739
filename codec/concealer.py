"""Concealment of missing frames by the vocoder, one stream at a time.

    concealer = Concealer()
    heard = concealer.good(decoded)             # a frame that arrived
    heard = concealer.conceal()                 # one that did not: predicted (neural PLC)
    heard = concealer.rebuild(features)         # one whose features came as redundancy

Every 20 ms of playout is one of these calls, in any order. What each returns is what is to be
heard; frames join without a break, because the vocoder takes up the signal that was heard before a
hole, and runs on into the frame after it for a short cross-fade.
"""

from __future__ import annotations

import copy
from typing import Self

import numpy as np
import numpy.typing as npt

from codec import FRAME
from codec.comfort_noise import ComfortNoise
from codec.feature_predictor import LOST, RECEIVED, REDUNDANT, FeaturePredictor, PredictorNetwork
from codec.features import HOP, NUM_FEATURES, SYNTHESIS_LAG, FeatureExtractor
from codec.frame import PcmFrame
from codec.lpcnet import LpcNet, Sampling, Vocoder
from codec.sharpening import sharpen

Features = npt.NDArray[np.float32]

HOPS = FRAME // HOP
AHEAD = 2
"""Feature vectors after a frame's own that its last samples depend on."""

TOGETHER = 10
"""Good frames that are looked at in one go, 200 ms: in the middle of a call networks and tables are
gone from the processor's caches, so that one run of the predictor costs 0.5 ms over one frame and
0.7 ms over ten. A hole pays for what is left, ten at most."""

WARM_UP = FRAME
"""Samples of heard signal the vocoder follows before it speaks: 20 ms. Twice as much sounds no
better, and it falls due at once: before a hole that is seen to come, or in its first
frame."""

JOIN = 80
"""Samples of the cross-fade into a good frame: 5 ms. The vectors that the frame before it was
spoken from reach exactly so far; a few samples more are spoken in the light of the last."""

FULL = 960
GONE = 3200
"""Samples after which prediction begins to fade, 60 ms, and is all noise, 200 ms: what was being
said is anyone's guess by then, and a wrong vowel is worse than a pause."""

SAMPLING = Sampling(voicing=2.0)
"""Voiced speech is drawn closer to the likeliest than a copy needs: intelligibility gains."""

PREDICTED_DETAIL = 0.8
"""By how much predictions are sharpened."""

LIMIT = 50.0
"""No feature of any signal is larger; what came by network may be anything."""

_FADE_OUT = np.cos(np.pi / 2 * (np.arange(JOIN) + 0.5) / JOIN).astype(np.float32) ** 2
assert JOIN <= SYNTHESIS_LAG


def prediction_gain(start: int) -> npt.NDArray[np.float32]:
    """Gain float32 [320] of a frame predicted `start` samples into a hole."""
    past = np.clip((start + np.arange(FRAME) - FULL) / (GONE - FULL), 0, 1)
    return np.cos(np.pi / 2 * past).astype(np.float32)


def _bounded(features: Features) -> Features:
    return np.clip(np.nan_to_num(features), -LIMIT, LIMIT).astype(np.float32)


class Concealer:
    """The receiving end of one stream. Bounded memory; belongs to one thread at a time.

    `net` and `predictor` default to the models of the package, `sampling` to `SAMPLING`; `seed`
    fixes every sample.
    Raises LpcNetError or PredictorError if a model is missing.
    """

    def __init__(
        self,
        net: LpcNet | None = None,
        predictor: PredictorNetwork | None = None,
        *,
        seed: int = 0,
        sampling: Sampling | None = None,
    ) -> None:
        self._voice = Vocoder(net or LpcNet.default(), seed=seed, sampling=sampling or SAMPLING)
        self._predictor = FeaturePredictor(predictor)
        self._extractor = FeatureExtractor()
        self._noise = ComfortNoise(seed)
        self._unseen: list[PcmFrame] = []
        """The last good frames, as far as nobody has looked at them yet."""
        self._last_heard = self._heard_before = np.zeros(FRAME, np.int16)
        self._onward: npt.NDArray[np.int16] | None = None
        """How the voice of the hole that ends goes on, once somebody wants to know."""
        self._position = 0
        self._in_hole = False
        self._ready_for: float | None = None
        """What the voice has made itself ready for: a guess, or features from redundancy."""
        self._predicted = GONE
        """Samples of prediction since features were last known."""
        self._gain = 0.0
        """Of the voice at the end of the last frame."""

    def good(self, pcm: PcmFrame) -> PcmFrame:
        """A frame that is right, int16 [320]; returns it joined to what was heard before it.

        Kept for a while: neither is to be changed afterwards.
        """
        if self._in_hole:
            pcm = pcm.copy()
            onward = self._run_on(JOIN)[:JOIN]
            pcm[:JOIN] = np.rint(pcm[:JOIN] + _FADE_OUT * (onward - pcm[:JOIN])).astype(np.int16)
        if len(self._unseen) == TOGETHER:
            self._look_back()
        self._unseen.append(pcm)
        self._predicted = 0
        self._gain = 1.0
        self._in_hole = False
        self._onward = None
        self._ready_for = None
        return self._hear(pcm)

    def expect_loss(self, features: Features | None = None) -> None:
        """Does, while there is time, what the first missing frame would begin with.

        To be called after a good frame when the next one is not there, with its features if they
        are known, as for `rebuild`. It is done again if the frame is then guessed and features were
        given, or the other way round: the voice follows the last 15 ms before a hole in the light
        of what comes. Features of another packet are near enough.
        """
        self._look_back()
        if self._in_hole:
            return
        foreseen = sharpen(self._predictor.foresee(HOPS + AHEAD), PREDICTED_DETAIL)
        if features is not None:
            known = _bounded(features)[: HOPS + AHEAD]
            foreseen = np.concatenate([known, foreseen[len(known) :]])
        self._take_up(foreseen, afresh=True)
        self._ready_for = LOST if features is None else REDUNDANT

    def copy(self) -> Self:
        """An independent concealer that continues from the same frame."""
        other = copy.copy(self)
        other._voice = self._voice.copy()
        other._predictor = self._predictor.copy()
        other._extractor = self._extractor.copy()
        other._noise = self._noise.copy()
        other._unseen = self._unseen.copy()
        return other

    def past(self, samples: int, onward: int) -> npt.NDArray[np.int16] | None:
        """In a hole, the sound around its end if the next frame is good: int16 [samples].

        The last `onward` of them, 5 ms or more, are how the voice would go on. None when there is
        no hole. At most 640 samples have been heard.
        """
        if not self._in_hole:
            return None
        before = self._heard()[2 * FRAME - (samples - onward) :]
        return np.concatenate([before, self._run_on(onward)])

    def conceal(self) -> PcmFrame:
        """A missing frame, int16 [320], from a prediction of what was going to be said.

        In a long hole it gives way to comfort noise.
        """
        self._look_back()
        gain = prediction_gain(self._predicted)
        guesses = self._predictor.tell_lost(HOPS)
        ahead = self._predictor.foresee(AHEAD)
        mix = np.zeros(FRAME, np.float32)
        if gain[0] > 0:
            features = sharpen(np.concatenate([guesses, ahead]), PREDICTED_DETAIL)
            self._take_up(features, afresh=self._ready_for == REDUNDANT)
            mix += self._voice.speak(FRAME) * gain
        if gain[-1] < 1:
            mix += self._noise.noise(HOPS) * np.sqrt(1 - gain**2)
        self._predicted += FRAME
        self._gain = float(gain[-1])
        return self._missed(np.rint(np.clip(mix, -32768, 32767)).astype(np.int16))

    def rebuild(self, features: Features) -> PcmFrame:
        """A missing frame, int16 [320], whose features are known, float32 [2 or more, 20].

        One row per 10 ms. Rows after the second are of what follows: it is spoken in their light.

        Raises ValueError on another shape.
        """
        if features.ndim != 2 or len(features) < HOPS or features.shape[1] != NUM_FEATURES:
            raise ValueError(f"features {list(features.shape)} where [2, {NUM_FEATURES}] is due")
        features = _bounded(features)
        own, ahead = features[:HOPS], features[HOPS : HOPS + AHEAD]
        self._look_back()
        self._predictor.tell(own, REDUNDANT)
        if len(ahead) < AHEAD:
            ahead = np.concatenate([ahead, self._predictor.foresee(AHEAD)[len(ahead) :]])
        # a voice that has faded is not what was heard last
        afresh = self._gain < 1 or self._ready_for == LOST
        self._take_up(np.concatenate([own, ahead]), afresh=afresh)
        self._predicted = 0
        self._gain = 1.0
        return self._missed(self._voice.speak(FRAME))

    @property
    def _hop(self) -> int:
        return self._position // HOP

    def _look_back(self) -> None:
        """Learns from the good frames since it was done last."""
        if not self._unseen:
            return
        features = self._extractor.process(np.concatenate(self._unseen))
        self._voice.describe(self._hop - len(features), features)
        self._predictor.tell(features, RECEIVED)
        self._noise.learn(features)
        self._unseen.clear()

    def _take_up(self, features: Features, *, afresh: bool = False) -> None:
        """Make the voice ready to speak the frame with these features, and the next two vectors."""
        self._voice.describe(self._hop, features)
        if afresh or self._voice.position != self._position:
            self._voice.join(self._heard()[-WARM_UP:], self._position)

    def _run_on(self, samples: int) -> npt.NDArray[np.int16]:
        """What the first samples after the hole would have been without an end to it."""
        if self._onward is None:
            onward = np.zeros(samples, np.float32)
            if self._gain > 0:
                onward += self._voice.speak(samples) * self._gain
            if self._gain < 1:
                onward += self._noise.noise(1)[:samples] * np.sqrt(1 - self._gain**2)
            self._onward = np.rint(np.clip(onward, -32768, 32767)).astype(np.int16)
        return self._onward

    def _missed(self, pcm: PcmFrame) -> PcmFrame:
        self._in_hole = True
        self._onward = None
        self._ready_for = None
        # what was said is known better than it can be measured; the extractor just keeps up
        self._extractor.process(pcm)
        return self._hear(pcm)

    def _hear(self, pcm: PcmFrame) -> PcmFrame:
        self._heard_before, self._last_heard = self._last_heard, pcm
        self._position += FRAME
        return pcm

    def _heard(self) -> npt.NDArray[np.int16]:
        """The last two frames."""
        return np.concatenate([self._heard_before, self._last_heard])
