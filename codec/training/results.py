"""Tables and pictures of an evaluation."""

from __future__ import annotations

import csv
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from codec import SAMPLE_RATE

Row = dict[str, Any]
Picture = Callable[[str, Mapping[str, npt.NDArray[np.int16]]], None]
"""Draws named signals, int16 [n], into a file of a given name."""


def averages(rows: Sequence[Row], by: Sequence[str]) -> list[Row]:
    """Means of every number over the rows that agree in `by`, in the order of first appearance."""
    groups: dict[tuple[str, ...], list[Row]] = defaultdict(list)
    for row in rows:
        groups[tuple(str(row[key]) for key in by)].append(row)
    means = []
    for key, members in groups.items():
        mean: Row = {**dict(zip(by, key, strict=True)), "n": len(members)}
        for name in members[0]:
            values = [row[name] for row in members if isinstance(row.get(name), int | float)]
            if values and name not in by:
                mean[name] = round(float(np.nanmean(values)), 3)
        means.append(mean)
    return means


def table_lines(rows: Sequence[Row]) -> list[str]:
    """Rows as a Markdown table."""
    columns = list(dict.fromkeys(name for row in rows for name in row))
    return [
        "| " + " | ".join(columns) + " |",
        "|" + "---|" * len(columns),
        *("| " + " | ".join(str(row.get(name, "")) for name in columns) + " |" for row in rows),
    ]


def write_csv(path: Path, rows: Sequence[Row]) -> None:
    columns = list(dict.fromkeys(name for row in rows for name in row))
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def spectrograms(folder: Path) -> Picture:
    """Writes PNGs of spectrograms, one below the other, into `folder`."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    def write(name: str, signals: Mapping[str, npt.NDArray[np.int16]]) -> None:
        figure, axes = pyplot.subplots(
            len(signals), 1, figsize=(16, 3 * len(signals)), sharex=True, squeeze=False
        )
        for axis, (title, pcm) in zip(axes[:, 0], signals.items(), strict=True):
            axis.specgram(pcm / 32768, NFFT=512, Fs=SAMPLE_RATE, noverlap=432, vmin=-140, vmax=-50)
            axis.set_facecolor(pyplot.get_cmap()(0))  # digital silence has no level
            axis.set_ylabel(f"{title}\nHz")
        axes[-1, 0].set_xlabel("s")
        figure.tight_layout()
        figure.savefig(folder / f"{name}.png", dpi=80)
        pyplot.close(figure)

    return write
