"""The DRED payload's syntax, also against packets written by libopus."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from codec.dred_syntax import (
    MAX_BYTES,
    MAX_LATENTS,
    MIN_BYTES,
    OFFSET_MAX,
    OFFSET_MIN,
    SLOPES,
    DredHeader,
    DredStatistics,
    DredSymbols,
    DredSyntaxError,
    decode_symbols,
    encode_symbols,
)
from codec.extensions import find_extension
from codec.laplace import LaplaceTables
from codec.opus_packet import frame_ticks
from codec_ext.rangecoder import RangeDecoder, RangeEncoder


def random_tables(dimensions: int, seed: int) -> LaplaceTables:
    random = np.random.default_rng(seed)
    scale, dead_zone, r, p0 = (random.integers(1, 256, (16, dimensions)) for _ in range(4))
    r[random.random(r.shape) < 0.1] = 0
    return LaplaceTables(*(t.astype(np.uint8) for t in (scale, dead_zone, r, p0)))


STATISTICS = DredStatistics(random_tables(7, 1), random_tables(11, 2))


@st.composite
def headers(draw: st.DrawFn) -> DredHeader:
    q0, slope = draw(st.integers(0, 15)), draw(st.integers(0, 7))
    qmax = draw(st.integers(q0 + 1, 15)) if q0 < 14 and slope else 15
    return DredHeader(q0, slope, qmax, draw(st.integers(OFFSET_MIN, OFFSET_MAX)))


@st.composite
def payloads(draw: st.DrawFn) -> DredSymbols:
    header = draw(headers())
    random = np.random.default_rng(draw(st.integers(0, 2**32)))
    count = draw(st.integers(1, MAX_LATENTS))

    def symbols(tables: LaplaceTables, level: int) -> list[int]:
        coded = (tables.r[level] > 0) & (tables.p0[level] < 255)
        return list((random.normal(0, 2, tables.dimensions).round() * coded).astype(int))

    return DredSymbols(
        header,
        np.array(symbols(STATISTICS.state, header.q0), np.int32),
        np.array([symbols(STATISTICS.latent, header.level(i)) for i in range(count)], np.int32),
    )


@given(headers())
def test_a_header_reads_as_it_was_written(header: DredHeader) -> None:
    coder = RangeEncoder()
    header.write(coder)
    decoder = RangeDecoder(coder.finish())
    assert DredHeader.read(decoder) == header
    assert decoder.tell() == coder.tell()


@given(payloads())
def test_a_payload_decodes_to_its_symbols(symbols: DredSymbols) -> None:
    payload = encode_symbols(symbols, STATISTICS, MAX_BYTES)
    if len(payload) < MIN_BYTES:
        return
    found = decode_symbols(payload, STATISTICS)
    assert found.header == symbols.header
    np.testing.assert_array_equal(found.state, symbols.state)
    # A last latent of less than 8 bits goes unread; such bits as fill a byte may read as one more.
    shared = min(len(found.latents), len(symbols.latents))
    assert len(symbols.latents) - shared <= 1
    np.testing.assert_array_equal(found.latents[:shared], symbols.latents[:shared])


@given(payloads(), st.integers(0, 300))
def test_a_payload_keeps_to_its_budget_with_the_newest_latents(
    symbols: DredSymbols, budget: int
) -> None:
    payload = encode_symbols(symbols, STATISTICS, budget)
    assert len(payload) <= budget
    if len(payload) >= MIN_BYTES:
        found = decode_symbols(payload, STATISTICS)
        shared = min(len(found.latents), len(symbols.latents))
        np.testing.assert_array_equal(found.latents[:shared], symbols.latents[:shared])


@given(st.binary(max_size=MAX_BYTES + 20), st.integers(0, 40))
def test_any_bytes_are_a_payload_or_refused(payload: bytes, most: int) -> None:
    try:
        symbols = decode_symbols(payload, STATISTICS, most)
    except DredSyntaxError:
        return
    assert len(symbols.latents) <= min(most, MAX_LATENTS)
    assert all(0 <= level <= 15 for level in symbols.levels())


def test_levels_rise_into_the_past_up_to_the_coarsest() -> None:
    header = DredHeader(q0=6, slope=5, qmax=9)
    assert [header.level(i) for i in range(9)] == [6, 7, 7, 8, 8, 9, 9, 9, 9]
    assert SLOPES[5] == 8


def test_a_payload_that_cannot_hold_one_latent_is_empty() -> None:
    symbols = DredSymbols(DredHeader(0, 0), np.ones(11, np.int32) * 0, np.zeros((2, 7), np.int32))
    assert encode_symbols(symbols, STATISTICS, 2) == b""


@pytest.mark.parametrize(
    "fields",
    [
        {"q0": 16, "slope": 0},
        {"q0": 3, "slope": 8},
        {"q0": 3, "slope": 1, "qmax": 3},
        {"q0": 3, "slope": 0, "qmax": 9},
        {"q0": 14, "slope": 1, "qmax": 14},
        {"q0": 3, "slope": 0, "offset": OFFSET_MAX + 1},
        {"q0": 3, "slope": 0, "offset": OFFSET_MIN - 1},
    ],
)
def test_a_header_out_of_range_is_refused(fields: dict[str, int]) -> None:
    with pytest.raises(DredSyntaxError):
        DredHeader(**fields)


# ---- packets of libopus, read with the tables of libopus ----

LIBOPUS_ID, LIBOPUS_PREFIX = 126, b"D\x0c"


@pytest.fixture(scope="module")
def libopus() -> dict[str, Any]:
    """Packets written by libopus 1.6.1 and what its own parser reads in them."""
    path = os.environ.get("DREDCALL_VECTORS")
    if not path:
        pytest.skip("DREDCALL_VECTORS names no file of libopus packets")
    vectors: dict[str, Any] = json.loads(Path(path).read_text())
    return vectors


@pytest.fixture(scope="module")
def libopus_statistics(libopus: dict[str, Any]) -> DredStatistics:
    def tables(kind: str, dimensions: int) -> LaplaceTables:
        names = ("quant_scales", "dead_zone", "r", "p0")
        values = [libopus["tables"][f"dred_{kind}_{name}_q8"] for name in names]
        return LaplaceTables(*(np.array(v, np.uint8).reshape(16, dimensions) for v in values))

    return DredStatistics(
        tables("latent", libopus["latent_dim"]), tables("state", libopus["state_dim"])
    )


def test_dred_is_found_in_the_packets_of_libopus_that_have_it(libopus: dict[str, Any]) -> None:
    for entry in libopus["packets"]:
        found = find_extension(bytes.fromhex(entry["packet"]), LIBOPUS_ID, LIBOPUS_PREFIX)
        assert (found is not None) == ("levels" in entry)


def test_payloads_of_libopus_decode_exactly(
    libopus: dict[str, Any], libopus_statistics: DredStatistics
) -> None:
    entries = [entry for entry in libopus["packets"] if "levels" in entry]
    assert len(entries) == 102
    for entry in entries:
        packet = bytes.fromhex(entry["packet"])
        found = find_extension(packet, LIBOPUS_ID, LIBOPUS_PREFIX)
        assert found is not None
        symbols = decode_symbols(found.payload[2:], libopus_statistics)
        offset = symbols.header.offset + found.frame * frame_ticks(packet[0]) // 120
        assert offset == entry["dred_offset_2p5ms"]
        assert symbols.levels().tolist() == entry["levels"]
        assert symbols.state.tolist() == entry["state_symbols"]
        assert symbols.latents.tolist() == entry["latent_symbols"]
        span = 640 * len(symbols.latents) - 40 * offset
        assert max(0, span) == entry["dred_samples_16k"]
        assert max(0, -40 * offset) == entry["dred_end_samples_16k"]


def test_payloads_of_libopus_encode_to_the_same_bytes(
    libopus: dict[str, Any], libopus_statistics: DredStatistics
) -> None:
    latent, state = libopus_statistics.latent, libopus_statistics.state
    exact = 0
    for entry in libopus["packets"]:
        found = find_extension(bytes.fromhex(entry["packet"]), LIBOPUS_ID, LIBOPUS_PREFIX)
        if found is None:
            continue
        payload = found.payload[2:]
        symbols = decode_symbols(payload, libopus_statistics)
        again = encode_symbols(symbols, libopus_statistics, MAX_BYTES)
        exact += again == payload
        assert len(again) == len(payload)
        # libopus may send latents in the last 8 bits, where a decoder does not look for them.
        coder = RangeEncoder()
        decoder = RangeDecoder(payload)
        header = DredHeader.read(decoder)
        header.write(coder)
        tables = [(state, header.q0)] + [(latent, header.level(i)) for i in range(MAX_LATENTS)]
        whole = []
        for kind, level in tables:
            p0, r = kind.p0[level], kind.r[level]
            coder.laplace(decoder.laplace(p0, r), p0, r)
            if coder.tell() > 8 * len(payload):
                break
            whole.append(coder.copy().finish(len(payload)))
        assert payload in whole[len(symbols.latents) :]
    assert exact >= 90
