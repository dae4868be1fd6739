"""Audio devices through PortAudio: listing them, choosing one, opening a stream on it.

PortAudio is looked for when a device is first asked for; without it everything else works.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal

from app.audio.base import AudioError

Direction = Literal["input", "output"]

BLOCK_SECONDS = 0.010
"""Of sound per callback: half a frame, so that neither side waits long for the other."""

LATENCY = 0.030
"""Seconds of a device's own buffer: three blocks. Callbacks in Python wait for the interpreter's
lock, and a buffer of two ran dry on a busy machine."""


@dataclass(frozen=True, slots=True)
class Device:
    """One audio device as PortAudio lists it."""

    number: int
    name: str
    system: str
    """The sound system it belongs to, such as ALSA or Core Audio."""
    inputs: int
    outputs: int
    """Channels."""
    rate: int
    """Default sample rate in Hz."""
    default_input: bool = False
    default_output: bool = False

    def __str__(self) -> str:
        return f"{self.number}: {self.name} ({self.system})"

    def channels(self, direction: Direction) -> int:
        """How many channels it has in that direction."""
        return self.inputs if direction == "input" else self.outputs


@cache
def portaudio() -> Any:
    """The module sounddevice. Raises AudioError when there is no PortAudio on this machine."""
    try:
        import sounddevice
    except (OSError, ImportError) as error:
        raise AudioError(
            f"no audio devices: {error} (on Debian: apt-get install libportaudio2)"
        ) from None
    _hush_alsa()
    return sounddevice


def _hush_alsa() -> None:
    """Keeps ALSA from writing on the terminal; errors come back through PortAudio all the same."""
    try:
        alsa = ctypes.CDLL("libasound.so.2")
        # Any C function that does nothing will do as a handler: one in Python would have ALSA's
        # own threads wait for the interpreter.
        alsa.snd_lib_error_set_handler(alsa.snd_asoundlib_version)
    except (OSError, AttributeError):
        return


def list_devices() -> list[Device]:
    """Every device, by number. Raises AudioError without PortAudio."""
    sounddevice = portaudio()
    try:
        found = sounddevice.query_devices()
        systems = sounddevice.query_hostapis()
    except sounddevice.PortAudioError as error:
        raise AudioError(f"cannot list the audio devices: {error}") from None
    defaults = sounddevice.default.device
    return [
        Device(
            number=number,
            name=entry["name"],
            system=systems[entry["hostapi"]]["name"],
            inputs=entry["max_input_channels"],
            outputs=entry["max_output_channels"],
            rate=round(entry["default_samplerate"]),
            default_input=number == defaults[0],
            default_output=number == defaults[1],
        )
        for number, entry in enumerate(found)
    ]


def find_device(wanted: str | None, direction: Direction) -> Device:
    """The device of that number or name; the default one for None.

    A name may be any part of the full one, in either case, if it fits one device only; a full
    name goes before parts. Raises AudioError with the candidates.
    """
    devices = [device for device in list_devices() if device.channels(direction)]
    return choose_device(devices, wanted, direction)


def choose_device(devices: list[Device], wanted: str | None, direction: Direction) -> Device:
    """`find_device` among `devices`, all of which are of that direction."""
    if not devices:
        raise AudioError(f"this machine has no audio {direction} device")
    candidates = ", ".join(map(str, devices))
    if wanted is None:
        for device in devices:
            if device.default_input if direction == "input" else device.default_output:
                return device
        raise AudioError(f"no default audio {direction} device; there are {candidates}")
    if wanted.isdecimal():
        for device in devices:
            if device.number == int(wanted):
                return device
        raise AudioError(f"no audio {direction} device of number {wanted}; there are {candidates}")
    name = wanted.casefold()
    fitting = [device for device in devices if device.name.casefold() == name]
    fitting = fitting or [device for device in devices if name in device.name.casefold()]
    if len(fitting) == 1:
        return fitting[0]
    if fitting:
        several = ", ".join(map(str, fitting))
        raise AudioError(f"audio {direction} device {wanted!r} fits several: {several}")
    raise AudioError(f"no audio {direction} device {wanted!r}; there are {candidates}")


def open_stream(
    device: Device,
    direction: Direction,
    callback: Callable[..., None],
    finished: Callable[[], None],
    latency: float,
) -> tuple[Any, int]:
    """An int16 stream at the device's own rate that is not yet started, and its channels.

    One channel if the device will have it, else all of a device that only opens whole. Raises
    AudioError.
    """
    sounddevice = portaudio()
    stream = sounddevice.RawInputStream if direction == "input" else sounddevice.RawOutputStream
    most = device.channels(direction)
    refusal = None
    for channels in sorted({1, min(2, most), most}):
        try:
            return (
                stream(
                    device=device.number,
                    samplerate=device.rate,
                    channels=channels,
                    dtype="int16",
                    blocksize=round(device.rate * BLOCK_SECONDS),
                    latency=latency,
                    callback=callback,
                    finished_callback=finished,
                ),
                channels,
            )
        except (sounddevice.PortAudioError, ValueError) as error:
            refusal = refusal or error
    raise AudioError(f"cannot open the audio {direction} device {device}: {refusal}")


def start_stream(stream: Any, device: Device) -> None:
    """Starts a stream, or closes it and raises AudioError."""
    try:
        stream.start()
    except portaudio().PortAudioError as error:
        stream.close(ignore_errors=True)
        raise AudioError(f"cannot start the audio device {device}: {error}") from None
