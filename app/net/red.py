"""Redundant audio data (RFC 2198): every packet repeats the ones before it.

A payload is a run of headers, then of blocks, oldest first, the packet's own last. Four bytes of
header for a copy: a bit that says that more follow, its payload type (7 bits), by how much its
timestamp lies before the packet's (14) and its length (10). One byte for the packet's own: its
payload type.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

RED_PAYLOAD_TYPE = 63
"""What WebRTC made the custom: the dynamic range from 96 on is crowded."""

MAX_COPIES = 2
"""In a packet that we send."""

MAX_BLOCKS = 32
"""In a packet that is read, its own included."""

MAX_OFFSET = (1 << 14) - 1
"""Ticks: 341 ms at 48 kHz."""
MAX_LENGTH = (1 << 10) - 1

MAX_PAYLOAD = 1200
"""Bytes. Copies that would make a packet larger are left out, lest the network split it."""

MORE = 0x80


class RedError(ValueError):
    """Bytes that are no such payload; the text is one line."""


@dataclass(frozen=True, slots=True)
class RedFormat:
    """What a party says of RED in its description: it takes it, with so many copies at most."""

    payload_type: int = RED_PAYLOAD_TYPE
    copies: int = MAX_COPIES


@dataclass(frozen=True, slots=True)
class RedBlock:
    payload_type: int
    offset: int
    """Ticks before the packet's timestamp; 0 for the packet's own."""
    data: bytes


def pack_red(blocks: Sequence[RedBlock]) -> bytes:
    """A payload of these blocks, the packet's own last. Raises ValueError if one does not fit."""
    if not 1 <= len(blocks) <= MAX_BLOCKS:
        raise ValueError(f"{len(blocks)} blocks, not 1 to {MAX_BLOCKS}")
    *copies, own = blocks
    if own.offset:
        raise ValueError(f"the packet's own block lies {own.offset} ticks before it")
    headers = bytearray()
    for block in copies:
        if not 0 < block.offset <= MAX_OFFSET or len(block.data) > MAX_LENGTH:
            raise ValueError(f"{len(block.data)} bytes {block.offset} ticks before do not fit")
        headers.append(MORE | block.payload_type)
        headers += (block.offset << 10 | len(block.data)).to_bytes(3)
    headers.append(own.payload_type)
    return bytes(headers) + b"".join(block.data for block in blocks)


def parse_red(payload: bytes) -> list[RedBlock]:
    """The blocks, the packet's own last. Raises RedError, and nothing else, on any other bytes."""
    shapes: list[tuple[int, int, int]] = []
    position = 0
    while position < len(payload) and payload[position] & MORE:
        if len(shapes) + 1 >= MAX_BLOCKS:
            raise RedError(f"more than {MAX_BLOCKS} blocks")
        if position + 4 > len(payload):
            raise RedError("a header is cut off")
        numbers = int.from_bytes(payload[position + 1 : position + 4])
        shapes.append((payload[position] & ~MORE, numbers >> 10, numbers & MAX_LENGTH))
        position += 4
    if position == len(payload):
        raise RedError("the packet's own header is missing")
    own = payload[position]
    position += 1
    blocks = []
    for payload_type, offset, length in shapes:
        blocks.append(RedBlock(payload_type, offset, payload[position : position + length]))
        position += length
    if position > len(payload):
        raise RedError("the blocks are longer than the packet")
    blocks.append(RedBlock(own, 0, payload[position:]))
    return blocks


class RedEncoder:
    """The sending side: remembers the last packets and repeats them."""

    def __init__(self, payload_type: int) -> None:
        """`payload_type` is that of what is repeated."""
        self._payload_type = payload_type
        self._before: deque[tuple[bytes, int]] = deque(maxlen=MAX_COPIES)

    def protect(self, packet: bytes, timestamp: int, copies: int) -> bytes | None:
        """A RED payload of `packet` and up to `copies` before it; None when there is none to add.

        Call it for every packet, in order; `timestamp` in ticks, not wrapped. Copies are an
        unbroken run up to the packet before: the receiver numbers them by that.
        """
        repeated: list[RedBlock] = []
        size = 1 + len(packet)
        for data, at in list(reversed(self._before))[:copies]:
            offset = timestamp - at
            size += 4 + len(data)
            if offset > MAX_OFFSET or len(data) > MAX_LENGTH or size > MAX_PAYLOAD:
                break
            repeated.insert(0, RedBlock(self._payload_type, offset, data))
        self._before.append((packet, timestamp))
        if not repeated:
            return None
        return pack_red([*repeated, RedBlock(self._payload_type, 0, packet)])


@dataclass(frozen=True, slots=True)
class Copy:
    """An earlier packet, as the packet at hand repeats it."""

    sequence: int
    """16 bit, wraps."""
    timestamp: int
    """32 bit, wraps."""
    payload: bytes


def unpack_red(
    payload: bytes, payload_type: int, sequence: int, timestamp: int
) -> tuple[bytes, tuple[Copy, ...]]:
    """What a RED packet with these numbers carries of `payload_type`: its own part and copies.

    Copies newest first; their sequence numbers are counted back, as blocks have none. Raises
    RedError if there is nothing of that type in its own part.
    """
    *earlier, own = parse_red(payload)
    if own.payload_type != payload_type:
        raise RedError(f"payload type {own.payload_type} where {payload_type} is due")
    copies = tuple(
        Copy((sequence - back) & 0xFFFF, (timestamp - block.offset) & 0xFFFF_FFFF, block.data)
        for back, block in enumerate(reversed(earlier), 1)
        if block.payload_type == payload_type and block.offset and block.data
    )
    return own.data, copies
