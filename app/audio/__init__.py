"""The audio edge: sources, sinks, devices, recordings; 16 kHz mono int16 within."""

from app.audio.base import (
    AudioError,
    AudioSink,
    AudioSource,
    CapturedFrame,
    Deliver,
    PlayoutStats,
    Prepare,
    Render,
)
from app.audio.devices import Device, list_devices
from app.audio.recording import Recorder
from app.audio.sink import NullSink
from app.audio.source import FileSource, PacedSource, SilenceSource, ToneSource
from app.audio.specs import SINK_SYNTAX, SOURCE_SYNTAX, parse_sink, parse_source

__all__ = [
    "SINK_SYNTAX",
    "SOURCE_SYNTAX",
    "AudioError",
    "AudioSink",
    "AudioSource",
    "CapturedFrame",
    "Deliver",
    "Device",
    "FileSource",
    "NullSink",
    "PacedSource",
    "PlayoutStats",
    "Prepare",
    "Recorder",
    "Render",
    "SilenceSource",
    "ToneSource",
    "list_devices",
    "parse_sink",
    "parse_source",
]
