"""The sending end of DRED: the last second of speech in a few hundred bits."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from codec import FRAME
from codec.dred_activity import ActivityDetector
from codec.dred_model import DredModel
from codec.dred_syntax import (
    LEVELS,
    MAX_LATENTS,
    MIN_BYTES,
    OFFSET_MAX,
    SLOPES,
    DredHeader,
    DredSymbols,
    encode_symbols,
)
from codec.features import HOP, NUM_FEATURES, SYNTHESIS_LAG, FeatureExtractor

Array = npt.NDArray[np.float32]

STEP_UNITS = 8
"""2.5 ms units of an encoder step, 20 ms."""
CHUNK_UNITS = 16
UNIT = FRAME // STEP_UNITS
"""Samples at 16 kHz."""
TOGETHER = 16
"""Steps that the encoder makes in one run while nobody asks for a payload: they cost twice as much
as one."""
REST = 2 * MAX_LATENTS + 8
"""Frames without a payload asked for, 1.2 s, after which frames are kept but not looked at. A
payload can speak of no more than the last of them; they take 5 ms once somebody asks again."""
SKIPPABLE = 50
"""Steps of trailing silence that are skipped before there is nothing left to say."""
HEADER_BITS = 24
"""At most 22, and what the estimate of the rest may be short."""


@dataclass(frozen=True, slots=True)
class _Step:
    """What 20 ms of speech became."""

    latent: Array
    initial: Array
    active: bool


class DredEncoder:
    """Listens to every frame and describes the last second in a payload of a given size.

    `lookahead` is by how many samples (16 kHz) the base layer's decoder lags behind what its
    encoder was given (`OpusEncoder.lookahead`). `slope` is dQ of the syntax: how fast quality
    falls into the past; 7 is a level per 40 ms. `finest` and `coarsest` bound q0; what
    does not fit at `coarsest` becomes shorter instead.

    Raises ValueError when a setting is out of range, DredModelError if there is no model.
    """

    def __init__(
        self,
        *,
        lookahead: int = 0,
        slope: int = 7,
        finest: int = 0,
        coarsest: int = 12,
        model: DredModel | None = None,
    ) -> None:
        # The newest synthesis frame ends SYNTHESIS_LAG before the newest sample.
        self._offset = round((FRAME - SYNTHESIS_LAG + lookahead) / UNIT)
        if lookahead < 0 or self._offset > OFFSET_MAX:
            raise ValueError(f"look-ahead of {lookahead} samples")
        if not 0 <= finest <= coarsest < LEVELS:
            raise ValueError(f"levels {finest} to {coarsest}, not within 0 to {LEVELS - 1}")
        if not 0 <= slope < len(SLOPES):
            raise ValueError(f"slope {slope}, not 0 to {len(SLOPES) - 1}")
        self._model = model or DredModel.default()
        self._slope, self._finest, self._coarsest = slope, finest, coarsest
        headers = [DredHeader(q0, slope) for q0 in range(LEVELS)]
        self._levels = np.array([[h.level(i) for i in range(MAX_LATENTS)] for h in headers])
        self._fitted = coarsest
        """Level of the newest latent at which the last payload did."""
        self._extractor = FeatureExtractor()
        self._activity = ActivityDetector()
        self._unasked = 0
        """Frames since a payload was asked for."""
        self._kept: deque[tuple[npt.NDArray[np.int16], bool]] = deque(maxlen=REST)
        """Frames that came at rest, and whether there is speech in them."""
        self._unheard: list[npt.NDArray[np.int16]] = []
        """Those that came after them, and nobody has looked at even for that."""
        self._pairs = np.zeros((1 + TOGETHER, 2 * NUM_FEATURES), np.float32)
        """The last pair that was encoded, then those that are not yet."""
        self._pending: list[bool] = []
        """Whether there was speech in each of the latter."""
        self._state = self._model.encoder_state()
        self._steps: deque[_Step] = deque(maxlen=2 * MAX_LATENTS + SKIPPABLE)

    def push(self, pcm: npt.NDArray[np.int16]) -> None:
        """The next 20 ms, int16 [320], not to be changed any more.

        Raises ValueError for another length.
        """
        if len(pcm) != FRAME:
            raise ValueError(f"{len(pcm)} samples, not {FRAME}")
        self._unasked += 1
        if self._unasked > REST:
            self._unheard.append(pcm)
            if len(self._unheard) == TOGETHER:
                self._keep()
            return
        active = self._activity.push(pcm)
        self.push_features(self._extractor.process(np.ascontiguousarray(pcm)), active=active)

    def push_features(self, features: Array, *, active: bool = True) -> None:
        """The next 20 ms as its two feature vectors, float32 [2, 20]; instead of `push`."""
        if features.shape != (FRAME // HOP, NUM_FEATURES):
            raise ValueError(f"features of shape {features.shape}, not (2, {NUM_FEATURES})")
        self._pending.append(active)
        self._pairs[len(self._pending)] = features.reshape(-1)
        if len(self._pending) == TOGETHER:
            self._encode()

    def _keep(self) -> None:
        if self._unheard:
            active = self._activity.push_all(np.stack(self._unheard))
            self._kept.extend(zip(self._unheard, active, strict=True))
            self._unheard.clear()

    def _wake(self) -> None:
        """Looks at what came at rest."""
        self._unasked = 0
        self._keep()
        if not self._kept:
            return
        if len(self._kept) == REST:  # there may be a gap before them, and nothing older is needed
            self._extractor.reset()
            self._state = self._model.encoder_state()
            self._pairs[0] = 0
            self._pending.clear()
            self._steps.clear()
        frames, active = zip(*self._kept, strict=True)
        self._kept.clear()
        features = self._extractor.process(np.concatenate(frames))
        for pair, speaks in zip(
            features.reshape(len(active), -1, NUM_FEATURES), active, strict=True
        ):
            self.push_features(pair, active=speaks)

    def _encode(self) -> None:
        count = len(self._pending)
        if not count:
            return
        latents, initial, self._state = self._model.encode(self._pairs[: 1 + count], self._state)
        self._steps.extend(map(_Step, latents, initial, self._pending))
        self._pairs[0] = self._pairs[count]
        self._pending.clear()

    def payload(self, *, max_ms: int, max_bytes: int) -> bytes:
        """Redundancy for the packet whose frame was pushed last.

        It reaches back at most `max_ms` before that frame and takes at most `max_bytes`, header
        included, as fine as they allow. b"" when there is nothing to say (silence) or no room.
        """
        self._wake()
        self._encode()
        steps = list(self._steps)[::-1]
        skipped = next((i for i, step in enumerate(steps[: SKIPPABLE + 1]) if step.active), None)
        if skipped is None or max_bytes < MIN_BYTES:
            return b""
        offset = self._offset - STEP_UNITS * skipped
        chunks = (max_ms * 2 // 5 + offset) // CHUNK_UNITS
        chosen = steps[skipped : skipped + 2 * max(0, min(chunks, MAX_LATENTS))]
        heard = [i for i, step in enumerate(chosen) if step.active]
        if not heard:
            return b""
        sent = chosen[0 : heard[-1] + 1 : 2]
        latents = np.stack([step.latent for step in sent])
        q0 = self._finest_that_fits(latents, chosen[0].initial, 8 * max_bytes)
        header = DredHeader(q0, self._slope, offset=offset)
        statistics = self._model.statistics
        symbols = DredSymbols(
            header,
            statistics.state.quantise(chosen[0].initial, q0),
            statistics.latent.quantise(latents, self._levels[q0, : len(latents)]),
        )
        payload = encode_symbols(symbols, statistics, max_bytes)
        return payload if len(payload) >= MIN_BYTES else b""

    def _finest_that_fits(self, latents: Array, initial: Array, bits: int) -> int:
        """The finest level of the newest latent at which all of them take at most `bits`."""
        # mostly what fitted last, and nothing finer
        latest = self._fitted
        costs = self._costs(latents, initial, range(max(self._finest, latest - 1), latest + 1))
        if costs[-1] > bits or (len(costs) > 1 and costs[0] <= bits):
            costs = self._costs(latents, initial, range(self._finest, self._coarsest + 1))
            fits = np.flatnonzero(costs <= bits)
            self._fitted = self._finest + int(fits[0]) if len(fits) else self._coarsest
        return self._fitted

    def _costs(self, latents: Array, initial: Array, choices: range) -> Array:
        """Estimated bits with each of these levels of the newest latent, [choices]."""
        statistics = self._model.statistics
        newest = np.array(choices)
        cost = statistics.latent.costs(latents, self._levels[newest, : len(latents)])
        return HEADER_BITS + cost + statistics.state.costs(initial, newest)
