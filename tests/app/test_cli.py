"""What the user types: wrong input gets one line that names it, and the right exit status."""

from __future__ import annotations

import http.server
import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from app.cli import BAD_USAGE, FAILED, OK, _coding_options, _options, _parser, main, parse_peer
from app.options import CallOptions, UsageError
from tests.app.calls import LOOPBACK, MAN, PATIENCE, ROOT

CALL = ("call", f"{LOOPBACK}:1", "--source", "tone", "--sink", "null")
LISTEN = ("listen", "--host", LOOPBACK, "--port", "0", "--source", "tone", "--sink", "null")


def complaint(
    capsys: pytest.CaptureFixture[str], arguments: list[str], status: int = BAD_USAGE
) -> str:
    """The only line that the program says before it ends with `status`."""
    try:
        ended: object = main(arguments)
    except SystemExit as leaving:
        ended = leaving.code
    said = capsys.readouterr()
    assert ended == status, said
    assert said.out == ""
    lines = said.err.splitlines()
    if lines and lines[0].startswith("dredcall: calling"):
        del lines[0]
    assert len(lines) == 1, lines
    assert lines[0].startswith("dredcall: ")
    return lines[0]


def test_what_is_not_said_is_as_the_options_have_it() -> None:
    parsed = _parser().parse_args(["call", "somewhere"])
    assert _options(parsed) == CallOptions()
    parsed = _parser().parse_args(["simulate", "in.wav", "out.wav"])
    assert _coding_options(parsed, None) == CallOptions()


@pytest.mark.parametrize(
    ("flags", "named"),
    [
        (["--bitrate", "fast"], "fast"),
        (["--bitrate", "5999"], "--bitrate: 5999"),
        (["--complexity", "11"], "--complexity: 11"),
        (["--complexity", "high"], "high"),
        (["--recovery", "magic"], "magic"),
        (["--dred-ms", "1001"], "--dred-ms: 1001"),
        (["--dred-ms", "some"], "some"),
        (["--expected-loss", "101"], "--expected-loss: 101"),
        (["--expected-loss", "often"], "often"),
        (["--buffer", "30"], "--buffer: '30' is neither adaptive nor fixed:MS"),
        (["--buffer", "fixed:short"], "--buffer: 'fixed:short'"),
        (["--buffer", "fixed:2001"], "--buffer: 2001"),
        (["--buffer", "fixed:nan"], "--buffer: nan"),
        (["--netem", "delay soon"], "soon"),
        (["--netem", "loss 101%"], "101"),
        (["--netem-in", "slow"], "slow"),
        (["--loss-trace", "no/such/trace"], "no/such/trace"),
        (["--loss-trace-in", "no/such/trace"], "no/such/trace"),
        (["--loss-trace", str(MAN)], "expected 0 or 1"),
        (["--seed", "lucky"], "lucky"),
        (["--timeout", "0"], "--timeout: 0"),
        (["--timeout", "nan"], "--timeout: nan"),
        (["--timeout", "long"], "long"),
        (["--duration", "0"], "--duration: 0"),
        (["--duration", "inf"], "--duration: inf"),
        (["--duration", "long"], "long"),
        (["--source", "no-such-file.wav"], "no-such-file.wav"),
        (["--source", "noise"], "noise"),
        (["--source", "tone:high"], "high"),
        (["--source", __file__], "not an audio file"),
        (["--source", str(ROOT)], str(ROOT)),
        (["--source", "device:"], "'device:'"),
        (["--sink", "no-such-sink"], "no-such-sink"),
        (["--sink", "device:"], "'device:'"),
        (["--record", "sound.mp3"], "--record: sound.mp3"),
        (["--record", "no/such/folder/sound.wav"], "no/such/folder"),
        (["--record", str(ROOT)], str(ROOT)),
        (["--ledger", "no/such/folder/frames.csv"], "--ledger"),
        (["--ledger", str(ROOT)], "--ledger"),
        (["--pcap", "no/such/folder/call.pcap"], "--pcap"),
        (["--record-arrivals", "no/such/folder/arrivals.csv"], "--record-arrivals"),
        (["--timeline", "no/such/folder/line.png"], "--timeline"),
        (["--timeline", "line.svg"], "line.svg"),
        (["--pcap", str(ROOT)], "--pcap"),
        (["--min-delay", "50", "--max-delay", "20"], "--min-delay 50 is more than --max-delay 20"),
        (["--max-delay", "9000"], "--max-delay: 9000"),
        (["--buffer", "fixed:30", "--min-delay", "20"], "--min-delay 20"),
        (["--latency", "none"], "--latency"),
        (["--json", "no/such/folder/report.json"], "--json"),
        (["--libopus", "no/such/libopus.so"], "no/such/libopus.so"),
        (["--libopus", __file__], "--libopus"),
        (["--no-such-flag"], "--no-such-flag"),
        (["--bitrate"], "--bitrate"),
    ],
    ids=lambda value: " ".join(value)[:40] if isinstance(value, list) else "",
)
def test_a_wrong_setting_is_named_in_one_line(
    flags: list[str], named: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert named in complaint(capsys, [*CALL, *flags])


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ([], "COMMAND"),
        (["ring"], "ring"),
        (["call"], "HOST"),
        (["call", "host:port", *CALL[2:]], "port"),
        (["call", "", *CALL[2:]], "HOST"),
        (["call", "127.0.0.1:0", *CALL[2:]], "port 0"),
        (["call", "[::1", *CALL[2:]], "bracket"),
        (["call", "127.0.0.1:65536", *CALL[2:]], "65536"),
        (["call", "http://127.0.0.1/", *CALL[2:]], "http"),
        (["listen", "--port", "x"], "'x'"),
        (["listen", "--port", "-1"], "-1"),
        (["demo", "--seconds", "1"], "--seconds: 1"),
        (["demo", "--seconds", "nan"], "nan"),
        (["demo", "--netem", "loss often"], "often"),
        (["demo", "--out", __file__], "--out"),
        (["demo", "--json", "no/such/folder/x.json"], "--json"),
        (["bench", "--stage", "no-such-stage"], "no-such-stage"),
        (["bench", "--tight", "-1"], "-1"),
        (["devices", "loud"], "loud"),
    ],
    ids=lambda value: " ".join(value)[:40] if isinstance(value, list) else "",
)
def test_a_wrong_command_is_named_in_one_line(
    arguments: list[str],
    named: str,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert named in complaint(capsys, arguments)
    assert not any(path.is_file() for path in tmp_path.rglob("*"))


@pytest.mark.skipif(os.name == "posix" and os.geteuid() == 0, reason="root may write anywhere")
def test_a_file_that_must_not_be_written_is_named(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    kept = tmp_path / "kept.wav"
    kept.write_bytes(b"")
    kept.chmod(0o400)
    assert str(kept) in complaint(capsys, [*CALL, "--record", str(kept)])


@contextmanager
def tcp_port() -> Iterator[int]:
    """That somebody else listens on."""
    with socket.socket() as taken:
        taken.bind((LOOPBACK, 0))
        taken.listen()
        yield taken.getsockname()[1]


def test_a_tcp_port_in_use_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    with tcp_port() as port:
        line = complaint(capsys, [*LISTEN, "--port", str(port)], FAILED)
    assert line == f"dredcall: TCP port {port} of {LOOPBACK} is already in use"


def test_an_address_of_another_machine_cannot_be_listened_on(
    capsys: pytest.CaptureFixture[str],
) -> None:
    line = complaint(capsys, [*LISTEN, "--host", "192.0.2.1"], FAILED)
    assert "192.0.2.1" in line
    assert "not an address of this machine" in line


def test_a_host_that_does_not_exist_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    line = complaint(capsys, ["call", "no-such-host.invalid", *CALL[2:]], FAILED)
    assert line == "dredcall: no-such-host.invalid: unknown host"


def test_a_host_where_nobody_listens_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    with tcp_port() as port:
        pass
    line = complaint(capsys, ["call", f"{LOOPBACK}:{port}", *CALL[2:]], FAILED)
    assert line == f"dredcall: {LOOPBACK} port {port}: connection refused; is it listening?"


def test_a_web_server_is_not_taken_for_an_endpoint(capsys: pytest.CaptureFixture[str]) -> None:
    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, format: str, *arguments: object) -> None:
            """Nothing."""

    with http.server.ThreadingHTTPServer((LOOPBACK, 0), Quiet) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            port = server.server_address[1]
            line = complaint(capsys, ["call", f"{LOOPBACK}:{port}", *CALL[2:]], FAILED)
        finally:
            server.shutdown()
            thread.join()
    assert f"{LOOPBACK} port {port} is not a dredcall endpoint" in line


@pytest.mark.parametrize("greeting", [b"SSH-2.0-Somebody\r\n", b"", b"HTTP/1.1 201 \xff\r\n\r\n"])
def test_something_else_than_a_web_server_is_not_either(
    greeting: bytes, capsys: pytest.CaptureFixture[str]
) -> None:
    with socket.socket() as server:
        server.bind((LOOPBACK, 0))
        server.listen()
        port = server.getsockname()[1]

        def greet() -> None:
            for _ in range(2):  # the caller finds its address by a connection of its own
                connection, _ = server.accept()
                with connection:
                    connection.sendall(greeting)
                    connection.settimeout(1)
                    with suppress(ConnectionError):
                        connection.recv(4096)

        thread = threading.Thread(target=greet)
        thread.start()
        line = complaint(capsys, ["call", f"{LOOPBACK}:{port}", *CALL[2:]], FAILED)
        thread.join()
    assert f"{LOOPBACK} port {port}" in line


def test_peers_are_named_in_all_customary_ways() -> None:
    assert parse_peer("192.0.2.1") == ("192.0.2.1", 8600)
    assert parse_peer("there.example:9000") == ("there.example", 9000)
    assert parse_peer("[2001:db8::1]:9000") == ("2001:db8::1", 9000)
    assert parse_peer("2001:db8::1") == ("2001:db8::1", 8600)
    for text in ("", ":8600", "[::1]8600", "a b", "host:99999", "user@host"):
        with pytest.raises(UsageError, match="is not HOST"):
            parse_peer(text)


def test_nothing_is_overwritten_by_a_call_that_is_not_placed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    kept = {tmp_path / f"kept.{suffix}": suffix.encode() for suffix in ("wav", "csv", "pcap")}
    flags = []
    for flag, path in zip(("--record", "--ledger", "--pcap"), kept, strict=True):
        path.write_bytes(kept[path])
        flags += [flag, str(path)]
    complaint(capsys, [*CALL, *flags, "--bitrate", "1"])
    complaint(capsys, [*CALL, *flags], FAILED)
    assert {path: path.read_bytes() for path in kept} == kept


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "app", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=PATIENCE)


def test_the_program_itself_ends_with_status_2_and_one_line() -> None:
    done = run(*CALL, "--netem", "delay soon")
    assert (done.returncode, done.stdout) == (BAD_USAGE, "")
    assert len(done.stderr.splitlines()) == 1
    assert "soon" in done.stderr


def test_help_tells_every_flag_and_ends_with_status_0(capsys: pytest.CaptureFixture[str]) -> None:
    for command in ("listen", "call", "demo", "devices", "bench"):
        with pytest.raises(SystemExit) as leaving:
            main([command, "--help"])
        assert leaving.value.code == OK
        assert command in capsys.readouterr().out


def test_devices_are_listed_or_their_absence_is_explained(
    capsys: pytest.CaptureFixture[str],
) -> None:
    status = main(["devices"])
    said = capsys.readouterr()
    if status == OK:
        assert {"number", "name", "inputs", "outputs"} <= set(said.out.split())
    else:
        assert status == BAD_USAGE
        assert "PortAudio" in said.err


def test_a_report_that_cannot_be_written_goes_to_stdout(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from app.report import CallReport
    from app.session_ui import write_json

    with pytest.raises(UsageError, match="--json"):
        write_json(CallReport(side="call"), str(tmp_path / "gone" / "report.json"))
    assert json.loads(capsys.readouterr().out)["side"] == "call"
