"""A timer that only sleeps, to tell stalls of the machine apart from our own lateness."""

from __future__ import annotations

import bisect
import subprocess
import sys
import threading
from array import array
from collections import defaultdict, deque
from collections.abc import Iterable
from pathlib import Path
from typing import IO, NamedTuple

from app.pacing import Miss

KEPT_STALLS = 10_000

PROGRAM = Path(__file__).with_name("_control_process.py")


class Stall(NamedTuple):
    """A tick that came late: instants of the monotonic clock, in seconds."""

    processor: int
    due: float
    """When to wake; the stall began before it, by less than a period."""
    woke: float


class ControlTimer:
    """Records how late threads wake that have nothing else to do, one on each processor.

    They live in a process of their own. In ours they would wait for the interpreter's lock like any
    other, and blame the machine for what our own code held up. It reports late ticks twice a
    second.
    """

    def __init__(
        self, period: float = 0.004, *, threshold: float = 0.001, ahead: bool = True
    ) -> None:
        """Ticks every `period` seconds; one later than `threshold` seconds is a stall.

        A shorter stall than the two together may pass unseen. With `ahead` real-time threads of
        the caller's priority do not keep it waiting.
        """
        self.period = period
        self.threshold = threshold
        self.ahead = ahead
        self.stalls: deque[Stall] = deque(maxlen=KEPT_STALLS)
        """The latest late ticks."""
        self.stalled = 0
        """All of them."""
        self.longest = 0.0
        """Seconds by which the worst of them was late."""
        self._process: subprocess.Popen[bytes] | None = None
        self._reader: threading.Thread | None = None

    def start(self) -> None:
        """Starts the process; it ends with `stop` or with ours, however that ends."""
        if self._process is not None:
            raise RuntimeError("the control timer was started before")
        numbers = (str(self.period), str(self.threshold), "1" if self.ahead else "0")
        self._process = subprocess.Popen(
            [sys.executable, "-I", "-S", str(PROGRAM), *numbers],
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

    def add(self, stall: Stall) -> None:
        """Takes in a late tick."""
        self.stalled += 1
        self.longest = max(self.longest, stall.woke - stall.due)
        self.stalls.append(stall)

    def count_explained(self, misses: Iterable[Miss]) -> int:
        """How many deadlines had been kept but for stalls of one processor during the work."""
        stalls = sorted(self.stalls, key=lambda stall: stall.due)
        dues = [stall.due for stall in stalls]
        explained = 0
        for miss in list(misses):
            first = bisect.bisect_left(dues, miss.due - self.longest)
            lost: defaultdict[int, float] = defaultdict(float)
            for processor, due, woke in stalls[first : bisect.bisect_right(dues, miss.finished)]:
                lost[processor] += max(0.0, min(woke, miss.finished) - max(due, miss.due))
            explained += max(lost.values(), default=0.0) >= miss.finished - miss.deadline
        return explained

    def _read(self, pipe: IO[bytes]) -> None:
        rest = b""
        # read1 gives what there is; read would wait for the buffer to fill
        while chunk := pipe.read1(65536):  # type: ignore[attr-defined]
            rest += chunk
            whole = len(rest) // 24 * 24
            numbers = array("d", rest[:whole])
            rest = rest[whole:]
            for at in range(0, len(numbers), 3):
                self.add(Stall(int(numbers[at]), numbers[at + 1], numbers[at + 2]))
