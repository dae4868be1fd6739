"""Write trained weights in the form the codec reads.

python -m codec.training.export RUN OUT.npz     LPCNet, from the folder of a training run
python -m codec.training.export RUN OUT.onnx    the predictor of lost features
"""

import argparse
import json
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch

from codec.training import sparsity
from codec.training.lpcnet import CHECKPOINT, SPARSE
from codec.training.lpcnet_model import SHAPES


def export_lpcnet(run: Path, out: Path) -> dict[str, Any]:
    """Averaged weights of a run, pruned blocks zero, as float32 arrays; -> the file's metadata.

    The keys are those of `codec.training.lpcnet_model.SHAPES` and `metadata`, a 0-d string of
    JSON: `audio_hours` and `updates` of this run, `density` of GRU A's recurrence, `settings`, and
    `ancestry`, the metadata of the weights the run began with. Raises OSError if RUN holds no
    checkpoint.
    """
    state = torch.load(run / CHECKPOINT, weights_only=True)
    average: dict[str, torch.Tensor] = state["average"]
    sparsity.apply(average[SPARSE], state["active"])
    metadata = {
        "audio_hours": round(state["audio_seconds"] / 3600, 3),
        "updates": state["updates"],
        "density": round(float(state["active"].float().mean()), 4),
        "settings": state["settings"],
        "ancestry": state["ancestry"],
    }
    arrays: dict[str, Any] = {name: average[name].float().numpy() for name in SHAPES}
    arrays["metadata"] = np.array(json.dumps(metadata))
    scratch = out.with_suffix(".part.npz")
    np.savez_compressed(scratch, **arrays)
    os.replace(scratch, out)
    return metadata


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="codec.training.export", description=__doc__)
    parser.add_argument("run", type=Path, help="folder of a training run")
    parser.add_argument("out", type=Path, help="file to write: .npz or .onnx")
    arguments = parser.parse_args(argv)
    try:
        if arguments.out.suffix == ".npz":
            metadata = export_lpcnet(arguments.run, arguments.out)
        elif arguments.out.suffix == ".onnx":
            from codec.training.plc import export_plc

            metadata = export_plc(arguments.run, arguments.out)
        else:
            raise ValueError(f"{arguments.out}: the file must end in .npz or .onnx")
    except (OSError, ValueError) as error:
        print(f"codec.training.export: {error}", file=sys.stderr)
        return 2
    print(json.dumps(metadata))
    return 0


if __name__ == "__main__":
    sys.exit(main())
