"""DRED in Opus packets: which extension it is, and the ways in and out.

encoder = DredEncoder(lookahead=opus.lookahead)
encoder.push(pcm)
packet = attach_dred(opus.encode(pcm), encoder.payload(max_ms=1000, max_bytes=80))
...
dred = DredDecoder().parse(packet, timestamp)
if dred:
    features, known = dred.at(timestamp - 960, 2)
"""

from __future__ import annotations

from codec.dred_decoder import DredFeatures
from codec.dred_encoder import DredEncoder
from codec.dred_model import DredModel, DredModelError
from codec.dred_packet import EXPERIMENTAL_ID, PREFIX, DredKind, attach_dred, dred_kind
from codec.dred_syntax import DredSyntaxError, decode_symbols
from codec.extensions import find_extension
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
