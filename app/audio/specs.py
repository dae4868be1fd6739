"""The words by which a user names sources and sinks on the command line."""

from __future__ import annotations

import os

from app.audio.base import AudioError, AudioSink, AudioSource
from app.audio.microphone import MicrophoneSource
from app.audio.sink import NullSink
from app.audio.source import FileSource, SilenceSource, ToneSource
from app.audio.speaker import SpeakerSink

SOURCE_SYNTAX = "an audio file, file:PATH, tone[:HZ[:DBFS]], silence or device[:NAME|NUMBER]"
SINK_SYNTAX = "null or device[:NAME|NUMBER]"


def parse_source(text: str, *, loop: bool = False) -> AudioSource:
    """The source that `text` names, ready to start; see `SOURCE_SYNTAX`.

    A file called like one of the words needs `file:` or a folder before it. `loop` concerns files
    only. Raises AudioError with the word that is wrong.
    """
    word, colon, rest = text.partition(":")
    match word:
        case "file" if colon:
            return FileSource(rest, loop=loop)
        case "tone":
            return _parse_tone(rest, text) if colon else ToneSource()
        case "silence" if not colon:
            return SilenceSource()
        case "silence":
            raise AudioError(f"silence takes no setting, not {rest!r} in {text!r}")
        case "device":
            return MicrophoneSource(_device_name(colon, rest, text))
    if not os.path.exists(text) and os.sep not in text and "." not in text:
        raise AudioError(f"unknown source {word!r}: expected {SOURCE_SYNTAX}")
    return FileSource(text, loop=loop)


def parse_sink(text: str) -> AudioSink:
    """The sink that `text` names, ready to start; see `SINK_SYNTAX`.

    Raises AudioError with the word that is wrong.
    """
    word, colon, rest = text.partition(":")
    match word:
        case "null" if not colon:
            return NullSink()
        case "null":
            raise AudioError(f"null takes no setting, not {rest!r} in {text!r}")
        case "device":
            return SpeakerSink(_device_name(colon, rest, text))
    raise AudioError(f"unknown sink {word!r}: expected {SINK_SYNTAX}")


def _device_name(colon: str, rest: str, text: str) -> str | None:
    if colon and not rest:
        raise AudioError(f"no device name or number after the colon in {text!r}")
    return rest or None


def _parse_tone(settings: str, text: str) -> ToneSource:
    words = settings.split(":")
    if len(words) > 2:
        raise AudioError(f"unexpected {words[2]!r} in {text!r}: expected tone[:HZ[:DBFS]]")
    numbers = [_number(word, name, text) for word, name in zip(words, _TONE, strict=False)]
    return ToneSource(*numbers)


_TONE = ("frequency in Hz", "level in dBFS")


def _number(word: str, name: str, text: str) -> float:
    try:
        return float(word)
    except ValueError:
        raise AudioError(f"the {name} {word!r} in {text!r} is not a number") from None
