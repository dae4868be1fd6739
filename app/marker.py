"""Mouth-to-ear delay out of the sound itself: chirps mixed into speech, found where it is heard.

Markers sit on a grid of media time: marker n begins at sample n * interval since the source began,
rising chirps at even n and falling ones at odd n. Who knows the instant of the source's first
sample therefore knows when every marker was captured, and a marker that is heard says how long
everything in between took: framing, coder, network, jitter buffer and device.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
import numpy.typing as npt

from codec import FRAME, SAMPLE_RATE
from codec.frame import PcmFrame

MARKER = 640
"""Samples of one marker: 40 ms, two frames, so a single lost packet leaves half of it."""

BAND_HZ = (400.0, 1800.0)
"""Swept by a marker. The lower half of the telephone band, where a speech coder spends its bits:
sweeping up to 3 kHz would be sharper in time but comes out of Opus too distorted to be found."""

TAPER = 0.3
"""Share of a marker under the raised-cosine flanks of its window."""

THRESHOLD = 0.5
"""Normalised correlation that counts as a marker; docs/measuring-delay.md has the measurement."""

FLOOR = 4.0
"""RMS (int16 steps) below which a window is taken for silence and never scores."""

_FADE = 80  # 5 ms: ducks the speech around a marker without a click
_FFT = 1024  # room for one frame of results, a marker and the band filter: 320 + 639 + 64 <= 1024
_TAPS = 65
_FILTER_DELAY = _TAPS // 2
_FIRST = _TAPS  # lag of the first result per block that the filter's circular edge leaves alone


class MarkerKind(StrEnum):
    """Direction of the sweep."""

    UP = "up"
    DOWN = "down"


@dataclass(frozen=True, slots=True)
class SentMarker:
    """A marker on the grid and the monotonic instant (s) at which its first sample was captured."""

    index: int
    captured_at: float

    @property
    def kind(self) -> MarkerKind:
        return marker_kind(self.index)


@dataclass(frozen=True, slots=True)
class MarkerHit:
    """A marker found in played sound."""

    heard_at: float
    """Monotonic instant (s) at which its first sample was heard."""
    score: float
    """Normalised correlation, 0..1."""
    kind: MarkerKind


@dataclass(frozen=True, slots=True)
class MarkerMatch:
    """A heard marker and which one it was."""

    sent: SentMarker
    hit: MarkerHit

    @property
    def delay(self) -> float:
        """Seconds from mouth to ear."""
        return self.hit.heard_at - self.sent.captured_at


@dataclass(frozen=True)
class MarkerGrid:
    """Where markers lie in media time. Raises ValueError for an interval under 200 ms."""

    interval: float = 1.0
    """Seconds between markers, a whole number of samples after rounding."""

    def __post_init__(self) -> None:
        if not self.interval >= 0.2 or not math.isfinite(self.interval):
            raise ValueError(f"marker interval {self.interval} s is not 0.2 s or more")

    @property
    def samples(self) -> int:
        """Samples between markers."""
        return round(self.interval * SAMPLE_RATE)

    @property
    def max_delay(self) -> float:
        """Longest delay (s) told apart: kinds alternate, so one kind recurs every two intervals."""
        return 2 * self.samples / SAMPLE_RATE - MARKER / SAMPLE_RATE

    def captured_at(self, index: int, origin: float) -> float:
        """When marker `index` was captured, `origin` being that of the source's first sample."""
        return origin + index * self.samples / SAMPLE_RATE

    def sent(self, origin: float, begin: float, end: float) -> list[SentMarker]:
        """The markers captured in [begin, end), none before `origin`."""
        step = self.samples / SAMPLE_RATE
        first = max(0, math.ceil((begin - origin) / step))
        markers: list[SentMarker] = []
        while (at := self.captured_at(first + len(markers), origin)) < end:
            markers.append(SentMarker(first + len(markers), at))
        return markers

    def identify(
        self, hit: MarkerHit, origin: float, tolerance: float = 0.005
    ) -> MarkerMatch | None:
        """Which marker `hit` was: the latest of its kind captured before it was heard.

        Right when the delay is below `max_delay`. `tolerance` (s) lets the clocks' error make a
        short delay seem negative. None: no such marker had been sent yet.
        """
        step = self.samples / SAMPLE_RATE
        index = math.floor((hit.heard_at + tolerance - origin) / step)
        if index >= 0 and marker_kind(index) is not hit.kind:
            index -= 1
        if index < 0:
            return None
        return MarkerMatch(SentMarker(index, self.captured_at(index, origin)), hit)


def marker_kind(index: int) -> MarkerKind:
    """Rising sweeps are even, falling ones odd."""
    return MarkerKind.DOWN if index % 2 else MarkerKind.UP


def marker_waveform(kind: MarkerKind) -> npt.NDArray[np.complex128]:
    """complex128 [640], peak 1: the marker is the imaginary part, which begins at zero."""
    low, high = BAND_HZ if kind is MarkerKind.UP else BAND_HZ[::-1]
    t = np.arange(MARKER) / SAMPLE_RATE
    phase = 2 * np.pi * (low * t + (high - low) * t * t / (2 * MARKER / SAMPLE_RATE))
    return np.asarray(_tukey(MARKER, TAPER) * np.exp(1j * phase), dtype=np.complex128)


class MarkerInjector:
    """Mixes markers into captured frames; stateless but for its tables, so any frame may be given.

    `level_dbfs` is a marker's peak, `duck_db` what speech is turned down by under it (0: not at
    all).
    """

    def __init__(
        self,
        grid: MarkerGrid | None = None,
        *,
        level_dbfs: float = -20.0,
        duck_db: float = 20.0,
    ) -> None:
        if not level_dbfs <= 0.0:
            raise ValueError(f"marker level {level_dbfs} dBFS is above full scale")
        self.grid = grid if grid is not None else MarkerGrid()
        peak = 32767.0 * 10.0 ** (level_dbfs / 20.0)
        period = 2 * self.grid.samples
        self._gain = np.ones(period)
        self._sound = np.zeros(period)
        fade = 0.5 + 0.5 * np.cos(np.pi * (np.arange(_FADE) + 0.5) / _FADE)
        duck = 1.0 - 10.0 ** (-duck_db / 20.0)
        shape = 1.0 - duck * np.concatenate([1.0 - fade, np.ones(MARKER), fade])
        for index, kind in enumerate((MarkerKind.UP, MarkerKind.DOWN)):
            begin = index * self.grid.samples
            self._sound[begin : begin + MARKER] = peak * marker_waveform(kind).imag
            self._gain[np.arange(begin - _FADE, begin + MARKER + _FADE) % period] = shape

    def mix(self, pcm: PcmFrame, first_sample: int) -> PcmFrame:
        """`pcm` (int16 [n], left alone) with markers; `first_sample` is its place on the grid.

        Counting from the RTP timestamp (a third of it, extended: 48 kHz to 16 kHz) instead of from
        the source's start lets a receiver know the grid without having seen the first packet.
        """
        # NumPy wraps an index by subtracting lengths one by one: it must not be far out
        begin = first_sample % len(self._gain)
        at = np.arange(begin, begin + len(pcm))
        gain = self._gain.take(at, mode="wrap")
        mixed = pcm * gain + self._sound.take(at, mode="wrap")
        return np.clip(np.rint(mixed), -32768, 32767).astype(np.int16)


class MarkerDetector:
    """Finds markers in played frames by a matched filter; constant memory.

    A marker is reported up to 100 ms of sound after its first sample: it has to end, and no better
    match may follow within its length.
    """

    def __init__(self, threshold: float = THRESHOLD) -> None:
        if not 0.0 < threshold < 1.0:
            raise ValueError(f"marker threshold {threshold} is not between 0 and 1")
        self.threshold = threshold
        self._input = np.zeros(_FFT)
        band = np.fft.rfft(_band_filter(), _FFT)
        templates = np.stack([marker_waveform(kind) for kind in MarkerKind])
        # the sweeps are analytic (nothing at negative frequencies), which makes the magnitude of
        # the correlation an envelope: blind to phase, smooth enough to interpolate
        spectra = np.conj(np.fft.fft(templates, _FFT, axis=1))[:, : len(band)]
        norm = np.sqrt(2.0 / np.sum(np.abs(templates[0]) ** 2))
        self._band = band
        self._matched = spectra * band * norm
        self._spectrum = np.zeros((2, _FFT), dtype=np.complex128)
        # two results of the last block, so that a peak on the seam has both its neighbours
        self._envelope = np.zeros((2, FRAME + 2))
        self._score = np.zeros((2, FRAME + 2))
        self._received = 0
        self._frames: deque[tuple[int, float]] = deque(maxlen=_FFT // FRAME + 3)
        self._best: MarkerHit | None = None
        self._best_at = 0.0

    def push(self, pcm: PcmFrame, playout_at: float) -> list[MarkerHit]:
        """The next frame (int16 [320]) and the instant (s) at which its first sample is heard."""
        if pcm.shape != (FRAME,):
            raise ValueError(f"a frame is {FRAME} samples, not {pcm.shape}")
        self._frames.append((self._received, playout_at))
        self._received += FRAME
        self._input[:-FRAME] = self._input[FRAME:]
        self._input[-FRAME:] = pcm
        self._correlate()

        # a result's place among all samples received, the filter's delay taken out
        origin = self._received - _FFT + _FIRST - _FILTER_DELAY - 2
        row, column = divmod(int(np.argmax(self._score[:, 1:-1])), FRAME)
        column += 1
        score = float(self._score[row, column])
        if score >= self.threshold and (self._best is None or score > self._best.score):
            self._best_at = origin + column + _vertex(self._envelope[row, column - 1 : column + 2])
            kind = MarkerKind.DOWN if row else MarkerKind.UP
            self._best = MarkerHit(self._instant(self._best_at), min(score, 1.0), kind)
        if self._best is not None and origin + FRAME >= self._best_at + MARKER:
            return self.flush()
        return []

    def flush(self) -> list[MarkerHit]:
        """What was found but not reported yet; call it at the end of the sound."""
        hits = [] if self._best is None else [self._best]
        self._best = None
        return hits

    def _correlate(self) -> None:
        spectrum = np.fft.rfft(self._input)
        filtered = np.fft.irfft(spectrum * self._band, _FFT)
        np.multiply(self._matched, spectrum, out=self._spectrum[:, : len(spectrum)])
        lags = slice(_FIRST, _FIRST + FRAME)
        envelope = np.abs(np.fft.ifft(self._spectrum, axis=1)[:, lags])
        power = np.cumsum(filtered * filtered)
        energy = power[_FIRST + MARKER - 1 :][:FRAME] - power[_FIRST - 1 :][:FRAME]
        self._envelope[:, :2] = self._envelope[:, -2:]
        self._score[:, :2] = self._score[:, -2:]
        self._envelope[:, 2:] = envelope
        self._score[:, 2:] = envelope / np.sqrt(np.maximum(energy, MARKER * FLOOR * FLOOR))

    def _instant(self, sample: float) -> float:
        begin, playout_at = self._frames[0]
        for at, instant in self._frames:
            if at > sample:
                break
            begin, playout_at = at, instant
        return playout_at + (sample - begin) / SAMPLE_RATE


def match_markers(
    heard: Sequence[MarkerHit],
    sent: Sequence[SentMarker],
    max_delay: float,
    tolerance: float = 0.005,
) -> list[MarkerMatch]:
    """Pairs each marker heard with the latest one of its kind sent up to `max_delay` s before.

    In the order of sending; of several hits on one marker the best score stays. Sent markers that
    were never heard and hits that fit none are left out. `tolerance` (s) as in `identify`.
    """
    by_kind = {kind: [m for m in sent if m.kind is kind] for kind in MarkerKind}
    instants = {kind: np.array([m.captured_at for m in ms]) for kind, ms in by_kind.items()}
    matches: dict[int, MarkerMatch] = {}
    for hit in heard:
        place = int(np.searchsorted(instants[hit.kind], hit.heard_at + tolerance, "right")) - 1
        if place < 0:
            continue
        match = MarkerMatch(by_kind[hit.kind][place], hit)
        known = matches.get(match.sent.index)
        if match.delay <= max_delay and (known is None or hit.score > known.hit.score):
            matches[match.sent.index] = match
    return [matches[index] for index in sorted(matches)]


def _tukey(length: int, taper: float) -> npt.NDArray[np.float64]:
    window = np.ones(length)
    flank = round(taper * length / 2)
    rise = 0.5 - 0.5 * np.cos(np.pi * (np.arange(flank) + 0.5) / flank)
    window[:flank] = rise
    window[-flank:] = rise[::-1]
    return window


def _band_filter() -> npt.NDArray[np.float64]:
    """Windowed-sinc band pass: energy outside the sweep must not dilute the score."""
    t = np.arange(_TAPS) - _FILTER_DELAY
    low, high = (BAND_HZ[0] - 150.0) / SAMPLE_RATE, (BAND_HZ[1] + 200.0) / SAMPLE_RATE
    taps = 2 * high * np.sinc(2 * high * t) - 2 * low * np.sinc(2 * low * t)
    return np.asarray(taps * np.hamming(_TAPS), dtype=np.float64)


def _vertex(three: npt.NDArray[np.float64]) -> float:
    """Where a parabola through three neighbours peaks, in samples from the middle one."""
    left, middle, right = (float(v) for v in three)
    curvature = left - 2.0 * middle + right
    if curvature >= 0.0:
        return 0.0
    return max(-0.5, min(0.5, 0.5 * (left - right) / curvature))
