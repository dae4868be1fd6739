"""Real calls for tests: two processes of the program and all they leave behind."""

from __future__ import annotations

import json
import os
import re
import signal
import struct
import subprocess
import sys
import threading
import time
import wave
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from app.audio.file import file_frames
from app.control_timer import ControlTimer
from app.ledger import LedgerEntry, read_ledger
from app.net.rtp import timestamp_difference
from app.net.session import is_rtcp
from app.priority import PRIORITY, request_realtime
from codec import FRAME, SAMPLE_RATE

ROOT = Path(__file__).parents[2]
MAN = ROOT / "tests" / "data" / "man.flac"
WOMAN = ROOT / "tests" / "data" / "woman.flac"
LOOPBACK = "127.0.0.1"

PATIENCE = 90.0
"""Seconds for anything: starting Python takes ten on a machine that is busy."""

Pcm = npt.NDArray[np.int16]


class Endpoint:
    """One side of a call, run as a program. What it records is named after `side`."""

    def __init__(
        self,
        folder: Path,
        side: str,
        *arguments: str,
        source: str | Path = "tone",
        name: str | None = None,
        environment: dict[str, str] | None = None,
        kept: bool = True,
    ) -> None:
        """`kept`: with a recording, a ledger and a report."""
        self.name = name or side
        self.folder = folder
        command = [sys.executable, "-m", "app", side, *arguments]
        if "--sink" not in arguments:
            command += ["--sink", "null"]
        command += ["--source", os.fspath(source), "--quiet"]
        if kept:
            command += ["--record", str(self.path("wav")), "--ledger", str(self.path("csv"))]
            command += ["--json", str(self.path("json"))]
        self.process = subprocess.Popen(
            command,
            cwd=ROOT,
            env={**os.environ, **(environment or {})},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.said: list[str] = []
        """Lines on stderr."""
        self.printed: list[str] = []
        """Lines on stdout."""
        self._heard = threading.Condition()
        self._readers = [
            threading.Thread(target=self._read, args=pair, daemon=True)
            for pair in ((self.process.stderr, self.said), (self.process.stdout, self.printed))
        ]
        for reader in self._readers:
            reader.start()

    def path(self, suffix: str) -> Path:
        return self.folder / f"{self.name}.{suffix}"

    def _read(self, lines: Iterator[str], into: list[str]) -> None:
        be_punctual()  # who holds the interpreter's lock must not be kept from giving it back
        for line in lines:
            with self._heard:
                into.append(line.rstrip("\n"))
                self._heard.notify_all()

    def wait_for(self, pattern: str) -> re.Match[str]:
        """The first line on stderr that matches; AssertionError if the program ends without."""
        until = time.monotonic() + PATIENCE
        with self._heard:
            while True:
                for line in self.said:
                    if match := re.search(pattern, line):
                        return match
                over = self.process.poll() is not None and not self._readers[0].is_alive()
                assert not over, f"{self.name} ended: {self.said}"
                assert time.monotonic() < until, f"{self.name} did not say {pattern}: {self.said}"
                self._heard.wait(0.1)

    @property
    def port(self) -> int:
        """The TCP port it listens on, once it does."""
        return int(self.wait_for(r"listening on port (\d+)")[1])

    def wait_until_heard(self, frames: int) -> None:
        """Until so many frames have been played out of their packets."""
        ledger = self.path("csv")
        until = time.monotonic() + PATIENCE
        while not ledger.exists() or ledger.read_text().count(",packet,") < frames:
            assert self.process.poll() is None, f"{self.name} ended: {self.said}"
            assert time.monotonic() < until, f"{self.name} has not heard {frames} frames"
            time.sleep(0.02)

    def interrupt(self, number: signal.Signals = signal.SIGINT) -> None:
        self.process.send_signal(number)

    def end(self) -> int:
        """Waits for its end; the exit status."""
        status = self.process.wait(timeout=PATIENCE)
        for reader in self._readers:
            reader.join(timeout=PATIENCE)
        return status

    def close(self) -> None:
        """Whatever becomes of the test, no process stays."""
        if self.process.poll() is None:
            self.process.kill()
        self.end()

    @property
    def report(self) -> dict[str, Any]:
        report: dict[str, Any] = json.loads(self.path("json").read_text())
        return report

    @property
    def ledger(self) -> list[LedgerEntry]:
        return list(read_ledger(self.path("csv")))

    @property
    def recording(self) -> Pcm:
        return read_wav(self.path("wav"))


@contextmanager
def endpoints() -> Iterator[Callable[..., Endpoint]]:
    """Starts endpoints, and ends those that are left."""
    with ExitStack() as stack:

        def start(*arguments: Any, **options: Any) -> Endpoint:
            endpoint = Endpoint(*arguments, **options)
            stack.callback(endpoint.close)
            return endpoint

        yield start


@dataclass(frozen=True, slots=True)
class Pair:
    """Both sides of a call."""

    listener: Endpoint
    caller: Endpoint
    timer: ControlTimer

    def end(self) -> tuple[int, int]:
        """Exit statuses of listener and caller."""
        caller = self.caller.end()
        try:
            return self.listener.end(), caller
        except subprocess.TimeoutExpired:
            said = f"the listener {self.listener.said}, the caller {self.caller.said}"
            raise AssertionError(f"the listener does not end; it said {said}") from None

    def unless_the_machine_stood_still(self) -> AbstractContextManager[None]:
        return unless_stalled(self.timer)


@contextmanager
def unless_stalled(timer: ControlTimer, seconds: float = 0.020) -> Iterator[None]:
    """A failure becomes a skip if a timer of the call's priority was kept waiting so long."""
    try:
        yield
    except AssertionError as error:
        longest = timer.longest
        if longest < seconds:
            raise
        pytest.skip(f"the machine stood still for {1e3 * longest:.0f} ms: {error}")


@contextmanager
def calls() -> Iterator[Callable[..., Pair]]:
    """Places calls, watched by a timer that only sleeps."""
    with endpoints() as start, ExitStack() as stack:

        def place(
            folder: Path,
            *,
            listen: Sequence[str] = (),
            call: Sequence[str] = (),
            listen_source: str | Path = WOMAN,
            call_source: str | Path = MAN,
        ) -> Pair:
            folder.mkdir(parents=True, exist_ok=True)
            listener = start(
                folder, "listen", "--host", LOOPBACK, "--port", "0", *listen, source=listen_source
            )
            peer = f"{LOOPBACK}:{listener.port}"
            caller = start(folder, "call", peer, *call, source=call_source)
            timer = equal_timer()
            stack.callback(timer.stop)
            return Pair(listener, caller, timer)

        yield place


def be_punctual() -> None:
    """Real-time scheduling for the calling thread, if allowed, but not for what it starts."""
    with suppress(AttributeError, OSError):
        os.sched_setscheduler(0, os.SCHED_RR | os.SCHED_RESET_ON_FORK, os.sched_param(PRIORITY))


def equal_timer() -> ControlTimer:
    """A running timer with the priority that the processes of a call get."""
    timer = ControlTimer(ahead=False)

    def start() -> None:
        request_realtime()  # this thread's, which the timer's process inherits
        timer.start()

    thread = threading.Thread(target=start)
    thread.start()
    thread.join()
    return timer


def read_wav(path: Path, *, whole: bool = True) -> Pcm:
    """int16 [n]; AssertionError if it is to be `whole` and the header has not the file's sizes."""
    data = path.read_bytes()
    riff, riff_size, kind = struct.unpack("<4sI4s", data[:12])
    assert (riff, kind) == (b"RIFF", b"WAVE")
    assert riff_size == len(data) - 8 or not whole
    with wave.open(str(path)) as file:
        parameters = (file.getnchannels(), file.getsampwidth(), file.getframerate())
        assert parameters == (1, 2, 16_000)
        assert file.getnframes() == (len(data) - 44) // 2 or not whole
        return np.frombuffer(file.readframes(file.getnframes()), np.int16)


def books_agree(recording: Pcm, ledger: list[LedgerEntry]) -> bool:
    """Whether what was heard is as long as the frames in the ledger and their stretching say.

    Give or take two frames: a buffer that stretches lets the last frame end in the middle of a
    block, which is filled up, and tells of a stretch, a pitch period, with the frame behind it.
    """
    stretched = SAMPLE_RATE / 1e3 * sum(entry.stretch_ms for entry in ledger)
    return abs(FRAME * len(ledger) + stretched - len(recording)) <= 2 * FRAME


def clip(path: Path) -> Pcm:
    """All of an audio file, int16 [n]."""
    return np.concatenate(list(file_frames(path)))


def envelope(pcm: Pcm) -> npt.NDArray[np.float64]:
    """RMS of each frame in dB above one step: [frames]."""
    frames = pcm[: len(pcm) // FRAME * FRAME].reshape(-1, FRAME).astype(np.float64)
    level: npt.NDArray[np.float64] = 10 * np.log10(np.mean(frames**2, axis=1) + 1)
    return level


def offset_of(heard: Pcm, spoken: Pcm) -> tuple[int, float]:
    """Where `heard` lies in `spoken`: the sample of `spoken` at which it begins, and how alike
    they are there (normalised cross-correlation)."""
    size = 1 << (len(heard) + len(spoken)).bit_length()
    a, b = heard.astype(np.float64), spoken.astype(np.float64)
    correlation = np.fft.irfft(np.fft.rfft(b, size) * np.conj(np.fft.rfft(a, size)), size)
    at = int(np.argmax(correlation))
    at = at - size if at > size // 2 else at
    overlap_b = b[max(at, 0) : at + len(a)]
    overlap_a = a[max(-at, 0) :][: len(overlap_b)]
    alike = np.dot(overlap_a, overlap_b) / np.sqrt(
        np.dot(overlap_a, overlap_a) * np.dot(overlap_b, overlap_b)
    )
    return at, float(alike)


@dataclass(frozen=True, slots=True)
class Captured:
    """An RTP packet out of a capture."""

    at: float
    """Unix seconds."""
    source: int
    """UDP ports."""
    destination: int
    sequence: int
    timestamp: int
    payload: bytes


def captured_rtp(path: Path) -> list[Captured]:
    """The RTP packets of a capture this program has written, IPv4."""
    data = path.read_bytes()
    (magic,) = struct.unpack_from("=I", data)
    assert magic == 0xA1B23C4D
    packets = []
    at = 24
    while at < len(data):
        seconds, nanoseconds, size, _ = struct.unpack_from("=IIII", data, at)
        ip = data[at + 16 : at + 16 + size]
        at += 16 + size
        source, destination = struct.unpack_from("!HH", ip, 20)
        rtp = ip[28:]
        if is_rtcp(rtp):
            continue
        sequence, timestamp = struct.unpack_from("!HI", rtp, 2)
        instant = seconds + 1e-9 * nanoseconds
        packets.append(Captured(instant, source, destination, sequence, timestamp, rtp[12:]))
    return packets


def same_instant(extended: int, timestamp: int) -> bool:
    """Whether a ledger's timestamp is that of a packet, which wraps."""
    return timestamp_difference(extended & 0xFFFF_FFFF, timestamp) == 0
