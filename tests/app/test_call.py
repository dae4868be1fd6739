"""Calls between two processes: what was said is heard, as late and as damaged as the network made
it, and everybody is told when it is over."""

from __future__ import annotations

import asyncio
import json
import shutil
import signal
import socket
import subprocess
import threading
from collections.abc import Iterator
from contextlib import suppress
from itertools import pairwise
from pathlib import Path

import av
import numpy as np
import pytest

from app.ledger import LedgerEntry, read_ledger
from app.net.opus_fmtp import OpusParameters
from app.net.sdp import MediaDescription, Offer
from app.net.signalling import place_call
from codec import FRAME, FRAME_TICKS, SAMPLE_RATE
from codec.extensions import packet_extensions
from codec.frame import FrameSource
from codec.opus import OpusDecoder, has_lbrr
from tests.app.calls import (
    LOOPBACK,
    MAN,
    PATIENCE,
    WOMAN,
    Captured,
    Endpoint,
    Pair,
    Pcm,
    books_agree,
    calls,
    captured_rtp,
    clip,
    endpoints,
    envelope,
    offset_of,
    read_wav,
    same_instant,
)
from tests.app.peer import until
from tests.app.test_report import violations

LOOKAHEAD = 104
"""Samples by which decoded speech lags behind, at 16 kHz."""

SETTLING = 75
"""Frames from the first packet on in which playout may still find its beat."""

ONE_IN_TEN = " ".join("1" if i % 10 == 7 else "0" for i in range(50))
BURSTS = " ".join("1" if 12 <= i % 25 < 17 else "0" for i in range(50))
"""Five in a row, a fifth of all."""

TSHARK = shutil.which("tshark")


@pytest.fixture(scope="module")
def spoken(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Pair]]:
    """Calls at once that end with the caller's file, over networks and with recoveries of all
    kinds."""
    folder = tmp_path_factory.mktemp("spoken")
    one_in_ten, bursts = folder / "one-in-ten.txt", folder / "bursts.txt"
    one_in_ten.write_text(ONE_IN_TEN)
    bursts.write_text(BURSTS)
    # what we lose on receiving is still in the capture, which thereby knows what was lost
    lossy = ["--loss-trace-in", str(one_in_ten), "--buffer", "fixed:60"]
    bursty = ["--loss-trace-in", str(bursts), "--buffer", "fixed:140"]
    kinds = {
        "clean": [],
        "lossy": [*lossy, "--recovery", "lbrr"],
        "plain": [*lossy, "--recovery", "opus-plc"],
        "bursts": [*bursty, "--recovery", "lbrr+dred", "--dred-ms", "400"],
    }
    with calls() as place:
        pairs = {}
        for name, options in kinds.items():
            pairs[name] = place(
                folder / name,
                listen=[*options, "--pcap", str(folder / name / "listen.pcap")],
                call=[*options, "--pcap", str(folder / name / "call.pcap")],
            )
        for name, pair in pairs.items():
            assert pair.end() == (0, 0), (name, pair.listener.said, pair.caller.said)
        yield pairs


def played(ledger: list[LedgerEntry]) -> list[LedgerEntry]:
    """From the first frame that came out of a packet."""
    first = next(i for i, entry in enumerate(ledger) if entry.source is FrameSource.PACKET)
    return ledger[first:]


def received(side: Endpoint) -> list[Captured]:
    """The packets in its capture that were sent to it, lost ones included."""
    packets = captured_rtp(side.path("pcap"))
    port = side.report["peer"].rsplit(" ", 1)[1]
    return [packet for packet in packets if packet.source == int(port)]


def by_timestamp(ledger: list[LedgerEntry]) -> dict[int, LedgerEntry]:
    return {entry.timestamp & 0xFFFF_FFFF: entry for entry in played(ledger)}


def listener_and_caller(pair: Pair) -> list[tuple[Endpoint, Path]]:
    """Each side and what was said to it."""
    return [(pair.listener, MAN), (pair.caller, WOMAN)]


@pytest.mark.slow
def test_on_a_clean_network_every_frame_comes_out_of_its_own_packet(
    spoken: dict[str, Pair],
) -> None:
    pair = spoken["clean"]
    with pair.unless_the_machine_stood_still():
        for side, _ in listener_and_caller(pair):
            ledger = played(side.ledger)
            assert len(ledger) > 120
            assert {entry.source for entry in ledger} == {FrameSource.PACKET}
            steps = np.diff([entry.timestamp for entry in ledger[SETTLING:]])
            assert set(steps) == {FRAME_TICKS}
            report = side.report
            assert report["inbound"]["packetsLost"] == 0
            assert report["frames"]["packet"] == len(ledger)
            assert report["inbound"]["packetsReceived"] == len(received(side))


def test_what_is_recorded_is_what_was_said_to_the_sample(spoken: dict[str, Pair]) -> None:
    pair = spoken["clean"]
    with pair.unless_the_machine_stood_still():
        for side, said in listener_and_caller(pair):
            ledger, recording = side.ledger, side.recording
            assert len(recording) == FRAME * len(ledger)
            settled = len(ledger) - len(played(ledger)) + SETTLING
            first = received(side)[0]
            # media time 0 is the first sample of the source
            spoken_before = (ledger[settled].timestamp & 0xFFFF_FFFF) - first.timestamp
            spoken_before = spoken_before % 2**32 // 3
            heard = recording[settled * FRAME :]
            source = clip(said)
            offset, alike = offset_of(heard, source)
            assert offset == spoken_before - LOOKAHEAD
            assert alike > 0.9
            there = source[max(offset, 0) :][: len(heard)]
            assert np.corrcoef(envelope(heard), envelope(there))[0, 1] > 0.99
            gaps = (envelope(there) > 50) & (envelope(heard) < 20)
            assert not gaps.any()


def test_lost_frames_and_no_others_are_recovered_and_by_lbrr_if_the_next_packet_has_it(
    spoken: dict[str, Pair],
) -> None:
    pair = spoken["lossy"]
    with pair.unless_the_machine_stood_still():
        losses = [word == "1" for word in ONE_IN_TEN.split()]
        recovered = 0
        for side, _ in listener_and_caller(pair):
            packets = received(side)
            ledger = by_timestamp(side.ledger[SETTLING:])
            assert len(ledger) > 60
            assert any(
                losses[i % 50] for i, packet in enumerate(packets) if packet.timestamp in ledger
            )
            for i, (packet, following) in enumerate(pairwise(packets)):
                entry = ledger.get(packet.timestamp)
                if entry is None:
                    continue
                if not losses[i % 50]:
                    assert entry.source is FrameSource.PACKET, (side.name, i)
                elif has_lbrr(following.payload):
                    assert entry.source is FrameSource.LBRR, (side.name, i)
                    recovered += 1
                else:
                    assert entry.source is FrameSource.PLC, (side.name, i)
        assert recovered > 10


def test_losses_leave_no_gap_and_do_not_move_what_follows(spoken: dict[str, Pair]) -> None:
    pair = spoken["lossy"]
    with pair.unless_the_machine_stood_still():
        undamaged = listener_and_caller(spoken["clean"])
        for (side, said), (same, _) in zip(listener_and_caller(pair), undamaged, strict=True):
            ledger = side.ledger[SETTLING:]
            steps = np.diff([entry.timestamp for entry in ledger])
            assert set(steps) == {FRAME_TICKS}
            heard = side.recording[SETTLING * FRAME :]
            assert len(heard) == FRAME * len(ledger)
            source = clip(said)
            offset, alike = offset_of(heard, source)
            # how far the codec itself keeps the waveform depends on the voice and on libopus; with
            # zeros for what was lost it would be 0.04 and 0.05 less
            assert alike > offset_of(same.recording[SETTLING * FRAME :], source)[1] - 0.035
            there, loud = source[max(offset, 0) :][: len(heard)], 55
            assert not ((envelope(there) > loud) & (envelope(heard) < 20)).any()


def test_without_lbrr_lost_frames_are_concealed_and_nothing_redundant_is_sent(
    spoken: dict[str, Pair],
) -> None:
    pair = spoken["plain"]
    with pair.unless_the_machine_stood_still():
        losses = [word == "1" for word in ONE_IN_TEN.split()]
        for side, _ in listener_and_caller(pair):
            packets = received(side)
            assert not any(has_lbrr(packet.payload) for packet in packets)
            ledger = by_timestamp(side.ledger[SETTLING:])
            lost = {p.timestamp for i, p in enumerate(packets) if losses[i % 50]} & set(ledger)
            assert lost
            concealed = {at for at, entry in ledger.items() if entry.source is FrameSource.PLC}
            assert concealed == lost
            assert side.report["frames"]["lbrr"] == 0
            assert side.report["inbound"]["fecPacketsReceived"] == 0


def test_bursts_are_rebuilt_from_dred(spoken: dict[str, Pair]) -> None:
    pair = spoken["bursts"]
    losses = [word == "1" for word in BURSTS.split()]
    with pair.unless_the_machine_stood_still():
        for side, _ in listener_and_caller(pair):
            packets = received(side)
            ledger = by_timestamp(side.ledger[SETTLING:])
            lost = {p.timestamp for i, p in enumerate(packets) if losses[i % 50]} & set(ledger)
            made = {at for at, entry in ledger.items() if entry.source is not FrameSource.PACKET}
            assert made == lost
            rebuilt = sum(entry.source is FrameSource.DRED for entry in ledger.values())
            assert rebuilt > 0.5 * len(lost)
            dred = side.report["dred"]
            assert dred["used"] == sum(entry.source is FrameSource.DRED for entry in side.ledger)
            assert dred["carried"] > 0


def test_the_recording_is_what_libopus_makes_of_the_packets_bit_for_bit(
    spoken: dict[str, Pair],
) -> None:
    pair = spoken["plain"]
    for side, _ in listener_and_caller(pair):
        ledger, recording = side.ledger, side.recording.reshape(-1, FRAME)
        payloads = {packet.timestamp: packet.payload for packet in received(side)}
        decoder = OpusDecoder()
        began = len(ledger) - len(played(ledger))
        if any(entry.source is FrameSource.PLC for entry in ledger[:began]):
            decoder.conceal()
        for entry, frame in zip(ledger[began:], recording[began:], strict=True):
            if entry.source is FrameSource.PACKET:
                expected = decoder.decode(payloads[entry.timestamp & 0xFFFF_FFFF])
            else:
                assert entry.source is FrameSource.PLC
                expected = decoder.conceal()
            assert np.array_equal(frame, expected), entry


def test_a_caller_whose_file_ends_hangs_up_and_both_sides_say_why(spoken: dict[str, Pair]) -> None:
    for pair in spoken.values():
        assert pair.caller.said[-1] == "dredcall: the source has ended"
        assert pair.listener.said[-1] == "dredcall: the peer hung up"
        assert pair.caller.report["ended"] == "the source has ended"
        assert pair.listener.report["ended"] == "the peer hung up"
        # 2.84 s of speech
        assert pair.caller.report["outbound"]["packetsSent"] == 142


def test_the_reports_of_real_calls_are_as_documented(spoken: dict[str, Pair]) -> None:
    for pair in spoken.values():
        for side in (pair.listener, pair.caller):
            assert violations(side.report) == []
            assert side.printed == []


@pytest.mark.skipif(TSHARK is None, reason="tshark is not installed")
def test_wireshark_sees_both_directions_and_finds_nothing_malformed(
    spoken: dict[str, Pair],
) -> None:
    assert TSHARK
    for side in (spoken["clean"].listener, spoken["clean"].caller):
        dissect = [TSHARK, "-n", "-r", str(side.path("pcap")), "-o", "udp.check_checksum:true"]
        for name in ("rtp_udp", "rtcp_udp"):
            dissect += ["--enable-heuristic", name]

        def seen(*arguments: str, base: list[str] = dissect) -> list[str]:
            command = [*base, *arguments]
            done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)
            return done.stdout.splitlines()

        wrong = "_ws.malformed || _ws.expert || udp.checksum.status == bad"
        assert seen("-Y", wrong) == []
        rtp = seen("-Y", "rtp", "-T", "fields", "-e", "udp.srcport", "-e", "rtp.p_type")
        assert {line.split("\t")[1] for line in rtp} == {"111"}
        report = side.report
        here = report["inbound"]["packetsReceived"] + report["outbound"]["packetsSent"]
        assert len(rtp) == here
        rtcp = seen("-Y", "rtcp", "-T", "fields", "-e", "udp.srcport", "-e", "rtcp.pt")
        ports = {line.split("\t")[0] for line in rtp}
        assert len(ports) == 2
        assert {line.split("\t")[0] for line in rtcp} == ports
        kinds = {kind for line in rtcp for kind in line.split("\t")[1].split(",")}
        assert {"200", "202"} <= kinds
        # the caller's goodbye is on both captures
        assert "203" in kinds


@pytest.fixture(scope="module")
def probed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Pair]]:
    """Two calls at once with markers in the sound, one of them over a longer way to the listener.

    The listener hangs up. Their buffers are fixed: an adaptive one follows a hiccup of the machine,
    and in five seconds there are but a few markers to compare.
    """
    folder = tmp_path_factory.mktemp("probed")
    probe = ["--probe", "--loop", "--buffer", "fixed:60"]
    with calls() as place:
        pairs = {
            name: place(
                folder / name, listen=[*probe, "--duration", "5"], call=[*probe, *impairment]
            )
            for name, impairment in {"near": [], "far": ["--netem", "delay 100ms"]}.items()
        }
        for name, pair in pairs.items():
            assert pair.end() == (0, 0), (name, pair.listener.said, pair.caller.said)
        yield pairs


@pytest.mark.slow
def test_markers_in_the_sound_tell_the_delay_that_is_accounted_for(
    probed: dict[str, Pair],
) -> None:
    for pair in probed.values():
        with pair.unless_the_machine_stood_still():
            for side in (pair.listener, pair.caller):
                delay = side.report["delay_ms"]
                assert delay["markers"]["heard"] >= 3
                assert delay["markers"]["p50"] == pytest.approx(delay["p50"], abs=2)


def test_the_parts_of_the_delay_add_up_to_it(probed: dict[str, Pair]) -> None:
    for pair in probed.values():
        for side in (pair.listener, pair.caller):
            delay = side.report["delay_ms"]
            parts = [part for part in delay["breakdown"].values() if part is not None]
            assert sum(parts) == pytest.approx(delay["mean"], abs=2)
            assert delay["uncertainty"] < 1


def test_an_imposed_delay_of_100_ms_is_heard_as_100_ms(probed: dict[str, Pair]) -> None:
    near, far = (probed[name] for name in ("near", "far"))
    before, after = near.listener.report["delay_ms"], far.listener.report["delay_ms"]
    with near.unless_the_machine_stood_still(), far.unless_the_machine_stood_still():
        assert after["p50"] - before["p50"] == pytest.approx(100, abs=3)
        assert after["markers"]["p50"] - before["markers"]["p50"] == pytest.approx(100, abs=3)
        added = after["breakdown"]["network"] - before["breakdown"]["network"]
        assert added == pytest.approx(100, abs=3)


def test_a_delay_one_way_leaves_the_other_way_as_it_was(probed: dict[str, Pair]) -> None:
    near, far = (probed[name].caller.report["delay_ms"] for name in ("near", "far"))
    assert far["p50"] == pytest.approx(near["p50"], abs=3)


def test_the_round_trip_is_that_of_both_ways(probed: dict[str, Pair]) -> None:
    for side in (probed["far"].listener, probed["far"].caller):
        remote = side.report["outbound"]["remote"]
        assert remote["roundTripTimeMeasurements"] >= 1
        assert 0.095 < remote["roundTripTime"] < 0.2


def test_a_listener_whose_time_is_up_hangs_up(probed: dict[str, Pair]) -> None:
    for pair in probed.values():
        assert pair.listener.said[-1] == "dredcall: the time is up"
        assert pair.caller.said[-1] == "dredcall: the peer hung up"
        assert pair.listener.report["duration_s"] == pytest.approx(5, abs=0.5)


@pytest.mark.parametrize("who", ["listener", "caller"])
def test_ctrl_c_hangs_up_and_leaves_everything_whole(who: str, tmp_path: Path) -> None:
    with calls() as place:
        pair = place(tmp_path, listen_source="tone:500", call_source="tone:700")
        sides = {"listener": pair.listener, "caller": pair.caller}
        for side in sides.values():
            side.wait_until_heard(60)
        sides[who].interrupt(signal.SIGINT)
        assert pair.end() == (0, 0)
    for name, side in sides.items():
        reason = "hung up" if name == who else "the peer hung up"
        assert side.said[-1] == f"dredcall: {reason}"
        report = side.report
        assert report["ended"] == reason
        assert violations(report) == []
        assert books_agree(side.recording, side.ledger)
        assert report["frames"]["total"] == len(side.ledger)


def ipv6_works() -> bool:
    try:
        with socket.create_server(("::1", 0), family=socket.AF_INET6):
            return True
    except OSError:
        return False


def test_a_listener_that_keeps_on_takes_calls_by_both_versions_of_ip_until_ctrl_c(
    tmp_path: Path,
) -> None:
    hosts = [LOOPBACK, "[::1]" if ipv6_works() else "localhost"]
    with endpoints() as start:
        listener = start(tmp_path, "listen", "--port", "0", "--keep")
        for number, host in enumerate(hosts, 1):
            caller = start(
                tmp_path,
                "call",
                f"{host}:{listener.port}",
                "--duration",
                "1",
                name=f"caller-{number}",
            )
            assert caller.end() == 0, caller.said
        listener.interrupt(signal.SIGINT)
        assert listener.end() == 0
    assert listener.said.count("dredcall: the peer hung up") == 2
    for name in ("listen", "listen-2"):
        report = json.loads((tmp_path / f"{name}.json").read_text())
        assert violations(report) == []
        assert report["frames"]["packet"] > 30
        ledger = list(read_ledger(tmp_path / f"{name}.csv"))
        assert len(ledger) == report["frames"]["total"]
        assert books_agree(read_wav(tmp_path / f"{name}.wav"), ledger)


def test_a_capture_of_the_lossy_call_holds_what_the_program_was_made_to_lose(
    spoken: dict[str, Pair],
) -> None:
    for side in (spoken["lossy"].listener, spoken["lossy"].caller):
        packets = received(side)
        losses = [word == "1" for word in ONE_IN_TEN.split()]
        kept = [p for i, p in enumerate(packets) if not losses[i % 50]]
        assert side.report["inbound"]["packetsReceived"] == len(kept)
        first, last = packets[0], packets[-1]
        assert (last.sequence - first.sequence) % 2**16 == len(packets) - 1
        assert same_instant(last.timestamp, first.timestamp + FRAME_TICKS * (len(packets) - 1))


def udp_port_in_use(port: int) -> bool:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.bind((LOOPBACK, port))
        except OSError:
            return True
        return False


def listen_in(description: Path, frames: int, heard: list[Pcm]) -> None:
    """Plays so many frames by FFmpeg, which knows nothing of us but the description."""
    options = {"protocol_whitelist": "file,udp,rtp", "analyzeduration": "500000"}
    with av.open(str(description), options=options, timeout=PATIENCE) as container:
        stream = container.streams.audio[0]
        resampler = av.AudioResampler("s16", "mono", SAMPLE_RATE)
        for frame in container.decode(stream):
            heard.extend(part.to_ndarray()[0] for part in resampler.resample(frame))
            if len(heard) == frames:
                return


def free_ports_for_a_player() -> int:
    """An even UDP port that is free, as is the next: FFmpeg binds both, for RTP and RTCP."""
    while True:
        with (
            socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as rtp,
            socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as rtcp,
        ):
            rtp.bind((LOOPBACK, 0))
            port: int = rtp.getsockname()[1]
            with suppress(OSError):
                rtcp.bind((LOOPBACK, port + 1))
                if port % 2 == 0:
                    return port


def test_ffmpeg_plays_what_a_call_sends_with_dred_in_it(tmp_path: Path) -> None:
    port = free_ports_for_a_player()
    parameters = OpusParameters(maxplaybackrate=16_000, useinbandfec=True, dred_duration=1000)
    media = MediaDescription(LOOPBACK, port, opus=parameters, ssrc=5, cname="player@here")
    offer = Offer(media, 1)
    description = tmp_path / "offer.sdp"
    description.write_text(offer.to_sdp())
    heard: list[Pcm] = []
    player = threading.Thread(target=listen_in, args=(description, 150, heard))
    with endpoints() as start:
        options = ["--dred-ms", "400", "--pcap", str(tmp_path / "sent.pcap"), "--timeout", "30"]
        side = start(
            tmp_path, "listen", "--host", LOOPBACK, "--port", "0", "--loop", *options, source=MAN
        )
        signalling = side.port
        player.start()
        until(lambda: udp_port_in_use(port))
        asyncio.run(place_call(LOOPBACK, signalling, offer))
        player.join(PATIENCE)
        side.interrupt()
        assert side.end() == 0, side.said
    assert len(heard) == 150
    payloads = [packet.payload for packet in captured_rtp(tmp_path / "sent.pcap")]
    assert sum(bool(packet_extensions(payload)) for payload in payloads) > 0.8 * len(payloads)
    pcm = np.concatenate(heard)
    source = np.tile(clip(MAN), 3)
    _, alike = offset_of(pcm, source)
    assert alike > 0.9
