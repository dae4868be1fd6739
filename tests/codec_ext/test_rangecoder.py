"""The range coder and the Laplace code against slow references and against themselves."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from codec_ext.rangecoder import LIMIT, RangeDecoder, RangeEncoder
from tests.codec_ext.rangecoder_reference import (
    ReferenceDecoder,
    ReferenceEncoder,
    laplace_encode,
)

Operation = tuple[str, tuple[Any, ...]]


@st.composite
def frequencies(draw: st.DrawFn) -> Operation:
    total = draw(st.integers(1, 65536))
    low = draw(st.integers(0, total - 1))
    return "encode", (low, draw(st.integers(low + 1, total)), total)


@st.composite
def icdf_symbols(draw: st.DrawFn) -> Operation:
    bits = draw(st.integers(2, 15))
    steps = draw(st.lists(st.integers(1, (1 << bits) - 1), min_size=1, max_size=12, unique=True))
    table = [*sorted(steps, reverse=True), 0]
    return "icdf", (draw(st.integers(0, len(table) - 1)), table, bits)


@st.composite
def integers(draw: st.DrawFn) -> Operation:
    total = draw(st.one_of(st.integers(2, 300), st.integers(2, 2**32 - 1)))
    return "uint", (draw(st.integers(0, total - 1)), total)


@st.composite
def raw_bits(draw: st.DrawFn) -> Operation:
    count = draw(st.integers(0, 25))
    return "bits", (draw(st.integers(0, (1 << count) - 1)), count)


operations = st.lists(st.one_of(frequencies(), icdf_symbols(), integers(), raw_bits()), max_size=60)


def decode_one(decoder: RangeDecoder, name: str, arguments: tuple[Any, ...]) -> tuple[Any, Any]:
    """What was decoded, and what should have been."""
    if name == "encode":
        low, high, total = arguments
        found = decoder.decode(total)
        decoder.update(low, high)
        return low <= found < high, True
    value, *description = arguments
    return getattr(decoder, name)(*description), value


@given(operations)
def test_what_is_encoded_decodes_and_both_sides_count_the_same_bits(todo: list[Operation]) -> None:
    encoder = RangeEncoder(2048)
    tells = []
    for name, arguments in todo:
        getattr(encoder, name)(*arguments)
        tells.append(encoder.tell())
    data = encoder.finish()
    assert len(data) == (encoder.tell() + 7) // 8
    decoder = RangeDecoder(data)
    for (name, arguments), tell in zip(todo, tells, strict=True):
        found, expected = decode_one(decoder, name, arguments)
        assert found == expected
        assert decoder.tell() == tell
    assert not decoder.failed


@given(operations, st.integers(0, 5))
def test_the_bytes_are_those_of_the_reference(todo: list[Operation], spare: int) -> None:
    encoder, reference = RangeEncoder(2048), ReferenceEncoder()
    for name, arguments in todo:
        getattr(encoder, name)(*arguments)
        getattr(reference, name)(*arguments)
        assert encoder.tell() == reference.tell()
    size = (encoder.tell() + 7) // 8 + spare
    assert encoder.finish(size) == reference.finish(size)


@given(st.binary(max_size=40), operations)
def test_any_bytes_decode_as_the_reference_decodes_them(data: bytes, todo: list[Operation]) -> None:
    decoder, reference = RangeDecoder(data), ReferenceDecoder(data)
    for name, arguments in todo:
        if name == "encode":
            total = arguments[2]
            found = decoder.decode(total)
            assert found == reference.decode(total)
            decoder.update(found, found + 1)
            reference.update(found, found + 1, total)
        else:
            assert getattr(decoder, name)(*arguments[1:]) == getattr(reference, name)(
                *arguments[1:]
            )
        assert decoder.tell() == reference.tell()


@st.composite
def laplace_vectors(draw: st.DrawFn) -> tuple[list[int], list[int], list[int]]:
    n = draw(st.integers(0, 40))
    p0 = draw(st.lists(st.integers(1, 255), min_size=n, max_size=n))
    r = draw(st.lists(st.integers(0, 255), min_size=n, max_size=n))
    size = st.one_of(st.integers(-3, 3), st.integers(-60, 60), st.integers(-LIMIT, LIMIT))
    values = [
        0 if r[i] == 0 or p0[i] == 255 else draw(size if r[i] > 200 else st.integers(-20, 20))
        for i in range(n)
    ]
    return values, p0, r


@given(laplace_vectors())
@settings(max_examples=60)
def test_laplace_values_decode_and_match_the_reference(
    vectors: tuple[list[int], list[int], list[int]],
) -> None:
    values, p0, r = vectors
    encoder, reference = RangeEncoder(8192), ReferenceEncoder()
    table0, table_r = np.array(p0, np.uint8), np.array(r, np.uint8)
    encoder.laplace(np.array(values, np.int32), table0, table_r)
    for value, a, b in zip(values, p0, r, strict=True):
        laplace_encode(reference, value, a, b)
    size = (reference.tell() + 7) // 8
    data = encoder.finish()
    assert data == reference.finish(size)
    assert RangeDecoder(data).laplace(table0, table_r).tolist() == values


@given(st.binary(max_size=60), st.integers(1, 255), st.integers(0, 255))
def test_any_bytes_give_bounded_laplace_values(data: bytes, p0: int, r: int) -> None:
    decoder = RangeDecoder(data)
    values = decoder.laplace(np.full(100, p0, np.uint8), np.full(100, r, np.uint8))
    assert np.abs(values).max() <= LIMIT


def test_a_likely_zero_costs_what_its_probability_says() -> None:
    encoder = RangeEncoder()
    before = encoder.tell()
    encoder.laplace(
        np.zeros(100, np.int32), np.full(100, 192, np.uint8), np.full(100, 80, np.uint8)
    )
    expected = 100 * np.log2(256 / 192)
    assert encoder.tell() - before == pytest.approx(expected, abs=1.5)


def test_a_copy_goes_its_own_way() -> None:
    encoder = RangeEncoder(20)
    encoder.uint(3, 7)
    copy = encoder.copy()
    encoder.uint(1, 1000)
    expected = RangeEncoder(20)
    expected.uint(3, 7)
    expected.uint(5, 6)
    copy.uint(5, 6)
    assert copy.finish(20) == expected.finish(20)


def test_a_code_that_does_not_fit_is_refused() -> None:
    encoder = RangeEncoder(4)
    for _ in range(5):
        encoder.uint(200, 256)
    with pytest.raises(OverflowError, match="does not fit"):
        encoder.finish()
    raw = RangeEncoder(2)
    raw.bits(0x1FFFF, 17)
    with pytest.raises(OverflowError):
        raw.finish(2)


def test_nothing_follows_the_end_of_a_code() -> None:
    encoder = RangeEncoder()
    encoder.finish()
    with pytest.raises(ValueError, match="finished"):
        encoder.uint(0, 2)


@pytest.mark.parametrize(
    ("method", "arguments"),
    [
        ("encode", (2, 2, 4)),
        ("encode", (0, 5, 4)),
        ("encode", (0, 1, 65537)),
        ("uint", (4, 4)),
        ("uint", (0, 1)),
        ("bits", (4, 2)),
        ("bits", (0, 26)),
        ("icdf", (2, [3, 0], 2)),
        ("icdf", (0, [3, 1], 2)),
        ("icdf", (1, [2, 2, 0], 2)),
        ("icdf", (0, [5, 0], 2)),
        ("icdf", (0, [], 2)),
    ],
)
def test_arguments_that_name_no_symbol_are_refused(method: str, arguments: tuple[Any, ...]) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 (the message depends on the argument)
        getattr(RangeEncoder(), method)(*arguments)


@pytest.mark.parametrize(
    ("value", "p0", "r"), [(1, 255, 9), (1, 9, 0), (0, 0, 9), (LIMIT + 1, 9, 9)]
)
def test_values_without_a_code_are_refused(value: int, p0: int, r: int) -> None:
    with pytest.raises(ValueError):  # noqa: PT011
        RangeEncoder().laplace(
            np.array([value], np.int32), np.array([p0], np.uint8), np.array([r], np.uint8)
        )
