"""From the peer's RTP timestamps to our monotonic clock."""

from __future__ import annotations

import hashlib
import platform
import time
import uuid
from collections import deque
from pathlib import Path
from typing import NamedTuple

from app.net.rtcp import ntp_from_unix_ns, ntp_seconds_between
from app.net.rtp import timestamp_difference
from codec import RTP_CLOCK

EXCHANGES = 64
"""How many of the latest exchanges compete for the shortest round trip: a minute's worth."""

DRIFT = 50e-6
"""Seconds per second two undisciplined quartz clocks may run apart."""

SHARED_CLOCK_UNCERTAINTY = 100e-6
"""Seconds: each side reads its two clocks one after the other."""

CLOCK_STEP = 0.5
"""Seconds between the progress of the peer's wall and media clocks that mean one was set anew."""


def host_token() -> str:
    """Sixteen characters that two processes have in common if they share a wall clock.

    On Linux it stands for one boot of one kernel, whose real-time clock containers share too;
    elsewhere for the machine. Hashed, so that nothing else can be learned from it.
    """
    try:
        identity = Path("/proc/sys/kernel/random/boot_id").read_text()
    except OSError:
        identity = f"{platform.node()} {uuid.getnode():x}"
    return hashlib.sha256(f"dredcall clock {identity}".encode()).hexdigest()[:16]


def shares_wall_clock(our_cname: str, peer_cname: str) -> bool:
    """Whether both names end in the same host token."""
    ours, theirs = our_cname.rpartition("@")[2], peer_cname.rpartition("@")[2]
    return len(ours) == 16 and ours == theirs


class WallClock:
    """NTP time counted on from one reading by the monotonic clock.

    Setting the system's clock during a call therefore disturbs no round-trip time.
    """

    def __init__(self) -> None:
        self._monotonic = time.monotonic()
        self._ntp = ntp_from_unix_ns(time.time_ns())

    def ntp(self, monotonic: float) -> int:
        """64-bit NTP time at a monotonic instant."""
        return (self._ntp + round((monotonic - self._monotonic) * 2**32)) & (2**64 - 1)


class ClockEstimate(NamedTuple):
    instant: float
    """Seconds of our monotonic clock."""
    uncertainty: float
    """Seconds by which the instant may be off either way."""


class _Anchor(NamedTuple):
    ntp: int
    """Of the peer's wall clock."""
    instant: float
    """Of our monotonic clock, the same moment."""
    uncertainty: float


class ClockMap:
    """Relates RTP timestamps of the peer to our monotonic clock.

    The peer's sender reports tie its RTP timestamps to its wall clock; what ties its wall clock
    to our monotonic one is

    * nothing but our own wall clock, if both processes run on one machine (`shares_wall_clock`);
    * otherwise the exchange of reports: the peer answers a sender report of ours by one of its own,
      and DLSR says how long it held it. It wrote its time half a round trip before the arrival,
      give or take the same half, whatever the two wall clocks say. The shortest round trip has the
      least queueing in it and is believed, as in NTP (RFC 5905 section 10); age counts against it
      by the drift of clocks.

    A claim to the same machine that an exchange contradicts is dropped for good. State is replaced
    whole, so `estimate` may run on another thread than the rest.
    """

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """For another source: nothing known."""
        self._report: tuple[int, int] | None = None
        self._anchor: _Anchor | None = None
        self._exchanges: deque[_Anchor] = deque(maxlen=EXCHANGES)
        self._shared: bool | None = None

    @property
    def shared_wall_clock(self) -> bool:
        """Whether instants are taken from the wall clock both sides read."""
        return bool(self._shared)

    def on_sender_report(self, ntp: int, rtp_timestamp: int) -> None:
        if self._report:
            elapsed = ntp_seconds_between(self._report[0], ntp)
            media = timestamp_difference(rtp_timestamp, self._report[1]) / RTP_CLOCK
            if abs(elapsed - media) > CLOCK_STEP:
                self._exchanges.clear()
                self._anchor = None
        self._report = (ntp, rtp_timestamp)

    def on_shared_wall_clock(self, our_ntp: int, now: float) -> None:
        """The peer reads the clock on which it is `our_ntp` now."""
        if self._shared is not False:
            self._shared = True
            self._anchor = _Anchor(our_ntp, now, SHARED_CLOCK_UNCERTAINTY)

    def on_exchange(self, peer_ntp: int, arrival: float, round_trip: float) -> None:
        """A report the peer wrote at `peer_ntp` of its clock, answering one of ours."""
        exchange = _Anchor(peer_ntp, arrival - round_trip / 2, round_trip / 2)
        self._exchanges.append(exchange)
        if self._shared and self._anchor:
            claimed = self._project(self._anchor, peer_ntp)
            tolerance = exchange.uncertainty + 2 * SHARED_CLOCK_UNCERTAINTY
            if abs(claimed.instant - exchange.instant) <= tolerance:
                return
            self._shared = False
        self._anchor = min(
            self._exchanges, key=lambda known: self._project(known, peer_ntp).uncertainty
        )

    def estimate(self, timestamp: int) -> ClockEstimate | None:
        """When the sample of that RTP timestamp (32 bit or extended) was captured.

        None until reports allow an answer: one if the wall clock is shared, one each way if not.
        """
        report, anchor = self._report, self._anchor
        if not report or not anchor:
            return None
        ntp, rtp_timestamp = report
        media = timestamp_difference(timestamp, rtp_timestamp)
        return self._project(anchor, ntp + (media << 32) // RTP_CLOCK)

    @staticmethod
    def _project(anchor: _Anchor, ntp: int) -> ClockEstimate:
        seconds = ntp_seconds_between(anchor.ntp, ntp)
        return ClockEstimate(anchor.instant + seconds, anchor.uncertainty + DRIFT * abs(seconds))
