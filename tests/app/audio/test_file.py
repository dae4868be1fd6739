"""Files of many kinds come out as 16 kHz mono frames, or are refused in one line."""

from __future__ import annotations

import itertools
import os
from pathlib import Path

import numpy as np
import pytest

from app.audio.base import AudioError
from app.audio.file import file_frames
from app.audio.source import FileSource
from tests.app.audio.clips import dominant, sine, write_clip


@pytest.mark.parametrize(
    ("suffix", "codec", "rate", "channels"),
    [
        ("wav", "pcm_s16le", 16_000, 1),
        ("wav", "pcm_s16le", 44_100, 1),
        ("wav", "pcm_s16le", 96_000, 2),
        ("wav", "pcm_f32le", 8_000, 2),
        ("flac", "flac", 48_000, 2),
        ("mp3", "libmp3lame", 44_100, 2),
        ("ogg", "libopus", 48_000, 2),
        ("m4a", "aac", 48_000, 2),
    ],
)
def test_any_rate_and_codec_keeps_pitch_level_and_length(
    tmp_path: Path, suffix: str, codec: str, rate: int, channels: int
) -> None:
    path = tmp_path / f"clip.{suffix}"
    write_clip(path, np.tile(sine(1000, 1.0, rate), (channels, 1)), rate, codec)
    frames = list(file_frames(path))
    assert all(frame.shape == (320,) and frame.dtype == np.int16 for frame in frames)
    pcm = np.concatenate(frames)
    assert len(frames) == pytest.approx(50, abs=4)  # lossy codecs pad
    assert dominant(pcm[3200:12800]) == pytest.approx(1000, abs=5)
    assert np.abs(pcm[3200:12800]).max() == pytest.approx(8000, rel=0.1)


def test_a_16_khz_file_comes_out_bit_exact_and_padded(tmp_path: Path) -> None:
    samples = sine(500, 0.05)  # two frames and a half
    path = write_clip(tmp_path / "clip.wav", samples, 16_000)
    frames = list(file_frames(path))
    assert len(frames) == 3
    pcm = np.concatenate(frames)
    np.testing.assert_array_equal(pcm[:800], samples)
    assert not pcm[800:].any()


def test_stereo_is_mixed_down(tmp_path: Path) -> None:
    left, right = sine(500, 1.0), sine(2000, 1.0)
    path = write_clip(tmp_path / "clip.wav", np.stack([left, right]), 16_000)
    pcm = np.concatenate(list(file_frames(path)))
    spectrum = np.abs(np.fft.rfft(pcm[:16_000]))
    assert set(np.argsort(spectrum)[-2:]) == {500, 2000}


def test_a_loop_goes_on_without_a_gap(tmp_path: Path) -> None:
    samples = sine(500, 0.05)
    path = write_clip(tmp_path / "clip.wav", samples, 16_000)
    frames = list(itertools.islice(file_frames(path, loop=True), 10))
    np.testing.assert_array_equal(np.concatenate(frames), np.tile(samples, 4))


def test_a_file_that_was_cut_off_gives_what_is_left(tmp_path: Path) -> None:
    whole = write_clip(tmp_path / "clip.flac", sine(700, 20.0), 16_000, "flac").read_bytes()
    path = tmp_path / "cut.flac"
    path.write_bytes(whole[: len(whole) // 2])
    pcm = np.concatenate(list(file_frames(path)))
    assert 5 * 16_000 < len(pcm) < 15 * 16_000
    assert dominant(pcm[:8000]) == pytest.approx(700, abs=5)


def test_damage_in_the_middle_is_left_out(tmp_path: Path) -> None:
    data = bytearray(
        write_clip(tmp_path / "clip.mp3", sine(700, 4.0, 44_100), 44_100, "mp3").read_bytes()
    )
    middle = len(data) // 2
    data[middle : middle + 2000] = bytes(range(250)) * 8
    path = tmp_path / "damaged.mp3"
    path.write_bytes(data)
    pcm = np.concatenate(list(file_frames(path)))
    assert 2.5 * 16_000 < len(pcm) < 4.2 * 16_000
    assert dominant(pcm[-8000:-1000]) == pytest.approx(700, abs=5)


def refused(path: Path) -> str:
    with pytest.raises(ValueError, match="cannot") as caught:
        FileSource(path)
    assert isinstance(caught.value, AudioError)
    message = str(caught.value)
    assert str(path) in message
    assert "\n" not in message
    return message


def test_what_is_no_audio_file_is_refused_before_it_starts(tmp_path: Path) -> None:
    text = tmp_path / "notes.txt"
    text.write_text("hello\n" * 100)
    assert "not an audio file" in refused(text) or "no audio" in refused(text)
    empty = tmp_path / "empty.wav"
    empty.touch()
    assert "not an audio file" in refused(empty)
    assert "No such file" in refused(tmp_path / "missing.wav")
    assert "Is a directory" in refused(tmp_path)


def test_a_file_without_sound_is_refused(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "clip.wav", sine(500, 0.1), 16_000)
    path.write_bytes(path.read_bytes()[:78])
    refused(path)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")
def test_a_pipe_cannot_be_looped(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    writer = os.open(pipe, os.O_RDWR)
    try:
        with pytest.raises(AudioError, match="loop"):
            FileSource(pipe, loop=True)
    finally:
        os.close(writer)
