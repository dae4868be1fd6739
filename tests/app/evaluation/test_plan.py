"""What is compared, on what, and what is known already."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from app.evaluation.bundled import bundled_clips, bundled_networks
from app.evaluation.cell import Cell, with_buffer
from app.evaluation.conditions import CONDITIONS, IDEAL, parse_conditions
from app.evaluation.metrics import MetricsError
from app.evaluation.networks import (
    LONG_TRACE,
    NO_NETWORK,
    NOTHING,
    SAFE_FIRST,
    SAFE_LAST,
    STRIDE,
    Network,
    Networks,
    clip_losses,
)
from app.evaluation.rows import RowStore
from app.evaluation.run import Evaluation, clips_in
from app.netem import LossTrace
from app.options import CallOptions, Recovery, UsageError
from jitterbuffer.latency import Latency
from tests.app.calls import MAN, WOMAN


def test_conditions_have_the_settings_they_are_given() -> None:
    dred, red = parse_conditions(["dred:dred-ms=400:bitrate=16000", "red"])
    assert dred.name == "dred:dred-ms=400:bitrate=16000"
    options = dred.call(3)
    assert (options.dred_ms, options.bitrate, options.seed) == (400, 16_000, 3)
    assert options.recovery is Recovery.DRED
    assert red in CONDITIONS
    assert parse_conditions([]) == list(CONDITIONS)
    assert parse_conditions(["plc,lbrr", "plc"]) == parse_conditions(["plc", "lbrr"])


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("fec", "no 'fec' among none, opus-plc"),
        ("dred:ms=400", "'ms=400'"),
        ("dred:dred-ms=x", "'dred-ms=x'"),
        ("dred:dred-ms=2000", "--dred-ms: 2000"),
        ("lbrr:bitrate=1", "--bitrate: 1"),
    ],
)
def test_a_condition_there_is_not_is_refused_by_name(word: str, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        parse_conditions([word])


def test_buffers_are_those_of_a_call() -> None:
    assert with_buffer(CallOptions(), IDEAL) == CallOptions()
    assert with_buffer(CallOptions(), "robust").latency is Latency.ROBUST
    assert with_buffer(CallOptions(), "fixed:60").buffer_ms == 60
    with pytest.raises(UsageError, match="no 'loose' among ideal, low"):
        with_buffer(CallOptions(), "loose")
    with pytest.raises(UsageError, match="'fixed:x'"):
        with_buffer(CallOptions(), "fixed:x")


@pytest.fixture
def traces(tmp_path: Path) -> Path:
    for name in ("long/00", "long/01", "rate/05", "single/0200ms"):
        path = tmp_path / f"{name}.txt"
        path.parent.mkdir(exist_ok=True)
        path.write_text("0 0 1 1\n")
    return tmp_path


def test_a_clip_meets_its_number_of_each_class_and_all_of_the_rest(traces: Path) -> None:
    met = list(Networks([str(traces), "loss 10%"]).met_by(1, 16_000))
    assert [(n.name, n.kind, n.paired) for n in met] == [
        ("long/01", "long", True),
        ("rate/05", "rate", False),
        ("single/0200ms", "single", False),
        ("loss 10%", "loss 10%", True),
    ]
    assert [n.name for n in Networks([str(traces / "rate" / "05.txt")]).met_by(7, 16_000)] == [
        "trace/05"
    ]


def test_the_ends_of_a_clip_are_safe_from_traces() -> None:
    losses = clip_losses(LossTrace([1]), 3, 20)
    assert losses == bytes([0] * SAFE_FIRST + [1] * (20 - SAFE_FIRST - SAFE_LAST) + [0] * SAFE_LAST)


def test_a_long_trace_is_entered_further_on_by_each_clip() -> None:
    trace = LossTrace([n == STRIDE + 10 for n in range(LONG_TRACE + 1)])
    assert clip_losses(trace, 1, 50).index(1) == 10
    assert not any(clip_losses(trace, 0, 50))


def test_what_is_no_network_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="'losses 5%' is no file or folder, and no netem spec"):
        Networks(["losses 5%"])
    with pytest.raises(UsageError, match=r"no \.txt files"):
        Networks([str(tmp_path)])
    with pytest.raises(UsageError, match="no traces"):
        Networks([])


def test_a_folder_of_clips_is_taken_by_name_with_what_is_said_beside(tmp_path: Path) -> None:
    for name in ("b.flac", "a.flac", "c.flac"):
        (tmp_path / name).write_bytes(MAN.read_bytes())
    (tmp_path / "c.txt").write_text("well")
    clips = clips_in([tmp_path], every=2)
    assert [(clip.name, clip.number, clip.text) for clip in clips] == [
        ("a.flac", 0, None),
        ("c.flac", 2, "well"),
    ]
    with pytest.raises(UsageError, match="gone is no file or folder"):
        clips_in([tmp_path / "gone"])
    with pytest.raises(UsageError, match="same name"):
        clips_in([tmp_path, tmp_path / "a.flac"])


def test_every_condition_meets_every_network_and_curves_the_first_buffer_only() -> None:
    evaluation = Evaluation(bundled_clips()[:1], bundled_networks(), buffers=(IDEAL, "low"))
    met = [(c.condition.name, c.network.name, c.buffer) for c in evaluation.cells()]
    assert len(set(met)) == len(met)
    assert ("none", NO_NETWORK, IDEAL) in met
    assert ("none", NO_NETWORK, "low") not in met
    for condition in CONDITIONS[1:]:
        of_it = {(network, buffer) for name, network, buffer in met if name == condition.name}
        assert of_it == {
            ("bursts/00", IDEAL),
            ("bursts/00", "low"),
            ("rate/10", IDEAL),
            ("rate/30", IDEAL),
            ("single/0100ms", IDEAL),
            ("single/0400ms", IDEAL),
        }


def test_an_evaluation_of_nothing_is_refused() -> None:
    with pytest.raises(UsageError, match="no clips"):
        Evaluation([], bundled_networks())
    with pytest.raises(UsageError, match="no 'mos' among"):
        Evaluation(bundled_clips(), bundled_networks(), metrics=["mos"])
    assert issubclass(MetricsError, UsageError)


def cell() -> Cell:
    clip = clips_in([MAN])[0]
    return Cell(clip, CONDITIONS[1], IDEAL, Network("t/00", b"\0\1"), ("estoi",), 0)


def test_a_key_changes_with_everything_that_matters_and_with_nothing_else() -> None:
    first = cell()
    others = [
        replace(first, clip=clips_in([WOMAN])[0]),
        replace(first, clip=replace(first.clip, text="hello")),
        replace(first, clip=replace(first.clip, end=1.0)),
        replace(first, condition=CONDITIONS[2]),
        replace(first, condition=replace(CONDITIONS[1], bitrate=20_000)),
        replace(first, buffer="low"),
        replace(first, network=Network("t/00", b"\1\0")),
        replace(first, network=NOTHING),
        replace(first, metrics=("estoi", "pesq")),
        replace(first, seed=1),
    ]
    keys = [c.key("program") for c in (first, *others)] + [first.key("another")]
    assert len(set(keys)) == len(keys)
    same = replace(first, condition=replace(first.condition, label="other words"))
    assert same.key("program") == first.key("program") == cell().key("program")


def test_rows_survive_a_run_that_was_cut_off(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    store = RowStore(path)
    store.add("a", {"clip": "x", "plcmos": 3.5})
    store.add("b", {"clip": "y", "plcmos": None})
    store.close()
    whole = path.read_bytes()
    path.write_bytes(whole[:-7])
    again = RowStore(path)
    assert again.get("a") == {"clip": "x", "plcmos": 3.5}
    assert again.get("b") is None
    again.add("b", {"clip": "y", "plcmos": None})
    again.close()
    third = RowStore(path)
    assert third.get("b") == {"clip": "y", "plcmos": None}
    third.close()


def test_a_folder_that_takes_no_rows_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--out"):
        RowStore(tmp_path)
