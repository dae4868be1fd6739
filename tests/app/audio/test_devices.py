"""Choosing a device, and doing without any."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from app.audio.base import AudioError
from app.audio.devices import Device, choose_device

ROOT = Path(__file__).parents[3]

DEVICES = [
    Device(0, "HDA Intel: ALC257 Analog", "ALSA", 2, 2, 48_000),
    Device(3, "USB Headset", "ALSA", 1, 2, 44_100, default_input=True),
    Device(4, "USB Headset Pro", "ALSA", 1, 2, 48_000, default_output=True),
    Device(12, "pulse", "ALSA", 32, 32, 44_100),
]


@pytest.mark.parametrize(
    ("wanted", "number"),
    [("12", 12), ("0", 0), ("intel", 0), ("PULSE", 12), ("headset pro", 4), ("usb headset", 3)],
)
def test_a_device_is_chosen_by_number_name_or_part_of_it(wanted: str, number: int) -> None:
    assert choose_device(DEVICES, wanted, "input").number == number


def test_without_a_wish_it_is_the_default_of_that_direction() -> None:
    assert choose_device(DEVICES, None, "input").number == 3
    assert choose_device(DEVICES, None, "output").number == 4


@pytest.mark.parametrize("wanted", ["headset", "7", "bluetooth"])
def test_an_unclear_or_unknown_wish_lists_the_candidates(wanted: str) -> None:
    with pytest.raises(AudioError, match=wanted) as caught:
        choose_device(DEVICES, wanted, "input")
    assert "USB Headset Pro" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_machine_without_devices_says_so() -> None:
    with pytest.raises(AudioError, match="no audio output device"):
        choose_device([], None, "output")
    with pytest.raises(AudioError, match="no default"):
        choose_device(DEVICES[3:], None, "output")


def test_without_portaudio_everything_imports_and_only_devices_are_refused() -> None:
    script = (
        "import sys\n"
        "class NoPortAudio:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name == 'sounddevice':\n"
        "            raise OSError('PortAudio library not found')\n"
        "sys.meta_path.insert(0, NoPortAudio())\n"
        "import app.audio\n"
        "app.audio.parse_source('tone'); app.audio.parse_sink('null')\n"
        "for ask in (app.audio.list_devices, lambda: app.audio.parse_source('device'),\n"
        "            lambda: app.audio.parse_sink('device:0')):\n"
        "    try:\n"
        "        ask()\n"
        "    except app.audio.AudioError as error:\n"
        "        print(error)\n"
    )
    said = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.splitlines()
    assert len(said) == 3
    assert all("PortAudio library not found" in line for line in said)
