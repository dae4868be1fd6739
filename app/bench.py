"""What every stage of a call costs per 20 ms, on this machine.

A stage is a name, the instruction set it runs on and a step to time. Stages come from builders
registered under `stage(...)`; each is built once for speech and once for digital silence, which
must not be dearer (denormal numbers). All are timed in a tight loop, which says what the processor
can do, and under the pacing of a call, one step of each per 20 ms, where caches are cold and the
scheduler has had time for others.
"""

from __future__ import annotations

import itertools
import platform
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
import numpy.typing as npt
from rich.table import Table

from app.audio.file import file_frames
from app.priority import request_realtime
from codec import FRAME, FRAME_SECONDS, FRAME_TICKS
from codec.concealer import Concealer
from codec.dred import DredDecoder, DredEncoder, attach_dred
from codec.feature_predictor import LOST, RECEIVED, FeaturePredictor
from codec.features import FeatureExtractor
from codec.frame import PcmFrame
from codec.lpcnet import LpcNet, Vocoder, paths
from codec.opus import OpusDecoder, OpusEncoder

Signal = Literal["speech", "silence"]
Mode = Literal["tight", "paced"]

SIGNALS: Final[tuple[Signal, ...]] = ("speech", "silence")
CLIP = Path(__file__).parent / "clips" / "woman.flac"

WARM_UP_STEPS = 20
TIGHT_SECONDS = 1.0
"""Per stage and signal."""
PACED_SECONDS = 10.0
"""Per round; the first times every stage, and a round follows for each further path."""
FIGURES = ("mean_us", "p50_us", "p99_us", "p999_us", "thread_p50_us")
PACED_WORK = 0.008
"""Seconds after which the other stages wait for the next 20 ms: a call sleeps most of the time, and
real-time threads that do not are stopped by the system for 50 ms in each second."""
LARGEST_CLIP = 3000
"""Frames taken of a clip: 60 s."""


class BenchError(ValueError):
    """Nothing can be timed as asked."""


@dataclass(frozen=True, slots=True)
class Workload:
    """What stages work on."""

    signal: Signal
    frames: Sequence[PcmFrame]
    packets: Sequence[bytes]
    """Opus with LBRR and a second of DRED."""
    features: npt.NDArray[np.float32]
    """[2 per frame, 20]"""

    def at(self, step: int) -> int:
        """Index of the frame that step number `step` is about: the clip repeats."""
        return step % len(self.frames)


@dataclass(frozen=True, slots=True)
class Stage:
    """One thing to time. `prepare`, if any, runs before each step and is not timed."""

    name: str
    step: Callable[[int], object]
    path: str
    prepare: Callable[[int], object] | None = None
    per_20ms: bool = True


Builder = Callable[[Workload], Iterator[Stage]]
BUILDERS: dict[str, Builder] = {}


def stage(name: str) -> Callable[[Builder], Builder]:
    """Register what builds the stages called `name`, one for each path they can take."""

    def register(builder: Builder) -> Builder:
        BUILDERS[name] = builder
        return builder

    return register


@dataclass(slots=True)
class Timing:
    """The durations of one stage's steps in seconds, by the clock on the wall and by that of the
    thread: they differ by what other processes took."""

    stage: Stage
    signal: Signal
    mode: Mode
    wall: list[float] = field(default_factory=list)
    thread: list[float] = field(default_factory=list)

    def take(self, step: int) -> None:
        """Time one step."""
        if self.stage.prepare is not None:
            self.stage.prepare(step)
        begun, begun_thread = time.perf_counter(), time.thread_time()
        self.stage.step(step)
        ended_thread, ended = time.thread_time(), time.perf_counter()
        self.wall.append(ended - begun)
        self.thread.append(ended_thread - begun_thread)

    def as_json(self) -> dict[str, Any]:
        """p99.9 of fewer than 1000 steps is the longest."""

        def microseconds(values: Sequence[float], quantile: float) -> float:
            return round(float(np.quantile(values, quantile, method="higher")) * 1e6, 1)

        mean = sum(self.wall) / len(self.wall)  # some stages do the work of several steps in one
        return {
            "stage": self.stage.name,
            "path": self.stage.path,
            "mode": self.mode,
            "signal": self.signal,
            "per_20ms": self.stage.per_20ms,
            "steps": len(self.wall),
            "mean_us": round(1e6 * mean, 1),
            "p50_us": microseconds(self.wall, 0.5),
            "p99_us": microseconds(self.wall, 0.99),
            "p999_us": microseconds(self.wall, 0.999),
            "max_us": microseconds(self.wall, 1),
            "thread_p50_us": microseconds(self.thread, 0.5),
            "rtf": round(mean / FRAME_SECONDS, 5) if self.stage.per_20ms else None,
        }


def run_bench(
    *,
    clip: Path = CLIP,
    stages: Sequence[str] = (),
    tight_seconds: float = TIGHT_SECONDS,
    paced_seconds: float = PACED_SECONDS,
    realtime: bool = False,
    progress: Callable[[str], None] = lambda _: None,
) -> dict[str, Any]:
    """Time all stages, or those whose name begins with one of `stages`; returns the report.

    The report is {"cpu", "stages": [...]} with an entry per stage, path, mode and signal (see
    `Timing.as_json`). A mode whose seconds are 0 is left out. `realtime` asks for the scheduling
    of a call in the paced rounds. `progress` is told what is being done.

    Raises BenchError if nothing has such a name, and AudioError, OpusError, LpcNetError,
    PredictorError or DredModelError if the clip, libopus or a model is missing.
    """
    chosen = [name for name in BUILDERS if not stages or name.startswith(tuple(stages))]
    if not chosen:
        raise BenchError(f"no stage {', '.join(stages)}; there are {', '.join(BUILDERS)}")
    progress("preparing")
    built = [
        (made, load.signal)
        for load in workloads(clip)
        for name in chosen
        for made in BUILDERS[name](load)
    ]
    timings: list[Timing] = []
    if tight_seconds > 0:
        for made, signal in built:
            progress(f"tight loop: {made.name} ({made.path}), {signal}")
            timings.append(_tight(made, signal, tight_seconds))
    if paced_seconds > 0:
        if realtime:
            request_realtime()
        rounds = list(_paced_rounds(built))
        for number, members in enumerate(rounds, 1):
            progress(f"paced as a call, {paced_seconds:g} s, round {number} of {len(rounds)}")
            timings += _paced(members, paced_seconds)
    return {
        "cpu": cpu_name(),
        "paths": list(paths()),
        "libopus": OpusEncoder().library.version,
        "stages": [timing.as_json() for timing in timings if timing.wall],
    }


def workloads(clip: Path) -> Iterator[Workload]:
    """Speech, which is the clip, and as much digital silence."""
    speech = list(itertools.islice(file_frames(clip), LARGEST_CLIP))
    redundancy = DredEncoder(lookahead=OpusEncoder().lookahead)
    payloads = []
    for frame in speech:
        redundancy.push(frame)
        payloads.append(redundancy.payload(max_ms=1000, max_bytes=120))
    for signal in SIGNALS:
        frames = speech if signal == "speech" else [np.zeros(FRAME, np.int16)] * len(speech)
        encoder = OpusEncoder(expected_loss=20)
        # the redundancy is that of speech in either case: of silence there is none
        packets = [
            attach_dred(encoder.encode(frame), payload)
            for frame, payload in zip(frames, payloads, strict=True)
        ]
        features = FeatureExtractor().process(np.concatenate(frames))
        yield Workload(signal, frames, packets, features)


def _tight(made: Stage, signal: Signal, seconds: float) -> Timing:
    timing = Timing(made, signal, "tight")
    warm_up = Timing(made, signal, "tight")
    steps = itertools.count()
    end = time.perf_counter() + seconds
    while len(warm_up.wall) < WARM_UP_STEPS and time.perf_counter() < end:
        warm_up.take(next(steps))
    end = time.perf_counter() + seconds
    while not timing.wall or time.perf_counter() < end:
        timing.take(next(steps))
    return timing


Built = Sequence[tuple[Stage, Signal]]


def _paced_rounds(built: Built) -> Iterator[Built]:
    """The first round has every stage on its best path, each further one those of another path."""
    order = list(dict.fromkeys(made.path for made, _ in built))
    first: dict[tuple[str, Signal], str] = {}
    for made, signal in built:
        first.setdefault((made.name, signal), made.path)
    yield [entry for entry in built if first[entry[0].name, entry[1]] == entry[0].path]
    for path in order:
        rest = [
            (made, signal)
            for made, signal in built
            if made.path == path and first[made.name, signal] != path
        ]
        if rest:
            yield rest


def _paced(members: Built, seconds: float) -> list[Timing]:
    timings = [Timing(made, signal, "paced") for made, signal in members]
    turns = itertools.cycle(timings)
    deadline = time.perf_counter()
    end = deadline + seconds
    while deadline < end or not all(timing.wall for timing in timings):
        began = time.perf_counter()
        for timing in itertools.islice(turns, len(timings)):
            timing.take(len(timing.wall))
            if time.perf_counter() - began > PACED_WORK:
                break
        deadline += FRAME_SECONDS
        wait = deadline - time.perf_counter()
        if wait > 0:
            time.sleep(wait)
        else:
            deadline -= wait
    return timings


@stage("opus.encode")
def _opus_encode(load: Workload) -> Iterator[Stage]:
    encoder = OpusEncoder(expected_loss=20)
    yield Stage("opus.encode", lambda i: encoder.encode(load.frames[load.at(i)]), "libopus")


@stage("opus.decode")
def _opus_decode(load: Workload) -> Iterator[Stage]:
    decoder = OpusDecoder()
    yield Stage("opus.decode", lambda i: decoder.decode(load.packets[load.at(i)]), "libopus")


@stage("opus.plc")
def _opus_plc(load: Workload) -> Iterator[Stage]:
    """Concealment of every second frame, so that there is speech to go on from."""
    decoder = OpusDecoder()
    yield Stage(
        "opus.plc",
        lambda _: decoder.conceal(),
        "libopus",
        prepare=lambda i: decoder.decode(load.packets[load.at(2 * i)]),
    )


@stage("features")
def _features(load: Workload) -> Iterator[Stage]:
    extractor = FeatureExtractor()
    yield Stage("features", lambda i: extractor.process(load.frames[load.at(i)]), "portable")


@stage("dred.encode")
def _dred_encode(load: Workload) -> Iterator[Stage]:
    encoder = DredEncoder()

    def step(i: int) -> None:
        encoder.push(load.frames[load.at(i)])
        encoder.payload(max_ms=1000, max_bytes=80)

    yield Stage("dred.encode", step, "onnxruntime")


def _dred_decode(load: Workload, name: str, vectors: int) -> Iterator[Stage]:
    decoder = DredDecoder()

    def step(i: int) -> None:
        redundancy = decoder.parse(load.packets[load.at(i)], load.at(i) * FRAME_TICKS)
        if redundancy is not None:
            redundancy.newest(vectors)

    yield Stage(name, step, "onnxruntime", per_20ms=False)


@stage("dred.decode_100ms")
def _dred_decode_100ms(load: Workload) -> Iterator[Stage]:
    return _dred_decode(load, "dred.decode_100ms", 10)


@stage("dred.decode_1000ms")
def _dred_decode_1000ms(load: Workload) -> Iterator[Stage]:
    return _dred_decode(load, "dred.decode_1000ms", 100)


@stage("plc.predict")
def _plc_predict(load: Workload) -> Iterator[Stage]:
    """Both vectors of a lost frame and the two it looks ahead."""
    predictor = FeaturePredictor()

    def step(_: int) -> None:
        predictor.tell_lost(2)
        predictor.foresee(2)

    def hear(i: int) -> None:
        first = 2 * load.at(i)
        predictor.tell(load.features[first : first + 2], RECEIVED if i % 4 else LOST)

    yield Stage("plc.predict", step, "onnxruntime", prepare=hear)


@stage("lpcnet.frame")
def _lpcnet_frame(load: Workload) -> Iterator[Stage]:
    """20 ms of sound, frame network included, on every path."""
    for path in paths():
        yield _speaking(load, path, LpcNet(path=path))


def _speaking(load: Workload, path: str, net: LpcNet) -> Stage:
    voice = Vocoder(net)
    hop = itertools.count(0, 2)

    def step(i: int) -> None:
        first = 2 * load.at(i)
        voice.describe(next(hop), load.features[first : first + 4])
        voice.speak(FRAME)

    return Stage("lpcnet.frame", step, path)


def _receiving(load: Workload, name: str, path: str, lost: int) -> Stage:
    """Frame number `lost` of a hole that was seen to come, as in a call."""
    concealer = Concealer(LpcNet(path=path))

    def hear(i: int) -> None:
        concealer.good(load.frames[load.at(2 * i)])
        concealer.expect_loss()
        for _ in range(lost - 1):
            concealer.conceal()

    return Stage(name, lambda _: concealer.conceal(), path, prepare=hear)


@stage("receive.good")
def _receive_good(load: Workload) -> Iterator[Stage]:
    """What an arrived frame costs beside decoding: features, prediction, background."""
    concealer = Concealer()
    yield Stage("receive.good", lambda i: concealer.good(load.frames[load.at(i)]), paths()[0])


@stage("receive.before_lost")
def _receive_before_lost(load: Workload) -> Iterator[Stage]:
    """Getting ready after a good frame: the vocoder follows what was heard."""
    for path in paths():
        yield _before_lost(load, path)


def _before_lost(load: Workload, path: str) -> Stage:
    concealer = Concealer(LpcNet(path=path))
    return Stage(
        "receive.before_lost",
        lambda _: concealer.expect_loss(),
        path,
        prepare=lambda i: concealer.good(load.frames[load.at(i)]),
    )


@stage("receive.first_lost")
def _receive_first_lost(load: Workload) -> Iterator[Stage]:
    """The vocoder has got ready for it in the frame before."""
    for path in paths():
        yield _receiving(load, "receive.first_lost", path, 1)


@stage("receive.next_lost")
def _receive_next_lost(load: Workload) -> Iterator[Stage]:
    for path in paths():
        yield _receiving(load, "receive.next_lost", path, 2)


def cpu_name() -> str:
    """The processor's name for people."""
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            key, _, value = line.partition(":")
            if key.strip() == "model name":
                return value.strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def bench_table(report: dict[str, Any]) -> Table:
    """The report for people: microseconds, and the share of real time that the mean takes."""
    table = Table(
        title=f"{report['cpu']} · {report['libopus']} · µs per step", title_justify="left"
    )
    for heading in ("stage", "path", "mode", "signal"):
        table.add_column(heading)
    for heading in ("mean", "p50", "p99", "p99.9", "thread p50", "of real time"):
        table.add_column(heading, justify="right")
    previous = ""
    for entry in report["stages"]:
        if previous and entry["mode"] != previous:
            table.add_section()
        previous = entry["mode"]
        table.add_row(
            entry["stage"],
            entry["path"],
            entry["mode"],
            entry["signal"],
            *(f"{entry[key]:.0f}" for key in FIGURES),
            "" if entry["rtf"] is None else f"{100 * entry['rtf']:.1f} %",
        )
    return table
