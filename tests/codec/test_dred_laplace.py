"""Quantisation tables: values to symbols and back, and what symbols cost."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from codec.laplace import LaplaceTables
from codec_ext.rangecoder import LIMIT, RangeEncoder


def tables(*, scale: int = 64, dead_zone: int = 0, r: int = 128, p0: int = 128) -> LaplaceTables:
    return LaplaceTables(*(np.full((16, 3), v, np.uint8) for v in (scale, dead_zone, r, p0)))


def test_values_are_counted_in_steps_of_their_scale() -> None:
    values = np.array([0.0, 4.1, -9.0], np.float32)
    symbols = tables(scale=64).quantise(values, 3)
    assert symbols.tolist() == [0, 1, -2]
    np.testing.assert_allclose(tables(scale=64).dequantise(symbols, 3), [0, 4, -8])


def test_a_dead_zone_pulls_small_values_to_zero_and_leaves_large_ones() -> None:
    wide = tables(scale=255, dead_zone=128)
    assert wide.quantise(np.array([0.8, -0.8, 20.0], np.float32), 0).tolist() == [0, 0, 19]
    assert tables(scale=255).quantise(np.array([0.8, -0.8, 20.0], np.float32), 0).tolist() == [
        1,
        -1,
        20,
    ]


@pytest.mark.parametrize(("r", "p0"), [(0, 9), (9, 255)])
def test_dimensions_that_are_never_sent_are_zero_and_free(r: int, p0: int) -> None:
    never = tables(r=r, p0=p0)
    symbols = never.quantise(np.array([900.0, -900, 5], np.float32), 0)
    assert not symbols.any()
    assert never.cost(symbols, 0) == 0


@given(st.integers(0, 2**32 - 1), st.integers(1, 254), st.integers(1, 250))
def test_the_estimated_cost_is_what_the_code_takes(seed: int, p0: int, r: int) -> None:
    table = tables(p0=p0, r=r)
    random = np.random.default_rng(seed)
    symbols = random.geometric(1 - r / 256, (40, 3)) * random.integers(-1, 2, (40, 3))
    symbols = np.clip(symbols, -LIMIT, LIMIT).astype(np.int32)
    levels = random.integers(0, 16, 40)
    coder = RangeEncoder(8192)
    for row, level in zip(symbols, levels, strict=True):
        coder.laplace(row, table.p0[level], table.r[level])
    assert table.cost(symbols, levels) == pytest.approx(coder.tell(), rel=0.02, abs=4)


@given(st.integers(0, 2**32 - 1))
def test_costs_of_several_choices_are_those_of_each(seed: int) -> None:
    random = np.random.default_rng(seed)
    parts = (random.integers(1, 250, (16, 3), np.uint8) for _ in range(4))
    table = LaplaceTables(*parts)
    values = random.normal(0, 20, (5, 3)).astype(np.float32)
    levels = random.integers(0, 16, (4, 5))
    assert table.costs(values, levels) == pytest.approx(
        [table.cost(table.quantise(values, choice), choice) for choice in levels], rel=1e-5
    )
    assert table.costs(values[0], levels[:, 0]) == pytest.approx(
        [table.cost(table.quantise(values[0], level), level) for level in levels[:, 0]], rel=1e-5
    )


def test_tables_that_do_not_fit_together_are_refused() -> None:
    good = np.full((16, 3), 9, np.uint8)
    with pytest.raises(ValueError, match="table r of shape"):
        LaplaceTables(good, good, good[:, :2], good)
    with pytest.raises(ValueError, match="p0 of 0"):
        LaplaceTables(good, good, good, np.zeros_like(good))
