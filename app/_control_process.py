"""Run as a program by `app.control_timer`: sleeps to a schedule and writes down when it overslept.

Nothing but the standard library, nothing of this project: it is to stay out of everyone's way.
Arguments: the period and the lateness that is worth a note, in seconds, and 1 to run ahead of the
real-time priority it was started with. Each processor, of the first few, has a thread that stays on
it: a host that takes away one of them does not stop the others. Output: triples of native
doubles, the processor's number and the instants of `time.monotonic()` at which to wake and of
waking; twice a second at most. Ends with its input.
"""

from __future__ import annotations

import contextlib
import os
import sys
import threading
import time
from array import array

MOST_PROCESSORS = 4


def processors() -> list[int]:
    """Those we may run on, some of them if there are many; [-1] where that cannot be chosen."""
    try:
        return sorted(os.sched_getaffinity(0))[:MOST_PROCESSORS]
    except AttributeError:
        return [-1]


def settle(processor: int, ahead: bool) -> None:
    """Ties the calling thread to a processor; `ahead` of those with its real-time priority."""
    with contextlib.suppress(AttributeError, OSError):
        if processor >= 0:
            os.sched_setaffinity(0, {processor})
        if ahead and os.sched_getscheduler(0) == os.SCHED_RR:
            higher = os.sched_getparam(0).sched_priority + 1
            os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(higher))


def tick(
    processor: int, period: float, threshold: float, ahead: bool, over: threading.Event
) -> None:
    """Wakes every `period` seconds until it is over."""
    settle(processor, ahead)
    late = array("d")
    # looked up once: this runs some hundred times a second, and each time from cold caches
    monotonic, sleep, is_over = time.monotonic, time.sleep, over.is_set
    now = due = written = monotonic()
    while not is_over():
        due += period
        if due > now:
            sleep(due - now)
            now = monotonic()
        if now - due > threshold:
            late.extend((processor, due, now))
        due = max(due, now - period)  # after a stall: no burst of ticks that were all late
        if late and now - written >= 0.5:
            put(late)
            late = array("d")
            written = now
    put(late)


def put(late: array[float]) -> None:
    """Hands over what was late: less than PIPE_BUF at any bearable rate, so in one piece."""
    with contextlib.suppress(BrokenPipeError):  # who reads may have been killed
        os.write(1, late.tobytes())


def main() -> None:
    """Ticks until standard input ends."""
    period, threshold, ahead = float(sys.argv[1]), float(sys.argv[2]), sys.argv[3] == "1"
    over = threading.Event()
    for processor in processors():
        arguments = (processor, period, threshold, ahead, over)
        threading.Thread(target=tick, args=arguments).start()
    sys.stdin.buffer.read()
    over.set()


if __name__ == "__main__":
    main()
