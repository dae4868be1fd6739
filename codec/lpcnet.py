"""The LPCNet vocoder: features in, speech out, either from nothing or out of speech that was heard.

    net = LpcNet.default()
    pcm = synthesize(net, features)             # copy synthesis

    voice = Vocoder(net)
    voice.describe(hop, rows)                   # features of hops before, at and after the hole
    voice.join(played, position)                # take up the voice that spoke until now ...
    pcm = voice.speak(FRAME)                    # ... and go on

Times are samples since the start of a stream; hop k is samples [160k, 160k + 160). The frame that
feature vector k conditions lies half a hop earlier (`codec.features.SYNTHESIS_LAG`), and it also
looks one vector ahead. Packets begin at hops, so each begins and ends in the middle of a synthesis
frame; `Vocoder` deals with that, and callers count in samples and hops only. What it says up to the
start of hop k depends on the vectors up to k + 1.
"""

from __future__ import annotations

import copy
import functools
import json
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from codec.features import HOP, NUM_FEATURES, SYNTHESIS_LAG, cepstrum_to_lpc
from codec_ext.lpcnet import CONTEXT, Condition, Model, State, paths

__all__ = [
    "LpcNet",
    "LpcNetError",
    "Sampling",
    "Vocoder",
    "paths",
    "synthesize",
]

Pcm = npt.NDArray[np.int16]
Features = npt.NDArray[np.float32]

WEIGHTS = Path(__file__).parent / "models" / "lpcnet.npz"

LOOKAHEAD = 1
"""Feature vectors after its own that a frame is conditioned on."""

REMEMBERED = 32
"""Feature vectors a vocoder keeps."""


class LpcNetError(ValueError):
    """Weights that are missing, damaged or unfit."""


@dataclass(frozen=True, slots=True)
class Sampling:
    """How an excitation is drawn from the 256 mu-law levels the network weighs.

    The distribution is raised to 1 + max(0, `voicing` * pitch correlation - 0.5), then `floor` is
    taken off every level: without that, rare levels are heard as roughness (arXiv:1810.11846,
    section 3.3). With `walk`, eight binary decisions are drawn instead (arXiv:2202.11169), nodes
    less probable than `cut` being left out: cheaper, a little rougher.
    """

    walk: bool = False
    floor: float = 0.002
    cut: float = 0.02
    voicing: float = 1.5


class LpcNet:
    """Weights ready for use; read-only, so any number of voices on any threads may share them.

    `path` is one of `paths()`, the instruction set, by default the best one; `quantised` chooses
    int8 arithmetic for the sample network, else float32.

    Raises LpcNetError, which names the file.
    """

    def __init__(
        self, weights: Path = WEIGHTS, *, path: str | None = None, quantised: bool = True
    ) -> None:
        try:
            with np.load(weights) as arrays:
                named = {name: arrays[name] for name in arrays.files}
        except FileNotFoundError:
            raise LpcNetError(f"no model file {weights}") from None
        except (OSError, ValueError, zipfile.BadZipFile) as error:
            raise LpcNetError(f"{weights}: {error}") from error
        metadata = named.pop("metadata", None)
        try:
            self.model = Model(named, path, quantised)
            self.metadata: dict[str, Any] = json.loads(str(metadata)) if metadata else {}
        except ValueError as error:
            raise LpcNetError(f"{weights}: {error}") from error

    @staticmethod
    @functools.cache
    def default() -> LpcNet:
        """The model that comes with the package, loaded once."""
        return LpcNet()


class Vocoder:
    """One voice. Calls on one Vocoder must not overlap; nothing allocates with the stream's length.

    `position` is the sample that `follow` or `speak` deals with next.
    """

    def __init__(self, net: LpcNet, *, seed: int = 0, sampling: Sampling | None = None) -> None:
        sampling = sampling or Sampling()
        self.position = 0
        self._model = net.model
        self._state = State(seed)
        self._walk, self._floor = sampling.walk, sampling.floor
        self._cut, self._voicing = sampling.cut, sampling.voicing
        self._condition = Condition()
        self._conditioned: int | None = None
        """The frame that `_condition` is of; it was computed from `_context`."""
        self._described_anew = False
        self._rows = np.zeros((REMEMBERED, NUM_FEATURES), np.float32)
        self._first = self._end = 0  # hops [first, end) are in the last rows
        self._context = np.zeros((CONTEXT, NUM_FEATURES), np.float32)

    @property
    def described(self) -> int:
        """The hop after the last one whose features are known."""
        return self._end

    def copy(self) -> Vocoder:
        """An independent voice that continues from the same sample."""
        other = copy.copy(self)
        other._state = self._state.copy()
        other._condition, other._conditioned = Condition(), None
        other._rows = self._rows.copy()
        other._context = self._context.copy()
        return other

    def describe(self, hop: int, features: Features) -> None:
        """Features float32 [n, 20] of hops hop, hop + 1, ...

        They replace what was said of these hops and later ones. Vectors further back than
        `REMEMBERED` are forgotten; a leap forward forgets all.

        Raises ValueError on another shape.
        """
        if features.ndim != 2 or features.shape[1] != NUM_FEATURES:
            raise ValueError(f"features {list(features.shape)} where [n, {NUM_FEATURES}] is due")
        end = hop + len(features)
        kept = self._rows[:0]
        if self._first <= hop <= self._end:
            kept = self._rows[REMEMBERED - (self._end - self._first) :][: hop - self._first]
        together = np.concatenate([kept, features])[-REMEMBERED:]
        if len(together):
            self._rows[-len(together) :] = together
        self._first, self._end = end - len(together), end
        self._described_anew = True

    def join(self, played: Pcm, position: int) -> None:
        """Take up the voice of `played`, int16 [n], whose end is sample `position`.

        The first 17 samples only prime the predictor; the networks start from nothing and follow
        the rest, so 20 to 40 ms do well.
        """
        primed = min(len(played), 17)
        self._state.prime(played[:primed])
        self.position = position - len(played) + primed
        self.follow(played[primed:])

    def follow(self, pcm: Pcm) -> None:
        """Hear the next samples, int16 [n], as if they had been spoken."""
        done = 0
        while done < len(pcm):
            count = self._prepare(len(pcm) - done)
            self._state.force(self._model, self._condition, pcm[done : done + count])
            done += count
            self.position += count

    def speak(self, samples: int) -> Pcm:
        """Say the next `samples` samples, int16.

        A hop that nobody described is taken to be like the nearest one known. Raises ValueError if
        none is.
        """
        pcm = np.empty(samples, np.int16)
        done = 0
        while done < samples:
            count = self._prepare(samples - done)
            self._state.run(
                self._model,
                self._condition,
                pcm[done : done + count],
                walk=self._walk,
                floor=self._floor,
                cut=self._cut,
                voicing=self._voicing,
            )
            done += count
            self.position += count
        return pcm

    def _prepare(self, wanted: int) -> int:
        """Condition the frame `position` is in; how many of `wanted` samples lie in it."""
        frame, inside = divmod(self.position + SYNTHESIS_LAG, HOP)
        if frame != self._conditioned or self._described_anew:
            context = self._rows_around(frame)
            if frame != self._conditioned or not np.array_equal(context, self._context):
                self._context[:] = context
                own = self._context[CONTEXT - 1 - LOOKAHEAD : CONTEXT - LOOKAHEAD]
                self._condition.compute(self._model, self._context, cepstrum_to_lpc(own)[0])
            self._conditioned = frame
            self._described_anew = False
        return min(wanted, HOP - inside)

    def _rows_around(self, frame: int) -> Features:
        """The features [5, 20] that condition a frame; what nobody described is like its nearest.

        Raises ValueError if nothing was described.
        """
        if self._first == self._end:
            raise ValueError("no features to speak from")
        end = frame + LOOKAHEAD + 1
        first = end - CONTEXT
        behind = REMEMBERED - self._end
        if self._first <= first and end <= self._end:
            return self._rows[first + behind : end + behind]
        return self._rows[np.clip(np.arange(first, end), self._first, self._end - 1) + behind]


def synthesize(
    net: LpcNet, features: Features, *, seed: int = 0, sampling: Sampling | None = None
) -> Pcm:
    """Speech int16 [160 n] from features float32 [n, 20]; sample for sample where they were taken.

    Raises ValueError on another shape.
    """
    voice = Vocoder(net, seed=seed, sampling=sampling)
    pcm = np.empty(HOP * len(features), np.int16)
    batch = REMEMBERED // 2
    for hop in range(0, len(features), batch):
        voice.describe(hop, features[hop : hop + batch + 1 + LOOKAHEAD])
        end = min(hop + batch, len(features))
        pcm[HOP * hop : HOP * end] = voice.speak(HOP * (end - hop))
    return pcm
