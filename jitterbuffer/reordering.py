"""How far packets come behind later ones: when one that is missing will not come any more."""

from __future__ import annotations

PERIOD = 500
"""Frames, 10 s: what was seen counts for one to two of them."""
FARTHEST = 50
"""Frames, 1 s. Later than that is late for any playout."""


class Reordering:
    """The most frames by which a packet has come behind a later one lately.

    What the network has not done for 10 s it is taken not to do: on one that keeps the order a
    packet is lost as soon as the next is here. (The reordering window of RACK, RFC 8985, is chosen
    likewise.)
    """

    def __init__(self) -> None:
        self._highest: int | None = None
        self._since = 0
        self._recent = self._before = 0

    @property
    def frames(self) -> int:
        """By so many a packet may come behind a later one."""
        return max(self._recent, self._before)

    def arrived(self, slot: int) -> None:
        """A packet has come, in the slot of its frame."""
        if self._highest is None:
            self._highest = self._since = slot
        if slot - self._since >= PERIOD:
            self._before = self._recent if slot - self._since < 2 * PERIOD else 0
            self._since, self._recent = slot, 0
        behind = self._highest - slot
        if behind > 0:
            self._recent = max(self._recent, min(behind, FARTHEST))
        else:
            self._highest = slot

    def is_over(self, slot: int) -> bool:
        """Whether the packet in `slot`, should it be missing, is not to be expected any more."""
        return self._highest is not None and self._highest - slot > self.frames
