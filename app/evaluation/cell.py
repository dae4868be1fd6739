"""One cell of an evaluation: a clip, a condition, a buffer and a network; what comes of it."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path

import numpy as np
import numpy.typing as npt

from app.arrivals import load_arrivals
from app.audio.file import file_frames
from app.evaluation.conditions import IDEAL, Condition
from app.evaluation.metrics import Metrics, estoi_near_losses
from app.evaluation.networks import Network, lookahead
from app.evaluation.words import word_error_rate
from app.netem import LossTrace, derive_seed, parse_netem
from app.options import CallOptions, Impairment, UsageError, parse_buffer
from app.simulation import SimulationOptions, SimulationResult, simulate
from codec import FRAME, SAMPLE_RATE
from codec.frame import FrameSource
from jitterbuffer.latency import Latency

Pcm = npt.NDArray[np.int16]
Row = dict[str, str | int | float | None]
"""One line of the results; None where there is nothing to say."""

LETTERS = {
    FrameSource.PACKET: ".",
    FrameSource.RED: "R",
    FrameSource.LBRR: "L",
    FrameSource.DRED: "D",
    FrameSource.PLC: "p",
    FrameSource.SILENCE: "_",
}
"""How frames are written down in a row, one after the other."""

REDUNDANCY = (FrameSource.RED, FrameSource.LBRR, FrameSource.DRED)


@dataclass(frozen=True, slots=True)
class Clip:
    """Speech, all of a file or a part of it."""

    path: Path
    number: int
    """In the order of names, from 0."""
    name: str
    begin: float = 0.0
    """Seconds."""
    end: float = math.inf
    text: str | None = field(default=None, repr=False)
    """What is said in it."""

    @property
    def pcm(self) -> Pcm:
        """int16 [n] at 16 kHz. Raises AudioError."""
        return _samples(self.path, self.begin, self.end)


@lru_cache(maxsize=4)
def _samples(path: Path, begin: float, end: float) -> Pcm:
    pcm = np.concatenate(list(file_frames(path)))
    first = round(begin * SAMPLE_RATE)
    return pcm[first:] if math.isinf(end) else pcm[first : round(end * SAMPLE_RATE)]


@dataclass(frozen=True, slots=True)
class Cell:
    clip: Clip
    condition: Condition
    buffer: str
    """`ideal`, or a jitter buffer as a call takes it."""
    network: Network
    metrics: Sequence[str]
    seed: int

    def key(self, fingerprint: str) -> str:
        """A hash of all that its row depends on; `fingerprint` stands for the program."""
        pcm = hashlib.sha256(self.clip.pcm.tobytes()).hexdigest()
        parts = [
            fingerprint,
            self.clip.name,
            pcm,
            self.clip.text,
            repr(replace(self.condition, label="")),
            self.buffer,
            self.network.name,
            self.network.digest(),
            list(self.metrics),
            self.seed,
        ]
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()

    def hear(self) -> SimulationResult:
        """Raises UsageError, NetemError, ArrivalsError, AudioError and the errors of models."""
        network = self.network
        seed = derive_seed(self.seed, self.clip.name, network.name) % 2**63
        call = with_buffer(self.condition.call(seed), self.buffer)
        if network.netem:
            call = replace(call, outbound=Impairment(netem=parse_netem(network.netem)))
        return simulate(
            self.clip.pcm,
            SimulationOptions(
                call,
                ideal=self.buffer == IDEAL,
                loss_trace=None if network.losses is None else LossTrace(network.losses),
                arrivals=load_arrivals(network.arrivals) if network.arrivals else None,
            ),
        )


def with_buffer(call: CallOptions, buffer: str) -> CallOptions:
    """`ideal`, a latency policy's name, or `fixed:MS`. Raises UsageError for any other."""
    if buffer == IDEAL:
        return call
    if buffer in tuple(Latency):
        return replace(call, latency=Latency(buffer))
    if buffer.startswith("fixed:"):
        return replace(call, buffer_ms=parse_buffer(buffer))
    names = ", ".join((IDEAL, *Latency))
    raise UsageError(f"--buffers: no '{buffer}' among {names}, fixed:MS")


def frame_letters(result: SimulationResult) -> str:
    """How each frame of the source was heard, in its order; `_` where it was not."""
    letters: dict[int, str] = {}
    for frame in result.frames:
        if frame.number is not None:
            letters[frame.number] = LETTERS[frame.source]
    return "".join(letters.get(n, "_") for n in range(max(letters, default=-1) + 1))


def lost_frames(result: SimulationResult) -> npt.NDArray[np.bool_]:
    """bool, per frame of the source: whether its own packet never came."""
    numbers = [frame.number for frame in result.frames if frame.number is not None]
    lost = np.ones(max(numbers, default=-1) + 1, bool)
    for frame in result.frames:
        if frame.number is not None and frame.own_arrival is not None:
            lost[frame.number] = False
    return lost


def played_speech(result: SimulationResult) -> Pcm:
    """What a listener hears from the first frame of the source on, int16 [n].

    The encoder's look-ahead is left out, as it is in aligned sound.
    """
    # silence before it is played frame by frame, and not stretched
    before = next((i for i, frame in enumerate(result.frames) if frame.number is not None), 0)
    return result.heard[FRAME * before + lookahead() :]


def measure(cell: Cell) -> Row:
    """The row of a cell. Raises as `Cell.hear` does, MetricsError for a missing package."""
    clip = cell.clip.pcm
    result = cell.hear()
    report, heard = result.report, result.aligned
    # an ideal buffer keeps time: nothing is put in or left out
    played = heard if cell.buffer == IDEAL else played_speech(result)
    sent, received = report.outbound.packetsSent, report.inbound.packetsReceived
    letters = frame_letters(result)
    rebuilt = sum(letters.count(LETTERS[source]) for source in REDUNDANCY)
    missing = len(letters) - letters.count(LETTERS[FrameSource.PACKET])
    bitrate, delay = report.sent_bitrate, report.delay
    row: Row = {
        "clip": cell.clip.name,
        "trace": cell.network.name,
        "class": cell.network.kind,
        "mode": cell.condition.name,
        "buffer": cell.buffer,
        "kbps": _round(bitrate.total / 1e3 if bitrate else None, 1),
        "opus_kbps": _round(bitrate.opus / 1e3 if bitrate else None, 1),
        "dred_kbps": _round(bitrate.dred / 1e3 if bitrate else None, 1),
        "red_kbps": _round(bitrate.red / 1e3 if bitrate else None, 1),
        "lost": _round(max(0.0, 1 - received / sent) if sent else None),
        "pkt": letters.count(LETTERS[FrameSource.PACKET]),
    }
    for source in FrameSource:
        if source is not FrameSource.PACKET:
            row[source.value] = letters.count(LETTERS[source])
    row["recovered"] = _round(rebuilt / missing if missing else None)
    row["delay_p50_ms"] = _milliseconds(delay.p50 if delay else None)
    row["delay_p95_ms"] = _milliseconds(delay.p95 if delay else None)
    figures = Metrics(cell.metrics)(clip, heard, played)
    row |= {name: _round(value) for name, value in figures.items()}
    if "estoi" in figures:
        near = estoi_near_losses(clip, heard, lost_frames(result), lookahead())
        row["hole_estoi"] = _round(near)
    if cell.clip.text is not None:
        row["wer"] = _round(word_error_rate(cell.clip.text, played))
    row["frames"] = letters
    return row


def _round(value: float | None, places: int = 4) -> float | None:
    return None if value is None or not math.isfinite(value) else round(float(value), places)


def _milliseconds(seconds: float | None) -> float | None:
    return None if seconds is None else _round(1e3 * seconds, 1)
