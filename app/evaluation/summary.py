"""What the rows amount to: a line per class of networks, buffer and condition."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isfinite

from rich.table import Table

from app.evaluation.cell import Row
from app.evaluation.networks import NO_NETWORK
from app.evaluation.peers import Comparison
from app.evaluation.statistics import Mean, grouped, mean_of

SCORES = {
    "plcmos": ("PLCMOS", 2),
    "dnsmos": ("DNSMOS", 2),
    "pesq": ("PESQ-WB", 2),
    "stoi": ("STOI", 3),
    "estoi": ("ESTOI", 3),
    "hole_estoi": ("ESTOI near losses", 3),
    "wer": ("word errors", 3),
}
"""Name and decimals of what is measured, in order of interest."""

COSTS = {"kbps": 1, "lost": 3, "recovered": 3, "delay_p50_ms": 0, "delay_p95_ms": 0}


@dataclass(frozen=True, slots=True)
class Line:
    """Means over the clips and networks of one class, with one buffer, in one condition."""

    kind: str
    buffer: str
    mode: str
    rows: int
    costs: Mapping[str, Mean]
    scores: Mapping[str, Mean]

    def as_dict(self) -> dict[str, str | int | float | None]:
        """Flat, for CSV and JSON: each score with the ends of its interval."""
        flat: dict[str, str | int | float | None] = {
            "class": self.kind,
            "buffer": self.buffer,
            "mode": self.mode,
            "rows": self.rows,
        }
        for name, mean in self.costs.items():
            flat[name] = _finite(mean.value)
        for name, mean in self.scores.items():
            flat |= {
                name: _finite(mean.value),
                f"{name}_low": _finite(mean.low),
                f"{name}_high": _finite(mean.high),
            }
        return flat


def _finite(value: float) -> float | None:
    return round(value, 4) if isfinite(value) else None


def summarise(rows: Sequence[Row]) -> list[Line]:
    """One line for every class, buffer and condition, in the order of first appearance.

    Classes whose name is only no network come first.
    """
    scores = [name for name in SCORES if any(row.get(name) is not None for row in rows)]
    lines = [
        Line(
            kind,
            buffer,
            mode,
            len(members),
            {name: mean_of(members, name) for name in COSTS},
            {name: mean_of(members, name) for name in scores},
        )
        for (kind, buffer, mode), members in grouped(rows, "class", "buffer", "mode").items()
    ]
    kinds = list(dict.fromkeys(line.kind for line in lines))
    buffers = list(dict.fromkeys(line.buffer for line in lines))
    lines.sort(
        key=lambda line: (
            line.kind != NO_NETWORK,
            kinds.index(line.kind),
            buffers.index(line.buffer),
        )
    )
    return lines


def kind_name(kind: str) -> str:
    """Of a class of networks, for people."""
    return "none" if kind == NO_NETWORK else kind


def shown(value: float, places: int) -> str:
    return f"{value:.{places}f}" if isfinite(value) else ""


def shown_interval(mean: Mean, places: int) -> str:
    """`3.41 ±0.08`, half of the interval's width; empty where there is nothing."""
    text = shown(mean.value, places)
    return f"{text} ±{shown((mean.high - mean.low) / 2, places)}" if isfinite(mean.low) else text


def summary_table(lines: Sequence[Line], labels: Mapping[str, str]) -> Table:
    """For a terminal; figures after ± are half a 95 % interval."""
    scores = [name for name in SCORES if lines and name in lines[0].scores]
    table = Table(show_edge=False, pad_edge=False, header_style="bold")
    for name in ("networks", "buffer", "recovery"):
        table.add_column(name, no_wrap=True)
    for name in ("kb/s", "lost %", "rebuilt %", "delay ms"):
        table.add_column(name, justify="right")
    for name in scores:
        table.add_column(SCORES[name][0], justify="right")
    previous: tuple[str, str] | None = None
    for line in lines:
        group = line.kind, line.buffer
        if previous not in (None, group):
            table.add_section()
        first = previous != group
        previous = group
        costs = line.costs
        table.add_row(
            kind_name(line.kind) if first else "",
            line.buffer if first else "",
            labels.get(line.mode, line.mode),
            shown(costs["kbps"].value, 1),
            shown(100 * costs["lost"].value, 1),
            shown(100 * costs["recovered"].value, 0),
            shown(costs["delay_p50_ms"].value, 0),
            *(shown_interval(line.scores[name], SCORES[name][1]) for name in scores),
        )
    return table


def comparison_table(comparisons: Sequence[Comparison], labels: Mapping[str, str]) -> Table:
    """Ours beside others', for a terminal."""
    table = Table(show_edge=False, pad_edge=False, header_style="bold")
    for name in ("networks", "recovery", "against", "measure"):
        table.add_column(name, no_wrap=True)
    for name in ("pairs", "kb/s", "ours", "theirs", "difference [95 %]"):
        table.add_column(name, justify="right")
    previous: tuple[str, str, str] | None = None
    for c in comparisons:
        group = c.peer, c.kind, c.ours
        if previous is not None and previous[:2] != group[:2]:
            table.add_section()
        first = previous != group
        previous = group
        name, places = SCORES[c.measure]
        table.add_row(
            kind_name(c.kind) if first else "",
            labels.get(c.ours, c.ours) if first else "",
            f"{c.peer} {c.theirs}" if first else "",
            name,
            str(c.difference.count),
            f"{c.our_kbps:.1f} / {c.their_kbps:.1f}" if first else "",
            shown(c.our_mean, places),
            shown(c.their_mean, places),
            shown_difference(c.difference, places),
        )
    return table


def shown_difference(mean: Mean, places: int) -> str:
    text = f"{mean.value:+.{places}f}"
    return (
        f"{text} [{mean.low:+.{places}f}, {mean.high:+.{places}f}]" if isfinite(mean.low) else text
    )


def csv_text(rows: Sequence[Mapping[str, object]]) -> str:
    """Columns in the order of first appearance; None is empty."""
    columns = list(dict.fromkeys(name for row in rows for name in row))
    file = io.StringIO()
    writer = csv.DictWriter(file, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return file.getvalue()
