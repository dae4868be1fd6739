"""The receiving side of a call: one plan, one decoded frame and its account per 20 ms."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

from app.audio.base import silent_frame
from app.audio.recording import Recorder
from app.delay import DelayAccount, FrameTiming
from app.ledger import Ledger, LedgerEntry
from app.marker import MarkerDetector, MarkerGrid
from app.meter import LevelMeter
from app.net.clockmap import ClockEstimate
from codec import FRAME, RTP_CLOCK
from codec.frame import FrameSource, PcmFrame
from codec.receiver import SpeechDecoder
from jitterbuffer import JitterBuffer


class Playout:
    """Renders frames on the sink's playout thread; its figures may be read from any thread."""

    def __init__(
        self,
        buffer: JitterBuffer,
        decoder: SpeechDecoder,
        captured_at: Callable[[int], ClockEstimate | None],
        clock: Callable[[], float],
        delay: DelayAccount,
        ledger: Ledger,
        recorder: Recorder | None = None,
        probe: MarkerProbe | None = None,
    ) -> None:
        self._buffer = buffer
        self._decoder = decoder
        self._captured_at = captured_at
        self._clock = clock
        self._delay = delay
        self._ledger = ledger
        self._recorder = recorder
        self._probe = probe
        self._began: float | None = None
        self.draining = False
        """The call is over: what has arrived is still played, what has not is not made up."""
        self.meter = LevelMeter()
        self.frames: Counter[FrameSource] = Counter()
        self.processing_delay = 0.0
        """`totalProcessingDelay` (webrtc-stats): seconds from arrival to the end of decoding,
        summed over samples."""

    def render(self, playout_at: float) -> PcmFrame:
        """The frame heard from `playout_at` (monotonic) on."""
        if self.draining and not len(self._buffer):
            return silent_frame()
        plan = self._buffer.pull(playout_at)
        before = self._clock()
        pcm, source = self._decoder.carry_out(plan)
        done = self._clock()
        decode_seconds = done - before
        if plan.arrival is not None:
            self.processing_delay += (done - plan.arrival) * FRAME
        self.frames[source] += 1
        self.meter.update(pcm)
        if self._recorder:
            self._recorder.write(pcm)
        captured = None if source is FrameSource.SILENCE else self._captured_at(plan.timestamp)
        if captured:
            self._delay.clock_uncertainty = captured.uncertainty
            if self._probe:
                self._probe.listen(pcm, playout_at, plan.timestamp, captured)
        total = self._delay.add(
            FrameTiming(
                playout_at=playout_at,
                captured_at=captured.instant if captured else None,
                arrival=plan.arrival if source is FrameSource.PACKET else None,
                decode_seconds=decode_seconds,
            )
        )
        self._enter(playout_at, plan.timestamp, source, plan.arrival, decode_seconds, total)
        return pcm

    def _enter(
        self,
        playout_at: float,
        timestamp: int,
        source: FrameSource,
        arrival: float | None,
        decode_seconds: float,
        delay: float | None,
    ) -> None:
        if self._began is None:
            self._began = playout_at
        self._ledger.add(
            LedgerEntry(
                playout_s=playout_at - self._began,
                timestamp=timestamp,
                source=source,
                wait_ms=None if arrival is None else 1e3 * (playout_at - arrival),
                decode_us=1e6 * decode_seconds,
                delay_ms=None if delay is None else 1e3 * delay,
            )
        )


class MarkerProbe:
    """Mouth-to-ear delay by the markers the peer mixes into its speech.

    Markers lie on multiples of the grid's interval in RTP time, so the relation of the peer's RTP
    timestamps to our clock says when each was captured.
    """

    def __init__(self, grid: MarkerGrid | None = None) -> None:
        self._grid = grid or MarkerGrid()
        self._detector = MarkerDetector()
        self.delays: list[float] = []
        """Seconds, in the order heard; one per interval of the call."""

    def listen(
        self, pcm: PcmFrame, playout_at: float, timestamp: int, captured: ClockEstimate
    ) -> None:
        """Takes in a played frame; `captured` is when the sample of `timestamp` was."""
        wire = timestamp & 0xFFFF_FFFF
        for hit in self._detector.push(pcm, playout_at):
            match = self._grid.identify(hit, captured.instant - wire / RTP_CLOCK)
            if match:
                self.delays.append(match.delay)
