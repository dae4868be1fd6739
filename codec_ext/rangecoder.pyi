from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

LIMIT: int
"""Largest magnitude of a Laplace-coded value."""

class RangeEncoder:
    """Range encoder of RFC 6716, section 5.1.

    Symbols grow from the front of a buffer of `capacity` bytes (1 to 8192), raw bits from its
    back. Running out of room shows when the code is finished. Arguments that name no symbol
    raise ValueError, as does every call after `finish`.
    """

    def __init__(self, capacity: int = 1275) -> None: ...
    def encode(self, low: int, high: int, total: int) -> None:
        """The symbol of cumulative frequencies low to high, of total <= 65536."""

    def icdf(self, symbol: int, table: Sequence[int], bits: int) -> None:
        """A symbol of an inverse cumulative table: table[k] = 2**bits - cumulative after k."""

    def uint(self, value: int, total: int) -> None:
        """One of `total` equally likely values."""

    def bits(self, value: int, count: int) -> None:
        """Up to 25 raw bits, at the end of the buffer."""

    def laplace(
        self,
        values: npt.NDArray[np.int32],
        p0: npt.NDArray[np.uint8],
        r: npt.NDArray[np.uint8],
    ) -> None:
        """One Laplace-coded value per dimension, int32 [n] with uint8 [n] parameters.

        Raises ValueError, with nothing coded, for a value beyond LIMIT or for one other than 0
        where r = 0 or p0 = 255.
        """

    def tell(self) -> int:
        """Bits used so far, rounded up."""

    def copy(self) -> RangeEncoder:
        """An independent encoder at the same point."""

    def finish(self, size: int | None = None) -> bytes:
        """The code in exactly `size` bytes, by default as few as hold it.

        Raises OverflowError if it does not fit.
        """

class RangeDecoder:
    """Range decoder of RFC 6716, section 4.1: total over any bytes, zeros follow the last."""

    def __init__(self, data: bytes | bytearray | memoryview) -> None: ...
    @property
    def failed(self) -> bool:
        """True once a value was out of its range, which no encoder writes."""

    def decode(self, total: int) -> int:
        """A cumulative frequency within the next symbol, of total <= 65536; `update` goes on."""

    def update(self, low: int, high: int) -> None:
        """Consume the symbol of cumulative frequencies low to high."""

    def icdf(self, table: Sequence[int], bits: int) -> int: ...
    def uint(self, total: int) -> int: ...
    def bits(self, count: int) -> int: ...
    def laplace(self, p0: npt.NDArray[np.uint8], r: npt.NDArray[np.uint8]) -> npt.NDArray[np.int32]:
        """Values int32 [n] in [-LIMIT, LIMIT]."""

    def tell(self) -> int:
        """Bits consumed so far, rounded up; it may pass the end of the data."""
