import numpy as np
import numpy.typing as npt

class FeatureExtractor:
    """Streaming, causal extraction of 20 features per hop of 160 samples (10 ms at 16 kHz).

    One instance serves one stream; calls must not overlap.
    """

    def __init__(self) -> None: ...
    def process(self, pcm: npt.NDArray[np.int16]) -> npt.NDArray[np.float32]:
        """Features float32 [n, 20] of the next n hops, int16 [160 * n].

        The result does not depend on how a stream is cut into calls. Raises ValueError if the
        number of samples is no multiple of 160, or if they are not contiguous int16.
        """

    def reset(self) -> None:
        """Forget the stream: the next hop is taken to follow silence."""

    def copy(self) -> FeatureExtractor:
        """An independent extractor that continues from the same point of the stream."""

def cepstrum_to_lpc(features: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Predictors float32 [n, 16] of the cepstra in features float32 [n, >= 18].

    The prediction of sample n of the pre-emphasised signal s is sum(a[i] * s[n - 1 - i]). Always
    finite, whatever the features. Raises ValueError if there are fewer than 18 columns, or if the
    array is not contiguous float32.
    """
