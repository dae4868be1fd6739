"""What packets meet on their way: loss traces by class, recorded arrivals, netem specs.

FOLDER/CLASS/00.txt ...   clip i (by name, from 0) meets trace i of each class
FOLDER/GROUP/NAME.txt     every clip meets every trace; also FOLDER/NAME.txt and single files
FILE.csv                  arrivals recorded by a call
anything else             a netem spec: 'delay 40ms 10ms loss gemodel 5% 40%'
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from app.netem import LossTrace, NetemError, load_loss_trace, parse_netem
from app.options import UsageError
from codec import FRAME
from codec.opus import OpusEncoder

SAFE_FIRST, SAFE_LAST = 5, 3
"""Packets at either end that no trace takes: before them there is nothing to go on."""

LONG_TRACE = 3000
"""Packets, a minute. A longer trace is entered `STRIDE` further on by each clip, so that clips do
not all meet the same of it."""
STRIDE = 503

NO_NETWORK = "-"


@dataclass(frozen=True, slots=True)
class Network:
    """What one clip meets."""

    name: str
    """`CLASS/NUMBER`, `GROUP/NAME`, a file's name or a spec."""
    losses: bytes | None = None
    """One byte per packet, 1 if it is lost; as many as the clip has packets."""
    netem: str | None = None
    arrivals: Path | None = None
    paired: bool = True
    """Whether the clip has this one to itself in its class, and meets it with every buffer."""

    @property
    def kind(self) -> str:
        """Its class or group."""
        return self.name.rsplit("/", 1)[0] if self.losses is not None else self.name

    def digest(self) -> str:
        """Of everything that it does to packets. Raises OSError."""
        content = self.arrivals.read_bytes() if self.arrivals else self.losses or b""
        return hashlib.sha256(content + (self.netem or "").encode()).hexdigest()


NOTHING = Network(NO_NETWORK)


@dataclass(frozen=True, slots=True)
class _Trace:
    name: str
    trace: LossTrace
    number: int | None
    """Of the clip that meets it; None for every clip."""


class Networks:
    """All networks of an evaluation. Raises UsageError, NetemError for what is none."""

    def __init__(self, specs: Sequence[str]) -> None:
        self._traces: list[_Trace] = []
        self._others: list[Network] = []
        for spec in specs:
            self._add(spec)
        if not self._traces and not self._others:
            raise UsageError("--traces: there are no traces to be met")

    def _add(self, spec: str) -> None:
        path = Path(spec)
        if path.is_dir():
            self._add_folder(path)
        elif path.suffix == ".csv" and path.is_file():
            self._others.append(Network(path.stem, arrivals=path))
        elif path.is_file():
            self._traces.append(_Trace(f"trace/{path.stem}", load_loss_trace(path), None))
        else:
            try:
                parse_netem(spec)
            except NetemError as error:
                hint = f"--traces: '{spec}' is no file or folder, and no netem spec: {error}"
                raise UsageError(hint) from None
            self._others.append(Network(spec, netem=spec))

    def _add_folder(self, folder: Path) -> None:
        groups = sorted({path.parent for path in folder.rglob("*.txt")})
        if not groups:
            raise UsageError(f"--traces: {folder} has no .txt files in it")
        for group in groups:
            numbered = (group / "00.txt").is_file()
            for path in sorted(group.glob("*.txt")):
                if numbered and not path.stem.isdecimal():
                    continue
                number = int(path.stem) if numbered else None
                name = f"{group.name}/{path.stem}"
                self._traces.append(_Trace(name, load_loss_trace(path), number))

    def met_by(self, clip: int, samples: int) -> Iterator[Network]:
        """The networks for clip number `clip` of so many packets' worth of samples."""
        packets = -(-(samples + lookahead()) // FRAME)
        for entry in self._traces:
            if entry.number is None or entry.number == clip:
                losses = clip_losses(entry.trace, clip, packets)
                yield Network(entry.name, losses, paired=entry.number is not None)
        yield from self._others


@cache
def lookahead() -> int:
    """Samples by which the codec's sound lags behind what was said. Raises OpusError."""
    return OpusEncoder().lookahead


def clip_losses(trace: LossTrace, clip: int, packets: int) -> bytes:
    """The part of a trace that a clip of so many packets meets, over and over if it is short."""
    start = clip * STRIDE if len(trace) > LONG_TRACE else 0
    safe = range(SAFE_FIRST, packets - SAFE_LAST)
    return bytes(trace[start + i] if i in safe else False for i in range(packets))
