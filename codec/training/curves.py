"""Draw the curve of an LPCNet run: `python -m codec.training.curves RUN OUT.png`."""

import argparse
import csv
import sys
from pathlib import Path

import matplotlib as mpl

mpl.use("Agg")

from matplotlib import pyplot as plt

LOSSES = (
    ("loss", "training (gains and noise)"),
    ("clean", "unseen speakers, exact history"),
    ("noisy", "unseen speakers, noisy history"),
)


def read_curve(path: Path) -> list[dict[str, float]]:
    """Rows of a `curve.tsv`; a figure that was not taken at a row is absent from it."""
    with path.open(newline="") as file:
        return [
            {name: float(value) for name, value in row.items() if value}
            for row in csv.DictReader(file, delimiter="\t")
        ]


def draw(rows: list[dict[str, float]], out: Path) -> None:
    """Losses, and below them density, learning rate and speed, over the audio seen."""
    figure, (upper, lower) = plt.subplots(2, 1, figsize=(7, 5.5), sharex=True)
    for name, label in LOSSES:
        points = [(row["audio_hours"], row[name]) for row in rows if name in row]
        if points:
            upper.plot(
                *zip(*points, strict=True), marker="." if name != "loss" else "", label=label
            )
    upper.set_ylabel("nats per sample")
    upper.legend()
    upper.grid(alpha=0.3)
    hours = [row["audio_hours"] for row in rows]
    lower.plot(hours, [row["density"] for row in rows], label="density of GRU A's recurrence")
    lower.plot(hours, [row["rate"] * 1000 for row in rows], label="learning rate × 1000")
    lower.plot(hours, [row["speed"] / 10 for row in rows], label="seconds of audio per second / 10")
    lower.set_xlabel("hours of audio seen")
    lower.legend()
    lower.grid(alpha=0.3)
    figure.tight_layout()
    figure.savefig(out, dpi=90)
    plt.close(figure)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="codec.training.curves", description=__doc__)
    parser.add_argument("run", type=Path)
    parser.add_argument("out", type=Path)
    arguments = parser.parse_args(argv)
    try:
        draw(read_curve(arguments.run / "curve.tsv"), arguments.out)
    except (OSError, ValueError) as error:
        print(f"codec.training.curves: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
