"""What each setting of the jitter buffer costs in delay and gives in speech, by simulation.

    python -m app.buffer_report --clips DIR --trace FILE --out docs

The clips are joined to one call. Prints Markdown: a table of networks and buffers, and one of what
is rebuilt of the frames that the trace loses, which is drawn to `jitterbuffer-rebuilt.png` too.
PLCMOS needs the extra `eval`.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from app.arrivals import ArrivalTrace
from app.audio.file import file_samples
from app.netem import LossTrace, load_loss_trace, parse_netem
from app.options import CallOptions, Impairment
from app.simulation import Pcm, SimulationOptions, SimulationResult, simulate
from codec import FRAME_SECONDS, SAMPLE_RATE
from codec.frame import FrameSource, HoleAction
from codec.training.metrics import Metrics
from jitterbuffer.latency import Latency

JITTER = "delay 30ms 20ms distribution normal"
BURSTY = "delay 40ms 20ms distribution normal loss gemodel 5% 40%"
DRIFT = 300.0
FREEZE_SECONDS, FREEZE_EVERY = 2.0, 20.0

FIXED = (60.0, 200.0)
CURVE = (40.0, 60.0, 80.0, 100.0, 120.0, 160.0, 200.0, 250.0, 300.0)

SEGMENT = 10 * SAMPLE_RATE
"""Samples that PLCMOS is asked about at a time."""

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


def mean_plcmos(metrics: Metrics, heard: Pcm) -> float:
    """Over pieces of 10 s."""
    pieces = [heard[at : at + SEGMENT] for at in range(0, len(heard) - SEGMENT // 2, SEGMENT)]
    return float(np.mean([metrics(piece, piece)["plcmos"] for piece in pieces]))


def network_table(said: Pcm, metrics: Metrics) -> Iterator[str]:
    """Lines of Markdown."""
    yield (
        "| network | buffer | delay p50 / p95, ms | own packet, % | rebuilt, % | concealed, % "
        "| time scale, % | PLCMOS |"
    )
    yield "|---|---|---|---|---|---|---|---|"
    for name, network in networks(len(said) / SAMPLE_RATE):
        for buffer in buffers(FIXED):
            result = simulate(said, under(network, buffer))
            heard, delay = Heard.of(result, len(said)), result.report.delay
            assert delay is not None
            yield (
                f"| {name} | {buffer.name} | {_ms(delay.p50)} / {_ms(delay.p95)} "
                f"| {100 * heard.from_packets:.1f} | {100 * heard.rebuilt:.1f} "
                f"| {100 * heard.concealed:.1f} | {100 * stretched_share(result):.2f} "
                f"| {mean_plcmos(metrics, result.heard):.2f} |"
            )


def rebuilt_table(said: Pcm, trace: LossTrace, picture: Path) -> Iterator[str]:
    """Lines of Markdown; draws the picture at the end."""
    yield "| buffer | mean playout delay, ms | lost frames rebuilt, % |"
    yield "|---|---|---|"
    points: list[tuple[str, float, float]] = []
    for buffer in buffers(CURVE):
        result = simulate(said, SimulationOptions(buffer.options, loss_trace=trace))
        delays = [
            frame.delay
            for frame in result.frames
            if frame.delay is not None and frame.action is not HoleAction.HOLD
        ]
        delay, share = 1e3 * float(np.mean(delays)), rebuilt_share(result, trace, len(said))
        points.append((buffer.name, delay, 100 * share))
        yield f"| {buffer.name} | {delay:.0f} | {100 * share:.1f} |"
    draw_rebuilt(picture, points)


def draw_rebuilt(path: Path, points: Sequence[tuple[str, float, float]]) -> None:
    """`points`: name of the buffer, delay in ms, share in percent."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 5.5), dpi=100, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    fixed = [(delay, share) for name, delay, share in points if name.startswith("fixed")]
    axes.plot(*zip(*fixed, strict=True), "o-", color="#6f7f8f", label="fixed delay")
    for name, delay, share in points:
        if name.startswith("fixed"):
            axes.annotate(
                name.partition(":")[2],
                (delay, share),
                textcoords="offset points",
                xytext=(4, -13),
                fontsize=9,
                color="#6f7f8f",
            )
        else:
            axes.plot([delay], [share], "D", color="#1f6fd6", markersize=9)
            axes.annotate(
                name,
                (delay, share),
                textcoords="offset points",
                xytext=(-8, 8),
                ha="right",
                color="#1f6fd6",
            )
    axes.plot([], [], "D", color="#1f6fd6", label="adaptive, by --latency")
    axes.set_xlabel("mean delay from mouth to ear, ms")
    axes.set_ylabel("lost frames rebuilt from LBRR or DRED, %")
    axes.set_ylim(0, 100)
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
    parser.add_argument("--trace", type=Path, required=True, help="a loss trace")
    parser.add_argument("--out", type=Path, default=Path("."), help="folder of the picture")
    parsed = parser.parse_args(arguments)
    files = sorted(path for path in parsed.clips.iterdir() if path.is_file())[:: parsed.every]
    said = np.concatenate([file_samples(path, most=MAX_CLIP) for path in files])
    print(f"{len(files)} clips, {len(said) / SAMPLE_RATE:.0f} s\n")
    trace = load_loss_trace(parsed.trace)
    for line in rebuilt_table(said, trace, parsed.out / "jitterbuffer-rebuilt.png"):
        print(line, flush=True)
    print()
    for line in network_table(said, Metrics(["plcmos"])):
        print(line, flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
