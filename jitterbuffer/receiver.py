"""The receiving half that gives sound: jitter buffer, decoder and time stretching in one."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from codec import FRAME, FRAME_SECONDS, FRAME_TICKS, SAMPLE_RATE
from codec.frame import FramePlan, FrameSource, HoleAction
from jitterbuffer.background import Background
from jitterbuffer.buffer import JitterBuffer
from jitterbuffer.foresight import Foresight
from jitterbuffer.packet import MediaPacket
from jitterbuffer.sound import PlayedBlock, Sound
from jitterbuffer.timescale import (
    ALIKE,
    ALIKE_ENOUGH,
    SPAN,
    Stretched,
    accelerate,
    cut,
    expand,
)

if TYPE_CHECKING:
    from codec.receiver import SpeechDecoder  # brings the networks' runtime, slow to load

AS_SAID = frozenset({FrameSource.PACKET, FrameSource.RED})
"""Sources of sound that may be stretched: the rest is a guess as it is."""

CATCH_UP = 1.25
"""Frames of excess delay from which on sound is accelerated: between this and what slows playout
down lies more than the one frame that either moves."""
CAUGHT_UP = 0.9
"""Frames to which it goes on, and from which on what was held in a hole is taken out again: one
frame less is not yet too little."""
LASTING = 500
"""Frames of sound, 10 s, for which one frame of excess or more is left to pass by itself."""
HURRY = 4.0
"""Frames from which on it is done at every chance: 80 ms."""
PATIENCE = 3
"""Frames of sound between two operations, 60 ms, where there is no hurry (NetEq: 50 ms)."""
SPARE = 32
"""Samples, 2 ms: more than so many that wait although nothing is to come after them are cut in the
next pause."""

AHEAD = 4
"""Blocks of 20 ms that are made ahead, at most."""
AT_A_TIME = 2
"""Of these, and of missing frames that are made in case: after a hole not all in one go, as the
thread may be wanted elsewhere."""


class PlayoutReceiver:
    """One stream from packets to sound, for one playout thread; `push` may come from another."""

    def __init__(self, buffer: JitterBuffer, decoder: SpeechDecoder) -> None:
        self._buffer = buffer
        self._decoder = decoder
        self._foresight = Foresight(buffer, decoder)
        self._sound = Sound()
        self._ready: deque[PlayedBlock] = deque()
        """What is heard before `_sound`."""
        self._background = Background()
        self._timestamp = 0
        """Of the frame decoded last."""
        self._as_said = 0
        """Frames in a row that came as they were said."""
        self._source = FrameSource.SILENCE
        """Of the frame decoded last."""
        self._since = 0
        """Frames since time was stretched."""
        self._behind = 0
        """Frames in a row for which playout lay a whole frame behind its target."""
        self._direction = 0
        """1 while catching up, -1 while slowing down."""

    def push(self, packet: MediaPacket, arrival: float) -> None:
        """Takes in a packet that arrived at `arrival`, seconds of the clock of `pull`."""
        self._buffer.push(packet, arrival)

    @property
    def queued(self) -> int:
        """Samples that are decoded and will be heard next."""
        return len(self._ready) * FRAME + len(self._sound)

    @property
    def ready(self) -> int:
        """Of the next pulls, how many find everything ready."""
        return len(self._ready)

    @property
    def rehearsed(self) -> tuple[int, ...]:
        """The frames after those that are ready, as far as they have been made in case they stay
        missing: a number for each that was made. They are what `pull` gives in a hurry."""
        return self._decoder.rehearsed

    @property
    def performed(self) -> int | None:
        """The number of the one that the last frame was, if it was made in case."""
        return self._decoder.performed

    def fall_back(self) -> None:
        """What `preparing` has made in case came too late: what was made before it counts."""
        self._decoder.fall_back()

    def pull(self, playout_at: float, *, hurry: bool = False) -> PlayedBlock:
        """The 20 ms heard from `playout_at` on. Call it every 20 ms.

        In a `hurry` a frame that has been made in case it stays missing is played, even if
        something better has come since.
        """
        if self._ready:
            return self._ready.popleft()
        while len(self._sound) < FRAME:
            self._go_on(playout_at, hurry=hurry)
        return self._sound.take()

    def preparing(self, playout_at: float, *, last: bool = False) -> Iterator[None]:
        """Does what can be done now for the next 20 ms, which are heard from `playout_at` on.

        To be called between two pulls, while there is time; once more as the `last` chance if
        nothing is `ready` then. What waiting cannot change is made, up to 80 ms of it: it is there
        then however long the machine stands still. For frames that are missing networks are run, as
        far as what has come tells what will be wanted, and in the end they are made, up to 60 ms
        from now: should a packet come after all, that was in vain. It comes back after every piece
        of work, and need not be asked for the next.
        """
        left = AT_A_TIME
        while left and len(self._ready) < AHEAD and self._make_ahead(playout_at):
            left -= 1
            yield
        if not self._ready:
            self._foresight.read_ahead()
        if self._source is not FrameSource.SILENCE:
            yield from self._foresight.rehearse(
                self._timestamp,
                len(self._ready),
                resumed=self._as_said > 0,
                most=left,
                last=last,
            )
        if not self._ready:
            self._foresight.run_networks()

    def _make_ahead(self, playout_at: float) -> bool:
        """Makes 20 ms more than are ready, the first of which are heard from `playout_at` on, if
        all that they are made from is certain."""
        while len(self._sound) < FRAME:
            # sound is accelerated together with what follows it
            if self._ready and self._direction > 0 and not self._buffer.has_next(2):
                return False
            if not self._buffer.has_next():
                self._foresight.read_ahead()
            if not self._buffer.is_settled():
                return False
            self._go_on(playout_at + len(self._ready) * FRAME_SECONDS)
        self._ready.append(self._sound.take())
        return True

    def drain(self) -> PlayedBlock:
        """What is still queued, with silence behind it; no more frames are asked for.

        The silence is none of the sender's frames: none begins with it.
        """
        if self._ready:
            return self._ready.popleft()
        if len(self._sound) >= FRAME:
            return self._sound.take()
        silence = FramePlan(FrameSource.SILENCE, self._timestamp + FRAME_TICKS)
        self._sound.append(np.zeros(FRAME, np.int16), silence, silence.source)
        block = self._sound.take()
        self._sound.drop()
        parts = (replace(p, begins=p.begins and p.plan is not silence) for p in block.parts)
        return PlayedBlock(block.pcm, tuple(parts))

    def _go_on(self, playout_at: float, *, hurry: bool = False) -> None:
        """One frame more of sound, knowing what can be rebuilt, and the delay it leads to."""
        if not hurry:
            self._foresight.read_ahead()
        self._next_frame(playout_at, hurry=hurry)
        self._adjust(playout_at)

    def _next_frame(self, playout_at: float, *, hurry: bool = False) -> None:
        """Decodes the next frame."""
        plan = self._buffer.pull(playout_at, queued=len(self._sound) / SAMPLE_RATE)
        pcm, source = self._decoder.carry_out(plan, hurry=hurry)
        self._timestamp, self._source = plan.timestamp, source
        self._sound.append(pcm, plan, source)
        self._since += 1
        excess = self._buffer.excess
        self._behind = self._behind + 1 if excess is not None and excess >= 1.0 else 0
        if plan.action is HoleAction.HOLD:
            self._direction = 1
        self._as_said = self._as_said + 1 if source in AS_SAID else 0
        if source in AS_SAID:
            self._background.add(pcm)

    def _adjust(self, playout_at: float) -> None:
        """Brings the delay towards its target where the sound allows."""
        excess = self._buffer.excess
        if excess is None or not self._as_said:
            return
        late = excess >= CATCH_UP or self._behind >= LASTING
        if late or (self._direction > 0 and excess >= CAUGHT_UP):
            self._direction = 1
            self._accelerate(excess, playout_at)
        elif excess < self._buffer.raise_below or (self._direction < 0 and excess < 0.0):
            self._direction = -1
            self._expand()
        else:
            self._direction = 0
            self._trim()

    def _accelerate(self, excess: float, playout_at: float) -> None:
        hurry = excess >= HURRY
        if self._since < PATIENCE and not (hurry or self._background.is_passive):
            return
        if len(self._sound) < SPAN and self._buffer.has_next():
            self._next_frame(playout_at)
        if len(self._sound) >= SPAN and self._as_said >= 2:
            threshold = ALIKE_ENOUGH if hurry else ALIKE
            passive = self._background.is_passive
            self._stretch(accelerate(self._sound.pcm, threshold=threshold, passive=passive))

    def _expand(self) -> None:
        passive = self._background.is_passive
        if (passive or self._since >= PATIENCE) and self._as_said >= 2:
            self._stretch(expand(self._sound.heard, self._sound.pcm, passive=passive))

    def _trim(self) -> None:
        """Takes out sound that waits for no reason: the next frame is asked for in time anyway."""
        spare = len(self._sound) - FRAME
        if spare < SPARE or self._as_said < 2:
            return
        if self._background.is_passive:
            self._stretch(cut(self._sound.pcm, spare))
        elif len(self._sound) >= SPAN and self._since >= PATIENCE:
            shorter = accelerate(self._sound.pcm)
            if shorter is not None and len(shorter.pcm) >= FRAME:
                self._stretch(shorter)

    def _stretch(self, stretched: Stretched | None) -> None:
        if stretched is not None:
            self._buffer.count_stretch(self._sound.stretch(stretched))
            self._since = 0
