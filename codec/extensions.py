"""Extensions in the padding of an Opus packet (draft-ietf-mlcodec-opus-extension).

A decoder that knows nothing of them sees padding, which it skips. Reading is total and bounded:
any bytes give extensions or a MalformedPacket.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from codec.opus_packet import MalformedPacket, packet_frames

PADDING, SEPARATOR, REPEAT = 0, 1, 2
FIRST_LONG = 32
MAX_ID = 127
FILLER = b"\x01"
"""Padding of one byte.

libopus leaves out the zero bytes at the end of a SILK frame, as a range decoder reads zeros there
(RFC 6716, section 4.1.2.1). FFmpeg's own decoder reads the bytes that follow instead. A region that
begins with the smallest byte there is keeps it right, but for about one packet in two thousand.
"""
MAX_EXTENSIONS = 1024
"""In a packet: repeats could otherwise turn each byte into 47 extensions."""


class Extension(NamedTuple):
    """One extension of one frame of a packet."""

    id: int
    """3 to 31 carry up to one byte, 32 to 127 any number."""
    payload: bytes
    frame: int = 0


class _Cursor:
    """A region of bytes and how far it has been read."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.at = 0

    def left(self) -> int:
        return len(self.data) - self.at

    def take(self, count: int) -> bytes:
        if count > self.left():
            raise MalformedPacket("an extension runs out of the padding")
        self.at += count
        return self.data[self.at - count : self.at]

    def byte(self) -> int:
        return self.take(1)[0]

    def body(self, kind: int, flag: int, reserved: int = 0) -> bytes:
        """What follows an extension's first byte; `reserved` bytes at the end are others'."""
        if kind < FIRST_LONG:
            return self.take(flag)
        if not flag:
            return self.take(max(0, self.left() - reserved))
        length = 0
        while (part := self.byte()) == 255:
            length += 255
        return self.take(length + part)


def read_region(region: bytes, frames: int) -> Iterator[Extension]:
    """The extensions in the padding of a packet of so many frames.

    Raises MalformedPacket at the point where the region stops making sense.
    """
    cursor = _Cursor(region)
    frame = 0
    # (first byte) of each extension of this frame that a repeat would repeat
    repeatable: list[int] = []
    found = 0
    while cursor.left():
        first = cursor.byte()
        kind, flag = first >> 1, first & 1
        if kind == PADDING:
            if not flag:
                return
        elif kind == SEPARATOR:
            step = cursor.byte() if flag else 1
            if step:
                frame += step
                repeatable = []
            if frame >= frames:
                raise MalformedPacket(f"an extension of frame {frame} in a packet of {frames}")
        elif kind == REPEAT:
            for repeated in _repeats(cursor, repeatable, range(frame + 1, frames), bool(flag)):
                found += 1
                _check_count(found)
                yield repeated
            repeatable = []
            if not flag:
                frame += 1
                if frame >= frames:
                    return
        else:
            repeatable.append(first)
            found += 1
            _check_count(found)
            yield Extension(kind, cursor.body(kind, flag), frame)


def _repeats(
    cursor: _Cursor, firsts: list[int], frames: range, lengths: bool
) -> Iterator[Extension]:
    """The same kinds of extension in later frames, without their first bytes.

    Without `lengths`, the last long one of the last frame has none, and leaves room for the short
    ones after it.
    """
    last_long = max((i for i, first in enumerate(firsts) if first >> 1 >= FIRST_LONG), default=-1)
    short_bytes = sum(first & 1 for first in firsts[last_long + 1 :])
    for frame in frames:
        for i, first in enumerate(firsts):
            flag = first & 1
            if not lengths and frame == frames[-1] and i == last_long:
                flag = 0
            yield Extension(first >> 1, cursor.body(first >> 1, flag, short_bytes), frame)


def _check_count(found: int) -> None:
    if found > MAX_EXTENSIONS:
        raise MalformedPacket(f"more than {MAX_EXTENSIONS} extensions")


def has_padding(packet: bytes) -> bool:
    """Whether a packet says that it is padded: only one of code 3 can be. Total."""
    return len(packet) > 1 and packet[0] & 3 == 3 and bool(packet[1] & 0x40)


def padding_of(packet: bytes) -> bytes:
    """The padding's content, b"" if there is none. Raises MalformedPacket."""
    offset, size = packet_frames(packet)[-1]
    return packet[offset + size :]


def packet_extensions(packet: bytes) -> list[Extension]:
    """All extensions of a packet. Raises MalformedPacket."""
    frames = packet_frames(packet)
    return list(read_region(padding_of(packet), len(frames)))


def find_extension(packet: bytes, kind: int, prefix: bytes = b"") -> Extension | None:
    """The first extension of an ID whose payload starts with `prefix`.

    None if there is none, or none before the point where packet or padding stops making sense.
    """
    if not has_padding(packet):
        return None
    try:
        for extension in read_region(padding_of(packet), len(packet_frames(packet))):
            if extension.id == kind and extension.payload.startswith(prefix):
                return extension
    except MalformedPacket:
        pass
    return None


def write_region(extensions: Iterable[Extension]) -> bytes:
    """Padding content that holds these extensions, ordered by frame; b"" for none.

    Raises ValueError for an ID out of 3 to 127 or a payload its ID cannot carry.
    """
    ordered = sorted(extensions, key=lambda extension: extension.frame)
    out = bytearray(FILLER if ordered else b"")
    frame = 0
    for i, (kind, payload, at) in enumerate(ordered):
        if not REPEAT < kind <= MAX_ID:
            raise ValueError(f"extension ID {kind}, not 3 to {MAX_ID}")
        if not 0 <= at < 48:
            raise ValueError(f"frame {at} of a packet that has at most 48")
        if at > frame:
            out += bytes([SEPARATOR << 1]) if at == frame + 1 else bytes([3, at - frame])
            frame = at
        if kind < FIRST_LONG:
            if len(payload) > 1:
                raise ValueError(f"{len(payload)} bytes in short extension {kind}")
            out.append(kind << 1 | len(payload))
        elif i == len(ordered) - 1:
            out.append(kind << 1)
        else:
            groups, rest = divmod(len(payload), 255)
            out.append(kind << 1 | 1)
            out += b"\xff" * groups + bytes([rest])
        out += payload
    return bytes(out)


def with_padding(packet: bytes, region: bytes) -> bytes:
    """The same frames as a code-3 packet whose padding holds `region`, instead of what it held.

    An empty region means no padding. Raises MalformedPacket.
    """
    frames = packet_frames(packet)
    variable = len({size for _, size in frames}) > 1
    out = bytearray([packet[0] | 3, len(frames) | variable << 7 | bool(region) << 6])
    if region:
        # n bytes of 255 stand for 254 each (RFC 6716, section 3.2.5)
        groups, rest = divmod(len(region), 254)
        out += b"\xff" * groups + bytes([rest])
    if variable:
        for _, size in frames[:-1]:
            out += _coded_length(size)
    for offset, size in frames:
        out += packet[offset : offset + size]
    return bytes(out) + region


def _coded_length(size: int) -> bytes:
    """A frame length (RFC 6716, section 3.2.1)."""
    if size < 252:
        return bytes([size])
    low = 252 + (size & 3)
    return bytes([low, (size - low) >> 2])


def with_extensions(packet: bytes, *added: Extension) -> bytes:
    """The packet with these extensions beside those that it has.

    Raises MalformedPacket when packet or padding make no sense, ValueError for an extension that
    cannot be written or of a frame that the packet does not have.
    """
    frames = len(packet_frames(packet))
    for extension in added:
        if extension.frame >= frames:
            raise ValueError(f"an extension of frame {extension.frame} in a packet of {frames}")
    return with_padding(packet, write_region([*packet_extensions(packet), *added]))
