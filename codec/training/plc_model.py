"""The predictor of lost features: what LPCNet is to say when nothing came.

After "Real-Time Packet Loss Concealment With Mixed Generative and Predictive Model" (Valin et al.
2022, arXiv 2205.05785): a dense layer and two GRUs, stepped once per 10 ms whether or not the frame
is known. Where that paper feeds zeros for a lost frame, this one feeds the last known features,
held in the state, and predicts the difference to them: repeating the last frame is then what the
network does before it has learnt anything, no prediction is fed back, and training sees whole
sequences at once.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

FEATURES = 20
HIDDEN = 128
UNITS = 128
STATE = FEATURES + 2 * UNITS
"""Held features, then the states of the two GRUs; all zero at the start of a call."""

RECEIVED, LOST, REDUNDANT = 1.0, 0.0, -1.0
"""The flag: features of received speech, none, or features that were coded as redundancy."""


class Prediction(NamedTuple):
    features: Tensor
    """[B, T, 20]: frame t holds the prediction of frame t + 1"""
    held: Tensor
    """[B, T, 20]: the last known features at frame t"""


def hold(features: Tensor, known: Tensor) -> Tensor:
    """[B, T, 20], unknown frames replaced by the last known one, zeros before the first."""
    batch, frames, _ = features.shape
    index = torch.where(known, torch.arange(1, frames + 1), 0).cummax(1).values
    padded = torch.cat([features.new_zeros(batch, 1, FEATURES), features], 1)
    return padded.gather(1, index[..., None].expand(-1, -1, FEATURES))


class FeaturePredictor(nn.Module):
    """`forward` predicts every next frame of known and lost ones."""

    mean: Tensor
    std: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(FEATURES))
        self.register_buffer("std", torch.ones(FEATURES))
        self.dense = nn.Linear(FEATURES + 1, HIDDEN)
        self.gru1 = nn.GRU(HIDDEN, UNITS, batch_first=True)
        self.gru2 = nn.GRU(UNITS, UNITS, batch_first=True)
        self.out = nn.Linear(UNITS, FEATURES)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    def set_statistics(self, features: npt.NDArray[np.float32]) -> None:
        """Normalise by the mean and standard deviation of features [n, 20]."""
        self.mean.copy_(torch.from_numpy(features.mean(0)))
        self.std.copy_(torch.from_numpy(features.std(0)))

    def forward(self, features: Tensor, flag: Tensor) -> Prediction:
        """features: [B, T, 20], anything where lost; flag: [B, T], see `RECEIVED`."""
        held = hold(features, flag != LOST)
        x = torch.cat([(held - self.mean) / self.std, flag[..., None]], -1)
        x, _ = self.gru1(torch.tanh(self.dense(x)))
        x, _ = self.gru2(x)
        return Prediction(held + self.out(x) * self.std, held)


def onnx_model(weights: Mapping[str, Tensor], metadata: Mapping[str, str]) -> bytes:
    """Steps of a `FeaturePredictor` with these weights as an ONNX file.

    Inputs: `features` float32 [T, 20], `lost` float32 [T, 1] (the flag, lost for all or for none),
    `state` float32 [STATE]. Outputs: `prediction` float32 [T, 20], of the 10 ms after each, and
    `state_out` float32 [STATE]. `features` are ignored where the flag says lost.
    """
    from onnx import TensorProto, checker, helper, numpy_helper

    nodes, constants = [], []

    def constant(name: str, value: npt.NDArray[np.generic]) -> str:
        constants.append(numpy_helper.from_array(np.ascontiguousarray(value), name))
        return name

    def array(name: str) -> npt.NDArray[np.float32]:
        return weights[name].detach().numpy().astype(np.float32)

    def node(kind: str, inputs: list[str], output: str | list[str], **attributes: Any) -> str:
        outputs = [output] if isinstance(output, str) else output
        nodes.append(helper.make_node(kind, inputs, outputs, **attributes))
        return outputs[-1]

    def gru(name: str, x: str, state: str) -> str:
        def gates(key: str) -> npt.NDArray[np.float32]:
            reset, update, new = np.split(array(f"{name}.{key}"), 3)  # the order of PyTorch
            return np.concatenate([update, reset, new])

        w = constant(f"{name}.w", gates("weight_ih_l0")[None])
        r = constant(f"{name}.r", gates("weight_hh_l0")[None])
        b = constant(f"{name}.b", np.concatenate([gates("bias_ih_l0"), gates("bias_hh_l0")])[None])
        steps = node("Unsqueeze", [x, "batch"], f"{name}.x")
        initial = node("Reshape", [state, "gru_shape"], f"{name}.initial")
        node(
            "GRU",
            [steps, w, r, b, "", initial],
            [f"{name}.steps", f"{name}.state"],
            hidden_size=UNITS,
            linear_before_reset=1,  # the reset gate acts on the product, as in PyTorch
        )
        return node("Reshape", [f"{name}.steps", "rows_shape"], f"{name}.out")

    constant("batch", np.array([1], np.int64))
    constant("gru_shape", np.array([1, 1, UNITS], np.int64))
    constant("row_shape", np.array([1, -1], np.int64))
    constant("rows_shape", np.array([-1, UNITS], np.int64))
    constant("flat_shape", np.array([-1], np.int64))
    constant("last", np.array([-1], np.int64))
    constant("parts", np.array([FEATURES, UNITS, UNITS], np.int64))
    constant("zero", np.zeros((1, 1), np.float32))
    node("Split", ["state", "parts"], ["held_before", "state1", "state2"], axis=0)
    held_row = node("Reshape", ["held_before", "row_shape"], "held_row")
    is_lost = node("Equal", ["lost", "zero"], "is_lost")
    held = node("Where", [is_lost, held_row, "features"], "held")
    centred = node("Sub", [held, constant("mean", array("mean"))], "centred")
    normal = node("Div", [centred, constant("std", array("std"))], "normal")
    x = node("Concat", [normal, "lost"], "input", axis=1)
    dense = [constant(f"dense.{k}", array(f"dense.{k}")) for k in ("weight", "bias")]
    x = node("Tanh", [node("Gemm", [x, *dense], "dense.sum", transB=1)], "dense.out")
    x = gru("gru2", gru("gru1", x, "state1"), "state2")
    out = [constant(f"out.{k}", array(f"out.{k}")) for k in ("weight", "bias")]
    change = node("Mul", [node("Gemm", [x, *out], "out.sum", transB=1), "std"], "change")
    node("Add", [held, change], "prediction")
    held_last = node("Gather", [held, "last"], "held.last", axis=0)
    ends = (held_last, "gru1.state", "gru2.state")
    flat = [node("Reshape", [end, "flat_shape"], f"{end}.flat") for end in ends]
    node("Concat", flat, "state_out", axis=0)

    def value(name: str, *shape: int | str) -> Any:
        return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)

    graph = helper.make_graph(
        nodes,
        "plc",
        [value("features", "T", FEATURES), value("lost", "T", 1), value("state", STATE)],
        [value("prediction", "T", FEATURES), value("state_out", STATE)],
        constants,
    )
    model = helper.make_model(
        graph, producer_name="dredcall", opset_imports=[helper.make_opsetid("", 17)], ir_version=9
    )
    helper.set_model_props(model, dict(metadata))
    checker.check_model(model, full_check=True)
    return bytes(model.SerializeToString())
