"""Word error rate by an offline recogniser, where it is known what was said.

PocketSphinx (extra `eval`) brings its English model in its wheel. It is no modern recogniser: what
it makes of clean speech is the yardstick, not zero.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from app.evaluation.metrics import MetricsError
from codec import SAMPLE_RATE


def transcript_of(clip: Path) -> str | None:
    """What is said in a clip, by a text file of its name beside it. Raises OSError."""
    path = clip.with_suffix(".txt")
    return path.read_text() if path.is_file() else None


def words_of(text: str) -> list[str]:
    return re.findall(r"[a-z0-9']+", text.lower())


def word_errors(said: Sequence[str], heard: Sequence[str]) -> int:
    """Fewest words to be replaced, left out or put in (Levenshtein)."""
    row = list(range(len(heard) + 1))
    for i, word in enumerate(said, 1):
        before, row[0] = row[0], i
        for j, other in enumerate(heard, 1):
            before, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, before + (word != other))
    return row[-1]


def word_error_rate(text: str, pcm: npt.NDArray[np.int16]) -> float:
    """Errors per word of `text` in what is recognised, int16 [n] at 16 kHz; NaN without words.

    Raises MetricsError if the recogniser is missing.
    """
    said = words_of(text)
    if not said:
        return float("nan")
    recogniser = _new_recogniser()
    recogniser.start_utt()
    recogniser.process_raw(pcm.tobytes(), full_utt=True)
    recogniser.end_utt()
    found = recogniser.hyp()
    return word_errors(said, words_of(found.hypstr if found else "")) / len(said)


def _new_recogniser() -> Any:
    """One that has heard nothing yet: they adapt, and the same sound is to give the same words."""
    try:
        from pocketsphinx import Decoder
    except ImportError:
        raise MetricsError(
            "word error rates need the package pocketsphinx: pip install 'dredcall[eval]'"
        ) from None
    return Decoder(samprate=float(SAMPLE_RATE), loglevel="FATAL")
