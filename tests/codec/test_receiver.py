"""Frame plans carried out by the real libopus."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import replace
from itertools import pairwise

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from codec import FRAME, FRAME_TICKS
from codec.concealer import Concealer
from codec.decoder_primer import FRAMES, DecoderPrimer
from codec.dred import DredDecoder, DredEncoder, attach_dred
from codec.frame import FramePlan, FrameSource, PcmFrame
from codec.opus import OpusDecoder, OpusEncoder, has_lbrr
from codec.receiver import RESET_AFTER, SpeechDecoder
from tests.codec.test_opus import voice


@pytest.fixture(scope="module")
def packets() -> list[bytes]:
    encoder = OpusEncoder(expected_loss=20)
    return [encoder.encode(frame) for frame in voice(60)]


def plan(
    source: FrameSource, packet: bytes | None = None, *, new_source: bool = False
) -> FramePlan:
    return FramePlan(source, 0, packet, new_source=new_source)


def whole(packet: bytes) -> FramePlan:
    return plan(FrameSource.PACKET, packet)


LOST = plan(FrameSource.PLC)
SILENT = plan(FrameSource.SILENCE)


def level(pcm: PcmFrame) -> float:
    return float(np.sqrt(np.mean(pcm.astype(float) ** 2)))


def test_packets_decode_as_libopus_decodes_them(packets: list[bytes]) -> None:
    decoder, reference = SpeechDecoder(), OpusDecoder()
    for packet in packets:
        pcm, source = decoder.carry_out(whole(packet))
        assert source is FrameSource.PACKET
        assert np.array_equal(pcm, reference.decode(packet))
    assert decoder.frames[FrameSource.PACKET] == len(packets)


def test_a_hole_is_filled_from_the_lbrr_of_the_packet_after_it(packets: list[bytes]) -> None:
    hole = next(n for n in range(20, 60) if has_lbrr(packets[n + 1]))
    decoder, intact = SpeechDecoder(), SpeechDecoder()
    for packet in packets[:hole]:
        decoder.carry_out(whole(packet))
        intact.carry_out(whole(packet))
    original, _ = intact.carry_out(whole(packets[hole]))
    pcm, source = decoder.carry_out(plan(FrameSource.LBRR, packets[hole + 1]))
    assert source is FrameSource.LBRR
    assert np.corrcoef(pcm, original)[0, 1] > 0.8
    assert decoder.carry_out(whole(packets[hole + 1]))[1] is FrameSource.PACKET


def test_lbrr_that_is_not_there_is_concealed_and_said_to_be() -> None:
    encoder = OpusEncoder(expected_loss=0, lbrr=False)
    bare = [encoder.encode(frame) for frame in voice(10)]
    decoder = SpeechDecoder()
    for packet in bare[:8]:
        decoder.carry_out(whole(packet))
    pcm, source = decoder.carry_out(plan(FrameSource.LBRR, bare[9]))
    assert source is FrameSource.PLC
    assert level(pcm) > 0
    assert decoder.failed == 1


def test_a_hole_is_concealed_as_libopus_does_it(packets: list[bytes]) -> None:
    decoder, reference = SpeechDecoder(), OpusDecoder()
    for packet in packets[:20]:
        decoder.carry_out(whole(packet))
        reference.decode(packet)
    pcm, source = decoder.carry_out(LOST)
    assert source is FrameSource.PLC
    assert np.array_equal(pcm, reference.conceal())


@pytest.mark.parametrize(
    "broken",
    [b"", b"\x4b", b"\x4b\xff\xff\xff\xff", b"\x58\x00", bytes(2000)],
    ids=["empty", "no count", "bad padding", "of 60 ms", "too long"],
)
def test_a_packet_that_does_not_decode_is_concealed(packets: list[bytes], broken: bytes) -> None:
    decoder, reference = SpeechDecoder(), SpeechDecoder()
    for packet in packets[:20]:
        decoder.carry_out(whole(packet))
        reference.carry_out(whole(packet))
    pcm, source = decoder.carry_out(whole(broken))
    assert source is FrameSource.PLC
    assert np.array_equal(pcm, reference.carry_out(LOST)[0])
    assert decoder.failed == 1
    assert decoder.frames[FrameSource.PLC] == 1


def test_before_anything_is_heard_silence_is_zero() -> None:
    pcm, source = SpeechDecoder().carry_out(SILENT)
    assert source is FrameSource.SILENCE
    assert pcm.dtype == np.int16
    assert pcm.shape == (FRAME,)
    assert not pcm.any()


def test_sound_fades_into_silence(packets: list[bytes]) -> None:
    decoder, reference = SpeechDecoder(), OpusDecoder()
    for packet in packets[:20]:
        decoder.carry_out(whole(packet))
        reference.decode(packet)
    fading, after = (decoder.carry_out(SILENT)[0] for _ in range(2))
    concealed = reference.conceal()
    assert fading[0] == concealed[0]
    assert level(fading[:80]) > level(fading[-80:]) > 0
    assert np.abs(fading[-4:]).max() <= np.abs(concealed[-4:]).max() * 4 / FRAME + 1
    assert not after.any()


def test_after_a_second_of_silence_the_past_is_forgotten(packets: list[bytes]) -> None:
    decoder, fresh = SpeechDecoder(), OpusDecoder()
    for packet in packets[:20]:
        decoder.carry_out(whole(packet))
    for _ in range(RESET_AFTER):
        decoder.carry_out(SILENT)
    assert np.array_equal(decoder.carry_out(whole(packets[30]))[0], fresh.decode(packets[30]))


def test_a_short_silence_keeps_the_past(packets: list[bytes]) -> None:
    decoder, fresh = SpeechDecoder(), OpusDecoder()
    for packet in packets[:20]:
        decoder.carry_out(whole(packet))
    for _ in range(RESET_AFTER - 1):
        decoder.carry_out(SILENT)
    assert not np.array_equal(decoder.carry_out(whole(packets[30]))[0], fresh.decode(packets[30]))


def test_a_new_source_begins_with_a_fresh_decoder(packets: list[bytes]) -> None:
    decoder, fresh = SpeechDecoder(), OpusDecoder()
    for packet in packets[:20]:
        decoder.carry_out(whole(packet))
    begun = plan(FrameSource.PACKET, packets[40], new_source=True)
    assert np.array_equal(decoder.carry_out(begun)[0], fresh.decode(packets[40]))


def ramp(samples: int) -> PcmFrame:
    return (10 * np.arange(samples)).astype(np.int16)


class Ramp:
    """A concealer whose frames can be told from libopus's; it notes calls."""

    def __init__(self) -> None:
        self.calls: list[str] = []

    def past(self, samples: int, onward: int) -> PcmFrame | None:
        return ramp(samples) if self.calls[-1:] == ["conceal"] else None

    def good(self, pcm: PcmFrame) -> PcmFrame:
        self.calls.append("good" if pcm.any() else "silence")
        return pcm

    def expect_loss(self, features: npt.NDArray[np.float32] | None = None) -> None:
        self.calls.append("ready")

    def conceal(self) -> PcmFrame:
        self.calls.append("conceal")
        return np.full(FRAME, 1234, np.int16)

    def rebuild(self, features: npt.NDArray[np.float32]) -> PcmFrame:
        raise AssertionError("no plan asked for features")

    def copy(self) -> Ramp:
        raise AssertionError("nothing was to be rehearsed")


def test_a_concealer_hears_every_frame_and_fills_the_holes(packets: list[bytes]) -> None:
    concealer = Ramp()
    decoder, reference = SpeechDecoder(concealer=concealer), OpusDecoder()
    plans = [whole(packets[0]), LOST, whole(b""), whole(packets[3]), SILENT, SILENT]
    frames = [decoder.carry_out(p)[0] for p in plans]
    assert concealer.calls == ["good", "conceal", "conceal", "good", "conceal", "silence"]
    assert (frames[1] == 1234).all()
    # libopus goes on as if what was heard had been sent.
    DecoderPrimer().prime(reference, ramp(FRAMES * FRAME))
    assert np.array_equal(frames[3], reference.decode(packets[3]))
    assert frames[4][0] == 1234
    assert all(a >= b for a, b in pairwise(frames[4].tolist()))


def test_another_sender_is_not_decoded_from_what_was_heard_before(packets: list[bytes]) -> None:
    decoder, fresh = SpeechDecoder(concealer=Ramp()), OpusDecoder()
    decoder.carry_out(whole(packets[0]))
    decoder.carry_out(LOST)
    begun = plan(FrameSource.PACKET, packets[40], new_source=True)
    assert np.array_equal(decoder.carry_out(begun)[0], fresh.decode(packets[40]))


def test_no_frame_made_in_case_changes_a_sample(packets: list[bytes]) -> None:
    rng = random.Random(5)
    plain, rehearsing = (SpeechDecoder(concealer=Concealer(seed=5)) for _ in range(2))
    performed = Counter[FrameSource]()
    for _ in range(8):
        for n in range(56):
            for _ in range(rng.randrange(4)):
                after = rng.randint(0, min(2, len(rehearsing.rehearsed)))
                rehearsing.rehearse(missing(packets, n + after, rng.choice(MISSING)), after=after)
            if rng.random() < 0.4:
                wanted = whole(packets[n])
            else:
                wanted = missing(packets, n, rng.choice([*MISSING * 3, FrameSource.SILENCE]))
            if rng.random() < 0.1:
                wanted = replace(wanted, new_source=True)
            (pcm, source), expected = rehearsing.carry_out(wanted), plain.carry_out(wanted)
            assert source is expected[1]
            np.testing.assert_array_equal(pcm, expected[0])
            if rehearsing.performed is not None:
                performed[source] += 1
    assert min(performed[source] for source in MISSING) >= 10
    assert rehearsing.failed == plain.failed > 0


def test_lbrr_made_in_case_is_not_decoded_again_and_in_a_hurry_comes_as_it_is(
    packets: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    hole = next(n for n in range(20, 58) if has_lbrr(packets[n + 1]))
    lbrr = missing(packets, hole, FrameSource.LBRR)
    for hurry in (False, True):
        decoder, reference = (SpeechDecoder(concealer=Concealer(seed=5)) for _ in range(2))
        for packet in packets[:hole]:
            decoder.carry_out(whole(packet))
            reference.carry_out(whole(packet))
        decoder.rehearse(lbrr)
        expected = reference.carry_out(lbrr)
        with monkeypatch.context() as patch:
            patch.delattr(OpusDecoder, "decode_lbrr")
            decoder.rehearse(lbrr)
            wanted = whole(packets[hole]) if hurry else lbrr
            pcm, source = decoder.carry_out(wanted, hurry=hurry)
        assert source is FrameSource.LBRR
        np.testing.assert_array_equal(pcm, expected[0])
        # libopus goes on from there
        following = whole(packets[hole + 1])
        np.testing.assert_array_equal(
            decoder.carry_out(following)[0], reference.carry_out(following)[0]
        )


def test_copies_made_in_case_go_on_from_each_other_and_are_told_apart(packets: list[bytes]) -> None:
    first, second, other = (plan(FrameSource.RED, packets[n]) for n in (20, 21, 40))
    for foreseen in ([first, second], [first, other], [other, second]):
        decoder, reference = (SpeechDecoder(concealer=Concealer(seed=5)) for _ in range(2))
        for packet in packets[:20]:
            decoder.carry_out(whole(packet))
            reference.carry_out(whole(packet))
        for after, wanted in enumerate(foreseen):
            decoder.rehearse(wanted, after=after)
        performed = []
        for wanted in (first, second):
            expected = reference.carry_out(wanted)[0]
            np.testing.assert_array_equal(decoder.carry_out(wanted)[0], expected)
            performed.append(decoder.performed)
        as_foreseen = [0, 1] if foreseen == [first, second] else [0, None]
        assert performed == ([None, None] if foreseen[0] is other else as_foreseen)


def missing(packets: list[bytes], number: int, source: FrameSource) -> FramePlan:
    """One in nine is to be decoded from what is no packet."""
    packet = {FrameSource.LBRR: packets[number + 1], FrameSource.RED: packets[number]}.get(source)
    return plan(source, packet and (b"\x4b" if number % 9 == 0 else packet))


MISSING = [FrameSource.LBRR, FrameSource.RED, FrameSource.PLC]


@settings(deadline=None)
@given(
    st.lists(
        st.tuples(st.sampled_from(FrameSource), st.none() | st.binary(max_size=80), st.booleans()),
        max_size=12,
    )
)
def test_any_plan_gives_a_frame(
    plans: list[tuple[FrameSource, bytes | None, bool]],
) -> None:
    decoder = SpeechDecoder()
    for source, packet, new_source in plans:
        pcm, achieved = decoder.carry_out(plan(source, packet, new_source=new_source))
        assert pcm.shape == (FRAME,)
        assert pcm.dtype == np.int16
        assert achieved in (source, FrameSource.PLC)
    assert sum(decoder.frames.values()) == len(plans)


def test_a_packet_rebuilds_just_the_frames_that_it_is_said_to_describe() -> None:
    opus = OpusEncoder(expected_loss=20)
    redundancy = DredEncoder(lookahead=opus.lookahead)
    packet, timestamp = b"", 39 * FRAME_TICKS
    for frame in voice(40):
        redundancy.push(frame)
        packet = attach_dred(opus.encode(frame), redundancy.payload(max_ms=200, max_bytes=60))
    decoder = SpeechDecoder(concealer=Concealer(), dred=DredDecoder())
    oldest, newest = decoder.describes(packet, timestamp)
    assert 160 <= (timestamp - oldest) / 48 <= 240
    assert newest >= timestamp - FRAME_TICKS
    decoder.prepare(packet, timestamp, oldest)
    for back in range(1, 16):
        wanted = FramePlan(FrameSource.DRED, timestamp - back * FRAME_TICKS, packet, distance=back)
        described = oldest <= wanted.timestamp <= newest
        assert (decoder.carry_out(wanted)[1] is FrameSource.DRED) == described
    bare = SpeechDecoder().describes(packet, timestamp)
    assert bare[0] > bare[1]
