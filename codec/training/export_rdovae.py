"""Turn trained weights into what `codec.dred` loads.

    python -m codec.training.export_rdovae RUN/rdovae.npz --out codec/models

writes the three networks as ONNX with explicit state, the 8-bit statistics tables
(`dred_stats.npz`) and the weights themselves (`dred_rdovae.npz`), from which `--init` of the
trainer goes on. Dimensions that no level ever sends are left out.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper

from codec.training.rdovae import load_weights, weights
from codec.training.rdovae_model import FEATURES, PAIR, Quantiser, RdoVae

Array = npt.NDArray[np.float32]

OPSET = 17
IR_VERSION = 8


def quantised_tables(quantiser: Quantiser) -> tuple[dict[str, npt.NDArray[np.uint8]], Array]:
    """8-bit tables of the dimensions in use, [levels, kept], and the map between the two scalings.

    The map, float32 [all, kept], has one entry per column: what a trained latent is multiplied by
    so that the finest level's scale is 255/256.
    """
    with torch.no_grad():
        scale, dead_zone, r, p0 = (t.double().numpy() for t in quantiser.tables())
    unit = scale.max(0) * 256 / 255
    tables = {
        "scale": np.rint(256 * scale / unit).clip(1, 255),
        "dead_zone": np.rint(256 * dead_zone).clip(0, 255),
        "r": np.rint(256 * r).clip(0, 255),
        "p0": np.rint(256 * p0).clip(1, 255),
    }
    used = quantiser.used().numpy()
    mapping = np.diag(unit)[:, used].astype(np.float32)
    return {name: table[:, used].astype(np.uint8) for name, table in tables.items()}, mapping


class Graph:
    """An ONNX graph under construction."""

    def __init__(self, arrays: dict[str, Array]) -> None:
        self.arrays = arrays
        self.nodes: list[onnx.NodeProto] = []
        self.constants: dict[str, onnx.TensorProto] = {}

    def constant(self, name: str, value: npt.NDArray[Any]) -> str:
        self.constants[name] = numpy_helper.from_array(np.ascontiguousarray(value), name)
        return name

    def add(self, operator: str, inputs: list[str], output: str, **attributes: Any) -> str:
        self.nodes.append(helper.make_node(operator, inputs, [output], **attributes))
        return output

    def linear(self, x: str, layer: str, output: str) -> str:
        matrix = self.constant(layer + ".matrix", self.arrays[layer + ".weight"].T)
        bias = self.constant(layer + ".bias", self.arrays[layer + ".bias"])
        return self.add("Add", [self.add("MatMul", [x, matrix], output + ".product"), bias], output)

    def dense(self, x: str, layer: str, output: str) -> str:
        return self.add("Tanh", [self.linear(x, layer, output + ".linear")], output)

    def gru(self, x: str, state: str, layer: str, output: str) -> tuple[str, str]:
        """x [T, 1, n], state [1, 1, h] -> [T, 1, h], next state."""

        def reordered(name: str) -> Array:
            # PyTorch keeps reset, update, new; ONNX update, reset, hidden.
            reset, update, new = np.split(self.arrays[f"{layer}.{name}_l0"], 3)
            return np.concatenate([update, reset, new])

        w = self.constant(layer + ".w", reordered("weight_ih")[None])
        r = self.constant(layer + ".r", reordered("weight_hh")[None])
        both = np.concatenate([reordered("bias_ih"), reordered("bias_hh")])
        b = self.constant(layer + ".b", both[None])
        sequence, following = output + ".sequence", output + ".state"
        self.nodes.append(
            helper.make_node(
                "GRU",
                [x, w, r, b, "", state],
                [sequence, following],
                hidden_size=self.arrays[layer + ".weight_hh_l0"].shape[1],
                linear_before_reset=1,
            )
        )
        axis = self.constant("direction", np.array([1], np.int64))
        return self.add("Squeeze", [sequence, axis], output), following

    def trunk(self, x: str, layer: str) -> tuple[str, str]:
        """The model's `Trunk`: all outputs, and the next state, of input x [T, 1, n]."""
        half = self.constant("halves", np.array([1, 1], np.int64))
        states = ["state1", "state2"]
        self.nodes.append(helper.make_node("Split", ["state", half], states, axis=0))
        a = self.dense(x, layer + ".dense1", "a")
        b, next1 = self.gru(a, "state1", layer + ".gru1", "b")
        c = self.dense(self.join([a, b], "ab"), layer + ".dense2", "c")
        d, next2 = self.gru(c, "state2", layer + ".gru2", "d")
        e = self.dense(self.join([a, b, c, d], "abcd"), layer + ".dense3", "e")
        self.add("Concat", [next1, next2], "next_state", axis=0)
        return self.join([x, a, b, c, d, e], "all"), "next_state"

    def join(self, parts: list[str], output: str) -> str:
        return self.add("Concat", parts, output, axis=2)

    def model(
        self, name: str, inputs: dict[str, list[Any]], outputs: dict[str, list[Any]]
    ) -> onnx.ModelProto:
        def described(shapes: dict[str, list[Any]]) -> list[onnx.ValueInfoProto]:
            return [
                helper.make_tensor_value_info(key, TensorProto.FLOAT, shape)
                for key, shape in shapes.items()
            ]

        graph = helper.make_graph(
            self.nodes, name, described(inputs), described(outputs), list(self.constants.values())
        )
        built = helper.make_model(
            graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION
        )
        onnx.checker.check_model(built)
        return built


def encoder_graph(arrays: dict[str, Array], latent_map: Array, state_map: Array) -> onnx.ModelProto:
    """pairs [1+T, 1, 40], state -> latents [T, 1, kept], initial [T, 1, kept], next state."""
    g = Graph(arrays)
    mean = g.constant("mean", np.tile(arrays["mean"], 2))
    deviation = g.constant("deviation", np.tile(arrays["deviation"], 2))
    normal = g.add("Div", [g.add("Sub", ["pairs", mean], "centred"), deviation], "normal")
    zero, one = g.constant("zero", np.array([0])), g.constant("one", np.array([1]))
    last, end = g.constant("last", np.array([-1])), g.constant("end", np.array([2**31 - 1]))
    earlier = g.add("Slice", [normal, zero, last, zero], "earlier")
    later = g.add("Slice", [normal, one, end, zero], "later")
    hidden, following = g.trunk(g.join([earlier, later], "x"), "encoder")
    latents = g.linear(hidden, "to_latent", "unscaled")
    g.add("MatMul", [latents, g.constant("latent_map", latent_map)], "latents")
    state = g.linear(g.dense(hidden, "state_hidden", "s"), "to_state", "unscaled_state")
    g.add("MatMul", [state, g.constant("state_map", state_map)], "initial")
    width = arrays["encoder.gru1.weight_hh_l0"].shape[1]
    return g.model(
        "dred_encoder",
        {"pairs": ["pairs", 1, PAIR], "state": [2, 1, width]},
        {
            "latents": ["steps", 1, latent_map.shape[1]],
            "initial": ["steps", 1, state_map.shape[1]],
            following: [2, 1, width],
        },
    )


def inverse(mapping: Array) -> Array:
    """Undo a scaling by columns: [kept, all]."""
    scale = mapping.sum(0)
    undone: Array = (mapping / scale**2).T
    return undone


def start_graph(arrays: dict[str, Array], state_map: Array) -> onnx.ModelProto:
    """initial [1, kept] -> state [2, 1, width] of a decoder that begins there."""
    g = Graph(arrays)
    width = arrays["decoder.gru1.weight_hh_l0"].shape[1]
    x = g.add("MatMul", ["initial", g.constant("state_map", inverse(state_map))], "scaled")
    flat = g.dense(g.dense(x, "from_state", "hidden"), "to_recurrent", "flat")
    shape = g.constant("shape", np.array([2, 1, width], np.int64))
    g.add("Reshape", [flat, shape], "state")
    return g.model("dred_start", {"initial": [1, state_map.shape[1]]}, {"state": [2, 1, width]})


def decoder_graph(arrays: dict[str, Array], latent_map: Array) -> onnx.ModelProto:
    """latents [N, 1, kept], level [N, 1, 1], state -> features [4N, 20] newest first, next state.

    `level` is q / 8 - 1.
    """
    g = Graph(arrays)
    width = arrays["decoder.gru1.weight_hh_l0"].shape[1]
    z = g.add("MatMul", ["latents", g.constant("latent_map", inverse(latent_map))], "scaled")
    hidden, following = g.trunk(g.join([z, "level"], "x"), "decoder")
    chunks = g.linear(hidden, "to_features", "chunks")
    shape = g.constant("shape", np.array([-1, FEATURES], np.int64))
    normal = g.add("Reshape", [chunks, shape], "normal")
    spread = g.add("Mul", [normal, g.constant("deviation", arrays["deviation"])], "spread")
    g.add("Add", [spread, g.constant("mean", arrays["mean"])], "features")
    return g.model(
        "dred_decoder",
        {
            "latents": ["steps", 1, latent_map.shape[1]],
            "level": ["steps", 1, 1],
            "state": [2, 1, width],
        },
        {"features": ["frames", FEATURES], following: [2, 1, width]},
    )


def export(model: RdoVae, out: Path) -> tuple[int, int]:
    """Write all files; returns the numbers of latent and state dimensions in use."""
    arrays = weights(model)
    latent_tables, latent_map = quantised_tables(model.latent_quantiser)
    state_tables, state_map = quantised_tables(model.state_quantiser)
    out.mkdir(parents=True, exist_ok=True)
    onnx.save(encoder_graph(arrays, latent_map, state_map), out / "dred_encoder.onnx")
    onnx.save(start_graph(arrays, state_map), out / "dred_start.onnx")
    onnx.save(decoder_graph(arrays, latent_map), out / "dred_decoder.onnx")
    np.savez(
        out / "dred_stats.npz",
        **{f"latent_{name}": table for name, table in latent_tables.items()},  # type: ignore[arg-type]
        **{f"state_{name}": table for name, table in state_tables.items()},  # type: ignore[arg-type]
    )
    np.savez(out / "dred_rdovae.npz", **arrays)  # type: ignore[arg-type]
    return latent_map.shape[1], state_map.shape[1]


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("weights", type=Path, help="rdovae.npz of a training run")
    parser.add_argument("--out", type=Path, required=True, help="folder for the exported files")
    options = parser.parse_args(arguments)
    model = RdoVae()
    load_weights(model, options.weights)
    latents, states = export(model, options.out)
    print(f"{latents} latent and {states} state dimensions in use")


if __name__ == "__main__":
    main()
