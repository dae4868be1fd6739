"""`dredcall evaluate`: from the command line to rows, tables and the report."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from app.evaluation.cell import Row
from app.evaluation.charts import Charts
from app.evaluation.conditions import IDEAL
from app.evaluation.listening import examples
from app.evaluation.page import Report
from app.evaluation.peers import Comparison, Peer, compare
from app.evaluation.run import Evaluation, run_cells
from app.evaluation.summary import (
    Line,
    comparison_table,
    csv_text,
    summarise,
    summary_table,
)
from app.options import UsageError
from app.report import installed_version
from codec.libopus import load_libopus


@dataclass(frozen=True, slots=True)
class EvaluationResult:
    """What was measured and what it comes to."""

    rows: Sequence[Row]
    lines: Sequence[Line]
    comparisons: Sequence[Comparison]


def evaluate(
    evaluation: Evaluation,
    out: Path,
    *,
    peers: Sequence[Peer] = (),
    jobs: int | None = None,
    quiet: bool = False,
) -> EvaluationResult:
    """Measures what `out` does not hold yet, and writes there

    `results.csv` (a row per cell), `summary.csv`, `comparison.csv` (with peers), `results.json` and
    `report.html`. Raises UsageError, NetemError, AudioError, MetricsError, OSError and the errors
    of models.
    """
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"--out: {out}: {error.strerror}") from None
    rows = _measured(evaluation, out, jobs, quiet)
    shown = [{name: v for name, v in row.items() if name != "frames"} for row in rows]
    lines = summarise(rows)
    comparisons = [c for peer in peers for c in compare(rows, peer)]
    (out / "results.csv").write_text(csv_text(shown))
    (out / "summary.csv").write_text(csv_text([line.as_dict() for line in lines]))
    if comparisons:
        (out / "comparison.csv").write_text(csv_text([c.as_dict() for c in comparisons]))
    settings = dict(_facts(evaluation, rows))
    result = {
        "settings": settings,
        "summary": [line.as_dict() for line in lines],
        "comparison": [c.as_dict() for c in comparisons],
        "rows": shown,
    }
    (out / "results.json").write_text(json.dumps(result, indent=1) + "\n")
    (out / "report.html").write_text(_report(evaluation, rows, lines, comparisons).html())
    return EvaluationResult(rows, lines, comparisons)


def print_result(evaluation: Evaluation, result: EvaluationResult, out: Path) -> None:
    """The tables, and where the rest lies."""
    labels = _labels(evaluation)
    console = Console(width=None if sys.stdout.isatty() else 200)
    console.print(summary_table(result.lines, labels))
    if result.comparisons:
        console.print()
        console.print(comparison_table(result.comparisons, labels))
    print(f"report: {out / 'report.html'}")


def _measured(evaluation: Evaluation, out: Path, jobs: int | None, quiet: bool) -> list[Row]:
    console = Console(stderr=True)
    columns = (
        TextColumn("measuring"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[note]}"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, disable=quiet or not console.is_terminal) as progress:
        task = progress.add_task("", total=None, note="")
        said = 0

        def advance(done: int, total: int, known: int) -> None:
            nonlocal said
            note = f"{known} known from before" if known else ""
            progress.update(task, completed=done, total=total, note=note)
            tenth = 10 * done // total
            if not quiet and not console.is_terminal and tenth > said:
                said = tenth
                print(f"dredcall: {done} of {total} measured", file=sys.stderr, flush=True)

        return run_cells(evaluation, out, jobs=jobs, progress=advance)


def _labels(evaluation: Evaluation) -> dict[str, str]:
    return {condition.name: condition.label for condition in evaluation.conditions}


def _facts(evaluation: Evaluation, rows: Sequence[Row]) -> list[tuple[str, str]]:
    seconds = sum(len(clip.pcm) for clip in evaluation.clips) / 16_000
    kinds = dict.fromkeys(str(row["class"]) for row in rows)
    return [
        ("program", f"dredcall {installed_version()}, {load_libopus(None).version}"),
        ("clips", f"{len(evaluation.clips)}, {seconds:.0f} s of speech in all"),
        ("networks", ", ".join(kind for kind in kinds if kind != "-")),
        ("buffers", ", ".join(evaluation.buffers)),
        ("measures", ", ".join(evaluation.metrics)),
        ("cells", f"{len(rows)}, seed {evaluation.seed}"),
    ]


def _report(
    evaluation: Evaluation,
    rows: Sequence[Row],
    lines: Sequence[Line],
    comparisons: Sequence[Comparison],
) -> Report:
    labels = _labels(evaluation)
    charts = Charts(rows, labels)
    first = evaluation.buffers[0]
    with_first = "an ideal buffer" if first == IDEAL else f"the buffer {first}"
    figures = [
        ("By condition", "Bars: the mean and its interval; beside them what it costs. Diamonds:"
         " others' figures on the same clips and traces.", charts.bars(comparisons)),
        ("Against the share of packets lost", f"With {with_first}. Right: what lies within"
         " 320 ms of a loss.", charts.against_loss()),
        ("Against the length of holes", f"Four lone holes in each clip, with {with_first}.",
         charts.against_burst()),
        ("Against delay", "Each point is a buffer. Dotted: the same recovery with an ideal buffer.",
         charts.against_delay()),
        ("Against what redundancy costs", f"With {with_first}.", charts.against_bitrate()),
    ]  # fmt: skip
    heard = (
        examples(list(evaluation.cells()), rows, charts.score) if charts.score is not None else []
    )
    return Report(
        labels,
        lines,
        [(title, caption, svg) for title, caption, svg in figures if svg],
        comparisons,
        heard,
        _facts(evaluation, rows),
    )
