"""Clips through Opus, loss and recovery with an ideal jitter buffer.

Ideal: the first packet to arrive after a hole is there before the hole has to be played. What is
heard then depends on the means of recovery alone. The first 5 and the last 3 packets are never
lost.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

import numpy as np
import numpy.typing as npt

from codec import FRAME, FRAME_SECONDS, FRAME_TICKS
from codec.concealer import Concealer
from codec.dred import DredDecoder, DredEncoder, attach_dred
from codec.dred_decoder import FEATURE_TICKS
from codec.features import FeatureExtractor
from codec.frame import FramePlan, FrameSource
from codec.lpcnet import LpcNet
from codec.opus import OpusDecoder, OpusEncoder, has_lbrr
from codec.receiver import HALF_HOP_TICKS, SpeechDecoder

Pcm = npt.NDArray[np.int16]
Losses = npt.NDArray[np.bool_]

SAFE_FIRST, SAFE_LAST = 5, 3
EXPECTED_LOSS = 20
"""Percent, told to libopus wherever redundancy is sent."""
DRED_MS = 1000


class Mode(StrEnum):
    """What fills a hole; each also conceals what is left by neural PLC, OPUS_PLC by libopus's."""

    NONE = "none"
    """No loss at all."""
    OPUS_PLC = "opus-plc"
    PLC = "plc"
    LBRR = "lbrr"
    DRED = "dred"
    LBRR_DRED = "lbrr+dred"
    FEATURES = "features"
    """The features of what was lost, unquantised: the ceiling of DRED."""


OPUS_BITRATE = dict.fromkeys(Mode, 24_000) | {Mode.LBRR: 40_000, Mode.LBRR_DRED: 40_000}
"""bits/s of libopus, LBRR included."""
DRED_BYTES = 80
"""Of a payload, most: 32 kb/s."""


@dataclass(frozen=True, slots=True)
class Sent:
    """A clip as packets; `extra` frames follow its end, because Opus lags."""

    clip: Pcm
    packets: list[bytes]
    lookahead: int

    @property
    def kbps(self) -> float:
        """Of all packets, lost or not, headers of IP, UDP and RTP not included."""
        return sum(map(len, self.packets)) * 8e-3 / (len(self.packets) * FRAME_SECONDS)


@dataclass(frozen=True, slots=True)
class Heard:
    """What came of a clip."""

    pcm: Pcm
    """Aligned with the clip and as long."""
    lost: Losses
    frames: dict[FrameSource, int]


def read_trace(path: Path) -> Losses:
    """bool [n], one 0 or 1 per packet and line, 1 = lost. Raises ValueError, OSError."""
    words = path.read_text().split()
    if not words or set(words) - {"0", "1"}:
        raise ValueError(f"{path} is no loss trace: one 0 or 1 per line is expected")
    return np.array([word == "1" for word in words])


def burst_losses(frames: int, share: float, rng: np.random.Generator) -> Losses:
    """bool [frames]: bursts of 3 to 10 packets until `share` is lost, 3 good ones between two."""
    lost = np.zeros(frames, bool)
    for _ in range(100 * frames):
        if lost.sum() >= share * frames:
            break
        length = int(rng.integers(3, 11))
        latest = frames - SAFE_LAST - length
        if latest <= SAFE_FIRST:
            break
        start = int(rng.integers(SAFE_FIRST, latest))
        if not lost[max(0, start - 3) : start + length + 3].any():
            lost[start : start + length] = True
    return lost


def losses_of(trace: Losses, packets: int) -> Losses:
    """The trace, over and over if it is short, for a clip of so many packets."""
    lost = np.resize(trace, packets)
    lost[:SAFE_FIRST] = False
    lost[packets - SAFE_LAST :] = False
    return lost


def send(clip: Pcm, mode: Mode, *, bitrate: int | None = None) -> Sent:
    """Encode a clip, int16 [n], as `mode` wants it. Raises OpusError, DredModelError."""
    encoder = OpusEncoder(
        bitrate=bitrate or OPUS_BITRATE[mode],
        complexity=10,
        expected_loss=EXPECTED_LOSS if mode in (Mode.LBRR, Mode.LBRR_DRED) else 0,
        lbrr=mode in (Mode.LBRR, Mode.LBRR_DRED),
    )
    redundancy = None
    if mode in (Mode.DRED, Mode.LBRR_DRED):
        redundancy = DredEncoder(lookahead=encoder.lookahead)
    count = -(-(len(clip) + encoder.lookahead) // FRAME)
    packets = []
    for frame in np.pad(clip, (0, count * FRAME - len(clip))).reshape(-1, FRAME):
        packet = encoder.encode(frame)
        if redundancy is not None:
            redundancy.push(frame)
            payload = redundancy.payload(max_ms=DRED_MS, max_bytes=DRED_BYTES)
            packet = attach_dred(packet, payload)
        packets.append(packet)
    return Sent(clip, packets, encoder.lookahead)


def plan(sent: Sent, lost: Losses, mode: Mode) -> list[FramePlan]:
    """How each frame is to be had when the packets that `lost` marks do not arrive."""
    plans = []
    for i, packet in enumerate(sent.packets):
        timestamp = i * FRAME_TICKS
        following = i + 1
        while following < len(lost) and lost[following]:
            following += 1
        source, used = FrameSource.PLC, None
        if not lost[i]:
            source, following, used = FrameSource.PACKET, i, packet
        elif following < len(lost):
            next_packet = sent.packets[following]
            by_lbrr = mode in (Mode.LBRR, Mode.LBRR_DRED)
            if by_lbrr and following == i + 1 and has_lbrr(next_packet):
                source, used = FrameSource.LBRR, next_packet
            elif mode in (Mode.DRED, Mode.LBRR_DRED, Mode.FEATURES):
                source, used = FrameSource.DRED, next_packet
        plans.append(FramePlan(source, timestamp, used, distance=following - i))
    return plans


def hear(sent: Sent, lost: Losses, mode: Mode, net: LpcNet, *, seed: int = 0) -> Heard:
    """Decode and conceal. Raises OpusError and the errors of missing models."""
    if mode is Mode.NONE:
        lost = np.zeros_like(lost)
    concealer = None if mode in (Mode.NONE, Mode.OPUS_PLC) else Concealer(net, seed=seed)
    dred: DredDecoder | TrueFeatures | None = None
    if mode is Mode.FEATURES:
        dred = TrueFeatures(sent)
    elif mode in (Mode.DRED, Mode.LBRR_DRED):
        dred = DredDecoder()
    decoder = SpeechDecoder(concealer=concealer, dred=dred)
    frames = [decoder.carry_out(step)[0] for step in plan(sent, lost, mode)]
    counts = decoder.frames
    pcm = np.concatenate(frames)[sent.lookahead :][: len(sent.clip)]
    return Heard(pcm, lost, counts)


class TrueFeatures:
    """Redundancy that knows the features of everything: of what is heard when nothing is lost."""

    def __init__(self, sent: Sent) -> None:
        whole = OpusDecoder()
        spoken = [whole.decode(packet) for packet in sent.packets]
        self._features = FeatureExtractor().process(np.concatenate(spoken))
        self.start, self.end = 0, FEATURE_TICKS * len(self._features)

    def parse(self, packet: bytes, timestamp: int) -> TrueFeatures:
        """Whatever the packet holds."""
        return self

    def at(self, start: int, count: int) -> tuple[npt.NDArray[np.float32], Losses]:
        """As `codec.dred_decoder.DredFeatures.at`."""
        vectors = (start + HALF_HOP_TICKS) // FEATURE_TICKS + np.arange(count)
        known = (vectors >= 0) & (vectors < len(self._features))
        return self._features[np.clip(vectors, 0, len(self._features) - 1)], known
