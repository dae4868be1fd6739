"""The predictor of lost features: what speech that did not arrive is likely to have been."""

from __future__ import annotations

import functools
from pathlib import Path

import numpy as np
import numpy.typing as npt

from codec.dred_model import DredModelError, open_network
from codec.features import NUM_FEATURES

Features = npt.NDArray[np.float32]

NETWORK = Path(__file__).parent / "models" / "plc.onnx"

RECEIVED, LOST, REDUNDANT = 1.0, 0.0, -1.0
"""What the network is told of a vector: it was received, it was not, it came as redundancy."""


class PredictorError(ValueError):
    """A network file that is missing, damaged or unfit."""


class PredictorNetwork:
    """One step of the network, its state passed in and out. Safe to share by threads.

    `network` is a file that `codec.training.export` wrote. Raises PredictorError, which names it.
    """

    def __init__(self, network: Path = NETWORK) -> None:
        try:
            self._session = open_network(network)
        except DredModelError as error:
            raise PredictorError(str(error)) from error
        inputs = {entry.name: entry.shape for entry in self._session.get_inputs()}
        outputs = [entry.name for entry in self._session.get_outputs()]
        if inputs.keys() != {"features", "lost", "state"} or outputs != ["prediction", "state_out"]:
            raise PredictorError(f"{network}: inputs {sorted(inputs)} and outputs {outputs}")
        if inputs["features"] != [1, NUM_FEATURES]:
            raise PredictorError(f"{network}: features {inputs['features']}")
        self._state_shape = tuple(inputs["state"])

    @staticmethod
    @functools.cache
    def default() -> PredictorNetwork:
        """The network that comes with the package, loaded once."""
        return PredictorNetwork()

    def initial_state(self) -> Features:
        """The state at the start of a call."""
        return np.zeros(self._state_shape, np.float32)

    def step(self, features: Features, flag: float, state: Features) -> tuple[Features, Features]:
        """From the features [1, 20] of 10 ms to a prediction [1, 20] of the next, and a state."""
        prediction, state = self._session.run(
            None, {"features": features, "lost": np.full((1, 1), flag, np.float32), "state": state}
        )
        return prediction, state


class FeaturePredictor:
    """Follows the features of one stream and says how they may go on.

    `foresee` looks ahead without committing to anything; `tell` commits.
    """

    def __init__(self, network: PredictorNetwork | None = None) -> None:
        self._network = network or PredictorNetwork.default()
        self._state = self._network.initial_state()
        self._next = np.zeros((1, NUM_FEATURES), np.float32)

    def tell(self, features: Features, flag: float) -> None:
        """Features float32 [n, 20] of the next n vectors, one flag for all."""
        for i in range(len(features)):
            self._next, self._state = self._network.step(features[i : i + 1], flag, self._state)

    def tell_lost(self, count: int) -> Features:
        """The next `count` vectors are lost; returns what they may have been, float32 [n, 20]."""
        guesses = np.empty((count, NUM_FEATURES), np.float32)
        for i in range(count):
            guesses[i] = self._next[0]
            self._next, self._state = self._network.step(self._next, LOST, self._state)
        return guesses

    def foresee(self, count: int) -> Features:
        """The next `count` vectors, float32 [n, 20], should nothing arrive."""
        guesses = np.empty((count, NUM_FEATURES), np.float32)
        prediction, state = self._next, self._state
        for i in range(count):
            guesses[i] = prediction[0]
            if i + 1 < count:
                prediction, state = self._network.step(prediction, LOST, state)
        return guesses
