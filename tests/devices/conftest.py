"""Sound devices for tests."""

from __future__ import annotations

import shutil
from collections.abc import Iterator

import pytest

from app.audio.base import AudioError
from app.audio.devices import portaudio
from tests.devices.pulse import PulseDevices, pulse_server


@pytest.fixture(scope="session")
def pulse_devices() -> Iterator[PulseDevices]:
    """Two headsets as PortAudio devices, in this process and, with `environment`, in others.

    Skips when PulseAudio or PortAudio is not installed.
    """
    if shutil.which("pulseaudio") is None:
        pytest.skip("no pulseaudio here (.ci/install-test-tools installs it)")
    with pytest.MonkeyPatch.context() as patch, pulse_server() as devices:
        # HOME stays ours: libraries look there for what has nothing to do with sound
        for name, value in devices.environment.items():
            if name != "HOME":
                patch.setenv(name, value)
        restart_portaudio()
        yield devices
    restart_portaudio()


def restart_portaudio() -> None:
    """Makes PortAudio look at the devices, and at the environment, anew."""
    try:
        sounddevice = portaudio()
    except AudioError as error:
        pytest.skip(str(error))
    sounddevice._terminate()
    sounddevice._initialize()
