from __future__ import annotations

from collections.abc import Iterator
from itertools import islice, pairwise
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.net.bursts import BurstMeter, BurstMetrics
from app.redundancy import Redundancy, RedundancyPolicy, dred_bits, mean_run_ms

CLEAN = BurstMetrics(0.0, 0.0, 0.0, 0.0, 60_000.0)
PACKETS_PER_REPORT = 50


def burst(ms: float, density: float = 1.0, loss: float = 0.1) -> BurstMetrics:
    return BurstMetrics(loss, density, 0.0, ms, 2000.0)


def gilbert(loss: float, mean_run: float, rng: Random) -> Iterator[bool]:
    """Whether each packet arrives; runs of loss end with probability 1 / mean_run."""
    end = 1 / mean_run
    begin = loss * end / (1 - loss)
    bad = False
    while True:
        bad = rng.random() >= end if bad else rng.random() < begin
        yield not bad


def clean() -> Iterator[bool]:
    while True:
        yield True


class Link:
    """What the receiver of a stream would report, once a second."""

    def __init__(self) -> None:
        self._meter = BurstMeter()
        self._sequence = 0

    def reports(
        self, arrivals: Iterator[bool], seconds: int
    ) -> Iterator[tuple[float, BurstMetrics | None]]:
        for _ in range(seconds):
            lost = 0
            for arrived in islice(arrivals, PACKETS_PER_REPORT):
                self._sequence += 1
                if arrived:
                    self._meter.update(self._sequence)
                lost += not arrived
            yield lost / PACKETS_PER_REPORT, self._meter.metrics()


def settings_over(
    policy: RedundancyPolicy, link: Link, arrivals: Iterator[bool], seconds: int
) -> list[Redundancy]:
    return [policy.update(*report) for report in link.reports(arrivals, seconds)]


def dred(
    *,
    dred_ms: int | None = None,
    max_dred_ms: int = 1000,
    max_dred_bitrate: int = 32_000,
    total_bitrate: int | None = None,
    expected_loss: int | None = None,
) -> RedundancyPolicy:
    return RedundancyPolicy(
        bitrate=24_000,
        dred=True,
        dred_ms=dred_ms,
        max_dred_ms=max_dred_ms,
        max_dred_bitrate=max_dred_bitrate,
        total_bitrate=total_bitrate,
        expected_loss=expected_loss,
    )


# The shape of loss


def test_a_burst_that_is_one_run_is_as_long_as_it_lasts() -> None:
    assert mean_run_ms(burst(300)) == pytest.approx(300, rel=1e-4)
    assert mean_run_ms(burst(300, density=255 / 256)) == pytest.approx(300, rel=0.02)


def test_lone_losses_are_runs_of_one_packet() -> None:
    assert mean_run_ms(BurstMetrics(0.02, 0.0, 0.02, 0.0, 10_000.0)) == 20
    assert mean_run_ms(CLEAN) == 0


@pytest.mark.parametrize("loss", [0.05, 0.1, 0.2, 0.3, 0.4])
def test_loss_without_a_pattern_is_not_taken_for_long_runs(loss: float) -> None:
    """At 30 % the RFC's bursts last for twenty seconds, its runs of lost packets 29 ms."""
    rng = Random(1)
    meter = BurstMeter()
    for sequence in range(20_000):
        if rng.random() > loss:
            meter.update(sequence)
    metrics = meter.metrics()

    assert metrics is not None
    assert mean_run_ms(metrics) == pytest.approx(20 / (1 - loss), rel=0.25)


@pytest.mark.parametrize("loss", [0.05, 0.1, 0.2, 0.3])
@pytest.mark.parametrize("run", [3.3, 5.0, 10.0])
def test_the_mean_run_of_a_bursty_network_is_found(loss: float, run: float) -> None:
    meter = BurstMeter(memory=20_000)
    for sequence, arrived in enumerate(islice(gilbert(loss, run, Random(2)), 60_000)):
        if arrived:
            meter.update(sequence)
    metrics = meter.metrics()

    assert metrics is not None
    assert mean_run_ms(metrics) == pytest.approx(20 * run, rel=0.2)


@given(st.builds(BurstMetrics, *[st.floats(0, 1)] * 3, *[st.floats(0, 65535)] * 2))
def test_a_run_is_no_longer_than_what_was_lost_of_its_burst(metrics: BurstMetrics) -> None:
    assert 0 <= mean_run_ms(metrics) <= max(20, metrics.burst_density * metrics.burst_ms * 1.001)


# Clean, bursty, clean


def test_a_call_begins_with_redundancy_and_a_clean_network_ends_it() -> None:
    policy = dred()
    assert policy.current == Redundancy(10, False, 400, 39, 24_000)

    over = settings_over(policy, Link(), clean(), 40)

    assert all(setting.dred_ms > 0 for setting in over[:10])
    assert over[-1] == Redundancy(0, False, 0, 0, 24_000)


def test_the_first_report_of_a_burst_after_peace_brings_redundancy_back() -> None:
    policy, link = dred(), Link()
    settings_over(policy, link, clean(), 60)

    (setting,) = settings_over(policy, link, iter([True] * 20 + [False] * 12 + [True] * 18), 1)

    assert setting.dred_ms >= 560
    assert setting.expected_loss_percent == 12


def test_redundancy_follows_the_network_from_clean_to_bursty_and_back() -> None:
    policy, link = dred(), Link()
    settings_over(policy, link, clean(), 60)

    bursty = settings_over(policy, link, gilbert(0.15, 8.0, Random(3)), 60)
    steady = bursty[10:]
    assert all(setting.dred_ms >= 360 for setting in steady)
    assert all(setting.expected_loss_percent >= 5 for setting in steady)

    peace = settings_over(policy, link, clean(), 90)
    assert all(setting.dred_ms > 0 for setting in peace[:10])
    on = [setting.dred_ms > 0 for setting in peace]
    assert on == sorted(on, reverse=True)
    assert peace[-1].dred_ms == 0


def test_longer_bursts_get_more_span() -> None:
    reached = []
    for run in (1.5, 5.0, 10.0, 25.0):
        policy = dred()
        over = settings_over(policy, Link(), gilbert(0.15, run, Random(5)), 120)
        reached.append(sorted(setting.dred_ms for setting in over[60:])[30])

    assert reached == sorted(reached)
    assert reached[0] <= 240
    assert reached[-1] == 1000


@pytest.mark.parametrize("run", [3.3, 5.0, 10.0])
def test_ninety_five_percent_of_the_bursts_are_within_reach(run: float) -> None:
    policy, link, rng = dred(), Link(), Random(6)
    within = total = 0
    run_now = 0
    reach = policy.current.dred_ms
    arrivals = gilbert(0.15, run, rng)
    for _ in range(600):
        second = list(islice(arrivals, PACKETS_PER_REPORT))
        for arrived in second:
            if not arrived:
                run_now += 1
            elif run_now:
                total += 1
                within += 20 * run_now <= reach
                run_now = 0
        (setting,) = settings_over(policy, link, iter(second), 1)
        reach = setting.dred_ms

    assert within / total > 0.95


def test_a_steady_network_is_met_by_steady_settings() -> None:
    policy = dred()
    over = settings_over(policy, Link(), gilbert(0.15, 5.0, Random(7)), 300)[60:]
    shorter = sum(b.dred_ms < a.dred_ms for a, b in pairwise(over))

    assert all(setting.dred_ms for setting in over)
    assert shorter < 240 / 8
    assert all(a.dred_ms - b.dred_ms >= 80 for a, b in pairwise(over) if b.dred_ms < a.dred_ms)


def test_loss_near_the_threshold_does_not_switch_redundancy_back_and_forth() -> None:
    policy = dred()
    settings_over(policy, Link(), clean(), 60)
    on = [policy.update(0.02 * (i % 2), CLEAN).dred_ms > 0 for i in range(200)]

    assert sum(a != b for a, b in pairwise(on)) <= 1


def test_a_lone_packet_lost_now_and_then_costs_nothing() -> None:
    policy = dred()
    for _ in range(60):
        policy.update(0.0, CLEAN)
    lone = BurstMetrics(0.002, 0.0, 0.002, 0.0, 30_000.0)

    assert [policy.update(0.02 * (i % 10 == 0), lone).dred_ms for i in range(50)] == [0] * 50


def test_a_peer_that_does_not_tell_of_bursts_gets_a_middling_span() -> None:
    policy = dred()

    assert {policy.update(0.1).dred_ms for _ in range(50)} == {400}


# Bytes and bits


def test_bytes_grow_with_the_span_and_a_second_takes_at_most_eighty() -> None:
    sizes = [dred(dred_ms=ms).current.dred_bytes for ms in range(80, 1001, 40)]

    assert sizes == sorted(set(sizes))
    assert 60 < sizes[-1] <= 80
    assert dred_bits(sizes[-1]) <= 32_000


def test_a_narrow_allowance_makes_redundancy_coarser_first_and_then_shorter() -> None:
    wide, narrow, narrowest = (
        dred(max_dred_bitrate=rate).update(0.2, burst(600)) for rate in (32_000, 20_000, 12_000)
    )

    assert (wide.dred_ms, narrow.dred_ms) == (1000, 1000)
    assert wide.dred_bytes > narrow.dred_bytes
    assert 80 <= narrowest.dred_ms < 600
    for setting, rate in ((wide, 32_000), (narrow, 20_000), (narrowest, 12_000)):
        assert dred_bits(setting.dred_bytes) <= rate


def test_speech_gives_way_only_when_the_coarsest_redundancy_does_not_fit_beside_it() -> None:
    enough, tight, tighter = (
        dred(total_bitrate=total).update(0.2, burst(600)) for total in (60_000, 46_000, 36_000)
    )

    assert (enough.opus_bitrate, tight.opus_bitrate) == (24_000, 24_000)
    assert enough.dred_bytes > tight.dred_bytes > tighter.dred_bytes
    assert enough.dred_ms == tight.dred_ms == 1000
    assert 16_000 <= tighter.opus_bitrate < 24_000


@given(
    st.integers(6_000, 64_000),
    st.integers(0, 64_000),
    st.none() | st.integers(6_000, 128_000),
    st.sampled_from([0, 40, 80, 320, 1000]),
    st.lists(
        st.tuples(
            st.floats(0, 1),
            st.none() | st.builds(BurstMetrics, *[st.floats(0, 1)] * 3, *[st.floats(0, 65535)] * 2),
        ),
        max_size=20,
    ),
)
def test_no_report_leads_beyond_what_is_allowed(
    bitrate: int,
    allowance: int,
    total: int | None,
    longest: int,
    reports: list[tuple[float, BurstMetrics | None]],
) -> None:
    policy = RedundancyPolicy(
        bitrate=bitrate,
        lbrr=True,
        dred=True,
        max_dred_ms=longest,
        max_dred_bitrate=allowance,
        total_bitrate=total,
    )
    for report in reports:
        setting = policy.update(*report)
        assert 0 <= setting.expected_loss_percent <= 50
        assert setting.dred_ms <= longest
        assert setting.dred_ms % 40 == 0
        assert (setting.dred_ms > 0) == (setting.dred_bytes > 0)
        assert setting.dred_bytes <= 80
        assert dred_bits(setting.dred_bytes) <= allowance
        assert min(bitrate, 16_000) <= setting.opus_bitrate <= bitrate
        if total is not None and total >= bitrate:
            assert setting.opus_bitrate + dred_bits(setting.dred_bytes) <= total


# Fixed settings


def test_a_fixed_span_stands_whatever_is_reported() -> None:
    policy = dred(dred_ms=300)
    before = policy.current
    reports = [(0.0, CLEAN)] * 60 + [(0.5, burst(900))] * 10

    assert before.dred_ms == 300
    assert {policy.update(*report).dred_ms for report in reports} == {300}
    assert policy.current.dred_bytes == before.dred_bytes


def test_a_fixed_span_of_nothing_means_no_dred() -> None:
    policy = RedundancyPolicy(bitrate=24_000, lbrr=True, dred=True, dred_ms=0)
    setting = policy.update(0.5, burst(900))

    assert (setting.dred_ms, setting.dred_bytes, setting.lbrr) == (0, 0, True)


def test_a_fixed_expectation_of_loss_stands_and_bursts_still_choose_the_span() -> None:
    policy = RedundancyPolicy(bitrate=24_000, dred=True, expected_loss=20)
    over = [policy.update(0.0, CLEAN) for _ in range(60)]

    assert {setting.expected_loss_percent for setting in over} == {20}
    assert 200 <= over[-1].dred_ms <= 240
    assert policy.update(0.0, burst(400)).dred_ms == 920


@pytest.mark.parametrize(
    "settings", [{"dred_ms": 1001}, {"dred_ms": -1}, {"max_dred_ms": 2000}, {"expected_loss": 101}]
)
def test_settings_out_of_range_are_refused(settings: dict[str, int]) -> None:
    with pytest.raises(ValueError, match=str(next(iter(settings.values())))):
        dred(**settings)


# LBRR


def test_without_dred_lbrr_stays_on_with_its_floor() -> None:
    policy = RedundancyPolicy(bitrate=24_000, lbrr=True)
    assert policy.current == Redundancy(10, True, 0, 0, 24_000)

    assert policy.update(0.3, burst(400)) == Redundancy(20, True, 0, 0, 24_000)
    over = [policy.update(0.0, CLEAN) for _ in range(60)]
    assert over[-1] == Redundancy(5, True, 0, 0, 24_000)


def test_expected_loss_is_quick_up_and_slow_down() -> None:
    policy = RedundancyPolicy(bitrate=24_000)
    policy.update(0.5)
    risen = policy.update(0.5).expected_loss_percent
    fallen = policy.update(0.0).expected_loss_percent

    assert (risen, fallen) == (40, 36)
    assert all(policy.update(1.0).expected_loss_percent <= 50 for _ in range(20))


def test_beside_dred_lbrr_rests_on_a_clean_network_and_has_its_floor_otherwise() -> None:
    policy = RedundancyPolicy(bitrate=24_000, lbrr=True, dred=True)
    over = [policy.update(0.0, CLEAN) for _ in range(60)]

    assert all(s.expected_loss_percent >= 5 for s in over if s.lbrr)
    assert all(s.lbrr == (s.dred_ms > 0) for s in over)
    assert over[-1] == Redundancy(0, False, 0, 0, 24_000)
    assert policy.update(0.04, burst(40, loss=0.004)).lbrr


def test_copies_are_sent_while_there_is_loss() -> None:
    policy = RedundancyPolicy(bitrate=24_000, red_copies=2)
    assert policy.current == Redundancy(10, False, 0, 0, 24_000, 2)
    over = [policy.update(0.0) for _ in range(30)]
    assert over[-1] == Redundancy(0, False, 0, 0, 24_000, 0)
    assert policy.update(0.2).red_copies == 2


@pytest.mark.parametrize(
    ("total", "copies", "speech"),
    [(None, 2, 24_000), (90_000, 2, 24_000), (60_000, 2, 20_000), (40_000, 1, 20_000)],
)
def test_copies_stay_within_the_bitrate_allowed(
    total: int | None, copies: int, speech: int
) -> None:
    policy = RedundancyPolicy(bitrate=24_000, red_copies=2, total_bitrate=total)
    assert (policy.current.red_copies, policy.current.opus_bitrate) == (copies, speech)


def test_no_copies_are_sent_where_speech_alone_takes_all() -> None:
    policy = RedundancyPolicy(bitrate=24_000, red_copies=2, total_bitrate=20_000)
    assert policy.current == Redundancy(10, False, 0, 0, 20_000, 0)
