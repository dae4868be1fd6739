"""The receiving side of a call: 20 ms of sound at a time, and the books of every frame in it."""

from __future__ import annotations

import math
from collections import Counter, deque
from collections.abc import Callable

from app.audio.base import RenderedFrame, silent_frame
from app.audio.recording import Recorder
from app.audio.sink import LEAD
from app.delay import DelayAccount, FrameTiming
from app.ledger import Ledger, LedgerEntry
from app.marker import MarkerDetector, MarkerGrid
from app.meter import LevelMeter
from app.net.clockmap import ClockEstimate
from app.timeline import Timeline
from codec import FRAME, RTP_CLOCK, SAMPLE_RATE
from codec.frame import FrameSource, PcmFrame
from codec.receiver import SpeechDecoder
from jitterbuffer import JitterBuffer, PlayedPart, PlayoutReceiver

HURRY = 0.006
"""Seconds before a frame is heard in which there is no time to make it anew: what was made ready in
case nothing came is taken."""

KEPT_DELAYS = 10_000
"""Markers heard, over two hours of them."""


class Lead:
    """How far ahead of the ear frames are rendered, beyond the time that making one may take.

    Devices want sound long before they play it, and some take several frames at once. The jitter
    buffer is asked for a frame that much earlier than it is heard, so that it never waits for
    packets that cannot have arrived. The most of the last 5 to 10 s counts, so that the buffer
    sees an even clock.
    """

    PERIOD = 5.0
    STEP = 0.005
    """Seconds. A shrinking lead is followed in steps, a growing one at once."""
    LONGEST = 1.0

    def __init__(self) -> None:
        self.seconds = 0.0
        self._since = -math.inf
        self._recent = self._before = 0.0

    def update(self, playout_at: float, now: float) -> float:
        """Takes in that the frame heard at `playout_at` is asked for `now`; the lead."""
        if now - self._since >= self.PERIOD:
            self._since, self._before, self._recent = now, self._recent, 0.0
        lead = min(self.LONGEST, playout_at - now - LEAD)
        self._recent = max(self._recent, lead)
        most = max(self._recent, self._before)
        if most > self.seconds or most < self.seconds - self.STEP:
            self.seconds = most
        return self.seconds


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
        timeline: Timeline | None = None,
    ) -> None:
        self._buffer = buffer
        self._receiver = PlayoutReceiver(buffer, decoder)
        self._captured_at = captured_at
        self._clock = clock
        self._delay = delay
        self._ledger = ledger
        self._recorder = recorder
        self._probe = probe
        self._timeline = timeline
        self._began: float | None = None
        self._made: deque[tuple[float, float]] = deque()
        """When each block was ready that was made ahead, and seconds of work for it."""
        self._rehearsed_at: dict[int, float] = {}
        """When each frame was ready that was made in case its packet does not come."""
        self._spent = 0.0
        """Seconds of work until now for the one that is made next."""
        self._stretched = 0
        """Samples put in or left out since the last frame began."""
        self.parts: tuple[PlayedPart, ...] = ()
        """What the latest 20 ms are made of; for the playout thread."""
        self.lead = Lead()
        self.draining = False
        """The call is over: what has arrived is still played, what has not is not made up."""
        self.meter = LevelMeter()
        self.frames: Counter[FrameSource] = Counter()
        self.processing_delay = 0.0
        """`totalProcessingDelay` (webrtc-stats): seconds from arrival to the end of decoding,
        summed over samples."""

    def render(self, playout_at: float) -> RenderedFrame:
        """What is heard in the 20 ms from `playout_at` (monotonic) on."""
        over = self.draining and not len(self._buffer)
        if over and not self._receiver.queued:
            self.parts = ()
            return RenderedFrame(silent_frame(), self._clock())
        before = self._clock()
        lead = self.lead.update(playout_at, before)
        if self._receiver.rehearsed and not self._made:
            # what has come since is tried on copies too: should the machine stand still now, what
            # was made before it is still there
            self.prepare(playout_at, last=True)
            before = self._clock()
        hurry = not over and playout_at - before < HURRY
        if over:
            block = self._receiver.drain()
        else:
            block = self._receiver.pull(playout_at - lead, hurry=hurry)
        done = self._clock()
        if self._made:
            ready_at, spent = self._made.popleft()
        else:
            ready_at, spent = self._ready_since(done), self._spent + done - before
            self._spent = 0.0
        is_fresh = ready_at == done
        self.parts = block.parts
        self.meter.update(block.pcm)
        if self._recorder:
            self._recorder.write(block.pcm)
        for part in block.parts:
            self._stretched += part.stretched
            if part.begins:
                self._begin(part, playout_at, lead, ready_at, spent)
        if self._probe:
            self._probe_block(self._probe, block.pcm, playout_at)
        return RenderedFrame(block.pcm, self._clock() if is_fresh else ready_at)

    def prepare(self, playout_at: float, last: bool) -> bool:
        """Does what can be done for the 20 ms from `playout_at` on before they are asked for.

        Whether they are ready. `last`: there will be no other chance. On the thread of `render`.
        """
        if self.draining:
            return True
        before = self._clock()
        if not self._made and playout_at - before < HURRY:
            return False  # `render` is next, and makes do with what there is
        for _ in self._receiver.preparing(playout_at - self.lead.seconds, last=last):
            done = self._clock()
            self._spent, before = self._spent + done - before, done
            self._note_progress(playout_at, done)
            if playout_at - done < HURRY:
                break
        else:
            self._spent += self._clock() - before
        return bool(self._made)

    def _note_progress(self, playout_at: float, done: float) -> None:
        """Keeps the books of what the receiver has just made ahead, or in case."""
        if self._receiver.ready > len(self._made):
            self._made.append((self._ready_since(done), self._spent))
            self._spent = 0.0
        elif done > playout_at:
            self._receiver.fall_back()
        known = self._rehearsed_at
        self._rehearsed_at = {n: known.get(n, done) for n in self._receiver.rehearsed}

    def _ready_since(self, done: float) -> float:
        """When the frame was there that the receiver has given now, `done`."""
        performed = self._receiver.performed
        return done if performed is None else self._rehearsed_at.get(performed, done)

    def _begin(
        self, part: PlayedPart, block_at: float, lead: float, done: float, spent: float
    ) -> None:
        """Keeps the books of a frame that is first heard in the block that begins at `block_at`.

        It was ready at `done`, after work of `spent` seconds.
        """
        plan, source = part.plan, part.source
        playout_at = block_at + part.offset / SAMPLE_RATE
        self.frames[source] += 1
        if plan.arrival is not None:
            self.processing_delay += (done - plan.arrival) * FRAME
        captured = None if source is FrameSource.SILENCE else self._captured_at(part.timestamp)
        if captured:
            self._delay.clock_uncertainty = captured.uncertainty
        total = self._delay.add(
            FrameTiming(
                playout_at=playout_at,
                captured_at=captured.instant if captured else None,
                arrival=plan.arrival if source is FrameSource.PACKET else None,
                decode_seconds=spent,
                output_latency=lead,
            )
        )
        if self._timeline:
            self._timeline.add_frame(
                playout_at,
                plan.timestamp,
                source,
                target=self._buffer.target_delay,
                delay=total,
                stretched=self._stretched / SAMPLE_RATE,
            )
        if self._began is None:
            self._began = playout_at
        if self._ledger.is_kept:
            self._ledger.add(
                LedgerEntry(
                    playout_s=playout_at - self._began,
                    timestamp=plan.timestamp,
                    source=source,
                    wait_ms=None if plan.arrival is None else 1e3 * (playout_at - plan.arrival),
                    decode_us=1e6 * spent,
                    delay_ms=None if total is None else 1e3 * total,
                    action=plan.action,
                    stretch_ms=1e3 * self._stretched / SAMPLE_RATE,
                    margin_ms=1e3 * (block_at - done),
                )
            )
        self._stretched = 0

    def _probe_block(self, probe: MarkerProbe, pcm: PcmFrame, playout_at: float) -> None:
        for part in self.parts:
            if part.source is not FrameSource.SILENCE:
                captured = self._captured_at(part.timestamp)
                if captured:
                    probe.listen(pcm, playout_at, part.timestamp, captured)
                return


class MarkerProbe:
    """Mouth-to-ear delay by the markers the peer mixes into its speech.

    Markers lie on multiples of the grid's interval in RTP time, so the relation of the peer's RTP
    timestamps to our clock says when each was captured.
    """

    def __init__(self, grid: MarkerGrid | None = None) -> None:
        self._grid = grid or MarkerGrid()
        self._detector = MarkerDetector()
        self.delays: deque[float] = deque(maxlen=KEPT_DELAYS)
        """Seconds, in the order heard: one per interval, of a long call the last."""

    def listen(
        self, pcm: PcmFrame, playout_at: float, timestamp: int, captured: ClockEstimate
    ) -> None:
        """Takes in a played frame; `captured` is when the sample of `timestamp` was."""
        wire = timestamp & 0xFFFF_FFFF
        for hit in self._detector.push(pcm, playout_at):
            match = self._grid.identify(hit, captured.instant - wire / RTP_CLOCK)
            if match:
                self.delays.append(match.delay)
