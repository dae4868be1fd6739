"""Extensions in the padding of Opus packets."""

from __future__ import annotations

import av
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from codec.extensions import (
    Extension,
    find_extension,
    packet_extensions,
    padding_of,
    read_region,
    with_extensions,
    with_padding,
    write_region,
)
from codec.opus import OpusDecoder, OpusEncoder
from codec.opus_packet import MalformedPacket, packet_frames

SHORT = st.tuples(st.integers(3, 31), st.binary(max_size=1))
LONG = st.tuples(st.integers(32, 127), st.binary(max_size=600))


@st.composite
def packets(draw: st.DrawFn) -> bytes:
    """A legal packet of any code, its padding empty or zeros."""
    # CELT, 2.5 ms: as many as 48 frames
    toc = draw(st.sampled_from([0b10000000, 0b11100100]))
    frame = st.binary(max_size=300)
    code = draw(st.integers(0, 3))
    if code == 0:
        return bytes([toc]) + draw(frame)
    if code == 1:
        first = draw(frame)
        return bytes([toc | 1]) + first + draw(st.binary(min_size=len(first), max_size=len(first)))
    if code == 2:
        first = draw(frame)
        head = bytes([len(first)]) if len(first) < 252 else _two_bytes(len(first))
        return bytes([toc | 2]) + head + first + draw(frame)
    frames = draw(st.lists(frame, min_size=1, max_size=48))
    variable = draw(st.booleans())
    if not variable:
        frames = [frames[0]] * len(frames)
    padding = draw(st.one_of(st.none(), st.integers(0, 600)))
    out = bytes([toc | 3, len(frames) | variable << 7 | (padding is not None) << 6])
    if padding is not None:
        out += b"\xff" * (padding // 254) + bytes([padding % 254])
    if variable:
        for data in frames[:-1]:
            out += bytes([len(data)]) if len(data) < 252 else _two_bytes(len(data))
    return out + b"".join(frames) + bytes(padding or 0)


def _two_bytes(size: int) -> bytes:
    return next(
        bytes([first, second])
        for first in range(252, 256)
        for second in range(256)
        if 4 * second + first == size
    )


def contents(packet: bytes) -> list[bytes]:
    return [packet[offset : offset + size] for offset, size in packet_frames(packet)]


@st.composite
def packets_and_extensions(draw: st.DrawFn) -> tuple[bytes, list[Extension]]:
    packet = draw(packets())
    frames = len(packet_frames(packet))
    described = draw(st.lists(st.tuples(st.one_of(SHORT, LONG), st.integers(0, frames - 1))))
    return packet, [Extension(kind, payload, frame) for (kind, payload), frame in described]


def by_frame(extensions: list[Extension]) -> list[Extension]:
    return sorted(extensions, key=lambda extension: extension.frame)


@given(packets_and_extensions())
def test_a_packet_gives_back_its_extensions_and_keeps_its_frames(
    given_: tuple[bytes, list[Extension]],
) -> None:
    packet, extensions = given_
    carrying = with_extensions(packet, *extensions)
    assert contents(carrying) == contents(packet)
    assert carrying[0] >> 2 == packet[0] >> 2
    assert packet_extensions(carrying) == by_frame(extensions)


@given(packets_and_extensions(), LONG)
def test_an_added_extension_leaves_foreign_ones_alone(
    given_: tuple[bytes, list[Extension]], ours: tuple[int, bytes]
) -> None:
    packet, foreign = given_
    kind, payload = ours[0], b"ours" + ours[1]
    carrying = with_extensions(with_extensions(packet, *foreign), Extension(kind, payload))
    found = packet_extensions(carrying)
    assert Extension(kind, payload) in found
    found.remove(Extension(kind, payload))
    assert found == by_frame(foreign)
    assert find_extension(carrying, kind, b"ours") == Extension(kind, payload)


@given(st.binary(max_size=400))
def test_any_bytes_are_a_packet_or_malformed(data: bytes) -> None:
    find_extension(data, 126)
    try:
        extensions = packet_extensions(data)
    except MalformedPacket:
        return
    frames = len(packet_frames(data))
    assert all(extension.frame < frames for extension in extensions)
    rewritten = with_extensions(data)
    assert contents(rewritten) == contents(data)
    assert packet_extensions(rewritten) == by_frame(extensions)


@given(st.binary(max_size=300), st.integers(1, 48))
def test_any_region_is_read_within_bounds(region: bytes, frames: int) -> None:
    try:
        for extension in read_region(region, frames):
            assert 3 <= extension.id <= 127
            assert 0 <= extension.frame < frames
            assert len(extension.payload) <= len(region)
    except MalformedPacket:
        pass


def test_repeats_cannot_multiply_a_packet_without_bound() -> None:
    region = bytes([3 << 1]) * 5000 + bytes([2 << 1 | 1])
    with pytest.raises(MalformedPacket, match="more than 1024"):
        list(read_region(region, 48))


REGIONS = {
    "filler bytes": (b"\x01\x01" + bytes([40 << 1]) + b"ab", 1, [Extension(40, b"ab")]),
    "plain padding after": (
        bytes([40 << 1 | 1, 1]) + b"a" + b"\x00\x50\xff",
        1,
        [Extension(40, b"a")],
    ),
    "zeros": (bytes(9), 3, []),
    "a length of 255": (
        bytes([40 << 1 | 1, 255, 0]) + bytes(255) + bytes([3 << 1]),
        1,
        [Extension(40, bytes(255)), Extension(3, b"")],
    ),
    "frames": (
        bytes([2, 5 << 1, 3, 2, 5 << 1 | 1]) + b"x",
        4,
        [Extension(5, b"", 1), Extension(5, b"x", 3)],
    ),
    "a step of no frames": (bytes([3, 0, 5 << 1]), 1, [Extension(5, b"", 0)]),
    "repeated with lengths": (
        bytes([40 << 1 | 1, 1]) + b"a" + bytes([2 << 1 | 1, 2]) + b"bc" + bytes([0]) + b"",
        3,
        [Extension(40, b"a", 0), Extension(40, b"bc", 1), Extension(40, b"", 2)],
    ),
    "repeated to the end": (
        bytes([40 << 1 | 1, 1]) + b"a" + bytes([6 << 1 | 1]) + b"s" + bytes([2 << 1]) + b"bcdS",
        2,
        [
            Extension(40, b"a", 0),
            Extension(6, b"s", 0),
            Extension(40, b"bcd", 1),
            Extension(6, b"S", 1),
        ],
    ),
    "extensions after a repeat": (
        bytes([5 << 1 | 1]) + b"a" + bytes([2 << 1 | 1]) + b"b" + bytes([6 << 1, 2, 7 << 1]),
        2,
        [Extension(5, b"a", 0), Extension(5, b"b", 1), Extension(6, b"", 0), Extension(7, b"", 1)],
    ),
}


@pytest.mark.parametrize("name", REGIONS)
def test_a_region_reads_as_the_draft_says(name: str) -> None:
    region, frames, expected = REGIONS[name]
    assert list(read_region(region, frames)) == expected


@pytest.mark.parametrize(
    ("region", "frames"),
    [
        (bytes([2]), 1),
        (bytes([3, 200]), 48),
        (bytes([3]), 2),
        (bytes([40 << 1 | 1]), 1),
        (bytes([40 << 1 | 1, 255]), 1),
        (bytes([40 << 1 | 1, 5]) + b"abcd", 1),
        (bytes([5 << 1 | 1]), 1),
    ],
)
def test_a_region_that_runs_out_is_malformed(region: bytes, frames: int) -> None:
    with pytest.raises(MalformedPacket):
        list(read_region(region, frames))


@pytest.mark.parametrize(
    ("extension", "complaint"),
    [
        (Extension(2, b""), "extension ID 2"),
        (Extension(128, b""), "extension ID 128"),
        (Extension(3, b"ab"), "2 bytes"),
        (Extension(40, b"", 1), "frame 1"),
    ],
)
def test_an_extension_that_cannot_be_written_is_refused(
    extension: Extension, complaint: str
) -> None:
    with pytest.raises(ValueError, match=complaint):
        with_extensions(b"\x80abc", extension)


def test_the_last_extension_needs_no_length() -> None:
    assert write_region([Extension(126, b"payload")]) == bytes([1, 126 << 1]) + b"payload"


def test_padding_goes_when_nothing_is_in_it() -> None:
    packet = with_extensions(b"\x80abc", Extension(126, b"payload"))
    assert padding_of(with_padding(packet, b"")) == b""


@pytest.fixture(scope="module")
def speech() -> npt.NDArray[np.int16]:
    """Two seconds that are voiced, noisy and silent in turn."""
    random = np.random.default_rng(3)
    t = np.arange(32_000) / 16_000
    voiced = np.sign(np.sin(2 * np.pi * 130 * t)) * (np.sin(2 * np.pi * 2 * t) > 0)
    out = 4000 * voiced + 300 * random.standard_normal(len(t))
    out[20_000:] = 0
    return out.astype(np.int16)


def carry(packet: bytes, index: int) -> bytes:
    """A payload of a length that crosses each length-coding border somewhere in the stream."""
    payload = bytes(np.random.default_rng(index).integers(0, 256, 40 + 13 * index, np.uint8))
    return with_extensions(packet, Extension(126, b"L\x01" + payload))


@pytest.mark.parametrize("dtx", [False, True])
def test_libopus_decodes_the_same_samples_with_and_without(
    speech: npt.NDArray[np.int16], dtx: bool
) -> None:
    encoder = OpusEncoder(bitrate=24_000, expected_loss=20, lbrr=True, dtx=dtx)
    plain, carrying = OpusDecoder(), OpusDecoder()
    sizes = set()
    for index, frame in enumerate(speech.reshape(-1, 320)):
        packet = encoder.encode(frame)
        sizes.add(len(packet) <= 2)
        np.testing.assert_array_equal(plain.decode(packet), carrying.decode(carry(packet, index)))
    assert (True in sizes) is dtx


def decode_with_ffmpeg(packets: list[bytes], codec: str) -> npt.NDArray[np.float32]:
    context = av.CodecContext.create(codec, "r")
    context.sample_rate = 48_000  # type: ignore[attr-defined]
    context.layout = "mono"  # type: ignore[attr-defined]
    frames = []
    for packet in packets:
        frames += context.decode(av.Packet(packet))  # type: ignore[attr-defined]
    return np.concatenate([frame.to_ndarray().ravel() for frame in frames]).astype(np.float32)


@pytest.mark.parametrize("codec", ["opus", "libopus"])
def test_ffmpeg_decodes_the_same_samples_with_and_without(
    speech: npt.NDArray[np.int16], codec: str
) -> None:
    encoder = OpusEncoder(bitrate=24_000, expected_loss=20, lbrr=True)
    packets = [encoder.encode(frame) for frame in speech.reshape(-1, 320)]
    plain = decode_with_ffmpeg(packets, codec)
    carrying = decode_with_ffmpeg([carry(p, i) for i, p in enumerate(packets)], codec)
    assert np.abs(plain).max() > 0
    np.testing.assert_array_equal(plain, carrying)
