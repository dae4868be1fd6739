"""Recorded arrivals: when each media packet came, written by calls and replayed in simulations.

A file is CSV: a line of column names, then one line per media packet in order of arrival.

    arrival_s,sequence,timestamp,bytes
    0.000000,4711,960000,61
    0.020113,4712,960960,74

`arrival_s` counts from the first packet, `sequence` and `timestamp` are those of RTP, `bytes` its
payload. A packet that never came has no line, one that came twice has two.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue

from app.net.rtp import RtpReceived, sequence_difference, timestamp_difference
from app.net.session import is_rtcp
from app.netem import Delivery, InTransit
from app.options import UsageError
from codec import FRAME_SECONDS, RTP_CLOCK

FIELDS = ("arrival_s", "sequence", "timestamp", "bytes")
HEADER = ",".join(FIELDS)

QUEUED_LINES = 3000
"""A minute of packets that the disk may be behind."""

MAX_FILE_BYTES = 64 * 2**20
"""Of a recording: about two million packets, or 11 hours."""

MAX_STEP = 3000
"""Packets between one line and the highest sequence number before it: a minute's loss
(RFC 3550 appendix A.1)."""

MAX_PACKETS = 2**22
"""Packets a recording may span, those that never came included: 23 hours."""

LONGEST_TRANSIT = 3600.0
"""Seconds that one packet may come later than another took."""


class ArrivalsError(ValueError):
    """A recording that cannot be replayed; one line that names the place and says why."""


class ArrivalRecorder:
    """Writes a line for each media packet, on a thread of its own.

    `add` never waits. When the disk falls `QUEUED_LINES` behind, lines are dropped and counted; a
    failing disk ends the recording, not the call.
    """

    def __init__(self, path: Path) -> None:
        """Raises UsageError if the file cannot be made."""
        self.dropped = 0
        """Packets that were not recorded."""
        self.error: str | None = None
        """Why the recording ended early, if it did."""
        self._path = path
        self._first: float | None = None
        self._lines: SimpleQueue[str | None] = SimpleQueue()
        self._closed = False
        try:
            self._file = path.open("w")
        except OSError as error:
            raise UsageError(f"--record-arrivals: {path}: {error.strerror}") from None
        self._thread = threading.Thread(target=self._run, name="arrivals", daemon=True)
        self._thread.start()

    def add(self, packet: RtpReceived) -> None:
        """Records one packet. Call it in order of arrival, from one thread."""
        if self._closed:
            return
        if self.error is not None or self._lines.qsize() >= QUEUED_LINES:
            self.dropped += 1
            return
        if self._first is None:
            self._first = packet.arrival
        elapsed = packet.arrival - self._first
        self._lines.put(
            f"{elapsed:.6f},{packet.sequence},{packet.timestamp},{len(packet.payload)}\n"
        )

    def close(self) -> None:
        """Writes what is queued and completes the file."""
        if not self._closed:
            self._closed = True
            self._lines.put(None)
            self._thread.join()

    def _run(self) -> None:
        try:
            with self._file as file:
                file.write(HEADER + "\n")
                while (line := self._lines.get()) is not None:
                    file.write(line)
                    if self._lines.empty():
                        file.flush()
        except OSError as error:
            self.error = f"the arrivals {self._path} ended: {error.strerror}"


@dataclass(frozen=True, slots=True)
class ArrivalTrace:
    """How long each packet took, in order of sending."""

    transits: Sequence[tuple[float, ...]]
    """Seconds by which packet k took longer than the fastest of all: none if it never came, more
    than one if it came more than once."""

    def __len__(self) -> int:
        return len(self.transits)

    def __getitem__(self, index: int) -> tuple[float, ...]:
        """Transits of packet `index`, from 0 and without end: the trace begins again."""
        return self.transits[index % len(self.transits)]


@dataclass(frozen=True, slots=True)
class _Line:
    arrival: float
    sequence: int
    timestamp: int


def parse_arrivals(text: str, name: str = "arrivals") -> ArrivalTrace:
    """The trace in the text of a recording; `name` is for messages.

    Raises ArrivalsError, which names the line and what is wrong with it.
    """
    lines = text.splitlines()
    if not lines or lines[0] != HEADER:
        raise ArrivalsError(f"{name}, line 1: expected {HEADER}")
    if len(lines) == 1:
        raise ArrivalsError(f"{name}: no packets in it")
    numbers: dict[int, list[float]] = {}
    first = highest = media = 0
    origin = before = 0.0
    for place, text_line in enumerate(lines[1:], 2):
        line = _parse_line(text_line, f"{name}, line {place}")
        if place == 2:
            highest, origin = line.sequence, line.arrival
            first_timestamp = line.timestamp
        step = sequence_difference(line.sequence, highest & 0xFFFF)
        number = highest + step
        media = timestamp_difference(line.timestamp, first_timestamp)
        transit = line.arrival - origin - media / RTP_CLOCK
        if line.arrival < before:
            raise ArrivalsError(f"{name}, line {place}: arrived before the packet above")
        if abs(step) > MAX_STEP:
            raise ArrivalsError(
                f"{name}, line {place}: sequence {line.sequence} is {abs(step)} packets from"
                f" {highest & 0xFFFF}"
            )
        if abs(transit) > LONGEST_TRANSIT:
            raise ArrivalsError(
                f"{name}, line {place}: timestamp {line.timestamp} does not fit the time of arrival"
            )
        numbers.setdefault(number, []).append(transit)
        highest, before = max(highest, number), line.arrival
    first = min(numbers)
    if highest - first >= MAX_PACKETS:
        raise ArrivalsError(f"{name}: {highest - first + 1} packets, more than {MAX_PACKETS}")
    fastest = min(map(min, numbers.values()))
    return ArrivalTrace(
        tuple(
            tuple(transit - fastest for transit in numbers.get(number, ()))
            for number in range(first, highest + 1)
        )
    )


def load_arrivals(path: Path) -> ArrivalTrace:
    """The trace in a file of at most `MAX_FILE_BYTES`. Raises ArrivalsError."""
    try:
        with path.open("rb") as file:
            content = file.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise ArrivalsError(f"{path}: {error.strerror}") from None
    if len(content) > MAX_FILE_BYTES:
        raise ArrivalsError(f"{path}: larger than {MAX_FILE_BYTES // 2**20} MiB")
    return parse_arrivals(content.decode("utf-8", "backslashreplace"), str(path))


_NUMBER = re.compile(r"[0-9]{1,10}")
_SECONDS = re.compile(r"[0-9]{1,9}(\.[0-9]{1,9})?")


def _parse_line(text: str, place: str) -> _Line:
    words = text.split(",")
    if len(words) != len(FIELDS):
        raise ArrivalsError(f"{place}: {len(words)} values, not the {len(FIELDS)} of {HEADER}")
    if not _SECONDS.fullmatch(words[0]):
        raise ArrivalsError(f"{place}: arrival_s '{words[0][:40]}' is not a number of seconds")
    values = []
    for field, word, limit in zip(FIELDS[1:], words[1:], (2**16, 2**32, 2**16), strict=True):
        if not _NUMBER.fullmatch(word) or int(word) >= limit:
            raise ArrivalsError(f"{place}: {field} '{word[:40]}' is not 0-{limit - 1}")
        values.append(int(word))
    return _Line(float(words[0]), values[0], values[1])


class ArrivalReplay(InTransit):
    """A link by which packet k of the media takes as long as the trace says.

    The fastest takes no time at all: what all have in common a recording does not tell. RTCP is not
    in the trace and passes at once.
    """

    def __init__(self, trace: ArrivalTrace) -> None:
        super().__init__()
        self._trace = trace
        self._media = 0

    def push(self, data: bytes, now: float) -> None:
        """A packet is sent at `now`."""
        transits: tuple[float, ...] = (0.0,)
        if not is_rtcp(data):
            transits = self._trace[self._media]
            self._media += 1
        for transit in transits:
            self.put(Delivery(now + transit, data))


def frozen_network(seconds: float, *, packets: int, at: int) -> ArrivalTrace:
    """A link that stands still for so long when packet `at` is sent, then lets all through."""

    def transit(number: int) -> float:
        return max(0.0, seconds - (number - at) * FRAME_SECONDS) if number >= at else 0.0

    return ArrivalTrace(tuple((transit(number),) for number in range(packets)))
