"""A call under a virtual clock: the parts of a real one, a network of one's choice, no waiting.

    result = simulate(pcm, SimulationOptions(CallOptions(outbound=Impairment(netem=...))))

One side speaks, the other listens and reports back by RTCP. Speech passes through the same sender,
RTP session, impairment, jitter buffer, decoder and playout as in a call, and the same input and
options give the same output, bit by bit. Models are loaded once per process.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt

from app.alignment import Alignment
from app.arrivals import ArrivalReplay, ArrivalTrace
from app.audio.sink import LEAD, prepare_paced
from app.call_report import dred_use, inbound_stats, mean_bitrate, outbound_stats
from app.coding import make_buffer, make_decoder
from app.delay import DelayAccount
from app.impairment import ImpairedLink
from app.ledger import Ledger, LedgerEntry
from app.net.clockmap import ClockEstimate
from app.net.rtp import RtpReceived, timestamp_difference
from app.netem import LossTrace, Netem, NetemSpec, derive_seed, load_loss_trace
from app.options import CallOptions, UsageError
from app.pacing import Pacer
from app.playout import Playout
from app.reception import Reception
from app.report import CallReport
from app.timeline import Timeline
from app.virtual_network import Link, VirtualNetwork
from codec import FRAME, FRAME_SECONDS, FRAME_TICKS, SAMPLE_RATE
from codec.frame import FrameSource, HoleAction, PcmFrame
from jitterbuffer import JitterBuffer
from jitterbuffer.buffer import LONGEST_MAX_DELAY

Pcm = npt.NDArray[np.int16]

MAX_DRIFT = 10_000.0
"""Parts per million between two sound cards; real ones stay below 100."""

_TIMES = (
    "jitterBufferDelay",
    "jitterBufferTargetDelay",
    "jitterBufferMinimumDelay",
    "jitterBufferEmittedCount",
    "totalProcessingDelay",
)

LONGEST_WAIT = 10.0
"""Seconds that playout goes on after everything has arrived, for whatever is still to be heard."""


@dataclass(frozen=True, slots=True)
class SimulationOptions:
    """What is simulated. Raises UsageError where parts exclude each other."""

    call: CallOptions = field(default_factory=CallOptions)
    """Coding, recovery, buffer and seed; `outbound` is done to the speech, and its netem spec to
    the reports on their way back. Sources, sinks, files and what is inbound play no part."""
    ideal: bool = False
    """The first packet that comes after a hole is there in time, however long the hole, and when
    it comes counts for nothing, as in published comparisons. The buffer's settings play no part."""
    loss_trace: LossTrace | None = None
    """In place of the file in `call.outbound`."""
    arrivals: ArrivalTrace | None = None
    """In place of any impairment."""
    drift_ppm: float = 0.0
    """By how much faster the sender's sound card runs than the receiver's."""

    def __post_init__(self) -> None:
        if self.arrivals is not None and (self.call.outbound or self.loss_trace is not None):
            raise UsageError("--trace-arrivals: arrivals leave nothing to --netem or --loss-trace")
        if self.loss_trace is not None and self.call.outbound.loss_trace is not None:
            raise UsageError("a loss trace is given twice")
        if not abs(self.drift_ppm) <= MAX_DRIFT:
            raise UsageError(f"--drift: {self.drift_ppm:g} is not within {MAX_DRIFT:g} ppm")


@dataclass(frozen=True, slots=True)
class SimulatedFrame:
    """One frame of playout. Instants are seconds since the first sample was captured."""

    playout: float
    """When its first sample was heard."""
    source: FrameSource
    action: HoleAction
    """What was done about time: a frame that is held (HOLD) is played in addition."""
    number: int | None
    """Of the frame of the source that was due, from 0; None where none was."""
    captured: float | None
    """When the first sample of that frame was captured."""
    arrival: float | None
    """When the packet came that it was made from; None if it was made from none. In ideal mode,
    when it would have come on a network without delay: later than `playout` behind a hole."""
    own_arrival: float | None
    """When the frame's own packet came, in time or not; None if it never did."""
    target_delay: float
    """What the jitter buffer aimed at, seconds."""
    delay: float | None
    """From mouth to ear, seconds; None in ideal mode and where there is none to speak of."""
    stretched: float
    """Seconds that time stretching has put in (> 0) or left out since the frame before began."""


@dataclass(frozen=True, slots=True)
class SimulationResult:
    """What came of it."""

    heard: Pcm
    """int16 [320 n]: everything played, from `began` on."""
    began: float
    """Seconds from the capture of the first sample to the first of `heard`."""
    aligned: Pcm
    """int16, as long as the input: sample n is what was heard for sample n of the input, 0 where
    nothing was. A pitch period left out by time stretching is filled with the one before."""
    frames: list[SimulatedFrame]
    """In order of playout; each is heard in `heard` from `playout` - `began` on."""
    timeline: Timeline
    ledger: list[LedgerEntry]
    """As a call keeps it, one entry for each of `frames`."""
    report: CallReport
    """With the names of a call's; nothing in it depends on the machine."""


def simulate(pcm: npt.ArrayLike, options: SimulationOptions) -> SimulationResult:
    """What is heard of `pcm`, int16 [n] at 16 kHz.

    Raises UsageError or NetemError for options that will not do, OpusError and the errors of
    missing models, ValueError when `pcm` is empty or of another kind.
    """
    samples = np.asarray(pcm)
    if samples.dtype != np.int16 or samples.ndim != 1 or not len(samples):
        raise ValueError(f"pcm is int16 [n], not {samples.dtype} {list(samples.shape)}")
    return _Simulation(samples, options).run()


class _Simulation:
    def __init__(self, pcm: Pcm, options: SimulationOptions) -> None:
        self._pcm = pcm
        self._options = options
        call = options.call
        self.network = VirtualNetwork(
            call,
            self._source_frames(),
            way=_way_of(options),
            way_back=_way_back_of(call),
            on_media=self._on_media,
            drift=1e-6 * options.drift_ppm,
        )
        lookahead = self.network.outbound.encoder.lookahead
        self._last = -(-(len(pcm) + lookahead) // FRAME) - 1
        """Number of the last frame that is sent: it holds the end of what was said."""
        self._buffer = _ideal_buffer(call) if options.ideal else make_buffer(call)
        self._decoder = make_decoder(call)
        self._delay = DelayAccount(lookahead)
        self._delay.clock_uncertainty = None if options.ideal else 0.0
        self._log = _FrameLog()
        self._timeline = Timeline()
        self._playout = Playout(
            self._buffer,
            self._decoder,
            captured_at=self._captured_at,
            clock=lambda: self._clock if options.ideal else self.network.now,
            delay=self._delay,
            ledger=self._log,
            timeline=self._timeline,
        )
        self._pacer = Pacer(lead=LEAD, clock=lambda: self.network.now, sleep=self._sleep)
        # clocks that drift apart are sound cards'
        self._reception = Reception(
            self._buffer, self._pacer.align, keeps_beat=bool(options.drift_ppm)
        )
        self._own_arrivals: dict[int, float] = {}
        self._received: list[tuple[int, RtpReceived]] = []
        self._clock = 0.0
        self._heard: list[PcmFrame] = []
        self._began = 0.0
        self._frames: list[SimulatedFrame] = []
        self._spoken = False
        self._alignment = Alignment(self._last + 1, lookahead)

    def run(self) -> SimulationResult:
        if self._options.ideal:
            self._play_ideal()
        else:
            self._play()
        heard = np.concatenate(self._heard) if self._heard else np.zeros(0, np.int16)
        return SimulationResult(
            heard=heard,
            began=self._began,
            aligned=self._alignment.result(len(self._pcm)),
            frames=self._frames,
            timeline=self._timeline,
            ledger=self._log.entries,
            report=self._report(),
        )

    def _source_frames(self) -> Iterator[PcmFrame]:
        """The source, and silence behind it until the coder has given all of it away."""
        padded = np.zeros((self._last + 1) * FRAME, np.int16)
        padded[: len(self._pcm)] = self._pcm
        yield from padded.reshape(-1, FRAME)

    # Arrival

    def _ticks(self, timestamp: int) -> int:
        """RTP time since the first frame's, of a timestamp as sent or extended."""
        return timestamp_difference(timestamp & 0xFFFF_FFFF, self.network.speaker.rtp_origin)

    def _number(self, timestamp: int) -> int:
        """Of the frame with an RTP timestamp."""
        return round(self._ticks(timestamp) / FRAME_TICKS)

    def _captured_at(self, timestamp: int) -> ClockEstimate | None:
        if self._options.ideal:
            return None
        return ClockEstimate(self.network.captured_at(self._ticks(timestamp) / FRAME_TICKS), 0.0)

    def _on_media(self, received: RtpReceived) -> None:
        number = self._number(received.timestamp)
        self._own_arrivals.setdefault(number, received.arrival)
        self._timeline.add_packet(received.timestamp, received.arrival)
        if self._options.ideal:
            self._received.append((number, received))
        else:
            self._reception.take(received)

    # Playout

    def _sleep(self, seconds: float) -> None:
        self.network.advance(self.network.now + seconds)

    def _play(self) -> None:
        over_at = np.inf
        played = -1
        while played < self._last:
            playout_at = self._pacer.wait()
            if over_at == np.inf and self.network.idle:
                over_at = playout_at + LONGEST_WAIT if self._own_arrivals else playout_at
            if playout_at >= over_at:
                break
            for frame in self._render(playout_at):
                if frame.number is not None and frame.action is not HoleAction.HOLD:
                    played = max(played, frame.number)
            self._pacer.finished()
            prepare_paced(self._pacer, self._playout.prepare)
        # stretching leaves a part of the last frame to be heard
        self._playout.draining = True
        for _ in range(2):
            if played == self._last and not self._alignment.complete:
                self._render(self._pacer.wait())

    def _play_ideal(self) -> None:
        """First the whole network, then playout, which is given packets as it needs them."""
        while not self.network.idle:
            self._sleep(1.0)
        waiting = sorted(self._received, key=lambda entry: entry[0])
        if not waiting:
            return
        first = waiting[0][0]
        given = 0
        for number in range(first, self._last + 1):
            until = bisect_left(waiting, number, key=lambda entry: entry[0]) + 1
            for slot, received in waiting[given:until]:
                arrival = self.network.captured_at(slot + 1)
                self._reception.take(received._replace(arrival=arrival))
            given = max(given, until)
            self._clock = self.network.captured_at(number + 1)
            self._render(self._clock)

    def _render(self, playout_at: float) -> list[SimulatedFrame]:
        """Plays 20 ms; the frames that begin there."""
        if not self._heard:
            self._began = playout_at
        entered = len(self._log.entries)
        pcm = self._playout.render(playout_at).pcm
        self._heard.append(pcm)
        starts = [part.offset for part in self._playout.parts if part.begins]
        entries = self._log.entries[entered:]
        frames = [
            self._frame(entry, playout_at + start / SAMPLE_RATE)
            for entry, start in zip(entries, starts, strict=True)
        ]
        self._frames += frames
        self._alignment.add(pcm, self._playout.parts, self._ticks)
        return frames

    def _frame(self, entry: LedgerEntry, playout_at: float) -> SimulatedFrame:
        self._spoken = self._spoken or entry.source is not FrameSource.SILENCE
        # silence before the first sound, and behind the last, stands for no frame
        due = self._spoken and (entry.source is not FrameSource.SILENCE or entry.timestamp)
        number = self._number(entry.timestamp) if due else None
        return SimulatedFrame(
            playout=playout_at,
            source=entry.source,
            action=entry.action,
            number=number,
            captured=None if number is None else self.network.captured_at(number),
            arrival=None if entry.wait_ms is None else playout_at - entry.wait_ms / 1e3,
            own_arrival=None if number is None else self._own_arrivals.get(number),
            target_delay=self._buffer.target_delay,
            delay=None if entry.delay_ms is None else entry.delay_ms / 1e3,
            stretched=entry.stretch_ms / 1e3,
        )

    # The result

    def _report(self) -> CallReport:
        network, call = self.network, self._options.call
        sender, listener = network.sender, network.listener
        seconds = FRAME_SECONDS * sender.frames
        impairment = call.outbound
        # no delay of an ideal buffer is one
        untimed = dict.fromkeys(_TIMES, 0) if self._options.ideal else {}
        return CallReport(
            side="simulate",
            codec=network.outbound.codec_name(),
            recovery=call.recovery,
            buffer="ideal" if self._options.ideal else call.buffer_text,
            duration=len(self._pcm) / SAMPLE_RATE,
            ended="the source has ended",
            seed=call.seed,
            netem=None if impairment.netem is None else str(impairment.netem),
            loss_trace=None if impairment.loss_trace is None else str(impairment.loss_trace),
            inbound=replace(inbound_stats(listener, self._buffer, self._playout), **untimed),
            outbound=outbound_stats(network.speaker, sender, network.outbound.bitrate),
            frames=dict(self._playout.frames),
            sent_bitrate=mean_bitrate(
                sender.payload_bytes, sender.dred_bytes, seconds, sender.red_bytes
            ),
            received_bitrate=mean_bitrate(
                listener.bytes_received,
                self._buffer.stats.dred_bytes_received,
                seconds,
                listener.red_bytes_received,
            ),
            delay=None if self._options.ideal else self._delay.summary(),
            dred=dred_use(self._buffer, self._decoder, self._playout, offered=True)
            if call.recovery.dred
            else None,
        )


class _FrameLog(Ledger):
    """Keeps all entries instead of writing them."""

    def __init__(self) -> None:
        super().__init__()
        self.entries: list[LedgerEntry] = []

    @property
    def is_kept(self) -> bool:
        return True

    def add(self, entry: LedgerEntry) -> None:
        self.entries.append(entry)


def _way_of(options: SimulationOptions) -> Link:
    """What speech passes through. Raises NetemError for a trace file that cannot be used."""
    if options.arrivals is not None:
        return ArrivalReplay(options.arrivals)
    impairment, trace = options.call.outbound, options.loss_trace
    if trace is None and impairment.loss_trace is not None:
        trace = load_loss_trace(impairment.loss_trace)
    return _link(options.call, "outbound", trace)


def _way_back_of(call: CallOptions) -> Link:
    """What reports pass through: the same network, with misfortunes of its own."""
    return _link(call, "inbound", None)


def _link(call: CallOptions, direction: str, trace: LossTrace | None) -> ImpairedLink:
    spec = call.outbound.netem or NetemSpec()
    return ImpairedLink(Netem(spec, seed=derive_seed(call.seed, direction)), trace)


def _ideal_buffer(call: CallOptions) -> JitterBuffer:
    return JitterBuffer(
        target_delay=0.0, max_delay=LONGEST_MAX_DELAY, recovery=call.recovery.sources
    )
