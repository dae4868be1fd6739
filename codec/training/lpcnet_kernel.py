"""The fused kernel of the sample-rate network as a PyTorch function, and its batch preparation."""

import ctypes
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from codec.training import native
from codec.training.lpcnet_model import (
    FRAME,
    LEVELS,
    UNITS_A,
    UNITS_B,
    SampleWeights,
    reference_loss,
)
from codec.training.sparsity import BLOCK_INPUTS, BLOCK_OUTPUTS, active_blocks, blocks_of

LANES = 16
"""Sequences computed side by side: the batch must be a multiple of it."""

_MAX_THREADS = 64
_POINTER = ctypes.c_void_p


class _Matrix(ctypes.Structure):
    _fields_ = (
        ("row_start", _POINTER),
        ("row_input", _POINTER),
        ("row_weight", _POINTER),
        ("column_start", _POINTER),
        ("column_output", _POINTER),
        ("column_weight", _POINTER),
        ("groups", ctypes.c_int32),
        ("blocks", ctypes.c_int32),
    )


class _Network(ctypes.Structure):
    _fields_ = (
        ("rows", ctypes.c_int32),
        ("frames", ctypes.c_int32),
        ("backward", ctypes.c_int32),
        ("threads", ctypes.c_int32),
        ("inputs", _POINTER),
        ("targets", _POINTER),
        ("tables", _POINTER),
        ("condition_a", _POINTER),
        ("condition_b", _POINTER),
        ("recurrent_a", _Matrix),
        ("input_b", _Matrix),
        ("recurrent_b", _Matrix),
        ("bias_a", _POINTER),
        ("bias_b", _POINTER),
        ("tree_weight", _POINTER * 2),
        ("tree_bias", _POINTER * 2),
        ("tree_scale", _POINTER * 2),
        ("scale", ctypes.c_float),
        ("loss", _POINTER),
        ("d_tables", _POINTER),
        ("d_condition_a", _POINTER),
        ("d_condition_b", _POINTER),
        ("d_recurrent_a", _POINTER),
        ("d_input_b", _POINTER),
        ("d_recurrent_b", _POINTER),
        ("d_bias_a", _POINTER),
        ("d_bias_b", _POINTER),
        ("d_tree_weight", _POINTER * 2),
        ("d_tree_bias", _POINTER * 2),
        ("d_tree_scale", _POINTER * 2),
        ("workspace", _POINTER),
    )


@cache
def library() -> ctypes.CDLL | None:
    """The compiled kernel, or None where it cannot be compiled."""
    lib = native.load(Path(__file__).with_name("lpcnet_kernel.c"))
    if lib is not None:
        lib.run.argtypes = [ctypes.POINTER(_Network)]
        lib.run.restype = None
        lib.workspace_floats.argtypes = [ctypes.c_int32]
        lib.workspace_floats.restype = ctypes.c_int64
        lib.quantise_history.argtypes = [_POINTER] * 4 + [ctypes.c_int32] + [_POINTER] * 2
        lib.quantise_history.restype = None
    return lib


_workspaces: dict[str, Tensor] = {}


def _workspace(floats: int) -> Tensor:
    """Kept between calls: fresh pages would cost as much as the arithmetic of a small batch."""
    held = _workspaces.get("steps")
    if held is None or held.numel() < floats:
        held = _workspaces["steps"] = torch.empty(floats)
    return held


class _PackedMatrix:
    """The active blocks of a weight matrix in the two orders the kernel reads."""

    def __init__(self, weight: Tensor) -> None:
        self.shape = weight.shape
        self.active = active_blocks(weight)
        blocks = blocks_of(weight.detach())
        by_column = self.active.T.contiguous()
        rows, self._row_input = self._lists(self.active, BLOCK_INPUTS)
        columns, self._column_output = self._lists(by_column, BLOCK_OUTPUTS)
        self._row_start, self._column_start = rows, columns
        self._row_weight = blocks[self.active].contiguous()
        self._column_weight = blocks.permute(1, 0, 3, 2)[by_column].contiguous()
        self.blocks = len(self._row_weight)

    @staticmethod
    def _lists(active: Tensor, step: int) -> tuple[Tensor, Tensor]:
        start = torch.zeros(len(active) + 1, dtype=torch.int32)
        start[1:] = active.sum(1).cumsum(0)
        return start, (active.nonzero()[:, 1] * step).to(torch.int32)

    def struct(self) -> _Matrix:
        return _Matrix(
            *(
                t.data_ptr()
                for t in (
                    *(self._row_start, self._row_input, self._row_weight),
                    *(self._column_start, self._column_output, self._column_weight),
                )
            ),
            groups=len(self.active),
            blocks=self.blocks,
        )

    def gradient(self, per_thread: Tensor) -> Tensor:
        """[threads, blocks, 4, 16] -> dense gradient, zero where no block is."""
        dense = torch.zeros(self.shape)
        blocks_of(dense)[self.active] = per_thread.sum(0)
        return dense


class _FusedLoss(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, inputs: Tensor, targets: Tensor, threads: int, backward: bool, *weights: Tensor
    ) -> Tensor:
        lib = library()
        assert lib is not None
        w = SampleWeights(*(t.detach().float().contiguous() for t in weights))
        rows, frames = w.condition_a.shape[:2]
        packed = [_PackedMatrix(m) for m in (w.recurrent_a, w.input_b, w.recurrent_b)]
        inputs, targets = inputs.contiguous(), targets.contiguous()
        # without a backward pass the kernel never touches the gradients
        n = threads if backward else 0
        loss = torch.zeros(threads, dtype=torch.float64)
        d_tables = torch.zeros(n, *w.tables.shape)
        d_condition_a = torch.zeros_like(w.condition_a)
        d_condition_b = torch.zeros_like(w.condition_b)
        d_matrices = [torch.zeros(n, m.blocks, BLOCK_INPUTS, BLOCK_OUTPUTS) for m in packed]
        d_bias_a, d_bias_b = torch.zeros(n, UNITS_A), torch.zeros(n, UNITS_B)
        d_weight = [torch.zeros(n, LEVELS, UNITS_B) for _ in range(2)]
        d_bias, d_scale = ([torch.zeros(n, LEVELS) for _ in range(2)] for _ in range(2))
        workspace = _workspace(threads * lib.workspace_floats(frames))

        def pair(tensors: list[Tensor]) -> ctypes.Array[_POINTER]:
            return (_POINTER * 2)(*(t.data_ptr() for t in tensors))

        lib.run(
            _Network(
                rows=rows,
                frames=frames,
                backward=int(backward),
                threads=threads,
                inputs=inputs.data_ptr(),
                targets=targets.data_ptr(),
                tables=w.tables.data_ptr(),
                condition_a=w.condition_a.data_ptr(),
                condition_b=w.condition_b.data_ptr(),
                recurrent_a=packed[0].struct(),
                input_b=packed[1].struct(),
                recurrent_b=packed[2].struct(),
                bias_a=w.bias_a.data_ptr(),
                bias_b=w.bias_b.data_ptr(),
                tree_weight=pair([w.tree_weight1, w.tree_weight2]),
                tree_bias=pair([w.tree_bias1, w.tree_bias2]),
                tree_scale=pair([w.tree_scale1, w.tree_scale2]),
                scale=1 / targets.numel(),
                loss=loss.data_ptr(),
                d_tables=d_tables.data_ptr(),
                d_condition_a=d_condition_a.data_ptr(),
                d_condition_b=d_condition_b.data_ptr(),
                d_recurrent_a=d_matrices[0].data_ptr(),
                d_input_b=d_matrices[1].data_ptr(),
                d_recurrent_b=d_matrices[2].data_ptr(),
                d_bias_a=d_bias_a.data_ptr(),
                d_bias_b=d_bias_b.data_ptr(),
                d_tree_weight=pair(d_weight),
                d_tree_bias=pair(d_bias),
                d_tree_scale=pair(d_scale),
                workspace=workspace.data_ptr(),
            )
        )
        if backward:
            d_recurrent_a, d_input_b, d_recurrent_b = (
                m.gradient(d) for m, d in zip(packed, d_matrices, strict=True)
            )
            ctx.gradients = SampleWeights(
                tables=d_tables.sum(0),
                condition_a=d_condition_a,
                recurrent_a=d_recurrent_a,
                bias_a=d_bias_a.sum(0),
                condition_b=d_condition_b,
                input_b=d_input_b,
                recurrent_b=d_recurrent_b,
                bias_b=d_bias_b.sum(0),
                tree_weight1=d_weight[0].sum(0),
                tree_bias1=d_bias[0].sum(0),
                tree_scale1=d_scale[0].sum(0),
                tree_weight2=d_weight[1].sum(0),
                tree_bias2=d_bias[1].sum(0),
                tree_scale2=d_scale[1].sum(0),
            )
        return loss.sum().float()

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor | None, ...]:
        (gradient,) = upstream
        return (None, None, None, None, *(g * gradient for g in ctx.gradients))


def sample_loss(
    weights: SampleWeights, inputs: Tensor, targets: Tensor, threads: int = 1
) -> Tensor:
    """Mean negative log-likelihood in nats per sample; see `reference_loss` for the arguments.

    Computed by the kernel, on `threads` threads of its own, or in plain PyTorch where there is no
    kernel, the batch is not a multiple of 16 or `threads` is 0. Blocks of GRU A's recurrence that
    are zero are taken as pruned: the kernel gives their weights no gradient.
    """
    rows = len(targets)
    if threads == 0 or rows % LANES or library() is None:
        return reference_loss(weights, inputs, targets)
    threads = min(threads, rows // LANES, _MAX_THREADS)
    apply: Callable[..., Tensor] = _FusedLoss.apply
    return apply(inputs, targets, threads, torch.is_grad_enabled(), *weights)


MU_LAW_LINEAR: npt.NDArray[np.float32] = (
    np.sign(np.arange(LEVELS) - 128.0)
    * (32768 / 255)
    * (256.0 ** (np.abs(np.arange(LEVELS) - 128.0) / 128) - 1)
).astype(np.float32)


def _to_mu_law(x: npt.NDArray[np.float32]) -> npt.NDArray[np.int32]:
    u = 128 / np.log(256) * np.log1p(np.abs(x) * np.float32(255 / 32768))
    level: npt.NDArray[np.int32] = (128.5 + np.where(x < 0, -u, u)).astype(np.int32)
    return level.clip(0, LEVELS - 1)


def quantise_history(
    signal: npt.NDArray[np.float32],
    lpc: npt.NDArray[np.float32],
    noise: npt.NDArray[np.int8],
    use_kernel: bool = True,
) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8]]:
    """Run the synthesiser's quantised prediction loop over a batch of true signals.

    signal: [B, 16 + T] pre-emphasised, int16 scale, 16 samples of history first; lpc: [B, F, 16];
    noise: [B, T] mu-law steps by which each excitation is falsified once it has served as target,
    so that the network learns to live with, and to correct, its own errors. -> inputs [B, T, 3]
    and targets [B, T], see `reference_loss`.
    """
    batch, samples = noise.shape
    inputs = np.empty((batch, samples, 3), np.uint8)
    targets = np.empty((batch, samples), np.uint8)
    lib = library() if use_kernel else None
    if lib is not None:
        signal, lpc = np.ascontiguousarray(signal), np.ascontiguousarray(lpc)
        noise = np.ascontiguousarray(noise)
        for b in range(batch):
            lib.quantise_history(
                signal[b].ctypes.data,
                lpc[b].ctypes.data,
                noise[b].ctypes.data,
                MU_LAW_LINEAR.ctypes.data,
                samples // FRAME,
                inputs[b].ctypes.data,
                targets[b].ctypes.data,
            )
        return inputs, targets
    past = signal[:, 15::-1].copy()  # newest first
    last = np.full(batch, 128)
    for t in range(samples):
        prediction = (lpc[:, t // FRAME] * past).sum(1)
        targets[:, t] = _to_mu_law(signal[:, 16 + t] - prediction)
        inputs[:, t, 0] = _to_mu_law(past[:, 0])
        inputs[:, t, 1] = _to_mu_law(prediction)
        inputs[:, t, 2] = last
        last = np.clip(targets[:, t].astype(int) + noise[:, t], 0, LEVELS - 1)
        past[:, 1:] = past[:, :-1]
        past[:, 0] = prediction + MU_LAW_LINEAR[last]
    return inputs, targets
