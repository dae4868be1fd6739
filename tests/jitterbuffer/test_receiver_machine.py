"""The receiver under any arrivals: 20 ms a pull, every frame once and in order, bounded."""

from __future__ import annotations

import numpy as np
from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from codec import FRAME, FRAME_TICKS
from codec.frame import FrameSource, HoleAction
from jitterbuffer import JitterBuffer, Latency, LatencyPolicy, MediaPacket, PlayoutReceiver
from jitterbuffer.pace import CATCHES_UP, SKIP_AT_ONCE
from jitterbuffer.receiver import AHEAD
from jitterbuffer.sound import TICKS
from tests.jitterbuffer.playout import TICK, payload
from tests.jitterbuffer.speech import PlanDecoder, prepare

SENT = (FrameSource.PACKET, FrameSource.RED)


class Receiver(RuleBasedStateMachine):
    """Arbitrary packets; pulls every 20 ms, or late as those of a sink that stands still."""

    @initialize(aim=st.sampled_from([*Latency, 0.03, 0.1]))
    def begin(self, aim: Latency | float) -> None:
        self.policy = LatencyPolicy.of(aim) if isinstance(aim, Latency) else None
        target = self.policy if self.policy is not None else float(aim)
        self.buffer = JitterBuffer(target_delay=target)
        self.receiver = PlayoutReceiver(self.buffer, PlanDecoder())
        self.now = 1000.0
        self.sequence, self.timestamp, self.ssrc = 65_500, 2**32 - 10 * FRAME_TICKS, 1
        self.number = 0
        self.changes = (0, 0)
        self.calm = 0
        self.left_out = 0
        """Frames since then, said to be left out."""
        self.last: int | None = None
        """Timestamp of the last frame that began."""
        self.played: set[tuple[int, int, int]] = set()

    def push(self, sequence: int, timestamp: int) -> None:
        self.number += 1
        sound = payload(self.number, lbrr=self.number % 2 > 0, dred=self.number % 3 > 0)
        packet = MediaPacket(sequence % 2**16, timestamp % 2**32, self.ssrc, sound)
        self.receiver.push(packet, self.now)

    @rule(count=st.sampled_from([1, 1, 5, 50]), lost=st.sampled_from([0, 0, 1, 2, 7, 60]))
    def call_goes_on(self, count: int, lost: int) -> None:
        """Packets on the beat, after a hole."""
        self.sequence += lost
        self.timestamp += FRAME_TICKS * lost
        for _ in range(lost):
            self.pull()
        for _ in range(count):
            self.next_packet(0)
            self.pull()

    @rule(pause=st.sampled_from([0, 0, 1, 20]))
    def next_packet(self, pause: int) -> None:
        self.sequence += 1
        self.timestamp += FRAME_TICKS * (1 + pause)
        self.push(self.sequence, self.timestamp)

    @rule(packets=st.integers(1, 110))
    def a_stall_ends(self, packets: int) -> None:
        for _ in range(packets):
            self.pull()
        for _ in range(packets):
            self.next_packet(0)

    @rule(back=st.integers(-120, 120), shift=st.sampled_from([0, 0, 120, -121]))
    def misplaced_packet(self, back: int, shift: int) -> None:
        self.push(self.sequence - back, self.timestamp - FRAME_TICKS * back + shift)

    @rule(sequence=st.integers(0, 2**16 - 1), timestamp=st.integers(0, 2**32 - 1))
    def any_packet(self, sequence: int, timestamp: int) -> None:
        self.push(sequence, timestamp)

    @rule(last=st.booleans(), late=st.sampled_from([0.0, 0.0, 0.01]))
    def there_is_time(self, last: bool, late: float) -> None:
        """What can be done ahead of the next pull is done, which may then come late."""
        prepare(self.receiver, self.now + TICK, last=last)
        self.now += late

    @rule()
    def restart(self) -> None:
        self.ssrc += 1
        self.sequence += 20_000
        self.timestamp += 10**9

    @rule(seconds=st.sampled_from([0.001, 0.01, 0.05, 0.5, 3.0]))
    def the_sink_stands_still(self, seconds: float) -> None:
        self.now += seconds

    @rule(frames=st.sampled_from([1, 2, 30]))
    def nothing_comes(self, frames: int) -> None:
        for _ in range(frames):
            self.pull()

    def pull(self) -> None:
        self.now += TICK
        block = self.receiver.pull(self.now)
        assert block.pcm.shape == (FRAME,)
        assert block.pcm.dtype == np.int16
        assert block.parts[0].offset == 0
        ends = [part.offset + part.samples for part in block.parts]
        assert ends == [*[part.offset for part in block.parts[1:]], FRAME]
        stats = self.buffer.stats
        changes = (stats.source_changes, stats.resyncs)
        # what was decoded before a change may still be queued
        self.calm = self.calm + 1 if changes == self.changes else 0
        if not self.calm:
            self.last, self.left_out = None, 0
        for part in block.parts:
            plan = part.plan
            assert 0 <= part.timestamp - plan.timestamp < TICKS * FRAME
            if part.stretched:
                assert abs(part.stretched) <= FRAME
            if not part.begins:
                continue
            if self.buffer.excess is None:  # playout waits for its start
                self.last, self.left_out = None, 0
                continue
            self.left_out += plan.left_out
            if plan.action is HoleAction.HOLD:
                continue
            if part.source in SENT:
                key = (plan.timestamp, *changes)
                assert key not in self.played
                self.played.add(key)
            if self.last is not None and self.calm > 2:
                self.follows(plan.timestamp - self.last, plan.source)
            self.last, self.left_out = plan.timestamp, 0
        self.changes = changes

    def follows(self, step: int, source: FrameSource) -> None:
        """Frames follow each other by a frame, but for those left out; pauses may be repeated."""
        frames = round(step / FRAME_TICKS)
        assert self.left_out >= 0
        repeated = source is FrameSource.SILENCE and frames == 0
        assert repeated or frames == 1 + self.left_out

    @invariant()
    def memory_is_bounded(self) -> None:
        if hasattr(self, "buffer"):
            assert len(self.buffer) <= 2 * 2.0 / TICK + 10
            assert self.receiver.queued < (AHEAD + 3) * FRAME

    @invariant()
    def delay_is_bounded(self) -> None:
        if not hasattr(self, "buffer"):
            return
        if self.policy is not None:
            assert self.policy.min_delay <= self.buffer.target_delay <= self.policy.max_delay
        most = SKIP_AT_ONCE
        if self.policy is not None:
            most += max(self.policy.hold / TICK, CATCHES_UP)
        excess = self.buffer.excess
        assert excess is None or excess <= most

    def teardown(self) -> None:
        """A call that then behaves is heard whole, and as soon as the target says."""
        if not hasattr(self, "buffer"):
            return
        self.restart()
        played = len(self.played)
        for _ in range(400):  # 8 s: a target that stalls have raised has to come down first
            self.next_packet(0)
            self.pull()
        assert len(self.played) - played >= 350
        excess = self.buffer.excess
        assert excess is not None
        assert -0.6 <= excess < 2.0
        waits = self.buffer.target_delay + (excess + self.receiver.queued / FRAME) * TICK
        assert waits <= self.buffer.target_delay + 3 * TICK


Receiver.TestCase.settings = settings(
    max_examples=20,
    stateful_step_count=20,
    deadline=None,
    phases=[Phase.explicit, Phase.reuse, Phase.generate, Phase.shrink],
)
TestAnyArrivals = Receiver.TestCase
