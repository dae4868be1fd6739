"""The measures of the pitch report."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from codec.training.pitch_report import Comparison, main


def test_errors_are_counted_by_kind() -> None:
    comparison = Comparison()
    # exact, 10 % high, half the frequency, twice it, wild but weak, and two unvoiced frames
    comparison.ours.append(np.array([100.0, 100.0, 200.0, 50.0, 150.0, 80.0, 80.0]))
    comparison.reference.append(np.array([100.0, 110.0, 100.0, 100.0, 100.0, 0.0, 0.0]))
    comparison.periodicity.append(np.array([0.4, 0.4, 0.4, 0.4, -0.4, 0.4, -0.4]))
    measured = comparison.percentages(threshold=0.0)
    assert measured == pytest.approx(
        {
            "voiced": 100 * 5 / 7,
            "gross": 50.0,
            "halved": 25.0,
            "doubled": 25.0,
            "all gross": 60.0,
            "fine": 5.0,
            "missed": 20.0,
            "false": 50.0,
        }
    )


def test_the_tracker_agrees_with_praat_on_speech(capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("parselmouth")
    assert main([str(Path(__file__).parents[2] / "data")]) == 0
    header, *rows = capsys.readouterr().out.splitlines()
    assert [row.split()[0] for row in rows] == ["man", "woman", "mean"]
    gross = header.split()[1:].index("gross")
    assert float(rows[-1].split()[1 + gross]) < 5


def test_a_missing_folder_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["nowhere/at/all"]) == 2
    assert "nowhere/at/all is not a folder" in capsys.readouterr().err
