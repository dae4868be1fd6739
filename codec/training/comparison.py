"""Two tables of results set side by side, pair by pair of clip and trace.

A table is CSV with the columns `clip`, `trace` ("class/number", or "-" without loss), `mode` and
measures; tables of other systems on the same clips and traces have the same form.
"""

from __future__ import annotations

import csv
import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

Row = Mapping[str, str]
Table = list[Row]

PAIRS = {
    "none": "none",
    "opus-plc": "plc",
    "plc": "deepplc",
    "lbrr": "lbrr",
    "dred": "dred",
    "lbrr+dred": "lbrr+dred",
}
"""Our mode: the one of libopus 1.6 it is to be held against."""

MEASURES = ("plcmos", "dnsmos", "pesq", "estoi", "hole_estoi")


@dataclass(frozen=True, slots=True)
class Difference:
    """One measure over the clips that both tables have."""

    ours: str
    theirs: str
    trace_class: str
    measure: str
    count: int
    our_mean: float
    their_mean: float
    interval: float
    """Half width of the 95 % interval of the mean difference, from the paired differences."""

    @property
    def difference(self) -> float:
        return self.our_mean - self.their_mean


def read_table(path: Path) -> Table:
    """Raises ValueError if a column is missing, OSError."""
    with path.open(newline="") as file:
        reader = csv.DictReader(file)
        missing = {"clip", "trace", "mode"} - set(reader.fieldnames or ())
        if missing:
            raise ValueError(f"{path}: no column {sorted(missing)[0]!r}")
        return list(reader)


def compare(
    ours: Iterable[Row],
    theirs: Iterable[Row],
    *,
    pairs: Mapping[str, str] = PAIRS,
    measures: Sequence[str] = MEASURES,
) -> list[Difference]:
    """Every pair of modes in every class of traces, and over "all", in each measure both have."""
    other = {(row["clip"], row["trace"], row["mode"]): row for row in theirs}
    found: dict[tuple[str, str, str], list[tuple[float, float]]] = defaultdict(list)
    for row in ours:
        mode = row["mode"]
        match = other.get((row["clip"], row["trace"], pairs.get(mode, "")))
        if match is None:
            continue
        for measure in measures:
            values = _number(row.get(measure)), _number(match.get(measure))
            if math.isfinite(values[0]) and math.isfinite(values[1]):
                trace_class = row["trace"].split("/")[0]
                for name in dict.fromkeys((trace_class, "-" if trace_class == "-" else "all")):
                    found[mode, name, measure].append(values)
    return [
        _difference(mode, pairs[mode], name, measure, values)
        for (mode, name, measure), values in found.items()
    ]


def _number(text: str | None) -> float:
    try:
        return float(text or "nan")
    except ValueError:
        return math.nan


def _difference(
    ours: str, theirs: str, name: str, measure: str, values: list[tuple[float, float]]
) -> Difference:
    count = len(values)
    our_mean, their_mean = (sum(column) / count for column in zip(*values, strict=True))
    interval = math.nan
    if count > 1:
        middle = our_mean - their_mean
        variance = sum((a - b - middle) ** 2 for a, b in values) / (count - 1)
        interval = 1.96 * math.sqrt(variance / count)
    return Difference(ours, theirs, name, measure, count, our_mean, their_mean, interval)


def comparison_lines(differences: Iterable[Difference]) -> list[str]:
    """A Markdown table."""
    lines = [
        "| mode | against | traces | measure | n | ours | theirs | difference |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for d in differences:
        lines.append(
            f"| {d.ours} | {d.theirs} | {d.trace_class} | {d.measure} | {d.count} |"
            f" {d.our_mean:.3f} | {d.their_mean:.3f} | {d.difference:+.3f} ± {d.interval:.3f} |"
        )
    return lines
