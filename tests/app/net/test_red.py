"""Redundant audio data: what is packed is read back, and hostile bytes lead to one error."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.net.red import (
    MAX_BLOCKS,
    MAX_LENGTH,
    MAX_OFFSET,
    MAX_PAYLOAD,
    Copy,
    RedBlock,
    RedEncoder,
    RedError,
    pack_red,
    parse_red,
    unpack_red,
)
from codec import FRAME_TICKS

OPUS = 111


def own(data: bytes) -> RedBlock:
    return RedBlock(OPUS, 0, data)


copies = st.builds(
    RedBlock, st.integers(0, 127), st.integers(1, MAX_OFFSET), st.binary(max_size=MAX_LENGTH)
)
payload_types = st.integers(0, 127)


def test_a_payload_looks_as_the_rfc_draws_it() -> None:
    packed = pack_red([RedBlock(5, 160, b"old"), RedBlock(7, 0, b"news")])
    # F=1 PT=5, 14 bits of 160 and 10 of 3; F=0 PT=7
    assert packed == bytes([0x85, 160 >> 6, (160 & 63) << 2, 3, 7]) + b"oldnews"


@given(st.lists(copies, max_size=MAX_BLOCKS - 1), payload_types, st.binary(max_size=1500))
def test_blocks_are_read_back_as_they_were_packed(
    earlier: list[RedBlock], payload_type: int, data: bytes
) -> None:
    blocks = [*earlier, RedBlock(payload_type, 0, data)]
    assert parse_red(pack_red(blocks)) == blocks


@given(st.binary(max_size=300))
def test_any_bytes_are_blocks_or_one_error(payload: bytes) -> None:
    try:
        blocks = parse_red(payload)
    except RedError:
        return
    assert 1 <= len(blocks) <= MAX_BLOCKS
    assert sum(len(block.data) for block in blocks) < len(payload)
    assert pack_red(blocks) == payload or any(not block.offset for block in blocks[:-1])


@given(st.integers(0, 126), st.integers(0, MAX_OFFSET), st.data())
def test_a_payload_cut_anywhere_is_blocks_or_one_error(
    payload_type: int, offset: int, data: st.DataObject
) -> None:
    blocks = [RedBlock(payload_type, offset or 1, b"a" * 40), own(b"b" * 40)]
    packed = pack_red(blocks)
    cut = packed[: data.draw(st.integers(0, len(packed) - 1))]
    try:
        read = parse_red(cut)
    except RedError:
        return
    assert read[0] == blocks[0]
    assert blocks[1].data.startswith(read[1].data)


@pytest.mark.parametrize(
    ("payload", "reason"),
    [
        (b"", "own header is missing"),
        (b"\xef\x00\x00", "header is cut off"),
        (b"\xef\x0f\x00\x05", "own header is missing"),
        (b"\xef\x0f\x00\x05\x6fabcd", "longer than the packet"),
        (b"\xef\x0f\x00\x00" * MAX_BLOCKS + b"\x6f", f"more than {MAX_BLOCKS} blocks"),
    ],
)
def test_an_error_says_what_is_wrong(payload: bytes, reason: str) -> None:
    with pytest.raises(RedError, match=reason):
        parse_red(payload)


@pytest.mark.parametrize(
    "blocks",
    [
        [],
        [RedBlock(OPUS, 960, b"")],
        [RedBlock(OPUS, 0, b""), own(b"")],
        [RedBlock(OPUS, MAX_OFFSET + 1, b""), own(b"")],
        [RedBlock(OPUS, 960, bytes(MAX_LENGTH + 1)), own(b"")],
        [RedBlock(OPUS, 960, b"")] * MAX_BLOCKS + [own(b"")],
    ],
)
def test_blocks_that_do_not_fit_are_refused(blocks: list[RedBlock]) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - each for a reason of its own
        pack_red(blocks)


def sent(packets: list[bytes], copies: int, step: int = FRAME_TICKS) -> list[bytes | None]:
    encoder = RedEncoder(OPUS)
    return [encoder.protect(packet, step * n, copies) for n, packet in enumerate(packets)]


def test_each_packet_repeats_the_ones_before_it_newest_last() -> None:
    first, second, third = sent([b"one", b"two", b"three"], copies=2)
    assert first is None
    assert second is not None
    assert third is not None
    assert parse_red(second) == [RedBlock(OPUS, 960, b"one"), own(b"two")]
    assert parse_red(third) == [
        RedBlock(OPUS, 1920, b"one"),
        RedBlock(OPUS, 960, b"two"),
        own(b"three"),
    ]


def test_copies_may_be_switched_on_at_any_time() -> None:
    encoder = RedEncoder(OPUS)
    assert encoder.protect(b"one", 0, 0) is None
    assert encoder.protect(b"two", 960, 0) is None
    protected = encoder.protect(b"three", 1920, 1)
    assert protected is not None
    assert parse_red(protected) == [RedBlock(OPUS, 960, b"two"), own(b"three")]


def test_what_is_too_old_or_too_large_is_not_repeated() -> None:
    assert sent([b"one", b"two"], copies=2, step=MAX_OFFSET + 1) == [None, None]
    assert sent([bytes(MAX_LENGTH + 1), b"two"], copies=1) == [None, None]
    assert sent([bytes(700), bytes(700)], copies=1) == [None, None]
    # an unbroken run: nothing is taken from behind a packet that does not fit
    *_, last = sent([b"one", bytes(1190), b"three"], copies=2)
    assert last is None


@given(st.lists(st.binary(max_size=1275), max_size=8), st.integers(0, 2))
def test_redundancy_never_makes_a_packet_too_large_for_the_network(
    packets: list[bytes], copies: int
) -> None:
    for protected in sent(packets, copies):
        assert protected is None or len(protected) <= MAX_PAYLOAD


@given(st.integers(0, 0xFFFF), st.integers(0, 0xFFFF_FFFF))
def test_copies_are_numbered_back_from_their_packet(sequence: int, timestamp: int) -> None:
    *_, last = sent([b"one", b"two", b"three"], copies=2)
    assert last is not None
    assert unpack_red(last, OPUS, sequence, timestamp) == (
        b"three",
        (
            Copy((sequence - 1) % 2**16, (timestamp - 960) % 2**32, b"two"),
            Copy((sequence - 2) % 2**16, (timestamp - 1920) % 2**32, b"one"),
        ),
    )


def test_blocks_of_other_types_and_empty_ones_are_passed_over() -> None:
    packed = pack_red(
        [
            RedBlock(13, 2880, b"noise"),
            RedBlock(OPUS, 1920, b"one"),
            RedBlock(OPUS, 960, b""),
            own(b"x"),
        ]
    )
    assert unpack_red(packed, OPUS, 10, 2880) == (b"x", (Copy(8, 960, b"one"),))


def test_a_packet_of_another_type_is_refused() -> None:
    with pytest.raises(RedError, match="payload type 13 where 111 is due"):
        unpack_red(pack_red([RedBlock(13, 0, b"noise")]), OPUS, 0, 0)
