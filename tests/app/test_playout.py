"""What is heard, and the books that are kept of it, under a clock of the test's own."""

from __future__ import annotations

from collections.abc import Callable, Container
from collections.abc import Set as AbstractSet
from pathlib import Path

import numpy as np
import pytest

from app.audio import Recorder
from app.audio.sink import LEAD
from app.delay import DelayAccount, Stage
from app.ledger import Ledger, read_ledger
from app.marker import MarkerInjector
from app.net.clockmap import ClockEstimate
from app.playout import Lead, MarkerProbe, Playout
from codec import FRAME, FRAME_SECONDS, FRAME_TICKS, RTP_CLOCK
from codec.concealer import Concealer
from codec.dred import DredDecoder
from codec.frame import FramePlan, FrameSource, PcmFrame
from codec.opus import OpusDecoder, OpusEncoder
from codec.receiver import SpeechDecoder
from jitterbuffer import JitterBuffer, Latency, LatencyPolicy, MediaPacket
from tests.app.calls import MAN, clip, read_wav
from tests.jitterbuffer.speech import coded

ORIGIN = 2**32 - 48_000
"""RTP timestamp of media time 0: it wraps after a second."""

NETWORK = 0.010
TARGET = 0.060


class Receiver:
    """A buffer, a decoder and a playout, fed by an encoder over a link of constant delay."""

    def __init__(
        self,
        tmp_path: Path,
        *,
        probe: MarkerProbe | None = None,
        target: float | LatencyPolicy = TARGET,
        decoder: SpeechDecoder | None = None,
    ) -> None:
        self.now = 0.0
        self.encoder = OpusEncoder(expected_loss=20)
        self.buffer = JitterBuffer(target_delay=target)
        self.delay = DelayAccount(self.encoder.lookahead)
        self.ledger_path = tmp_path / "frames.csv"
        self.ledger = Ledger(self.ledger_path)
        self.recorder = Recorder(tmp_path / "heard.wav")
        self.playout = Playout(
            self.buffer,
            decoder or SpeechDecoder(OpusDecoder()),
            captured_at=self.captured_at,
            clock=self.clock,
            delay=self.delay,
            ledger=self.ledger,
            recorder=self.recorder,
            probe=probe,
        )
        self.heard: list[PcmFrame] = []

    def captured_at(self, timestamp: int) -> ClockEstimate | None:
        return ClockEstimate((timestamp - ORIGIN) / RTP_CLOCK, 1e-4)

    def clock(self) -> float:
        """Each look at it takes a millisecond."""
        self.now += 0.001
        return self.now

    def run(
        self,
        said: list[PcmFrame],
        lost: AbstractSet[int] = frozenset(),
        ahead: float = 0.0,
        late: Callable[[int], float] = lambda n: 0.0,
    ) -> None:
        """Says, sends and plays frame by frame; then plays what is still in the buffer.

        Frames are heard `ahead` seconds after they were asked for. Packets are `late` by seconds.
        """
        coming: list[tuple[float, MediaPacket]] = []
        ticks = len(said) + round((NETWORK + TARGET) / FRAME_SECONDS) + 1
        for n in range(ticks):
            if n < len(said):
                payload = self.encoder.encode(said[n])
                arrival = (n + 1) * FRAME_SECONDS + NETWORK + late(n)
                if n not in lost:
                    timestamp = (ORIGIN + n * FRAME_TICKS) % 2**32
                    coming.append((arrival, MediaPacket(n, timestamp, 1, payload)))
            else:
                self.playout.draining = True
            self.now = (n + 1) * FRAME_SECONDS + NETWORK
            for arrival, packet in [entry for entry in coming if entry[0] <= self.now]:
                self.buffer.push(packet, arrival)
            coming = [entry for entry in coming if entry[0] > self.now]
            self.heard.append(self.playout.render(self.now + ahead).pcm)
        self.ledger.close()
        self.recorder.close()


def speech(frames: int) -> list[PcmFrame]:
    return [*clip(MAN)[8000:][: FRAME * frames].reshape(-1, FRAME)]


def test_frames_are_counted_by_how_they_were_obtained_and_entered_into_the_ledger(
    tmp_path: Path,
) -> None:
    receiver = Receiver(tmp_path)
    receiver.run(speech(60), lost={20, 40, 41})
    entries = list(read_ledger(receiver.ledger_path))
    frames = receiver.playout.frames
    assert frames[FrameSource.PACKET] == 57
    assert frames[FrameSource.LBRR] == 2
    assert frames[FrameSource.PLC] == 1
    assert sum(frames.values()) == len(entries)
    by_slot = {(entry.timestamp - ORIGIN) // FRAME_TICKS: entry for entry in entries}
    assert by_slot[20].source is FrameSource.LBRR
    assert by_slot[40].source is FrameSource.PLC
    assert by_slot[41].source is FrameSource.LBRR
    assert by_slot[59].timestamp > 2**32  # extended over the wrap
    assert by_slot[30].wait_ms == pytest.approx(1e3 * TARGET)
    assert by_slot[20].wait_ms == pytest.approx(1e3 * (TARGET - FRAME_SECONDS))
    assert by_slot[40].wait_ms is None
    assert by_slot[30].decode_us == pytest.approx(1000)
    assert by_slot[30].margin_ms == pytest.approx(-2)  # asked for when due, two looks at the clock
    total = FRAME_SECONDS + NETWORK + TARGET + receiver.delay.lookahead
    assert by_slot[30].delay_ms == pytest.approx(1e3 * total)
    assert receiver.delay.summary().p50 == pytest.approx(total, abs=1e-3)


def test_after_the_end_what_has_arrived_is_played_and_nothing_made_up(tmp_path: Path) -> None:
    receiver = Receiver(tmp_path)
    receiver.run(speech(30))
    sources = [entry.source for entry in read_ledger(receiver.ledger_path)]
    assert sources[-30:] == [FrameSource.PACKET] * 30
    assert set(sources[:-30]) == {FrameSource.SILENCE}
    assert not receiver.playout.render(99.0).pcm.any()
    assert sum(receiver.playout.frames.values()) == len(sources)


def test_the_recording_is_what_was_heard(tmp_path: Path) -> None:
    receiver = Receiver(tmp_path)
    receiver.run(speech(30), lost={7})
    recorded = read_wav(tmp_path / "heard.wav")
    heard = np.concatenate(receiver.heard)
    assert len(recorded) == FRAME * len(list(read_ledger(receiver.ledger_path)))
    assert np.array_equal(recorded, heard[: len(recorded)])


def test_processing_is_timed_from_arrival_to_the_end_of_decoding(tmp_path: Path) -> None:
    receiver = Receiver(tmp_path)
    receiver.run(speech(30))
    # rendered at the playout instant, with two looks at the clock
    per_frame = TARGET + 0.002
    assert receiver.playout.processing_delay == pytest.approx(30 * FRAME * per_frame)


@pytest.mark.parametrize("ahead", [0.004, 0.06, 0.2])
def test_a_device_that_wants_its_sound_early_adds_its_own_delay_and_loses_nothing(
    tmp_path: Path, ahead: float
) -> None:
    receiver = Receiver(tmp_path)
    receiver.run(speech(60), ahead=ahead)
    entries = list(read_ledger(receiver.ledger_path))
    assert receiver.playout.frames[FrameSource.PACKET] == 60
    assert receiver.playout.frames[FrameSource.PLC] == 0
    beyond = max(0.0, ahead - LEAD - 0.001)  # of what making a frame may take; one look at a clock
    total = FRAME_SECONDS + NETWORK + TARGET + receiver.delay.lookahead + beyond
    late = entries[-1].delay_ms
    assert late is not None
    assert 0 <= late / 1e3 - total < FRAME_SECONDS
    summary = receiver.delay.summary()
    assert summary.breakdown[Stage.DEVICE] == pytest.approx(beyond)
    parts = [part for part in summary.breakdown.values() if part is not None]
    assert sum(parts) == pytest.approx(summary.mean)


def test_the_lead_grows_at_once_and_shrinks_when_it_has_been_less_for_long() -> None:
    lead = Lead()
    now = 100.0
    assert lead.update(now + LEAD, now) == 0.0
    assert lead.update(now + LEAD + 0.1, now) == pytest.approx(0.1)
    followed = []
    for tick in range(600):
        now = 100.0 + 0.02 * tick
        followed.append(lead.update(now + LEAD + 0.08 - 0.02 * (tick % 3), now))
    assert followed[:200] == pytest.approx([0.1] * 200)
    assert followed[-1] == pytest.approx(0.08)
    assert len({round(value, 6) for value in followed}) == 2


def test_a_peer_whose_clock_is_not_known_yet_is_played_without_a_delay(tmp_path: Path) -> None:
    receiver = Receiver(tmp_path)
    receiver.playout = Playout(
        receiver.buffer,
        SpeechDecoder(OpusDecoder()),
        captured_at=lambda timestamp: None,
        clock=receiver.clock,
        delay=receiver.delay,
        ledger=receiver.ledger,
    )
    receiver.run(speech(20))
    assert {entry.delay_ms for entry in read_ledger(receiver.ledger_path)} == {None}
    assert receiver.delay.summary().frames == 0


def test_markers_measure_the_delay_that_the_books_say(tmp_path: Path) -> None:
    probe = MarkerProbe()
    receiver = Receiver(tmp_path, probe=probe)
    injector = MarkerInjector()
    said = [
        injector.mix(frame, (ORIGIN + n * FRAME_TICKS) % 2**32 // 3)
        for n, frame in enumerate(speech(110) + speech(110))
    ]
    receiver.run(said, lost={30, 31, 90})
    total = FRAME_SECONDS + NETWORK + TARGET + receiver.delay.lookahead
    assert len(probe.delays) >= 4
    assert np.abs(np.array(probe.delays) - total).max() < 0.001


def test_the_books_follow_sound_that_is_stretched(tmp_path: Path) -> None:
    # the way becomes 140 ms shorter after a second
    receiver = Receiver(tmp_path, target=LatencyPolicy.of(Latency.BALANCED))
    receiver.run(speech(110) + speech(110), late=lambda n: 0.14 if n < 50 else 0.0)
    entries = [e for e in read_ledger(receiver.ledger_path) if e.source is FrameSource.PACKET]
    slow, fast = entries[20], entries[-10]
    assert slow.delay_ms is not None
    assert fast.delay_ms is not None
    assert slow.delay_ms - fast.delay_ms == pytest.approx(140, abs=25)
    between = entries[21:-9]
    frames_out = (fast.timestamp - slow.timestamp) / FRAME_TICKS - len(between)
    stretched = sum(entry.stretch_ms for entry in between)
    assert fast.delay_ms - slow.delay_ms == pytest.approx(stretched - 20 * frames_out, abs=16)
    assert stretched < -60
    assert receiver.buffer.stats.removed_samples_for_acceleration > 0
    recorded = read_wav(tmp_path / "heard.wav")
    assert len(recorded) % FRAME == 0


def test_markers_measure_the_delay_also_while_sound_is_stretched(tmp_path: Path) -> None:
    probe = MarkerProbe()
    receiver = Receiver(tmp_path, probe=probe, target=LatencyPolicy.of(Latency.BALANCED))
    injector = MarkerInjector()
    said = [
        injector.mix(frame, (ORIGIN + n * FRAME_TICKS) % 2**32 // 3)
        for n, frame in enumerate(speech(110) + speech(110) + speech(110))
    ]
    receiver.run(said, late=lambda n: 0.14 if n < 110 else 0.0)
    total = FRAME_SECONDS + NETWORK + receiver.delay.lookahead
    assert len(probe.delays) >= 4
    assert probe.delays[1] - total == pytest.approx(0.14 + 0.04, abs=0.021)
    assert probe.delays[-1] - total == pytest.approx(0.04, abs=0.021)


def speaking(tmp_path: Path, lost: Container[int]) -> Receiver:
    """A receiver that has just played frame 21 of 28, 120 ms after its packet came."""
    decoder = SpeechDecoder(concealer=Concealer(), dred=DredDecoder())
    receiver = Receiver(tmp_path, target=0.120, decoder=decoder)
    packets = [receiver.encoder.encode(pcm) for pcm in speech(28)]
    for n in range(28):
        if n not in lost:
            timestamp = (ORIGIN + n * FRAME_TICKS) % 2**32
            receiver.buffer.push(MediaPacket(n, timestamp, 1, packets[n]), n * FRAME_SECONDS)
        receiver.now = n * FRAME_SECONDS - LEAD
        receiver.playout.render(n * FRAME_SECONDS)
    return receiver


@pytest.mark.parametrize("stall", [0.0, 0.070])
def test_a_frame_made_ahead_was_ready_then_however_long_the_machine_stands_still(
    tmp_path: Path, stall: float
) -> None:
    receiver = speaking(tmp_path, lost=())
    for _ in range(2):
        assert receiver.playout.prepare(28 * FRAME_SECONDS, False)
    made = receiver.now
    receiver.now += stall
    for n in range(28, 32):
        assert receiver.playout.render(n * FRAME_SECONDS).ready_at <= made
    assert receiver.playout.render(32 * FRAME_SECONDS).ready_at > made + stall


def arrive(receiver: Receiver, number: int) -> None:
    """A packet comes now, with redundancy."""
    packet = coded()[number]
    timestamp = (ORIGIN + number * FRAME_TICKS) % 2**32
    receiver.buffer.push(MediaPacket(number, timestamp, 1, packet), receiver.now)


@pytest.mark.parametrize(
    ("comes", "stall", "source"),
    [
        (False, 0.0, FrameSource.PLC),
        (False, 0.030, FrameSource.PLC),
        (True, 0.0, FrameSource.PACKET),
        (True, 0.030, FrameSource.PLC),
    ],
)
def test_a_missing_frame_was_ready_once_it_was_made_in_case(
    tmp_path: Path, comes: bool, stall: float, source: FrameSource
) -> None:
    receiver = speaking(tmp_path, lost=range(22, 28))
    before = receiver.playout.frames[source]
    assert not receiver.playout.prepare(28 * FRAME_SECONDS, False)
    made = receiver.now
    receiver.now += 0.005 + stall
    if comes:
        arrive(receiver, 22)
    rendered = receiver.playout.render(28 * FRAME_SECONDS)
    assert receiver.playout.frames[source] == before + 1
    assert (rendered.ready_at <= made) == (source is FrameSource.PLC)


def test_so_was_the_missing_frame_after_it_and_none_that_was_not_made(tmp_path: Path) -> None:
    receiver = speaking(tmp_path, lost={22, 23, 24})
    assert not receiver.playout.prepare(28 * FRAME_SECONDS, False)
    made = receiver.now
    receiver.now += 0.070
    ready = []
    for n in (28, 29, 30):
        ready.append(receiver.playout.render(n * FRAME_SECONDS).ready_at)
        assert not receiver.playout.prepare((n + 1) * FRAME_SECONDS, False)
    assert max(ready[:2]) <= made
    assert ready[2] > made + 0.070
    assert receiver.playout.frames[FrameSource.PLC] == 2


@pytest.mark.parametrize("looked", [True, False])
def test_what_replaces_a_frame_too_late_does_not_cost_it(tmp_path: Path, looked: bool) -> None:
    receiver = speaking(tmp_path, lost=[12, *range(22, 28)])
    playout = receiver.playout
    arrive(receiver, 12)  # packets overtake each other here: those of a hole may still come
    assert not playout.prepare(28 * FRAME_SECONDS, False)
    made = receiver.now
    before = playout.frames.copy()
    # a packet behind the hole comes, and the machine stands still while it is made use of
    arrive(receiver, 24)
    slow = playout._receiver._decoder.rehearse
    plans = []

    def stopped(plan: FramePlan, *, after: int = 0) -> None:
        plans.append(plan)
        slow(plan, after=after)
        receiver.now += 0.070

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(playout._receiver._decoder, "rehearse", stopped)
        if looked:
            playout.prepare(28 * FRAME_SECONDS, False)
        ready = [playout.render(28 * FRAME_SECONDS).ready_at]
    # there was no time left for more
    assert [plan.source for plan in plans] == [FrameSource.DRED]
    assert receiver.now > made + 0.070
    ready.append(playout.render(29 * FRAME_SECONDS).ready_at)
    assert max(ready) <= made
    assert playout.frames - before == {FrameSource.PLC: 2}
