"""Options become links: a trace meets speech packet by packet, a model meets every datagram."""

from __future__ import annotations

from pathlib import Path
from random import Random

import pytest

from app.impairment import ImpairedLink, impaired_link
from app.net.session import RtpSession
from app.netem import NetemError, parse_netem
from app.options import Impairment


def datagrams(count: int) -> tuple[list[bytes], bytes]:
    """Packets of a session and one of its reports."""
    session = RtpSession(now=0.0, rng=Random(1), cname="me@here", payload_type=111)
    media = [session.packetise(b"speech", 960 * n, 0.02 * n) for n in range(count)]
    return media, session.make_report(1.0, 1 << 40)


def through(link: ImpairedLink, data: list[bytes]) -> list[bytes]:
    """What is left of a packet every 20 ms."""
    arrived = []
    for n, each in enumerate(data):
        link.push(each, 0.02 * n)
        arrived += [delivery.data for delivery in link.pop_due(0.02 * n)]
    arrived += [delivery.data for delivery in link.pop_due(1e9)]
    return arrived


def link(tmp_path: Path, *, netem: str | None = None, trace: str | None = None) -> ImpairedLink:
    path = tmp_path / "trace.txt"
    if trace is not None:
        path.write_text(trace)
    impairment = Impairment(parse_netem(netem) if netem else None, path if trace else None)
    made = impaired_link(impairment, 7, "outbound")
    assert made is not None
    return made


def test_a_trace_is_applied_packet_by_packet_and_begins_again(tmp_path: Path) -> None:
    media, _ = datagrams(9)
    arrived = through(link(tmp_path, trace="0 1 1 0"), media)
    assert arrived == [media[n] for n in (0, 3, 4, 7, 8)]


def test_reports_pass_a_trace_by_and_take_no_turn_in_it(tmp_path: Path) -> None:
    media, report = datagrams(4)
    mixed = [media[0], report, media[1], report, report, media[2], media[3]]
    arrived = through(link(tmp_path, trace="0 1 0 1"), mixed)
    assert arrived == [media[0], report, report, report, media[2]]


def test_a_model_loses_reports_too(tmp_path: Path) -> None:
    media, report = datagrams(4)
    assert through(link(tmp_path, netem="loss 100%"), [*media, report]) == []


def test_what_a_trace_leaves_is_delayed_by_the_model(tmp_path: Path) -> None:
    media, _ = datagrams(2)
    impaired = link(tmp_path, netem="delay 40ms", trace="1 0")
    impaired.push(media[0], 0.0)
    impaired.push(media[1], 0.02)
    assert impaired.next_due() == pytest.approx(0.06)
    assert impaired.pop_due(0.0599) == []
    (delivery,) = impaired.pop_due(0.0601)
    assert delivery.data == media[1]
    assert delivery.at == pytest.approx(0.06)


def test_the_same_seed_loses_the_same_packets_and_each_way_others() -> None:
    media, _ = datagrams(200)
    impairment = Impairment(parse_netem("loss 30%"))

    def lost(seed: int, direction: str) -> set[int]:
        made = impaired_link(impairment, seed, direction)
        assert made is not None
        arrived = set(through(made, media))
        return {n for n, packet in enumerate(media) if packet not in arrived}

    assert 30 < len(lost(1, "outbound")) < 90
    assert lost(1, "outbound") == lost(1, "outbound")
    assert lost(1, "outbound") != lost(1, "inbound")
    assert lost(1, "outbound") != lost(2, "outbound")


def test_no_impairment_is_no_link() -> None:
    assert impaired_link(Impairment(), 1, "outbound") is None


def test_a_trace_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    for content in ("", "0 1 2"):
        path = tmp_path / "broken.txt"
        path.write_text(content)
        with pytest.raises(NetemError, match=r"broken\.txt"):
            impaired_link(Impairment(loss_trace=path), 1, "outbound")
