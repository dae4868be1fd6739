"""How far the pitch tracker is from Praat's, per speaker.

    python -m codec.training.pitch_report DIR [--voiced 0.0]

Needs praat-parselmouth. Both trackers are asked about the instants 10 ms apart on which the feature
windows are centred. Praat runs its autocorrelation method (Boersma 1993) between the frequencies
that the feature can express. A frame is voiced for us when feature 19 exceeds the threshold.

* gross: of the frames both call voiced, those whose frequencies differ by more than 20 %;
* halved, doubled: those within 20 % of half or of twice Praat's frequency, part of gross;
* all gross: the same over all frames Praat calls voiced, whatever we call them;
* fine: median of |f / f_praat - 1| over the frames that are not gross;
* missed, false: voiced frames of Praat's that we call unvoiced, and the reverse, each as a share of
  the frames Praat puts in that class; frames more than 50 dB below the loudest are left out.
"""

from __future__ import annotations

import argparse
import sys
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt

from codec.features import HOP, MAX_PERIOD, MIN_PERIOD, PERIODICITY, PITCH, FeatureExtractor
from codec.training.prepare import audio_files, decode

RATE = 16_000
GROSS = 0.2
AUDIBLE_DB = 50.0


@dataclass
class Comparison:
    """Frames of one speaker: periods in samples (0 = unvoiced for Praat), and feature 19."""

    ours: list[npt.NDArray[np.float64]] = field(default_factory=list)
    reference: list[npt.NDArray[np.float64]] = field(default_factory=list)
    periodicity: list[npt.NDArray[np.float64]] = field(default_factory=list)

    def add(self, pcm: npt.NDArray[np.int16]) -> None:
        features = FeatureExtractor().process(pcm).astype(np.float64)
        # 18 dB of c0 (an orthonormal DCT of log10 energies) are log10 units times sqrt(18).
        level = 10 * features[:, 0] / np.sqrt(18)
        audible = level > level.max() - AUDIBLE_DB
        self.ours.append((256 / np.exp2(features[:, PITCH] + 1.5))[audible])
        self.reference.append(praat_periods(pcm, len(features))[audible])
        self.periodicity.append(features[audible, PERIODICITY])

    def percentages(self, threshold: float) -> dict[str, float]:
        ours, reference = np.concatenate(self.ours), np.concatenate(self.reference)
        found = np.concatenate(self.periodicity) > threshold
        voiced = reference > 0
        ratio = np.where(voiced, reference, 1.0) / ours
        off = np.abs(ratio - 1) > GROSS
        both = voiced & found

        def share(part: npt.NDArray[np.bool_], whole: npt.NDArray[np.bool_]) -> float:
            return 100 * float(np.sum(part & whole)) / max(1, int(np.sum(whole)))

        return {
            "voiced": share(voiced, np.ones_like(voiced)),
            "gross": share(off, both),
            "halved": share(np.abs(2 * ratio - 1) <= GROSS, both),
            "doubled": share(np.abs(ratio / 2 - 1) <= GROSS, both),
            "all gross": share(off, voiced),
            "fine": 100 * float(np.median(np.abs(ratio - 1)[both & ~off])) if both.any() else 0.0,
            "missed": share(~found, voiced),
            "false": share(found, ~voiced),
        }


def praat_periods(pcm: npt.NDArray[np.int16], frames: int) -> npt.NDArray[np.float64]:
    """Periods in samples at the instants 160 k, 0 where Praat finds no voice; float64 [frames]."""
    import parselmouth  # type: ignore[import-not-found, import-untyped, unused-ignore]

    sound = parselmouth.Sound(pcm / 32768.0, sampling_frequency=RATE)
    pitch = sound.to_pitch_ac(
        time_step=0.001, pitch_floor=RATE / MAX_PERIOD, pitch_ceiling=RATE / MIN_PERIOD
    )
    frequencies = np.asarray(pitch.selected_array["frequency"])
    nearest = np.rint((np.arange(frames) * HOP / RATE - pitch.x1) / pitch.dx).astype(int)
    inside = (nearest >= 0) & (nearest < len(frequencies))
    at_frames = np.where(inside, frequencies[np.clip(nearest, 0, len(frequencies) - 1)], 0.0)
    return np.divide(RATE, at_frames, out=np.zeros(frames), where=at_frames > 0)


def report(folder: Path, threshold: float) -> str:
    """A table, one line a speaker; the speaker is the file name without its last `_` part."""
    speakers: dict[str, Comparison] = defaultdict(Comparison)
    for path in audio_files(folder):
        speakers[path.stem.rpartition("_")[0] or path.stem].add(decode(path))
    rows = {name: c.percentages(threshold) for name, c in sorted(speakers.items())}
    if not rows:
        raise ValueError(f"no audio files below {folder}")
    columns = list(next(iter(rows.values())))
    rows["mean"] = {c: float(np.mean([row[c] for row in rows.values()])) for c in columns}
    width = max(map(len, rows))
    lines = [f"{'%':<{width}}" + "".join(f"{c:>11}" for c in columns)]
    lines += [
        f"{name:<{width}}" + "".join(f"{row[c]:>11.2f}" for c in columns)
        for name, row in rows.items()
    ]
    return "\n".join(lines)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="pitch_report", description="Compare the pitch tracker with Praat's."
    )
    parser.add_argument("folder", type=Path, metavar="DIR", help="recordings, searched recursively")
    parser.add_argument(
        "--voiced", type=float, default=0.0, help="feature 19 above this is voiced (default 0)"
    )
    options = parser.parse_args(argv)
    try:
        print(report(options.folder, options.voiced))
    except (ValueError, OSError) as error:
        print(f"pitch_report: {error}", file=sys.stderr)
        return 2
    except ImportError:
        print("pitch_report: needs the package praat-parselmouth", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
