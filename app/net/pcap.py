"""Writing what goes over the wire to a file that Wireshark reads."""

from __future__ import annotations

import ipaddress
import struct
import threading
from collections.abc import Callable
from pathlib import Path

from app.net.transport import Receiver, Transport

MAGIC_NANOSECONDS = 0xA1B23C4D
LINKTYPE_RAW = 101
"""Packets begin with an IP header, of version 4 or 6."""
UDP = 17

Address = tuple[str, int]


class PcapWriter:
    """UDP datagrams with made-up IP headers around them, in libpcap's format. Any thread."""

    def __init__(self, path: Path, max_bytes: int = 1 << 30) -> None:
        """Raises OSError. No more than `max_bytes` are written: a forgotten call fills no disk."""
        self.error: OSError | None = None
        """Why nothing more is written, if so; a full disk must not end a call."""
        self._file = path.open("wb")
        self._left = max_bytes
        self._lock = threading.Lock()
        self._put(struct.pack("=IHHiIII", MAGIC_NANOSECONDS, 2, 4, 0, 0, 65535, LINKTYPE_RAW))

    def write(self, data: bytes, src: Address, dst: Address, wall_time: float) -> None:
        """`wall_time` in Unix seconds. Addresses of one IP version; ValueError otherwise."""
        packet = _ip_packet(data, src, dst)
        nanoseconds = round(wall_time * 1e9)
        header = struct.pack("=IIII", *divmod(nanoseconds, 1_000_000_000), len(packet), len(packet))
        self._put(header + packet)

    def _put(self, record: bytes) -> None:
        with self._lock:
            self._left -= len(record)
            if self._left < 0 or self.error or self._file.closed:
                return
            try:
                self._file.write(record)
            except OSError as error:
                self.error = error

    def close(self) -> None:
        with self._lock:
            try:
                self._file.close()
            except OSError as error:  # what was buffered does not fit; the file is closed anyway
                self.error = self.error or error


class PcapTransport:
    """Another transport whose datagrams are also written to a file."""

    def __init__(
        self,
        inner: Transport,
        writer: PcapWriter,
        remote: Address,
        clock: Callable[[], float],
        wall_clock: Callable[[], float],
    ) -> None:
        """`clock` and `wall_clock`: monotonic and Unix seconds, in practice those of `time`."""
        self._inner = inner
        self._writer = writer
        self._remote = remote
        self._clock = clock
        self._wall_clock = wall_clock

    @property
    def local(self) -> Address:
        return self._inner.local

    def send(self, data: bytes) -> None:
        self._inner.send(data)
        self._writer.write(data, self.local, self._remote, self._wall_clock())

    def set_receiver(self, receiver: Receiver) -> None:
        def tapped(data: bytes, arrival: float) -> None:
            receiver(data, arrival)
            age = self._clock() - arrival
            self._writer.write(data, self._remote, self.local, self._wall_clock() - age)

        self._inner.set_receiver(tapped)

    def refused_since(self, instant: float) -> bool:
        return self._inner.refused_since(instant)

    def close(self) -> None:
        """Closes the inner transport; the writer is its owner's."""
        self._inner.close()


def _ip_packet(data: bytes, src: Address, dst: Address) -> bytes:
    source, destination = ipaddress.ip_address(src[0]), ipaddress.ip_address(dst[0])
    if source.version != destination.version:
        raise ValueError(f"{source} and {destination} are of different IP versions")
    length = 8 + len(data)
    pseudo = source.packed + destination.packed + struct.pack("!HH", UDP, length)
    udp = struct.pack("!HHHH", src[1], dst[1], length, 0) + data
    # zero means "no checksum" and is therefore sent as its complement (RFC 768)
    checksum = _checksum(pseudo + udp) or 0xFFFF
    udp = udp[:6] + struct.pack("!H", checksum) + udp[8:]
    if source.version == 6:
        return struct.pack("!IHBB", 6 << 28, length, UDP, 64) + pseudo[:32] + udp
    header = struct.pack("!BBHHHBBH", 0x45, 0, 20 + length, 0, 0x4000, 64, UDP, 0) + pseudo[:8]
    return header[:10] + struct.pack("!H", _checksum(header)) + header[12:] + udp


def _checksum(data: bytes) -> int:
    """The Internet checksum (RFC 1071)."""
    if len(data) % 2:
        data += b"\0"
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF
