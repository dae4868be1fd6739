"""The receiving end of DRED: features of the past out of one packet."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from codec.dred_model import DredModel
from codec.dred_syntax import DredSymbols
from codec.features import NUM_BANDS, NUM_FEATURES, PERIODICITY, PITCH
from codec.sharpening import sharpen

Array = npt.NDArray[np.float32]

FEATURE_TICKS = 480
"""10 ms at 48 kHz."""
CHUNK = 4
"""Feature vectors of one latent."""
OFFSET_TICKS = 120
"""2.5 ms, the unit of a header's offset."""

DETAIL = 0.4
"""By how much decoded features are sharpened: more pleases PLCMOS and costs ESTOI."""

LOWEST = np.full(NUM_FEATURES, -30, np.float32)
HIGHEST = np.full(NUM_FEATURES, 30, np.float32)
LOWEST[PITCH], HIGHEST[PITCH] = -1.5, 1.5
LOWEST[PERIODICITY], HIGHEST[PERIODICITY] = -0.5, 0.5
# No cepstrum of int16 samples passes these; a hostile payload's can.
assert LOWEST[:NUM_BANDS].max() < HIGHEST[:NUM_BANDS].min()


class DredFeatures:
    """Features [start, end) in ticks of 48 kHz on the RTP timeline, from one packet.

    Times are those of *decoded* audio: tick t is what a decoder of the base layer plays for RTP
    timestamp t. The networks run when features are asked for, from the newest back to the oldest
    that is needed, and never twice over the same stretch.
    """

    def __init__(self, symbols: DredSymbols, timestamp: int, model: DredModel) -> None:
        count = len(symbols.latents)
        self.end = timestamp + OFFSET_TICKS * symbols.header.offset
        self.start = self.end - CHUNK * FEATURE_TICKS * count
        self.symbols = symbols
        self._model = model
        self._state: Array | None = None
        self._decoded = np.empty((0, NUM_FEATURES), np.float32)

    def __len__(self) -> int:
        """Number of feature vectors."""
        return CHUNK * len(self.symbols.latents)

    @property
    def decoded(self) -> int:
        """Number of feature vectors that the networks have produced so far."""
        return len(self._decoded)

    def newest(self, count: int) -> Array:
        """The newest `count` vectors (or all there are), float32 [n, 20], newest first.

        Vector i describes the 10 ms that end 480 i ticks before `end`.
        """
        count = max(0, min(count, len(self)))
        self._decode((count + CHUNK - 1) // CHUNK)
        return self._decoded[:count]

    def at(self, start: int, count: int) -> tuple[Array, npt.NDArray[np.bool_]]:
        """Features float32 [count, 20] of consecutive 10 ms frames, and which of them are known.

        Frame i is [start + 480 i, start + 480 (i + 1)); it gets the vector whose own 10 ms are
        nearest, at most 5 ms off. Rows outside of what the packet covers are 0 and not known.
        """
        ahead = self.end - FEATURE_TICKS - (start + FEATURE_TICKS * np.arange(count))
        index = (ahead + FEATURE_TICKS // 2) // FEATURE_TICKS
        known = (index >= 0) & (index < len(self))
        out = np.zeros((count, NUM_FEATURES), np.float32)
        if known.any():
            out[known] = self.newest(int(index[known].max()) + 1)[index[known]]
        return out, known

    def _decode(self, latents: int) -> None:
        """Run the decoder back until so many latents are decoded."""
        done = len(self._decoded) // CHUNK
        if latents <= done:
            return
        header, statistics = self.symbols.header, self._model.statistics
        if self._state is None:
            initial = statistics.state.dequantise(self.symbols.state, header.q0)
            self._state = self._model.start(initial)
        levels = np.array([header.level(i) for i in range(done, latents)])
        values = statistics.latent.dequantise(self.symbols.latents[done:latents], levels)
        features, self._state = self._model.decode(values, levels, self._state)
        features = np.clip(sharpen(np.nan_to_num(features), DETAIL), LOWEST, HIGHEST)
        self._decoded = np.concatenate([self._decoded, features])
