"""A prepared data set: memory-mapped signal and features, and the index of what lies where.

A folder made by `codec.training.prepare` holds

* `signal.npy`, int16 [160 * frames]: all files one after another, cut to whole 10 ms frames;
* `features.npy`, float32 [frames, 20]: row k was computed with hop [160k, 160k + 160) as the newest
  (the synthesis frame that goes with it starts 80 samples earlier, see `codec.features`); the
  extractor starts afresh with each file;
* `index.tsv`: file, speaker, split, copy, first_frame, frames.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt

from codec.features import HOP, NUM_FEATURES

SIGNAL = "signal.npy"
FEATURES = "features.npy"
INDEX = "index.tsv"

Split = Literal["train", "valid"]


@dataclass(frozen=True, slots=True)
class Entry:
    """One copy of one file: frames [first_frame, first_frame + frames)."""

    file: str
    speaker: str
    split: Split
    copy: int
    first_frame: int
    frames: int


COLUMNS = tuple(f.name for f in fields(Entry))


@dataclass(frozen=True, slots=True)
class Dataset:
    """Opened with `Dataset.open`; the arrays are read-only memory maps."""

    signal: npt.NDArray[np.int16]
    features: npt.NDArray[np.float32]
    entries: tuple[Entry, ...]

    @classmethod
    def open(cls, folder: Path) -> Dataset:
        """Raises ValueError if the folder is no data set or its parts disagree."""
        try:
            signal = np.load(folder / SIGNAL, mmap_mode="r")
            features = np.load(folder / FEATURES, mmap_mode="r")
            entries = tuple(read_index(folder / INDEX))
        except FileNotFoundError as error:
            raise ValueError(f"{folder} is no data set: {error.filename} is missing") from None
        if features.ndim != 2 or features.shape[1] != NUM_FEATURES:
            raise ValueError(
                f"{folder / FEATURES}: shape {features.shape}, not [n, {NUM_FEATURES}]"
            )
        if signal.shape != (HOP * len(features),):
            raise ValueError(f"{folder}: {len(signal)} samples for {len(features)} frames of {HOP}")
        if entries and max(e.first_frame + e.frames for e in entries) > len(features):
            raise ValueError(f"{folder / INDEX} points past the last of {len(features)} frames")
        return cls(signal, features, entries)

    def runs(self, split: Split, *, copies: Iterable[int] | None = None) -> list[tuple[int, int]]:
        """(first_frame, frames) of each file of a split, in storage order.

        A run never crosses a file border. `copies` restricts to those; 0 is the unaltered one.
        """
        wanted = None if copies is None else frozenset(copies)
        return [
            (e.first_frame, e.frames)
            for e in self.entries
            if e.split == split and (wanted is None or e.copy in wanted)
        ]


def read_index(path: Path) -> list[Entry]:
    """Entries of an index.tsv. Raises ValueError naming the line that is wrong."""
    header, *lines = path.read_text(encoding="utf-8").splitlines() or [""]
    if tuple(header.split("\t")) != COLUMNS:
        raise ValueError(f"{path}: the columns are not {', '.join(COLUMNS)}")
    entries = []
    for number, line in enumerate(lines, start=2):
        try:
            file, speaker, split, copy, first_frame, frames = line.split("\t")
            if split not in ("train", "valid"):
                raise ValueError
            entry = Entry(file, speaker, split, int(copy), int(first_frame), int(frames))  # type: ignore[arg-type]
            if min(entry.copy, entry.first_frame, entry.frames) < 0:
                raise ValueError
        except ValueError:
            raise ValueError(f"{path}, line {number}: malformed entry {line!r}") from None
        entries.append(entry)
    return entries


def write_index(path: Path, entries: Iterable[Entry]) -> None:
    """Writes what `read_index` reads."""
    rows = ("\t".join(str(getattr(e, c)) for c in COLUMNS) for e in entries)
    path.write_text("\n".join(("\t".join(COLUMNS), *rows)) + "\n", encoding="utf-8")
