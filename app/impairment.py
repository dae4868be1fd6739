"""From the impairment options of one direction to the link its datagrams go through."""

from __future__ import annotations

from app.net.session import is_rtcp
from app.netem import LossTrace, Netem, NetemQueue, NetemSpec, derive_seed, load_loss_trace
from app.options import Impairment


class ImpairedLink(NetemQueue):
    """One direction of a link: what enters with `push` comes out with `pop_due`, or does not.

    The trace has one entry per media packet: reports on the same port pass it by, so that a trace
    made for speech meets the speech packet by packet. The netem model hurts both alike.
    """

    def __init__(self, netem: Netem, trace: LossTrace | None) -> None:
        super().__init__(netem)
        self._trace = trace
        self._media = 0

    def push(self, data: bytes, now: float) -> None:
        if self._trace and not is_rtcp(data):
            lost = self._trace[self._media]
            self._media += 1
            if lost:
                return
        super().push(data, now)


def impaired_link(impairment: Impairment, seed: int, direction: str) -> ImpairedLink | None:
    """None if nothing is to be impaired. `direction` keeps the two ways of one seed apart.

    Raises NetemError for a trace file that cannot be used.
    """
    if not impairment:
        return None
    trace = load_loss_trace(impairment.loss_trace) if impairment.loss_trace else None
    netem = Netem(impairment.netem or NetemSpec(), seed=derive_seed(seed, direction))
    return ImpairedLink(netem, trace)
