"""The delay that is worth its while: when frames become available, against what waiting costs."""

from __future__ import annotations

import math
from collections import OrderedDict

from codec import FRAME_SECONDS
from codec.frame import FrameSource
from jitterbuffer.latency import LONGEST_DELAY, LatencyPolicy

BUCKET = 0.005
"""Seconds."""
BUCKETS = round(LONGEST_DELAY / BUCKET)
EDGES = tuple(BUCKET * (bucket + 1) for bucket in range(BUCKETS))
MEMORY = 400
"""Frames after which what was seen counts 1/e: 8 s."""
LARGEST_UNIT = 1e9
"""What a frame may count before counts are scaled back, every 166 s. Counts under 1 are then
those of frames longer ago."""
PRIOR = 250
"""Frames without delay or loss that are taken as seen before the first, so that neither an unlucky
start nor a stall soon after it decides alone."""
FALL = 0.020
"""Seconds per second by which the target comes down; it goes up at once."""
NEAR = 0.100
"""Seconds above what is wanted, from which on it comes down faster: `FALL_BEYOND` per second of
what lies beyond."""
FALL_BEYOND = 0.5
AT_ONCE = 0.005
"""Seconds between packets that were kept back together."""
STALL = 10
"""Packets of those that count, 200 ms. A stall is one event, however many packets it kept back; no
bearable delay would bridge a longer one, and to hear the end of it is worth little."""
WINDOW = 64
"""Frames that a packet may still say something about: more than DRED reaches back."""

VALUE = {
    FrameSource.PACKET: 1.0,
    FrameSource.RED: 1.0,
    FrameSource.LBRR: 0.9,
    FrameSource.DRED: 0.8,
}
"""What a frame is worth by what it is made from, where a concealed one is worth nothing."""


class TargetDelay:
    """Chooses the delay at which one more frame heard is no longer worth the wait for it.

    The histogram is over the delay, relative to the fastest packets', from which on a frame *can*
    be played: the delay of its own packet, or of a later one that carries it, plus the time
    between the two frames; and the notice. So what a hole takes to be filled counts like a late
    packet, weighed by the quality of the filling. It forgets as NetEq's does.

    Forgetting makes the unit larger that new frames are counted in, not the old counts smaller:
    this runs for every packet, and mostly one bucket of hundreds is all that matters.
    """

    def __init__(self, policy: LatencyPolicy, notice: float = 0.0) -> None:
        """`notice`: seconds before a frame is heard that what it is made from has to be here."""
        self._policy = policy
        self._notice = notice
        self._frames = float(PRIOR)
        self._unit = 1.0
        """What a frame that comes now counts in the histogram."""
        self._histogram = [0.0] * BUCKETS
        self._histogram[0] = self._mass = self._frames
        self._value: OrderedDict[int, float] = OrderedDict()
        """By sequence number, the best that could be made of recent frames so far."""
        self._worthless = 0
        """Of those, how many nothing has come of yet."""
        self._highest: int | None = None
        self._arrival = -math.inf
        self._at_once = 0
        """Packets that came at once with the last."""
        self._reference: float | None = None
        self._seconds = policy.min_delay

    @property
    def seconds(self) -> float:
        """The target: from the arrival of the fastest packets to their playout."""
        return self._seconds

    def renumber(self) -> None:
        """Another source follows, over the same network."""
        self._value.clear()
        self._worthless = 0
        self._highest = self._reference = None
        self._arrival = -math.inf

    def arrived(
        self, sequence: int, relative: float, reference: float, *, lbrr: bool, dred_frames: int
    ) -> None:
        """A packet has come with this relative delay; that of the fastest is the reference.

        Seconds of arrival less media time. `sequence` is extended. The packet carries the frame
        before it (`lbrr`), and so many in front of it (`dred_frames`).
        """
        self._refer(reference)
        delay = relative - reference
        new = self._advance(sequence)
        if self._is_stalled(relative + sequence * FRAME_SECONDS):
            self._worthless -= self._value.get(sequence) == 0.0
            self._value[sequence] = VALUE[FrameSource.PACKET]
            lbrr, dred_frames = False, 0
        self._credit(sequence, delay, FrameSource.PACKET)
        if lbrr:
            self._credit(sequence - 1, delay + FRAME_SECONDS, FrameSource.LBRR)
        if dred_frames and self._worthless:
            for number, value in self._value.items():
                back = sequence - number
                if 0 < back <= dred_frames and value < VALUE[FrameSource.DRED]:
                    self._credit(number, delay + back * FRAME_SECONDS, FrameSource.DRED)
        self._choose(new)

    def copy_arrived(self, sequence: int, delay: float) -> None:
        """A copy of this packet has come, so much later than the fastest packets would have."""
        self._credit(sequence, delay, FrameSource.RED)

    def comes_late(self, wait: float) -> bool:
        """Whether, of what is not there at the target delay, most comes within so many seconds."""
        first, end = round(self._seconds / BUCKET), round((self._seconds + wait) / BUCKET)
        at, then = sum(self._histogram[:first]), sum(self._histogram[first:end])
        return then > 0.5 * max(self._unit, self._frames * self._unit - at)

    def _is_stalled(self, arrival: float) -> bool:
        """Whether so many packets came right before this one that it says nothing new."""
        self._at_once = self._at_once + 1 if arrival - self._arrival < AT_ONCE else 0
        self._arrival = arrival
        return self._at_once >= STALL

    def _refer(self, reference: float) -> None:
        """Where even the fastest have become slower, what was slow is no longer."""
        if self._reference is None or reference < self._reference:
            self._reference = reference
        buckets = int((reference - self._reference) / BUCKET)
        if buckets > 0:
            self._reference += buckets * BUCKET
            below = sum(self._histogram[:buckets])
            self._histogram = self._histogram[buckets:] + [0.0] * min(buckets, BUCKETS)
            self._histogram[0] += below
            self._seconds = max(self._policy.min_delay, self._seconds - buckets * BUCKET)

    def _advance(self, sequence: int) -> int:
        """Makes room for the frames up to this one; how many are new."""
        if self._highest is None:
            self._highest = sequence - 1
        new = max(0, sequence - self._highest)
        if new:
            kept = (1 - 1 / MEMORY) ** new
            self._unit /= kept
            if self._unit > LARGEST_UNIT:
                self._scale_back()
            self._frames = self._frames * kept + MEMORY * (1 - kept)
            for number in range(max(self._highest + 1, sequence - WINDOW + 1), sequence + 1):
                self._value[number] = 0.0
                self._worthless += 1
            while len(self._value) > WINDOW:
                self._worthless -= self._value.popitem(last=False)[1] == 0.0
            self._highest = sequence
        return new

    def _scale_back(self) -> None:
        self._histogram = [count / self._unit for count in self._histogram]
        self._mass = sum(self._histogram)
        self._unit = 1.0

    def _credit(self, number: int, delay: float, source: FrameSource) -> None:
        """From `delay` on, the frame can be made from `source`."""
        before = self._value.get(number)
        bucket = max(0, int((delay + self._notice) / BUCKET))
        if before is None or before >= VALUE[source]:
            return
        self._worthless -= before == 0.0
        self._value[number] = VALUE[source]
        if bucket < BUCKETS:
            gain = self._unit * (VALUE[source] - before)
            self._histogram[bucket] += gain
            self._mass += gain

    def _best(self) -> float:
        """The delay at which what is heard, at the policy's price, exceeds the delay by most."""
        price = 100 * self._policy.worth / (self._frames * self._unit)
        everything = price * self._mass
        heard, best, most = 0.0, 0.0, -math.inf
        for count, edge in zip(self._histogram, EDGES, strict=True):
            if everything - edge <= most:
                break  # to hear the rest is not worth it, however soon it comes
            heard += count
            gain = price * heard - edge
            if gain > most:
                best, most = edge, gain
        return best

    def _choose(self, new: int) -> None:
        best = self._best()
        fall = FALL + FALL_BEYOND * max(0.0, self._seconds - best - NEAR)
        wanted = max(best, self._seconds - fall * FRAME_SECONDS * new)
        self._seconds = min(max(wanted, self._policy.min_delay), self._policy.max_delay)
