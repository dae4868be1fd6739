"""Turns a folder of recordings into a data set for training.

    python -m codec.training.prepare DIR --out OUT [--manifest TSV] [--copies N] [--seed S]
                                     [--valid-speakers K] [--jobs J]

OUT is described in `codec.training.dataset`. It is written under a temporary name beside OUT and
renamed when complete, so a folder named OUT is always whole. Equal arguments give equal data,
whatever the number of jobs.
"""

from __future__ import annotations

import argparse
import csv
import multiprocessing
import os
import shutil
import sys
import tempfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import av
import av.error
import numpy as np
import numpy.typing as npt

from codec.features import HOP, NUM_FEATURES, FeatureExtractor
from codec.training.augment import alter
from codec.training.dataset import FEATURES, INDEX, SIGNAL, Entry, Split, write_index

RATE = 16_000
AUDIO_SUFFIXES = frozenset({".wav", ".flac", ".opus", ".ogg", ".mp3", ".m4a", ".aiff", ".webm"})
LOG_EVERY = 100

T = TypeVar("T", int, float)

Pcm = npt.NDArray[np.int16]


class PrepareError(ValueError):
    """Input that no data set can be made of; the message names it."""


@dataclass(frozen=True, slots=True)
class Job:
    path: Path
    name: str
    copies: int
    seed: int


def audio_files(folder: Path) -> list[Path]:
    """All files below a folder that look like audio, in the order of their paths."""
    if not folder.is_dir():
        raise PrepareError(f"{folder} is not a folder")
    return sorted(p for p in folder.rglob("*") if p.suffix.lower() in AUDIO_SUFFIXES)


def decode(path: Path) -> Pcm:
    """A file as 16 kHz mono, cut to whole frames: int16 [160 * n], n possibly 0."""
    blocks: list[Pcm] = []
    try:
        with av.open(str(path)) as container:
            if not container.streams.audio:
                raise PrepareError(f"{path}: no audio in it")
            resampler = av.AudioResampler(format="s16", layout="mono", rate=RATE)
            for frame in container.decode(audio=0):
                blocks += [block.to_ndarray()[0] for block in resampler.resample(frame)]
            blocks += [block.to_ndarray()[0] for block in resampler.resample(None)]
    except av.error.FFmpegError as error:
        raise PrepareError(f"{path}: cannot be decoded ({error.strerror})") from None
    pcm = np.concatenate(blocks) if blocks else np.zeros(0, np.int16)
    return np.ascontiguousarray(pcm[: len(pcm) // HOP * HOP], dtype=np.int16)


def convert(job: Job) -> list[tuple[Pcm, npt.NDArray[np.float32]]]:
    """Signal and features of each copy of a file."""
    pcm = decode(job.path)
    copies = []
    for copy in range(job.copies):
        # Seeded by name, so that a file's copies do not depend on which others are there.
        rng = np.random.default_rng([job.seed, zlib.crc32(job.name.encode()), copy])
        altered = pcm if copy == 0 else alter(pcm, rng)
        copies.append((altered, FeatureExtractor().process(altered)))
    return copies


def read_speakers(manifest: Path) -> dict[str, str]:
    """Speaker by file name, from a tab-separated table with columns `file` and `speaker`."""
    try:
        with manifest.open(encoding="utf-8", newline="") as stream:
            table = csv.DictReader(stream, delimiter="\t", quoting=csv.QUOTE_NONE)
            missing = {"file", "speaker"} - set(table.fieldnames or ())
            if missing:
                raise PrepareError(f"{manifest}: no column {' or '.join(sorted(missing))}")
            return {row["file"]: row["speaker"] for row in table}
    except UnicodeDecodeError:
        raise PrepareError(f"{manifest} is not a text table") from None


def speaker_of(path: Path, folder: Path, speakers: dict[str, str] | None) -> str:
    if speakers is None:
        return path.parent.name
    name = path.relative_to(folder).as_posix()
    speaker = speakers.get(name) or speakers.get(path.name)
    if not speaker:
        raise PrepareError(f"{name} has no speaker in the manifest")
    return speaker


def choose_valid(speakers: set[str], amount: float, seed: int) -> frozenset[str]:
    """Validation speakers: `amount` of them if at least 1, else that fraction, drawn by seed.

    At least one speaker stays in the training split.
    """
    count = int(amount) if amount >= 1 else int(np.ceil(amount * len(speakers)))
    if amount > 0 and count >= len(speakers):
        raise PrepareError(f"{count} validation speakers asked for, {len(speakers)} in all")
    order = np.random.default_rng([seed, 0x5EED]).permutation(sorted(speakers))
    return frozenset(str(s) for s in order[:count])


def converted(jobs: list[Job], workers: int) -> Iterator[list[tuple[Pcm, npt.NDArray[np.float32]]]]:
    if workers == 1:
        yield from map(convert, jobs)
        return
    # Forking a process that runs FFmpeg threads can deadlock the child.
    with multiprocessing.get_context("spawn").Pool(workers) as pool:
        yield from pool.imap(convert, jobs, chunksize=4)


def write_npy(path: Path, raw: Path, dtype: type[np.generic], shape: tuple[int, ...]) -> None:
    """A .npy file of `shape` out of a file of bare values, which is removed."""
    with path.open("wb") as out, raw.open("rb") as values:
        header = {"descr": np.dtype(dtype).str, "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(out, header)
        shutil.copyfileobj(values, out, 1 << 20)
    raw.unlink()


def prepare(
    folder: Path,
    out: Path,
    *,
    manifest: Path | None = None,
    copies: int = 1,
    seed: int = 0,
    valid_speakers: float = 0.05,
    workers: int = 2,
) -> list[Entry]:
    """Makes the data set `out` of the recordings below `folder`; see the module for the arguments.

    Raises PrepareError, or OSError of the file system; nothing is left behind then.
    """
    if out.exists():
        raise PrepareError(f"{out} is there already")
    paths = audio_files(folder)
    if not paths:
        raise PrepareError(f"no audio files below {folder}")
    by_file = None if manifest is None else read_speakers(manifest)
    speakers = [speaker_of(path, folder, by_file) for path in paths]
    valid = choose_valid(set(speakers), valid_speakers, seed)
    jobs = [Job(path, path.relative_to(folder).as_posix(), copies, seed) for path in paths]

    out.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix=f".{out.name}-", dir=out.parent))
    try:
        entries: list[Entry] = []
        frames = 0
        with (scratch / "s.raw").open("wb") as signal, (scratch / "f.raw").open("wb") as features:
            for number, (job, speaker, made) in enumerate(
                zip(jobs, speakers, converted(jobs, workers), strict=True), start=1
            ):
                split: Split = "valid" if speaker in valid else "train"
                for copy, (pcm, vectors) in enumerate(made):
                    if len(vectors) == 0:
                        continue
                    signal.write(pcm.tobytes())
                    features.write(vectors.tobytes())
                    entries.append(Entry(job.name, speaker, split, copy, frames, len(vectors)))
                    frames += len(vectors)
                if number % LOG_EVERY == 0 or number == len(jobs):
                    hours = frames * HOP / RATE / 3600
                    print(f"{number}/{len(jobs)} files, {hours:.2f} h", flush=True)
        write_npy(scratch / SIGNAL, scratch / "s.raw", np.int16, (HOP * frames,))
        write_npy(scratch / FEATURES, scratch / "f.raw", np.float32, (frames, NUM_FEATURES))
        write_index(scratch / INDEX, entries)
        scratch.chmod(0o755)  # mkdtemp makes it private
        os.rename(scratch, out)
    except BaseException:
        shutil.rmtree(scratch, ignore_errors=True)
        raise
    return entries


def number(kind: type[T], low: float) -> Callable[[str], T]:
    """An argparse type: a finite number of a kind, from `low` up."""

    def parse(text: str) -> T:
        try:
            value = kind(text)
        except ValueError:
            value = None
        if value is None or not low <= value < 1e9:
            raise argparse.ArgumentTypeError(f"{text!r} is not {kind.__name__} from {low} up")
        return value

    return parse


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="prepare", description="Turn a folder of recordings into a data set for training."
    )
    parser.add_argument("folder", type=Path, metavar="DIR", help="recordings, searched recursively")
    parser.add_argument("--out", type=Path, required=True, help="folder to make")
    parser.add_argument(
        "--manifest",
        type=Path,
        help="table with columns file and speaker; else folders are speakers",
    )
    parser.add_argument(
        "--copies",
        type=number(int, 1),
        default=1,
        help="of each file; all but the first differ in level, colour and noise (default 1)",
    )
    parser.add_argument("--seed", type=number(int, 0), default=0)
    parser.add_argument(
        "--valid-speakers",
        type=number(float, 0),
        default=0.05,
        help="kept for validation: a number, or a fraction below 1 (default 0.05)",
    )
    parser.add_argument("--jobs", type=number(int, 1), default=2, help="processes (default 2)")
    options = parser.parse_args(argv)
    try:
        entries = prepare(
            options.folder,
            options.out,
            manifest=options.manifest,
            copies=options.copies,
            seed=options.seed,
            valid_speakers=options.valid_speakers,
            workers=options.jobs,
        )
    except (PrepareError, OSError) as error:
        print(f"prepare: {error}", file=sys.stderr)
        return 2
    for split in ("train", "valid"):
        part = [e for e in entries if e.split == split]
        hours = sum(e.frames for e in part) * HOP / RATE / 3600
        print(
            f"{split}: {len(part)} runs, {len({e.speaker for e in part})} speakers, {hours:.2f} h"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
