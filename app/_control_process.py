"""Run as a program by `app.control_timer`: sleeps to a schedule and writes down when it woke.

Nothing but the standard library, nothing of this project: it is to stay out of everyone's way.
Argument: the period in seconds. Output: pairs of native doubles, the instant of
`time.monotonic()` at which to wake and the one of waking, once a second. Ends with its input.
"""

import contextlib
import os
import sys
import threading
import time
from array import array


def main() -> None:
    """Ticks until standard input ends."""
    period = float(sys.argv[1])
    over = threading.Event()

    def watch() -> None:
        sys.stdin.buffer.read()
        over.set()

    threading.Thread(target=watch, daemon=True).start()
    due = time.monotonic()
    records = array("d")
    written = due
    while not over.is_set():
        due += period
        now = time.monotonic()
        if due > now:
            time.sleep(due - now)
            now = time.monotonic()
        records.extend((due, now))
        due = max(due, now - period)  # after a stall: no burst of ticks that were all late
        if now - written >= 1:
            os.write(1, records.tobytes())
            records = array("d")
            written = now
    os.write(1, records.tobytes())


if __name__ == "__main__":
    with contextlib.suppress(BrokenPipeError):  # who reads may have been killed
        main()
