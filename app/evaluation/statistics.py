"""Means with their uncertainty, and differences clip by clip."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import isfinite, nan

import numpy as np

from app.evaluation.cell import Row

RESAMPLES = 2000
SEED = 0
LEVEL = 95
"""Percent of the intervals."""


@dataclass(frozen=True, slots=True)
class Mean:
    """Of some values, and where the true one probably lies."""

    value: float
    low: float
    high: float
    """Ends of the 95 % interval; NaN where there are not two clips."""
    count: int
    """Values."""

    def __str__(self) -> str:
        if not isfinite(self.low):
            return f"{self.value:.2f}"
        return f"{self.value:.2f} [{self.low:.2f}, {self.high:.2f}]"


def bootstrap_mean(values: Sequence[tuple[str, float]]) -> Mean:
    """The mean of (clip, value) pairs with the percentile interval of the bootstrap.

    Clips are drawn, not values: those of one clip err together. The draws are the same every time.
    """
    finite = [(clip, value) for clip, value in values if isfinite(value)]
    if not finite:
        return Mean(nan, nan, nan, 0)
    sums: dict[str, list[float]] = defaultdict(lambda: [0.0, 0.0])
    for clip, value in finite:
        sums[clip][0] += value
        sums[clip][1] += 1
    totals = np.array([sums[clip] for clip in sorted(sums)])
    value = float(totals[:, 0].sum() / totals[:, 1].sum())
    if len(totals) < 2:
        return Mean(value, nan, nan, len(finite))
    rng = np.random.default_rng(SEED)
    drawn = totals[rng.integers(len(totals), size=(RESAMPLES, len(totals)))].sum(axis=1)
    tail = (100 - LEVEL) / 2
    low, high = np.percentile(drawn[:, 0] / drawn[:, 1], [tail, 100 - tail])
    return Mean(value, float(low), float(high), len(finite))


def number(row: Mapping[str, object], name: str) -> float:
    """A figure of a row as it came from here or from a CSV file; NaN if it has none."""
    value = row.get(name)
    if isinstance(value, int | float):
        return float(value)
    try:
        return float(str(value))
    except ValueError:
        return nan


def mean_of(rows: Iterable[Row], name: str) -> Mean:
    """Of one figure of these rows."""
    return bootstrap_mean([(str(row["clip"]), number(row, name)) for row in rows])


def grouped(rows: Iterable[Row], *names: str) -> dict[tuple[str, ...], list[Row]]:
    """Rows that agree in these columns, in the order of first appearance."""
    groups: dict[tuple[str, ...], list[Row]] = defaultdict(list)
    for row in rows:
        groups[tuple(str(row[name]) for name in names)].append(row)
    return dict(groups)
