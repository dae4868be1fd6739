"""The words for sources and sinks."""

from __future__ import annotations

from pathlib import Path

import pytest

from app.audio import AudioError, parse_sink, parse_source
from app.audio.sink import NullSink
from app.audio.source import FileSource, SilenceSource, ToneSource
from tests.app.audio.clips import sine, write_clip


def test_a_path_is_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_clip(tmp_path / "a clip: one.wav", sine(500, 0.1), 16_000)
    assert isinstance(parse_source(str(path)), FileSource)
    assert isinstance(parse_source(f"file:{path}", loop=True), FileSource)
    monkeypatch.chdir(tmp_path)
    path.rename(tmp_path / "tone")
    assert isinstance(parse_source("tone"), ToneSource)
    assert isinstance(parse_source("file:tone"), FileSource)
    assert isinstance(parse_source("./tone"), FileSource)


@pytest.mark.parametrize(
    ("text", "name"),
    [("tone", "440"), ("tone:1000", "1000"), ("tone:262.5:-6", "262.5"), ("tone:50:0", "50")],
)
def test_tones_are_described_by_frequency_and_level(text: str, name: str) -> None:
    source = parse_source(text)
    assert isinstance(source, ToneSource)
    assert name in source.name


def test_silence_and_null_are_plain_words() -> None:
    assert isinstance(parse_source("silence"), SilenceSource)
    assert isinstance(parse_sink("null"), NullSink)


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ("tonne", "'tonne'"),
        ("microphone:2", "'microphone'"),
        ("", "''"),
        ("tone:high", "'high'"),
        ("tone:", "''"),
        ("tone:440:loud", "'loud'"),
        ("tone:440:-20:3", "'3'"),
        ("tone:9000", "9000"),
        ("tone:440:3", "3 dBFS"),
        ("tone:inf", "inf"),
        ("silence:1", "'1'"),
        ("device:", "colon"),
        ("file:", "cannot read"),
        ("no/such.wav", "no/such.wav"),
        ("missing.wav", "missing.wav"),
    ],
)
def test_a_wrong_source_names_the_wrong_word(text: str, wrong: str) -> None:
    with pytest.raises(AudioError, match=wrong) as caught:
        parse_source(text)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "wrong"),
    [("speaker", "'speaker'"), ("null:3", "'3'"), ("device:", "colon"), ("out.wav", "'out.wav'")],
)
def test_a_wrong_sink_names_the_wrong_word(text: str, wrong: str) -> None:
    with pytest.raises(AudioError, match=wrong):
        parse_sink(text)
