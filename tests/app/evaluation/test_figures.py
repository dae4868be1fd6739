"""Means, intervals, differences and word errors are what they are said to be."""

from __future__ import annotations

import csv
import io
from math import isnan, nan
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.evaluation.cell import Row
from app.evaluation.peers import compare, read_peer
from app.evaluation.statistics import bootstrap_mean, mean_of
from app.evaluation.summary import csv_text, summarise
from app.evaluation.words import transcript_of, word_errors, words_of
from app.options import UsageError


def test_the_interval_holds_the_true_mean_about_as_often_as_it_says() -> None:
    rng = np.random.default_rng(5)
    held = 0
    for _ in range(100):
        mean = bootstrap_mean([(f"clip {n}", float(v)) for n, v in enumerate(rng.normal(3, 1, 25))])
        held += mean.low <= 3 <= mean.high
    assert 86 <= held <= 99


def test_clips_are_drawn_not_rows() -> None:
    rng = np.random.default_rng(6)
    values = rng.normal(3, 1, 12)
    once = bootstrap_mean([(f"clip {n}", float(v)) for n, v in enumerate(values)])
    often = bootstrap_mean([(f"clip {n}", float(v)) for n, v in enumerate(values)] * 10)
    assert often.value == pytest.approx(once.value)
    assert often.high - often.low == pytest.approx(once.high - once.low)
    assert (once.count, often.count) == (12, 120)


def test_one_clip_has_a_mean_but_no_interval_and_none_has_nothing() -> None:
    one = bootstrap_mean([("a", 1.0), ("a", 2.0), ("b", nan)])
    assert (one.value, one.count) == (1.5, 2)
    assert isnan(one.low)
    assert isnan(bootstrap_mean([("a", nan)]).value)
    assert str(one) == "1.50"


def row(clip: str, mode: str, plcmos: float | None, **more: str | float | None) -> Row:
    base: Row = {"clip": clip, "trace": "long/00", "class": "long", "mode": mode, "buffer": "ideal"}
    return base | {"plcmos": plcmos, "kbps": 50.0, "lost": 0.2} | more


def test_a_summary_has_a_line_for_each_class_buffer_and_condition() -> None:
    rows = [
        row("a", "dred", 3.0),
        row("b", "dred", 4.0),
        row("a", "dred", 2.0, buffer="low"),
        row("a", "none", 4.5, trace="-", **{"class": "-"}),
    ]
    lines = summarise(rows)
    assert [(line.kind, line.buffer, line.mode, line.rows) for line in lines] == [
        ("-", "ideal", "none", 1),
        ("long", "ideal", "dred", 2),
        ("long", "low", "dred", 1),
    ]
    assert lines[1].as_dict()["plcmos"] == 3.5
    assert lines[1].as_dict()["plcmos_low"] == 3.0
    assert "dnsmos" not in lines[1].scores


def table(path: Path, *rows: tuple[str, str, str, float]) -> Path:
    path.write_text(
        "clip,trace,mode,kbps,plcmos\n" + "".join(f"{c},{t},{m},51,{p}\n" for c, t, m, p in rows)
    )
    return path


def test_differences_are_taken_pair_by_pair(tmp_path: Path) -> None:
    peer = read_peer(
        table(
            tmp_path / "theirs.csv",
            ("a", "long/00", "deepplc", 3.0),
            ("b", "long/00", "deepplc", 1.0),
            ("b", "long/01", "deepplc", 5.0),
            ("a", "long/00", "plc", 2.0),
        )
    )
    ours = [row("a", "plc", 3.5), row("b", "plc", 1.6), row("c", "plc", 5.0), row("a", "dred", 4.0)]
    ours += [row("a", "plc", 9.0, buffer="low"), row("a", "opus-plc", 2.25)]
    ours += [row("a", "plc", 3.0, trace="short/00", **{"class": "short"})]
    found = compare(ours, peer, ["plcmos"])
    by = {(c.kind, c.ours): c for c in found}
    assert set(by) == {(k, m) for k in ("long", "all") for m in ("plc", "opus-plc")}
    c = by["long", "plc"]
    assert c.theirs == "deepplc"
    assert (c.our_mean, c.their_mean) == pytest.approx((2.55, 2.0))
    assert c.difference.value == pytest.approx(0.55)
    assert (c.difference.low, c.difference.high) == pytest.approx((0.5, 0.6))
    assert c.as_dict()["difference"] == 0.55
    assert by["long", "opus-plc"].difference.value == pytest.approx(0.25)


def test_an_earlier_run_is_a_peer_under_the_same_names(tmp_path: Path) -> None:
    path = tmp_path / "results.csv"
    path.write_text(csv_text([row("a", "plc", 3.0), row("a", "plc", 1.0, buffer="low")]))
    (found,) = compare([row("a", "plc", 3.25)], read_peer(path))
    assert found.kind == "long"
    assert (found.theirs, found.difference.value) == ("plc", 0.25)


@pytest.mark.parametrize(
    ("text", "said"),
    [("clip,mode\n", "no column 'trace'"), ("", "no column 'clip'"), (None, "No such file")],
)
def test_what_is_no_table_of_results_is_refused(
    tmp_path: Path, text: str | None, said: str
) -> None:
    path = tmp_path / "theirs.csv"
    if text is not None:
        path.write_text(text)
    with pytest.raises(UsageError, match=said):
        read_peer(path)


def test_rows_are_written_with_all_columns_of_any() -> None:
    text = csv_text([{"a": 1, "b": None}, {"a": 2, "c": "x,y"}])
    assert list(csv.DictReader(io.StringIO(text))) == [
        {"a": "1", "b": "", "c": ""},
        {"a": "2", "b": "", "c": "x,y"},
    ]
    assert isnan(mean_of([{"clip": "a", "plcmos": None}], "plcmos").value)


def test_words_are_counted_as_replaced_left_out_or_put_in() -> None:
    said = words_of("Please call Stella; ask her to bring these.")
    assert said == ["please", "call", "stella", "ask", "her", "to", "bring", "these"]
    assert word_errors(said, said) == 0
    assert word_errors(said, words_of("please call a teller ask her bring these")) == 3
    assert word_errors(said, []) == len(said)
    assert word_errors([], ["well"]) == 1


words = st.lists(st.sampled_from("abc"), max_size=8)


@given(words, words, words)
def test_word_errors_are_a_distance(a: list[str], b: list[str], c: list[str]) -> None:
    assert word_errors(a, b) == word_errors(b, a)
    assert (word_errors(a, b) == 0) == (a == b)
    assert word_errors(a, c) <= word_errors(a, b) + word_errors(b, c)
    assert abs(len(a) - len(b)) <= word_errors(a, b) <= max(len(a), len(b))


def test_what_is_said_in_a_clip_is_read_from_beside_it(tmp_path: Path) -> None:
    assert transcript_of(tmp_path / "a.flac") is None
    (tmp_path / "a.txt").write_text("Hello")
    assert transcript_of(tmp_path / "a.flac") == "Hello"
