"""A timer that only sleeps, to tell stalls of the machine apart from our own lateness."""

from __future__ import annotations

import subprocess
import sys
import threading
from array import array
from collections import deque
from collections.abc import Iterable
from pathlib import Path
from typing import IO

from app.pacing import Distribution, Miss

KEPT_STALLS = 2000

PROGRAM = Path(__file__).with_name("_control_process.py")


class ControlTimer:
    """Records how late a thread wakes that has nothing else to do.

    The thread lives in a process of its own. In ours it would wait for the interpreter's lock
    like any other, and blame the machine for what our own code held up. It reports once a second,
    so the numbers lag until `stop`.
    """

    def __init__(self, period: float = 0.005, *, threshold: float = 0.003) -> None:
        """Ticks every `period` seconds; one later than `threshold` seconds is a stall."""
        self.period = period
        self.threshold = threshold
        self.lateness = Distribution()
        """Seconds, of every tick."""
        self.stalled = 0
        """Ticks that were later than the threshold."""
        self.stalls: deque[tuple[float, float]] = deque(maxlen=KEPT_STALLS)
        """The latest of them: the monotonic instants of when to wake, and of waking."""
        self._process: subprocess.Popen[bytes] | None = None
        self._reader: threading.Thread | None = None

    def start(self) -> None:
        """Starts the process; it ends with `stop` or with ours, however that ends."""
        if self._process is not None:
            raise RuntimeError("the control timer was started before")
        self._process = subprocess.Popen(
            [sys.executable, "-I", "-S", str(PROGRAM), str(self.period)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,  # Ctrl-C on the terminal is for us to handle
        )
        assert self._process.stdout is not None
        self._reader = threading.Thread(
            target=self._read, args=(self._process.stdout,), name="control-timer", daemon=True
        )
        self._reader.start()

    def stop(self) -> None:
        """Ends the process and takes in its last report. Harmless when it does not run."""
        if self._process is None or self._reader is None:
            return
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._reader.join(timeout=2)
        self._process.kill()
        self._process.wait()

    def add(self, due: float, woke: float) -> None:
        """Takes in one tick: the instants at which it was to wake, and woke."""
        self.lateness.add(woke - due)
        if woke - due > self.threshold:
            self.stalled += 1
            self.stalls.append((due, woke))

    def explains(self, miss: Miss) -> bool:
        """Whether the deadline had been kept but for stalls of the machine during the work."""
        stalls = list(self.stalls)
        lost = sum(max(0.0, min(woke, miss.finished) - max(due, miss.due)) for due, woke in stalls)
        return lost >= miss.finished - miss.deadline

    def count_explained(self, misses: Iterable[Miss]) -> int:
        """How many of the misses the machine caused."""
        return sum(map(self.explains, list(misses)))

    def _read(self, pipe: IO[bytes]) -> None:
        rest = b""
        # read1 gives what there is; read would wait for the buffer to fill
        while chunk := pipe.read1(65536):  # type: ignore[attr-defined]
            rest += chunk
            whole = len(rest) // 16 * 16
            numbers = array("d", rest[:whole])
            rest = rest[whole:]
            for due, woke in zip(numbers[::2], numbers[1::2], strict=True):
                self.add(due, woke)
