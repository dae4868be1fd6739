"""DRED in Opus packets: which extension it is, and the ways in and out.

    encoder = DredEncoder(lookahead=opus.lookahead)
    encoder.push(pcm)
    packet = attach_dred(opus.encode(pcm), encoder.payload(max_ms=1000, max_bytes=80))
    ...
    dred = DredDecoder().parse(packet, timestamp)
    if dred:
        features, known = dred.at(timestamp - 960, 2)

The syntax is that of draft-ietf-mlcodec-opus-dred; the trained numbers are not libopus's. So the
payload stands under the experimental extension ID with a prefix of our own, and neither side takes
the other's payload for its own.
"""

from __future__ import annotations

from enum import StrEnum

from codec.dred_decoder import DredFeatures
from codec.dred_encoder import DredEncoder
from codec.dred_model import DredModel, DredModelError
from codec.dred_syntax import DredSyntaxError, decode_symbols
from codec.extensions import Extension, find_extension, with_extensions
from codec.opus_packet import frame_ticks

__all__ = [
    "DredDecoder",
    "DredEncoder",
    "DredFeatures",
    "DredKind",
    "DredModel",
    "DredModelError",
    "DredSyntaxError",
    "attach_dred",
    "dred_kind",
]

EXPERIMENTAL_ID = 126
STANDARD_ID = 32
PREFIX = b"L\x01"
"""Feature set and weights: L for LPCNet, version 1."""
LIBOPUS_PREFIX = b"D"
"""Followed by libopus's version: 10 in 1.5, 12 in 1.6."""


class DredKind(StrEnum):
    """Whose redundancy a packet carries."""

    NONE = "none"
    OURS = "ours"
    LIBOPUS = "libopus"
    UNKNOWN = "unknown"


def dred_kind(packet: bytes) -> DredKind:
    """Total: any bytes. UNKNOWN stands for redundancy of a version that is not spoken here."""
    for kind, prefix in ((DredKind.OURS, PREFIX), (DredKind.LIBOPUS, LIBOPUS_PREFIX)):
        if find_extension(packet, EXPERIMENTAL_ID, prefix):
            return kind
    if find_extension(packet, EXPERIMENTAL_ID) or find_extension(packet, STANDARD_ID):
        return DredKind.UNKNOWN
    return DredKind.NONE


def attach_dred(packet: bytes, payload: bytes) -> bytes:
    """The packet with a payload of `DredEncoder` on its first frame; as it was if that is empty.

    Raises MalformedPacket.
    """
    if not payload:
        return packet
    return with_extensions(packet, Extension(EXPERIMENTAL_ID, PREFIX + payload))


class DredDecoder:
    """Takes redundancy out of packets. Raises DredModelError if there is no model."""

    def __init__(self, model: DredModel | None = None) -> None:
        self._model = model or DredModel.default()

    def parse(self, packet: bytes, timestamp: int) -> DredFeatures | None:
        """What the packet with this RTP timestamp (extended, 48 kHz) says about the past.

        None if it carries no redundancy of ours (see `dred_kind`). Raises DredSyntaxError if it
        carries one that is damaged. No network runs before features are asked for.
        """
        found = find_extension(packet, EXPERIMENTAL_ID, PREFIX)
        if found is None:
            return None
        symbols = decode_symbols(found.payload[len(PREFIX) :], self._model.statistics)
        return DredFeatures(symbols, timestamp + found.frame * frame_ticks(packet[0]), self._model)
