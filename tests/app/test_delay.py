"""The account of delays: what goes in as a delay comes out as one."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.delay import BIN, DelayAccount, DurationHistogram, FrameTiming, Stage

LOOKAHEAD = 104


def timing(
    number: int,
    *,
    network: float = 0.030,
    wait: float = 0.042,
    encode: float = 0.001,
    captured: bool = True,
    sent: bool = True,
    own_packet: bool = True,
) -> FrameTiming:
    """Frame `number` of a call, played `wait` seconds after its packet arrived."""
    captured_at = 100.0 + 0.02 * number
    sent_at = captured_at + 0.020 + encode
    arrival = sent_at + network
    return FrameTiming(
        playout_at=arrival + wait,
        captured_at=captured_at if captured else None,
        sent_at=sent_at if sent else None,
        arrival=arrival if own_packet else None,
        decode_seconds=0.002,
        output_latency=0.010,
    )


def test_an_imposed_delay_is_the_delay_reported() -> None:
    account = DelayAccount(LOOKAHEAD)
    account.clock_uncertainty = 0.0003
    for number in range(50):
        account.add(timing(number))
    summary = account.summary()
    imposed = 0.020 + 0.0065 + 0.001 + 0.030 + 0.042
    for figure in (summary.mean, summary.p50, summary.p95, summary.max):
        assert figure == pytest.approx(imposed, abs=1e-6)
    assert summary.frames == 50
    assert str(summary) == "99.5 ms (p95 99.5, max 99.5) ± 0.3 ms"


def test_the_stages_are_told_apart_and_add_up_to_the_total() -> None:
    account = DelayAccount(LOOKAHEAD)
    for number in range(50):
        account.add(timing(number, network=0.030 + 0.001 * (number % 5)))
    summary = account.summary()
    expected = {
        Stage.FRAMING: 0.020,
        Stage.LOOKAHEAD: 0.0065,
        Stage.ENCODE: 0.001,
        Stage.NETWORK: 0.032,
        Stage.JITTER_BUFFER: 0.030,
        Stage.DECODE: 0.002,
        Stage.DEVICE: 0.010,
    }
    assert summary.breakdown == pytest.approx(expected, abs=1e-9)
    assert sum(expected.values()) == pytest.approx(summary.mean, abs=1e-9)


def test_without_the_instant_of_sending_the_encoder_counts_as_network() -> None:
    account = DelayAccount(LOOKAHEAD)
    account.add(timing(0, sent=False))
    assert account.mean(Stage.ENCODE) is None
    assert account.mean(Stage.NETWORK) == pytest.approx(0.031, abs=1e-9)


def test_without_related_clocks_only_the_stages_on_our_side_are_known() -> None:
    account = DelayAccount(LOOKAHEAD)
    assert account.add(timing(0, captured=False)) is None
    summary = account.summary()
    assert summary.p50 is None
    assert summary.uncertainty is None
    assert summary.breakdown[Stage.NETWORK] is None
    assert summary.breakdown[Stage.JITTER_BUFFER] == pytest.approx(0.030, abs=1e-9)
    assert str(summary) == "unknown"


def test_stages_still_add_up_when_the_clocks_get_related_late_and_waver() -> None:
    account = DelayAccount(LOOKAHEAD)
    for number in range(10):
        account.add(timing(number, wait=0.2, captured=False))
    for number in range(10, 30):
        account.add(timing(number, captured=number % 4 != 0))
    summary = account.summary()
    assert sum(mean for mean in summary.breakdown.values() if mean is not None) == pytest.approx(
        summary.mean, abs=1e-9
    )


def test_a_rebuilt_frame_has_a_total_but_no_stages() -> None:
    account = DelayAccount(LOOKAHEAD)
    account.add(timing(0))
    account.add(timing(1, wait=0.142, own_packet=False))
    summary = account.summary()
    assert summary.frames == 2
    assert summary.max == pytest.approx(0.1995, abs=1e-6)
    assert summary.breakdown[Stage.JITTER_BUFFER] == pytest.approx(0.030, abs=1e-9)
    assert account.last == pytest.approx(0.1995, abs=1e-9)


@given(
    st.lists(st.floats(0.0, 4.99), min_size=1, max_size=300),
    st.sampled_from([0.0, 1.0, 50.0, 95.0, 99.0, 99.9, 100.0]),
)
def test_a_percentile_is_off_by_one_bin_at_most(durations: list[float], percent: float) -> None:
    histogram = DurationHistogram()
    for duration in durations:
        histogram.add(duration)
    rank = max(1, math.ceil(percent / 100.0 * len(durations)))
    found = histogram.percentile(percent)
    assert found is not None
    assert abs(found - sorted(durations)[rank - 1]) <= BIN + 1e-12


def test_percentiles_of_a_long_call_agree_with_numpy() -> None:
    durations = 0.1 + np.random.default_rng(7).gamma(2.0, 0.02, 20_000)
    histogram = DurationHistogram()
    for duration in durations:
        histogram.add(float(duration))
    for percent in (50, 95, 99):
        assert histogram.percentile(percent) == pytest.approx(
            np.percentile(durations, percent), abs=2 * BIN
        )
    assert histogram.max == durations.max()
    assert histogram.mean == pytest.approx(durations.mean(), abs=1e-9)


def test_negative_and_endless_delays_are_counted_at_the_ends() -> None:
    histogram = DurationHistogram()
    for duration in (-0.003, 0.1, 60.0):
        histogram.add(duration)
    assert histogram.count == 3
    assert histogram.min == -0.003
    assert histogram.max == 60.0
    assert histogram.percentile(50) == pytest.approx(0.1, abs=BIN)
    assert histogram.percentile(0) == pytest.approx(0.0, abs=BIN)


def test_an_empty_histogram_knows_nothing() -> None:
    histogram = DurationHistogram()
    assert histogram.percentile(50) is None
    assert histogram.mean is None


@pytest.mark.parametrize("percent", [-1.0, 100.5, math.nan])
def test_a_percentile_outside_0_to_100_is_refused(percent: float) -> None:
    with pytest.raises(ValueError, match=r"not in 0\.\.100"):
        DurationHistogram().percentile(percent)
