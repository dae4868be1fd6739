"""The demo ends by itself and leaves behind what it says."""

from __future__ import annotations

import json
import re
import struct
import subprocess
import sys
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import pytest

from app.cli import main
from app.demo import SIDES
from app.ledger import read_ledger
from app.picture import HEIGHT, WIDTH
from codec.frame import FrameSource
from tests.app.calls import PATIENCE, ROOT, books_agree, read_wav
from tests.app.test_report import violations

SECONDS = 4


@dataclass
class Shown:
    folder: Path
    status: int
    table: str
    said: str


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory) -> Shown:
    folder = tmp_path_factory.mktemp("demo") / "made"
    command = [sys.executable, "-m", "app", "demo", "--seconds", str(SECONDS), "--out", str(folder)]
    command += ["--json", str(folder / "both.json")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=2 * PATIENCE)
    return Shown(folder, done.returncode, done.stdout, done.stderr)


@pytest.mark.slow
def test_the_demo_ends_by_itself_and_in_order(shown: Shown) -> None:
    assert shown.status == 0, shown.said
    assert "dredcall: the time is up" in shown.said
    for side in SIDES:
        report = json.loads((shown.folder / f"{side}.json").read_text())
        assert violations(report) == []
        assert report["duration_s"] == pytest.approx(SECONDS, abs=2)


def test_both_sides_were_heard_and_their_books_agree(shown: Shown) -> None:
    both = json.loads((shown.folder / "both.json").read_text())
    assert set(both) == set(SIDES)
    for side in SIDES:
        report = json.loads((shown.folder / f"{side}.json").read_text())
        assert both[side] == report
        ledger = list(read_ledger(shown.folder / f"{side}.csv"))
        counted = Counter(entry.source for entry in ledger)
        assert {source: report["frames"][source.value] for source in FrameSource} == {
            source: counted[source] for source in FrameSource
        }
        recording = read_wav(shown.folder / f"{side}.wav")
        assert books_agree(recording, ledger)
        assert abs(recording.astype(int)).max() > 1000
        assert report["inbound"]["packetsLost"] > 0
        assert counted[FrameSource.PACKET] > 100
        assert counted[FrameSource.LBRR] + counted[FrameSource.DRED] > 0
        assert report["delay_ms"]["markers"]["heard"] > 0


def test_the_table_tells_what_was_lost_and_how_it_was_filled(shown: Shown) -> None:
    rows = {
        row[0].strip(): row[1:] for row in (line.split("│") for line in shown.table.splitlines())
    }
    for label in (
        "packets lost on the way here",
        "out of their own packet",
        "rebuilt from LBRR",
        "rebuilt from DRED",
        "concealed",
    ):
        assert len(rows[label]) == len(SIDES)
        assert all(re.search(r"\d+ \(\d+\.\d %\)", cell) for cell in rows[label]), rows[label]
    assert all("ms" in cell for cell in rows["mouth to ear, p50 / p95"])


def test_the_picture_is_a_png_of_its_size(shown: Shown) -> None:
    data = (shown.folder / "heard.png").read_bytes()
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    width, height = struct.unpack("!II", data[16:24])
    assert width == WIDTH
    assert height >= HEIGHT // 2
    assert data[-8:-4] == b"IEND"
    assert str(shown.folder / "heard.png") in shown.said.replace("\n", "")


def test_a_demo_over_a_dead_link_says_so_and_does_not_fail(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--seconds", "3", "--netem", "loss 100%", "--out", str(tmp_path / "dead")]
    assert main(["demo", *arguments]) == 0
    shown = capfd.readouterr().out
    assert "unknown" in shown
    assert "none heard" in shown
