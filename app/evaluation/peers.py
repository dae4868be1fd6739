"""Tables of other systems on the same clips and traces, set beside ours pair by pair.

CSV with the columns `clip`, `trace` (CLASS/NUMBER, `-` without loss), `mode` and any of our
measures.
A table of our own, from an earlier run, is one too.
"""

from __future__ import annotations

import csv
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import isfinite
from pathlib import Path

from app.evaluation.cell import Row
from app.evaluation.conditions import IDEAL
from app.evaluation.networks import NO_NETWORK
from app.evaluation.statistics import Mean, bootstrap_mean, number
from app.options import UsageError

COLUMNS = {"clip", "trace", "mode"}
MEASURES = ("plcmos", "dnsmos", "pesq", "estoi", "hole_estoi")

LIBOPUS = {
    "none": "none",
    "opus-plc": "plc",
    "plc": "deepplc",
    "lbrr": "lbrr",
    "dred": "dred",
    "lbrr+dred": "lbrr+dred",
}
"""Our condition: libopus's mode of the same kind, in tables that have its `deepplc`."""


@dataclass(frozen=True, slots=True)
class Peer:
    """Somebody else's results."""

    name: str
    rows: Mapping[tuple[str, str, str], Mapping[str, str]]
    """By clip, trace and mode."""
    modes: Mapping[str, str]
    """Our condition: theirs."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """One measure of one condition on one class of traces: ours, theirs and the difference."""

    peer: str
    kind: str
    """Class of traces, `all` of them, or `-` without loss."""
    ours: str
    theirs: str
    measure: str
    our_mean: float
    their_mean: float
    difference: Mean
    """Ours less theirs, paired."""
    our_kbps: float
    their_kbps: float

    def as_dict(self) -> dict[str, str | int | float | None]:
        """Flat, for CSV and JSON."""
        d = self.difference
        figures = {
            "ours": self.our_mean,
            "theirs": self.their_mean,
            "difference": d.value,
            "difference_low": d.low,
            "difference_high": d.high,
            "our_kbps": self.our_kbps,
            "their_kbps": self.their_kbps,
        }
        return {
            "peer": self.peer,
            "class": self.kind,
            "mode": self.ours,
            "their_mode": self.theirs,
            "measure": self.measure,
            "pairs": d.count,
            **{name: round(v, 4) if isfinite(v) else None for name, v in figures.items()},
        }


def read_peer(path: Path) -> Peer:
    """Raises UsageError if the file is no such table."""
    try:
        with path.open(newline="") as file:
            reader = csv.DictReader(file)
            missing = COLUMNS - set(reader.fieldnames or ())
            if missing:
                raise UsageError(f"--peers: {path} has no column '{min(missing)}'")
            rows = [row for row in reader if row.get("buffer") in (None, IDEAL)]
    except OSError as error:
        raise UsageError(f"--peers: {path}: {error.strerror}") from None
    except (csv.Error, UnicodeDecodeError) as error:
        raise UsageError(f"--peers: {path} is no CSV: {error}") from None
    theirs = {row["mode"] for row in rows}
    modes = LIBOPUS if "deepplc" in theirs else {mode: mode for mode in theirs}
    keyed = {(row["clip"], row["trace"], row["mode"]): row for row in rows}
    return Peer(path.stem, keyed, modes)


def compare(
    ours: Iterable[Row], peer: Peer, measures: Sequence[str] = MEASURES
) -> list[Comparison]:
    """Every condition in every class of traces, and in `all` of several, by each common measure.

    Only rows of the ideal buffer: that is what tables of codecs without one are made with.
    """
    pairs: dict[tuple[str, str, str], list[tuple[Row, Mapping[str, str]]]] = defaultdict(list)
    ours = list(ours)
    lossy = {str(row["class"]) for row in ours} - {NO_NETWORK}
    for row in ours:
        mode = str(row["mode"])
        match = peer.rows.get((str(row["clip"]), str(row["trace"]), peer.modes.get(mode, "")))
        if match is None or row["buffer"] != IDEAL:
            continue
        kind = str(row["class"])
        for name in (kind, "all") if kind in lossy and len(lossy) > 1 else (kind,):
            for measure in measures:
                if isfinite(number(row, measure)) and isfinite(number(match, measure)):
                    pairs[name, mode, measure].append((row, match))
    found = [
        _comparison(peer, kind, mode, measure, members)
        for (kind, mode, measure), members in pairs.items()
    ]
    kinds = sorted(dict.fromkeys(c.kind for c in found), key=lambda kind: kind == "all")
    return sorted(found, key=lambda c: kinds.index(c.kind))


def _comparison(
    peer: Peer, kind: str, mode: str, measure: str, pairs: list[tuple[Row, Mapping[str, str]]]
) -> Comparison:
    def mean(values: Iterable[float]) -> float:
        return sum(listed := list(values)) / len(listed)

    return Comparison(
        peer=peer.name,
        kind=kind,
        ours=mode,
        theirs=peer.modes[mode],
        measure=measure,
        our_mean=mean(number(row, measure) for row, _ in pairs),
        their_mean=mean(number(match, measure) for _, match in pairs),
        difference=bootstrap_mean(
            [
                (str(row["clip"]), number(row, measure) - number(match, measure))
                for row, match in pairs
            ]
        ),
        our_kbps=mean(number(row, "kbps") for row, _ in pairs),
        their_kbps=mean(number(match, "kbps") for _, match in pairs),
    )
