"""`dredcall simulate`: a file through a simulated call."""

from __future__ import annotations

import wave
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from app.audio.file import file_samples
from app.client import check_writable
from app.coding import load_models
from app.ledger import ledger_text
from app.options import UsageError
from app.report import CallReport
from app.session_ui import STDOUT, print_table
from app.simulation import Pcm, SimulationOptions, SimulationResult, simulate
from app.timeline import check_timeline, write_timeline
from app.whole_file import whole_file
from codec import SAMPLE_RATE
from codec.libopus import OpusUnavailable

MAX_SAMPLES = 4 * 3600 * SAMPLE_RATE
"""Four hours: 0.5 GB of sound in memory."""


@dataclass(frozen=True, slots=True)
class SimulateOutputs:
    """Where the result goes."""

    sound: Path
    align: bool = False
    json: str | None = None
    """A file, or `STDOUT`."""
    ledger: Path | None = None
    timeline: Path | None = None
    quiet: bool = False

    def check(self, source: Path) -> None:
        """Before the work, not after it. Raises UsageError; changes no file."""
        if self.sound.suffix.lower() != ".wav":
            raise UsageError(f"{self.sound} does not end in .wav")
        if self.timeline:
            check_timeline(self.timeline)
        files = {"OUT.wav": self.sound, "--ledger": self.ledger, "--timeline": self.timeline}
        if self.json is not None and self.json != STDOUT:
            files["--json"] = Path(self.json)
        taken = {source.resolve(): "IN"}
        for flag, path in files.items():
            if path is None:
                continue
            check_writable(flag, path)
            if path.resolve() in taken:
                raise UsageError(f"{flag}: {path} is {taken[path.resolve()]} as well")
            taken[path.resolve()] = flag


def run_simulate(source: Path, options: SimulationOptions, outputs: SimulateOutputs) -> int:
    """Simulates and writes; exit status.

    Raises UsageError, AudioError or NetemError for input that will not do, and leaves no file that
    is not whole.
    """
    outputs.check(source)
    try:
        load_models(options.call)
    except OpusUnavailable as error:
        if options.call.libopus is None:
            raise
        raise UsageError(f"--libopus: {error}") from None
    result = simulate(file_samples(source, most=MAX_SAMPLES), options)
    sound = result.aligned if outputs.align else result.heard
    _write("OUT.wav", outputs.sound, lambda file: _write_wav(file, sound))
    if outputs.ledger:
        _write_text("--ledger", outputs.ledger, ledger_text(result.ledger))
    if outputs.timeline:
        write_timeline(outputs.timeline, result.timeline, _title(source, result.report))
    _report(result, outputs)
    return 0


def _title(source: Path, report: CallReport) -> str:
    parts = (source.name, report.recovery, report.netem, report.loss_trace)
    return ", ".join(part for part in parts if part)


def _report(result: SimulationResult, outputs: SimulateOutputs) -> None:
    if outputs.json == STDOUT:
        print(result.report.to_json(), flush=True)
    elif outputs.json is not None:
        _write_text("--json", Path(outputs.json), result.report.to_json(indent=2) + "\n")
    elif not outputs.quiet:
        print_table(result.report.table())


def _write(flag: str, path: Path, write: Callable[[BinaryIO], object]) -> None:
    try:
        with whole_file(path) as file:
            write(file)
    except OSError as error:
        raise UsageError(f"{flag}: {path}: {error.strerror}") from None


def _write_text(flag: str, path: Path, text: str) -> None:
    _write(flag, path, lambda file: file.write(text.encode()))


def _write_wav(file: BinaryIO, pcm: Pcm) -> None:
    with wave.open(file, "wb") as sound:
        sound.setnchannels(1)
        sound.setsampwidth(2)
        sound.setframerate(SAMPLE_RATE)
        sound.writeframes(pcm.tobytes())
