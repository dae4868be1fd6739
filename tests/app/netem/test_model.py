"""What an impaired link does to single packets."""

from __future__ import annotations

from itertools import pairwise

import pytest

from app.netem import Netem, derive_seed, parse_netem
from app.netem.trace import parse_loss_trace

EVERYTHING = (
    "delay 50ms 20ms 25% distribution pareto loss gemodel 5% 30% duplicate 5% "
    "reorder 10% corrupt 5% limit 50"
)


def deliveries(
    spec: str, packets: int, *, seed: int = 1, size: int = 100, interval: float = 0.02
) -> list[list[float]]:
    """For each packet the instants of its deliveries, from when it was sent, in milliseconds."""
    netem = Netem(parse_netem(spec), seed=seed)
    return [
        [round(1000 * (at - i * interval), 6) for at, _ in netem.process(bytes(size), i * interval)]
        for i in range(packets)
    ]


def test_a_link_that_is_not_asked_to_do_anything_does_nothing() -> None:
    assert deliveries("", 3) == [[0.0], [0.0], [0.0]]


def test_a_delay_is_the_same_for_all() -> None:
    assert deliveries("delay 100ms", 3) == [[100.0], [100.0], [100.0]]


def test_the_same_seed_gives_the_same_deliveries() -> None:
    assert deliveries(EVERYTHING, 2000) == deliveries(EVERYTHING, 2000)


def test_another_seed_gives_other_deliveries() -> None:
    assert deliveries(EVERYTHING, 200) != deliveries(EVERYTHING, 200, seed=2)


def test_seeds_of_the_two_directions_differ_and_do_not_change_with_the_machine() -> None:
    assert derive_seed(1, "outbound") != derive_seed(1, "inbound")
    assert derive_seed(1, "outbound") == 1199683808071004554


def test_other_impairments_leave_the_losses_where_they_were() -> None:
    bare = [bool(sent) for sent in deliveries("loss gemodel 5% 30%", 1000)]
    spec = "loss gemodel 5% 30% delay 50ms 10ms corrupt 10% rate 1mbit"
    assert [bool(sent) for sent in deliveries(spec, 1000)] == bare


def test_all_or_nothing_is_exact() -> None:
    assert deliveries("loss 100%", 50) == [[]] * 50
    assert deliveries("loss 0% duplicate 0% corrupt 0%", 50) == [[0.0]] * 50
    assert deliveries("duplicate 100%", 50) == [[0.0, 0.0]] * 50


def test_a_packet_both_doubled_and_lost_arrives_once() -> None:
    assert deliveries("duplicate 100% loss state 100% 100%", 4) == [[0.0], [0.0], [0.0], [0.0]]


def test_a_trace_takes_the_copy_too() -> None:
    netem = Netem(parse_netem("duplicate 100%"), seed=1, trace=parse_loss_trace("0 1"))
    assert [len(netem.process(b"x", 0.0)) for _ in range(4)] == [2, 0, 2, 0]


def test_every_fifth_packet_goes_at_once() -> None:
    sent = deliveries("delay 10ms reorder 100% gap 5", 10)
    assert sent == [[10.0]] * 4 + [[0.0]] + [[10.0]] * 4 + [[0.0]]


def test_jitter_reorders() -> None:
    arrivals = [20 * i + sent[0] for i, sent in enumerate(deliveries("delay 50ms 30ms", 1000))]
    assert any(later < earlier for earlier, later in pairwise(arrivals))


def test_jitter_does_not_reorder_on_a_link_with_a_rate() -> None:
    sent = deliveries("delay 50ms 30ms rate 1mbit", 1000)
    arrivals = [20 * i + delays[0] for i, delays in enumerate(sent)]
    assert all(later > earlier for earlier, later in pairwise(arrivals))


def test_a_wide_jitter_never_delivers_before_sending() -> None:
    delays = [sent[0] for sent in deliveries("delay 1ms 50ms", 2000)]
    assert min(delays) == 0.0


def test_a_rate_spaces_packets_by_their_size() -> None:
    # 100 bytes at 8 kbit/s keep the link busy for 100 ms.
    assert deliveries("rate 8kbit", 4, interval=0.0) == [[100.0], [200.0], [300.0], [400.0]]
    assert deliveries("rate 8kbit", 3, interval=0.15) == [[100.0]] * 3
    assert deliveries("delay 30ms rate 8kbit", 3, interval=0.0) == [[130.0], [230.0], [330.0]]


def test_a_rate_counts_overheads_and_cells() -> None:
    assert deliveries("rate 8kbit 20", 1) == [[120.0]]
    assert deliveries("rate 8kbit -40", 1) == [[60.0]]
    # 120 bytes fill two cells of 100, each with 5 more on the wire (the example of tc-netem(8)).
    assert deliveries("rate 8kbit 20 100 5", 1) == [[210.0]]


def test_a_limit_drops_what_finds_the_queue_full() -> None:
    netem = Netem(parse_netem("delay 125ms limit 3"), seed=1)
    arrived = [len(netem.process(b"x", i / 32)) for i in range(9)]
    # After 125 ms, four packets later, the first has left.
    assert arrived == [1, 1, 1, 0, 1, 1, 1, 0, 1]
    assert netem.counters.overflowed == 2


@pytest.mark.parametrize("size", [1, 2, 100])
def test_corruption_flips_exactly_one_bit(size: int) -> None:
    netem = Netem(parse_netem("corrupt 100%"), seed=1)
    data = bytes(range(size))
    positions = set()
    for i in range(12_000):
        ((_, damaged),) = netem.process(data, float(i))
        assert len(damaged) == size
        difference = int.from_bytes(data, "big") ^ int.from_bytes(damaged, "big")
        assert difference.bit_count() == 1
        positions.add(difference)
    assert len(positions) == 8 * size
    assert netem.counters.corrupted == 12_000


def test_an_empty_packet_cannot_be_corrupted() -> None:
    netem = Netem(parse_netem("corrupt 100%"), seed=1)
    assert [delivery.data for delivery in netem.process(b"", 0.0)] == [b""]


def test_every_packet_is_accounted_for() -> None:
    netem = Netem(parse_netem(EVERYTHING), seed=3)
    arrived = sum(len(netem.process(bytes(80), 0.001 * i)) for i in range(5000))
    counters = netem.counters
    assert min(counters.lost, counters.duplicated, counters.overflowed, counters.corrupted) > 0
    assert counters.reordered > 0
    assert counters.delivered == arrived
    assert counters.offered + counters.duplicated == arrived + counters.lost + counters.overflowed
