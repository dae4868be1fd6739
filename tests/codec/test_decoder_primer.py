"""The decoder's memory after a hole."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from codec import FRAME
from codec.decoder_primer import FRAMES, DecoderPrimer
from codec.frame import PcmFrame
from codec.opus import OpusDecoder, OpusEncoder
from codec.training.prepare import decode

CLIPS = Path(__file__).parents[1] / "data"

HOLES = range(20, 130, 6)
LENGTH = 3
"""Frames of each hole."""


@pytest.fixture(scope="module", params=["man", "woman"])
def packets(request: pytest.FixtureRequest) -> list[bytes]:
    encoder = OpusEncoder(bitrate=24_000)
    speech = decode(CLIPS / f"{request.param}.flac")[: 140 * FRAME]
    return [encoder.encode(frame) for frame in speech.reshape(-1, FRAME)]


@pytest.fixture(scope="module")
def decoded(packets: list[bytes]) -> PcmFrame:
    decoder = OpusDecoder()
    return np.concatenate([decoder.decode(packet) for packet in packets])


def behind_a_hole(packets: list[bytes], first: int) -> OpusDecoder:
    decoder = OpusDecoder()
    for packet in packets[:first]:
        decoder.decode(packet)
    for _ in range(LENGTH):
        decoder.conceal()
    return decoder


def error(pcm: PcmFrame, right: PcmFrame) -> float:
    return float(np.square(pcm.astype(float) - right).sum())


def test_a_primed_decoder_goes_on_as_if_nothing_had_been_lost(
    packets: list[bytes], decoded: PcmFrame
) -> None:
    primer = DecoderPrimer()
    concealed = primed = 0.0
    for first in HOLES:
        after = first + LENGTH
        right = decoded[after * FRAME :][:FRAME]
        decoder = behind_a_hole(packets, first)
        concealed += error(decoder.decode(packets[after]), right)
        decoder = behind_a_hole(packets, first)
        end = after * FRAME + primer.lookahead
        primer.prime(decoder, decoded[end - FRAMES * FRAME : end])
        primed += error(decoder.decode(packets[after]), right)
    assert primed < concealed / 10


def test_priming_depends_on_nothing_but_what_was_heard(
    packets: list[bytes], decoded: PcmFrame
) -> None:
    used, heard = DecoderPrimer(), decoded[5000:][: FRAMES * FRAME]
    used.prime(OpusDecoder(), decoded[20_000:][: FRAMES * FRAME])
    one, other = behind_a_hole(packets, 30), behind_a_hole(packets, 50)
    used.prime(one, heard)
    DecoderPrimer().prime(other, heard)
    assert np.array_equal(one.decode(packets[70]), other.decode(packets[70]))
