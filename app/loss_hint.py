"""From the peer's loss reports to the encoder's expected loss."""

from __future__ import annotations

RISE = 0.5
FALL = 0.1
"""Weight of a new report of more, or of less, loss than expected. Redundancy that comes too late
is heard at once, redundancy that stays too long only costs bits."""

CEILING = 50
"""Percent: beyond it libopus starves the speech itself."""

START = 10
"""Percent, until the first report: so that the first burst already meets redundancy."""


class LossHint:
    """Smooths RTCP's fraction lost; quick up, slow down.

    `fixed` percent, if given, stands whatever is reported. `floor` keeps redundancy alive on a
    clean network: libopus sends no LBRR at 0.
    """

    def __init__(self, fixed: int | None = None, floor: int = 0) -> None:
        self._fixed = fixed
        self._floor = floor
        self._percent = float(max(START, floor))

    @property
    def percent(self) -> int:
        """0-100, for the encoder."""
        if self._fixed is not None:
            return self._fixed
        return round(min(CEILING, max(self._floor, self._percent)))

    def update(self, fraction_lost: float) -> int:
        """Takes in one report (0..1 lost since the previous one) and returns the new hint."""
        reported = 100 * fraction_lost
        weight = RISE if reported > self._percent else FALL
        self._percent += weight * (reported - self._percent)
        return self.percent
