"""The trained RDO-VAE: three small networks and the statistics of what they exchange.

Everything that depends on training is data in `codec/models`; another model of the same syntax can
be loaded from another folder.
"""

from __future__ import annotations

import functools
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnxruntime

from codec.dred_syntax import DredStatistics
from codec.features import NUM_FEATURES
from codec.laplace import LaplaceTables

Array = npt.NDArray[np.float32]

MODELS = Path(__file__).parent / "models"
NETWORKS = ("encoder", "start", "decoder")
STATISTICS = "dred_stats.npz"


class DredModelError(ValueError):
    """Model files that are missing, damaged or do not belong together."""


class DredModel:
    """Networks as functions; their recurrent state is passed in and out. Safe to share by threads.

    Raises DredModelError, which names the file.
    """

    def __init__(self, folder: Path = MODELS) -> None:
        self.statistics = read_statistics(folder / STATISTICS)
        self._encoder, self._start, self._decoder = (
            open_network(folder / f"dred_{name}.onnx") for name in NETWORKS
        )
        encoder = {entry.name: entry.shape for entry in self._encoder.get_inputs()}
        self._encoder_state = tuple(encoder["state"])
        latents = self._decoder.get_inputs()[0].shape[-1]
        states = self._start.get_inputs()[0].shape[-1]
        known = (self.statistics.latent.dimensions, self.statistics.state.dimensions)
        if (latents, states) != known:
            raise DredModelError(
                f"{folder}: networks of {latents} latents and {states} state values,"
                f" statistics of {known[0]} and {known[1]}"
            )

    @staticmethod
    @functools.cache
    def default() -> DredModel:
        """The model that comes with the package, loaded once."""
        return DredModel()

    def encoder_state(self) -> Array:
        """State of an encoder that has heard nothing."""
        return np.zeros(self._encoder_state, np.float32)

    def encode(self, pairs: Array, state: Array) -> tuple[Array, Array, Array]:
        """Features [1 + T, 40], two vectors a row and the row before the first step included.

        Returns latents [T, latents], initial states [T, states] and the next state.
        """
        latents, initial, state = self._encoder.run(
            ["latents", "initial", "next_state"], {"pairs": pairs[:, None], "state": state}
        )
        return latents[:, 0], initial[:, 0], state

    def start(self, initial: Array) -> Array:
        """State of a decoder that begins where `initial` [states] was sent."""
        state: Array = self._start.run(["state"], {"initial": initial[None]})[0]
        return state

    def decode(
        self, latents: Array, levels: npt.NDArray[np.int_], state: Array
    ) -> tuple[Array, Array]:
        """Latents [n, latents] at levels [n], going back in time, to features and next state.

        The features are [4n, 20], newest first.
        """
        level = (levels.astype(np.float32) / 8 - 1)[:, None, None]
        features, state = self._decoder.run(
            ["features", "next_state"],
            {"latents": latents[:, None], "level": level, "state": state},
        )
        return features.reshape(-1, NUM_FEATURES), state


def open_network(path: Path) -> onnxruntime.InferenceSession:
    """A session of one thread. Raises DredModelError."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    if not path.is_file():
        raise DredModelError(f"no model file {path}")
    try:
        return onnxruntime.InferenceSession(
            path.read_bytes(), options, providers=["CPUExecutionProvider"]
        )
    except Exception as error:  # onnxruntime's exceptions share no documented base
        raise DredModelError(f"{path}: {error}") from error


def read_statistics(path: Path) -> DredStatistics:
    """Raises DredModelError."""
    try:
        with np.load(path) as arrays:
            latent, state = (
                LaplaceTables(
                    *(arrays[f"{kind}_{name}"] for name in ("scale", "dead_zone", "r", "p0"))
                )
                for kind in ("latent", "state")
            )
        return DredStatistics(latent, state)
    except FileNotFoundError:
        raise DredModelError(f"no model file {path}") from None
    except (KeyError, ValueError) as error:
        raise DredModelError(f"{path}: {error}") from error
