"""Recorded losses."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.netem import LossTrace, Netem, NetemError, NetemSpec, load_loss_trace, parse_loss_trace
from app.netem import trace as trace_module


def lost(netem: Netem, packets: int) -> list[int]:
    return [int(not netem.process(b"x", 0.02 * i)) for i in range(packets)]


def test_zeros_and_ones_may_stand_in_lines_or_in_rows() -> None:
    assert list(parse_loss_trace("0 1\n1\n\n  0\t1\r\n").losses) == [0, 1, 1, 0, 1]


def test_a_trace_takes_the_packets_it_names_and_begins_again() -> None:
    netem = Netem(NetemSpec(), seed=1, trace=parse_loss_trace("0 0 1 1 0"))
    assert lost(netem, 12) == [0, 0, 1, 1, 0, 0, 0, 1, 1, 0, 0, 0]
    assert netem.counters.lost == 4


def test_a_wrong_word_is_named_with_its_line() -> None:
    with pytest.raises(NetemError, match=r"a\.txt, line 3: '2': expected 0 or 1"):
        parse_loss_trace("0\n1 1\n0 2 x\n", "a.txt")


def test_run_together_digits_are_refused() -> None:
    with pytest.raises(NetemError, match="line 1: '0110'"):
        parse_loss_trace("0110")


@pytest.mark.parametrize("text", ["", " \n\n"])
def test_an_empty_trace_is_refused(text: str) -> None:
    with pytest.raises(NetemError, match="no packets"):
        parse_loss_trace(text)


def test_a_file_is_read(tmp_path: Path) -> None:
    path = tmp_path / "loss.txt"
    path.write_text("1\n0\n")
    assert list(load_loss_trace(path).losses) == [1, 0]


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(NetemError, match=r"absent\.txt: No such file"):
        load_loss_trace(tmp_path / "absent.txt")


def test_a_huge_file_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trace_module, "MAX_TRACE_BYTES", 2**20)
    path = tmp_path / "loss.txt"
    path.write_bytes(b"0\n" * 2**19 + b"1")
    with pytest.raises(NetemError, match="larger than 1 MiB"):
        load_loss_trace(path)


def test_a_binary_file_is_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "speech.wav"
    path.write_bytes(bytes(range(256)))
    with pytest.raises(NetemError, match=r"speech\.wav, line 1"):
        load_loss_trace(path)


@given(st.lists(st.booleans(), min_size=1))
def test_a_written_trace_reads_back(losses: list[bool]) -> None:
    trace = parse_loss_trace("\n".join("01"[loss] for loss in losses))
    assert [trace[i] for i in range(2 * len(trace))] == losses * 2
    assert len(LossTrace(losses)) == len(losses)
