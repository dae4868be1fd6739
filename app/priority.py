"""Asking the system to run a call ahead of other work."""

from __future__ import annotations

import os

PRIORITY = 1
"""The lowest of the real-time ones: ahead of everything ordinary, behind the sound system."""


def request_realtime() -> bool:
    """Real-time scheduling for the calling thread and all it starts from now on, if we may.

    On Linux root may, and users to whom RLIMIT_RTPRIO allows it (as the groups `audio` and
    `pipewire` often do). A call needs a few percent of a core, but at once: without it any busy
    process on the machine can make it miss deadlines. The kernel takes the processor from
    real-time threads that never sleep, so a fault of ours cannot hang the machine.
    """
    try:
        os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(PRIORITY))
    except (AttributeError, OSError):  # another system, or not allowed
        return False
    return True
