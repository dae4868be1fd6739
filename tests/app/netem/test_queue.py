"""Packets on their way."""

from __future__ import annotations

from app.netem import Netem, NetemQueue, parse_netem


def queue(spec: str) -> NetemQueue:
    return NetemQueue(Netem(parse_netem(spec), seed=1))


def test_packets_come_out_when_they_are_due() -> None:
    link = queue("delay 100ms")
    assert link.next_due() is None
    link.push(b"a", 1.0)
    link.push(b"b", 1.02)
    assert link.next_due() == 1.1
    assert link.pop_due(1.05) == []
    assert [d.data for d in link.pop_due(1.1)] == [b"a"]
    assert [d.data for d in link.pop_due(2.0)] == [b"b"]
    assert link.next_due() is None


def test_packets_of_one_instant_keep_their_order() -> None:
    link = queue("")
    for name in (b"z", b"a", b"m"):
        link.push(name, 5.0)
    assert [d.data for d in link.pop_due(5.0)] == [b"z", b"a", b"m"]


def test_reordered_packets_overtake() -> None:
    link = queue("delay 30ms reorder 100% gap 3")
    for i in range(6):
        link.push(bytes([i]), 0.02 * i)
    assert [d.data[0] for d in link.pop_due(1.0)] == [0, 2, 1, 3, 5, 4]


def test_a_queue_that_nobody_empties_is_bounded() -> None:
    link = queue("limit 10 duplicate 100%")
    for i in range(1000):
        link.push(bytes(100), 0.02 * i)
    assert len(link) == 10
    counters = link.netem.counters
    assert counters.delivered == 10
    assert counters.overflowed == 1990
