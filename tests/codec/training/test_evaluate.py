"""The evaluation: losses, plans, alignment, measures of joints, tables and their comparison."""

from __future__ import annotations

import sys
import wave
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from codec import FRAME, FRAME_TICKS
from codec.frame import FrameSource
from codec.lpcnet import LpcNet, Sampling
from codec.training.comparison import compare, comparison_lines, read_table
from codec.training.evaluate import (
    evaluate_holes,
    evaluate_traces,
    joints_of,
    main,
    speaker_of,
)
from codec.training.ladder import (
    SAFE_FIRST,
    SAFE_LAST,
    Mode,
    Sent,
    burst_losses,
    hear,
    losses_of,
    plan,
    read_trace,
    send,
)
from codec.training.metrics import (
    Metrics,
    MetricsError,
    joint_flux,
    joint_prominence,
    near_losses,
)
from codec.training.prepare import decode
from codec.training.results import averages, spectrograms, table_lines, write_csv

Pcm = npt.NDArray[np.int16]

CLIP = Path(__file__).parents[2] / "data" / "man.flac"


@pytest.fixture(scope="module")
def clip() -> Pcm:
    return decode(CLIP)[: 100 * FRAME + 77]


def pattern(text: str) -> npt.NDArray[np.bool_]:
    return np.array([letter == "x" for letter in text])


def runs(lost: npt.NDArray[np.bool_]) -> list[int]:
    return [len(word) for word in "".join("x" if x else " " for x in lost).split()]


@given(frames=st.integers(60, 600), share=st.floats(0.05, 0.3), seed=st.integers(0, 1000))
def test_bursts_are_of_three_to_ten_packets_and_apart(frames: int, share: float, seed: int) -> None:
    lost = burst_losses(frames, share, np.random.default_rng(seed))
    assert not lost[:SAFE_FIRST].any()
    assert not lost[frames - SAFE_LAST :].any()
    assert all(3 <= length <= 10 for length in runs(lost))
    assert all(length >= 3 for length in runs(~lost)[1:-1])
    assert share * frames - 10 < lost.sum() < share * frames + 10


def test_a_trace_spares_the_ends_of_a_clip_and_repeats_if_it_is_short() -> None:
    lost = losses_of(pattern("x.xx"), 16)
    assert not lost[:5].any()
    assert not lost[13:].any()
    np.testing.assert_array_equal(lost[5:13], np.resize(pattern("x.xx"), 16)[5:13])


def test_what_is_no_trace_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("0\n1\n0\n")
    np.testing.assert_array_equal(read_trace(tmp_path / "a.txt"), [False, True, False])
    (tmp_path / "b.txt").write_text("0\n2\n")
    with pytest.raises(ValueError, match=r"b\.txt is no loss trace"):
        read_trace(tmp_path / "b.txt")


def sources(sent: Sent, lost: str, mode: Mode) -> str:
    steps = plan(sent, pattern(lost), mode)
    assert [step.timestamp for step in steps] == [i * FRAME_TICKS for i in range(len(steps))]
    for i, step in enumerate(steps):
        if step.packet is not None:
            assert step.packet is sent.packets[i + step.distance]
    letters = {
        FrameSource.PACKET: ".",
        FrameSource.LBRR: "L",
        FrameSource.DRED: "D",
        FrameSource.PLC: "p",
    }
    return "".join(letters[step.source] for step in steps)


def test_a_plan_takes_the_best_there_is_for_each_frame(clip: Pcm) -> None:
    lost = "." * 60 + "xxx..x." + "." * 32 + "xx"
    sent = send(clip[20 * FRAME :], Mode.LBRR_DRED)
    sent = Sent(sent.clip, (sent.packets * 2)[: len(lost)], sent.lookahead)

    def tail(mode: Mode) -> str:
        planned = sources(sent, lost, mode)
        assert planned[:60] == "." * 60
        return planned[60:67] + planned[-2:]

    assert tail(Mode.LBRR_DRED) == "DDL..L.pp"
    assert tail(Mode.DRED) == "DDD..D.pp"
    assert tail(Mode.LBRR) == "ppL..L.pp"
    assert tail(Mode.PLC) == "ppp..p.pp"


def lag(sent: Pcm, heard: Pcm) -> int:
    """Samples by which `heard` comes later."""
    spectrum = np.fft.rfft(heard, 2 * len(heard)) * np.conj(np.fft.rfft(sent, 2 * len(sent)))
    # whitened, or a vowel would be as much like itself a pitch period later
    peak = int(np.argmax(np.fft.irfft(spectrum / (np.abs(spectrum) + 1))))
    return peak if peak < len(sent) else peak - 2 * len(sent)


@pytest.mark.parametrize("mode", list(Mode))
def test_what_is_heard_lies_on_the_clip_in_every_mode(clip: Pcm, mode: Mode) -> None:
    sent = send(clip, mode)
    lost = losses_of(pattern(("." * 12 + "xxx") * 10), len(sent.packets))
    heard = hear(sent, lost, mode, LpcNet.default())
    assert heard.pcm.shape == clip.shape
    assert abs(lag(clip, heard.pcm)) <= 2
    assert sum(heard.frames.values()) == len(sent.packets)
    good = len(sent.packets) - (0 if mode is Mode.NONE else int(lost.sum()))
    assert heard.frames[FrameSource.PACKET] == good
    if mode in (Mode.DRED, Mode.LBRR_DRED):
        assert heard.frames[FrameSource.DRED] > 0
    if mode in (Mode.LBRR, Mode.LBRR_DRED):
        assert heard.frames[FrameSource.LBRR] > 0


def test_redundancy_counts_in_the_rate(clip: Pcm) -> None:
    plain, redundant = send(clip, Mode.NONE).kbps, send(clip, Mode.DRED).kbps
    assert 10 < plain < 30
    assert plain + 2 < redundant < plain + 40


def test_a_step_stands_out_and_speech_does_not(clip: Pcm) -> None:
    joints = list(range(20 * FRAME, 90 * FRAME, 7 * FRAME))
    broken = clip.copy()
    for start, end in zip(joints[::2], joints[1::2], strict=True):
        broken[start:end] = np.clip(broken[start:end].astype(int) + 8000, -32768, 32767)
    assert np.mean(joint_prominence(clip, clip, joints)) < 1
    assert np.mean(joint_prominence(broken, clip, joints)) > 4
    assert len(joint_prominence(clip, clip, [0, FRAME, len(clip) - FRAME])) == 0


def test_flux_is_the_change_of_the_spectrum_in_decibels() -> None:
    tone = 3000 * np.sin(2 * np.pi * 1000 / 16_000 * np.arange(4 * FRAME))
    louder = np.where(np.arange(4 * FRAME) < 2 * FRAME, tone / 10, tone).astype(np.int16)
    assert joint_flux(tone.astype(np.int16), [2 * FRAME])[0] < 1
    assert 2 < joint_flux(louder, [2 * FRAME])[0] < 20


def test_joints_are_where_holes_begin_and_end() -> None:
    assert joints_of(pattern("..xx.")) == [2 * FRAME, 4 * FRAME]


def test_near_a_loss_is_within_sixteen_frames_of_it() -> None:
    lost = np.zeros(60, bool)
    lost[30] = True
    near = near_losses(lost).reshape(60, FRAME)
    assert near[14:47].all()
    assert not near[:14].any()
    assert not near[47:].any()


def test_a_missing_package_is_named_with_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pystoi", None)
    with pytest.raises(MetricsError, match=r"stoi needs pystoi: pip install 'dredcall\[eval\]'"):
        Metrics(["stoi"])
    with pytest.raises(ValueError, match="no measure 'mushra'"):
        Metrics(["mushra"])


def write_table(path: Path, rows: list[dict[str, object]]) -> Path:
    write_csv(path, rows)
    return path


def test_tables_are_compared_clip_by_clip(tmp_path: Path) -> None:
    ours = read_table(
        write_table(
            tmp_path / "ours.csv",
            [
                {"clip": "a", "trace": "short/00", "mode": "dred", "plcmos": 4.0},
                {"clip": "b", "trace": "short/01", "mode": "dred", "plcmos": 3.0},
                {"clip": "b", "trace": "long/01", "mode": "dred", "plcmos": 2.0},
                {"clip": "c", "trace": "short/02", "mode": "dred", "plcmos": 5.0},
                {"clip": "a", "trace": "-", "mode": "none", "plcmos": 4.5},
            ],
        )
    )
    theirs = read_table(
        write_table(
            tmp_path / "theirs.csv",
            [
                {"clip": "a", "trace": "short/00", "mode": "dred", "plcmos": 3.5},
                {"clip": "b", "trace": "short/01", "mode": "dred", "plcmos": 2.7},
                {"clip": "b", "trace": "long/01", "mode": "dred", "plcmos": 2.2},
                {"clip": "c", "trace": "short/02", "mode": "lbrr", "plcmos": 1.0},
                {"clip": "a", "trace": "-", "mode": "none", "plcmos": ""},
            ],
        )
    )
    found = {(d.ours, d.trace_class): d for d in compare(ours, theirs)}
    assert set(found) == {("dred", "short"), ("dred", "long"), ("dred", "all")}
    short = found["dred", "short"]
    assert (short.count, short.our_mean) == (2, 3.5)
    assert short.their_mean == pytest.approx(3.1)
    assert short.difference == pytest.approx(0.4)
    # differences 0.5 and 0.3: standard deviation 0.1414, over the root of 2, times 1.96
    assert short.interval == pytest.approx(0.196)
    assert found["dred", "all"].difference == pytest.approx(0.2)
    assert "| dred | dred | short | plcmos | 2 | 3.500 | 3.100 | +0.400 ± 0.196 |" in (
        comparison_lines(found.values())
    )


def test_a_table_without_its_columns_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_text("clip,mode\na,dred\n")
    with pytest.raises(ValueError, match=r"x\.csv: no column 'trace'"):
        read_table(tmp_path / "x.csv")


def test_averages_are_of_numbers_and_by_group() -> None:
    rows = [
        {"clip": "a", "mode": "x", "plcmos": 1.0},
        {"clip": "b", "mode": "x", "plcmos": 2.0},
        {"clip": "a", "mode": "y", "plcmos": 5.0},
    ]
    means = averages(rows, ["mode"])
    assert means == [{"mode": "x", "n": 2, "plcmos": 1.5}, {"mode": "y", "n": 1, "plcmos": 5.0}]
    assert table_lines(means)[2] == "| x | 2 | 1.5 |"


def test_a_clip_is_named_after_its_speaker() -> None:
    assert speaker_of(Path("ljspeech_LJ_f_03.flac")) == "ljspeech_LJ_f"
    assert speaker_of(Path("man.flac")) == "man"


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--clips", "/nowhere"], "/nowhere"),
        (["--clips", str(CLIP.parent), "--holes", "0.9"], "--holes 0.9"),
        (["--clips", str(CLIP.parent), "--modes", "magic"], "magic"),
        (["--clips", str(CLIP.parent), "--metrics", "mushra"], "mushra"),
        (["--clips", str(CLIP.parent), "--path", "sse9", "--metrics", "plcmos"], ""),
        ([], "--clips or --compare"),
    ],
)
def test_bad_input_is_one_line_and_status_two(
    arguments: list[str], complaint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 2
    printed = capsys.readouterr().err
    assert printed.count("\n") == 1
    assert complaint in printed


@pytest.fixture
def folder(tmp_path: Path, clip: Pcm) -> Path:
    """One short clip and three folders, two of them classes of traces."""
    clips = tmp_path / "clips"
    clips.mkdir()
    with wave.open(str(clips / "someone_00.wav"), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(16_000)
        file.writeframes(clip.tobytes())
    for name, text in (("short/00", "0001"), ("long/00", "0011111111"), ("rate/05", "01")):
        path = tmp_path / "traces" / f"{name}.txt"
        path.parent.mkdir(parents=True)
        path.write_text("\n".join(text * 10))
    return tmp_path


def test_each_clip_meets_the_trace_of_its_number_in_every_class(folder: Path) -> None:
    rows = list(
        evaluate_traces(
            [(0, folder / "clips" / "someone_00.wav")],
            folder / "traces",
            LpcNet.default(),
            Metrics([]),
            modes=[Mode.NONE, Mode.PLC],
        )
    )
    assert [(row["trace"], row["mode"]) for row in rows] == [
        ("-", "none"),
        ("long/00", "plc"),
        ("short/00", "plc"),
    ]
    for row in rows:
        assert row["clip"] == "someone_00.wav"
        assert row["plc"] == pytest.approx(row["lost"] * (row["plc"] + row["pkt"]), abs=0.01)
    assert [row["lost"] > 0 for row in rows] == [False, True, True]


def test_holes_are_filled_in_every_way_and_drawn(folder: Path) -> None:
    drawn: dict[str, list[str]] = {}
    rows = list(
        evaluate_holes(
            [folder / "clips" / "someone_00.wav"],
            LpcNet.default(),
            Metrics([]),
            share=0.2,
            sampling=Sampling(),
            picture=lambda name, signals: drawn.update({name: list(signals)}),
        )
    )
    conditions = [row["condition"] for row in rows]
    assert conditions == ["clean", "copy", "zeros", "features", "plc", "opus", "opus-plc"]
    flux = {row["condition"]: row["flux_db"] for row in rows}
    assert flux["features"] < flux["zeros"]
    assert drawn["someone_00"] == ["clean", "zeros", "features", "plc"]
    assert drawn["someone_00_copy"] == ["clean", "copy"]


def test_spectrograms_are_pictures(tmp_path: Path, clip: Pcm) -> None:
    spectrograms(tmp_path)("x", {"above": clip, "below": clip})
    assert (tmp_path / "x.png").read_bytes().startswith(b"\x89PNG")
