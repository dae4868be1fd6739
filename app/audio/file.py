"""Reading audio files through FFmpeg (PyAV), a frame at a time."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import BinaryIO

import av
import numpy as np
import numpy.typing as npt
from av.audio.frame import AudioFrame
from av.audio.stream import AudioStream

from app.audio.base import AudioError
from codec import FRAME, SAMPLE_RATE
from codec.frame import PcmFrame


def file_frames(path: str | os.PathLike[str], *, loop: bool = False) -> Iterator[PcmFrame]:
    """The frames of an audio file, int16 [320]; at the end the last is filled up with zeros.

    With `loop` the sound begins again, for ever, without a gap. The file is read as it is needed.
    Damaged stretches are left out. Raises AudioError on the first `next` when the file gives no
    sound at all.
    """
    name = os.fspath(path)
    try:
        file = open(path, "rb")  # noqa: SIM115 (closed by the with below)
    except OSError as error:
        raise AudioError(f"cannot read {name}: {error.strerror}") from None
    with file:
        if loop and not file.seekable():
            raise AudioError(f"cannot loop {name}: not a file that can be read again")
        rest = np.empty(0, np.int16)
        heard = False
        while True:
            more = False
            for block in _blocks(file, name):
                rest = np.concatenate((rest, block)) if rest.size else block
                whole = len(rest) // FRAME * FRAME
                for frame in rest[:whole].reshape(-1, FRAME):
                    yield frame.copy()
                rest = rest[whole:]
                more = True
            heard = heard or more
            if not heard:
                raise AudioError(f"cannot play {name}: there is no sound in it")
            if not (loop and more):
                break
            file.seek(0)
        if rest.size:
            yield np.pad(rest, (0, FRAME - rest.size))


def file_samples(path: str | os.PathLike[str], *, most: int) -> npt.NDArray[np.int16]:
    """All of an audio file in one piece, int16 [n], up to `most` samples.

    Raises AudioError when it gives no sound at all, or more than that.
    """
    name = os.fspath(path)
    blocks = []
    room = most
    try:
        with open(path, "rb") as file:
            for block in _blocks(file, name):
                blocks.append(block)
                room -= len(block)
                if room < 0:
                    raise AudioError(f"cannot read {name}: longer than {most / SAMPLE_RATE:g} s")
    except OSError as error:
        raise AudioError(f"cannot read {name}: {error.strerror}") from None
    if not blocks:
        raise AudioError(f"cannot read {name}: there is no sound in it")
    return np.concatenate(blocks)


def _blocks(file: BinaryIO, name: str) -> Iterator[npt.NDArray[np.int16]]:
    """The sound in one file from here on, mono at 16 kHz, in blocks of whatever size."""
    try:
        container = av.open(file, "r", metadata_errors="replace")
    except av.FFmpegError as error:
        raise AudioError(f"cannot play {name}: not an audio file ({error.strerror})") from None
    with container:
        if not container.streams.audio:
            raise AudioError(f"cannot play {name}: there is no audio in it")
        stream = container.streams.audio[0]
        resampler = av.AudioResampler("s16", "mono", SAMPLE_RATE)
        shape = None
        for frame in _decoded(container, stream):
            frame.pts = None  # damaged files jump, and the resampler would fill the jump
            if shape is None:
                shape = _shape(frame)
            elif shape != _shape(frame):  # chained streams may change in mid-file
                yield from _arrays(resampler.resample(None))
                resampler = av.AudioResampler("s16", "mono", SAMPLE_RATE)
                shape = _shape(frame)
            yield from _arrays(resampler.resample(frame))
        if shape is not None:
            yield from _arrays(resampler.resample(None))


def _decoded(container: av.container.InputContainer, stream: AudioStream) -> Iterator[AudioFrame]:
    packets = container.demux(stream)
    while True:
        try:
            packet = next(packets, None)
        except av.FFmpegError:  # what is left of a file that was cut off
            return
        if packet is None:
            return
        try:
            frames = packet.decode()
        except av.FFmpegError:
            continue
        for frame in frames:
            assert isinstance(frame, AudioFrame)
            yield frame


def _shape(frame: AudioFrame) -> tuple[str, str, int]:
    return frame.format.name, frame.layout.name, frame.sample_rate


def _arrays(frames: list[AudioFrame]) -> Iterator[npt.NDArray[np.int16]]:
    for frame in frames:
        if frame.samples:
            yield frame.to_ndarray()[0]
