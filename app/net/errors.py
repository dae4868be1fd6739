"""What can go wrong with a call for reasons outside the program."""

from __future__ import annotations

import errno


class CallError(Exception):
    """A call that cannot be placed, taken or carried on; the text is one line for the user."""


def explain(error: OSError) -> str:
    """A few words on why the system refused."""
    reasons = {
        errno.ECONNREFUSED: "connection refused",
        errno.EHOSTUNREACH: "no route to the host",
        errno.ENETUNREACH: "no route to its network",
        errno.ETIMEDOUT: "the host does not answer",
        errno.EADDRNOTAVAIL: "not an address of this machine",
        errno.EADDRINUSE: "the port is in use",
        errno.EACCES: "permission denied",
    }
    return reasons.get(error.errno or 0) or error.strerror or str(error)
