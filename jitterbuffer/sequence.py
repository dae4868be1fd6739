"""Arithmetic of numbers that wrap: RTP sequence numbers (16 bit) and timestamps (32 bit)."""

from __future__ import annotations

SEQUENCE_BITS = 16
TIMESTAMP_BITS = 32


def seq_diff(a: int, b: int) -> int:
    """a - b the short way round, in [-2**15, 2**15)."""
    return _diff(a, b, SEQUENCE_BITS)


def ts_diff(a: int, b: int) -> int:
    """a - b the short way round, in [-2**31, 2**31)."""
    return _diff(a, b, TIMESTAMP_BITS)


def unwrap_sequence(value: int, near: int) -> int:
    """The number that ends in the 16 bits of `value` and lies nearest to `near`."""
    return near + seq_diff(value, near)


def unwrap_timestamp(value: int, near: int) -> int:
    """The number that ends in the 32 bits of `value` and lies nearest to `near`."""
    return near + ts_diff(value, near)


def _diff(a: int, b: int, bits: int) -> int:
    half = 1 << (bits - 1)
    return (a - b + half) % (2 * half) - half
