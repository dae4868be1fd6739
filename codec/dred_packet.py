"""Which extension of an Opus packet is DRED, and whose: no model is needed to tell.

The syntax is that of draft-ietf-mlcodec-opus-dred; the trained numbers are not libopus's. So the
payload stands under the experimental extension ID with a prefix of our own, and neither side takes
the other's payload for its own.
"""

from __future__ import annotations

from enum import StrEnum

from codec.extensions import Extension, find_extension, with_extensions

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


def dred_size(packet: bytes) -> int:
    """Bytes of our redundancy in a packet, prefix included; 0 if there is none. Total."""
    found = find_extension(packet, EXPERIMENTAL_ID, PREFIX)
    return len(found.payload) if found else 0


def attach_dred(packet: bytes, payload: bytes) -> bytes:
    """The packet with a payload of `DredEncoder` on its first frame; as it was if that is empty.

    Raises MalformedPacket.
    """
    if not payload:
        return packet
    return with_extensions(packet, Extension(EXPERIMENTAL_ID, PREFIX + payload))
