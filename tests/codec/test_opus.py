"""The base layer against the real libopus."""

from __future__ import annotations

import ctypes
import ctypes.util
import functools
import itertools
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from codec import FRAME, SAMPLE_RATE
from codec.frame import PcmFrame
from codec.libopus import (
    ENVIRONMENT_VARIABLE,
    _load,
    candidates,
    load_libopus,
    parse_version,
)
from codec.opus import (
    MAX_PACKET,
    MalformedPacket,
    OpusDecoder,
    OpusEncoder,
    OpusError,
    OpusUnavailable,
    has_lbrr,
    packet_frames,
    packet_samples,
)

ROOT = Path(__file__).parents[2]


def voice(frames: int, seed: int = 1) -> npt.NDArray[np.int16]:
    """A buzz of wandering pitch in syllables, int16 [frames, 320]: voiced enough for SILK."""
    rng = np.random.default_rng(seed)
    t = np.arange(frames * FRAME) / SAMPLE_RATE
    pitch = 120 + 20 * np.sin(2 * np.pi * 0.7 * t)
    phase = 2 * np.pi * np.cumsum(pitch) / SAMPLE_RATE
    buzz = np.sum([np.sin(k * phase) / k for k in range(1, 25)], axis=0)
    envelope = 0.55 + 0.45 * np.sin(2 * np.pi * 3 * t)
    signal = 4000 * envelope * buzz + rng.normal(0, 30, len(t))
    clipped: npt.NDArray[np.int16] = signal.clip(-32768, 32767).astype(np.int16)
    return clipped.reshape(frames, FRAME)


def snr_db(reference: npt.NDArray[np.int16], got: npt.NDArray[np.int16]) -> float:
    noise = got.astype(float) - reference
    return float(10 * np.log10(np.sum(reference.astype(float) ** 2) / np.sum(noise**2)))


@pytest.fixture(scope="module")
def lbrr_packets() -> list[bytes]:
    encoder = OpusEncoder(expected_loss=20)
    return [encoder.encode(frame) for frame in voice(60)]


# --- finding the library -------------------------------------------------------------------------


def test_a_named_library_is_the_one_that_is_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    path = load_libopus().path
    assert load_libopus(path).path == path
    monkeypatch.setenv(ENVIRONMENT_VARIABLE, path)
    assert load_libopus().path == path


def test_a_named_library_that_does_not_load_is_refused_by_name(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    missing = str(tmp_path / "libopus-none.so")
    with pytest.raises(OpusUnavailable, match="libopus-none"):
        OpusEncoder(library=missing)
    monkeypatch.setenv(ENVIRONMENT_VARIABLE, missing)
    with pytest.raises(OpusUnavailable, match="libopus-none"):
        OpusDecoder()


def test_a_library_that_is_not_libopus_is_refused() -> None:
    libc = ctypes.util.find_library("c")
    if libc is None:
        pytest.skip("no C library to mistake for libopus")
    with pytest.raises(OpusUnavailable, match="not libopus"):
        load_libopus(libc)


def forged(tmp_path: Path, version: str) -> Path:
    """A library with the functions of libopus; only the one that tells the version works."""
    source = tmp_path / "forged.c"
    names = [name for name in vars(load_libopus()) if name.startswith("opus_")]
    source.write_text(
        f'const char *opus_get_version_string(void) {{ return "libopus {version}"; }}\n'
        + "".join(f"int {n}(void) {{ return 0; }}\n" for n in names if "version" not in n)
    )
    library = tmp_path / f"libopus-{version}.so"
    try:
        subprocess.run(["cc", "-shared", "-fPIC", "-o", library, source], check=True)
    except FileNotFoundError:
        pytest.skip("no C compiler")
    return library


def test_an_old_library_is_refused_with_its_version(tmp_path: Path) -> None:
    library = forged(tmp_path, "1.2.1")
    with pytest.raises(OpusUnavailable, match=r"libopus 1\.2\.1.*1\.3 or newer"):
        load_libopus(library)


@pytest.mark.parametrize(
    ("system", "wheel", "taken"),
    [
        ("1.3.1", "1.6.1", "1.6.1"),
        ("1.10", "1.6.1", "1.10"),
        ("1.6.1", "1.6.1", "the system's"),
        ("1.2.1", "1.5", "1.5"),
        ("1.4", None, "1.4"),
    ],
)
def test_the_systems_library_is_taken_unless_the_wheels_is_newer(
    system: str, wheel: str | None, taken: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lying = {}
    for place, version in (("system", system), ("wheel", wheel)):
        if version:
            (tmp_path / place).mkdir()
            lying[place] = str(forged(tmp_path / place, version))
    monkeypatch.delenv(ENVIRONMENT_VARIABLE, raising=False)
    places = [("the system", lying["system"]), ("PyAV", lying.get("wheel"))]
    monkeypatch.setattr("codec.libopus.candidates", lambda: iter(places))
    _load.cache_clear()
    try:
        library = load_libopus()
    finally:
        _load.cache_clear()
    if taken == "the system's":
        assert library.path == lying["system"]
    else:
        assert library.version == f"libopus {taken}"


def test_without_any_library_the_error_names_every_place_searched() -> None:
    script = (
        "import ctypes.util, importlib.util\n"
        "ctypes.util.find_library = lambda name: None\n"
        "find = importlib.util.find_spec\n"
        "importlib.util.find_spec = lambda n, p=None: None if n == 'av' else find(n, p)\n"
        "from codec.opus import OpusEncoder, OpusUnavailable\n"
        "try:\n    OpusEncoder()\nexcept OpusUnavailable as error:\n    print(error)\n"
    )
    environment = {k: v for k, v in os.environ.items() if k != ENVIRONMENT_VARIABLE}
    said = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, env=environment, capture_output=True, text=True
    ).stdout
    for place in (ENVIRONMENT_VARIABLE, "the system", "PyAV"):
        assert place in said
    assert said.count("\n") == 1


@pytest.mark.parametrize(
    ("text", "version"),
    [
        ("libopus 1.6.1", (1, 6, 1)),
        ("libopus 1.3.1-fixed", (1, 3, 1)),
        ("libopus 1.5-12-gdeadbeef", (1, 5)),
        ("libopus unknown", None),
    ],
)
def test_versions_are_read_as_libopus_writes_them(text: str, version: tuple[int, ...]) -> None:
    assert parse_version(text) == version


# --- the codec -----------------------------------------------------------------------------------


def test_decoded_speech_is_what_was_encoded_one_lookahead_later() -> None:
    frames = voice(50)
    encoder, decoder = OpusEncoder(bitrate=40_000), OpusDecoder()
    heard = np.concatenate([decoder.decode(encoder.encode(frame)) for frame in frames])
    said = frames.reshape(-1)
    likeness = [np.corrcoef(said[: len(said) - lag], heard[lag:])[0, 1] for lag in range(FRAME)]
    assert max(likeness) > 0.8
    assert np.argmax(likeness) == pytest.approx(encoder.lookahead, abs=8)


def test_packets_are_wide_band_silk_of_20_ms() -> None:
    encoder = OpusEncoder()
    for frame in voice(20):
        packet = encoder.encode(frame)
        assert packet[0] >> 3 == 9  # RFC 6716, table 2: SILK-only, WB, 20 ms
        assert packet_samples(packet) == 960


def test_both_sides_agree_on_the_range_coders_final_state() -> None:
    encoder, decoder = OpusEncoder(), OpusDecoder()
    for frame in voice(20):
        decoder.decode(encoder.encode(frame))
        assert encoder.final_range == decoder.final_range != 0


def test_settings_read_back_and_can_change_in_mid_call() -> None:
    encoder = OpusEncoder(bitrate=12_000, expected_loss=7, lbrr=False)
    assert (encoder.bitrate, encoder.expected_loss, encoder.lbrr) == (12_000, 7, False)
    frames = voice(100)
    low = sum(len(encoder.encode(frame)) for frame in frames[:50])
    encoder.bitrate, encoder.expected_loss, encoder.lbrr = 40_000, 20, True
    assert (encoder.bitrate, encoder.expected_loss, encoder.lbrr) == (40_000, 20, True)
    assert sum(len(encoder.encode(frame)) for frame in frames[50:]) > 2 * low


@pytest.mark.parametrize(
    ("setting", "value"),
    [("bitrate", 5_999), ("bitrate", 510_001), ("expected_loss", -1), ("expected_loss", 101)],
)
def test_a_setting_out_of_range_is_refused_with_its_value(setting: str, value: int) -> None:
    with pytest.raises(ValueError, match=str(value)):
        setattr(OpusEncoder(), setting, value)


def test_a_complexity_out_of_range_is_refused() -> None:
    with pytest.raises(ValueError, match="11"):
        OpusEncoder(complexity=11)


@pytest.mark.parametrize(
    "pcm", [np.zeros(319, np.int16), np.zeros((1, 320), np.int16), np.zeros(320, np.float32)]
)
def test_what_is_not_a_frame_is_not_encoded(pcm: PcmFrame) -> None:
    with pytest.raises(ValueError, match="int16"):
        OpusEncoder().encode(pcm)


def test_a_strided_frame_is_encoded_like_its_copy() -> None:
    stereo = np.repeat(voice(1)[0], 2).reshape(FRAME, 2)
    assert OpusEncoder().encode(stereo[:, 0]) == OpusEncoder().encode(voice(1)[0])


def test_silence_under_dtx_is_mostly_not_worth_sending() -> None:
    encoder = OpusEncoder(dtx=True)
    sizes = [len(encoder.encode(np.zeros(FRAME, np.int16))) for _ in range(100)]
    assert sum(size <= 2 for size in sizes[50:]) > 40
    decoder = OpusDecoder()
    for _ in range(10):
        assert decoder.decode(encoder.encode(np.zeros(FRAME, np.int16))).shape == (FRAME,)


def test_lbrr_brings_back_the_frame_before(lbrr_packets: list[bytes]) -> None:
    whole, fec, guess = OpusDecoder(), OpusDecoder(), OpusDecoder()
    frames = [whole.decode(packet) for packet in lbrr_packets]
    lost = next(i for i in range(30, 59) if has_lbrr(lbrr_packets[i + 1]))
    for packet in lbrr_packets[:lost]:
        fec.decode(packet)
        guess.decode(packet)
    recovered = fec.decode_lbrr(lbrr_packets[lost + 1])
    concealed = guess.conceal()
    assert snr_db(frames[lost], recovered) > snr_db(frames[lost], concealed) + 3
    assert fec.decode(lbrr_packets[lost + 1]).shape == (FRAME,)


def test_a_packet_without_lbrr_is_refused_rather_than_concealed() -> None:
    encoder = OpusEncoder(lbrr=False)
    packets = [encoder.encode(frame) for frame in voice(10)]
    decoder, control = OpusDecoder(), OpusDecoder()
    decoder.decode(packets[8])
    control.decode(packets[8])
    with pytest.raises(OpusError, match="no LBRR"):
        decoder.decode_lbrr(packets[9])
    np.testing.assert_array_equal(decoder.decode(packets[9]), control.decode(packets[9]))


def test_a_decoder_that_was_reset_decodes_like_a_new_one(lbrr_packets: list[bytes]) -> None:
    decoder = OpusDecoder()
    first = [decoder.decode(packet) for packet in lbrr_packets[:10]]
    decoder.reset()
    np.testing.assert_array_equal(first, [decoder.decode(p) for p in lbrr_packets[:10]])


def test_a_copy_goes_on_by_itself_from_the_same_packet(lbrr_packets: list[bytes]) -> None:
    decoder = OpusDecoder()
    for packet in lbrr_packets[:20]:
        decoder.decode(packet)
    copies = [decoder.copy(), decoder.copy()]
    expected = [decoder.decode(packet) for packet in lbrr_packets[20:30]]
    copies[0].conceal()
    np.testing.assert_array_equal(expected, [copies[1].decode(p) for p in lbrr_packets[20:30]])
    copies.clear()
    assert decoder.decode(lbrr_packets[30]).shape == (FRAME,)


def test_a_frame_that_was_handed_out_is_the_callers(lbrr_packets: list[bytes]) -> None:
    decoder = OpusDecoder()
    first = [decoder.decode(packet) for packet in lbrr_packets[:20]][10]
    kept = first.copy()
    first[:] = 0
    again = OpusDecoder()
    np.testing.assert_array_equal([again.decode(p) for p in lbrr_packets[:20]][10], kept)


def test_longer_packets_are_refused_and_leave_the_decoder_alone(lbrr_packets: list[bytes]) -> None:
    double = bytes([lbrr_packets[0][0] | 1]) + bytes(40)
    decoder, control = OpusDecoder(), OpusDecoder()
    with pytest.raises(MalformedPacket, match="40 ms"):
        decoder.decode(double)
    np.testing.assert_array_equal(decoder.decode(lbrr_packets[0]), control.decode(lbrr_packets[0]))


@pytest.mark.parametrize("packet", [b"", bytes(MAX_PACKET + 1), b"\x4b"])
def test_what_is_no_packet_raises_a_typed_error(packet: bytes) -> None:
    with pytest.raises(OpusError):
        OpusDecoder().decode(packet)
    with pytest.raises(OpusError):
        OpusDecoder().decode_lbrr(packet)


# --- the outside of a packet ---------------------------------------------------------------------


@functools.cache
def raw_libopus(path: str) -> ctypes.CDLL:
    return ctypes.CDLL(path)


def opus_packet_parse(packet: bytes) -> list[int] | None:
    """libopus's own reading: the sizes of the frames, None if it refuses."""
    sizes = (ctypes.c_int16 * 48)()
    frames = (ctypes.c_void_p * 48)()
    parse = raw_libopus(load_libopus().path).opus_packet_parse
    count = parse(packet, len(packet), None, frames, sizes, None)
    return list(sizes[:count]) if count > 0 else None


packets = st.one_of(
    st.binary(max_size=64),
    # code 3: the frame count, padding and lengths are where the branches are
    st.builds(
        lambda toc, count, rest: bytes([toc | 3, count]) + rest,
        st.integers(0, 255),
        st.integers(0, 255),
        st.lists(st.sampled_from([0, 1, 2, 10, 251, 252, 254, 255]), max_size=300).map(bytes),
    ),
    st.builds(
        lambda toc, size: bytes([toc]) + bytes(size), st.integers(0, 255), st.integers(0, 3000)
    ),
)


@settings(max_examples=500, deadline=None)
@given(packets)
@example(b"")
@example(b"\x4b\x41\xff")
def test_frames_lie_where_libopus_finds_them(packet: bytes) -> None:
    theirs = opus_packet_parse(packet)
    if theirs is None:
        with pytest.raises(ValueError, match=r"\w"):
            packet_samples(packet)
        assert not has_lbrr(packet)
        return
    frames = packet_frames(packet)
    assert [size for _, size in frames] == theirs
    assert all(offset > 0 and offset + size <= len(packet) for offset, size in frames)
    assert packet_samples(packet) <= 5760


@functools.cache
def lbrr_oracle() -> Callable[[bytes, int], int]:
    for path in [load_libopus().path, *(path for _, path in candidates() if path)]:
        library = raw_libopus(path)
        if hasattr(library, "opus_packet_has_lbrr"):
            oracle: Callable[[bytes, int], int] = library.opus_packet_has_lbrr
            return oracle
    pytest.skip("no libopus with opus_packet_has_lbrr (1.5 and later)")


@settings(max_examples=500, deadline=None)
@given(packets)
def test_lbrr_is_seen_where_libopus_sees_it(packet: bytes) -> None:
    theirs = lbrr_oracle()(packet, len(packet)) if packet else 0
    assert has_lbrr(packet) == (theirs > 0)


def test_lbrr_is_seen_for_every_configuration_and_header() -> None:
    oracle = lbrr_oracle()
    for toc, header in itertools.product(range(256), range(256)):
        packet = bytes([toc, 1, header, 0, 0]) if toc & 3 == 3 else bytes([toc, header, header])
        if toc & 3 == 2:
            packet = bytes([toc, 1, header, 0])
        assert has_lbrr(packet) == (oracle(packet, len(packet)) > 0), packet.hex()


def test_an_encoders_lbrr_is_seen_and_its_absence_too(lbrr_packets: list[bytes]) -> None:
    assert sum(map(has_lbrr, lbrr_packets)) > len(lbrr_packets) // 2
    encoder = OpusEncoder(expected_loss=20, lbrr=False)
    assert not any(has_lbrr(encoder.encode(frame)) for frame in voice(60))


@settings(max_examples=150, deadline=None)
@given(st.lists(packets, max_size=8), st.integers(0, 255), st.binary(min_size=1, max_size=200))
def test_any_bytes_are_decoded_or_refused(hostile: list[bytes], toc: int, payload: bytes) -> None:
    decoder = OpusDecoder()
    for packet in (*hostile, bytes([toc & 0xFC]) + payload):
        for decode in (decoder.decode, decoder.decode_lbrr):
            try:
                pcm = decode(packet)
            except OpusError:
                continue
            assert pcm.shape == (FRAME,)
            assert pcm.dtype == np.int16
    assert decoder.conceal().shape == (FRAME,)


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 29), st.data())
def test_damaged_speech_packets_are_decoded_or_refused(
    lbrr_packets: list[bytes], index: int, data: st.DataObject
) -> None:
    decoder = OpusDecoder()
    decoder.decode(lbrr_packets[index])
    damaged = bytearray(lbrr_packets[index + 1])
    for _ in range(data.draw(st.integers(1, 4))):
        damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    try:
        assert decoder.decode(bytes(damaged)).shape == (FRAME,)
    except OpusError:
        assert decoder.conceal().shape == (FRAME,)
