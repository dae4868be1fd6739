from __future__ import annotations

import time
from random import Random

import pytest

from app.net.clockmap import ClockMap, WallClock, host_token, shares_wall_clock
from app.net.reports import make_cname
from app.net.rtcp import ntp_from_unix_ns, ntp_seconds_between

PEER_NTP_AT_ZERO = 3_900_000_000 << 32
"""The peer's wall clock when our monotonic clock read 0."""


def peer_ntp(now: float) -> int:
    return PEER_NTP_AT_ZERO + round(now * 2**32)


def report(clock: ClockMap, now: float) -> None:
    """The peer writes a sender report at `now`; it began to capture at 0."""
    clock.on_sender_report(peer_ntp(now), round(now * 48_000) % 2**32)


def exchange(clock: ClockMap, written: float, out: float, back: float) -> None:
    report(clock, written)
    clock.on_exchange(peer_ntp(written), written + back, out + back)


def test_nothing_is_known_before_the_first_exchange() -> None:
    clock = ClockMap()
    assert clock.estimate(0) is None

    report(clock, 5.0)
    assert clock.estimate(0) is None


@pytest.mark.parametrize(("out", "back"), [(0.02, 0.02), (0.10, 0.0), (0.0, 0.10), (0.05, 0.01)])
def test_an_exchange_tells_the_instant_within_half_its_round_trip(out: float, back: float) -> None:
    clock = ClockMap()
    exchange(clock, 5.0, out, back)

    estimate = clock.estimate(4 * 48_000)

    assert estimate is not None
    assert estimate.uncertainty == pytest.approx((out + back) / 2, abs=1e-4)
    assert abs(estimate.instant - 4.0) <= estimate.uncertainty + 1e-6


def test_the_shortest_round_trip_is_believed() -> None:
    clock = ClockMap()
    for i, queueing in enumerate([0.2, 0.0, 0.3, 0.1]):
        exchange(clock, float(i), 0.01, 0.01 + queueing)

    estimate = clock.estimate(3 * 48_000)

    assert estimate is not None
    assert estimate.instant == pytest.approx(3.0, abs=1e-4)
    assert estimate.uncertainty == pytest.approx(0.01, abs=2e-4)


def test_an_old_exchange_is_trusted_less_for_drift() -> None:
    clock = ClockMap()
    exchange(clock, 0.0, 0.01, 0.01)
    exchange(clock, 60.0, 0.012, 0.012)

    estimate = clock.estimate(60 * 48_000)

    assert estimate is not None
    assert estimate.uncertainty == pytest.approx(0.012, abs=1e-5)


def test_exchanges_older_than_the_window_are_forgotten() -> None:
    clock = ClockMap()
    exchange(clock, 0.0, 0.0, 0.0)
    for i in range(1, 70):
        exchange(clock, i * 0.1, 0.05, 0.05)

    estimate = clock.estimate(0)

    assert estimate is not None
    assert estimate.uncertainty > 0.05


def test_timestamps_are_taken_across_the_wrap_and_extended_ones_too() -> None:
    clock = ClockMap()
    clock.on_sender_report(peer_ntp(100.0), 960)
    clock.on_exchange(peer_ntp(100.0), 100.0, 0.0)

    before = clock.estimate(2**32 - 960)
    extended = clock.estimate(7 * 2**32 + 1920)

    assert before is not None
    assert extended is not None
    assert before.instant == pytest.approx(99.96)
    assert extended.instant == pytest.approx(100.02)


def test_a_shared_wall_clock_needs_no_exchange() -> None:
    clock = ClockMap()
    report(clock, 5.0)
    clock.on_shared_wall_clock(peer_ntp(5.25), 5.25)

    estimate = clock.estimate(4 * 48_000)

    assert estimate is not None
    assert estimate.instant == pytest.approx(4.0, abs=1e-6)
    assert estimate.uncertainty < 0.001
    assert clock.shared_wall_clock


def test_a_shared_wall_clock_stands_against_a_lopsided_network() -> None:
    clock = ClockMap()
    report(clock, 5.0)
    clock.on_shared_wall_clock(peer_ntp(5.1), 5.1)
    exchange(clock, 5.0, out=0.0, back=0.1)

    estimate = clock.estimate(4 * 48_000)

    assert estimate is not None
    assert estimate.instant == pytest.approx(4.0, abs=1e-6)


def test_a_false_claim_to_our_wall_clock_is_found_out_for_good() -> None:
    clock = ClockMap()
    report(clock, 5.0)
    our_ntp = peer_ntp(5.0 - 2.0)  # two seconds behind
    clock.on_shared_wall_clock(our_ntp, 5.0)
    exchange(clock, 6.0, 0.01, 0.01)
    clock.on_shared_wall_clock(our_ntp, 5.0)

    estimate = clock.estimate(4 * 48_000)

    assert estimate is not None
    assert not clock.shared_wall_clock
    assert abs(estimate.instant - 4.0) <= estimate.uncertainty


def test_a_peer_that_sets_its_clock_is_measured_anew() -> None:
    clock = ClockMap()
    exchange(clock, 5.0, 0.001, 0.001)
    stepped = PEER_NTP_AT_ZERO + round((6.0 + 1000.0) * 2**32)
    clock.on_sender_report(stepped, 6 * 48_000)
    assert clock.estimate(0) is None

    clock.on_exchange(stepped, 6.02, 0.04)
    estimate = clock.estimate(6 * 48_000)

    assert estimate is not None
    assert estimate.instant == pytest.approx(6.0, abs=1e-6)


def test_another_source_starts_from_nothing() -> None:
    clock = ClockMap()
    exchange(clock, 5.0, 0.01, 0.01)

    clock.reset()

    assert clock.estimate(0) is None


def test_names_made_on_one_host_share_its_wall_clock_and_nothing_else() -> None:
    ours, theirs = (make_cname(Random(seed), host_token()) for seed in (1, 2))

    assert ours != theirs
    assert shares_wall_clock(ours, theirs)
    assert not shares_wall_clock(ours, make_cname(Random(3), "0" * 16))
    assert not shares_wall_clock("somebody@", "nobody@")
    assert len(ours) == 32


def test_the_wall_clock_is_that_of_the_system_counted_on_monotonically() -> None:
    before = ntp_from_unix_ns(time.time_ns())
    clock = WallClock()
    ntp = clock.ntp(time.monotonic())
    after = ntp_from_unix_ns(time.time_ns())

    assert ntp_seconds_between(before, ntp) > -0.001
    assert ntp_seconds_between(ntp, after) > -0.001
    assert ntp_seconds_between(clock.ntp(10.0), clock.ntp(12.5)) == pytest.approx(2.5, abs=1e-6)
