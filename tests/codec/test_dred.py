"""DRED from speech to packet to features, with the model that comes with the package."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from codec.dred import (
    DredDecoder,
    DredEncoder,
    DredFeatures,
    DredKind,
    DredSyntaxError,
    attach_dred,
    dred_kind,
)
from codec.dred_encoder import REST
from codec.dred_model import DredModel, DredModelError
from codec.dred_packet import EXPERIMENTAL_ID, PREFIX
from codec.extensions import Extension, with_extensions
from codec.features import PERIODICITY, PITCH, FeatureExtractor

DATA = Path(__file__).parents[1] / "data"
PACKET = b"\x48" + bytes(20)
LOOKAHEAD = 104
"""Samples, of libopus in VOIP mode at 16 kHz."""

Pcm = npt.NDArray[np.int16]


def speech(name: str) -> Pcm:
    with av.open(str(DATA / name)) as container:
        parts = [frame.to_ndarray().ravel() for frame in container.decode(audio=0)]
    pcm = np.concatenate(parts).astype(np.int16)
    return pcm[: len(pcm) // 320 * 320].reshape(-1, 320)


@pytest.fixture(scope="module")
def woman() -> Pcm:
    return speech("woman.flac")


def redundancy(
    frames: Pcm, *, max_ms: int = 1000, max_bytes: int = 80, lookahead: int = LOOKAHEAD
) -> list[DredFeatures | None]:
    """What each frame's packet carries; frame k has RTP timestamp 960 k."""
    encoder, decoder = DredEncoder(lookahead=lookahead), DredDecoder()
    out = []
    for k, pcm in enumerate(frames):
        encoder.push(pcm)
        payload = encoder.payload(max_ms=max_ms, max_bytes=max_bytes)
        assert len(payload) <= max_bytes
        out.append(decoder.parse(attach_dred(PACKET, payload), 960 * k))
    return out


def root_mean_square(x: npt.NDArray[np.float32]) -> float:
    return float(np.sqrt(np.mean(np.square(x))))


@pytest.mark.parametrize("name", ["man.flac", "woman.flac"])
def test_features_of_the_past_arrive_in_place(name: str) -> None:
    frames = speech(name)
    truth = FeatureExtractor().process(frames.ravel())
    # Without look-ahead, decoded time is the input's: vector m describes [160 m - 80, 160 m + 80).
    errors = {shift: [] for shift in (-2, -1, 0, 1, 2)}  # type: dict[int, list[float]]
    pitch, voiced = [], []
    for k, dred in enumerate(redundancy(frames, lookahead=0)):
        if dred is None or k < 20:
            continue
        found, known = dred.at(960 * (k - 5) - 240, 10)
        for m in np.flatnonzero(known):
            index = 2 * (k - 5) + int(m)
            for shift, collected in errors.items():
                collected.append(root_mean_square(found[m, :18] - truth[index + shift, :18]))
            pitch.append(abs(found[m, PITCH] - truth[index, PITCH]) * np.log(2))
            voiced.append(truth[index, PERIODICITY] > 0.2)
    mean = {shift: float(np.mean(collected)) for shift, collected in errors.items()}
    assert min(mean, key=mean.__getitem__) == 0
    assert mean[0] < 0.35
    assert np.median(np.array(pitch)[np.array(voiced)]) < 0.03


def test_a_second_fits_into_80_bytes(woman: Pcm) -> None:
    spans = [dred.end - dred.start for dred in redundancy(woman)[60:] if dred]
    assert max(spans) == 25 * 1920
    assert [dred for dred in redundancy(woman, max_bytes=40)[60:] if dred]


def test_redundancy_reaches_from_the_look_ahead_back_to_what_was_asked(woman: Pcm) -> None:
    for max_ms in (100, 240, 1000):
        found = [(k, d) for k, d in enumerate(redundancy(woman, max_ms=max_ms)) if d]
        assert found
        for k, dred in found:
            # 15 ms of features beyond the frame's start and 6.5 ms of delay, in steps of 2.5 ms,
            # less any silence of 20 ms each.
            assert (dred.end - 960 * k - 9 * 120) % 960 == 0
            assert dred.end - 960 * k <= 9 * 120
            assert dred.start >= 960 * k - 48 * max_ms
        assert min(d.start - 960 * k for k, d in found) < -48 * max_ms + 1920


def test_the_base_layers_delay_moves_the_features(woman: Pcm) -> None:
    early, late = (redundancy(woman[:80], lookahead=n)[70] for n in (0, 200))
    assert early is not None
    assert late is not None
    assert late.end - early.end == 600


def test_less_room_means_coarser_levels(woman: Pcm) -> None:
    def mean_level(max_bytes: int) -> float:
        found = redundancy(woman, max_ms=400, max_bytes=max_bytes)
        return float(np.mean([dred.symbols.header.q0 for dred in found if dred]))

    assert mean_level(100) < mean_level(50) < mean_level(30)


def test_what_does_not_fit_at_the_coarsest_level_becomes_shorter(woman: Pcm) -> None:
    encoder, decoder = DredEncoder(coarsest=2), DredDecoder()
    for pcm in woman[:100]:
        encoder.push(pcm)
    dred = decoder.parse(attach_dred(PACKET, encoder.payload(max_ms=1000, max_bytes=60)), 0)
    assert dred is not None
    assert dred.symbols.header.q0 == 2
    assert 0 < len(dred) < 100


def test_silence_is_not_described() -> None:
    assert not any(redundancy(np.zeros((100, 320), np.int16)))
    hiss = np.random.default_rng(0).normal(0, 4, (100, 320)).astype(np.int16)
    assert not any(redundancy(hiss))


def test_silence_after_speech_is_left_out_and_then_ends_it(woman: Pcm) -> None:
    spoken = woman[:80]
    frames = np.concatenate([spoken, np.zeros((80, 320), np.int16)])
    found = redundancy(frames)
    last_active = 960 * max(
        k for k, pcm in enumerate(spoken) if root_mean_square(pcm.astype(np.float32)) > 100
    )
    at_40 = found[80 + 40]
    assert at_40 is not None
    assert at_40.end - 960 * 120 < -20 * 960
    assert at_40.end > last_active
    assert not any(found[80 + 65 :])


def test_silence_before_speech_is_left_out(woman: Pcm) -> None:
    frames = np.concatenate([np.zeros((60, 320), np.int16), woman[20:30]])
    dred = redundancy(frames)[-1]
    assert dred is not None
    assert dred.start > 960 * 57


@pytest.mark.parametrize("rest", [1, 30, 61, 80])
def test_an_encoder_that_rested_takes_up_where_it_is(woman: Pcm, rest: int) -> None:
    truth = FeatureExtractor().process(woman.ravel())
    awake, rested = DredEncoder(), DredEncoder()
    awake_error: list[float] = []
    rested_error: list[float] = []
    for k, pcm in enumerate(woman[: REST + rest + 10]):
        awake.push(pcm)
        rested.push(pcm)
        payloads = [awake.payload(max_ms=1000, max_bytes=80)]
        if k < REST + rest:
            continue
        payloads.append(rested.payload(max_ms=1000, max_bytes=80))
        always, now = (DredDecoder().parse(attach_dred(PACKET, p), 960 * k) for p in payloads)
        assert always is not None
        assert now is not None
        assert (now.start, now.end) == (always.start, always.end)
        first = 2 * (k - 45)
        true = truth[first : first + 90, :PITCH]
        for found, errors in ((always, awake_error), (now, rested_error)):
            errors.append(root_mean_square(found.at(960 * (k - 45) - 240, 90)[0][:, :PITCH] - true))
    assert np.mean(rested_error) < 1.03 * np.mean(awake_error)


def test_decoding_goes_no_further_back_than_asked(woman: Pcm) -> None:
    dred = redundancy(woman[:80])[-1]
    assert dred is not None
    assert dred.decoded == 0
    dred.at(dred.end - 960, 2)
    assert dred.decoded == 4
    dred.at(dred.end - 960 * 5, 2)
    assert dred.decoded == 12


def test_decoding_in_steps_gives_what_decoding_at_once_gives(woman: Pcm) -> None:
    at_once, stepwise = redundancy(woman[:80])[-1], redundancy(woman[:80])[-1]
    assert at_once is not None
    assert stepwise is not None
    whole = at_once.newest(len(at_once))
    for count in (3, 4, 9, 30, 10_000):
        np.testing.assert_allclose(stepwise.newest(count), whole[:count], atol=1e-4)


def test_frames_get_the_nearest_vector_and_none_beyond_the_ends(woman: Pcm) -> None:
    dred = redundancy(woman[:80])[-1]
    assert dred is not None
    newest = dred.newest(len(dred))
    for late in (-239, 0, 239):
        found, known = dred.at(dred.end - 960 + late, 2)
        np.testing.assert_array_equal(found, newest[1::-1])
        assert known.all()
    found, known = dred.at(dred.end - 480, 3)
    assert known.tolist() == [True, False, False]
    assert not found[1:].any()
    assert dred.at(dred.start - 480, 2)[1].tolist() == [False, True]
    assert dred.at(dred.start - 10**6, 5)[1].tolist() == [False] * 5


def test_redundancy_is_told_apart_by_its_origin() -> None:
    def carrying(kind: int, payload: bytes) -> bytes:
        return with_extensions(PACKET, Extension(kind, payload))

    libopus = carrying(EXPERIMENTAL_ID, b"D\x0c" + bytes(40))
    assert dred_kind(libopus) is DredKind.LIBOPUS
    assert DredDecoder().parse(libopus, 0) is None
    assert dred_kind(carrying(EXPERIMENTAL_ID, PREFIX + bytes(9))) is DredKind.OURS
    assert dred_kind(carrying(EXPERIMENTAL_ID, b"L\x02abc")) is DredKind.UNKNOWN
    assert dred_kind(carrying(32, b"abc")) is DredKind.UNKNOWN
    assert dred_kind(carrying(40, b"D\x0cabc")) is DredKind.NONE
    assert dred_kind(PACKET) is DredKind.NONE
    assert dred_kind(b"") is DredKind.NONE


@given(st.binary(max_size=300), st.integers(0, 60))
@settings(max_examples=60, deadline=None)
def test_any_payload_gives_bounded_features_or_a_syntax_error(payload: bytes, count: int) -> None:
    packet = with_extensions(PACKET, Extension(EXPERIMENTAL_ID, PREFIX + payload))
    try:
        dred = DredDecoder().parse(packet, 0)
    except DredSyntaxError:
        return
    assert dred is not None
    features = dred.newest(count)
    assert len(features) == min(count, len(dred)) <= 104
    assert np.isfinite(features).all()
    assert np.abs(features).max(initial=0) <= 30
    assert np.abs(features[:, PERIODICITY]).max(initial=0) <= 0.5


def test_a_damaged_payload_is_a_syntax_error() -> None:
    packet = with_extensions(PACKET, Extension(EXPERIMENTAL_ID, PREFIX + bytes(4)))
    with pytest.raises(DredSyntaxError, match="4 bytes"):
        DredDecoder().parse(packet, 0)


def test_settings_out_of_range_are_refused() -> None:
    with pytest.raises(ValueError, match="look-ahead of 500"):
        DredEncoder(lookahead=500)
    with pytest.raises(ValueError, match="levels 9 to 3"):
        DredEncoder(finest=9, coarsest=3)
    with pytest.raises(ValueError, match="slope 8"):
        DredEncoder(slope=8)
    with pytest.raises(ValueError, match="160 samples"):
        DredEncoder().push(np.zeros(160, np.int16))


def test_model_files_that_do_not_load_are_named(tmp_path: Path) -> None:
    with pytest.raises(DredModelError, match=r"dred_stats\.npz"):
        DredModel(tmp_path)
    (tmp_path / "dred_stats.npz").write_bytes(b"no archive")
    with pytest.raises(DredModelError, match=r"dred_stats\.npz"):
        DredModel(tmp_path)
