"""Recorded losses: a text of one 0 or 1 per packet, 1 = lost."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from app.netem.spec import NetemError

MAX_TRACE_BYTES = 16 * 2**20
"""Of a trace file: 8 million packets, or 46 hours at 20 ms."""


class LossTrace:
    """Which packets are lost (true) in the order they are sent; at its end it begins again.

    Raises NetemError when it is empty.
    """

    def __init__(self, losses: Iterable[int], name: str = "loss trace") -> None:
        self.losses = bytes(map(bool, losses))
        if not self.losses:
            raise NetemError(f"{name}: no packets in it, expected a 0 or 1 for each")

    def __len__(self) -> int:
        return len(self.losses)

    def __getitem__(self, index: int) -> bool:
        """Whether packet number `index`, from 0 and without end, is lost."""
        return bool(self.losses[index % len(self.losses)])


def parse_loss_trace(text: str, name: str = "loss trace") -> LossTrace:
    """A trace from 0s and 1s set apart by white space; `name` is for messages.

    Raises NetemError, which names the line and the wrong word.
    """
    losses = bytearray()
    for number, line in enumerate(text.split("\n"), 1):
        for match in re.finditer(r"\S+", line):
            if match[0] not in ("0", "1"):
                raise NetemError(f"{name}, line {number}: {match[0][:40]!r}: expected 0 or 1")
            losses.append(match[0] == "1")
    return LossTrace(losses, name)


def load_loss_trace(path: Path | str) -> LossTrace:
    """The trace in a file of at most `MAX_TRACE_BYTES`. Raises NetemError."""
    try:
        with open(path, "rb") as file:
            content = file.read(MAX_TRACE_BYTES + 1)
    except OSError as error:
        raise NetemError(f"{path}: {error.strerror or error}") from error
    if len(content) > MAX_TRACE_BYTES:
        raise NetemError(f"{path}: larger than {MAX_TRACE_BYTES // 2**20} MiB")
    return parse_loss_trace(content.decode("utf-8", "backslashreplace"), str(path))
