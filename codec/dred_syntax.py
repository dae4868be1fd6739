"""The DRED payload: header, initial state and latents as bytes (draft-ietf-mlcodec-opus-dred).

One range-coded string: the newest latent's level q0, how the level grows into the past, where the
newest latent lies in time, the decoder's initial state, then latents, newest first, until the
bytes end. Everything in it but the numbers in the statistics tables is the draft's; those tables,
and the number of dimensions, belong to a trained model and are passed in.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from codec.laplace import LaplaceTables
from codec_ext.rangecoder import RangeDecoder, RangeEncoder

Symbols = npt.NDArray[np.int32]

LEVELS = 16
SLOPES = (0, 2, 3, 4, 6, 8, 12, 16)
"""What dQ stands for, in levels per 16 latents."""
MAX_LATENTS = 26
"""1.04 s."""
MIN_BYTES = 8
MAX_BYTES = 1000
OFFSET_ZERO = 16
"""Offset field for a newest latent that ends where the packet's first sample is."""
OFFSET_MIN = OFFSET_ZERO - 31 - 32 * 255
OFFSET_MAX = OFFSET_ZERO


class DredSyntaxError(ValueError):
    """A DRED payload that cannot be coded, or bytes that are none."""


@dataclass(frozen=True)
class DredHeader:
    """What precedes the symbols. Raises DredSyntaxError when a field is out of range."""

    q0: int
    """Level of the newest latent and of the initial state: 0 is finest, 15 coarsest."""
    slope: int
    """Index dQ into SLOPES."""
    qmax: int = LEVELS - 1
    """Coarsest level used."""
    offset: int = 0
    """Units of 2.5 ms by which the newest latent ends after (> 0) or before the packet's start."""

    def __post_init__(self) -> None:
        if not 0 <= self.q0 < LEVELS:
            raise DredSyntaxError(f"q0 {self.q0}, not 0 to {LEVELS - 1}")
        if not 0 <= self.slope < len(SLOPES):
            raise DredSyntaxError(f"dQ {self.slope}, not 0 to {len(SLOPES) - 1}")
        if not OFFSET_MIN <= self.offset <= OFFSET_MAX:
            raise DredSyntaxError(f"offset {self.offset}, not {OFFSET_MIN} to {OFFSET_MAX}")
        free = self.q0 < LEVELS - 2 and self.slope > 0
        if not (self.q0 < self.qmax < LEVELS if free else self.qmax == LEVELS - 1):
            raise DredSyntaxError(f"qmax {self.qmax} with q0 {self.q0} and dQ {self.slope}")

    def level(self, latent: int) -> int:
        """Level of a latent, 0 the newest."""
        return min(self.qmax, self.q0 + (SLOPES[self.slope] * latent + 8) // 16)

    def write(self, coder: RangeEncoder) -> None:
        coder.uint(self.q0, LEVELS)
        coder.uint(self.slope, len(SLOPES))
        units = OFFSET_ZERO - self.offset
        coder.uint(int(units > 31), 2)
        if units > 31:
            coder.uint(units >> 5, 256)
        coder.uint(units & 31, 32)
        if self.q0 < LEVELS - 2 and self.slope > 0:
            # 15 is by far the likeliest, so half of the probability is its.
            others = LEVELS - 1 - (self.q0 + 1)
            if self.qmax == LEVELS - 1:
                coder.encode(0, others, 2 * others)
            else:
                symbol = others + self.qmax - (self.q0 + 1)
                coder.encode(symbol, symbol + 1, 2 * others)

    @classmethod
    def read(cls, coder: RangeDecoder) -> DredHeader:
        q0 = coder.uint(LEVELS)
        slope = coder.uint(len(SLOPES))
        extra = coder.uint(256) if coder.uint(2) else 0
        offset = OFFSET_ZERO - coder.uint(32) - 32 * extra
        qmax = LEVELS - 1
        if q0 < LEVELS - 2 and slope > 0:
            others = LEVELS - 1 - (q0 + 1)
            symbol = coder.decode(2 * others)
            if symbol < others:
                coder.update(0, others)
            else:
                coder.update(symbol, symbol + 1)
                qmax = q0 + 1 + symbol - others
        return cls(q0, slope, qmax, offset)


@dataclass(frozen=True)
class DredSymbols:
    """A payload taken apart: quantised integers in coding order."""

    header: DredHeader
    state: Symbols
    """int32 [state dimensions]"""
    latents: Symbols
    """int32 [n, latent dimensions], newest first"""

    def levels(self) -> npt.NDArray[np.int_]:
        """Level of each latent, [n]."""
        return np.array([self.header.level(i) for i in range(len(self.latents))], np.int_)


@dataclass(frozen=True)
class DredStatistics:
    """The tables of a trained model."""

    latent: LaplaceTables
    state: LaplaceTables

    def __post_init__(self) -> None:
        for tables in (self.latent, self.state):
            if tables.levels != LEVELS:
                raise ValueError(f"tables for {tables.levels} levels, not {LEVELS}")


def encode_symbols(symbols: DredSymbols, statistics: DredStatistics, max_bytes: int) -> bytes:
    """A payload of at most `max_bytes`, with as many of the newest latents as fit.

    b"" when not even one fits. Raises DredSyntaxError when a symbol has no code.
    """
    header = symbols.header
    latent, state = statistics.latent, statistics.state
    limit = min(max_bytes, MAX_BYTES)
    coder = RangeEncoder(2048)
    coded = None
    try:
        header.write(coder)
        coder.laplace(symbols.state, state.p0[header.q0], state.r[header.q0])
        for i, row in enumerate(symbols.latents[:MAX_LATENTS]):
            level = header.level(i)
            coder.laplace(row, latent.p0[level], latent.r[level])
            if coder.tell() > 8 * limit:
                break
            coded = coder.copy()
    except ValueError as error:
        raise DredSyntaxError(str(error)) from error
    if coded is None:
        return b""
    return coded.finish()


def decode_symbols(
    payload: bytes, statistics: DredStatistics, max_latents: int = MAX_LATENTS
) -> DredSymbols:
    """Take a payload apart. Raises DredSyntaxError for bytes that are none.

    Latents are read until fewer than 8 bits are left.
    """
    if not MIN_BYTES <= len(payload) <= MAX_BYTES:
        raise DredSyntaxError(f"a payload of {len(payload)} bytes, not {MIN_BYTES} to {MAX_BYTES}")
    latent, state = statistics.latent, statistics.state
    coder = RangeDecoder(payload)
    header = DredHeader.read(coder)
    first = coder.laplace(state.p0[header.q0], state.r[header.q0])
    bits = 8 * len(payload)
    if coder.tell() > bits:
        raise DredSyntaxError(f"the initial state runs out of {len(payload)} bytes")
    rows: list[Symbols] = []
    while len(rows) < min(max_latents, MAX_LATENTS) and bits - coder.tell() > 7:
        level = header.level(len(rows))
        rows.append(coder.laplace(latent.p0[level], latent.r[level]))
    if coder.failed:
        raise DredSyntaxError("a value beyond what an encoder writes")
    return DredSymbols(
        header, first, np.array(rows, np.int32).reshape(len(rows), latent.dimensions)
    )
