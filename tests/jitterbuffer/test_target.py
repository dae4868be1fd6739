"""The target delay: what it follows, what not, and how fast."""

from __future__ import annotations

import random

import pytest

from jitterbuffer.latency import Latency, LatencyPolicy
from jitterbuffer.target import TargetDelay


class Network:
    """Feeds a target with packets, every 20 ms one."""

    def __init__(
        self,
        latency: Latency = Latency.BALANCED,
        *,
        lbrr: bool = True,
        dred: int = 50,
        notice: float = 0.0,
    ) -> None:
        self.target = TargetDelay(LatencyPolicy.of(latency), notice)
        self.lbrr, self.dred = lbrr, dred
        self.number = 0
        self.rng = random.Random(7)

    def send(
        self, packets: int, *, loss: float = 0.0, mean_burst: float = 1.0, jitter: float = 0.0
    ) -> float:
        """Packets with exponential delays and geometric bursts of loss; the target, ms."""
        lost = False
        for _ in range(packets):
            rate = 1 / mean_burst if lost else loss / (1 - loss) / mean_burst
            if self.rng.random() < rate:
                lost = not lost
            delay = self.rng.expovariate(1 / jitter) if jitter else 0.0
            if not lost:
                self.arrive(self.number, delay)
            self.number += 1
        return 1e3 * self.target.seconds

    def arrive(self, number: int, delay: float) -> None:
        self.target.arrived(number, delay, 0.0, lbrr=self.lbrr, dred_frames=self.dred)


def test_on_a_clean_network_the_target_is_the_least_delay() -> None:
    for latency, least in zip(Latency, (20, 30, 60), strict=True):
        assert Network(latency).send(1) == least
        assert Network(latency).send(1000, jitter=0.001) == least


def test_jitter_raises_the_target_until_few_packets_are_late() -> None:
    network = Network()
    # of an exponential distribution with a mean of 20 ms, 1 % is beyond 92 ms
    assert 80 < network.send(1000, jitter=0.02) < 160


def test_the_target_goes_up_within_a_second_and_comes_down_within_forty() -> None:
    network = Network()
    network.send(500)
    assert network.send(50, jitter=0.02) > 60
    high = network.send(500, jitter=0.02)
    falling = [network.send(50) for _ in range(40)]
    assert all(high - falling[i] <= 20 * (i + 1) + 1 for i in range(40))
    assert falling[-1] == 30


def test_holes_that_redundancy_can_fill_are_waited_for_and_others_not() -> None:
    assert Network(dred=0, lbrr=False).send(2000, loss=0.2, mean_burst=3) == 30
    lbrr = Network(dred=0).send(2000, loss=0.2, mean_burst=3)
    dred = Network(dred=50).send(2000, loss=0.2, mean_burst=3)
    short = Network(dred=2).send(2000, loss=0.2, mean_burst=3)
    assert lbrr == 30
    assert 40 < short <= 50
    assert dred > 100


def test_what_has_to_be_here_some_time_before_it_is_heard_is_waited_for_as_much_longer() -> None:
    for notice in (0.0, 0.003, 0.008, 0.013):
        # DRED of two frames fills holes of two in 40 ms
        target = Network(dred=2, notice=notice).send(2000, loss=0.2, mean_burst=3)
        assert 40 + 1e3 * notice <= target <= 50 + 1e3 * notice
        assert Network(notice=notice).send(1000) == 30


def test_policies_wait_the_longer_the_more_they_are_for_quality() -> None:
    low, balanced, robust = (
        Network(latency).send(2000, loss=0.2, mean_burst=3) for latency in Latency
    )
    assert low < balanced < robust


def test_a_lost_packet_and_a_spike_raise_nothing() -> None:
    network = Network()
    network.send(300)
    network.number += 1
    assert network.send(1) == 30
    for back in range(15, 0, -1):
        network.arrive(network.number, 0.02 * back)
        network.number += 1
    assert network.send(1) == 30


def test_a_stall_of_two_seconds_raises_nothing() -> None:
    network = Network()
    network.send(300)
    for back in range(100, 0, -1):
        network.arrive(network.number, 0.02 * back)
        network.number += 1
        assert network.target.seconds <= 0.05


def test_a_stall_is_one_event_even_where_nothing_is_to_be_missed() -> None:
    network = Network(Latency.ROBUST)
    network.send(300)
    for back in range(100, 0, -1):
        network.arrive(network.number, 0.02 * back)
        network.number += 1
        assert network.target.seconds <= 0.061
    # the same delays, packet by packet, are a slow network
    for back in range(100, 0, -1):
        network.send(4)
        network.arrive(network.number, 0.02 * back)
        network.number += 1
    assert network.target.seconds > 0.5


def test_a_target_far_above_what_is_wanted_comes_down_within_seconds() -> None:
    network = Network(Latency.ROBUST)
    for _ in range(40):
        network.send(9)
        network.arrive(network.number, 0.9)
        network.number += 1
    assert network.target.seconds > 0.89
    # the last of them count for 8 s
    heights = [network.send(50) for _ in range(30)]
    begin = next(second for second, height in enumerate(heights) if height < 890)
    assert heights[min(begin + 5, 29)] < 250


def test_packets_out_of_order_count_by_when_they_come() -> None:
    network = Network(dred=0, lbrr=False)
    for number in range(1000):
        if number % 3:
            network.arrive(number, 0.0)
        else:
            network.arrive(number - 3, 0.06)
    assert 60 <= 1e3 * network.target.seconds <= 70


def test_the_same_frame_is_not_credited_twice() -> None:
    network = Network()
    network.send(100)
    before = network.target.seconds
    for _ in range(1000):
        network.arrive(50, 1.0)
    assert network.target.seconds == before


def test_another_source_starts_with_what_is_known_of_the_network() -> None:
    network = Network()
    high = network.send(1000, jitter=0.02)
    network.target.renumber()
    network.number = 500_000
    assert network.send(1) == pytest.approx(high, abs=1)


def test_a_slower_route_is_a_new_measure_once_even_the_fastest_take_it() -> None:
    network = Network()
    network.send(300)
    for reference in (0.0, 0.15):
        for _ in range(100):
            number, network.number = network.number, network.number + 1
            network.target.arrived(number, 0.15, reference, lbrr=False, dred_frames=0)
        assert 1e3 * network.target.seconds == pytest.approx(155 if not reference else 30)


def test_bounds_hold() -> None:
    policy = LatencyPolicy.of(Latency.ROBUST, min_delay=0.07, max_delay=0.09)
    target = TargetDelay(policy)
    for number in range(500):
        target.arrived(number, 0.5 * (number % 2), 0.0, lbrr=False, dred_frames=0)
        assert 0.07 <= target.seconds <= 0.09
    assert target.seconds == 0.09


def test_one_bound_moves_the_other_and_two_must_agree() -> None:
    assert LatencyPolicy.of(Latency.LOW, min_delay=0.5).max_delay == 0.5
    assert LatencyPolicy.of(Latency.ROBUST, max_delay=0.04).min_delay == 0.04
    with pytest.raises(ValueError, match="100 to 50 ms"):
        LatencyPolicy.of(Latency.LOW, min_delay=0.1, max_delay=0.05)
    with pytest.raises(ValueError, match="3000"):
        LatencyPolicy.of(Latency.LOW, max_delay=3.0)
