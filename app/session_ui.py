"""A call as its user meets it: what is printed before, while and after it lasts."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from rich.console import Console
from rich.table import Table

from app import client
from app.audio import AudioError, Device
from app.call import Call, CallEnd
from app.call_report import report, snapshot
from app.liveview import LiveView
from app.net.errors import CallError
from app.options import CallOptions, UsageError
from app.report import CallReport
from app.timeline import write_timeline

STDOUT = "-"


async def call(
    options: CallOptions, *, host: str, port: int, json_to: str | None, quiet: bool
) -> int:
    """Places one call; exit status."""
    check_json(json_to)
    client.check(options)
    screen = _Screen("call", quiet)
    screen.say(f"calling {host} port {port}")
    done, end = await client.call(options, host, port, screen.show)
    return screen.finish(done, end, json_to)


async def listen(
    options: CallOptions,
    *,
    host: str | None,
    port: int,
    keep: bool,
    json_to: str | None,
    quiet: bool,
) -> int:
    """Takes one call, or with `keep` one after another until interrupted; exit status."""
    check_json(json_to)
    client.check(options)
    screen = _Screen("listen", quiet)
    listener = client.Listener(options, host, port, screen.show)
    bound = await listener.start()
    screen.say(f"listening on port {bound} of {host or 'every interface'}")
    number = 1
    status = 0
    try:
        while True:
            try:
                done, end = await listener.next_call()
            except (AudioError, CallError) as error:
                if not keep:
                    raise
                screen.say(str(error))
                continue
            status = screen.finish(done, end, numbered_name(json_to, number))
            number += 1
            if not keep:
                return status
            listener.options = numbered(options, number)
    except asyncio.CancelledError:
        if number == 1:
            raise  # nobody has called
        return status
    finally:
        await listener.close()


class _Screen:
    """stderr for people, stdout for the report: a table, or JSON if asked for."""

    def __init__(self, side: str, quiet: bool) -> None:
        self._side = side
        self._quiet = quiet
        self._console = Console(stderr=True)
        self._peer = ""
        self._view: LiveView | None = None

    def say(self, text: str) -> None:
        """One line that a program may wait for, so it is printed even when quiet."""
        print(f"dredcall: {text}", file=sys.stderr, flush=True)

    def show(self, running: Call) -> None:
        """A call begins: Ctrl-C now hangs up, and the view opens."""
        _on_interrupt(running.hang_up)
        self._peer = f"{running.remote.address} port {running.remote.port}"
        if not self._quiet:
            self._view = LiveView(lambda: snapshot(running, self._peer), self._console)
            self._view.start()

    def finish(self, done: Call, end: CallEnd, json_to: str | None) -> int:
        """The call is over: prints what became of it; exit status."""
        if self._view:
            self._view.stop()
            self._view = None
        task = asyncio.current_task()
        if task:
            _on_interrupt(task.cancel)
        self.say(str(end))
        if done.output_error:
            self.say(done.output_error)
        if done.timeline and done.options.timeline:
            title = f"{self._side}, {self._peer}, {done.options.recovery}"
            write_timeline(done.options.timeline, done.timeline, title)
        result = report(done, end, side=self._side, peer=self._peer, control=done.control)
        if json_to is not None:
            write_json(result, json_to)
        elif not self._quiet:
            print_table(result.table())
        return 0 if end.ending.orderly and not done.output_error else 1


def _on_interrupt(handler: Callable[[], object]) -> None:
    """What Ctrl-C and SIGTERM do from now on."""
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        with contextlib.suppress(NotImplementedError):  # no such thing on Windows
            loop.add_signal_handler(number, handler)


def write_json(result: CallReport, to: str) -> None:
    """One line on stdout, or a file."""
    if to == STDOUT:
        print(result.to_json(), flush=True)
        return
    try:
        Path(to).write_text(result.to_json(indent=2) + "\n")
    except OSError as error:
        # the report must not be lost with the file it was meant for
        print(result.to_json(), flush=True)
        raise UsageError(f"--json: {to}: {error.strerror}") from None


def check_json(to: str | None) -> None:
    """Before the call, not after it."""
    if to is None or to == STDOUT:
        return
    try:
        Path(to).touch()
    except OSError as error:
        raise UsageError(f"--json: {to}: {error.strerror}") from None


def numbered(options: CallOptions, number: int) -> CallOptions:
    """For the `number`th call, 1 the first: the same with files of its own."""
    return replace(
        options,
        record=_numbered_path(options.record, number),
        ledger=_numbered_path(options.ledger, number),
        pcap=_numbered_path(options.pcap, number),
        record_arrivals=_numbered_path(options.record_arrivals, number),
        timeline=_numbered_path(options.timeline, number),
    )


def numbered_name(name: str | None, number: int) -> str | None:
    """As `numbered`, of one name; stdout stays stdout."""
    if name is None or name == STDOUT:
        return name
    return str(_numbered_path(Path(name), number))


def _numbered_path(path: Path | None, number: int) -> Path | None:
    if path is None or number == 1:
        return path
    return path.with_stem(f"{path.stem}-{number}")


def device_table(devices: Sequence[Device]) -> Table:
    table = Table(show_edge=False, pad_edge=False)
    for heading in ("number", "name", "inputs", "outputs", "rate"):
        table.add_column(heading, justify="left" if heading == "name" else "right")
    for device in devices:
        table.add_row(
            str(device.number),
            device.name,
            str(device.inputs),
            str(device.outputs),
            f"{device.rate:g} Hz",
        )
    return table


def print_table(table: Table) -> None:
    """On stdout, as wide as it needs to be when that is no terminal."""
    console = Console()
    if not console.is_terminal:
        console = Console(width=120)
    console.print(table)
