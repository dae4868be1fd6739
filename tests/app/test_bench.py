"""The bench times what it says it does, and reports it as tools expect."""

from __future__ import annotations

import io
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

import app.bench as bench
from app.audio import AudioError
from app.bench import BenchError, Stage, Workload, bench_table, run_bench
from codec.lpcnet import paths

CLIP = Path(__file__).parents[1] / "data" / "man.flac"

CONTRACT = {
    "opus.encode",
    "opus.decode",
    "opus.plc",
    "features",
    "dred.encode",
    "dred.decode_100ms",
    "dred.decode_1000ms",
    "lpcnet.frame",
    "plc.predict",
}


@pytest.fixture(scope="module")
def report() -> dict[str, Any]:
    return run_bench(clip=CLIP, tight_seconds=0.02, paced_seconds=0.04)


def test_every_stage_is_timed_on_speech_and_silence_in_a_loop_and_at_a_calls_pace(
    report: dict[str, Any],
) -> None:
    seen = {(e["stage"], e["signal"], e["mode"]) for e in report["stages"]}
    for name in CONTRACT:
        for signal in ("speech", "silence"):
            for mode in ("tight", "paced"):
                assert (name, signal, mode) in seen
    for path in paths():
        on_path = {(e["signal"], e["mode"]) for e in report["stages"] if e["path"] == path}
        assert len(on_path) == 4


def test_the_report_is_json_with_ordered_quantiles(report: dict[str, Any]) -> None:
    again = json.loads(json.dumps(report, allow_nan=False))
    assert again["cpu"]
    for entry in again["stages"]:
        assert 0 < entry["p50_us"] <= entry["p99_us"] <= entry["p999_us"] <= entry["max_us"]
        assert entry["steps"] > 0
        if entry["per_20ms"]:
            assert entry["rtf"] == pytest.approx(entry["mean_us"] / 20_000, abs=1e-4)
        else:
            assert entry["rtf"] is None
    decoding = [e for e in again["stages"] if e["stage"].startswith("dred.decode")]
    assert not any(e["per_20ms"] for e in decoding)


def test_the_table_names_every_stage_and_the_processor(report: dict[str, Any]) -> None:
    out = io.StringIO()
    Console(file=out, width=200).print(bench_table(report))
    for name in CONTRACT:
        assert name in out.getvalue()
    assert report["cpu"] in out.getvalue()


def test_stages_are_chosen_by_the_beginning_of_their_names() -> None:
    chosen = run_bench(clip=CLIP, stages=["dred."], tight_seconds=0.001, paced_seconds=0)
    assert {e["stage"] for e in chosen["stages"]} == {
        "dred.encode",
        "dred.decode_100ms",
        "dred.decode_1000ms",
    }
    assert {e["mode"] for e in chosen["stages"]} == {"tight"}


def test_a_stage_added_by_others_is_timed_without_its_preparation(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(bench, "BUILDERS", dict(bench.BUILDERS))

    @bench.stage("test.sleep")
    def _(load: Workload) -> Iterator[Stage]:
        yield Stage(
            "test.sleep", lambda _: time.sleep(0.002), "none", prepare=lambda _: time.sleep(0.03)
        )

    found = run_bench(clip=CLIP, stages=["test.sleep"], tight_seconds=0.1, paced_seconds=0)
    entry = found["stages"][0]
    assert entry["p50_us"] >= 2000
    # sleeping is time on the wall, not of the thread
    assert entry["thread_p50_us"] < 1000


def test_wrong_names_and_clips_are_refused(tmp_path: Path) -> None:
    with pytest.raises(BenchError, match=r"no stage warp; there are opus\.encode"):
        run_bench(stages=["warp"])
    with pytest.raises(AudioError, match="absent"):
        run_bench(clip=tmp_path / "absent.wav", stages=["features"])
