"""LPCNet in NumPy, one sample at a time: what `codec_ext.lpcnet` has to agree with.

Float64 throughout and in the order of the papers (arXiv:1810.11846, arXiv:2202.11169): embeddings
are looked up and multiplied, nothing is folded, blocked or quantised.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]
Weights = Mapping[str, npt.NDArray[np.float32]]

EMPHASIS = 0.85


def sigmoid(x: Array) -> Array:
    return 1 / (1 + np.exp(-x))


def mu_law_value(level: int) -> float:
    v = level - 128
    return float(np.sign(v) * 32768 / 255 * (256 ** (abs(v) / 128) - 1))


def mu_law_level(x: float) -> int:
    u = 128 / np.log(256) * np.log1p(255 / 32768 * abs(x))
    return int(np.clip(int(128 - u + 0.5) if x < 0 else int(128 + u + 0.5), 0, 255))


def frame_network(weights: Weights, features: npt.NDArray[np.float32]) -> Array:
    """Rows k-3..k+1 of features [5, 20] -> what conditions frame k, [units]."""
    period = np.clip(np.rint(256 / 2 ** (features[:, 18].astype(float) + 1.5)), 0, 255).astype(int)
    normal = (features - weights["feature_mean"]) / weights["feature_std"]
    x = np.concatenate([normal, weights["period_embedding"][period]], axis=1)
    for name in ("conv1", "conv2"):
        kernel = weights[f"{name}_weight"].astype(float)
        x = np.tanh(
            sum(x[tap : len(x) - 2 + tap] @ kernel[:, :, tap].T for tap in range(3))
            + weights[f"{name}_bias"]
        )
    x = x[0]
    for name in ("dense1", "dense2"):
        x = np.tanh(weights[f"{name}_weight"].astype(float) @ x + weights[f"{name}_bias"])
    code: Array = x
    return code


def gru(h: Array, x: Array, recurrent: Array, bias: Array) -> Array:
    """One step; rows are z, r, n, and the reset gate acts on the recurrent product."""
    xz, xr, xn = np.split(x, 3)
    hz, hr, hn = np.split(recurrent @ h, 3)
    z = sigmoid(xz + hz)
    n = np.tanh(xn + sigmoid(xr + hr) * (hn + bias))
    return z * h + (1 - z) * n


class SampleNetwork:
    """The sample-rate network driven with a true signal."""

    def __init__(self, weights: Weights) -> None:
        self.w = {k: np.asarray(v, dtype=float) for k, v in weights.items() if k != "metadata"}
        self.a = np.zeros(self.w["gru_a_recurrent_bias"].size)
        self.b = np.zeros(self.w["gru_b_recurrent_bias"].size)
        self.history = np.zeros(16)  # pre-emphasised, newest first
        self.last = 0.0
        self.excitation = 128

    def force(
        self, condition: Array, lpc: npt.NDArray[np.float32], pcm: npt.NDArray[np.int16]
    ) -> tuple[Array, npt.NDArray[np.uint8]]:
        """Node logits [n, 256] before each sample, and the true excitation [n]."""
        w = self.w
        a_input = w["gru_a_condition_weight"] @ condition + w["gru_a_condition_bias"]
        b_input = w["gru_b_condition_weight"] @ condition + w["gru_b_condition_bias"]
        logits = np.empty((len(pcm), 256))
        excitations = np.empty(len(pcm), dtype=np.uint8)
        for i, sample in enumerate(pcm):
            prediction = float(lpc @ self.history)
            x = a_input.copy()
            inputs = mu_law_level(self.history[0]), mu_law_level(prediction), self.excitation
            for k, level in enumerate(inputs):
                x += w["sample_embedding"][k, level] @ w["embedding_weight"][k]
            self.a = gru(self.a, x, w["gru_a_recurrent_weight"], w["gru_a_recurrent_bias"])
            self.b = gru(
                self.b,
                b_input + w["gru_b_input_weight"] @ self.a,
                w["gru_b_recurrent_weight"],
                w["gru_b_recurrent_bias"],
            )
            logits[i] = sum(
                w[f"tree_scale{j}"] * np.tanh(w[f"tree_weight{j}"] @ self.b + w[f"tree_bias{j}"])
                for j in (1, 2)
            )
            emphasised = float(sample) - EMPHASIS * self.last
            self.last = float(sample)
            self.excitation = excitations[i] = mu_law_level(emphasised - prediction)
            self.history = np.concatenate([[emphasised], self.history[:-1]])
        return logits, excitations


def level_probabilities(logits: Array) -> Array:
    """Node logits [256] -> probabilities of the 256 excitation levels."""
    reached = np.zeros(512)
    reached[1] = 1
    for node in range(1, 256):
        one = sigmoid(logits[node])
        reached[2 * node] = reached[node] * (1 - one)
        reached[2 * node + 1] = reached[node] * one
    return reached[256:]


def loss(logits: Array, excitation: npt.NDArray[np.uint8]) -> float:
    """Mean negative log-likelihood in nats of excitation [n] under logits [n, 256]."""
    total = np.zeros(len(excitation))
    node = np.ones(len(excitation), dtype=int)
    levels = excitation.astype(int)
    for bit in range(7, -1, -1):
        one = (levels >> bit) & 1
        logit = logits[np.arange(len(levels)), node].astype(float)
        total += np.logaddexp(0, np.where(one == 1, -logit, logit))
        node = 2 * node + one
    return float(total.mean())
