"""Figures of the report, as SVG."""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from math import isfinite
from typing import TYPE_CHECKING

import numpy as np

from app.evaluation.cell import Row
from app.evaluation.conditions import IDEAL
from app.evaluation.networks import NO_NETWORK
from app.evaluation.peers import Comparison
from app.evaluation.statistics import Mean, grouped, mean_of, number
from app.evaluation.summary import SCORES

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLOURS = {
    "none": "#222222",
    "opus-plc": "#8c8c8c",
    "plc": "#e08a00",
    "lbrr": "#2a9d54",
    "red": "#b08ad0",
    "red2": "#8e5fbf",
    "dred": "#1f6fd6",
    "lbrr+dred": "#c2255c",
}
"""By condition; those of frames in timelines where there are such."""
MORE_COLOURS = ("#0b7285", "#5c940d", "#862e9c", "#a61e4d", "#364fc7")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")

WIDTH = 11.5
"""Inches, as all else in a figure."""

DODGE = 0.008
"""Of the width of a figure, between the points of two conditions."""

LOSS_BINS = (0.0, 0.05, 0.15, 0.25, 0.35, 1.0)
"""Shares lost, where there are no traces of stated rates."""

RATE, SINGLE = "rate", "single"
"""Groups of traces that curves are drawn from."""


class Charts:
    """Draws rows; `labels` are of the conditions, in their order."""

    def __init__(self, rows: Sequence[Row], labels: Mapping[str, str]) -> None:
        self._rows = rows
        self._labels = labels
        more = iter(MORE_COLOURS * len(labels))
        self._colours = {mode: COLOURS.get(mode) or next(more) for mode in labels}
        self._markers = dict(zip(labels, MARKERS * len(labels), strict=False))
        self.buffers = list(dict.fromkeys(str(row["buffer"]) for row in rows))
        self.score = next((s for s in SCORES if any(row.get(s) is not None for row in rows)), None)
        """The measure that figures show: PLCMOS if it was taken."""

    def _lossy(self, buffer: str | None = None) -> list[Row]:
        return [
            row
            for row in self._rows
            if row["trace"] != NO_NETWORK and (buffer is None or row["buffer"] == buffer)
        ]

    def bars(self, comparisons: Sequence[Comparison]) -> str | None:
        """The score of each condition on each class of networks, with others' figures beside."""
        if self.score is None:
            return None
        curves = (RATE, SINGLE)
        groups = {
            key: members
            for key, members in grouped(self._lossy(), "class", "buffer").items()
            if key[0] not in curves
        } or grouped(self._lossy(), "class", "buffer")
        if not groups:
            return None
        clean = [row for row in self._rows if row["trace"] == NO_NETWORK]
        columns = min(2, len(groups))
        lines = -(-len(groups) // columns)
        figure, all_axes = _figure(
            WIDTH, 0.5 + (0.9 + 0.3 * len(self._labels)) * lines, lines, columns
        )
        for axes, ((kind, buffer), members) in zip(all_axes, groups.items(), strict=False):
            self._draw_bars(axes, kind, buffer, clean + members, comparisons)
        for axes in all_axes[len(groups) :]:
            axes.set_visible(False)
        return _svg(figure)

    def _draw_bars(
        self,
        axes: Axes,
        kind: str,
        buffer: str,
        rows: Sequence[Row],
        comparisons: Sequence[Comparison],
    ) -> None:
        assert self.score is not None
        by_mode = {mode: members for (mode,), members in grouped(rows, "mode").items()}
        modes = [mode for mode in self._labels if mode in by_mode]
        theirs = {
            c.ours: c.their_mean
            for c in comparisons
            if c.measure == self.score and c.kind in (kind, NO_NETWORK) and buffer == IDEAL
        }
        ends = []
        for place, mode in enumerate(modes):
            mean = mean_of(by_mode[mode], self.score)
            error = _error(mean)
            axes.barh(
                place,
                mean.value,
                0.72,
                color=self._colours[mode],
                xerr=error,
                ecolor="#000000aa",
                capsize=2.5,
                error_kw={"linewidth": 1},
            )
            ends.append(max(mean.value, mean.high if isfinite(mean.high) else 0))
            if mode in theirs:
                mark = axes.plot(
                    theirs[mode],
                    place,
                    marker="D",
                    color="white",
                    markersize=5,
                    markeredgecolor="black",
                    linestyle="none",
                )[0]
                ends[-1] = max(ends[-1], theirs[mode])
                if "others" not in axes.get_legend_handles_labels()[1]:
                    mark.set_label("others")
        longest = max(ends, default=1.0)
        for place, mode in enumerate(modes):
            mean, kbps = mean_of(by_mode[mode], self.score), mean_of(by_mode[mode], "kbps")
            text = f"{mean.value:.2f}, {kbps.value:.0f} kb/s"
            axes.text(ends[place] + 0.035 * longest, place, text, va="center", fontsize=8)
        axes.set_yticks(range(len(modes)), [self._labels[mode] for mode in modes])
        axes.invert_yaxis()
        lowest = 1.0 if self._is_mos else 0.0
        axes.set_xlim(lowest, 5.9 if self._is_mos else longest + 0.4 * (longest - lowest))
        if self._is_mos:
            axes.set_xticks(range(1, 6))
        axes.set_title(f"{kind}, {buffer} buffer", fontsize=10, loc="left")
        axes.set_xlabel(SCORES[self.score][0])
        if theirs:
            axes.legend(loc="lower right", bbox_to_anchor=(1, 1), fontsize=8.5, frameon=False)

    @property
    def _is_mos(self) -> bool:
        return self.score in ("plcmos", "dnsmos", "pesq")

    def against_loss(self) -> str | None:
        """Quality against the share of packets lost."""
        rows = self._lossy(self.buffers[0])
        stated = [row for row in rows if row["class"] == RATE]
        if stated:
            place = _mean_place(stated, "lost", "trace")
            points = {trace: 100 * place[trace] for trace in place}
            return self._curves(stated, lambda row: points[str(row["trace"])], "packets lost, %")

        def binned(row: Row) -> float:
            lost = number(row, "lost")
            edge = next(i for i in range(1, len(LOSS_BINS)) if lost <= LOSS_BINS[i])
            inside = [
                number(r, "lost")
                for r in rows
                if LOSS_BINS[edge - 1] < number(r, "lost") <= LOSS_BINS[edge]
            ]
            return 100 * (sum(inside) / len(inside) if inside else lost)

        return self._curves(rows, binned, "packets lost, %")

    def against_burst(self) -> str | None:
        """Quality against the length of lone holes."""
        rows = [row for row in self._lossy(self.buffers[0]) if row["class"] == SINGLE]

        def milliseconds(row: Row) -> float:
            match = re.search(r"([0-9]+)ms", str(row["trace"]))
            return float(match[1]) if match else float("nan")

        rows = [row for row in rows if isfinite(milliseconds(row))]
        return self._curves(rows, milliseconds, "length of each hole, ms", logarithmic=True)

    def against_delay(self) -> str | None:
        """Quality against delay from mouth to ear, buffer by buffer; dashed: with an ideal one."""
        rows = [row for row in self._lossy() if number(row, "delay_p50_ms") > 0]
        rows = [row for row in rows if row["class"] not in (RATE, SINGLE)] or rows
        if not rows or self.score is None:
            return None
        ideal = [row for row in self._lossy(IDEAL) if row["class"] not in (RATE, SINGLE)]
        place = {
            key: mean_of(members, "delay_p50_ms").value
            for key, members in grouped(rows, "mode", "buffer").items()
        }
        figure, (axes,) = _figure(WIDTH, 4.2)
        for mode in self._labels:
            points = sorted(
                (place[mode, buffer], buffer, mean_of(members, self.score))
                for (m, buffer), members in grouped(rows, "mode", "buffer").items()
                if m == mode
            )
            if not points:
                continue
            style = {"color": self._colours[mode], "marker": self._markers[mode]}
            self._plot(axes, [(x, mean) for x, _, mean in points], self._labels[mode], style)
            best = [row for row in ideal if row["mode"] == mode]
            if best:
                level = mean_of(best, self.score).value
                axes.axhline(level, color=self._colours[mode], linestyle=":", linewidth=1)
        axes.set_xlabel("delay from mouth to ear, median, ms")
        self._finish(axes)
        return _svg(figure)

    def against_bitrate(self) -> str | None:
        """Quality against what redundancy costs."""
        rows = [row for row in self._lossy(self.buffers[0]) if row["class"] not in (RATE, SINGLE)]
        rows = rows or self._lossy(self.buffers[0])
        if not rows or self.score is None:
            return None
        kbps = {mode: mean_of(m, "kbps").value for (mode,), m in grouped(rows, "mode").items()}
        plain = min(kbps.values())
        figure, (axes,) = _figure(WIDTH, 4.2)
        for (mode,), members in grouped(rows, "mode").items():
            mean = mean_of(members, self.score)
            style = {"color": self._colours[mode], "marker": self._markers[mode]}
            self._plot(axes, [(kbps[mode] - plain, mean)], self._labels[mode], style)
        axes.set_xlabel(f"bits beyond those of plain speech ({plain:.0f} kb/s), kb/s")
        self._finish(axes)
        return _svg(figure)

    def _curves(
        self,
        rows: Iterable[Row],
        place: Callable[[Row], float],
        title: str,
        *,
        logarithmic: bool = False,
    ) -> str | None:
        rows = list(rows)
        shown = [
            s for s in (self.score, "hole_estoi") if s and any(r.get(s) is not None for r in rows)
        ]
        shown = list(dict.fromkeys(shown))
        if not rows or not shown:
            return None
        modes = [mode for mode in self._labels if any(row["mode"] == mode for row in rows)]
        scale = np.log if logarithmic else np.asarray
        span = np.ptp(scale([place(row) for row in rows]))

        def aside(x: float, mode: str) -> float:
            """A little, so that intervals do not hide each other."""
            by = DODGE * float(span) * (modes.index(mode) - (len(modes) - 1) / 2)
            return x * float(np.exp(by)) if logarithmic else x + by

        figure, all_axes = _figure(WIDTH, 4.2, 1, len(shown))
        for axes, score in zip(all_axes, shown, strict=True):
            for mode in self._labels:
                points: dict[float, list[Row]] = {}
                for row in rows:
                    if row["mode"] == mode:
                        points.setdefault(place(row), []).append(row)
                means = [(aside(x, mode), mean_of(points[x], score)) for x in sorted(points)]
                style = {"color": self._colours[mode], "marker": self._markers[mode]}
                self._plot(axes, means, self._labels[mode], style)
            if logarithmic:
                axes.set_xscale("log")
                ticks = sorted({place(row) for row in rows})
                axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
                axes.minorticks_off()
            axes.set_xlabel(title)
            self._finish(axes, score, legend=axes is all_axes[0])
        return _svg(figure)

    @staticmethod
    def _plot(
        axes: Axes, points: Sequence[tuple[float, Mean]], label: str, style: Mapping[str, str]
    ) -> None:
        known = [(x, mean) for x, mean in points if isfinite(mean.value)]
        if not known:
            return
        errors = [_error(mean) or [[0.0], [0.0]] for _, mean in known]
        axes.errorbar(
            [x for x, _ in known],
            [mean.value for _, mean in known],
            yerr=[[e[side][0] for e in errors] for side in (0, 1)],
            label=label,
            capsize=2.5,
            linewidth=1.6,
            elinewidth=0.8,
            markersize=5,
            **style,  # type: ignore[arg-type]
        )

    def _finish(self, axes: Axes, score: str | None = None, *, legend: bool = True) -> None:
        axes.set_ylabel(SCORES[score or self.score or ""][0])
        axes.grid(alpha=0.25)
        if legend:
            assert axes.figure is not None
            axes.figure.legend(loc="outside upper center", ncols=4, fontsize=8.5, frameon=False)


def _mean_place(rows: Sequence[Row], name: str, by: str) -> dict[str, float]:
    return {key: mean_of(members, name).value for (key,), members in grouped(rows, by).items()}


def _error(mean: Mean) -> list[list[float]] | None:
    if not isfinite(mean.low):
        return None
    return [[max(0.0, mean.value - mean.low)], [max(0.0, mean.high - mean.value)]]


def _figure(
    width: float, height: float, rows: int = 1, columns: int = 1
) -> tuple[Figure, list[Axes]]:
    # imported here: it takes half a second
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    all_axes = figure.subplots(rows, columns, squeeze=False).ravel().tolist()
    for axes in all_axes:
        axes.spines[["top", "right"]].set_visible(False)
        axes.tick_params(labelsize=9)
    return figure, all_axes


def _svg(figure: Figure) -> str:
    """The same bytes every time; text stays text."""
    from matplotlib import rc_context

    file = io.StringIO()
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": "dredcall"}):
        figure.savefig(file, format="svg", metadata={"Date": None, "Creator": None})
    text = file.getvalue()
    return text[text.index("<svg") :]
