"""What the outside of an Opus packet says (RFC 6716, section 3). Total on any bytes."""

from __future__ import annotations

from operator import itemgetter

from codec.libopus import OpusError

MAX_FRAME_BYTES = 1275
MAX_TICKS = 5760
"""120 ms at 48 kHz: the longest packet (RFC 6716, section 3.2.5)."""


class MalformedPacket(OpusError, ValueError):  # noqa: N818 (reads as what it says)
    """Bytes that are no Opus packet, or one of a duration that is not spoken here."""


def frame_ticks(toc: int) -> int:
    """Duration of each frame in samples at 48 kHz, from the TOC byte (RFC 6716, table 2)."""
    config = toc >> 3
    if config < 12:  # SILK: 10, 20, 40, 60 ms
        return (480, 960, 1920, 2880)[config & 3]
    if config < 16:  # hybrid: 10, 20 ms
        return (480, 960)[config & 1]
    return (120, 240, 480, 960)[config & 3]  # CELT: 2.5, 5, 10, 20 ms


def packet_frames(packet: bytes) -> list[tuple[int, int]]:
    """Where the frames lie: (offset, size) of each, in bytes, padding left out.

    Raises MalformedPacket when a requirement of RFC 6716, section 3.4, is not met.
    """
    if not packet:
        raise MalformedPacket("an empty packet")
    toc = packet[0]
    code = toc & 3
    end = len(packet)
    if code == 0:
        return _bounded([(1, end - 1)])
    if code == 1:
        if (end - 1) % 2:
            raise MalformedPacket("two frames of one size in an odd number of bytes")
        half = (end - 1) // 2
        return _bounded([(1, half), (1 + half, half)])
    if code == 2:
        first, start = _length(packet, 1, end)
        if start + first > end:
            raise MalformedPacket("the first frame is longer than the packet")
        return _bounded([(start, first), (start + first, end - start - first)])
    return _bounded(_counted_frames(packet, toc))


def _counted_frames(packet: bytes, toc: int) -> list[tuple[int, int]]:
    """Code 3: a frame count, optional padding, and sizes if they differ (section 3.2.5)."""
    end = len(packet)
    if end < 2:
        raise MalformedPacket("no frame count")
    variable, padded, count = packet[1] >> 7, packet[1] >> 6 & 1, packet[1] & 63
    if not count:
        raise MalformedPacket("a frame count of 0")
    if count * frame_ticks(toc) > MAX_TICKS:
        raise MalformedPacket("longer than 120 ms")
    position = 2
    if padded:
        padding = 0
        more = True
        while more:
            if position >= end:
                raise MalformedPacket("the padding's length runs out of the packet")
            # 255 stands for 254 bytes of padding and another length byte
            more = packet[position] == 255
            padding += 254 if more else packet[position]
            position += 1
        end -= padding
        if position > end:
            raise MalformedPacket("more padding than packet")
    if not variable:
        size, rest = divmod(end - position, count)
        if rest:
            raise MalformedPacket("frames of one size do not fill the packet")
        return [(position + i * size, size) for i in range(count)]
    sizes = []
    for _ in range(count - 1):
        size, position = _length(packet, position, end)
        sizes.append(size)
    last = end - position - sum(sizes)
    if last < 0:
        raise MalformedPacket("the frames are longer than the packet")
    frames = []
    for size in (*sizes, last):
        frames.append((position, size))
        position += size
    return frames


def _length(packet: bytes, position: int, end: int) -> tuple[int, int]:
    """A frame length of one or two bytes and where it ends (section 3.2.1)."""
    if position >= end:
        raise MalformedPacket("a frame length runs out of the packet")
    first = packet[position]
    if first < 252:
        return first, position + 1
    if position + 1 >= end:
        raise MalformedPacket("a frame length runs out of the packet")
    return 4 * packet[position + 1] + first, position + 2


def _bounded(frames: list[tuple[int, int]]) -> list[tuple[int, int]]:
    if max(frames, key=itemgetter(1))[1] > MAX_FRAME_BYTES:
        raise MalformedPacket(f"a frame of more than {MAX_FRAME_BYTES} bytes")
    return frames


def packet_samples(packet: bytes) -> int:
    """Duration of the packet in samples at 48 kHz. Raises MalformedPacket, a ValueError."""
    if packet and packet[0] & 3 == 0 and len(packet) <= 1 + MAX_FRAME_BYTES:  # as nearly always
        return frame_ticks(packet[0])
    return len(packet_frames(packet)) * frame_ticks(packet[0])


def has_lbrr(packet: bytes) -> bool:
    """Whether the packet's first frame carries LBRR; False for what is no Opus packet.

    The LP layer of a SILK or hybrid frame begins, for each channel, with a VAD bit per 20 ms and
    the LBRR bit, which lie plainly at the top of the first byte (RFC 6716, section 4.2.3).
    """
    if packet and packet[0] & 3 == 0 and len(packet) <= 1 + MAX_FRAME_BYTES:
        offset, size = 1, len(packet) - 1
    else:
        try:
            offset, size = packet_frames(packet)[0]
        except MalformedPacket:
            return False
    toc = packet[0]
    if toc >= 128 or size == 0:  # CELT only, or DTX
        return False
    voice_bits = max(1, frame_ticks(toc) // 960)
    header = packet[offset]
    mid = header >> (7 - voice_bits) & 1
    side = toc & 4 and header >> (6 - 2 * voice_bits) & 1
    return bool(mid or side)
