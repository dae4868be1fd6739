"""Rows on disk: what an interrupted evaluation need not do again."""

from __future__ import annotations

import hashlib
import json
from functools import cache
from importlib import metadata
from pathlib import Path

from app.evaluation.cell import Row
from app.options import UsageError
from codec.libopus import load_libopus

PACKAGES = ("numpy", "onnxruntime", "speechmos", "pesq", "pystoi", "pocketsphinx")
"""Besides the program itself, what figures depend on."""

_ROOT = Path(__file__).parents[2]
_APP = (
    "coding.py",
    "evaluation/cell.py",
    "evaluation/conditions.py",
    "evaluation/metrics.py",
    "evaluation/networks.py",
    "evaluation/words.py",
    "net/**/*.py",
    "netem/**/*.py",
    "playout.py",
    "reception.py",
    "redundancy.py",
    "sender.py",
    "simulation.py",
    "virtual_network.py",
)
_SOURCES = (
    *(f"app/{name}" for name in _APP),
    "codec/*.py",
    "codec/models/*.npz",
    "codec/models/*.onnx",
    "codec/training/metrics.py",
    "codec_ext/*.so",
    "codec_ext/*.pyd",
    "jitterbuffer/*.py",
)


@cache
def fingerprint() -> str:
    """A hash of the program, its models and the packages that measure. Raises OSError, OpusError.

    Rows made by another program are made again. What changes on disk while this one runs is not
    what it runs.
    """
    digest = hashlib.sha256()
    for pattern in _SOURCES:
        for path in sorted(_ROOT.glob(pattern)):
            digest.update(path.relative_to(_ROOT).as_posix().encode())
            digest.update(path.read_bytes())
    digest.update(load_libopus(None).version.encode())
    for package in PACKAGES:
        digest.update(f"{package} {_version(package)}".encode())
    return digest.hexdigest()


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "none"


class RowStore:
    """A line of JSON for each row, added as it is made."""

    def __init__(self, path: Path) -> None:
        """Raises UsageError if the file cannot be read or written."""
        self._rows: dict[str, Row] = {}
        try:
            if path.exists():
                for line in path.read_text().splitlines():
                    self._read(line)
            self._file = path.open("a")
            if path.stat().st_size and not path.read_bytes().endswith(b"\n"):
                self._file.write("\n")
        except OSError as error:
            raise UsageError(f"--out: {path}: {error.strerror}") from None

    def _read(self, line: str) -> None:
        try:
            entry = json.loads(line)
            self._rows[entry["key"]] = entry["row"]
        except (ValueError, TypeError, KeyError):
            return  # the last line of a run that was cut off

    def get(self, key: str) -> Row | None:
        return self._rows.get(key)

    def add(self, key: str, row: Row) -> None:
        """Raises OSError."""
        self._rows[key] = row
        self._file.write(json.dumps({"key": key, "row": row}) + "\n")
        self._file.flush()

    def close(self) -> None:
        self._file.close()
