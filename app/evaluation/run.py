"""All cells of an evaluation: planned, measured in parallel, remembered."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from app.evaluation.cell import Cell, Clip, Row, measure, with_buffer
from app.evaluation.conditions import CONDITIONS, IDEAL, Condition
from app.evaluation.metrics import DEFAULT, MetricsError, checked
from app.evaluation.networks import NO_NETWORK, NOTHING, Networks
from app.evaluation.rows import RowStore, fingerprint
from app.evaluation.words import transcript_of
from app.options import UsageError

AUDIO_SUFFIXES = frozenset({".flac", ".wav", ".opus", ".ogg", ".mp3", ".m4a", ".aac", ".webm"})
BUFFERS = (IDEAL, "balanced")
ROWS_FILE = "rows.jsonl"


@dataclass(frozen=True, slots=True)
class Evaluation:
    """What is to be measured. Raises UsageError or NetemError for what cannot be."""

    clips: Sequence[Clip]
    networks: Networks
    conditions: Sequence[Condition] = CONDITIONS
    buffers: Sequence[str] = BUFFERS
    """The first is the one of comparisons."""
    metrics: Sequence[str] = DEFAULT
    seed: int = 0

    def __post_init__(self) -> None:
        if not self.clips:
            raise UsageError("--clips: there are no clips")
        checked(self.metrics)
        for buffer in self.buffers:
            with_buffer(self.conditions[0].call(0), buffer)

    def cells(self) -> Iterator[Cell]:
        """Every condition, clip, network and buffer; what has no network meets none.

        Networks that every clip meets are for curves, and met with the first buffer only.
        """
        for clip in self.clips:
            samples = len(clip.pcm)
            for condition in self.conditions:
                networks = (
                    [NOTHING] if condition.lossless else self.networks.met_by(clip.number, samples)
                )
                for network in networks:
                    all_buffers = network.paired and network.name != NO_NETWORK
                    for buffer in self.buffers if all_buffers else self.buffers[:1]:
                        yield Cell(clip, condition, buffer, network, self.metrics, self.seed)


def clips_in(paths: Sequence[Path], every: int = 1) -> list[Clip]:
    """Files, and those in folders, by name; every so many-th, its number that among all.

    Raises UsageError.
    """
    files: list[Path] = []
    for path in paths:
        if path.is_dir():
            inside = (file for file in path.iterdir() if file.suffix.lower() in AUDIO_SUFFIXES)
            files += sorted(inside)
        elif path.is_file():
            files.append(path)
        else:
            raise UsageError(f"--clips: {path} is no file or folder")
    if len({file.name for file in files}) < len(files):
        raise UsageError("--clips: two files have the same name")
    return [
        Clip(path, number, path.name, text=transcript_of(path))
        for number, path in list(enumerate(files))[::every]
    ]


Progress = Callable[[int, int, int], None]
"""Cells done, of all, and of those done the ones that were known before."""


def run_cells(
    evaluation: Evaluation, out: Path, *, jobs: int | None = None, progress: Progress | None = None
) -> list[Row]:
    """The rows of all cells in their order; those that `out` already holds are not made again.

    `jobs` processes, as many as there are processors unless given. An exception, KeyboardInterrupt
    among them, leaves what was made. Raises UsageError, MetricsError, OSError and the errors of
    models.
    """
    _check_packages(evaluation)
    program = fingerprint()
    cells = {cell.key(program): cell for cell in evaluation.cells()}
    store = RowStore(out / ROWS_FILE)
    try:
        missing = {key: cell for key, cell in cells.items() if store.get(key) is None}
        known = len(cells) - len(missing)
        for done, (key, row) in enumerate(_measured(missing, jobs or os.cpu_count() or 1)):
            store.add(key, row)
            if progress:
                progress(known + done + 1, len(cells), known)
        rows = [store.get(key) for key in cells]
    finally:
        store.close()
    return [row for row in rows if row is not None]


def _check_packages(evaluation: Evaluation) -> None:
    """Raises MetricsError before any work is done that would be for nothing."""
    from app.evaluation.metrics import Metrics
    from app.evaluation.words import word_error_rate

    try:
        import joblib  # noqa: F401
    except ImportError:
        raise MetricsError(
            "evaluating needs the package joblib: pip install 'dredcall[eval]'"
        ) from None
    Metrics(evaluation.metrics)
    if any(clip.text is not None for clip in evaluation.clips):
        word_error_rate("word", evaluation.clips[0].pcm[:1600])


def _measured(cells: dict[str, Cell], jobs: int) -> Iterator[tuple[str, Row]]:
    if jobs == 1 or len(cells) < 2:
        yield from map(_keyed, cells.items())
        return
    from joblib import Parallel, delayed

    pool: Any = Parallel(
        n_jobs=min(jobs, len(cells)), return_as="generator_unordered", batch_size=1
    )
    yield from pool(delayed(_keyed)(item) for item in cells.items())


def _keyed(item: tuple[str, Cell]) -> tuple[str, Row]:
    key, cell = item
    return key, measure(cell)
