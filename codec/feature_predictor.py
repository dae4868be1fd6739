"""The predictor of lost features: what speech that did not arrive is likely to have been."""

from __future__ import annotations

import copy
import functools
from pathlib import Path
from typing import Final

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
    """The network, its state passed in and out. Safe to share by threads.

    `network` is a file that `codec.training.export` wrote. Raises PredictorError, which names it.
    """

    OUTPUTS: Final = ["prediction", "state_out"]

    def __init__(self, network: Path = NETWORK) -> None:
        try:
            self._session = open_network(network)
        except DredModelError as error:
            raise PredictorError(str(error)) from error
        inputs = {entry.name: entry.shape for entry in self._session.get_inputs()}
        outputs = [entry.name for entry in self._session.get_outputs()]
        if inputs.keys() != {"features", "lost", "state"} or outputs != self.OUTPUTS:
            raise PredictorError(f"{network}: inputs {sorted(inputs)} and outputs {outputs}")
        if inputs["features"] != ["T", NUM_FEATURES]:
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

    def steps(self, features: Features, flag: float, state: Features) -> tuple[Features, Features]:
        """What may follow each of the vectors [T, 20], 10 ms apart, float32 [T, 20]; a state.

        One flag for all; lost vectors are not looked at.
        """
        flags = np.full((len(features), 1), flag, np.float32)
        prediction, state = self._session.run(
            self.OUTPUTS, {"features": features, "lost": flags, "state": state}
        )
        return prediction, state


class FeaturePredictor:
    """Follows the features of one stream and says how they may go on.

    `foresee` looks ahead without committing to anything; `tell` and `tell_lost` commit. What is
    told is looked at when enough of it has come together, or when a prediction is asked for.
    """

    TOGETHER = 20
    """Vectors, 200 ms: twenty steps in one run cost an eighth of ten runs in as many frames, and a
    hole's first frame waits 0.2 ms longer than if it found none."""

    def __init__(self, network: PredictorNetwork | None = None) -> None:
        self._network = network or PredictorNetwork.default()
        self._state = self._network.initial_state()
        self._next = np.zeros((1, NUM_FEATURES), np.float32)
        self._told = np.zeros((self.TOGETHER, NUM_FEATURES), np.float32)
        self._count = 0
        self._flag = RECEIVED

    def copy(self) -> FeaturePredictor:
        """An independent predictor that continues from the same vector."""
        other = copy.copy(self)
        other._told = self._told.copy()
        return other

    def tell(self, features: Features, flag: float) -> None:
        """Features float32 [n, 20] of the next n vectors, one flag for all."""
        if flag != self._flag:
            self._look()
            self._flag = flag
        while len(features):
            fitting = features[: self.TOGETHER - self._count]
            self._told[self._count : self._count + len(fitting)] = fitting
            self._count += len(fitting)
            if self._count == self.TOGETHER:
                self._look()
            features = features[len(fitting) :]

    def tell_lost(self, count: int) -> Features:
        """The next `count` vectors are lost; returns what they may have been, float32 [n, 20]."""
        self._look()
        lost = np.zeros((count, NUM_FEATURES), np.float32)
        predicted, self._state = self._network.steps(lost, LOST, self._state)
        guesses = np.concatenate([self._next, predicted[:-1]])
        self._next = predicted[-1:]
        return guesses

    def foresee(self, count: int) -> Features:
        """The next `count` vectors, float32 [n, 20], should nothing arrive."""
        self._look()
        if count < 2:
            return self._next[:count].copy()
        lost = np.zeros((count - 1, NUM_FEATURES), np.float32)
        predicted, _ = self._network.steps(lost, LOST, self._state)
        return np.concatenate([self._next, predicted])

    def _look(self) -> None:
        if self._count:
            told = self._told[: self._count]
            predicted, self._state = self._network.steps(told, self._flag, self._state)
            self._next = predicted[-1:]
            self._count = 0
