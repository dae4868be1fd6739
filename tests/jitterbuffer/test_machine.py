"""Invariants that hold whatever arrives, in whatever order, from whatever threads."""

from __future__ import annotations

import threading

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from codec.frame import FrameSource
from jitterbuffer import JitterBuffer, MediaPacket
from tests.jitterbuffer.playout import TICK, Sender, payload

MAX_DELAY = 0.5


class Buffer(RuleBasedStateMachine):
    """Arbitrary packets and pulls; each packet carries a number of its own."""

    @initialize(delay=st.sampled_from([0.0, 0.03, 0.1, MAX_DELAY]))
    def begin(self, delay: float) -> None:
        self.buffer = JitterBuffer(target_delay=delay, max_delay=MAX_DELAY)
        self.target = delay
        self.changes = 0
        self.now = 1000.0
        self.number = 0
        self.sent: dict[int, tuple[MediaPacket, float]] = {}
        self.played: list[int] = []
        self.pulls = 0
        self.pushes = 0
        self.sequence = 65_500
        self.timestamp = 2**32 - 10 * 960
        self.last: MediaPacket | None = None
        self.last_position: tuple[int, int] | None = None

    def push(self, sequence: int, timestamp: int, ssrc: int, *, lbrr: bool = False) -> None:
        self.number += 1
        packet = MediaPacket(
            sequence % 2**16, timestamp % 2**32, ssrc, payload(self.number, lbrr=lbrr)
        )
        self.sent[self.number] = (packet, self.now)
        self.last = packet
        self.pushes += 1
        self.buffer.push(packet, self.now)

    @rule(lbrr=st.booleans(), pause=st.sampled_from([0, 0, 0, 1, 20, 500]))
    def next_packet(self, lbrr: bool, pause: int) -> None:
        self.sequence += 1
        self.timestamp += 960 * (1 + pause)
        self.push(self.sequence, self.timestamp, 1, lbrr=lbrr)

    @rule(packets=st.integers(1, 60))
    def lose(self, packets: int) -> None:
        self.sequence += packets
        self.timestamp += 960 * packets

    @rule(back=st.integers(-120, 120), shift=st.sampled_from([0, 0, 1, 480, -481]))
    def misplaced_packet(self, back: int, shift: int) -> None:
        self.push(self.sequence - back, self.timestamp - 960 * back + shift, 1)

    @rule(
        sequence=st.integers(0, 2**16 - 1),
        timestamp=st.integers(0, 2**32 - 1),
        ssrc=st.integers(1, 2),
    )
    def any_packet(self, sequence: int, timestamp: int, ssrc: int) -> None:
        self.push(sequence, timestamp, ssrc)

    @rule()
    def duplicate(self) -> None:
        if self.last is not None:
            self.pushes += 1
            self.buffer.push(self.last, self.now)

    @rule()
    def restart(self) -> None:
        self.sequence += 20_000
        self.timestamp += 10**9

    @rule(frames=st.sampled_from([1, 1, 2, 7, 60]))
    def play(self, frames: int) -> None:
        for _ in range(frames):
            self.now += TICK
            self.pull()

    @rule(seconds=st.sampled_from([0.001, 0.01, 0.02, 0.3, 3.0]))
    def wait(self, seconds: float) -> None:
        self.now += seconds

    def pull(self) -> None:
        self.pulls += 1
        plan = self.buffer.pull(self.now)
        if plan.source not in (FrameSource.PACKET, FrameSource.LBRR):
            assert plan.packet is None
            return
        assert plan.packet is not None
        assert plan.arrival is not None
        number = int.from_bytes(plan.packet[2:6], "big")
        packet, arrival = self.sent[number]
        # A second copy of a packet may be the one that was kept.
        assert plan.arrival >= arrival
        assert self.now - plan.arrival >= 0.0
        if plan.source is FrameSource.LBRR:
            assert plan.distance == 1
            return
        assert plan.distance == 0
        assert plan.timestamp % 2**32 == packet.timestamp
        assert number not in self.played
        self.played.append(number)
        if self.last_position is not None and self.last_position[0] == packet.ssrc:
            changes = self.buffer.stats.source_changes
            if changes == self.changes:
                assert plan.timestamp > self.last_position[1]
        self.changes = self.buffer.stats.source_changes
        self.last_position = (packet.ssrc, plan.timestamp)

    @invariant()
    def memory_is_bounded(self) -> None:
        if hasattr(self, "buffer"):
            assert len(self.buffer) <= 2 * MAX_DELAY / TICK + 10

    @invariant()
    def every_pull_and_every_packet_is_accounted_for(self) -> None:
        if not hasattr(self, "buffer"):
            return
        stats = self.buffer.stats
        assert sum(stats.frames.values()) == self.pulls
        assert stats.frames[FrameSource.PACKET] == len(self.played)
        dropped = stats.packets_discarded + stats.packets_duplicated + stats.packets_stray
        assert len(self.played) + dropped + len(self.buffer) == self.pushes
        assert stats.packets_late <= stats.packets_discarded
        assert stats.silent_concealed_samples <= stats.concealed_samples
        assert stats.concealed_samples <= stats.total_samples_received
        if self.played:
            mean = stats.jitter_buffer_delay / stats.jitter_buffer_emitted_count
            assert mean >= 0.0

    def teardown(self) -> None:
        """A stream that then behaves is played soon, whatever has been before."""
        if not hasattr(self, "buffer"):
            return
        self.sequence += 10_000
        self.timestamp += 10**9
        begun = len(self.played)
        delays = []
        for _ in range(round(self.target / TICK) + 150):
            self.sequence += 1
            self.timestamp += 960
            self.push(self.sequence, self.timestamp, 3)
            before = len(self.played)
            self.pull()
            if len(self.played) > before:
                delays.append(self.now - self.sent[self.played[-1]][1])
            self.now += TICK
        assert len(self.played) - begun >= 140
        assert self.target - 1e-6 <= delays[-1] < self.target + TICK


Buffer.TestCase.settings = settings(max_examples=120, stateful_step_count=60, deadline=None)
TestAnyArrivals = Buffer.TestCase


def test_any_number_of_packets_without_a_pull_is_bounded() -> None:
    buffer = JitterBuffer(target_delay=0.06, max_delay=1.0)
    for n in range(5000):
        buffer.push(MediaPacket(n % 2**16, 960 * n % 2**32, 1, payload(n)), TICK * n)
    assert len(buffer) <= 2 * 50 + 10
    for n in range(5000):
        sender = Sender(sequence=n * 7919, timestamp=n * 86_028_121, ssrc=n % 3)
        buffer.push(sender.packet(n), 100.0 + n)
    assert len(buffer) <= 2 * 50 + 10


def test_one_thread_may_push_while_another_pulls() -> None:
    buffer = JitterBuffer(target_delay=0.0)
    count = 5000
    sender = Sender()
    pushed = threading.Semaphore(0)

    def push() -> None:
        for n in range(count):
            buffer.push(sender.packet(n), TICK * n)
            pushed.release()

    thread = threading.Thread(target=push)
    thread.start()
    plans = []
    for n in range(count):
        pushed.acquire()
        plans.append(buffer.pull(TICK * n))
    thread.join()
    assert len(plans) == count
    played = [plan.timestamp for plan in plans if plan.source is FrameSource.PACKET]
    assert played == sorted(set(played))
    assert len(played) + buffer.stats.packets_discarded + len(buffer) == count
