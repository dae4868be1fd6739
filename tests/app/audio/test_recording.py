"""Recordings: complete, crash-proof, and never in the way."""

from __future__ import annotations

import subprocess
import sys
import threading
import wave
from pathlib import Path

import numpy as np
import pytest

from app.audio import recording
from app.audio.base import AudioError
from app.audio.file import file_frames
from app.audio.recording import QUEUED_FRAMES, Recorder, WavWriter
from tests.app.audio.clips import dominant, sine

ROOT = Path(__file__).parents[3]


def record(path: Path, pcm: np.ndarray) -> Recorder:
    recorder = Recorder(path)
    for frame in pcm.reshape(-1, 320):
        recorder.write(frame)
    recorder.close()
    return recorder


def test_a_wav_recording_is_bit_exact(tmp_path: Path) -> None:
    pcm = sine(500, 2.0)
    recorder = record(tmp_path / "call.WAV", pcm)
    with wave.open(str(tmp_path / "call.WAV")) as file:
        assert file.getparams()[:4] == (1, 2, 16_000, len(pcm))
        np.testing.assert_array_equal(np.frombuffer(file.readframes(1 << 20), np.int16), pcm)
    assert (recorder.dropped, recorder.error) == (0, None)


@pytest.mark.parametrize("suffix", ["opus", "ogg"])
def test_an_opus_recording_plays_back(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"call.{suffix}"
    record(path, sine(500, 2.0))
    assert path.read_bytes()[28:36] == b"OpusHead"
    heard = np.concatenate(list(file_frames(path)))
    assert len(heard) == pytest.approx(32_000, abs=640)
    assert dominant(heard[8000:24_000]) == pytest.approx(500, abs=2)


def test_an_empty_recording_is_a_valid_file(tmp_path: Path) -> None:
    Recorder(tmp_path / "call.wav").close()
    with wave.open(str(tmp_path / "call.wav")) as file:
        assert file.getnframes() == 0


@pytest.mark.parametrize("name", ["call.mp3", "call", "call.wav.txt"])
def test_an_unknown_suffix_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(AudioError, match="suffix") as caught:
        Recorder(tmp_path / name)
    assert ".wav" in str(caught.value)
    assert not (tmp_path / name).exists()


@pytest.mark.parametrize("name", ["call.wav", "call.opus"])
def test_a_path_that_cannot_be_written_is_refused_at_once(tmp_path: Path, name: str) -> None:
    with pytest.raises(AudioError, match="No such file or directory"):
        Recorder(tmp_path / "missing" / name)
    (tmp_path / name).mkdir()
    with pytest.raises(AudioError, match="Is a directory"):
        Recorder(tmp_path / name)


def test_writing_after_close_and_closing_twice_are_harmless(tmp_path: Path) -> None:
    recorder = record(tmp_path / "call.wav", sine(500, 0.1))
    recorder.write(np.zeros(320, np.int16))
    recorder.close()


def test_a_disk_that_stands_still_costs_frames_and_not_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    blocked = threading.Event()

    class SlowDisk(WavWriter):
        def write(self, pcm: bytes) -> None:
            blocked.wait(10)
            super().write(pcm)

    monkeypatch.setitem(recording.WRITERS, ".wav", SlowDisk)
    recorder = Recorder(tmp_path / "call.wav")
    for _ in range(QUEUED_FRAMES + 100):
        recorder.write(np.zeros(320, np.int16))
    assert 99 <= recorder.dropped <= 100
    blocked.set()
    recorder.close()
    with wave.open(str(recorder.path)) as file:
        assert file.getnframes() == (QUEUED_FRAMES + 100 - recorder.dropped) * 320


@pytest.mark.parametrize("suffix", ["wav", "opus"])
def test_a_disk_that_fills_up_ends_the_recording_and_not_the_call(
    tmp_path: Path, suffix: str
) -> None:
    script = (
        "import resource, signal, sys\n"
        "from app.audio.recording import Recorder\n"
        "from tests.app.audio.clips import sine\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))\n"
        "recorder = Recorder(sys.argv[1])\n"
        "for frame in sine(500, 30).reshape(-1, 320):\n"
        "    recorder.write(frame)\n"
        "    while recorder._frames.qsize() > 100 and recorder.error is None: pass\n"
        "recorder.close()\n"
        "print(recorder.error)\n"
    )
    path = tmp_path / f"call.{suffix}"
    said = subprocess.run(
        [sys.executable, "-c", script, str(path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert str(path) in said.stdout
    assert "File too large" in said.stdout


@pytest.mark.parametrize("suffix", ["wav", "opus"])
def test_a_recording_survives_being_killed(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"call.{suffix}"
    script = (
        "import sys, time, numpy as np\n"
        "from app.audio.recording import Recorder\n"
        "from tests.app.audio.clips import sine\n"
        "recorder = Recorder(sys.argv[1])\n"
        "began = time.monotonic()\n"
        "for k, frame in enumerate(sine(500, 60).reshape(-1, 320)):\n"
        "    recorder.write(frame)\n"
        "    print(k, flush=True)\n"
        "    time.sleep(max(0, began + k * 0.02 - time.monotonic()))\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", script, str(path)], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    for line in process.stdout:
        if int(line) == 125:  # 2.5 s
            break
    process.kill()
    process.wait()
    heard = np.concatenate(list(file_frames(path)))
    assert len(heard) >= 1.5 * 16_000
    assert dominant(heard[8000:24_000]) == pytest.approx(500, abs=2)
    if suffix == "wav":
        with wave.open(str(path)) as file:
            assert file.getnframes() >= 1.5 * 16_000
            assert path.stat().st_size >= 44 + 2 * file.getnframes()
