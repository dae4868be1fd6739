"""Objective measures of speech that was sent and speech that was heard.

PLCMOS v2 and DNSMOS (packages speechmos and librosa), PESQ-WB (pesq), STOI and extended STOI
(pystoi): the extra `eval`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from codec import FRAME, SAMPLE_RATE

Pcm = npt.NDArray[np.int16]
Signal = npt.NDArray[np.float32]
Measure = Callable[[Signal, Signal], float]

NAMES = ("plcmos", "dnsmos", "pesq", "stoi", "estoi")

NEAR = 16
"""Frames before and after a lost one that count as near it: 320 ms, less than STOI's own window
would blur anyway."""


class MetricsError(ImportError):
    """A measure's package is missing; the message names it."""


class Metrics:
    """The measures of these names. Raises MetricsError, and ValueError on another name."""

    def __init__(self, names: Sequence[str] = NAMES) -> None:
        unknown = set(names) - set(NAMES)
        if unknown:
            raise ValueError(f"no measure {sorted(unknown)[0]!r}; there are {', '.join(NAMES)}")
        self._measures = {name: _load(name) for name in names}

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self._measures)

    def __call__(self, sent: Pcm, heard: Pcm) -> dict[str, float]:
        """Each measure of `heard`, int16 [n] at 16 kHz, aligned with `sent`; NaN if it has none."""
        reference, degraded = ((pcm / 32768).astype(np.float32) for pcm in (sent, heard))
        return {name: measure(reference, degraded) for name, measure in self._measures.items()}


def _load(name: str) -> Measure:
    try:
        return LOADERS[name]()
    except ImportError as error:
        raise MetricsError(
            f"{name} needs {error.name or error}: pip install 'dredcall[eval]'"
        ) from error


def _plcmos() -> Measure:
    from speechmos import plcmos

    return lambda _, heard: float(plcmos.run(heard, sr=SAMPLE_RATE)["plcmos"])


def _dnsmos() -> Measure:
    from speechmos import dnsmos

    return lambda _, heard: float(dnsmos.run(heard, sr=SAMPLE_RATE)["ovrl_mos"])


def _pesq() -> Measure:
    import pesq

    def measure(sent: Signal, heard: Signal) -> float:
        try:
            return float(pesq.pesq(SAMPLE_RATE, sent, heard, "wb"))
        except pesq.PesqError:  # it finds no utterance
            return float("nan")

    return measure


def _stoi(extended: bool) -> Measure:
    from pystoi import stoi

    return lambda sent, heard: float(stoi(sent, heard, SAMPLE_RATE, extended=extended))


LOADERS: dict[str, Callable[[], Measure]] = {
    "plcmos": _plcmos,
    "dnsmos": _dnsmos,
    "pesq": _pesq,
    "stoi": lambda: _stoi(False),
    "estoi": lambda: _stoi(True),
}
"""Each raises ImportError if its package is missing."""


def near_losses(lost: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """bool [320 n]: which samples lie within `NEAR` frames of one that bool [n] calls lost."""
    near = np.convolve(lost, np.ones(2 * NEAR + 1), "same")[: len(lost)] > 0
    return np.repeat(near, FRAME)


def joint_prominence(heard: Pcm, sent: Pcm, joints: Sequence[int]) -> npt.NDArray[np.float64]:
    """How much each sample position in `joints` stands out as a click would.

    The largest second difference within 1 ms of it over the eighth largest of the 40 ms on either
    side, in what was heard or sent. Natural speech stays about 1, at its own pulses; a signal that
    breaks off reaches 2 to 10. Joints within 40 ms of either end are left out.
    """
    bends, meant = (np.abs(np.diff(pcm.astype(np.float64), 2)) for pcm in (heard, sent))
    found = []
    for at in joints:
        if not 2 * FRAME <= at <= len(bends) - 2 * FRAME:
            continue
        sides = slice(at - 2 * FRAME, at - 16), slice(at + 16, at + 2 * FRAME)
        around = np.concatenate([signal[side] for signal in (bends, meant) for side in sides])
        found.append(bends[at - 16 : at + 16].max() / (np.sort(around)[-8] + 30))
    return np.array(found)


def joint_flux(heard: Pcm, joints: Sequence[int]) -> npt.NDArray[np.float64]:
    """Change of the spectrum across each joint, dB: rms over the bins of 10 ms before and after."""
    window = np.hanning(FRAME // 2)
    found = []
    for at in joints:
        if not FRAME // 2 <= at <= len(heard) - FRAME // 2:
            continue
        before, after = (
            np.abs(np.fft.rfft(part * window)) + 20
            for part in (heard[at - FRAME // 2 : at], heard[at : at + FRAME // 2])
        )
        found.append(float(np.sqrt(np.mean((20 * np.log10(after / before)) ** 2))))
    return np.array(found)
