"""A transport behind a bad network."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from contextlib import suppress

from app.net.transport import Receiver, Transport
from app.netem import Delivery, NetemQueue


class ImpairedTransport:
    """Another transport with impairments before it, in either or both directions.

    Delayed datagrams leave when their time has come, up to 1 ms late: so finely asyncio's timers
    wait. Inbound ones carry the exact instant as their arrival. What is still on its way when the
    transport is closed is lost.
    """

    def __init__(
        self,
        inner: Transport,
        outbound: NetemQueue | None = None,
        inbound: NetemQueue | None = None,
    ) -> None:
        """To be made on the event loop's thread."""
        loop = asyncio.get_running_loop()
        self._inner = inner
        self._receiver: Receiver | None = None
        self._outbound: _Lane | None = None
        self._inbound: _Lane | None = None
        if outbound is not None:
            self._outbound = _Lane(outbound, lambda each: inner.send(each.data), loop)
        if inbound is not None:
            self._inbound = _Lane(inbound, self._deliver, loop)

    @property
    def local(self) -> tuple[str, int]:
        return self._inner.local

    def send(self, data: bytes) -> None:
        if self._outbound:
            self._outbound.push(data, time.monotonic())
        else:
            self._inner.send(data)

    def set_receiver(self, receiver: Receiver) -> None:
        self._receiver = receiver
        self._inner.set_receiver(self._inbound.push if self._inbound else receiver)

    def _deliver(self, delivery: Delivery) -> None:
        if self._receiver:
            self._receiver(delivery.data, delivery.at)

    def refused_since(self, instant: float) -> bool:
        return self._inner.refused_since(instant)

    def close(self) -> None:
        for lane in (self._outbound, self._inbound):
            if lane:
                lane.close()
        self._inner.close()


class _Lane:
    """One direction: a queue and the timer that empties it."""

    def __init__(
        self,
        queue: NetemQueue,
        emit: Callable[[Delivery], None],
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        self._queue = queue
        self._emit = emit
        self._loop = loop
        self._lock = threading.Lock()
        self._timer: asyncio.TimerHandle | None = None
        self._armed_for = float("inf")
        self._closed = False

    def push(self, data: bytes, now: float) -> None:
        """Any thread; what meets no delay goes on at once, on the same."""
        with self._lock:
            self._queue.push(data, now)
            due = self._release(now)
            sooner = due < self._armed_for
        if sooner:
            with suppress(RuntimeError):  # the loop may be gone already
                self._loop.call_soon_threadsafe(self._on_time)

    def _release(self, now: float) -> float:
        """Lets go what is due; when there is more."""
        for delivery in self._queue.pop_due(now):
            if not self._closed:
                self._emit(delivery)
        due = self._queue.next_due()
        return float("inf") if due is None else due

    def _on_time(self) -> None:
        if self._timer:
            self._timer.cancel()
            self._timer = None
        with self._lock:
            due = self._armed_for = self._release(time.monotonic())
        if due < float("inf") and not self._closed:
            self._timer = self._loop.call_later(max(0.0, due - time.monotonic()), self._on_time)

    def close(self) -> None:
        self._closed = True
        if self._timer:
            self._timer.cancel()
