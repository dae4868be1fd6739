"""The report says what it was given, and its JSON is what docs/json.md promises."""

import io
import json
import math
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from app.delay import DelayAccount, FrameTiming
from app.report import (
    Bitrate,
    CallReport,
    DeadlineReport,
    DredUse,
    InboundStats,
    MarkerReport,
    OutboundStats,
    ProcessReport,
    RemoteStats,
    summary_table,
)
from codec.frame import FrameSource

DOCS = Path(__file__).parents[2] / "docs" / "json.md"
TYPES: dict[str, tuple[type, ...]] = {
    "string": (str,),
    "integer": (int,),
    "number": (int, float),
    "object": (dict,),
    "boolean": (bool,),
}


def documented() -> dict[str, tuple[str, bool]]:
    """Dotted key -> (type, may be null), out of the tables of docs/json.md."""
    row = re.compile(r"^\| `([\w.]+)` \| (\w+)( or null)? \|", re.M)
    return {key: (kind, bool(null)) for key, kind, null in row.findall(DOCS.read_text())}


def flattened(node: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in node.items():
        yield prefix + key, value
        if isinstance(value, dict):
            yield from flattened(value, f"{prefix}{key}.")


def violations(report: dict[str, Any]) -> list[str]:
    """Where a report departs from the documentation."""
    schema, found = documented(), []
    present = dict(flattened(report))
    for key, value in present.items():
        kind, nullable = schema.get(key, ("", False))
        if not kind and isinstance(value, dict) and any(k.startswith(f"{key}.") for k in schema):
            continue  # a heading of the documentation
        if not kind:
            found.append(f"{key} is not documented")
        elif value is None:
            if not nullable:
                found.append(f"{key} is null")
        elif not isinstance(value, TYPES[kind]) or isinstance(value, bool) != (kind == "boolean"):
            found.append(f"{key} is {value!r}, not {kind}")
    for key in schema:
        parent = key.rpartition(".")[0]
        if key not in present and (not parent or isinstance(present.get(parent), dict)):
            found.append(f"{key} is missing")
    return found


def full_report() -> CallReport:
    account = DelayAccount(lookahead_samples=104)
    account.clock_uncertainty = 0.0003
    for number in range(100):
        at = 50.0 + 0.02 * number
        account.add(
            FrameTiming(
                playout_at=at + 0.100,
                captured_at=at,
                sent_at=at + 0.021,
                arrival=at + 0.061,
                decode_seconds=0.001,
                output_latency=0.008,
            )
        )
    return CallReport(
        side="call",
        peer="192.0.2.7:5004",
        codec="Opus 16 kHz",
        recovery="lbrr+dred",
        buffer="balanced, 30 to 400 ms",
        duration=12.34,
        ended="duration reached",
        seed=7,
        netem="loss gemodel 5% 30% delay 40ms",
        loss_trace="office.txt",
        inbound=InboundStats(packetsReceived=480, packetsLost=120, jitter=0.0021),
        outbound=OutboundStats(
            packetsSent=600,
            bytesSent=40_000,
            targetBitrate=24_000.0,
            remote=RemoteStats(
                packetsLost=3,
                fractionLost=0.004,
                jitter=0.001,
                roundTripTime=0.0421,
                totalRoundTripTime=0.0421,
                roundTripTimeMeasurements=1,
            ),
        ),
        frames={FrameSource.PACKET: 480, FrameSource.DRED: 90, FrameSource.PLC: 30},
        sent_bitrate=Bitrate(23_456.0, 12_300.0),
        received_bitrate=Bitrate(23_400.0, 12_200.0),
        delay=account.summary(),
        markers=MarkerReport.of([0.1065, 0.1066, 0.1068]),
        deadline=DeadlineReport(600, 2, 3.5, 1.2, 4.5, 9.0, 23.5, 2.4, 10.0, 1),
        dred=DredUse(480, 480, 90, 480.0, "nothing to complain of"),
        process=ProcessReport(7.5, 1.5, 80.0, 81.0, realtime=True),
        version="1.2.3",
    )


def rendered(reports: list[CallReport], width: int = 100) -> str:
    console = Console(file=io.StringIO(), width=width, color_system=None)
    console.print(summary_table(reports))
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_every_key_of_a_full_report_is_documented_and_of_the_documented_type() -> None:
    report = json.loads(full_report().to_json())
    assert len(documented()) > 80
    assert violations(report) == []
    assert [key for key, value in flattened(report) if value is None] == []


def test_a_report_of_a_call_in_which_nothing_happened_has_the_same_shape() -> None:
    assert violations(json.loads(CallReport(side="listen").to_json())) == []


def test_the_checker_itself_sees_what_is_wrong() -> None:
    report = full_report().as_dict()
    report["frames"]["total"] = "600"
    report["inbound"]["packetsLots"] = 1
    report["deadline"]["missed"] = None
    del report["delay_ms"]["p95"]
    assert sorted(violations(report)) == [
        "deadline.missed is null",
        "delay_ms.p95 is missing",
        "frames.total is '600', not integer",
        "inbound.packetsLots is not documented",
    ]


def test_an_imposed_delay_reaches_the_json_in_milliseconds() -> None:
    delay = full_report().as_dict()["delay_ms"]
    for figure in ("p50", "p95", "p99", "max", "mean"):
        assert delay[figure] == pytest.approx(106.5, abs=1e-3)
    assert delay["uncertainty"] == pytest.approx(0.3)
    assert delay["breakdown"] == pytest.approx(
        {
            "framing": 20.0,
            "lookahead": 6.5,
            "encode": 1.0,
            "network": 40.0,
            "jitter_buffer": 30.0,
            "decode": 1.0,
            "device": 8.0,
        },
        abs=1e-3,
    )
    assert delay["markers"] == pytest.approx(
        {"heard": 3, "p50": 106.6, "p95": 106.78, "max": 106.8}, abs=1e-3
    )


def test_frames_count_up_to_their_total() -> None:
    frames = full_report().as_dict()["frames"]
    expected = {"packet": 480, "red": 0, "lbrr": 0, "dred": 90, "plc": 30, "silence": 0}
    assert frames == {"total": 600} | expected


def test_a_side_that_sent_nothing_reports_the_bitrate_it_received() -> None:
    report = replace(full_report(), sent_bitrate=None)
    assert report.as_dict()["bitrate_bps"]["opus"] == 23_400.0
    assert full_report().as_dict()["bitrate_bps"]["opus"] == 23_456.0


def test_infinite_figures_become_null_rather_than_broken_json() -> None:
    report = replace(full_report(), duration=math.inf)
    assert json.loads(report.to_json())["duration_s"] is None


def test_the_table_tells_losses_recovery_delay_and_deadlines() -> None:
    text = rendered([full_report()])
    for words in (
        "120 (20.0 %)",
        "90 (15.0 %)",
        "106.5 ms (p95 106.5, max 106.5) ± 0.3 ms",
        "2 (0.3 %), worst by 3.5 ms, 1 with the whole machine",
        "23.5 kb/s Opus + 12.3 kb/s DRED",
        "106.6 ms",
        "7.5 % of a core, real-time priority",
    ):
        assert words in text
    assert "lbrr " not in text


def test_the_table_puts_two_sides_beside_each_other() -> None:
    other = replace(full_report(), side="listen", delay=None, deadline=DeadlineReport())
    text = rendered([full_report(), other])
    header = next(line for line in text.splitlines() if "call" in line)
    assert "listen" in header
    (delay,) = (line for line in text.splitlines() if "mouth to ear" in line)
    assert delay.split()[-1] == "-"


def test_an_address_in_brackets_is_printed_as_it_is() -> None:
    assert "[fe80::1]:5004" in rendered([replace(full_report(), peer="[fe80::1]:5004")])


@pytest.mark.parametrize("width", [30, 60, 200])
def test_the_table_fits_terminals_of_any_width(width: int) -> None:
    lines = rendered([full_report(), replace(full_report(), side="listen")], width).splitlines()
    assert max(len(line) for line in lines) <= width
