"""Other people's tools read what we send: Wireshark's dissectors and FFmpeg's RTP receiver."""

from __future__ import annotations

import asyncio
import shutil
import socket
import struct
import subprocess
import threading
import time
from pathlib import Path
from random import Random

import av
import numpy as np
import pytest

from app.net.clockmap import WallClock, host_token
from app.net.pcap import PcapTransport, PcapWriter
from app.net.reports import make_cname
from app.net.rtcp import ByeReceived
from app.net.sdp import Direction, MediaDescription, Offer
from app.net.session import RtpSession
from app.net.transport import Transport, UdpTransport
from codec import FRAME_SECONDS, FRAME_TICKS

LOOPBACK = "127.0.0.1"
TSHARK = shutil.which("tshark")
needs_tshark = pytest.mark.skipif(TSHARK is None, reason="tshark is not installed")


def opus_packets(count: int) -> list[bytes]:
    """A 440 Hz tone, coded by FFmpeg's libopus in 20 ms packets."""
    encoder = av.AudioCodecContext.create("libopus", "w")
    encoder.sample_rate = 16_000
    encoder.layout = "mono"
    encoder.format = "s16"
    encoder.options = {"frame_duration": "20", "application": "voip"}
    t = np.arange(count * 320) / 16_000
    tone = (8000 * np.sin(2 * np.pi * 440 * t)).astype(np.int16)
    packets: list[bytes] = []
    for i, block in enumerate(tone.reshape(count, 1, 320)):
        frame = av.AudioFrame.from_ndarray(block, "s16", "mono")
        frame.sample_rate = 16_000
        frame.pts = i * 320
        packets += [bytes(packet) for packet in encoder.encode(frame)]
    return packets


async def record_call(path: Path) -> None:
    """Two endpoints over loopback, forty packets each way, reports and goodbyes; seen by one."""
    wall = WallClock()
    ends = [await UdpTransport.open(LOOPBACK) for _ in range(2)]
    writer = PcapWriter(path)
    now = time.monotonic()
    sessions = []
    byes = 0
    for i in range(2):
        rng = Random(i)
        cname = make_cname(rng, host_token())
        sessions.append(RtpSession(now=now, rng=rng, cname=cname, payload_type=111))
    ends[0].connect(*ends[1].local)
    ends[1].connect(*ends[0].local)
    wires: list[Transport] = [
        PcapTransport(ends[0], writer, ends[1].local, time.monotonic, time.time),
        ends[1],
    ]
    for session, wire in zip(sessions, wires, strict=True):

        def receive(data: bytes, arrival: float, session: RtpSession = session) -> None:
            nonlocal byes
            events = session.receive(data, arrival, wall.ntp(arrival))
            byes += sum(isinstance(event, ByeReceived) for event in events)

        wire.set_receiver(receive)
    for i, packet in enumerate(opus_packets(40)):
        for session, wire in zip(sessions, wires, strict=True):
            now = time.monotonic()
            wire.send(session.packetise(packet, i * FRAME_TICKS, now, marker=i == 0))
            if i % 13 == 12:
                wire.send(session.make_report(now, wall.ntp(now)))
        await asyncio.sleep(0.002)
    for session, wire in zip(sessions, wires, strict=True):
        now = time.monotonic()
        wire.send(session.make_bye(now, wall.ntp(now)))
    async with asyncio.timeout(5):
        while byes < 2:
            await asyncio.sleep(0.005)
    assert [s.stats()["inbound-rtp"]["packetsReceived"] for s in sessions] == [40, 40]
    assert all(session.round_trip is not None for session in sessions)
    for wire in wires:
        wire.close()
    writer.close()


def tshark(path: Path, *arguments: str) -> list[str]:
    assert TSHARK
    run = subprocess.run(
        [TSHARK, "-n", "-r", str(path), *arguments],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    return run.stdout.splitlines()


COMPLAINTS = (
    *("-o", "udp.check_checksum:true"),
    *("-Y", "_ws.malformed || _ws.expert || udp.checksum.status == bad"),
)
HEURISTICS = ("--enable-heuristic", "rtp_udp", "--enable-heuristic", "rtcp_udp")


@pytest.fixture(scope="module")
def capture(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("interop") / "call.pcap"
    asyncio.run(record_call(path))
    return path


@needs_tshark
def test_wireshark_finds_rtp_and_rtcp_and_nothing_to_complain_about(capture: Path) -> None:
    rtp = tshark(capture, *HEURISTICS, "-Y", "rtp")
    rtcp = tshark(capture, *HEURISTICS, "-Y", "rtcp")
    assert (len(rtp), len(rtcp)) == (80, 8)
    assert tshark(capture, *HEURISTICS, *COMPLAINTS) == []


@needs_tshark
def test_wireshark_would_complain_about_a_broken_report(capture: Path, tmp_path: Path) -> None:
    rng = Random(1)
    session = RtpSession(now=0.0, rng=rng, cname="c", payload_type=111)
    writer = PcapWriter(tmp_path / "broken.pcap")
    report = session.make_report(1.0, 1 << 40)
    for data in (report, report[:-2]):
        writer.write(data, (LOOPBACK, 5004), (LOOPBACK, 6000), 1.0)
    writer.close()

    assert len(tshark(tmp_path / "broken.pcap", *HEURISTICS, *COMPLAINTS)) == 1


@needs_tshark
def test_wireshark_reads_the_same_numbers(capture: Path) -> None:
    fields = ["rtp.version", "rtp.p_type", "rtp.ext", "rtp.padding"]
    arguments = [argument for field in fields for argument in ("-e", field)]
    headers = tshark(capture, *HEURISTICS, "-Y", "rtp", "-T", "fields", *arguments)
    assert set(headers) == {"2\t111\t0\t0"} or set(headers) == {"2\t111\tFalse\tFalse"}

    kinds = tshark(capture, *HEURISTICS, "-Y", "rtcp", "-T", "fields", "-e", "rtcp.pt")
    assert sorted(kinds) == ["200,202,207"] * 6 + ["200,202,207,203"] * 2
    lost = tshark(capture, *HEURISTICS, "-Y", "rtcp", "-T", "fields", "-e", "rtcp.ssrc.cum_nr")
    assert set(lost) == {"0"}
    names = tshark(capture, *HEURISTICS, "-Y", "rtcp", "-T", "fields", "-e", "rtcp.sdes.text")
    assert all(name.endswith("@" + host_token()) for name in names)


@needs_tshark
def test_wireshark_reads_the_burst_we_report(tmp_path: Path) -> None:
    us, peer = (
        RtpSession(
            now=0.0, rng=Random(i), cname="me@here", payload_type=111, ssrc=i, peer_ssrc=3 - i
        )
        for i in (1, 2)
    )
    for i in range(200):
        packet = us.packetise(b"opus", i * FRAME_TICKS, i * FRAME_SECONDS)
        if not 100 <= i < 110 or i == 104:
            peer.receive(packet, i * FRAME_SECONDS, 1 << 40)
    writer = PcapWriter(tmp_path / "burst.pcap")
    writer.write(peer.make_report(4.0, 1 << 40), (LOOPBACK, 5004), (LOOPBACK, 6000), 1.0)
    writer.close()

    names = ["burstdensity", "gapdensity", "burstduration", "rtdelay", "gmin", "rfactor"]
    fields = [a for name in names for a in ("-e", f"rtcp.xr.voipmetrics.{name}")]
    path = tmp_path / "burst.pcap"
    (row,) = tshark(path, *HEURISTICS, "-T", "fields", "-e", "rtcp.xr.bt", *fields)
    read = [float(value) for value in row.split("\t")]

    assert read[:4] == [7, 230, 0, 200]  # 9 of 10 packets, in 1/256
    assert read[4:7] == [0, 16, 127]
    assert tshark(path, *HEURISTICS, *COMPLAINTS) == []


@needs_tshark
def test_wireshark_s_own_count_of_the_stream_finds_no_loss(capture: Path) -> None:
    streams = [line.split() for line in tshark(capture, *HEURISTICS, "-q", "-z", "rtp,streams")]
    rows = [row for row in streams if LOOPBACK in row]

    assert len(rows) == 2
    assert all("40" in row and "(0.0%)" in " ".join(row) for row in rows)


def announcement(description: str) -> bytes:
    """A SAP packet (RFC 2974): the way to have a description dissected without a TCP stream."""
    header = struct.pack("!BBH4s", 0x20, 0, 1, socket.inet_aton("192.0.2.1"))
    return header + b"application/sdp\0" + description.encode()


@needs_tshark
def test_wireshark_finds_nothing_wrong_with_our_descriptions(tmp_path: Path) -> None:
    path = tmp_path / "sdp.pcap"
    writer = PcapWriter(path)
    offer = Offer(MediaDescription("192.0.2.1", 5004, ssrc=1, cname="me@here"), 7)
    answer = offer.answer(MediaDescription("2001:db8::1", 6000, ssrc=2, cname="you@there"), 8)
    for description in (offer.to_sdp(), answer.to_sdp()):
        writer.write(announcement(description), ("192.0.2.1", 9875), ("224.2.127.254", 9875), 1.0)
    writer.close()

    fields = ["-T", "fields", "-e", "sdp.media.port", "-e", "sdp.connection_info.address"]
    read = tshark(path, "-Y", "sdp", *fields, "-e", "sdp.mime.type", "-e", "sdp.sample_rate")

    assert read == [
        "5004\t192.0.2.1\topus\t48000",
        "6000\t2001:db8::1\topus\t48000",
    ]
    wrong = "_ws.malformed || _ws.expert || sdp.invalid || sdp.unknown"
    assert tshark(path, "-Y", wrong) == []


def test_ffmpeg_plays_what_we_send(tmp_path: Path) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind((LOOPBACK, 0))
        port = probe.getsockname()[1]
    description = tmp_path / "stream.sdp"
    media = MediaDescription(
        LOOPBACK, port, direction=Direction.RECVONLY, ssrc=5, cname="player@here"
    )
    description.write_text(Offer(media, 1).to_sdp())
    rng = Random(3)
    session = RtpSession(now=0.0, rng=rng, cname="me@here", payload_type=111)
    packets = opus_packets(100)
    enough = threading.Event()

    def send() -> None:
        wall = WallClock()
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            index = 0
            while not enough.wait(FRAME_SECONDS / 4):
                now = time.monotonic()
                sock.sendto(
                    session.packetise(packets[index % 100], index * FRAME_TICKS, now),
                    (LOOPBACK, port),
                )
                if index % 50 == 0:
                    sock.sendto(session.make_report(now, wall.ntp(now)), (LOOPBACK, port))
                index += 1

    thread = threading.Thread(target=send)
    thread.start()
    try:
        options = {"protocol_whitelist": "file,udp,rtp", "analyzeduration": "500000"}
        with av.open(str(description), options=options, timeout=20) as container:
            stream = container.streams.audio[0]
            assert stream.codec_context.name in ("opus", "libopus")
            heard = []
            for frame in container.decode(stream):
                heard.append(frame.to_ndarray()[0].astype(np.float64))
                if len(heard) == 80:
                    break
            rate = stream.codec_context.sample_rate
    finally:
        enough.set()
        thread.join()

    sound = np.concatenate(heard)[10 * 960 :]
    spectrum = np.abs(np.fft.rfft(sound * np.hanning(len(sound))))
    assert np.argmax(spectrum) * rate / len(sound) == pytest.approx(440, abs=5)
