"""The per-frame ledger: for every frame played, where it came from and how late it was."""

from __future__ import annotations

import contextlib
import csv
import io
from collections import deque
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple, TextIO

from app.options import UsageError
from codec.frame import FrameSource, HoleAction

FIELDS = (
    "playout_s",
    "timestamp",
    "source",
    "wait_ms",
    "decode_us",
    "delay_ms",
    "action",
    "stretch_ms",
    "margin_ms",
)


class LedgerEntry(NamedTuple):
    """One frame of playout. Times that are not known are None."""

    playout_s: float
    """Seconds since the first frame of playout."""
    timestamp: int
    """Extended RTP timestamp, 48 kHz."""
    source: FrameSource
    wait_ms: float | None
    """From the arrival of the packet the frame was decoded from to its playout."""
    decode_us: float
    delay_ms: float | None
    """From capture of the frame's first sample at the peer to its playout here."""
    action: HoleAction = HoleAction.NONE
    """What was done about time in a hole."""
    stretch_ms: float = 0.0
    """Sound put in (> 0) or left out (< 0) by time stretching since the frame before began."""
    margin_ms: float = 0.0
    """From when the 20 ms that it begins in were ready until they were due: late if below 0."""


class Ledger:
    """Entries of the last moments, written to a CSV file if a path is given.

    `add` runs on the playout thread and only appends; `flush` runs on another thread and writes.
    A writer that stalls for a minute loses the oldest entries, never playout.
    """

    def __init__(self, path: Path | None = None) -> None:
        """Raises UsageError if the file cannot be made."""
        self.error: str | None = None
        """Why nothing more is written, if so: a full disk must not end a call."""
        self._path = path
        self._pending: deque[LedgerEntry] = deque(maxlen=3000)
        self._file: TextIO | None = None
        if path:
            try:
                self._file = path.open("w", newline="")
            except OSError as error:
                raise UsageError(f"--ledger: {path}: {error.strerror}") from None
            csv.writer(self._file).writerow(FIELDS)

    @property
    def is_kept(self) -> bool:
        """Whether entries go anywhere."""
        return self._file is not None

    def add(self, entry: LedgerEntry) -> None:
        if self._file:
            self._pending.append(entry)

    def flush(self) -> None:
        if self._file:
            try:
                self._write(self._file)
            except OSError as error:
                self._give_up(error)

    def close(self) -> None:
        self.flush()
        if self._file:
            try:
                self._file.close()
            except OSError as error:
                self._give_up(error)
            self._file = None

    def _write(self, file: TextIO) -> None:
        writer = csv.writer(file)
        while self._pending:
            writer.writerow(_row(self._pending.popleft()))
        file.flush()

    def _give_up(self, error: OSError) -> None:
        self.error = f"the ledger {self._path} ended: {error.strerror}"
        file, self._file = self._file, None
        if file:
            with contextlib.suppress(OSError):  # what is buffered has nowhere to go
                file.close()


def ledger_text(entries: Iterable[LedgerEntry]) -> str:
    """The file that a `Ledger` would have written."""
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    writer.writerow(FIELDS)
    writer.writerows(map(_row, entries))
    return text.getvalue()


def read_ledger(path: Path) -> Iterator[LedgerEntry]:
    """The entries of a file written by `Ledger`. Raises ValueError on a file that is not one."""
    with path.open(newline="") as file:
        rows = csv.DictReader(file)
        if tuple(rows.fieldnames or ()) != FIELDS:
            raise ValueError(f"{path} is not a ledger")
        for row in rows:
            yield LedgerEntry(
                float(row["playout_s"]),
                int(row["timestamp"]),
                FrameSource(row["source"]),
                _number(row["wait_ms"]),
                float(row["decode_us"]),
                _number(row["delay_ms"]),
                HoleAction(row["action"]),
                float(row["stretch_ms"]),
                float(row["margin_ms"]),
            )


def _row(entry: LedgerEntry) -> tuple[str, ...]:
    return (
        f"{entry.playout_s:.3f}",
        str(entry.timestamp),
        entry.source.value,
        _rounded(entry.wait_ms),
        f"{entry.decode_us:.0f}",
        _rounded(entry.delay_ms),
        entry.action.value,
        _rounded(entry.stretch_ms),
        _rounded(entry.margin_ms),
    )


def _rounded(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"


def _number(text: str) -> float | None:
    return float(text) if text else None
