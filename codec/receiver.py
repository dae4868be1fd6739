"""From frame plans to sound: the decoder side of a call."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Protocol

import numpy as np
import numpy.typing as npt

from codec import FRAME, FRAME_TICKS, RTP_CLOCK, SAMPLE_RATE
from codec.decoder_primer import FRAMES, DecoderPrimer
from codec.dred import DredSyntaxError
from codec.dred_decoder import FEATURE_TICKS
from codec.features import SYNTHESIS_LAG
from codec.frame import FramePlan, FrameSource, PcmFrame
from codec.opus import OpusDecoder, OpusError
from codec.rehearsal import Concealer, InPacket, RehearsedConcealer, Trial

RESET_AFTER = 50
"""Frames of silence after which the decoder forgets the speech before them: 1 s."""

OWN_ROWS = 2
"""Feature vectors of a frame."""
ROWS = 4
"""With those of the 20 ms after it, in whose light it is spoken."""
HALF_HOP_TICKS = SYNTHESIS_LAG * RTP_CLOCK // SAMPLE_RATE

VIEWS = 4
"""Packets whose DRED is kept: several may each describe a part of a long hole."""

CELT_ONLY = 0x80
"""From this TOC byte on a packet holds no SILK (RFC 6716, table 2)."""

COPIES = frozenset({FrameSource.RED, FrameSource.LBRR})
"""Sources that are a missing frame's copy in another packet."""
IN_PACKETS = COPIES | {FrameSource.PACKET}
"""Sources that libopus decodes."""

Past = Callable[[int, int], npt.NDArray[np.int16] | None]
"""As `Concealer.past`."""

_FADE_OUT = np.linspace(1.0, 0.0, FRAME, endpoint=False, dtype=np.float32)


class Recalled(Protocol):
    """What one packet's redundancy says of the past."""

    start: int
    """Tick (48 kHz) of decoded sound at which what it describes begins."""
    end: int
    """That at which it ends."""

    def at(self, start: int, count: int) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.bool_]]:
        """Features float32 [count, 20] of consecutive 10 ms from tick `start` on; which of them
        are known."""


class Redundancy(Protocol):
    """Reads what packets say of the past: `codec.dred.DredDecoder`."""

    def parse(self, packet: bytes, timestamp: int) -> Recalled | None:
        """None if the packet carries nothing. Raises DredSyntaxError, OpusError."""


class SpeechDecoder:
    """Carries out the plans of a jitter buffer, one after the other, on one thread.

    `frames` counts what was achieved, by source; `failed` the packets that did not decode.
    Without a `concealer`, or without `dred`, plans for DRED are concealed.
    """

    def __init__(
        self,
        opus: OpusDecoder | None = None,
        *,
        concealer: Concealer | None = None,
        dred: Redundancy | None = None,
    ) -> None:
        self.frames = dict.fromkeys(FrameSource, 0)
        self.failed = 0
        self._opus = opus if opus is not None else OpusDecoder()
        self._concealer = RehearsedConcealer(concealer) if concealer is not None else None
        self._primer = DecoderPrimer() if concealer is not None else None
        self._dred = dred
        self._redundancy: deque[tuple[bytes, Recalled | None]] = deque(maxlen=VIEWS)
        self.dred_parsed = 0
        """Packets whose DRED was read because a frame is to be rebuilt from it."""
        self.dred_damaged = 0
        """Those whose DRED could not be read."""
        self.dred_uncovered = 0
        """Frames planned from a packet whose DRED does not describe them."""
        self._silent = RESET_AFTER

    def carry_out(self, plan: FramePlan, *, hurry: bool = False) -> tuple[PcmFrame, FrameSource]:
        """The frame that `plan` asks for, int16 [320], and how it was really obtained.

        A packet that does not decode is concealed (PLC). In a `hurry` what was rehearsed is taken,
        whatever the plan. Never raises on what a packet contains.
        """
        if plan.new_source:
            self._opus.reset()
            if self._concealer is not None:
                self._concealer.forget()
        trial = self._performed(plan, hurry)
        pcm, source = (trial.pcm, trial.source) if trial is not None else self._decode(plan)
        self.frames[source] += 1
        return pcm, source

    def describes(self, packet: bytes, timestamp: int) -> tuple[int, int]:
        """Timestamps of the oldest and the newest frame that a packet's DRED can rebuild.

        `timestamp` is the packet's own, extended. The newest is before the oldest if there is none.
        """
        redundancy = self._read(packet, timestamp)
        if redundancy is None:
            return timestamp, timestamp - 1
        return redundancy.start + 1, redundancy.end - FEATURE_TICKS

    def prepare(self, packet: bytes, timestamp: int, oldest: int) -> None:
        """Decodes features as far back as the frame `oldest`, ahead of the time they are due."""
        redundancy = self._read(packet, timestamp)
        if redundancy is not None:
            redundancy.at(oldest - HALF_HOP_TICKS, 1)

    def expect_loss(self, plan: FramePlan | None = None) -> None:
        """The next frame is not here: gets ready, ahead of time, to do without.

        `plan` is how it would be rebuilt by what is here now, if it can be.
        """
        if self._concealer is not None and not self._silent:
            self._concealer.expect_loss(None if plan is None else self._recall(plan))

    def rehearse(self, plan: FramePlan, *, after: int = 0) -> None:
        """Makes the sound of a frame that will be wanted if none comes.

        The next one, or the one `after` so many that are `rehearsed`.
        """
        if self._concealer is None or self._silent:
            return
        frame = _in_packet(plan)
        if frame is not None:
            try:
                self._concealer.rehearse_decoding(frame, partial(self._try, frame), after=after)
            except OpusError:
                frame = None
        if frame is None:
            features = self._recall(plan) if plan.source is FrameSource.DRED else None
            self._concealer.rehearse(features, after=after)

    @property
    def rehearsed(self) -> tuple[int, ...]:
        """The next frames that are made in case, as numbers: each that is made has one of its
        own."""
        return self._concealer.rehearsed if self._concealer is not None else ()

    @property
    def performed(self) -> int | None:
        """The number of the one that the last frame was, if it was made in case."""
        return self._concealer.performed if self._concealer is not None else None

    def fall_back(self) -> None:
        """What was made in case since the last frame came too late: what it replaced counts."""
        if self._concealer is not None:
            self._concealer.fall_back()

    def _performed(self, plan: FramePlan, hurry: bool) -> Trial | None:
        """What was rehearsed for `plan`, if libopus had a part in it; in a `hurry` anything."""
        if self._concealer is None:
            return None
        if hurry:
            trial = self._concealer.perform()
        else:
            frame = _in_packet(plan)
            trial = self._concealer.perform_as(frame) if frame is not None else None
        if trial is not None and trial.decoder is not None:
            self._opus = trial.decoder
        return trial

    def _decode(self, plan: FramePlan) -> tuple[PcmFrame, FrameSource]:
        if plan.source is FrameSource.SILENCE:
            return self._fall_silent(), FrameSource.SILENCE
        if self._silent:
            if self._silent >= RESET_AFTER:
                self._opus.reset()
            self._silent = 0
        if plan.packet is not None and plan.source in IN_PACKETS:
            frame = InPacket(plan.source, plan.packet)
            try:
                if self._concealer is not None and not plan.new_source:
                    self._catch_up(self._opus, self._concealer.past, plan.packet)
                pcm = _decoded(self._opus, frame)
            except OpusError:
                self.failed += 1
            else:
                return self._heard(pcm), plan.source
        if plan.source is FrameSource.DRED:
            features = self._recall(plan)
            if features is not None and self._concealer is not None:
                return self._concealer.rebuild(features), FrameSource.DRED
        return self._conceal(), FrameSource.PLC

    def _try(
        self, frame: InPacket, concealer: Concealer, before: OpusDecoder | None
    ) -> tuple[PcmFrame, OpusDecoder]:
        """Decodes on trial, as a `rehearsal.Say`."""
        opus = (before or self._opus).copy()
        self._catch_up(opus, concealer.past, frame.packet)
        return concealer.good(_decoded(opus, frame)), opus

    def _recall(self, plan: FramePlan) -> npt.NDArray[np.float32] | None:
        """What a later packet's DRED says of this frame and the 20 ms after it: [2 to 4, 20].

        A hop's features condition the 10 ms that begin half a hop before it.
        """
        if plan.packet is None:
            return None
        redundancy = self._read(plan.packet, plan.timestamp + plan.distance * FRAME_TICKS)
        if redundancy is None:
            return None
        features, known = redundancy.at(plan.timestamp - HALF_HOP_TICKS, ROWS)
        if not known[:OWN_ROWS].all():
            self.dred_uncovered += 1
            return None
        return features[: ROWS if known.all() else int(np.argmin(known))]

    def _read(self, packet: bytes, timestamp: int) -> Recalled | None:
        """The DRED of a packet, read once for all frames of a hole."""
        if self._dred is None:
            return None
        for known, redundancy in self._redundancy:
            if known is packet:
                return redundancy
        found: Recalled | None = None
        try:
            found = self._dred.parse(packet, timestamp)
            self.dred_parsed += found is not None
        except (DredSyntaxError, OpusError):
            self.dred_damaged += 1
        self._redundancy.append((packet, found))
        return found

    def _heard(self, pcm: PcmFrame) -> PcmFrame:
        return pcm if self._concealer is None else self._concealer.good(pcm)

    def _conceal(self) -> PcmFrame:
        return self._opus.conceal() if self._concealer is None else self._concealer.conceal()

    def _catch_up(self, opus: OpusDecoder, past_of: Past, packet: bytes) -> None:
        """After a hole that `opus` knows nothing of, prepare it for `packet`."""
        if self._primer is None:
            return
        past = past_of(FRAMES * FRAME, self._primer.lookahead)
        if past is None:
            return
        if packet and packet[0] < CELT_ONLY:
            self._primer.prime(opus, past)
        else:  # CELT predicts levels only, and its concealment keeps them
            opus.conceal()

    def _fall_silent(self) -> PcmFrame:
        """Zeros; but the first frame after sound fades out instead of breaking off."""
        self._silent += 1
        if self._silent == 1:
            return (self._conceal() * _FADE_OUT).astype(np.int16)
        return self._heard(np.zeros(FRAME, np.int16))


def _in_packet(plan: FramePlan) -> InPacket | None:
    """What another packet holds of a missing frame; None if the plan knows of none."""
    if plan.packet is None or plan.source not in COPIES:
        return None
    return InPacket(plan.source, plan.packet)


def _decoded(opus: OpusDecoder, frame: InPacket) -> PcmFrame:
    """Raises OpusError."""
    if frame.source is FrameSource.LBRR:
        return opus.decode_lbrr(frame.packet)
    return opus.decode(frame.packet)
