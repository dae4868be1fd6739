"""A picture of what was heard: the waveform, coloured by how each frame was obtained."""

from __future__ import annotations

from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from codec import FRAME, FRAME_SECONDS
from codec.frame import FrameSource, PcmFrame

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MAX_FRAMES = 4 * 3600 * 50
"""Four hours; the rest of a longer call is not drawn. 25 MB."""

SLOTS = 8
"""Extremes kept per frame, one pair for each 2.5 ms."""

WIDTH, HEIGHT = 1600, 700
"""Pixels."""

COLUMNS = 3000
"""Columns of waveform at most, two a pixel: more cannot be seen and takes long to draw."""

SOURCES: Sequence[FrameSource] = tuple(FrameSource)
"""Best first; a place in it is how a trace stores a source."""

COLOURS: Mapping[FrameSource, str] = {
    FrameSource.PACKET: "#6f7f8f",
    FrameSource.RED: "#8e5fbf",
    FrameSource.LBRR: "#2a9d54",
    FrameSource.DRED: "#1f6fd6",
    FrameSource.PLC: "#e08a00",
    FrameSource.SILENCE: "#d62728",
}
"""The usual case stays in the background; hues differ in lightness for the colour-blind."""

LABELS: Mapping[FrameSource, str] = {
    FrameSource.PACKET: "own packet",
    FrameSource.RED: "RED",
    FrameSource.LBRR: "LBRR",
    FrameSource.DRED: "DRED",
    FrameSource.PLC: "concealed",
    FrameSource.SILENCE: "silence",
}


class CallTrace:
    """What a picture needs to know of a call, 37 bytes a frame. One thread adds."""

    def __init__(self, max_frames: int = MAX_FRAMES) -> None:
        self._max_frames = max_frames
        self._extremes = array("h")
        self._sources = bytearray()
        self._delays = array("f")
        self.dropped = 0
        """Frames that came after the last that there is room for."""

    def __len__(self) -> int:
        return len(self._sources)

    def add(self, pcm: PcmFrame, source: FrameSource, delay: float | None = None) -> None:
        """The next frame played, int16 [320], and its mouth-to-ear delay in seconds if known."""
        if len(self) >= self._max_frames:
            self.dropped += 1
            return
        slots = pcm.reshape(SLOTS, FRAME // SLOTS)
        extremes = np.concatenate([slots.min(axis=1), slots.max(axis=1)])
        self._extremes.frombytes(extremes.astype(np.int16, copy=False).tobytes())
        self._delays.append(np.nan if delay is None else delay)
        self._sources.append(SOURCES.index(source))

    @property
    def extremes(self) -> npt.NDArray[np.float64]:
        """float64 [2, n * SLOTS]: lowest and highest sample of each slot, full scale = 1."""
        pairs = np.array(self._extremes, dtype=np.float64).reshape(-1, 2, SLOTS)
        return pairs[: len(self)].swapaxes(0, 1).reshape(2, -1) / 32768.0

    @property
    def sources(self) -> npt.NDArray[np.uint8]:
        """uint8 [n]: places in `SOURCES`."""
        return np.frombuffer(bytes(self._sources), dtype=np.uint8)

    @property
    def delays(self) -> npt.NDArray[np.float64]:
        """float64 [n]: seconds, NaN where unknown."""
        return np.array(self._delays, dtype=np.float64)[: len(self)]

    def counts(self) -> dict[FrameSource, int]:
        """Frames by source, best first, those that occur."""
        occurring = np.bincount(self.sources, minlength=len(SOURCES))
        return {source: int(n) for source, n in zip(SOURCES, occurring, strict=True) if n}


@dataclass(frozen=True, slots=True)
class PictureSide:
    """One side of a call."""

    label: str
    trace: CallTrace


def draw_call(path: Path, sides: Sequence[PictureSide], title: str = "") -> None:
    """Writes a PNG of one or two sides, with a row for the delay if it is known of any.

    Raises ValueError without sides or with more than two, OSError when it cannot be written.
    """
    if not 1 <= len(sides) <= 2:
        raise ValueError(f"a picture shows one or two sides, not {len(sides)}")
    # matplotlib takes half a second to import; only who wants a picture shall wait for it
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    with_delay = any(np.isfinite(side.trace.delays).any() for side in sides)
    seconds = FRAME_SECONDS * max(1, *(len(side.trace) for side in sides))
    figure = Figure(figsize=(WIDTH / 100, HEIGHT / 100), dpi=100, layout="constrained")
    FigureCanvasAgg(figure)
    rows = len(sides) + with_delay
    all_axes = figure.subplots(
        rows, 1, sharex=True, squeeze=False, height_ratios=[2] * len(sides) + [1.3] * with_delay
    )[:, 0]
    for axes, side in zip(all_axes, sides, strict=False):
        _draw_waveform(axes, side)
    if with_delay:
        _draw_delays(all_axes[-1], sides)
    all_axes[0].set_xlim(0.0, seconds)
    shortened = any(side.trace.dropped for side in sides)
    all_axes[-1].set_xlabel("seconds of playout" + ", the beginning only" * shortened)
    if title:
        figure.suptitle(title, fontsize=12)
    figure.savefig(path, format="png")


def _draw_waveform(axes: Axes, side: PictureSide) -> None:
    times, low, high, sources = _columns(side.trace, COLUMNS)
    peak = max(0.05, -low.min(initial=0.0), high.max(initial=0.0))
    for source, count in side.trace.counts().items():
        here = sources == SOURCES.index(source)
        share = f"{LABELS[source]}  {count} ({100 * count / len(side.trace):.1f} %)"
        if source is not FrameSource.PACKET:
            # a tint behind, so that a frame is seen where its sound is faint
            _fill(axes, times, -peak, peak, here, COLOURS[source], alpha=0.22)
        _fill(axes, times, low, high, here, COLOURS[source], label=share)
    axes.axhline(0.0, color="black", linewidth=0.4, alpha=0.5)
    axes.set_ylim(-1.05 * peak, 1.05 * peak)
    axes.set_ylabel(side.label)
    axes.margins(x=0)
    if len(side.trace):
        _legend_above(axes)


def _fill(
    axes: Axes,
    times: npt.NDArray[np.float64],
    low: npt.NDArray[np.float64] | float,
    high: npt.NDArray[np.float64] | float,
    here: npt.NDArray[np.bool_],
    colour: str,
    *,
    alpha: float = 1.0,
    label: str | None = None,
) -> None:
    """Bars from low to high in the columns picked by `here`; `times` are the columns' edges."""
    from matplotlib.collections import PolyCollection

    left, right = times[:-1][here], times[1:][here]
    bottom = np.broadcast_to(low, here.shape)[here]
    top = np.broadcast_to(high, here.shape)[here]
    corners = np.stack(
        [
            np.stack([left, bottom], axis=1),
            np.stack([left, top], axis=1),
            np.stack([right, top], axis=1),
            np.stack([right, bottom], axis=1),
        ],
        axis=1,
    )
    bars = PolyCollection(
        list(corners), facecolor=colour, edgecolor="none", alpha=alpha, label=label
    )
    bars.set_antialiased(False)  # or hairlines show between the columns
    axes.add_collection(bars)


def _draw_delays(axes: Axes, sides: Sequence[PictureSide]) -> None:
    for number, side in enumerate(sides):
        milliseconds = 1e3 * side.trace.delays
        times = FRAME_SECONDS * np.arange(len(milliseconds))
        axes.plot(times, milliseconds, linewidth=1.0, color=f"C{number}", label=side.label)
    axes.set_ylabel("delay, ms")
    highest = max(float(np.nanmax(s.trace.delays, initial=0.0)) for s in sides)
    axes.set_ylim(0.0, max(1.0, 1.15e3 * highest))
    axes.grid(alpha=0.3)
    if len(sides) > 1:
        _legend_above(axes)


def _legend_above(axes: Axes) -> None:
    axes.legend(
        loc="lower right",
        bbox_to_anchor=(1.0, 1.0),
        ncols=len(SOURCES),
        frameon=False,
        fontsize=10,
        borderaxespad=0.1,
    )


def _columns(
    trace: CallTrace, most: int
) -> tuple[
    npt.NDArray[np.float64],
    npt.NDArray[np.float64],
    npt.NDArray[np.float64],
    npt.NDArray[np.uint8],
]:
    """At most `most` columns (or one per frame): edges [n + 1] in seconds, low, high, worst source.

    Short calls get several columns to a frame, long ones several frames to a column: the worst of
    them is the one that would be missed.
    """
    low, high = trace.extremes
    sources = np.repeat(trace.sources, SLOTS)
    slots_per_column = max(1, -(-len(low) // most))
    if slots_per_column <= SLOTS:
        # whole columns per frame, or the colour would change inside a frame
        slots_per_column = next(n for n in (1, 2, 4, 8) if n >= slots_per_column)
    else:
        slots_per_column = -(-slots_per_column // SLOTS) * SLOTS
    starts = np.arange(0, len(low), slots_per_column)
    edges = np.append(starts, len(low)) * (FRAME_SECONDS / SLOTS)
    if not len(low):
        return edges, low, high, sources
    return (
        edges,
        np.minimum.reduceat(low, starts),
        np.maximum.reduceat(high, starts),
        np.maximum.reduceat(sources, starts),
    )
