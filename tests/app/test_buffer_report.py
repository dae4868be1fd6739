"""The comparison of jitter buffers counts frames as they were heard."""

from __future__ import annotations

from pathlib import Path

import pytest
from matplotlib.image import imread

from app.buffer_report import (
    FREEZE_SECONDS,
    Heard,
    Point,
    buffers,
    draw_rebuilt,
    networks,
    rebuilt_share,
    under,
)
from app.netem import LossTrace
from app.options import CallOptions
from app.simulation import SimulationOptions, simulate
from codec import FRAME_SECONDS
from tests.app.calls import MAN, clip

SAID = clip(MAN)[:32_000]


def test_shares_are_of_what_was_said() -> None:
    trace = LossTrace([n in (40, 60, 61, 62) for n in range(200)])
    call = CallOptions(buffer_ms=50, expected_loss=20, dred_ms=1000)
    result = simulate(SAID, SimulationOptions(call, loss_trace=trace))
    heard = Heard.of(result, len(SAID))
    # the last of a hole comes from LBRR, the one before it from DRED; the rest is over by then
    assert rebuilt_share(result, trace, len(SAID)) == pytest.approx(3 / 4)
    assert heard.from_packets == pytest.approx(96 / 100)
    assert heard.rebuilt == pytest.approx(3 / 100)
    assert heard.concealed == pytest.approx(1 / 100)


def test_every_buffer_stands_at_the_end_of_every_network() -> None:
    for _, network in networks(30.0):
        for buffer in buffers((60.0,)):
            options = under(network, buffer)
            assert options.call.outbound == network.call.outbound
            assert options.call.target_delay == buffer.options.target_delay
            assert (options.arrivals, options.drift_ppm) == (network.arrivals, network.drift_ppm)


def test_a_network_that_stands_still_lets_go_of_everything_at_once() -> None:
    arrivals = next(network.arrivals for _, network in networks(30.0) if network.arrivals)
    came = [n * FRAME_SECONDS + arrivals[n][0] for n in range(1000)]
    assert came[:500] == pytest.approx([n * FRAME_SECONDS for n in range(500)])
    assert came[500:601] == pytest.approx([10.0 + FREEZE_SECONDS] * 101)
    assert came[601:] == pytest.approx([n * FRAME_SECONDS for n in range(601, 1000)])


def test_the_curve_is_drawn(tmp_path: Path) -> None:
    path = tmp_path / "rebuilt.png"
    draw_rebuilt(path, [Point("low", 70, 75), Point("fixed:40", 67, 60), Point("fixed:60", 87, 77)])
    assert imread(path).shape[:2] == (550, 900)
