"""The demo: two processes on this machine, real speech both ways, a network that bursts."""

from __future__ import annotations

import contextlib
import json
import re
import subprocess
import sys
import threading
import wave
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import as_file, files
from pathlib import Path
from typing import IO, Any

import numpy as np
from rich.console import Console
from rich.table import Table

from app.ledger import read_ledger
from app.net.errors import CallError
from app.netem import parse_netem
from app.options import UsageError
from app.picture import CallTrace, PictureSide, draw_call
from app.session_ui import check_json, print_table
from codec import FRAME

NETEM = "delay 25ms 4ms loss gemodel 6% 35%"
"""About 15 % of packets lost, in bursts of three on average: a bad Wi-Fi link."""

BUFFER = "fixed:100"
"""Room for the packet after a burst of four to come before its first frame is due."""

PATIENCE = 60.0
"""Seconds a side may take to get going, or to end, beyond the demo's own length."""

SIDES = ("listen", "call")
SPEECH = {"listen": "woman.flac", "call": "man.flac"}


@dataclass(frozen=True, slots=True)
class _Files:
    """What one side leaves behind."""

    recording: Path
    ledger: Path
    report: Path

    @classmethod
    def of(cls, folder: Path, side: str) -> _Files:
        return cls(folder / f"{side}.wav", folder / f"{side}.csv", folder / f"{side}.json")


def run_demo(
    out: Path, *, seconds: float, netem: str | None, seed: int, json_to: str | None
) -> int:
    """Runs both sides and shows what became of every frame; exit status.

    Raises UsageError or NetemError before anything is started, CallError if a side fails.
    """
    if not 3 <= seconds <= 3600:
        raise UsageError(f"--seconds: {seconds:g} is not between 3 and 3600 s")
    spec = netem if netem is not None else NETEM
    parse_netem(spec)
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"--out: {out}: {error.strerror}") from None
    check_json(json_to)

    console = Console(stderr=True)
    console.print(f"[bold]dredcall demo[/]: two processes, {seconds:g} s, each way: {spec}")
    with contextlib.ExitStack() as stack:
        clips = {
            side: stack.enter_context(as_file(files("app") / "clips" / name))
            for side, name in SPEECH.items()
        }
        shared = ["--sink", "null", "--probe", "--netem", spec, "--buffer", BUFFER, "--loop"]
        listener = _start(
            "listen", out, clips, ["--host", "127.0.0.1", "--port", "0", *shared], seed, quiet=True
        )
        stack.callback(_stop, listener)
        port = _bound_port(listener)
        caller = _start(
            "call",
            out,
            clips,
            [f"127.0.0.1:{port}", "--duration", f"{seconds:g}", *shared],
            seed + 1,
            quiet=False,
        )
        stack.callback(_stop, caller)
        processes = dict(zip(SIDES, (listener, caller), strict=True))
        for side in reversed(SIDES):
            try:
                processes[side].wait(timeout=seconds + PATIENCE)
            except subprocess.TimeoutExpired:
                raise CallError(f"the {side} side does not end") from None
    for side, process in processes.items():
        if process.returncode:
            raise CallError(f"the {side} side ended with status {process.returncode}")
    _show(out, json_to)
    return 0


def _start(
    side: str,
    out: Path,
    clips: dict[str, Path],
    arguments: list[str],
    seed: int,
    *,
    quiet: bool,
) -> subprocess.Popen[str]:
    kept = _Files.of(out, side)
    command = [sys.executable, "-m", "app", side, *arguments]
    command += ["--source", f"file:{clips[side]}", "--seed", str(seed)]
    command += ["--record", str(kept.recording), "--ledger", str(kept.ledger)]
    command += ["--json", str(kept.report)]
    if quiet:
        return subprocess.Popen([*command, "--quiet"], stderr=subprocess.PIPE, text=True)
    return subprocess.Popen(command, text=True)


def _bound_port(listener: subprocess.Popen[str]) -> int:
    """Where it listens, by its own word; the rest of what it says is passed on."""
    assert listener.stderr is not None
    for line in listener.stderr:
        match = re.search(r"listening on port (\d+)", line)
        if match:
            threading.Thread(target=_pass_on, args=(listener.stderr,), daemon=True).start()
            return int(match[1])
        sys.stderr.write(line)
    raise CallError(f"the listen side ended with status {listener.wait()}")


def _pass_on(lines: IO[str]) -> None:
    for line in lines:
        if not line.startswith("dredcall: the peer hung up"):
            sys.stderr.write(line)


def _stop(process: subprocess.Popen[str]) -> None:
    if process.poll() is None:
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(timeout=5)
        process.kill()


def _show(out: Path, json_to: str | None) -> None:
    """The table, the picture and where everything is."""
    kept = {side: _Files.of(out, side) for side in SIDES}
    reports = {side: json.loads(saved.report.read_text()) for side, saved in kept.items()}
    picture = out / "heard.png"
    draw_call(
        picture,
        [PictureSide(f"heard by {side}", _trace(saved)) for side, saved in kept.items()],
        "What was heard, by how each 20 ms frame was obtained",
    )
    if json_to == "-":
        print(json.dumps(reports))
    else:
        print_table(_table(reports))
        if json_to:
            Path(json_to).write_text(json.dumps(reports, indent=2) + "\n")
    for side, saved in kept.items():
        print(f"{saved.recording}: what {side} heard; {saved.ledger}: its frames", file=sys.stderr)
    print(f"{picture}: both, each frame coloured by how it was obtained", file=sys.stderr)


def _trace(kept: _Files) -> CallTrace:
    """Recording and ledger, which have one frame for each other."""
    trace = CallTrace()
    with wave.open(str(kept.recording)) as recording:
        for entry in read_ledger(kept.ledger):
            pcm = np.frombuffer(recording.readframes(FRAME), np.int16)
            if len(pcm) < FRAME:
                break
            delay = None if entry.delay_ms is None else entry.delay_ms / 1e3
            trace.add(pcm, entry.source, delay)
    return trace


def _table(reports: Mapping[str, dict[str, Any]]) -> Table:
    table = Table(show_edge=False, pad_edge=False)
    table.add_column("")
    for side in reports:
        table.add_column(side, justify="right")
    rows = [_rows(report) for report in reports.values()]
    for label in max(rows, key=len):
        table.add_row(label, *(row.get(label, "-") for row in rows))
    return table


def _rows(report: dict[str, Any]) -> dict[str, str]:
    inbound, frames, delay = report["inbound"], report["frames"], report["delay_ms"]
    expected = inbound["packetsReceived"] + inbound["packetsLost"]
    markers, deadline = delay["markers"], report["deadline"]
    sent = report["bitrate_bps"]["sent"]
    played = frames["total"] - frames["silence"]
    rows = {
        "packets sent": f"{report['outbound']['packetsSent']}",
        "packets lost on the way here": _share(inbound["packetsLost"], expected),
        "frames played": f"{played}",
        "  out of their own packet": _share(frames["packet"], played),
        "  rebuilt from LBRR": _share(frames["lbrr"], played),
        "  rebuilt from DRED": _share(frames["dred"], played),
        "  concealed": _share(frames["plc"], played),
        "mouth to ear, p50 / p95": f"{delay['p50']:.1f} / {delay['p95']:.1f} ms"
        if delay["frames"]
        else "unknown",
        "  by markers in the sound": f"{markers['p50']:.1f} ms ({markers['heard']} heard)"
        if markers["heard"]
        else "none heard",
        "bitrate sent, Opus + DRED": f"{sent['opus'] / 1e3:.1f} + {sent['dred'] / 1e3:.1f} kb/s"
        if sent
        else "-",
        "deadlines missed": f"{deadline['missed']} of {deadline['total']}",
    }
    if deadline["missed"]:
        rows["  the machine stood still in"] = f"{deadline['machine_stalls']}"
    return rows


def _share(part: int, total: int) -> str:
    return f"{part} ({100 * part / max(1, total):.1f} %)"
