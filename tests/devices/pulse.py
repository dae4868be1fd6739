"""A sound server of our own, with two headsets that nobody wears."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

START_SECONDS = 30


@dataclass(frozen=True, slots=True)
class Headset:
    """Names of PortAudio devices: two for the party that wears it, two for who tests it."""

    microphone: str
    """To capture from: hears what is played on `feed`."""
    feed: str
    """To play on: speaks into the microphone."""
    speaker: str
    """To play on."""
    heard: str
    """To capture from: hears what is played on `speaker`."""


def headset(party: str) -> Headset:
    """The headset of party `a` or `b`."""
    return Headset(f"mic_{party}", f"feed_{party}", f"spk_{party}", f"heard_{party}")


@dataclass(frozen=True, slots=True)
class PulseDevices:
    """Two headsets, and what a process needs in its environment to see them."""

    a: Headset
    b: Headset
    environment: dict[str, str]
    pid: int
    """Of the sound server."""


def asound_conf(party: str) -> str:
    """The ALSA devices of a headset, which PortAudio lists under these very names."""
    worn = headset(party)
    devices = {
        worn.microphone: f"mic_{party}.monitor",
        worn.feed: f"mic_{party}",
        worn.speaker: f"spk_{party}",
        worn.heard: f"spk_{party}.monitor",
    }
    return "".join(
        f'pcm.{name} {{ type pulse device "{pulse}" }}\n' for name, pulse in devices.items()
    )


@contextmanager
def pulse_server() -> Iterator[PulseDevices]:
    """Runs pulseaudio with a null sink for each microphone and each speaker.

    Everything it writes lies in a folder of its own. Raises RuntimeError with the server's log
    if it does not come up.
    """
    program = shutil.which("pulseaudio")
    assert program is not None
    # not pytest's folder: the path of a socket has at most 107 characters
    folder = Path(tempfile.mkdtemp(prefix="pulse-"))
    path = folder / "native"
    conf = folder / "asound.conf"
    system = Path("/usr/share/alsa/alsa.conf")
    conf.write_text((f"<{system}>\n" if system.exists() else "") + "".join(map(asound_conf, "ab")))
    environment = {
        "HOME": str(folder),
        "XDG_RUNTIME_DIR": str(folder),
        "PULSE_RUNTIME_PATH": str(folder),
        "PULSE_COOKIE": str(folder / "cookie"),
        "PULSE_SERVER": f"unix:{path}",
        "ALSA_CONFIG_PATH": str(conf),
    }
    sinks = [f"{kind}_{party}" for kind in ("mic", "spk") for party in "ab"]
    modules = [f"module-null-sink sink_name={sink} rate=48000 channels=1" for sink in sinks]
    command = [program, "-n", "--daemonize=no", "--use-pid-file=no", "--exit-idle-time=600"]
    command += ["--disable-shm=yes", "--log-target=stderr"]
    for module in [f"module-native-protocol-unix auth-anonymous=1 socket={path}", *modules]:
        command += ["-L", module]
    with open(folder / "log", "wb") as log:
        server = subprocess.Popen(command, env={**os.environ, **environment}, stderr=log)
    try:
        _wait_for(server, path, folder / "log")
        yield PulseDevices(headset("a"), headset("b"), environment, server.pid)
    finally:
        server.send_signal(signal.SIGKILL)
        server.wait()
        shutil.rmtree(folder, ignore_errors=True)


def _wait_for(server: subprocess.Popen[bytes], path: Path, log: Path) -> None:
    until = time.monotonic() + START_SECONDS
    while True:
        with socket.socket(socket.AF_UNIX) as probe:
            if probe.connect_ex(str(path)) == 0:
                return
        if server.poll() is not None or time.monotonic() > until:
            raise RuntimeError(f"pulseaudio did not start:\n{log.read_text(errors='replace')}")
        time.sleep(0.05)
