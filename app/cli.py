"""The command line: `dredcall listen`, `call`, `simulate`, `evaluate`, `demo`, `bench`, ..."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import logging
import signal
import sys
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn

from app.net import DEFAULT_PORT
from app.options import CallOptions, Impairment, Recovery, UsageError, parse_buffer
from app.report import installed_version
from jitterbuffer.latency import Latency, LatencyPolicy

OK, FAILED, BAD_USAGE = 0, 1, 2

DEFAULTS = CallOptions()

IDEAL = "ideal"
"""The buffer of a simulation in which no packet comes too late."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command; the exit status is 0 done, 2 bad usage or input, 1 anything else."""
    logging.basicConfig(level=logging.WARNING, format="dredcall: %(message)s")
    try:
        parsed = _parser().parse_args(arguments)
        run: Callable[[argparse.Namespace], int] = parsed.run
        return run(parsed)
    except _input_errors() as error:
        return _complain(error, BAD_USAGE)
    except _call_errors() as error:
        return _complain(error, FAILED)
    except KeyboardInterrupt:
        return FAILED
    except BrokenPipeError:
        # whoever read our output has left; there is nobody to tell
        sys.stderr.close()
        return FAILED


def _input_errors() -> tuple[type[Exception], ...]:
    from app.arrivals import ArrivalsError
    from app.audio import AudioError
    from app.bench import BenchError
    from app.netem import NetemError

    return UsageError, ArrivalsError, AudioError, BenchError, NetemError


def _call_errors() -> tuple[type[Exception], ...]:
    from app.net.errors import CallError
    from codec.dred_model import DredModelError
    from codec.feature_predictor import PredictorError
    from codec.lpcnet import LpcNetError
    from codec.opus import OpusError

    return CallError, OpusError, DredModelError, PredictorError, LpcNetError


def _complain(error: Exception, status: int) -> int:
    print(f"dredcall: {error}", file=sys.stderr)
    return status


class _Parser(argparse.ArgumentParser):
    """argparse in one line: the usage is a `--help` away."""

    def error(self, message: str) -> NoReturn:
        self.exit(BAD_USAGE, f"dredcall: {message}\n")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="dredcall",
        description="A two-party voice client that survives heavy packet loss.",
    )
    parser.add_argument("--version", action="version", version=installed_version())
    commands = parser.add_subparsers(metavar="COMMAND", required=True)

    listen = commands.add_parser("listen", help="wait for a call")
    listen.add_argument(
        "--host", help="address to listen on (default: every interface of this machine)"
    )
    listen.add_argument(
        "--port",
        type=_port,
        default=DEFAULT_PORT,
        help="TCP port for calls; 0 takes a free one (default: %(default)s)",
    )
    listen.add_argument(
        "--keep",
        action="store_true",
        help="take call after call; recordings and other files of later calls are numbered",
    )
    _add_call_options(listen)
    listen.set_defaults(run=_listen)

    call = commands.add_parser("call", help="call someone who listens")
    call.add_argument("peer", metavar="HOST[:PORT]", help="for example 192.168.1.20 or [::1]:8600")
    _add_call_options(call)
    call.set_defaults(run=_call)

    simulate = commands.add_parser(
        "simulate", help="what a call would make of a file, without waiting for it"
    )
    _add_simulate_options(simulate)
    simulate.set_defaults(run=_simulate)

    demo = commands.add_parser(
        "demo", help="two endpoints on this machine, real speech, a bad network; ends by itself"
    )
    demo.add_argument(
        "--out", type=Path, default=Path("demo"), help="folder for what it writes (default: demo)"
    )
    demo.add_argument("--seconds", type=float, default=15.0, help="length (default: %(default)g)")
    demo.add_argument("--netem", metavar="SPEC", help="another network, see `call --help`")
    demo.add_argument(
        "--seed", type=int, default=1, help="of the network's misfortunes (default: %(default)d)"
    )
    demo.add_argument("--json", metavar="FILE", help="write both sides' reports; - for stdout")
    demo.set_defaults(run=_demo)

    evaluate = commands.add_parser(
        "evaluate", help="measure every means of recovery on the same speech and losses"
    )
    _add_evaluate_options(evaluate)
    evaluate.set_defaults(run=_evaluate)

    bench = commands.add_parser("bench", help="what every stage costs on this machine")
    bench.add_argument(
        "--clip", type=Path, metavar="FILE", help="speech to work on (default: a bundled clip)"
    )
    bench.add_argument(
        "--stage",
        action="append",
        default=[],
        metavar="NAME",
        help="only stages whose name begins so, for example lpcnet; may be repeated",
    )
    bench.add_argument(
        "--tight",
        type=_seconds,
        default=1.0,
        metavar="S",
        help="seconds in a tight loop per stage and signal, 0 to skip (default: %(default)g)",
    )
    bench.add_argument(
        "--paced",
        type=_seconds,
        default=10.0,
        metavar="S",
        help="seconds at the pace of a call per round, 0 to skip (default: %(default)g)",
    )
    bench.add_argument(
        "--json", nargs="?", const="-", metavar="FILE", help="write JSON (default: to stdout)"
    )
    bench.set_defaults(run=_bench)

    devices = commands.add_parser("devices", help="list audio devices")
    devices.set_defaults(run=_devices)
    return parser


def _add_call_options(parser: argparse.ArgumentParser) -> None:
    from app.audio.specs import SINK_SYNTAX, SOURCE_SYNTAX

    audio = parser.add_argument_group("audio")
    audio.add_argument(
        "--source",
        default="device",
        metavar="SPEC",
        help=f"what to send: {SOURCE_SYNTAX} (default: the standard microphone)",
    )
    audio.add_argument("--loop", action="store_true", help="repeat a source file for ever")
    audio.add_argument(
        "--sink",
        default="device",
        metavar="SPEC",
        help=f"where to play: {SINK_SYNTAX} (default: the standard speaker)",
    )
    audio.add_argument(
        "--record",
        type=Path,
        metavar="FILE",
        help="record what is heard: .wav, .opus or .ogg",
    )

    _add_coding_options(parser)

    network = parser.add_argument_group("network")
    for suffix, way in (("", "sent"), ("-in", "received")):
        network.add_argument(
            f"--netem{suffix}",
            metavar="SPEC",
            help=f"impair what is {way}, in the words of tc-netem: "
            "'delay 40ms 10ms distribution normal loss gemodel 5%% 40%%'",
        )
        network.add_argument(
            f"--loss-trace{suffix}",
            type=Path,
            metavar="FILE",
            help=f"lose {way} packets by a recording: one 0 or 1 (lost) per packet",
        )
    network.add_argument(
        "--seed",
        type=int,
        default=DEFAULTS.seed,
        help="of the impairment: the same seed, the same losses (default: %(default)d)",
    )
    network.add_argument(
        "--timeout",
        type=float,
        default=DEFAULTS.timeout,
        metavar="S",
        help="give up after so many seconds without the peer, 1-3600 (default: %(default)g)",
    )
    network.add_argument("--duration", type=float, metavar="S", help="hang up after S seconds")

    output = parser.add_argument_group("measuring and output")
    output.add_argument(
        "--probe",
        action="store_true",
        help="mix a chirp a second into what is sent and look for the peer's: delay by ear; "
        "both sides need it",
    )
    output.add_argument(
        "--json",
        nargs="?",
        const="-",
        metavar="FILE",
        help="write a report as one JSON object when the call is over (default: to stdout)",
    )
    _add_frame_outputs(output)
    output.add_argument(
        "--record-arrivals",
        type=Path,
        metavar="FILE",
        help="write when each packet came, for `simulate --trace-arrivals`",
    )
    output.add_argument("--pcap", type=Path, metavar="FILE", help="capture the call's datagrams")
    output.add_argument("--quiet", action="store_true", help="no live view, no table")
    output.add_argument(
        "--libopus", type=Path, metavar="FILE", help="use this libopus instead of the one found"
    )


def _add_coding_options(parser: argparse.ArgumentParser, *, simulated: bool = False) -> None:
    """Of calls, real or simulated."""
    coding = parser.add_argument_group("coding and recovery")
    coding.add_argument(
        "--bitrate",
        type=int,
        default=DEFAULTS.bitrate,
        metavar="BPS",
        help="of Opus, 6000-510000 bits/s (default: %(default)d); lower it on a narrow link",
    )
    coding.add_argument(
        "--complexity",
        type=int,
        default=DEFAULTS.complexity,
        metavar="N",
        help="of the Opus encoder, 0-10 (default: %(default)d); lower it on a slow machine",
    )
    coding.add_argument(
        "--recovery",
        type=Recovery,
        choices=list(Recovery),
        default=DEFAULTS.recovery,
        help="what lost frames are rebuilt from, neural concealment filling the rest "
        "(default: %(default)s); plc: nothing; opus-plc: nothing, and libopus conceals",
    )
    coding.add_argument(
        "--dred-ms",
        type=int,
        metavar="MS",
        help="fix how far back DRED reaches, 0-1000 (default: by the peer's loss reports)",
    )
    coding.add_argument(
        "--red-copies",
        type=int,
        default=DEFAULTS.red_copies,
        metavar="N",
        help="with --recovery red, packets that repeat each one, 1-2 (default: %(default)s)",
    )
    coding.add_argument(
        "--expected-loss",
        type=int,
        metavar="PERCENT",
        help="fix the loss the encoder prepares for, 0-100 (default: what the peer reports)",
    )
    coding.add_argument(
        "--buffer",
        default="adaptive",
        metavar=f"adaptive|fixed:MS{'|ideal' if simulated else ''}",
        help="how long packets wait: as the network asks for, or 0-2000 ms (default: %(default)s)"
        + ("; ideal: the packet after a hole is always there in time" if simulated else ""),
    )
    coding.add_argument(
        "--latency",
        type=Latency,
        choices=list(Latency),
        default=DEFAULTS.latency,
        help="what an adaptive buffer waits to have one frame in a hundred more: "
        f"{_by_latency('worth')} ms (default: %(default)s); low for quick answers, robust to miss "
        "nothing",
    )
    coding.add_argument(
        "--min-delay",
        type=float,
        metavar="MS",
        help=f"an adaptive buffer waits no less (default: {_by_latency('min_delay')}); raise it "
        "when the network's spikes are known",
    )
    coding.add_argument(
        "--max-delay",
        type=float,
        metavar="MS",
        help=f"an adaptive buffer waits no more, up to 2000 (default: {_by_latency('max_delay')}); "
        "lower it for a hard limit",
    )


def _by_latency(number: str) -> str:
    """What the policies say, in ms: "low 20, balanced 30, robust 60"."""
    policies = {latency: LatencyPolicy.of(latency) for latency in Latency}
    return ", ".join(
        f"{name} {1e3 * getattr(policy, number):g}" for name, policy in policies.items()
    )


def _add_simulate_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("input", type=Path, metavar="IN", help="speech, any format FFmpeg reads")
    parser.add_argument("output", type=Path, metavar="OUT.wav", help="what is heard")
    parser.add_argument(
        "--align",
        action="store_true",
        help="write what was heard for each sample of IN at its place: as long as IN, no delay",
    )
    _add_coding_options(parser, simulated=True)

    network = parser.add_argument_group("network")
    network.add_argument(
        "--netem",
        metavar="SPEC",
        help="impair the way there and back, in the words of tc-netem: "
        "'delay 40ms 10ms distribution normal loss gemodel 5%% 40%%'",
    )
    network.add_argument(
        "--loss-trace",
        type=Path,
        metavar="FILE",
        help="lose packets by a recording: one 0 or 1 (lost) per packet",
    )
    network.add_argument(
        "--trace-arrivals",
        type=Path,
        metavar="FILE",
        help="let packets arrive as `call --record-arrivals` has seen it, instead",
    )
    network.add_argument(
        "--drift",
        type=float,
        default=0.0,
        metavar="PPM",
        help="let the sender's sound card run so much faster, in parts per million",
    )
    network.add_argument(
        "--seed",
        type=int,
        default=DEFAULTS.seed,
        help="of every random draw (default: %(default)d)",
    )

    output = parser.add_argument_group("output")
    output.add_argument(
        "--json", nargs="?", const="-", metavar="FILE", help="write a report (default: to stdout)"
    )
    _add_frame_outputs(output)
    output.add_argument("--quiet", action="store_true", help="no table")
    output.add_argument(
        "--libopus", type=Path, metavar="FILE", help="use this libopus instead of the one found"
    )


def _add_frame_outputs(output: argparse._ArgumentGroup) -> None:
    """What is told of every single frame."""
    output.add_argument(
        "--ledger", type=Path, metavar="FILE", help="write a line of CSV per frame played"
    )
    output.add_argument(
        "--timeline",
        type=Path,
        metavar="FILE",
        help="draw when packets came and frames were played, and from what: .png or .html",
    )


def _add_evaluate_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--clips",
        type=Path,
        nargs="+",
        metavar="PATH",
        help="speech, files and folders (default: two short clips of the package); CLIP.txt "
        "beside CLIP.flac says what is said in it, for word error rates",
    )
    parser.add_argument(
        "--every", type=int, default=1, metavar="K", help="take every K-th clip (default: all)"
    )
    parser.add_argument(
        "--traces",
        nargs="+",
        metavar="SPEC",
        help="folders of loss traces by class, trace files, recorded arrivals (.csv) or netem "
        "specs (default: a few traces of the package)",
    )
    parser.add_argument(
        "--conditions",
        nargs="+",
        default=[],
        metavar="NAME",
        help="none, opus-plc, plc, lbrr, red, red2, dred, lbrr+dred (default: all of these), each "
        "with settings if wished: dred:dred-ms=400, lbrr:bitrate=32000, red:red-copies=2",
    )
    parser.add_argument(
        "--buffers",
        default="ideal,balanced",
        metavar="LIST",
        help="of ideal, low, balanced, robust, fixed:MS (default: %(default)s); traces that every "
        "clip meets are played with the first only",
    )
    parser.add_argument(
        "--metrics",
        default="plcmos,dnsmos,pesq,estoi",
        metavar="LIST",
        help="of plcmos, dnsmos, pesq, stoi, estoi (default: %(default)s); dnsmos takes longest",
    )
    parser.add_argument(
        "--peers",
        type=Path,
        nargs="+",
        default=[],
        metavar="CSV",
        help="others' results on the same clips and traces, to be set beside ours",
    )
    parser.add_argument(
        "--seed", type=int, default=0, help="of netem's misfortunes (default: %(default)d)"
    )
    parser.add_argument(
        "--jobs", type=int, metavar="N", help="processes (default: as many as processors)"
    )
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("evaluation"),
        metavar="DIR",
        help="folder for rows, tables and report; what is in it is not measured again (default: "
        "%(default)s)",
    )
    parser.add_argument("--quiet", action="store_true", help="no progress, no table")


def _impairment(netem: str | None, trace: Path | None) -> Impairment:
    from app.netem import parse_netem

    return Impairment(parse_netem(netem) if netem is not None else None, trace)


def _coding_options(parsed: argparse.Namespace, buffer_ms: float | None) -> CallOptions:
    """What calls, real or simulated, have in common."""
    return CallOptions(
        bitrate=parsed.bitrate,
        complexity=parsed.complexity,
        expected_loss=parsed.expected_loss,
        recovery=parsed.recovery,
        dred_ms=parsed.dred_ms,
        red_copies=parsed.red_copies,
        buffer_ms=buffer_ms,
        latency=parsed.latency,
        min_delay_ms=parsed.min_delay,
        max_delay_ms=parsed.max_delay,
        outbound=_impairment(parsed.netem, parsed.loss_trace),
        seed=parsed.seed,
        libopus=parsed.libopus,
    )


def _options(parsed: argparse.Namespace) -> CallOptions:
    return replace(
        _coding_options(parsed, parse_buffer(parsed.buffer)),
        source=parsed.source,
        loop=parsed.loop,
        sink=parsed.sink,
        record=parsed.record,
        ledger=parsed.ledger,
        pcap=parsed.pcap,
        record_arrivals=parsed.record_arrivals,
        timeline=parsed.timeline,
        inbound=_impairment(parsed.netem_in, parsed.loss_trace_in),
        probe=parsed.probe,
        duration=parsed.duration,
        timeout=parsed.timeout,
    )


def _listen(parsed: argparse.Namespace) -> int:
    from app.session_ui import listen

    options = _options(parsed)
    return _run(
        listen(
            options,
            host=parsed.host,
            port=parsed.port,
            keep=parsed.keep,
            json_to=parsed.json,
            quiet=parsed.quiet,
        )
    )


def _call(parsed: argparse.Namespace) -> int:
    from app.session_ui import call

    options = _options(parsed)
    host, port = parse_peer(parsed.peer)
    return _run(call(options, host=host, port=port, json_to=parsed.json, quiet=parsed.quiet))


def _simulate(parsed: argparse.Namespace) -> int:
    from app.arrivals import load_arrivals
    from app.simulate import SimulateOutputs, run_simulate
    from app.simulation import SimulationOptions

    ideal = parsed.buffer == IDEAL
    call = _coding_options(parsed, parse_buffer("fixed:0" if ideal else parsed.buffer))
    arrivals = load_arrivals(parsed.trace_arrivals) if parsed.trace_arrivals else None
    return run_simulate(
        parsed.input,
        SimulationOptions(call, ideal=ideal, arrivals=arrivals, drift_ppm=parsed.drift),
        SimulateOutputs(
            parsed.output,
            parsed.align,
            parsed.json,
            ledger=parsed.ledger,
            timeline=parsed.timeline,
            quiet=parsed.quiet,
        ),
    )


def _demo(parsed: argparse.Namespace) -> int:
    from app.demo import run_demo

    return run_demo(
        parsed.out,
        seconds=parsed.seconds,
        netem=parsed.netem,
        seed=parsed.seed,
        json_to=parsed.json,
    )


def _evaluate(parsed: argparse.Namespace) -> int:
    from app.evaluation.bundled import bundled_clips, bundled_networks
    from app.evaluation.conditions import parse_conditions
    from app.evaluation.evaluate import evaluate, print_result
    from app.evaluation.networks import Networks
    from app.evaluation.peers import read_peer
    from app.evaluation.run import Evaluation, clips_in

    for flag, value in (("--every", parsed.every), ("--jobs", parsed.jobs)):
        if value is not None and value < 1:
            raise UsageError(f"{flag}: {value} is not 1 or more")
    evaluation = Evaluation(
        clips_in(parsed.clips, parsed.every) if parsed.clips else bundled_clips()[:: parsed.every],
        Networks(parsed.traces) if parsed.traces else bundled_networks(),
        parse_conditions(parsed.conditions),
        parsed.buffers.split(","),
        parsed.metrics.split(","),
        parsed.seed,
    )
    peers = [read_peer(path) for path in parsed.peers]
    try:
        result = evaluate(evaluation, parsed.out, peers=peers, jobs=parsed.jobs, quiet=parsed.quiet)
    except KeyboardInterrupt:
        print("dredcall: interrupted; the same command goes on from here", file=sys.stderr)
        return FAILED
    if not parsed.quiet:
        print_result(evaluation, result, parsed.out)
    return OK


def _bench(parsed: argparse.Namespace) -> int:
    from app.bench import CLIP, bench_table, run_bench
    from app.session_ui import STDOUT, check_json, print_table

    check_json(parsed.json)
    report = run_bench(
        clip=parsed.clip or CLIP,
        stages=parsed.stage,
        tight_seconds=parsed.tight,
        paced_seconds=parsed.paced,
        realtime=True,
        progress=lambda text: print(f"dredcall: {text}", file=sys.stderr),
    )
    if parsed.json is None:
        print_table(bench_table(report))
    elif parsed.json == STDOUT:
        print(json.dumps(report))
    else:
        Path(parsed.json).write_text(json.dumps(report, indent=2) + "\n")
    return OK


def _devices(parsed: argparse.Namespace) -> int:
    from app.audio import list_devices
    from app.session_ui import device_table, print_table

    print_table(device_table(list_devices()))
    return OK


def _run(work: Coroutine[Any, Any, int]) -> int:
    """Runs a coroutine that Ctrl-C or SIGTERM cancels, unless it handles them itself."""

    async def supervised() -> int:
        task = asyncio.ensure_future(work)
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            with contextlib.suppress(NotImplementedError):  # no such thing on Windows
                loop.add_signal_handler(number, task.cancel)
        try:
            return await task
        except asyncio.CancelledError:
            print("dredcall: cancelled", file=sys.stderr)
            return FAILED

    return asyncio.run(supervised())


def parse_peer(text: str) -> tuple[str, int]:
    """HOST, HOST:PORT, [IPV6] or [IPV6]:PORT. Raises UsageError that names what is wrong."""
    host, port = text, ""
    if text.startswith("["):
        host, bracket, rest = text[1:].partition("]")
        if not bracket or (rest and not rest.startswith(":")):
            raise UsageError(f"'{text}' is not HOST[:PORT]: no closing bracket before the port")
        port = rest[1:]
        has_port = bool(rest)
    elif text.count(":") == 1:
        host, _, port = text.partition(":")
        has_port = True
    else:
        has_port = False
    if not host or any(c.isspace() or c in "/@?#" for c in host):
        raise UsageError(f"'{text}' is not HOST[:PORT]: '{host}' is no host")
    if not has_port:
        return host, DEFAULT_PORT
    try:
        number = _port(port)
    except argparse.ArgumentTypeError as error:
        raise UsageError(f"'{text}' is not HOST[:PORT]: {error}") from None
    if number == 0:
        raise UsageError(f"'{text}' is not HOST[:PORT]: nobody can be called on port 0")
    return host, number


def _seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if 0 <= value <= 600:
        return value
    raise argparse.ArgumentTypeError(f"'{text}' is not 0-600 seconds")


def _port(text: str) -> int:
    if text.isascii() and text.isdigit() and int(text) < 65536:
        return int(text)
    raise argparse.ArgumentTypeError(f"'{text}' is not a port number, 0-65535")
