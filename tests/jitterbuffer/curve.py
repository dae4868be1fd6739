"""How much is rebuilt for how much delay, on a recorded loss trace:

    python -m tests.jitterbuffer.curve TRACE...

A trace is a text file of 0 and 1 (lost), one per packet. Packets come without jitter, each with
LBRR and 400 ms of DRED; what is counted is what can be made of them in time, not how it sounds.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

from codec.frame import FrameSource, HoleAction
from jitterbuffer import Latency, LatencyPolicy
from tests.jitterbuffer.playout import payload
from tests.jitterbuffer.speech import TICK, Line, PlanDecoder

REBUILT = (FrameSource.LBRR, FrameSource.DRED)
TARGETS: dict[str, float | LatencyPolicy] = {
    **{f"fixed {ms}": ms / 1e3 for ms in (30, 60, 80, 100, 120, 160, 200)},
    **{latency.value: LatencyPolicy.of(latency) for latency in Latency},
}


def measure(target: float | LatencyPolicy, lost: list[bool]) -> str:
    line = Line(target, PlanDecoder(), lambda number: payload(number, lbrr=True, dred=True))
    arrived = (number for number, is_lost in enumerate(lost) if not is_lost)
    # instants that meet 60, 80, ... ms exactly
    heard = line.run(line.packets(arrived), TICK * len(lost), beat=0.0005)
    sources = heard.sources()
    missing = [number for number, is_lost in enumerate(lost[:-50]) if is_lost]
    rebuilt = sum(sources.get(number) in REBUILT for number in missing) / len(missing)
    delays = heard.delays()
    held = sum(frame.action is HoleAction.HOLD for frame in heard.frames)
    stats = line.buffer.stats
    return (
        f"{np.mean(delays):6.1f} {np.percentile(delays, 95):6.1f} {100 * rebuilt:9.1f} {held:6d}"
        f" {stats.inserted_samples_for_deceleration / 16e3:9.2f}"
        f" {stats.removed_samples_for_acceleration / 16e3:8.2f}"
    )


def main() -> None:
    for name in sys.argv[1:]:
        lost = [digit == "1" for digit in Path(name).read_text().split()]
        print(f"{name}: {len(lost)} packets, {100 * np.mean(lost):.1f} % lost")
        print(f"{'':10}   mean p95 ms rebuilt %   held  put in s    out s")
        for label, target in TARGETS.items():
            print(f"{label:10} {measure(target, lost)}", flush=True)


if __name__ == "__main__":
    main()
