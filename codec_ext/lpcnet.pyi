from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

SPAN: int
"""Most samples that share a condition: 160."""

CONTEXT: int
"""Feature rows that condition one frame, k-3..k+1: 5."""

def paths() -> tuple[str, ...]:
    """Names of the instruction sets this machine can run the kernel with, best first."""

class Model:
    """Weights laid out for one instruction set; read-only once built, so voices may share it.

    `weights` are named as docs/vocoder.md lists them. `path` is one of `paths()`, by default the
    first. `quantised` runs the sample network on int8 weights and states, else on float32.

    Raises ValueError, naming the array, if one is missing, not finite or of the wrong shape.
    """

    density: float
    """Share of GRU A's recurrent weights that are not zero."""

    def __init__(
        self,
        weights: Mapping[str, npt.NDArray[np.float32]],
        path: str | None = None,
        quantised: bool = True,
    ) -> None: ...
    @property
    def path(self) -> str: ...
    @property
    def quantised(self) -> bool: ...

class Condition:
    """What the sample network is told about one 10 ms frame; reusable."""

    def compute(
        self, model: Model, features: npt.NDArray[np.float32], lpc: npt.NDArray[np.float32]
    ) -> None:
        """Run the frame network on feature rows k-3..k+1 [5, 20]; `lpc` [16] is row k's.

        Raises ValueError on other shapes.
        """

class State:
    """One voice between two samples. Calls on one State must not overlap."""

    def __init__(self, seed: int = 0) -> None: ...
    def reset(self, seed: int = 0) -> None:
        """Back to silence, with the random generator at `seed`."""

    def reseed(self, seed: int) -> None:
        """Keep the voice, but draw its next samples from another random sequence."""

    def prime(self, pcm: npt.NDArray[np.int16]) -> None:
        """Reset the networks and take `pcm`, up to now, for the signal's past.

        Linear prediction reaches back over the last 17 samples; fewer follow silence.
        """

    def copy(self) -> State:
        """An independent voice that continues from the same sample."""

    def run(
        self,
        model: Model,
        condition: Condition,
        out: npt.NDArray[np.int16],
        *,
        walk: bool = False,
        floor: float = 0.002,
        cut: float = 0.02,
        voicing: float = 1.5,
    ) -> None:
        """Speak: fill `out`, at most 160 samples under one condition.

        Each excitation is drawn from the distribution over the 256 levels raised to the power
        1 + max(0, voicing * correlation - 0.5), less `floor`; with `walk`, by eight draws down the
        tree of levels, the power applied to logits and probabilities under `cut` to nothing.

        Raises ValueError if `out` is longer, or a sampling parameter is outside its range.
        """

    def force(self, model: Model, condition: Condition, pcm: npt.NDArray[np.int16]) -> None:
        """Follow the true signal `pcm`, at most 160 samples under one condition.

        Raises ValueError if `pcm` is longer.
        """

    def force_observed(
        self, model: Model, condition: Condition, pcm: npt.NDArray[np.int16]
    ) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.uint8]]:
        """As `force`; returns (node logits float32 [n, 256], true excitation uint8 [n]).

        Node m of the tree of levels has children 2m (bit 0) and 2m + 1; the root is node 1.
        """
