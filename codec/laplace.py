"""Quantisation of latents for the Laplace code of draft-ietf-mlcodec-opus-dred.

A table entry is 8 bit and belongs to one (level, dimension). The code itself is
`RangeEncoder.laplace` and `RangeDecoder.laplace` in `codec_ext.rangecoder`.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from codec_ext.rangecoder import LIMIT

Table = npt.NDArray[np.uint8]
Levels = int | npt.NDArray[np.int_]


@dataclass(frozen=True, eq=False)
class LaplaceTables:
    """Statistics of one kind of vector, each uint8 [levels, dimensions].

    Raises ValueError when the four tables differ in shape or when a p0 is 0, which could not code
    the value 0.
    """

    scale: Table
    """Steps per unit, in 1/256; 0 stands for dimensions that are never sent."""
    dead_zone: Table
    """Width by which small values are pulled towards 0, in 1/256 of a step."""
    r: Table
    """Decay of the probability per step of magnitude, in 1/256."""
    p0: Table
    """Probability of 0, in 1/256."""
    _step: npt.NDArray[np.float32] = field(init=False, repr=False)
    _width: npt.NDArray[np.float32] = field(init=False, repr=False)
    _unit: npt.NDArray[np.float32] = field(init=False, repr=False)
    _coded: npt.NDArray[np.bool_] = field(init=False, repr=False)
    _zero_bits: npt.NDArray[np.float32] = field(init=False, repr=False)
    _first_bits: npt.NDArray[np.float32] = field(init=False, repr=False)
    _more_bits: npt.NDArray[np.float32] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        for name in ("scale", "dead_zone", "r", "p0"):
            table = np.ascontiguousarray(getattr(self, name), np.uint8)
            object.__setattr__(self, name, table)
            if table.ndim != 2 or table.shape != self.scale.shape:
                raise ValueError(f"table {name} of shape {table.shape}, not {self.scale.shape}")
        if not self.p0.all():
            raise ValueError("a p0 of 0 leaves no room for the value 0")
        step = self.scale.astype(np.float32) / 256
        object.__setattr__(self, "_step", step)
        object.__setattr__(self, "_width", self.dead_zone.astype(np.float32) / 256)
        coded = (self.r > 0) & (self.p0 < 255)
        object.__setattr__(self, "_coded", coded)
        r = np.where(coded, self.r, 128) / 256
        p0 = np.where(coded, self.p0, 128) / 256
        more = -np.log2(r)
        first = -np.log2((1 - p0) / 2 * (1 - r)) - more
        for name, bits in (("zero", -np.log2(p0)), ("first", first), ("more", more)):
            object.__setattr__(self, f"_{name}_bits", (bits * coded).astype(np.float32))
        object.__setattr__(self, "_unit", 1 / np.where(step > 0, step, np.float32(1)))

    @property
    def levels(self) -> int:
        return int(self.scale.shape[0])

    @property
    def dimensions(self) -> int:
        return int(self.scale.shape[1])

    def quantise(self, values: npt.NDArray[np.float32], levels: Levels) -> npt.NDArray[np.int32]:
        """Symbols int32 of finite values [dimensions] at a level, [n, dimensions] at levels [n]."""
        out: npt.NDArray[np.int32] = self._symbols(values, levels).astype(np.int32)
        return out

    def cost(self, symbols: npt.NDArray[np.int32], levels: Levels) -> float:
        """Bits that symbols take, of the shapes that `quantise` gives; off by less than 2 %."""
        return float(self._bits(symbols, levels).sum())

    def costs(
        self, values: npt.NDArray[np.float32], levels: npt.NDArray[np.int_]
    ) -> npt.NDArray[np.float32]:
        """`cost` of the symbols of values at each of several choices of levels, [choices].

        Levels are [choices] for values [dimensions], [choices, n] for values [n, dimensions]. Two
        choices together take hardly longer than one.
        """
        bits = self._bits(self._symbols(values, levels), levels)
        out: npt.NDArray[np.float32] = bits.reshape(len(levels), -1).sum(axis=1)
        return out

    def _bits(
        self, symbols: npt.NDArray[np.int32] | npt.NDArray[np.float32], levels: Levels
    ) -> npt.NDArray[np.float32]:
        size = np.abs(symbols)
        beyond = self._first_bits[levels] + size * self._more_bits[levels]
        out: npt.NDArray[np.float32] = np.where(size == 0, self._zero_bits[levels], beyond)
        return out

    def _symbols(self, values: npt.NDArray[np.float32], levels: Levels) -> npt.NDArray[np.float32]:
        x = values * self._step[levels]
        width = self._width[levels]
        x -= width * np.tanh(x / (width + 0.1))
        np.minimum(np.maximum(x, -LIMIT, out=x), LIMIT, out=x)
        out: npt.NDArray[np.float32] = np.floor(x + 0.5) * self._coded[levels]
        return out

    def dequantise(self, symbols: npt.NDArray[np.int32], levels: Levels) -> npt.NDArray[np.float32]:
        """Values float32 of symbols [dimensions] at a level, or [n, dimensions] at levels [n]."""
        out: npt.NDArray[np.float32] = symbols * self._unit[levels]
        return out.astype(np.float32)
