"""LPCNet as trained: a network per 10 ms frame and a network per sample.

Valin & Skoglund 2019 (arXiv 1810.11846), with the dual fully-connected tree output and the folded
embeddings of "Neural speech synthesis on a shoestring" (arXiv 2202.11169). The names of the
parameters are the keys of the weight file.
"""

import math
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional

FEATURES = 20
FRAME = 160
LEVELS = 256
TREE_DEPTH = 8
CONTEXT_BEFORE, CONTEXT_AFTER = 3, 1
"""Frames beside the one being synthesised that the two convolutions see."""

UNITS_A, UNITS_B = 256, 32
_EMBEDDING, _PERIOD_EMBEDDING, _HIDDEN = 128, 64, 128

SHAPES: dict[str, tuple[int, ...]] = {
    "feature_mean": (FEATURES,),
    "feature_std": (FEATURES,),
    "period_embedding": (256, _PERIOD_EMBEDDING),
    "conv1_weight": (_HIDDEN, FEATURES + _PERIOD_EMBEDDING, 3),
    "conv1_bias": (_HIDDEN,),
    "conv2_weight": (_HIDDEN, _HIDDEN, 3),
    "conv2_bias": (_HIDDEN,),
    "dense1_weight": (_HIDDEN, _HIDDEN),
    "dense1_bias": (_HIDDEN,),
    "dense2_weight": (_HIDDEN, _HIDDEN),
    "dense2_bias": (_HIDDEN,),
    "sample_embedding": (3, LEVELS, _EMBEDDING),
    "embedding_weight": (3, _EMBEDDING, 3 * UNITS_A),
    "gru_a_condition_weight": (3 * UNITS_A, _HIDDEN),
    "gru_a_condition_bias": (3 * UNITS_A,),
    "gru_a_recurrent_weight": (3 * UNITS_A, UNITS_A),
    "gru_a_recurrent_bias": (UNITS_A,),
    "gru_b_condition_weight": (3 * UNITS_B, _HIDDEN),
    "gru_b_condition_bias": (3 * UNITS_B,),
    "gru_b_input_weight": (3 * UNITS_B, UNITS_A),
    "gru_b_recurrent_weight": (3 * UNITS_B, UNITS_B),
    "gru_b_recurrent_bias": (UNITS_B,),
    "tree_weight1": (LEVELS, UNITS_B),
    "tree_bias1": (LEVELS,),
    "tree_scale1": (LEVELS,),
    "tree_weight2": (LEVELS, UNITS_B),
    "tree_bias2": (LEVELS,),
    "tree_scale2": (LEVELS,),
}
"""Every array of the weight file, float32. Gates are in the order update, reset, candidate."""

NORMALISATION = ("feature_mean", "feature_std")
"""Arrays that are measured on the training data, not trained."""


class SampleWeights(NamedTuple):
    """What the sample-rate network needs, gradients and all; B sequences of F frames."""

    tables: Tensor
    """[3, 256, 768]: embeddings times their input weights; signal, prediction, excitation."""
    condition_a: Tensor
    """[B, F, 768]"""
    recurrent_a: Tensor
    """[768, 256]"""
    bias_a: Tensor
    """[256]: of the candidate, inside the reset gate"""
    condition_b: Tensor
    """[B, F, 96]"""
    input_b: Tensor
    """[96, 256]"""
    recurrent_b: Tensor
    """[96, 32]"""
    bias_b: Tensor
    """[32]"""
    tree_weight1: Tensor
    tree_bias1: Tensor
    tree_scale1: Tensor
    tree_weight2: Tensor
    tree_bias2: Tensor
    tree_scale2: Tensor


def gru_step(x: Tensor, recurrent: Tensor, bias: Tensor, state: Tensor) -> Tensor:
    """One step: z, r = sigmoid(x + U h); n = tanh(x_n + r (U_n h + b)); h' = z h + (1 - z) n.

    x: [B, 3N], recurrent: [3N, N], bias: [N], state: [B, N] -> [B, N].
    """
    x_update, x_reset, x_new = x.chunk(3, -1)
    u_update, u_reset, u_new = (state @ recurrent.T).chunk(3, -1)
    update = torch.sigmoid(x_update + u_update)
    fresh = torch.tanh(x_new + torch.sigmoid(x_reset + u_reset) * (u_new + bias))
    return update * state + (1 - update) * fresh


def reference_loss(weights: SampleWeights, inputs: Tensor, targets: Tensor) -> Tensor:
    """Mean negative log-likelihood in nats per sample, in plain PyTorch.

    inputs: uint8 [B, T, 3] mu-law of last signal, prediction, last excitation; targets: uint8
    [B, T] mu-law excitation; T = F * 160. Both states start at zero.
    """
    w = weights
    batch, samples, _ = inputs.shape
    index = inputs.long()
    state_a = w.tables.new_zeros(batch, UNITS_A)
    state_b = w.tables.new_zeros(batch, UNITS_B)
    states = []
    for t in range(samples):
        x = w.condition_a[:, t // FRAME]
        for i in range(3):
            x = x + w.tables[i, index[:, t, i]]
        state_a = gru_step(x, w.recurrent_a, w.bias_a, state_a)
        x = w.condition_b[:, t // FRAME] + state_a @ w.input_b.T
        state_b = gru_step(x, w.recurrent_b, w.bias_b, state_b)
        states.append(state_b)
    h = torch.stack(states, 1)
    logits = w.tree_scale1 * torch.tanh(h @ w.tree_weight1.T + w.tree_bias1)
    logits = logits + w.tree_scale2 * torch.tanh(h @ w.tree_weight2.T + w.tree_bias2)
    level = torch.arange(TREE_DEPTH)
    target = targets.long()[..., None]
    node = (1 << level) | (target >> (TREE_DEPTH - level))
    bit = ((target >> (TREE_DEPTH - 1 - level)) & 1).to(logits.dtype)
    loss = functional.binary_cross_entropy_with_logits(
        logits.gather(-1, node), bit, reduction="sum"
    )
    return loss / targets.numel()


def fake_quantise(weight: Tensor) -> Tensor:
    """`weight` rounded to 8 bits with one scale per output row; the gradient passes unchanged."""
    scale = weight.detach().abs().amax(-1, keepdim=True).clamp_min(1e-9) / 127
    return weight + (torch.round(weight.detach() / scale) * scale - weight.detach())


class LPCNet(nn.Module):
    """Parameters under the keys of the weight file; `forward` gives the sample network's inputs."""

    def __init__(self) -> None:
        super().__init__()
        for name, shape in SHAPES.items():
            if name in NORMALISATION:
                self.register_buffer(name, torch.full(shape, float(name == "feature_std")))
            else:
                self.register_parameter(name, nn.Parameter(_initial(name, shape)))

    def load_arrays(self, arrays: Mapping[str, npt.NDArray[np.float32]]) -> None:
        """Take the weights from arrays in the form of the weight file.

        Raises ValueError when one is missing or has another shape.
        """
        state = {}
        for name, shape in SHAPES.items():
            if name not in arrays:
                raise ValueError(f"weights lack {name}")
            if arrays[name].shape != shape:
                raise ValueError(f"{name} is {arrays[name].shape}, expected {shape}")
            state[name] = torch.from_numpy(np.array(arrays[name], np.float32))
        self.load_state_dict(state)

    def condition(self, features: Tensor) -> Tensor:
        """The frame network: float [B, F + 4, 20] -> [B, F, 128]; frame k sees k-3 .. k+1."""
        p = self.get_parameter
        mean, std = self.get_buffer("feature_mean"), self.get_buffer("feature_std")
        period = torch.round(256 / torch.exp2(features[..., 18] + 1.5)).long().clamp(0, 255)
        x: Tensor = torch.cat([(features - mean) / std, p("period_embedding")[period]], -1)
        x = x.transpose(1, 2)
        x = torch.tanh(functional.conv1d(x, p("conv1_weight"), p("conv1_bias")))
        x = torch.tanh(functional.conv1d(x, p("conv2_weight"), p("conv2_bias"))).transpose(1, 2)
        x = torch.tanh(functional.linear(x, p("dense1_weight"), p("dense1_bias")))
        return torch.tanh(functional.linear(x, p("dense2_weight"), p("dense2_bias")))

    def forward(self, features: Tensor, quantise: bool = False) -> SampleWeights:
        """What the sample network needs for `features` [B, F + 4, 20].

        quantise: round the two large matrices as the 8-bit synthesiser does.
        """
        p = self.get_parameter
        condition = self.condition(features)
        large = (p("gru_a_recurrent_weight"), p("gru_b_input_weight"))
        recurrent_a, input_b = (fake_quantise(w) if quantise else w for w in large)
        return SampleWeights(
            tables=torch.bmm(p("sample_embedding"), p("embedding_weight")),
            condition_a=functional.linear(
                condition, p("gru_a_condition_weight"), p("gru_a_condition_bias")
            ),
            recurrent_a=recurrent_a,
            bias_a=p("gru_a_recurrent_bias"),
            condition_b=functional.linear(
                condition, p("gru_b_condition_weight"), p("gru_b_condition_bias")
            ),
            input_b=input_b,
            recurrent_b=p("gru_b_recurrent_weight"),
            bias_b=p("gru_b_recurrent_bias"),
            tree_weight1=p("tree_weight1"),
            tree_bias1=p("tree_bias1"),
            tree_scale1=p("tree_scale1"),
            tree_weight2=p("tree_weight2"),
            tree_bias2=p("tree_bias2"),
            tree_scale2=p("tree_scale2"),
        )


def _initial(name: str, shape: tuple[int, ...]) -> Tensor:
    if name.startswith("tree_scale"):
        return torch.ones(shape)
    if name.endswith("bias") or name.startswith("tree_bias"):
        return torch.zeros(shape)
    if name == "sample_embedding":
        # every dimension starts as the level itself, so that near levels start alike
        ramp = (torch.arange(LEVELS) - (LEVELS - 1) / 2)[:, None] / (LEVELS - 1) * math.sqrt(12)
        return ramp + 0.1 * (2 * torch.rand(shape) - 1)
    if name == "embedding_weight":
        return torch.randn(shape) * 0.7 / math.sqrt(3 * _EMBEDDING + _HIDDEN)
    if name == "period_embedding":
        return 0.1 * torch.randn(shape)
    if "recurrent_weight" in name:
        gates = [nn.init.orthogonal_(torch.empty(shape[1], shape[1])) for _ in range(3)]
        return torch.cat(gates)
    if name.startswith("tree_weight"):
        return 0.15 * torch.randn(shape)
    return nn.init.xavier_uniform_(torch.empty(shape))
