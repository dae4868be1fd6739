from __future__ import annotations

import pickle
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.net.bursts import GMIN, MEMORY, REORDER_WINDOW, BurstMeter, BurstMetrics

ENDLESS = 1e9
"""Packets: nothing is forgotten."""


def measured(arrived: str, *, memory: float = ENDLESS) -> BurstMetrics:
    """Metrics of a stream drawn as `.` for a received packet and `x` for a lost one."""
    meter = BurstMeter(memory)
    for sequence, outcome in enumerate(arrived + "." * REORDER_WINDOW):
        if outcome == ".":
            meter.update(sequence)
    metrics = meter.metrics()
    assert metrics is not None
    return metrics


def by_definition(arrived: str) -> BurstMetrics:
    """RFC 3611 section 4.7.2, by looking at the whole stream at once."""
    clusters: list[list[int]] = []
    for position, outcome in enumerate(arrived):
        if outcome == "x":
            if clusters and position - clusters[-1][-1] - 1 < GMIN:
                clusters[-1].append(position)
            else:
                clusters.append([position])
    bursts = [cluster for cluster in clusters if len(cluster) > 1]
    lengths = [burst[-1] - burst[0] + 1 for burst in bursts]
    edges = [-1, *(edge for burst in bursts for edge in (burst[0], burst[-1])), len(arrived)]
    gaps = [end - begin - 1 for begin, end in zip(edges[::2], edges[1::2], strict=True)]
    gaps = [gap for gap in gaps if gap]
    lost, lost_in_bursts = arrived.count("x"), sum(map(len, bursts))
    return BurstMetrics(
        loss_rate=lost / len(arrived),
        burst_density=lost_in_bursts / sum(lengths) if bursts else 0.0,
        gap_density=(lost - lost_in_bursts) / sum(gaps) if gaps else 0.0,
        burst_ms=20 * sum(lengths) / len(lengths) if bursts else 0.0,
        gap_ms=20 * sum(gaps) / len(gaps) if gaps else 0.0,
    )


def assert_close(ours: BurstMetrics, theirs: BurstMetrics) -> None:
    for name in ("loss_rate", "burst_density", "gap_density", "burst_ms", "gap_ms"):
        assert getattr(ours, name) == pytest.approx(getattr(theirs, name), rel=1e-4, abs=1e-6), name


def test_without_loss_there_is_one_gap_and_no_burst() -> None:
    assert_close(measured("." * 100), BurstMetrics(0, 0, 0, 0, 2000))


def test_lone_losses_belong_to_the_gap() -> None:
    spaced = ("." * GMIN + "x") * 3 + "." * GMIN

    assert_close(measured(spaced), BurstMetrics(3 / 67, 0, 3 / 67, 0, 67 * 20))


def test_a_burst_ends_when_sixteen_packets_arrive_in_a_row() -> None:
    together = measured("." * 40 + "xx" + "." * 15 + "xx" + "." * 40)
    apart = measured("." * 40 + "xx" + "." * 16 + "xx" + "." * 40)

    assert [together.burst_ms, together.gap_ms] == pytest.approx([380, 800])
    assert together.burst_density == pytest.approx(4 / 19)
    assert [apart.burst_ms, apart.gap_ms] == pytest.approx([40, 640])
    assert apart.burst_density == pytest.approx(1)


def test_a_burst_is_reported_while_it_goes_on() -> None:
    assert measured("." * 40 + "x" * 10 + ".").burst_ms == pytest.approx(200)


@given(st.text(".x", min_size=1, max_size=300))
def test_the_running_tally_agrees_with_the_definition(arrived: str) -> None:
    # the first packet that comes is where the stream begins
    assert_close(measured("." + arrived), by_definition("." + arrived))


@given(st.integers(0, 2**32), st.integers(1, 40))
def test_streams_with_long_gaps_agree_with_the_definition_too(seed: int, rarity: int) -> None:
    rng = Random(seed)
    arrived = "." + "".join("x" if rng.random() < 1 / rarity else "." for _ in range(400))

    assert_close(measured(arrived), by_definition(arrived))


@given(st.permutations(range(40)))
def test_order_within_the_window_and_duplicates_make_no_difference(order: list[int]) -> None:
    shuffled, straight = BurstMeter(), BurstMeter()
    lost = {12, 13, 14, 20}
    # each number is put off by at most the window, so none counts as lost
    late = sorted(range(40), key=lambda number: (number // (REORDER_WINDOW - 1), order[number]))
    for meter, numbers in ((shuffled, late), (straight, list(range(40)))):
        for number in (-1, *numbers, *range(40, 60)):
            if number not in lost:
                meter.update(number)
                meter.update(number)
    assert shuffled.metrics() == straight.metrics()


def test_a_packet_overtaken_by_as_many_as_the_window_is_lost() -> None:
    meter = BurstMeter(ENDLESS)
    for sequence in [*range(10), *range(11, 11 + REORDER_WINDOW), 10, *range(19, 60)]:
        meter.update(sequence)
    metrics = meter.metrics()

    assert metrics
    assert metrics.loss_rate > 0


def test_nothing_is_reported_before_a_packet_is_decided() -> None:
    meter = BurstMeter()
    assert meter.metrics() is None
    for sequence in range(REORDER_WINDOW):
        meter.update(sequence)
    assert meter.metrics() is None
    meter.update(REORDER_WINDOW)
    assert meter.metrics() is not None


def test_a_stream_without_loss_takes_no_more_memory_the_longer_it_lasts() -> None:
    meter = BurstMeter()
    for sequence in range(1000):
        meter.update(sequence)
    size = len(pickle.dumps(meter))
    for sequence in range(1000, 5000):
        meter.update(sequence)
    assert len(pickle.dumps(meter)) == pytest.approx(size, abs=8)


def test_reporting_changes_nothing() -> None:
    asked, left_alone = BurstMeter(), BurstMeter()
    rng = Random(4)
    for sequence in range(500):
        if rng.random() > 0.2:
            asked.update(sequence)
            asked.metrics()
            left_alone.update(sequence)
    assert asked.metrics() == left_alone.metrics()


def test_what_was_long_ago_is_forgotten() -> None:
    bad = ("x" * 10 + "." * 40) * 20
    soon = measured(bad + "." * MEMORY, memory=MEMORY)
    later = measured(bad + "." * 6 * MEMORY, memory=MEMORY)

    assert measured(bad, memory=MEMORY).loss_rate == pytest.approx(0.2, abs=0.02)
    assert 0.05 < soon.loss_rate < 0.1
    assert soon.burst_ms == pytest.approx(200)
    assert later.loss_rate < 0.005
    assert (later.burst_ms, later.burst_density) == (0, 0)


def test_a_network_that_changes_is_followed() -> None:
    short, long = ("xx" + "." * 48) * 40, ("x" * 15 + "." * 48) * 20

    assert measured(short, memory=MEMORY).burst_ms == pytest.approx(40)
    assert measured(short + long, memory=MEMORY).burst_ms > 250


def test_a_restart_of_the_sender_is_no_loss() -> None:
    meter = BurstMeter()
    for sequence in (*range(100), *range(30_000, 30_100)):
        if sequence == 30_000:
            meter.restart()
        meter.update(sequence)
    metrics = meter.metrics()

    assert metrics
    assert metrics.loss_rate == 0


@settings(deadline=None)
@given(st.lists(st.integers(-4000, 4000), max_size=200))
def test_any_numbers_give_metrics_within_their_ranges(steps: list[int]) -> None:
    meter, sequence = BurstMeter(), 0
    for step in steps:
        sequence += step
        meter.update(sequence)
        metrics = meter.metrics()
        if metrics:
            assert 0 <= metrics.loss_rate <= 1
            assert 0 <= metrics.burst_density <= 1
            assert 0 <= metrics.gap_density <= 1
            assert metrics.burst_ms >= 0
            assert metrics.gap_ms >= 0
