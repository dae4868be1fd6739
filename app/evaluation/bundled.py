"""What is evaluated when nothing is named: some minutes of work on speech of the package."""

from __future__ import annotations

from pathlib import Path

from app.evaluation.cell import Clip
from app.evaluation.networks import Networks

TRACES = Path(__file__).parent / "data" / "traces"
"""Drawn from two-state (Gilbert) models: `bursts` 20 % in runs of 6 packets on average, `rate` 10
and 30 % in runs of 3; `single`: four holes of one length."""

_SPEECH = Path(__file__).parents[1] / "clips"
_PARTS = (("man.flac", 6.3, 10.3), ("woman.flac", 4.96, 8.96))


def bundled_clips() -> list[Clip]:
    """Four seconds each."""
    return [
        Clip(_SPEECH / file, number, f"{file.removesuffix('.flac')}-{begin:g}s", begin, end)
        for number, (file, begin, end) in enumerate(_PARTS)
    ]


def bundled_networks() -> Networks:
    return Networks([str(TRACES)])
