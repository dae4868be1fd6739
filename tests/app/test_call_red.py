"""Calls in which packets repeat the ones before them, between two processes."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import numpy as np
import pytest

from app.net.red import parse_red
from codec.frame import FrameSource
from codec.opus import OpusDecoder
from tests.app.calls import MAN, Pair, calls, captured_rtp, clip, offset_of

SETTLING = 75
ONE_IN_TEN = " ".join("1" if i % 10 == 7 else "0" for i in range(50))


@pytest.fixture(scope="module")
def spoken(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Pair]]:
    """A call in which both sides repeat packets, and one in which the listener cannot."""
    folder = tmp_path_factory.mktemp("red")
    trace = folder / "one-in-ten.txt"
    trace.write_text(ONE_IN_TEN)
    lossy = ["--loss-trace-in", str(trace), "--buffer", "fixed:60"]
    repeats = ["--recovery", "red"]
    kinds = {"both": (repeats, repeats), "caller": (["--recovery", "plc"], repeats)}
    with calls() as place:
        pairs = {}
        for name, (listen, call) in kinds.items():
            pcap = ["--pcap", str(folder / name / "listen.pcap")]
            pairs[name] = place(
                folder / name, listen=[*lossy, *listen, *pcap], call=[*lossy, *call]
            )
        for name, pair in pairs.items():
            assert pair.end() == (0, 0), (name, pair.listener.said, pair.caller.said)
        yield pairs


@pytest.mark.slow
def test_a_lost_packet_is_played_from_its_copy(spoken: dict[str, Pair]) -> None:
    pair = spoken["both"]
    with pair.unless_the_machine_stood_still():
        for side in (pair.listener, pair.caller):
            sources = [entry.source for entry in side.ledger[SETTLING:]]
            assert set(sources) == {FrameSource.PACKET, FrameSource.RED}
            assert sources.count(FrameSource.RED) == pytest.approx(len(sources) / 10, abs=1)
            report = side.report
            assert report["frames"]["red"] >= sources.count(FrameSource.RED)
            assert report["codec"].split(" (")[0].endswith("RED, 1 copy")
            received = report["bitrate_bps"]["received"]
            # a copy has the size of what it copies, and five bytes of headers: 2 kb/s
            assert received["red"] == pytest.approx(received["opus"] + 2000, rel=0.1)


@pytest.mark.slow
def test_with_copies_speech_is_heard_as_if_nothing_had_been_lost(spoken: dict[str, Pair]) -> None:
    pair = spoken["both"]
    with pair.unless_the_machine_stood_still():
        heard = pair.listener.recording[SETTLING * 320 :]
        packets = captured_rtp(pair.listener.path("pcap"))
        port = int(pair.listener.report["peer"].rsplit(" ", 1)[1])
        # the capture lies before the loss: all that was sent is in it
        decoder = OpusDecoder()
        sent = [packet for packet in packets if packet.source == port]
        assert all(0 < b.sequence - a.sequence & 0xFFFF == 1 for a, b in pairwise(sent))
        whole = np.concatenate(
            [
                decoder.decode(parse_red(p.payload)[-1].data if n else p.payload)
                for n, p in enumerate(sent)
            ]
        )
        offset, _ = offset_of(heard, whole)
        assert offset >= 0
        end = min(len(heard), len(whole) - offset)
        assert end > 16_000
        assert np.array_equal(heard[:end], whole[offset:][:end])


@pytest.mark.slow
def test_who_is_not_offered_copies_sends_plain_opus(spoken: dict[str, Pair]) -> None:
    pair = spoken["caller"]
    for side in (pair.listener, pair.caller):
        report = side.report
        assert "RED" not in report["codec"]
        assert report["frames"]["red"] == 0
        assert report["bitrate_bps"]["sent"]["red"] == 0
    decoder = OpusDecoder()
    packets = captured_rtp(pair.listener.path("pcap"))
    assert all(len(decoder.decode(packet.payload)) == 320 for packet in packets)
    assert offset_of(pair.listener.recording, clip(MAN))[1] > 0.5
