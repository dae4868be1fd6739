"""Objective measures of speech that was sent and speech that was heard.

PLCMOS v2 and DNSMOS (speechmos), PESQ-WB (pesq), STOI and extended STOI (pystoi): the extra `eval`.
PLCMOS imagines 15 raters at random and extended STOI adds a trace of noise; here both are the same
every time, so that equal sound has equal figures.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from app.options import UsageError
from codec import FRAME, SAMPLE_RATE
from codec.training.metrics import LOADERS, NAMES, Measure, Pcm, Signal, near_losses

DEFAULT = ("plcmos", "dnsmos", "pesq", "estoi")

WITHOUT_REFERENCE = frozenset({"plcmos", "dnsmos"})
"""They hear nothing of what was sent."""

LEAST_NEAR = 25
"""Frames near losses that extended STOI can be taken of."""

SEED = 0

DNSMOS_WINDOW = round(9.01 * SAMPLE_RATE)
"""Samples. Shorter sound is repeated to fill one window; left to itself, the package doubles it
until it has one or more, and hears a sound of 4 s seven times over."""


class MetricsError(UsageError):
    """A measure's package is missing; the text names it and says how to get it."""


class Metrics:
    """The measures of these names. Raises MetricsError, and UsageError on another name."""

    def __init__(self, names: Sequence[str] = DEFAULT) -> None:
        self._measures = {name: _measure(name) for name in checked(names)}

    def __call__(self, sent: Pcm, heard: Pcm, played: Pcm | None = None) -> dict[str, float]:
        """Each measure of `heard`, int16 [n] at 16 kHz, aligned with `sent`; NaN if it has none.

        `played` is the same as a listener had it, with the time that a buffer put in or left out:
        measures that compare nothing judge that.
        """
        reference, degraded = _signal(sent), _signal(heard)
        alone = degraded if played is None else _signal(played)
        figures = {}
        for name, measure in self._measures.items():
            np.random.seed(SEED)  # the generator that the packages draw from
            figures[name] = measure(reference, alone if name in WITHOUT_REFERENCE else degraded)
        return figures


def _signal(pcm: Pcm) -> Signal:
    return (pcm / 32768).astype(np.float32)


def checked(names: Sequence[str]) -> Sequence[str]:
    """Raises UsageError if one of the names is no measure's."""
    unknown = [name for name in names if name not in NAMES]
    if unknown:
        raise UsageError(f"--metrics: no '{unknown[0]}' among {', '.join(NAMES)}")
    return names


@cache
def _measure(name: str) -> Measure:
    try:
        return _LOADERS[name]()
    except ImportError as error:
        raise MetricsError(
            f"{name} needs the package {error.name}: pip install 'dredcall[eval]'"
        ) from None


def _session(path: Path) -> Any:
    """Of one thread: cells are measured in parallel."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(str(path), options)


def _plcmos() -> Measure:
    from speechmos import plcmos

    measure = plcmos.PLCMOS()
    measure.session = _session(Path(measure.model_path))
    return lambda _, heard: float(measure(heard)["plcmos"])


def _dnsmos() -> Measure:
    from speechmos import dnsmos

    class Overall(dnsmos.DNSMOS):  # type: ignore[misc]
        """Without P.808, which takes half of the time."""

        def __init__(self) -> None:
            models = Path(dnsmos.__file__).parent / "dnsmos_models"
            self.onnx_sess = _session(models / "sig_bak_ovr.onnx")
            self.p808_onnx_sess = self

        def run(self, outputs: object, inputs: Mapping[str, object]) -> list[list[list[float]]]:
            return [[[0.0]]]

        def audio_melspec(self, audio: Signal) -> Signal:
            return np.zeros((1, 1), np.float32)

    measure = Overall()

    def overall(_: Signal, heard: Signal) -> float:
        whole = heard if len(heard) >= DNSMOS_WINDOW else np.resize(heard, DNSMOS_WINDOW)
        return float(measure(whole, SAMPLE_RATE, False)["ovrl_mos"])

    return overall


_LOADERS = LOADERS | {"plcmos": _plcmos, "dnsmos": _dnsmos}


def estoi_near_losses(sent: Pcm, heard: Pcm, lost: npt.NDArray[np.bool_], lag: int) -> float:
    """Extended STOI of what lies near losses; NaN if that is too little.

    `lost`: bool, per packet; packet k speaks of samples from 320 k - `lag` on.
    """
    near = near_losses(lost)[lag:][: len(sent)]
    if near.sum() < LEAST_NEAR * FRAME:
        return float("nan")
    (value,) = Metrics(["estoi"])(sent[: len(near)][near], heard[: len(near)][near]).values()
    return value
