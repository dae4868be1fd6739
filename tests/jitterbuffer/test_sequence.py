"""Numbers that wrap."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jitterbuffer.sequence import seq_diff, ts_diff, unwrap_sequence, unwrap_timestamp


@pytest.mark.parametrize(
    ("a", "b", "difference"),
    [
        (0, 0, 0),
        (1, 0, 1),
        (0, 1, -1),
        (0, 2**16 - 1, 1),
        (2**16 - 1, 0, -1),
        (2**15 - 1, 0, 2**15 - 1),
        (2**15, 0, -(2**15)),
        (0, 2**15, -(2**15)),
        (2**15 + 1, 0, -(2**15) + 1),
        (99, 2**16 - 1, 100),
    ],
)
def test_sequence_numbers_differ_the_short_way_round(a: int, b: int, difference: int) -> None:
    assert seq_diff(a, b) == difference


@pytest.mark.parametrize(
    ("a", "b", "difference"),
    [
        (0, 0, 0),
        (0, 2**32 - 1, 1),
        (2**32 - 1, 0, -1),
        (959, 2**32 - 1, 960),
        (2**31 - 1, 0, 2**31 - 1),
        (2**31, 0, -(2**31)),
    ],
)
def test_timestamps_differ_the_short_way_round(a: int, b: int, difference: int) -> None:
    assert ts_diff(a, b) == difference


@pytest.mark.parametrize(
    ("value", "near", "unwrapped"),
    [
        (0, 2**16 - 1, 2**16),
        (2**16 - 1, 2**16, 2**16 - 1),
        (2**16 - 1, 0, -1),
        (5, 10 * 2**16 + 4, 10 * 2**16 + 5),
        (2**15, 2**16, 2**15),
    ],
)
def test_sequence_numbers_extend_to_the_nearest(value: int, near: int, unwrapped: int) -> None:
    assert unwrap_sequence(value, near) == unwrapped


@given(st.integers(-(2**40), 2**40), st.integers(-(2**15), 2**15 - 1))
def test_an_extended_sequence_number_survives_the_wire(near: int, step: int) -> None:
    assert unwrap_sequence((near + step) % 2**16, near) == near + step


@given(st.integers(-(2**50), 2**50), st.integers(-(2**31), 2**31 - 1))
def test_an_extended_timestamp_survives_the_wire(near: int, step: int) -> None:
    assert unwrap_timestamp((near + step) % 2**32, near) == near + step
    assert ts_diff((near + step) % 2**32, near % 2**32) == step
