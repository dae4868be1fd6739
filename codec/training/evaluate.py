"""What the vocoder and everything built on it sounds like, in numbers and pictures.

    python -m codec.training.evaluate --clips DIR                copies, and holes of 20 %
    python -m codec.training.evaluate --clips DIR --traces DIR   Opus and recovery on loss traces
    python -m codec.training.evaluate --compare OURS.csv THEIRS.csv

Results are printed and written to `--out` as CSV, one row per clip and condition. With traces, clip
i (files sorted by name, from 0) meets trace i of each class: CLASS/00.txt, CLASS/01.txt and so on
below that folder. See `codec.training.ladder`.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from codec import FRAME
from codec.concealer import Concealer
from codec.dred_model import DredModelError
from codec.feature_predictor import PredictorError
from codec.features import FeatureExtractor
from codec.frame import FrameSource
from codec.lpcnet import LpcNet, LpcNetError, Sampling, synthesize
from codec.opus import OpusError
from codec.training.comparison import compare, comparison_lines, read_table
from codec.training.ladder import (
    Losses,
    Mode,
    Pcm,
    burst_losses,
    hear,
    losses_of,
    read_trace,
    send,
)
from codec.training.metrics import (
    NAMES,
    Metrics,
    MetricsError,
    joint_flux,
    joint_prominence,
    near_losses,
)
from codec.training.prepare import PrepareError, audio_files, decode
from codec.training.results import Picture, Row, averages, spectrograms, table_lines, write_csv

LADDER = tuple(Mode)


def speaker_of(clip: Path) -> str:
    """The name of a clip without its number."""
    stem, _, number = clip.stem.rpartition("_")
    return stem if stem and number.isdigit() else clip.stem


def fill(
    pcm: Pcm, lost: Losses, net: LpcNet, *, known: bool, sampling: Sampling, seed: int = 0
) -> Pcm:
    """A clip, int16 [320 n], with its lost frames spoken from true features, or predicted."""
    features = FeatureExtractor().process(pcm)
    concealer = Concealer(net, seed=seed, sampling=sampling)
    heard = []
    for i, frame in enumerate(pcm.reshape(-1, FRAME)):
        if not lost[i]:
            heard.append(concealer.good(frame))
        elif known:
            heard.append(concealer.rebuild(features[2 * i : 2 * i + 4]))
        else:
            heard.append(concealer.conceal())
    return np.concatenate(heard)


def joints_of(lost: Losses) -> list[int]:
    """Samples at which holes begin and end."""
    return [FRAME * (int(i) + 1) for i in np.flatnonzero(np.diff(lost.astype(int)))]


def evaluate_holes(
    clips: Sequence[Path],
    net: LpcNet,
    metrics: Metrics,
    *,
    share: float,
    sampling: Sampling,
    seed: int = 0,
    picture: Picture | None = None,
) -> Iterator[Row]:
    """Copy synthesis, and the same holes filled in several ways, of uncoded speech.

    libopus conceals its own stream, so `opus-plc` is coded at 24 kb/s; `opus` is that without loss.
    """
    for number, path in enumerate(clips):
        pcm = decode(path)
        pcm = pcm[: len(pcm) // FRAME * FRAME]
        lost = burst_losses(len(pcm) // FRAME, share, np.random.default_rng(seed + number))
        sent = send(pcm, Mode.NONE)
        packets = np.append(lost, np.zeros(len(sent.packets) - len(lost), bool))
        heard: dict[str, Pcm] = {
            "clean": pcm,
            "copy": synthesize(net, FeatureExtractor().process(pcm), seed=seed, sampling=sampling),
            "zeros": np.where(np.repeat(lost, FRAME), 0, pcm).astype(np.int16),
            "features": fill(pcm, lost, net, known=True, sampling=sampling, seed=seed),
            "plc": fill(pcm, lost, net, known=False, sampling=sampling, seed=seed),
            "opus": hear(sent, packets, Mode.NONE, net).pcm,
            "opus-plc": hear(sent, packets, Mode.OPUS_PLC, net).pcm,
        }
        for condition, result in heard.items():
            prominence = joint_prominence(result, pcm, joints_of(lost))
            flux = joint_flux(result, joints_of(lost))
            yield {
                "clip": path.name,
                "speaker": speaker_of(path),
                "condition": condition,
                "lost": round(float(lost.mean()), 4),
                **_rounded(metrics(pcm, result)),
                "joint_p90": round(float(np.quantile(prominence, 0.9)), 3),
                "joint_max": round(float(prominence.max()), 3),
                "flux_db": round(float(np.median(flux)), 2),
            }
        if picture is not None:
            picture(
                path.stem, {name: heard[name] for name in ("clean", "zeros", "features", "plc")}
            )
            picture(f"{path.stem}_copy", {name: heard[name] for name in ("clean", "copy")})


def evaluate_traces(
    clips: Sequence[tuple[int, Path]],
    traces: Path,
    net: LpcNet,
    metrics: Metrics,
    *,
    modes: Sequence[Mode] = LADDER,
    seed: int = 0,
    picture: Picture | None = None,
) -> Iterator[Row]:
    """Opus with each means of recovery; clip number i meets trace i of each class.

    Raises ValueError if a trace is none, OSError if it is missing.
    """
    classes = sorted(folder.parent for folder in traces.glob("*/00.txt"))
    for number, path in clips:
        clip = decode(path)
        for mode in modes:
            sent = send(clip, mode)
            lossy = [
                (f"{folder.name}/{number:02d}", read_trace(folder / f"{number:02d}.txt"))
                for folder in classes
                if (folder / f"{number:02d}.txt").is_file()
            ]
            meets = [("-", np.zeros(1, bool))] if mode is Mode.NONE else lossy
            for name, trace in meets:
                lost = losses_of(trace, len(sent.packets))
                heard = hear(sent, lost, mode, net, seed=seed)
                near = near_losses(heard.lost)[sent.lookahead :][: len(clip)]
                row: Row = {
                    "clip": path.name,
                    "trace": name,
                    "mode": mode.value,
                    "kbps": round(sent.kbps, 1),
                    "lost": round(float(heard.lost.mean()), 4),
                    "pkt": heard.frames[FrameSource.PACKET],
                    "lbrr": heard.frames[FrameSource.LBRR],
                    "dred": heard.frames[FrameSource.DRED],
                    "plc": heard.frames[FrameSource.PLC],
                    **_rounded(metrics(clip, heard.pcm)),
                }
                if "estoi" in metrics.names:
                    row["hole_estoi"] = _hole_estoi(clip, heard.pcm, near)
                yield row
                if picture is not None:
                    picture(
                        f"{path.stem}_{name.replace('/', '-')}_{mode}",
                        {"sent": clip, f"heard: {mode}": heard.pcm},
                    )


def _hole_estoi(sent: Pcm, heard: Pcm, near: npt.NDArray[np.bool_]) -> float | str:
    if near.sum() < 25 * FRAME:  # less than STOI can measure
        return ""
    return _rounded(Metrics(["estoi"])(sent[near], heard[near]))["estoi"]


def _rounded(values: Mapping[str, float]) -> dict[str, float]:
    return {name: round(value, 4) for name, value in values.items()}


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="codec.training.evaluate", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--clips", type=Path, help="folder of speech, any format FFmpeg reads")
    parser.add_argument("--every", type=int, default=1, metavar="K", help="take every K-th clip")
    parser.add_argument("--weights", type=Path, help="LPCNet weights, by default the package's")
    parser.add_argument("--path", help="instruction set of the vocoder, by default the best")
    parser.add_argument("--float", action="store_true", help="float32 in place of int8")
    parser.add_argument("--walk", action="store_true", help="draw by walking the tree")
    parser.add_argument("--holes", type=float, default=0.2, metavar="SHARE", help="0-0.5, 0.2")
    parser.add_argument("--traces", type=Path, help="folder of loss traces by class")
    parser.add_argument("--modes", default=",".join(LADDER), help=f"of {', '.join(LADDER)}")
    parser.add_argument("--metrics", default=",".join(NAMES), help=f"of {', '.join(NAMES)}")
    parser.add_argument("--pictures", action="store_true", help="write spectrograms as well")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("runs/evaluation"))
    parser.add_argument(
        "--compare", nargs=2, type=Path, metavar=("OURS", "THEIRS"), help="tables already made"
    )
    return parser


def _evaluate(arguments: argparse.Namespace) -> None:
    if arguments.compare:
        ours, theirs = map(read_table, arguments.compare)
        print("\n".join(comparison_lines(compare(ours, theirs))))
        return
    if arguments.clips is None:
        raise ValueError("--clips or --compare is needed")
    if not 0 < arguments.holes <= 0.5:
        raise ValueError(f"--holes {arguments.holes:g} is not in 0-0.5")
    if arguments.every < 1:
        raise ValueError(f"--every {arguments.every} is not 1 or more")
    modes = [Mode(word) for word in arguments.modes.split(",")]
    clips = list(enumerate(audio_files(arguments.clips)))[:: arguments.every]
    if not clips:
        raise ValueError(f"no clips in {arguments.clips}")
    metrics = Metrics(arguments.metrics.split(","))
    weights = {} if arguments.weights is None else {"weights": arguments.weights}
    net = LpcNet(**weights, path=arguments.path, quantised=not arguments.float)
    arguments.out.mkdir(parents=True, exist_ok=True)
    picture = spectrograms(arguments.out) if arguments.pictures else None
    if arguments.traces is not None:
        rows = _collect(
            evaluate_traces(
                clips,
                arguments.traces,
                net,
                metrics,
                modes=modes,
                seed=arguments.seed,
                picture=picture,
            ),
            arguments.out / "traces.csv",
        )
        for row in rows:
            row["class"] = row["trace"].split("/")[0]
        print("\n".join(table_lines(averages(rows, ["mode", "class"]))))
        return
    sampling = Sampling(walk=True, voicing=1.2) if arguments.walk else Sampling()
    rows = _collect(
        evaluate_holes(
            [path for _, path in clips],
            net,
            metrics,
            share=arguments.holes,
            sampling=sampling,
            seed=arguments.seed,
            picture=picture,
        ),
        arguments.out / "holes.csv",
    )
    print("\n".join(table_lines(averages(rows, ["condition"]))), end="\n\n")
    print("\n".join(table_lines(averages(rows, ["speaker", "condition"]))))


def _collect(rows: Iterator[Row], path: Path) -> list[Row]:
    """Rows as they come, written anew after each, so that an interrupted run leaves a table."""
    done: list[Row] = []
    for row in rows:
        done.append(row)
        write_csv(path, done)
        print(" ".join(f"{value}" for value in row.values()), file=sys.stderr)
    return done


def main(argv: Sequence[str] | None = None) -> int:
    try:
        _evaluate(_parser().parse_args(argv))
    except (
        MetricsError,
        OSError,
        ValueError,
        LpcNetError,
        PredictorError,
        DredModelError,
        OpusError,
        PrepareError,
    ) as error:
        print(f"codec.training.evaluate: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
