"""What is compared: means of recovery with their bitrates, and buffers."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

from app.options import CallOptions, Recovery, UsageError

EXPECTED_LOSS = 20
"""Percent, told to libopus."""
COMPLEXITY = 10

IDEAL = "ideal"
"""The buffer that has the first packet behind a hole in time, however long the hole."""


@dataclass(frozen=True, slots=True)
class Condition:
    """One way to protect speech. Equal conditions code and recover alike."""

    name: str
    recovery: Recovery
    label: str
    lossless: bool = False
    """No network at all: what the codec does to speech."""
    bitrate: int = 24_000
    """Of Opus, LBRR included, bits/s."""
    dred_ms: int = 1000
    """How far back DRED reaches, if there is any."""
    red_copies: int = 1

    def call(self, seed: int) -> CallOptions:
        """The options of a call like that. Raises UsageError."""
        return CallOptions(
            bitrate=self.bitrate,
            complexity=COMPLEXITY,
            expected_loss=EXPECTED_LOSS,
            recovery=self.recovery,
            dred_ms=self.dred_ms if self.recovery.dred else None,
            red_copies=self.red_copies,
            seed=seed,
        )


CONDITIONS = (
    Condition("none", Recovery.OPUS_PLC, "no loss", lossless=True),
    Condition("opus-plc", Recovery.OPUS_PLC, "libopus PLC"),
    Condition("plc", Recovery.PLC, "neural PLC"),
    Condition("lbrr", Recovery.LBRR, "LBRR", bitrate=40_000),
    Condition("red", Recovery.RED, "RED, 1 copy"),
    Condition("red2", Recovery.RED, "RED, 2 copies", red_copies=2),
    Condition("dred", Recovery.DRED, "DRED"),
    Condition("lbrr+dred", Recovery.LBRR_DRED, "LBRR + DRED", bitrate=40_000),
)
"""By default, and what others are variations of."""

_BY_NAME = {condition.name: condition for condition in CONDITIONS}
_UNITS = {"bitrate": "bits/s", "dred-ms": "ms", "red-copies": "copies"}


def parse_conditions(words: Sequence[str]) -> list[Condition]:
    """Conditions by name, each once: NAME or NAME:SETTING=NUMBER[:...]; commas separate as well.

    Settings are `bitrate`, `dred-ms` and `red-copies`. Raises UsageError with the wrong word.
    """
    texts = [text for word in words for text in word.split(",") if text]
    return list(dict.fromkeys(_parse(text) for text in texts)) or list(CONDITIONS)


def _parse(text: str) -> Condition:
    name, *settings = text.split(":")
    condition = _BY_NAME.get(name)
    if condition is None:
        raise UsageError(f"--conditions: no '{name}' among {', '.join(_BY_NAME)}")
    for setting in settings:
        match = re.fullmatch(r"([a-z-]+)=([0-9]{1,6})", setting)
        if not match or match[1] not in _UNITS:
            raise UsageError(
                f"--conditions: '{setting}' in '{text}' is not SETTING=NUMBER,"
                f" with a SETTING of {', '.join(_UNITS)}"
            )
        field, value = match[1].replace("-", "_"), int(match[2])
        label = f"{condition.label}, {value} {_UNITS[match[1]]}"
        condition = replace(condition, name=text, label=label, **{field: value})  # type: ignore[arg-type]
    condition.call(0)  # refuses what is out of range
    return condition
