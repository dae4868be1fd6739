"""Format parameters of Opus in SDP (RFC 7587 section 6.1; DRED: draft-ietf-mlcodec-opus-dred)."""

from __future__ import annotations

import re
from dataclasses import dataclass, fields

from aiortc.sdp import parameters_to_sdp

MIN_BITRATE = 6_000
MAX_BITRATE = 510_000


@dataclass(frozen=True, slots=True)
class OpusParameters:
    """What the party that states them wishes to receive, and (`sprop_`) what it is going to send.

    Declarative: they hold for one direction each and are not negotiated. Defaults are those of
    RFC 7587 for a parameter that is not there.
    """

    maxplaybackrate: int = 48_000
    """Hz; a higher audio bandwidth is wasted on the receiver."""
    sprop_maxcapturerate: int = 48_000
    stereo: bool = False
    sprop_stereo: bool = False
    maxaveragebitrate: int | None = None
    """bits/s"""
    cbr: bool = False
    useinbandfec: bool = False
    """LBRR is of use to the receiver."""
    usedtx: bool = False
    dred_duration: int | None = None
    """ms of DRED the receiver can use."""
    sprop_dred_duration: int | None = None
    """ms of DRED the sender is going to provide at most."""

    def to_fmtp(self) -> str:
        """All that differs from the defaults, and `stereo` always."""
        stated: dict[str, int | str | None] = {}
        for field in fields(self):
            value = getattr(self, field.name)
            if value != field.default or field.name == "stereo":
                stated[_SDP_NAMES[field.name]] = int(value)
        return parameters_to_sdp(stated)

    @classmethod
    def from_fmtp(cls, text: str) -> OpusParameters:
        """Raises ValueError if a parameter has a value it cannot have; unknown ones are ignored."""
        values: dict[str, int | bool] = {}
        for parameter in text.split(";"):
            name, _, value = (part.strip() for part in parameter.partition("="))
            if name in _FIELDS:
                values[_FIELDS[name]] = _parse(name, value)
        return cls(**values)  # type: ignore[arg-type]


_SDP_NAMES = {
    field.name: field.name.replace("sprop_", "sprop-") for field in fields(OpusParameters)
} | {
    "dred_duration": "ext32-dred-duration",
    "sprop_dred_duration": "sprop-ext32-dred-duration",
}
_FIELDS = {name: field for field, name in _SDP_NAMES.items()}
_RATES = range(8_000, 48_001)
_DURATIONS = range(60_001)


def _parse(name: str, value: str) -> int | bool:
    number = int(value) if re.fullmatch("[0-9]{1,10}", value) else -1
    if name == "maxaveragebitrate" and number >= 0:
        # values beyond what Opus can do mean the nearest it can
        return min(max(number, MIN_BITRATE), MAX_BITRATE)
    if name.endswith("dred-duration") and number >= 0:
        return min(number, _DURATIONS[-1])
    if name.endswith("rate") and number in _RATES:
        return number
    if name in ("stereo", "sprop-stereo", "cbr", "useinbandfec", "usedtx") and number in (0, 1):
        return bool(number)
    raise ValueError(f"Opus parameter {name}={value[:20]!r} is not valid")
