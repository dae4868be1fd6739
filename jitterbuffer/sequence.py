"""Arithmetic of numbers that wrap: RTP sequence numbers (16 bit) and timestamps (32 bit)."""

from __future__ import annotations


def seq_diff(a: int, b: int) -> int:
    """a - b the short way round, in [-2**15, 2**15)."""
    return (a - b + 0x8000) % 0x1_0000 - 0x8000


def ts_diff(a: int, b: int) -> int:
    """a - b the short way round, in [-2**31, 2**31)."""
    return (a - b + 0x8000_0000) % 0x1_0000_0000 - 0x8000_0000


def unwrap_sequence(value: int, near: int) -> int:
    """The number that ends in the 16 bits of `value` and lies nearest to `near`."""
    return near + (value - near + 0x8000) % 0x1_0000 - 0x8000


def unwrap_timestamp(value: int, near: int) -> int:
    """The number that ends in the 32 bits of `value` and lies nearest to `near`."""
    return near + (value - near + 0x8000_0000) % 0x1_0000_0000 - 0x8000_0000
