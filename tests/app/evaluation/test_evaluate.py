"""From clips and traces to rows, tables and a report, the same every time."""

from __future__ import annotations

import base64
import csv
import io
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import av
import numpy as np
import numpy.typing as npt
import pytest

from app.audio.file import file_frames
from app.cli import main
from app.evaluation.bundled import bundled_clips
from app.evaluation.cell import Cell, Clip, frame_letters, lost_frames, measure
from app.evaluation.conditions import CONDITIONS, IDEAL, Condition, parse_conditions
from app.evaluation.evaluate import EvaluationResult, evaluate
from app.evaluation.listening import opus_uri
from app.evaluation.metrics import DNSMOS_WINDOW, Metrics, estoi_near_losses
from app.evaluation.networks import Network, Networks, lookahead
from app.evaluation.peers import Peer, read_peer
from app.evaluation.run import Evaluation, run_cells
from app.evaluation.summary import csv_text
from app.evaluation.words import word_error_rate
from codec import FRAME, SAMPLE_RATE
from codec.training.metrics import NAMES
from tests.app.calls import MAN, WOMAN

pytest.importorskip("joblib")
pytest.importorskip("pystoi")

SECONDS = 1.4
CLIPS = [Clip(MAN, 0, "man", 0.3, 0.3 + SECONDS), Clip(WOMAN, 1, "woman", 0.3, 0.3 + SECONDS)]
LOST = (15, 16, 30, 31, 32, 33, 50)


@pytest.fixture(scope="module")
def traces(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("traces")
    for name, lost in (("hard/00", LOST), ("hard/01", LOST), ("single/0040ms", (20, 21))):
        path = folder / f"{name}.txt"
        path.parent.mkdir(exist_ok=True)
        path.write_text(" ".join("1" if n in lost else "0" for n in range(80)))
    return folder


def cell(condition: Condition, losses: tuple[int, ...] = LOST, buffer: str = IDEAL) -> Cell:
    network = Network("hard/00", bytes(n in losses for n in range(71)))
    return Cell(CLIPS[0], condition, buffer, network, ("estoi",), 0)


@pytest.mark.parametrize(
    ("name", "letters"),
    [("opus-plc", "ppppppp"), ("red", "pRpppRR"), ("red2", "RRppRRR"), ("dred", "DDDDDDD")],
)
def test_each_condition_makes_lost_frames_of_what_it_has(name: str, letters: str) -> None:
    (condition,) = parse_conditions([name])
    row = measure(cell(condition))
    frames = str(row["frames"])
    assert "".join(frames[n] for n in LOST) == letters
    assert frames.count(".") == row["pkt"] == len(frames) - len(LOST)
    assert row["recovered"] == round(sum(c not in "p_" for c in letters) / len(LOST), 4)
    assert row["lost"] == round(len(LOST) / len(frames), 4)
    assert row["delay_p50_ms"] is None


def test_copies_cost_what_they_weigh_and_give_back_what_was_lost() -> None:
    plain = measure(cell(CONDITIONS[0], ()))
    copied = measure(cell(parse_conditions(["red2"])[0], (15, 16, 50)))
    assert copied["recovered"] == 1
    # exactly: the same decoder has decoded the same packets
    headers = 9 * 8 * 50 / 1000
    opus = float(copied["opus_kbps"] or 0)
    assert copied["red_kbps"] == pytest.approx(2 * opus + headers, rel=0.05)
    assert float(copied["estoi"] or 0) == pytest.approx(float(plain["estoi"] or 0), abs=0.01)


def test_what_is_heard_in_time_depends_on_the_buffer() -> None:
    dred = parse_conditions(["dred"])[0]
    short, long = (measure(cell(dred, buffer=f"fixed:{ms}")) for ms in (20, 200))
    assert float(short["recovered"] or 0) < float(long["recovered"] or 0)
    assert float(short["delay_p50_ms"] or 0) == pytest.approx(
        float(long["delay_p50_ms"] or 0) - 180, abs=1
    )


def test_frames_are_written_down_in_the_order_of_speech() -> None:
    result = cell(CONDITIONS[1]).hear()
    assert set(np.flatnonzero(lost_frames(result))) == set(LOST)
    assert {n for n, letter in enumerate(frame_letters(result)) if letter == "p"} == set(LOST)


def test_measures_are_the_same_every_time_and_fall_with_the_damage() -> None:
    for package in ("speechmos", "librosa", "pesq"):
        pytest.importorskip(package)
    clip = np.concatenate(list(file_frames(MAN)))
    holes: npt.NDArray[np.bool_] = np.ones(len(clip), np.bool_)
    for at in range(4000, len(clip) - 4000, 8000):
        holes[at : at + 2000] = False
    damaged = (clip * holes).astype(np.int16)
    metrics = Metrics(NAMES)
    whole, broken = metrics(clip, clip), metrics(clip, damaged)
    assert set(whole) == set(NAMES)
    assert all(broken[name] < whole[name] for name in NAMES)
    np.random.seed(7)
    assert metrics(clip, damaged) == broken
    frames = holes[: len(holes) // FRAME * FRAME].reshape(-1, FRAME)
    lost: npt.NDArray[np.bool_] = ~np.asarray(frames.all(axis=1))
    near = estoi_near_losses(clip, damaged, lost, 0)
    assert near <= broken["estoi"]
    assert np.isnan(estoi_near_losses(clip, damaged, np.zeros(len(lost), np.bool_), lookahead()))


def test_dnsmos_hears_a_short_sound_in_one_window() -> None:
    for package in ("speechmos", "librosa"):
        pytest.importorskip(package)
    clip = np.concatenate(list(file_frames(MAN)))[: 4 * SAMPLE_RATE]
    filled = np.resize(clip, DNSMOS_WINDOW)
    metrics = Metrics(["dnsmos"])
    assert metrics(clip, clip) == metrics(filled, filled)


class Page(HTMLParser):
    """What a browser would have to fetch, and what the page is made of."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.links: list[str] = []
        self.tags: list[str] = []
        self.open: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        if tag not in ("meta", "img", "br"):
            self.open.append(tag)
        self.links += [v for k, v in attrs if k in ("src", "href", "xlink:href") and v]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def evaluation(traces: Path, **changes: object) -> Evaluation:
    settings = {
        "conditions": parse_conditions(["none", "plc", "dred"]),
        "buffers": (IDEAL, "fixed:60"),
        "metrics": ("estoi",),
    }
    return Evaluation(CLIPS, Networks([str(traces)]), **{**settings, **changes})  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def done(traces: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[EvaluationResult, Path]:
    """A run beside its own table, and where it lies."""
    out = tmp_path_factory.mktemp("out")
    return evaluate(evaluation(traces), out, jobs=1, peers=[itself(traces, out)], quiet=True), out


def itself(traces: Path, out: Path) -> Peer:
    """The same evaluation as somebody else's."""
    table = out / "itself.csv"
    table.write_text(csv_text(run_cells(evaluation(traces), out, jobs=1)))
    return read_peer(table)


def test_there_is_a_row_for_every_cell_and_a_table_of_them(
    done: tuple[EvaluationResult, Path], traces: Path
) -> None:
    result, out = done
    assert len(result.rows) == len(list(evaluation(traces).cells())) == 2 * (1 + 2 * 3)
    table = list(csv.DictReader(io.StringIO((out / "results.csv").read_text())))
    assert [row["mode"] for row in table] == [row["mode"] for row in result.rows]
    assert "frames" not in table[0]
    saved = json.loads((out / "results.json").read_text())
    assert [line["mode"] for line in saved["summary"]] == [line.mode for line in result.lines]
    assert saved["settings"]["cells"] == "14, seed 0"


def test_a_run_beside_itself_differs_by_nothing(done: tuple[EvaluationResult, Path]) -> None:
    result, _ = done
    assert result.comparisons
    assert {c.difference.value for c in result.comparisons} == {0.0}


def test_the_report_is_whole_and_needs_nothing_else(done: tuple[EvaluationResult, Path]) -> None:
    _, out = done
    text = (out / "report.html").read_text()
    assert len(text) < 8_000_000
    page = Page(text)
    assert page.open == []
    assert all(link.startswith(("data:", "#")) for link in page.links)
    assert page.tags.count("svg") == 5
    # worst and best, each as it was said and in three conditions
    assert page.tags.count("audio") == page.tags.count("img") == 8
    for words in ("neural PLC", "kb/s", "length of each hole, ms", "delay from mouth to ear"):
        assert words in text


def test_another_run_gives_the_same_bytes_and_measures_nothing_twice(
    done: tuple[EvaluationResult, Path], traces: Path, tmp_path: Path
) -> None:
    _, out = done
    lines = (out / "rows.jsonl").read_text().splitlines()
    (tmp_path / "rows.jsonl").write_text("\n".join(lines[:9]) + "\n" + lines[9][:40])
    seen: list[tuple[int, int, int]] = []
    run_cells(evaluation(traces), tmp_path, jobs=1, progress=lambda *at: seen.append(at))
    assert seen == [(n, 14, 9) for n in range(10, 15)]
    peer = itself(traces, tmp_path)
    evaluate(evaluation(traces), tmp_path, jobs=1, peers=[peer], quiet=True)
    for name in ("results.csv", "summary.csv", "comparison.csv", "results.json", "report.html"):
        assert (tmp_path / name).read_bytes() == (out / name).read_bytes(), name


def test_processes_give_the_rows_that_one_gives(
    done: tuple[EvaluationResult, Path], traces: Path, tmp_path: Path
) -> None:
    few = evaluation(traces, conditions=parse_conditions(["none", "plc"]), buffers=(IDEAL,))
    rows = run_cells(few, tmp_path, jobs=2)
    assert rows == [
        row for row in done[0].rows if row["mode"] in ("none", "plc") and row["buffer"] == IDEAL
    ]


def test_the_players_play_what_was_heard() -> None:
    clip = CLIPS[0].pcm
    uri = opus_uri(clip)
    assert uri == opus_uri(clip)
    match = re.fullmatch(r"data:audio/ogg;base64,(.+)", uri)
    assert match
    with av.open(io.BytesIO(base64.b64decode(match[1])), "r") as container:
        stream = container.streams.audio[0]
        assert stream.codec_context.name in ("opus", "libopus")
        played = sum(frame.samples for frame in container.decode(stream)) / 48_000
    assert played == pytest.approx(len(clip) / SAMPLE_RATE, abs=0.05)


def test_recognised_words_are_held_against_what_was_said() -> None:
    pytest.importorskip("pocketsphinx")
    assert word_error_rate("anything", np.zeros(8000, np.int16)) == 1.0
    assert np.isnan(word_error_rate("...", np.zeros(800, np.int16)))


def test_the_bundled_clips_are_as_long_as_they_are_said_to_be() -> None:
    clips = bundled_clips()
    assert [len(clip.pcm) / SAMPLE_RATE for clip in clips] == pytest.approx([4, 4])
    assert len({clip.name for clip in clips}) == len(clips)


def test_the_command_says_what_is_wrong_in_one_line(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    for arguments, said in (
        (["--conditions", "fec"], "no 'fec' among"),
        (["--buffers", "loose"], "no 'loose' among"),
        (["--metrics", "mos"], "no 'mos' among"),
        (["--clips", str(tmp_path)], "no clips"),
        (["--clips", str(tmp_path / "gone")], "no file or folder"),
        (["--traces", "nonsense 5"], "no netem spec"),
        (["--peers", str(tmp_path / "gone.csv")], "gone.csv"),
        (["--every", "0"], "--every: 0"),
        (["--jobs", "0"], "--jobs: 0"),
        (["--out", str(MAN)], "--out"),
    ):
        assert main(["evaluate", "--out", str(tmp_path / "out"), *arguments]) == 2, arguments
        error = capsys.readouterr().err
        assert said in error
        assert error.count("\n") == 1
