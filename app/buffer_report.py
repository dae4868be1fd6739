"""What each setting of the jitter buffer costs in delay and gives in speech, by simulation.

    python -m app.buffer_report --clips DIR --trace FILE --out docs

The clips are joined to one call. Prints Markdown: a table of networks and buffers, and one of what
is rebuilt of the frames that the trace loses, which is drawn to `jitterbuffer-rebuilt.png` too.
PLCMOS and extended STOI need the extra `eval`.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from itertools import chain, repeat
from multiprocessing import get_context
from pathlib import Path

import numpy as np

from app.arrivals import ArrivalTrace
from app.audio.file import file_samples
from app.evaluation.metrics import Metrics
from app.netem import LossTrace, load_loss_trace, parse_netem
from app.options import CallOptions, Impairment
from app.simulation import Pcm, SimulationOptions, SimulationResult, simulate
from codec import FRAME_SECONDS, SAMPLE_RATE
from codec.frame import FrameSource, HoleAction
from jitterbuffer.latency import Latency

JITTER = "delay 30ms 20ms distribution normal"
BURSTY = "delay 40ms 20ms distribution normal loss gemodel 5% 40%"
DRIFT = 300.0
FREEZE_SECONDS, FREEZE_EVERY = 2.0, 20.0

FIXED = (60.0, 200.0)
CURVE = (40.0, 60.0, 80.0, 100.0, 120.0, 160.0, 200.0, 250.0, 300.0)

SEGMENT = 10 * SAMPLE_RATE
"""Samples that a measure is asked about at a time."""

MAX_CLIP = 60 * SAMPLE_RATE

REBUILT = (FrameSource.RED, FrameSource.LBRR, FrameSource.DRED)


@dataclass(frozen=True, slots=True)
class Buffer:
    """One setting of the jitter buffer."""

    name: str
    options: CallOptions


def buffers(fixed: Sequence[float]) -> list[Buffer]:
    """The three policies, and fixed delays in ms."""
    adaptive = [Buffer(latency.value, CallOptions(latency=latency)) for latency in Latency]
    return adaptive + [Buffer(f"fixed:{ms:g}", CallOptions(buffer_ms=ms)) for ms in fixed]


def networks(seconds: float) -> Iterator[tuple[str, SimulationOptions]]:
    """Name and options of each network, for a call of so many seconds."""
    yield "clean", SimulationOptions()
    for name in (JITTER, BURSTY):
        impairment = Impairment(parse_netem(name))
        yield f"`{name}`", SimulationOptions(CallOptions(outbound=impairment))
    yield (
        f"stands still for {FREEZE_SECONDS:g} s every {FREEZE_EVERY:g} s",
        SimulationOptions(arrivals=_freezing(math.ceil(seconds / FRAME_SECONDS) + 1)),
    )
    for ppm in (DRIFT, -DRIFT):
        yield f"clocks apart by {ppm:+g} ppm", SimulationOptions(drift_ppm=ppm)


def _freezing(packets: int) -> ArrivalTrace:
    """Nothing comes for a while every now and then, then everything at once."""
    transits = []
    for number in range(packets):
        since = (number * FRAME_SECONDS) % FREEZE_EVERY - FREEZE_EVERY / 2
        transits.append((FREEZE_SECONDS - since if 0 <= since < FREEZE_SECONDS else 0.0,))
    return ArrivalTrace(transits)


def under(network: SimulationOptions, buffer: Buffer) -> SimulationOptions:
    """The network with that buffer at its end."""
    return replace(network, call=replace(buffer.options, outbound=network.call.outbound))


@dataclass(frozen=True, slots=True)
class Heard:
    """What became of the frames that were said, in shares of them."""

    from_packets: float
    rebuilt: float
    concealed: float
    """Guessed at, silent or left out."""

    @classmethod
    def of(cls, result: SimulationResult, said: int) -> Heard:
        """`said`: samples."""
        found = {
            frame.number: frame.source
            for frame in result.frames
            if frame.number is not None and frame.action is not HoleAction.HOLD
        }
        frames = math.ceil(said / SAMPLE_RATE / FRAME_SECONDS)
        kinds = [found.get(number, FrameSource.SILENCE) for number in range(frames)]
        packets = sum(kind is FrameSource.PACKET for kind in kinds) / frames
        rebuilt = sum(kind in REBUILT for kind in kinds) / frames
        return cls(packets, rebuilt, 1.0 - packets - rebuilt)


def rebuilt_share(result: SimulationResult, trace: LossTrace, said: int) -> float:
    """Of the frames whose packet the trace loses, how many were made from redundancy."""
    lost = {n for n in range(math.ceil(said / SAMPLE_RATE / FRAME_SECONDS)) if trace[n]}
    made = {
        frame.number
        for frame in result.frames
        if frame.source in REBUILT and frame.action is not HoleAction.HOLD
    }
    return len(lost & made) / len(lost)


def stretched_share(result: SimulationResult) -> float:
    """Samples put in or left out, of all that was played."""
    inbound = result.report.inbound
    moved = inbound.insertedSamplesForDeceleration + inbound.removedSamplesForAcceleration
    return moved / len(result.heard)


def quality(said: Pcm, result: SimulationResult) -> tuple[float, float]:
    """PLCMOS of the sound as heard, and extended STOI of what came of `said`, in pieces of 10 s."""
    plcmos, estoi = (
        [
            Metrics([name])(sent[at : at + SEGMENT], heard[at : at + SEGMENT])[name]
            for at in range(0, len(heard) - SEGMENT // 2, SEGMENT)
        ]
        for name, sent, heard in (
            ("plcmos", result.heard, result.heard),
            ("estoi", said, result.aligned[: len(said)]),
        )
    )
    return float(np.mean(plcmos)), float(np.mean(estoi))


def network_rows(said: Pcm, only: Sequence[str], jobs: int) -> Iterator[str]:
    """Lines of Markdown."""
    yield (
        "| network | buffer | delay p50 / p95, ms | own packet, % | rebuilt, % | concealed, % "
        "| time scale, % | PLCMOS | ESTOI |"
    )
    yield "|---|---|---|---|---|---|---|---|---|"
    cells = [
        (name, network, buffer)
        for name, network in networks(len(said) / SAMPLE_RATE)
        for buffer in buffers(FIXED)
        if not only or buffer.name in only
    ]
    with _workers(jobs) as pool:
        yield from pool.map(_network_row, repeat(said), *zip(*cells, strict=True))


def _network_row(said: Pcm, name: str, network: SimulationOptions, buffer: Buffer) -> str:
    result = simulate(said, under(network, buffer))
    heard, delay = Heard.of(result, len(said)), result.report.delay
    assert delay is not None
    plcmos, estoi = quality(said, result)
    return (
        f"| {name} | {buffer.name} | {_ms(delay.p50)} / {_ms(delay.p95)} "
        f"| {100 * heard.from_packets:.1f} | {100 * heard.rebuilt:.1f} "
        f"| {100 * heard.concealed:.1f} | {100 * stretched_share(result):.2f} "
        f"| {plcmos:.2f} | {estoi:.3f} |"
    )


def rebuilt_rows(
    said: Pcm, trace: LossTrace, only: Sequence[str], jobs: int, picture: Path
) -> Iterator[str]:
    """Lines of Markdown; draws the picture at the end."""
    yield "| buffer | mean delay, ms | lost frames rebuilt, % |"
    yield "|---|---|---|"
    chosen = [buffer for buffer in buffers(CURVE) if not only or buffer.name in only]
    points: list[Point] = []
    with _workers(jobs) as pool:
        for point in pool.map(_point, repeat(said), repeat(trace), chosen):
            points.append(point)
            yield f"| {point.buffer} | {point.delay_ms:.0f} | {point.rebuilt_percent:.1f} |"
    draw_rebuilt(picture, points)


@dataclass(frozen=True, slots=True)
class Point:
    """One setting of the buffer on a loss trace."""

    buffer: str
    delay_ms: float
    """From mouth to ear, the mean, on a network without delay."""
    rebuilt_percent: float
    """Of the lost frames."""


def _point(said: Pcm, trace: LossTrace, buffer: Buffer) -> Point:
    result = simulate(said, SimulationOptions(buffer.options, loss_trace=trace))
    delays = [
        frame.delay
        for frame in result.frames
        if frame.delay is not None and frame.action is not HoleAction.HOLD
    ]
    share = rebuilt_share(result, trace, len(said))
    return Point(buffer.name, 1e3 * float(np.mean(delays)), 100 * share)


def _workers(jobs: int) -> ProcessPoolExecutor:
    # forked, a process would inherit the networks' threads in whatever state they are
    return ProcessPoolExecutor(jobs, mp_context=get_context("spawn"))


def draw_rebuilt(path: Path, points: Sequence[Point]) -> None:
    """A PNG of what each buffer rebuilds, over its delay."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 5.5), dpi=100, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    fixed = [point for point in points if point.buffer.startswith("fixed")]
    adaptive = [point for point in points if point not in fixed]
    for chosen, style, colour, label, at in (
        (fixed, "o-", "#6f7f8f", "fixed:MS", (4, -13)),
        (adaptive, "D", "#1f6fd6", "adaptive, by --latency", (-8, 8)),
    ):
        delays, shares = ([p.delay_ms for p in chosen], [p.rebuilt_percent for p in chosen])
        axes.plot(delays, shares, style, color=colour, label=label)
        for point in chosen:
            axes.annotate(
                point.buffer.removeprefix("fixed:"),
                (point.delay_ms, point.rebuilt_percent),
                textcoords="offset points",
                xytext=at,
                ha="left" if at[0] > 0 else "right",
                fontsize=9,
                color=colour,
            )
    axes.set_xlabel("mean delay from mouth to ear, ms")
    axes.set_ylabel("lost frames rebuilt from LBRR or DRED, %")
    axes.set_ylim(50, 100)
    axes.grid(alpha=0.3)
    axes.legend(loc="lower right", frameon=False)
    figure.savefig(path, format="png")


def _ms(seconds: float | None) -> str:
    return "-" if seconds is None else f"{1e3 * seconds:.0f}"


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="app.buffer_report", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--clips", type=Path, required=True, help="folder of speech")
    parser.add_argument("--every", type=int, default=1, metavar="K", help="take every K-th clip")
    parser.add_argument("--trace", type=Path, help="a loss trace, for the second table")
    parser.add_argument("--out", type=Path, default=Path("."), help="folder of the picture")
    parser.add_argument(
        "--buffer", action="append", default=[], metavar="NAME", help="only these, as in the tables"
    )
    parser.add_argument("--jobs", type=int, default=1, help="processes (default: %(default)s)")
    parsed = parser.parse_args(arguments)
    files = sorted(path for path in parsed.clips.iterdir() if path.is_file())[:: parsed.every]
    said = np.concatenate([file_samples(path, most=MAX_CLIP) for path in files])
    trace = load_loss_trace(parsed.trace) if parsed.trace else None
    print(f"{len(files)} clips, {len(said) / SAMPLE_RATE:.0f} s\n")
    lines = network_rows(said, parsed.buffer, parsed.jobs)
    if trace:
        picture = parsed.out / "jitterbuffer-rebuilt.png"
        lines = chain(lines, [""], rebuilt_rows(said, trace, parsed.buffer, parsed.jobs, picture))
    for line in lines:
        print(line, flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
