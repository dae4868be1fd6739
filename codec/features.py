"""The 20 acoustic features every part of the codec shares, and what goes with them in time.

Hop k of a stream is samples [160k, 160k + 160). Feature vector k is known once hop k has arrived.
Its analysis window is [160k - 160, 160k + 160), so it describes the signal *around sample 160k*,
and **the synthesis frame it conditions is [160k - 80, 160k + 80)**: linear prediction from a window
that is not centred on its frame costs audible quality.

| index | meaning                                                                              |
|-------|--------------------------------------------------------------------------------------|
| 0..17 | Bark cepstrum of the pre-emphasised signal                                           |
| 18    | pitch: log2(256 / period) - 1.5, period in samples at 16 kHz (32..255)               |
| 19    | periodicity: ln(1 + exp(5c)) / ln(1 + exp(5)) - 0.5, c the correlation of the newest |
|       | hop's low-passed residual with itself one period earlier                             |

docs/features.md gives the formulas and the measured accuracy.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

from codec_ext.features import FeatureExtractor, cepstrum_to_lpc

__all__ = [
    "HOP",
    "MAX_PERIOD",
    "MIN_PERIOD",
    "NUM_BANDS",
    "NUM_FEATURES",
    "ORDER",
    "PERIODICITY",
    "PITCH",
    "PREEMPHASIS",
    "SYNTHESIS_LAG",
    "FeatureExtractor",
    "cepstrum_to_lpc",
    "correlation",
    "period",
]

HOP: Final = 160
"""Samples per feature vector: 10 ms at 16 kHz."""

NUM_FEATURES: Final = 20

NUM_BANDS: Final = 18
"""Cepstral coefficients, features 0..17."""

PITCH: Final = 18
"""Column of the pitch feature."""

PERIODICITY: Final = 19
"""Column of the periodicity feature."""

ORDER: Final = 16
"""Of the linear predictor that `cepstrum_to_lpc` derives."""

PREEMPHASIS: Final = 0.85
"""y[n] = x[n] - PREEMPHASIS x[n - 1], before everything else."""

SYNTHESIS_LAG: Final = HOP // 2
"""The frame conditioned by feature k starts this many samples before hop k."""

MIN_PERIOD: Final = 32
MAX_PERIOD: Final = 255


def period(features: npt.NDArray[np.float32]) -> npt.NDArray[np.int64]:
    """Pitch periods in samples at 16 kHz, 32..255, of features [..., 20]; shape [...].

    Total: values outside the range of the pitch feature are clipped, NaN gives the longest period.
    """
    octaves = np.nan_to_num(np.asarray(features)[..., PITCH].astype(np.float64), nan=-1.5)
    samples = 256.0 / np.exp2(np.clip(octaves, -8, 8) + 1.5)
    return np.clip(np.rint(samples), MIN_PERIOD, MAX_PERIOD).astype(np.int64)


def correlation(features: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
    """Normalised correlations that the periodicity features [..., 20] stand for; shape [...].

    -1..1 for extracted features; values of decoded ones that no correlation gives are clipped.
    """
    squashed = np.asarray(features)[..., PERIODICITY].astype(np.float64) + 0.5
    softplus = np.clip(squashed, 1e-4, 1.0) * np.log1p(np.exp(5.0))
    found: npt.NDArray[np.float64] = np.clip(np.log(np.expm1(softplus)) / 5.0, -1.0, 1.0)
    return found
