"""One call in progress: source, codec, transport and sink joined, until somebody hangs up."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

from app.arrivals import ArrivalRecorder
from app.audio import AudioSink, AudioSource, Recorder
from app.call_report import ProcessMeter
from app.coding import Outbound, make_buffer, make_decoder
from app.control_timer import ControlTimer
from app.delay import DelayAccount
from app.ledger import Ledger
from app.net.clockmap import WallClock
from app.net.rtcp import ByeReceived, ReportReceived
from app.net.rtp import RtpReceived
from app.net.sdp import MediaDescription
from app.net.session import RtpSession
from app.net.transport import Transport
from app.options import CallOptions
from app.playout import MarkerProbe, Playout
from app.priority import request_realtime
from app.reception import Reception
from app.sender import EncodedFrame
from app.timeline import Timeline
from codec import FRAME_SECONDS

SWITCH_INTERVAL = 0.0005
"""Seconds after which a thread that holds the interpreter gives it to one that waits for it."""

HOUSEKEEPING = 0.1
"""Seconds between looks at timers. RTCP need not be punctual."""

UNREACHABLE_PATIENCE = 3.0
"""Seconds of silence, during which the peer's host says that nobody listens, that end a call."""


class Ending(StrEnum):
    """Why a call ended."""

    INTERRUPTED = "hung up"
    FINISHED = "the source has ended"
    DURATION = "the time is up"
    PEER = "the peer hung up"
    SILENT = "nothing from the peer"
    UNREACHABLE = "the peer is gone"

    @property
    def orderly(self) -> bool:
        return self not in (Ending.SILENT, Ending.UNREACHABLE)


@dataclass(frozen=True, slots=True)
class CallEnd:
    ending: Ending
    detail: str = ""

    def __str__(self) -> str:
        return f"{self.ending}: {self.detail}" if self.detail else str(self.ending)


class Call:
    """Runs on the event loop; the source's and the sink's threads do the codec work."""

    def __init__(
        self,
        options: CallOptions,
        *,
        transport: Transport,
        session: RtpSession,
        remote: MediaDescription,
        source: AudioSource,
        sink: AudioSink,
        recorder: Recorder | None,
        hang_up_at_end: bool,
    ) -> None:
        """`hang_up_at_end`: whether the end of the source ends the call or only our speech."""
        self.options = options
        self.session = session
        self.remote = remote
        self._transport = transport
        self._source = source
        self.sink = sink
        self._recorder = recorder
        self._hang_up_at_end = hang_up_at_end
        self._loop = asyncio.get_running_loop()
        self._wall = WallClock()
        self._end: asyncio.Future[CallEnd] = self._loop.create_future()
        self._housekeeping: asyncio.TimerHandle | None = None
        self._began = self._ended = time.monotonic()
        self._ledger = Ledger(options.ledger)
        self._arrivals = (
            ArrivalRecorder(options.record_arrivals) if options.record_arrivals else None
        )
        self.timeline = Timeline() if options.timeline else None
        self.control = ControlTimer()

        self.realtime = False
        """Whether the system runs us ahead of ordinary work."""
        self.process = ProcessMeter.start()

        self.outbound = Outbound(options, remote.opus, remote.red, remote.payload_type)
        self.sender = self.outbound.sender(
            emit=self._send,
            ended=lambda: self._on_loop(self._source_ended),
            clock=time.monotonic,
            rtp_origin=session.rtp_origin,
        )
        self.buffer = make_buffer(options)
        self._reception = Reception(self.buffer, sink.align)
        self.decoder = make_decoder(options)
        self.probe = MarkerProbe() if options.probe else None
        self.delay = DelayAccount(self.outbound.encoder.lookahead)
        self.playout = Playout(
            self.buffer,
            self.decoder,
            captured_at=session.captured_at,
            clock=time.monotonic,
            delay=self.delay,
            ledger=self._ledger,
            recorder=recorder,
            probe=self.probe,
            timeline=self.timeline,
        )

    @property
    def seconds(self) -> float:
        """How long the call has lasted."""
        return (time.monotonic() if not self._end.done() else self._ended) - self._began

    def hang_up(self, ending: Ending = Ending.INTERRUPTED, detail: str = "") -> None:
        """Ends the call; of several reasons the first counts. Event loop only."""
        if not self._end.done():
            self._ended = time.monotonic()
            self._end.set_result(CallEnd(ending, detail))
            self.playout.draining = True

    async def run(self) -> CallEnd:
        """Until either side hangs up or the peer falls silent. Files are whole afterwards."""
        # what was loaded until now is not garbage; looking through it would stop all threads for
        # longer than a frame lasts
        gc.freeze()
        # of two threads in need of the interpreter, the one that plays must not wait for 5 ms
        sys.setswitchinterval(SWITCH_INTERVAL)
        self.realtime = request_realtime()
        self.control.start()
        self._transport.set_receiver(self._receive)
        try:
            self.sink.start(self.playout.render, self.playout.prepare)
            self._source.start(self.sender.deliver)
            self._keep_house()
            await asyncio.wait([self._end])
            return await self._wind_down(self._end.result())
        finally:
            if self._housekeeping is not None:
                self._housekeeping.cancel()
            await asyncio.to_thread(self._close)

    @property
    def output_error(self) -> str | None:
        """Why nothing more is recorded or written down, if so."""
        outputs = (self._recorder, self._ledger, self._arrivals)
        return next((output.error for output in outputs if output and output.error), None)

    # The source's thread

    def _on_loop(self, work: Callable[..., None], *arguments: object) -> None:
        """From another thread; a loop that is being closed takes no more work."""
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(work, *arguments)

    def _send(self, frame: EncodedFrame) -> None:
        if self.remote.direction.receives and not self._end.done():
            self._transport.send(
                self.session.packetise(
                    frame.payload, frame.timestamp, frame.captured_at, red=frame.is_red
                )
            )

    # The event loop's thread

    def _source_ended(self) -> None:
        if self._hang_up_at_end:
            self.hang_up(Ending.FINISHED)

    def _receive(self, data: bytes, arrival: float) -> None:
        for event in self.session.receive(data, arrival, self._wall.ntp(arrival)):
            match event:
                case RtpReceived():
                    self._reception.take(event)
                    if self.timeline:
                        self.timeline.add_packet(event.timestamp, arrival)
                    if self._arrivals:
                        self._arrivals.add(event)
                case ReportReceived(reception=reception, bursts=bursts) if reception is not None:
                    self.sender.protect(
                        self.outbound.policy.update(reception.fraction_lost, bursts)
                    )
                case ByeReceived():
                    self.hang_up(Ending.PEER)

    def _keep_house(self) -> None:
        """Looks at the timers, now and from now on until the end of the call."""
        if self._end.done():
            return
        try:
            self._look_at_timers()
        except Exception as error:
            self._end.set_exception(error)  # for `run` to raise
        else:
            # not a loop in `run`: to come back to it takes the event loop another turn
            self._housekeeping = self._loop.call_later(HOUSEKEEPING, self._keep_house)

    def _look_at_timers(self) -> None:
        now = time.monotonic()
        if self.session.rtcp_due(now):
            self._transport.send(self.session.make_report(now, self._wall.ntp(now)))
        self._watch_peer(now)
        if self.options.duration is not None and self.seconds >= self.options.duration:
            self.hang_up(Ending.DURATION)
        self._ledger.flush()

    def _watch_peer(self, now: float) -> None:
        heard = max(self._began, self.session.last_heard or 0.0)
        silence = now - heard
        refused_since = max(heard, now - UNREACHABLE_PATIENCE / 2)
        if silence > UNREACHABLE_PATIENCE and self._transport.refused_since(refused_since):
            self.hang_up(Ending.UNREACHABLE, "its port is closed")
        elif silence > self.options.timeout:
            self.hang_up(Ending.SILENT, f"for {silence:.0f} s")

    async def _wind_down(self, end: CallEnd) -> CallEnd:
        """Says goodbye, and lets what has already arrived be heard."""
        await asyncio.to_thread(self._source.stop)
        now = time.monotonic()
        if end.ending is not Ending.PEER:
            self._transport.send(self.session.make_bye(now, self._wall.ntp(now)))
        patience = now + self.buffer.target_delay + 2 * FRAME_SECONDS
        while len(self.buffer) and time.monotonic() < patience:
            await asyncio.sleep(FRAME_SECONDS / 4)
        await asyncio.sleep(self.playout.lead.seconds)  # what has been rendered is yet to be heard
        return end

    def _close(self) -> None:
        self._source.stop()
        self.sink.stop()
        if self._recorder:
            self._recorder.close()
        self.control.stop()
        self._ledger.close()
        if self._arrivals:
            self._arrivals.close()
