"""Recording what is heard, to WAV or Ogg Opus by the file's suffix."""

from __future__ import annotations

import contextlib
import logging
import os
import threading
import wave
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Protocol

import av
import numpy as np
from av.audio.stream import AudioStream

from app.audio.base import AudioError
from codec import SAMPLE_RATE
from codec.frame import PcmFrame

QUEUED_FRAMES = 500
"""10 s of sound that the disk may be behind."""

FLUSH_SECONDS = 0.5
"""How much of a recording a crash may cost, nearly."""

WAV_LIMIT = 2**32 - 2**16
"""Bytes of sound: sizes in WAV have 32 bits. 37 hours."""

OPUS_BITRATE = 32_000

logger = logging.getLogger(__name__)


class _Writer(Protocol):
    def write(self, pcm: bytes) -> None: ...

    def flush(self) -> None: ...

    def close(self) -> None: ...


class WavWriter:
    """16-bit mono WAV at 16 kHz that is whole after every `flush`."""

    def __init__(self, path: Path) -> None:
        self._file = open(path, "wb")  # noqa: SIM115 (closed by close)
        self._wave = wave.open(self._file, "wb")  # noqa: SIM115
        self._wave.setnchannels(1)
        self._wave.setsampwidth(2)
        self._wave.setframerate(SAMPLE_RATE)
        self._size = 0
        self._wave.writeframes(b"")
        self.flush()

    def write(self, pcm: bytes) -> None:
        """Appends int16 samples; those over the limit of the format are left out."""
        self._size += len(pcm)
        if self._size <= WAV_LIMIT:
            self._wave.writeframesraw(pcm)

    def flush(self) -> None:
        """Hands everything to the system, the sound before the sizes that vouch for it."""
        self._file.flush()
        self._wave.writeframes(b"")  # corrects the sizes in the header
        self._file.flush()

    def close(self) -> None:
        """Completes the file."""
        self._wave.close()
        self._file.close()


class OggOpusWriter:
    """Ogg Opus (RFC 7845) whose pages leave at once when they are full, half a second each."""

    def __init__(self, path: Path) -> None:
        options = {"page_duration": str(round(1e6 * FLUSH_SECONDS)), "flush_packets": "1"}
        self._container = av.open(os.fspath(path), "w", format="ogg", options=options)
        stream = self._container.add_stream("libopus", rate=SAMPLE_RATE, layout="mono")
        assert isinstance(stream, AudioStream)
        stream.bit_rate = OPUS_BITRATE
        stream.options = {"application": "voip", "frame_duration": "20"}
        self._stream = stream
        self._samples = 0
        self._container.start_encoding()

    def write(self, pcm: bytes) -> None:
        """Appends int16 samples."""
        samples = np.frombuffer(pcm, np.int16).reshape(1, -1)
        frame = av.AudioFrame.from_ndarray(samples, format="s16", layout="mono")
        frame.sample_rate = SAMPLE_RATE
        frame.pts = self._samples
        self._samples += samples.shape[1]
        self._container.mux(self._stream.encode(frame))

    def flush(self) -> None:
        """Nothing to do: pages are written as they fill."""

    def close(self) -> None:
        """Completes the file."""
        self._container.mux(self._stream.encode(None))
        self._container.close()


WRITERS: dict[str, type[WavWriter] | type[OggOpusWriter]] = {
    ".wav": WavWriter,
    ".opus": OggOpusWriter,
    ".ogg": OggOpusWriter,
}


class Recorder:
    """Writes frames to a file on a thread of its own.

    `write` never waits: when the disk falls `QUEUED_FRAMES` behind, frames are dropped and
    counted. A failing disk ends the recording, not the call.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        """Creates the file. Raises AudioError when the suffix is unknown or it cannot be made."""
        self.path = Path(path)
        self.dropped = 0
        """Frames that were not recorded."""
        self.error: str | None = None
        """Why the recording ended early, if it did."""
        writer = WRITERS.get(self.path.suffix.lower())
        if writer is None:
            known = ", ".join(WRITERS)
            raise AudioError(
                f"cannot record to {self.path}: the suffix {self.path.suffix!r} is none of {known}"
            )
        try:
            self._writer: _Writer = writer(self.path)
        except (OSError, av.FFmpegError) as error:
            raise AudioError(f"cannot record to {self.path}: {error.strerror}") from None
        self._frames: SimpleQueue[bytes] = SimpleQueue()
        self._over = threading.Event()
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="recorder", daemon=True)
        self._thread.start()

    def write(self, pcm: PcmFrame) -> None:
        """Records one frame, int16 [320]. Any thread; does not keep `pcm`."""
        if self._closed:
            return
        if self.error is not None or self._frames.qsize() >= QUEUED_FRAMES:
            self.dropped += 1
            return
        self._frames.put(pcm.tobytes())

    def close(self) -> None:
        """Writes what is queued and completes the file."""
        if self._closed:
            return
        self._closed = True
        self._over.set()
        self._thread.join()

    def _run(self) -> None:
        try:
            self._record()
        except (OSError, av.FFmpegError) as error:
            self.error = f"recording to {self.path} ended: {error.strerror}"
            logger.warning("%s", self.error)
        try:
            self._writer.close()
        except (OSError, av.FFmpegError) as error:
            self.error = self.error or f"completing {self.path} failed: {error.strerror}"

    def _record(self) -> None:
        over = False
        while not over:
            # not frame by frame: each would wake this thread in the middle of playout
            over = self._over.wait(FLUSH_SECONDS)
            with contextlib.suppress(Empty):
                while True:
                    self._writer.write(self._frames.get_nowait())
            self._writer.flush()
