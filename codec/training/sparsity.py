"""Block-sparse recurrent matrices: which blocks of GRU A's recurrence are kept.

A block is 16 outputs of one gate by 4 inputs: one vector register of outputs, and one group of
four 8-bit products as the dot-product instructions of x86 and Arm take them.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

BLOCK_OUTPUTS = 16
BLOCK_INPUTS = 4


def blocks_of(weight: Tensor) -> Tensor:
    """View of `weight` [outputs, inputs] as [output groups, input groups, 4 inputs, 16 outputs]."""
    outputs, inputs = weight.shape
    split = weight.view(
        outputs // BLOCK_OUTPUTS, BLOCK_OUTPUTS, inputs // BLOCK_INPUTS, BLOCK_INPUTS
    )
    return split.permute(0, 2, 3, 1)


def diagonal_blocks(units: int) -> Tensor:
    """bool [units/16, units/4]: blocks that touch the diagonal of one gate's square matrix."""
    rows = torch.arange(units // BLOCK_OUTPUTS)[:, None]
    columns = torch.arange(units // BLOCK_INPUTS)[None, :]
    return columns * BLOCK_INPUTS // BLOCK_OUTPUTS == rows


def active_blocks(weight: Tensor) -> Tensor:
    """bool [output groups, input groups]: blocks with at least one weight other than zero."""
    return blocks_of(weight.detach()).ne(0).any(-1).any(-1)


def prune(weight: Tensor, active: Tensor, densities: Sequence[float]) -> Tensor:
    """The largest `active` blocks of each gate, by the sum of squares.

    weight: [gates * units, units]; active: bool [gates * units/16, units/4]; densities: one per
    gate, the share of its blocks to keep. Blocks on the diagonal always stay (a unit's own past is
    what its gates interpolate) and count; blocks that are not active never come back.
    """
    units = weight.shape[1]
    energy = blocks_of(weight.detach()).square().sum((-1, -2))
    energy = energy.masked_fill(~active, -1.0)
    energy[diagonal_blocks(units).repeat(len(densities), 1)] = torch.inf
    kept = torch.zeros_like(active)
    for gate, gate_energy, density in zip(
        kept.chunk(len(densities)), energy.chunk(len(densities)), densities, strict=True
    ):
        count = round(density * gate.numel())
        chosen = gate_energy.flatten().topk(count).indices
        gate.view(-1)[chosen] = True
    return (kept & active) | diagonal_blocks(units).repeat(len(densities), 1)


def apply(weight: Tensor, active: Tensor) -> None:
    """Set the weights of the blocks that are not active to zero, in place."""
    with torch.no_grad():
        blocks_of(weight).mul_(active[..., None, None])


def scheduled_density(final: float, update: int, first: int, last: int) -> float:
    """Density at `update`: 1 until `first`, `final` from `last`, a cubic between.

    The cubic removes most blocks early, when many are superfluous, and the last ones slowly
    (Zhu & Gupta 2017, "To prune, or not to prune").
    """
    progress = min(1.0, max(0.0, (update - first) / max(1, last - first)))
    return final + (1.0 - final) * (1.0 - progress) ** 3
