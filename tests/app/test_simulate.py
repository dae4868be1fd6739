"""`dredcall simulate`: files in, files out, one line when something is wrong."""

from __future__ import annotations

import json
import wave
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from app.cli import BAD_USAGE, OK, main
from app.ledger import read_ledger
from app.netem import parse_netem
from app.picture import SOURCES
from app.whole_file import whole_file
from codec import FRAME
from codec.frame import FrameSource
from tests.app.calls import MAN, Pcm, calls, clip, read_wav
from tests.app.test_report import violations
from tests.app.test_timeline import data_of

LOSSY = ("--netem", "delay 20ms 8ms loss gemodel 8% 40%")


@pytest.fixture(scope="module")
def speech(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two seconds and a bit of the man."""
    path = tmp_path_factory.mktemp("speech") / "speech.wav"
    write_wav(path, clip(MAN)[:33_333])
    return path


def write_wav(path: Path, pcm: Pcm) -> None:
    with wave.open(str(path), "wb") as file:
        file.setparams((1, 2, 16_000, 0, "NONE", ""))
        file.writeframes(pcm.tobytes())


def write_half(path: Path, stop: type[BaseException]) -> None:
    with whole_file(path) as file:
        file.write(b"half of it")
        raise stop


def run(*arguments: object) -> int:
    try:
        return main(["simulate", *map(str, arguments)])
    except SystemExit as leaving:
        return int(leaving.code or 0)


def test_a_file_becomes_what_is_heard_of_it(
    speech: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, report, ledger = tmp_path / "out.wav", tmp_path / "out.json", tmp_path / "out.csv"
    line = tmp_path / "out.html"
    flags = ("--json", report, "--ledger", ledger, "--timeline", line)
    assert run(speech, out, *LOSSY, *flags) == OK
    entries = list(read_ledger(ledger))
    told = json.loads(report.read_text())
    assert told["side"] == "simulate"
    assert parse_netem(told["netem"]) == parse_netem(LOSSY[1])
    assert told["frames"]["total"] == len(entries)
    heard = sum(entry.source is not FrameSource.SILENCE for entry in entries)
    assert len(read_wav(out)) / FRAME == pytest.approx(heard, abs=15)
    assert line.read_text().startswith("<!doctype html>")
    assert capsys.readouterr().out == ""


def test_the_report_has_the_keys_of_a_call(
    speech: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(speech, tmp_path / "out.wav", *LOSSY, "--json") == OK
    told = json.loads(capsys.readouterr().out)
    assert violations(told) == []
    assert told["delay_ms"]["p50"] > 40
    assert told["deadline"]["total"] == 0
    assert told["process"] is None


def test_the_same_seed_gives_the_same_files(speech: Path, tmp_path: Path) -> None:
    kept = []
    for name, seed in (("a", 5), ("b", 5), ("c", 6)):
        files = [tmp_path / f"{name}{suffix}" for suffix in (".wav", ".json", ".csv", ".html")]
        flags = ("--json", files[1], "--ledger", files[2], "--timeline", files[3])
        assert run(speech, files[0], *LOSSY, "--seed", seed, *flags) == OK
        kept.append([file.read_bytes() for file in files])
    assert kept[0] == kept[1]
    assert kept[0] != kept[2]


@pytest.mark.parametrize("buffer", ["ideal", "adaptive", "fixed:80"])
def test_aligned_sound_is_as_long_as_its_source(
    buffer: str, speech: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out.wav"
    assert run(speech, out, "--align", *LOSSY, "--buffer", buffer) == OK
    heard, said = read_wav(out).astype(float), clip(MAN)[:33_333].astype(float)
    assert len(heard) == 33_333
    # what the vocoder says has a phase of its own, but no other lag fits what was said as well
    lags = np.arange(-400, 401)
    likeness = [float(heard[400:-400] @ said[400 + lag : 33_333 - 400 + lag]) for lag in lags]
    assert abs(lags[np.argmax(likeness)]) <= 2
    assert "simulate" in capsys.readouterr().out


def test_a_call_s_arrivals_are_replayed(speech: Path, tmp_path: Path) -> None:
    rows = [f"{0.02 * n:.3f},{n},{960 * n},60" for n in range(200) if n not in (30, 60, 61)]
    arrivals, report = tmp_path / "arrivals.csv", tmp_path / "out.json"
    arrivals.write_text("\n".join(["arrival_s,sequence,timestamp,bytes", *rows]) + "\n")
    flags = ("--trace-arrivals", arrivals, "--json", report)
    assert run(speech, tmp_path / "out.wav", *flags) == OK
    assert json.loads(report.read_text())["inbound"]["packetsLost"] == 3


def test_what_a_real_call_met_is_met_again(tmp_path: Path) -> None:
    arrivals, page, picture = (tmp_path / name for name in ("a.csv", "line.html", "line.png"))
    with calls() as place:
        pair = place(
            tmp_path,
            listen=[
                *("--netem-in", LOSSY[1], "--record-arrivals", str(arrivals)),
                *("--timeline", str(page)),
            ],
            call=("--timeline", str(picture)),
        )
        assert pair.end() == (0, 0)
        met = pair.listener.report
    packets = met["inbound"]["packetsReceived"]
    assert len(arrivals.read_text().splitlines()) == 1 + packets
    line = data_of(page.read_text())
    assert len(line["packets"]["media"]) == packets
    shown = Counter(SOURCES[number].value for number in line["frames"]["source"])
    for source in ("packet", "lbrr", "dred", "plc"):
        assert shown[source] == met["frames"][source]
    assert picture.read_bytes().startswith(b"\x89PNG")
    report = tmp_path / "again.json"
    flags = ("--trace-arrivals", arrivals, "--json", report)
    assert run(MAN, tmp_path / "again.wav", *flags) == OK
    again = json.loads(report.read_text())["inbound"]
    assert again["packetsLost"] == pytest.approx(met["inbound"]["packetsLost"], abs=1)
    assert again["packetsReceived"] == pytest.approx(packets, abs=2)


@pytest.mark.parametrize(
    ("flags", "named"),
    [
        (["no-such-file.wav", "OUT"], "no-such-file.wav"),
        ([__file__, "OUT"], "not an audio file"),
        (["IN", "out.mp3"], "out.mp3 does not end in .wav"),
        (["IN", "IN"], "is IN as well"),
        (["IN", "no/such/folder/out.wav"], "no/such/folder"),
        (["IN", "OUT", "--buffer", "quick"], "--buffer: 'quick'"),
        (["IN", "OUT", "--netem", "loss often"], "often"),
        (["IN", "OUT", "--loss-trace", "no-trace"], "no-trace"),
        (["IN", "OUT", "--trace-arrivals", "no-arrivals"], "no-arrivals"),
        (["IN", "OUT", "--trace-arrivals", "IN"], "line 1: expected arrival_s"),
        (["IN", "OUT", "--drift", "1e9"], "--drift"),
        (["IN", "OUT", "--drift", "fast"], "fast"),
        (["IN", "OUT", "--seed", "lucky"], "lucky"),
        (["IN", "OUT", "--timeline", "line.svg"], "line.svg"),
        (["IN", "OUT", "--json", "no/such/folder/out.json"], "--json"),
        (["IN", "OUT", "--ledger", "OUT"], "is OUT.wav as well"),
        (["IN", "OUT", "--libopus", "no/such/libopus.so"], "--libopus"),
        (["IN"], "OUT.wav"),
    ],
    ids=lambda value: " ".join(value)[:40] if isinstance(value, list) else "",
)
def test_what_is_wrong_is_said_in_one_line(
    flags: list[str], named: str, speech: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out.wav"
    words = {"IN": str(speech), "OUT": str(out)}
    assert run(*(words.get(flag, flag) for flag in flags)) == BAD_USAGE
    said = capsys.readouterr()
    assert said.out == ""
    assert len(said.err.splitlines()) == 1
    assert said.err.startswith("dredcall: ")
    assert named in said.err
    assert list(tmp_path.iterdir()) == []
    assert len(read_wav(speech)) == 33_333


def test_arrivals_and_impairments_exclude_each_other(
    speech: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arrivals = tmp_path / "arrivals.csv"
    arrivals.write_text("arrival_s,sequence,timestamp,bytes\n0.0,1,2,3\n")
    flags = ("--trace-arrivals", arrivals, *LOSSY)
    assert run(speech, tmp_path / "out.wav", *flags) == BAD_USAGE
    assert "--trace-arrivals" in capsys.readouterr().err


@pytest.mark.parametrize("stop", [KeyboardInterrupt, OSError])
def test_a_file_whose_writing_is_stopped_stays_as_it_was(
    stop: type[BaseException], tmp_path: Path
) -> None:
    path = tmp_path / "out.wav"
    for before in (None, b"before"):
        if before:
            path.write_bytes(before)
        with pytest.raises(stop):
            write_half(path, stop)
        assert [each.name for each in tmp_path.iterdir()] == (["out.wav"] if before else [])
    assert path.read_bytes() == b"before"
    with whole_file(path) as file:
        file.write(b"after")
    assert path.read_bytes() == b"after"


def test_a_device_is_written_to_and_stays_a_device() -> None:
    with whole_file(Path("/dev/null")) as file:
        file.write(b"gone")
    assert Path("/dev/null").is_char_device()
