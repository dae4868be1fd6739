"""Audio files of every kind, written through FFmpeg."""

from __future__ import annotations

import threading
from pathlib import Path

import av
import numpy as np
import numpy.typing as npt
from av.audio.stream import AudioStream

from app.audio.base import CapturedFrame


def sine(frequency: float, seconds: float, rate: int = 16_000) -> npt.NDArray[np.int16]:
    """int16 [n], peak 8000."""
    t = np.arange(round(seconds * rate)) / rate
    samples: npt.NDArray[np.int16] = np.rint(8000 * np.sin(2 * np.pi * frequency * t)).astype(
        np.int16
    )
    return samples


def write_clip(path: Path, pcm: npt.NDArray[np.int16], rate: int, codec: str = "pcm_s16le") -> Path:
    """Writes int16 [channels, n] (or [n]) at `rate`; the suffix says the container.

    PyAV converts to the sample format and frame size of the codec.
    """
    planes = np.atleast_2d(pcm)
    layout = "mono" if len(planes) == 1 else "stereo"
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=rate, layout=layout)
        assert isinstance(stream, AudioStream)
        packed = np.ascontiguousarray(planes.T).reshape(1, -1)
        frame = av.AudioFrame.from_ndarray(packed, format="s16", layout=layout)
        frame.sample_rate = rate
        for piece in (frame, None):
            container.mux(stream.encode(piece))
    return path


def dominant(pcm: npt.NDArray[np.int16], rate: int = 16_000) -> float:
    """The strongest frequency in Hz."""
    spectrum = np.abs(np.fft.rfft(pcm * np.hanning(len(pcm))))
    return float(np.argmax(spectrum) * rate / len(pcm))


class Ear:
    """Collects what a source delivers."""

    def __init__(self, enough: int | None = None) -> None:
        self.frames: list[CapturedFrame] = []
        self.ended = False
        self.enough = enough
        self.done = threading.Event()

    def __call__(self, frame: CapturedFrame | None) -> None:
        assert not self.ended, "something was delivered after the end"
        if frame is None:
            self.ended = True
            self.done.set()
            return
        self.frames.append(frame)
        if len(self.frames) == self.enough:
            self.done.set()

    @property
    def pcm(self) -> npt.NDArray[np.int16]:
        """All of it."""
        return np.concatenate([frame.pcm for frame in self.frames])
