"""Putting back the spectral detail that guessing takes away.

Features that were coded coarsely, or predicted, are averages over what might have been: their fine
structure, the higher cepstra, varies less than that of speech, and a vocoder that is told so sounds
dull. As in speech synthesis ("global variance", Toda and Tokuda 2007), what deviates from the
typical is enlarged, the more the finer it is.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from codec.features import NUM_BANDS, NUM_FEATURES

Features = npt.NDArray[np.float32]

FINE = 3
"""The first cepstral coefficient that is enlarged: those before give level and tilt."""

# fmt: off
TYPICAL = np.array(
    [0.85, -0.34, -0.13, -0.54, -0.21, -0.27, -0.15, -0.37, 0.00, -0.16, -0.01, -0.15, -0.08,
     -0.06, -0.01],
    np.float32,
)
# fmt: on
"""Means over speech of many talkers of the coefficients from `FINE` on."""

_RAMP = np.arange(1, NUM_BANDS - FINE + 1, dtype=np.float32) / (NUM_BANDS - FINE)
assert TYPICAL.shape == _RAMP.shape


def sharpen(features: Features, amount: float) -> Features:
    """Features float32 [..., 20] with the deviations of fine cepstra enlarged.

    The last coefficient's by 1 + `amount`, those below by less.
    """
    assert features.shape[-1] == NUM_FEATURES
    out = features.copy()
    fine = out[..., FINE:NUM_BANDS]
    fine += amount * _RAMP * (fine - TYPICAL)
    return out
