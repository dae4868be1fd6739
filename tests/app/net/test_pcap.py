from __future__ import annotations

import errno
import socket
import struct
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.net.pcap import PcapTransport, PcapWriter
from app.net.transport import Receiver

A, B = ("192.0.2.1", 5004), ("192.0.2.2", 6000)
A6, B6 = ("2001:db8::1", 5004), ("2001:db8::2", 6000)


def records(path: Path) -> list[tuple[int, bytes]]:
    """Time in ns and IP packet of every record."""
    data = path.read_bytes()
    magic, major, minor, _, _, _, link = struct.unpack("=IHHiIII", data[:24])
    assert (magic, major, minor, link) == (0xA1B23C4D, 2, 4, 101)
    found, position = [], 24
    while position < len(data):
        seconds, nanoseconds, length, original = struct.unpack_from("=IIII", data, position)
        assert length == original
        position += 16
        packet = data[position : position + length]
        found.append((seconds * 10**9 + nanoseconds, packet))
        position += length
    return found


def folded(data: bytes) -> int:
    """One's complement sum; 0xFFFF over data that includes its right checksum."""
    data += b"\0" * (len(data) % 2)
    total = 0
    for (word,) in struct.iter_unpack("!H", data):
        total += word
        total = (total & 0xFFFF) + (total >> 16)
    return total


@settings(deadline=None)
@given(st.binary(max_size=300))
def test_datagrams_are_framed_with_valid_checksums(
    tmp_path_factory: pytest.TempPathFactory, data: bytes
) -> None:
    path = tmp_path_factory.mktemp("pcap") / "x.pcap"
    writer = PcapWriter(path)
    writer.write(data, A, B, 1.5)
    writer.write(data, B6, A6, 2.25)
    writer.close()

    (time4, packet4), (time6, packet6) = records(path)

    assert (time4, time6) == (1_500_000_000, 2_250_000_000)
    assert folded(packet4[:20]) == 0xFFFF
    pseudo = packet4[12:20] + struct.pack("!HH", 17, len(packet4) - 20)
    assert folded(pseudo + packet4[20:]) == 0xFFFF
    assert packet4[12:20] == socket.inet_aton(A[0]) + socket.inet_aton(B[0])
    assert struct.unpack("!HH", packet4[20:24]) == (5004, 6000)
    assert packet4[28:] == data
    pseudo = packet6[8:40] + struct.pack("!HH", 17, len(packet6) - 40)
    assert folded(pseudo + packet6[40:]) == 0xFFFF
    assert struct.unpack("!HH", packet6[40:44]) == (6000, 5004)
    assert packet6[48:] == data


def test_addresses_of_two_ip_versions_are_refused(tmp_path: Path) -> None:
    writer = PcapWriter(tmp_path / "x.pcap")

    with pytest.raises(ValueError, match=r"192\.0\.2\.1"):
        writer.write(b"", A, B6, 0.0)
    writer.close()


def test_the_file_stops_growing_at_its_limit_with_whole_records(tmp_path: Path) -> None:
    path = tmp_path / "x.pcap"
    writer = PcapWriter(path, max_bytes=1000)
    for _ in range(100):
        writer.write(bytes(100), A, B, 0.0)
    writer.close()
    writer.write(b"after the end", A, B, 0.0)

    assert len(records(path)) == 6
    assert path.stat().st_size <= 1000


def test_a_full_disk_ends_the_recording_and_nothing_else() -> None:
    full = Path("/dev/full")
    if not full.exists():
        pytest.skip("no /dev/full here")
    writer = PcapWriter(full)
    for _ in range(1000):
        writer.write(bytes(100), A, B, 0.0)
    writer.close()

    assert writer.error is not None
    assert writer.error.errno == errno.ENOSPC


class Wire:
    """A transport of which the far end is the test."""

    local = A

    def __init__(self) -> None:
        self.sent: list[bytes] = []
        self.closed = False
        self.receiver: Receiver | None = None

    def send(self, data: bytes) -> None:
        self.sent.append(data)

    def set_receiver(self, receiver: Receiver) -> None:
        self.receiver = receiver

    def refused_since(self, instant: float) -> bool:
        return instant < 5

    def close(self) -> None:
        self.closed = True


def test_a_tapped_transport_records_both_directions_and_changes_nothing(tmp_path: Path) -> None:
    wire = Wire()
    writer = PcapWriter(tmp_path / "x.pcap")
    tapped = PcapTransport(wire, writer, B, clock=lambda: 10.0, wall_clock=lambda: 1000.0)
    heard: list[tuple[bytes, float]] = []
    tapped.set_receiver(lambda data, arrival: heard.append((data, arrival)))

    tapped.send(b"out")
    assert wire.receiver
    wire.receiver(b"in", 9.5)
    assert tapped.refused_since(4)
    assert not tapped.refused_since(6)
    tapped.close()
    writer.close()

    assert wire.sent == [b"out"]
    assert heard == [(b"in", 9.5)]
    assert wire.closed
    assert tapped.local == A
    assert [(t, p[28:]) for t, p in records(tmp_path / "x.pcap")] == [
        (1_000_000_000_000, b"out"),
        (999_500_000_000, b"in"),
    ]
