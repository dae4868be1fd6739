"""A timeline as a picture."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

import numpy as np

from app.picture import COLOURS, LABELS, SOURCES
from app.timeline import TimelineView
from codec import FRAME_SECONDS

if TYPE_CHECKING:
    from matplotlib.axes import Axes

WIDTH, HEIGHT = 1600, 900
"""Pixels."""

ARRIVED = "#9aa5b1"
LATE = "#d62728"
TARGET = "#111111"


def timeline_png(view: TimelineView, title: str, *, shortened: bool = False) -> bytes:
    """A PNG. `shortened`: the call went on longer than the view."""
    # matplotlib takes half a second to import; only who wants a picture shall wait for it
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(WIDTH / 100, HEIGHT / 100), dpi=100, layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(title, fontsize=12)
    with_delay = bool(np.isfinite(view.delay).any())
    with_scaling = bool(view.stretched.any())
    heights = [5.0, 0.5] + [1.3] * with_scaling + [1.6] * with_delay
    rows = list(
        figure.subplots(len(heights), 1, sharex=True, squeeze=False, height_ratios=heights)[:, 0]
    )
    _draw_delays(rows[0], view)
    _draw_sources(rows[1], view)
    if with_scaling:
        _draw_scaling(rows[2], view)
    if with_delay:
        _draw_mouth_to_ear(rows[-1], view)
    end = max(view.media.max(initial=0.0), view.packet_media.max(initial=0.0)) + FRAME_SECONDS
    rows[0].set_xlim(0.0, end)
    rows[-1].set_xlabel("seconds of speech" + ", the beginning only" * shortened)
    for axes in rows:
        axes.grid(alpha=0.25, axis="x")
    content = io.BytesIO()
    figure.savefig(content, format="png")
    return content.getvalue()


def _draw_delays(axes: Axes, view: TimelineView) -> None:
    late = view.too_late()
    size = 14.0 if len(view.media) < 1500 else 4.0
    in_time = ~late
    axes.scatter(
        view.packet_media[in_time],
        1e3 * view.packet_delay[in_time],
        s=size,
        color=ARRIVED,
        linewidths=0,
        label="packet came",
    )
    if late.any():
        axes.scatter(
            view.packet_media[late],
            1e3 * view.packet_delay[late],
            s=2 * size,
            color=LATE,
            marker="x",
            linewidths=1.0,
            label="came too late",
        )
    axes.step(
        view.media,
        1e3 * view.target,
        where="post",
        color=TARGET,
        linewidth=1.0,
        linestyle="--",
        label="target delay",
    )
    for number, source in enumerate(SOURCES):
        here = view.source == number
        if here.any():
            axes.hlines(
                1e3 * view.playout_delay[here],
                view.media[here],
                view.media[here] + FRAME_SECONDS,
                color=COLOURS[source],
                linewidth=3.0,
                label=f"played: {LABELS[source]}",
            )
    axes.set_ylabel("ms after the fastest\npacket would have come")
    lowest = min(0.0, 1e3 * float(view.playout_delay.min(initial=0.0)))
    axes.set_ylim(bottom=lowest - 0.02 * (axes.get_ylim()[1] - lowest))
    axes.grid(alpha=0.25, axis="y")
    _legend_above(axes)


def _draw_sources(axes: Axes, view: TimelineView) -> None:
    for number, source in enumerate(SOURCES):
        here = view.source == number
        if here.any():
            bars = [(start, FRAME_SECONDS) for start in view.media[here]]
            # or hairlines show between the frames
            axes.broken_barh(bars, (0.0, 1.0), facecolor=COLOURS[source], antialiased=False)
    axes.set_ylim(0.0, 1.0)
    axes.set_yticks([])
    axes.set_ylabel("from", rotation=0, ha="right", va="center")


def _draw_scaling(axes: Axes, view: TimelineView) -> None:
    milliseconds = 1e3 * view.stretched
    for here, colour, label in (
        (milliseconds > 0, "#7b3fa0", "stretched"),
        (milliseconds < 0, "#00838f", "shortened"),
    ):
        if here.any():
            axes.vlines(
                view.media[here] + FRAME_SECONDS / 2,
                0.0,
                milliseconds[here],
                color=colour,
                linewidth=1.5,
                label=f"{label}, {abs(milliseconds[here].sum()):.0f} ms in all",
            )
    axes.axhline(0.0, color="black", linewidth=0.5)
    axes.set_ylabel("time scale,\nms")
    axes.margins(y=0.15)
    _legend_above(axes)


def _draw_mouth_to_ear(axes: Axes, view: TimelineView) -> None:
    axes.step(view.media, 1e3 * view.delay, where="post", linewidth=1.0, color="C0")
    axes.set_ylim(0.0, max(1.0, 1.15e3 * float(np.nanmax(view.delay))))
    axes.set_ylabel("mouth to ear,\nms")
    axes.grid(alpha=0.25, axis="y")


def _legend_above(axes: Axes) -> None:
    axes.legend(
        loc="lower right",
        bbox_to_anchor=(1.0, 1.0),
        ncols=10,
        frameon=False,
        fontsize=10,
        borderaxespad=0.1,
        handlelength=1.4,
        columnspacing=1.4,
    )
