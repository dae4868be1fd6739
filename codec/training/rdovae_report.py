"""Rate against distortion of the exported RDO-VAE, on speakers that it was not trained on.

    python -m codec.training.rdovae_report --data DATA [--models DIR] [--minutes M]

Everything is counted on what a call would send: 8-bit tables, rounded values, payloads of 1 s coded
to bytes. Prints a Markdown table.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from codec.dred_model import MODELS, DredModel
from codec.dred_syntax import MAX_BYTES, DredHeader, DredSymbols, encode_symbols
from codec.features import NUM_BANDS, PERIODICITY, PITCH
from codec.training.dataset import Dataset

Array = npt.NDArray[np.float32]

LATENTS = 25
"""Of a payload of 1 s."""
SETTINGS = [(q0, 0) for q0 in range(16)] + [(q0, 7) for q0 in range(0, 10, 2)]
"""q0 and dQ."""
VOICED = 0.2
"""Periodicity feature above which a frame's pitch matters."""


@dataclass
class Passage:
    """A file's features and what the encoder made of it, by 20 ms step."""

    pairs: Array
    latents: Array
    initial: Array


@dataclass
class Result:
    """Means over payloads."""

    payload_bytes: float
    latent_bits: float
    state_bits: float
    cepstrum_rms: float
    pitch_median: float
    pitch_off: float
    periodicity_rms: float


def encode_all(model: DredModel, data: Dataset, minutes: float) -> list[Passage]:
    """The held-out recordings, unaltered, until so much speech has been taken."""
    passages, frames = [], 0
    for first, count in data.runs("valid", copies=[0]):
        if frames > minutes * 6000:
            break
        rows = np.array(data.features[first : first + count // 2 * 2]).reshape(-1, 40)
        pairs = np.concatenate([np.zeros((1, 40), np.float32), rows])
        latents, initial, _ = model.encode(pairs, model.encoder_state())
        passages.append(Passage(pairs, latents, initial))
        frames += count
    return passages


def measure(model: DredModel, passages: list[Passage], q0: int, slope: int) -> Result:
    """Payloads of 1 s, half a second apart, at one setting."""
    statistics = model.statistics
    header = DredHeader(q0, slope)
    levels = np.array([header.level(i) for i in range(LATENTS)])
    sizes, bits, state_bits, errors, voiced = [], [], [], [], []
    for passage in passages:
        for newest in range(2 * LATENTS, len(passage.latents), LATENTS):
            run = np.arange(newest, newest - 2 * LATENTS, -2)
            symbols = DredSymbols(
                header,
                statistics.state.quantise(passage.initial[newest], q0),
                statistics.latent.quantise(passage.latents[run], levels),
            )
            sizes.append(len(encode_symbols(symbols, statistics, MAX_BYTES)))
            bits.append(statistics.latent.cost(symbols.latents, levels) / LATENTS)
            state_bits.append(statistics.state.cost(symbols.state, q0))
            state = model.start(statistics.state.dequantise(symbols.state, q0))
            values = statistics.latent.dequantise(symbols.latents, levels)
            decoded, _ = model.decode(values, levels, state)
            # Oldest first: the pair before a latent's own, then its own.
            both = np.concatenate([passage.pairs[run], passage.pairs[run + 1]], 1)
            truth = both.reshape(LATENTS, 4, -1)[:, ::-1].reshape(-1, decoded.shape[1])
            errors.append(decoded - truth)
            voiced.append(truth[:, PERIODICITY] > VOICED)
    error, spoken = np.concatenate(errors), np.concatenate(voiced)
    pitch = np.abs(error[spoken, PITCH]) * np.log(2)
    return Result(
        payload_bytes=float(np.mean(sizes)),
        latent_bits=float(np.mean(bits)),
        state_bits=float(np.mean(state_bits)),
        cepstrum_rms=float(np.sqrt(np.mean(error[:, :NUM_BANDS] ** 2))),
        pitch_median=float(np.median(pitch)),
        pitch_off=float(np.mean(pitch > 0.1)),
        periodicity_rms=float(np.sqrt(np.mean(error[:, PERIODICITY] ** 2))),
    )


def table(model: DredModel, passages: list[Passage]) -> str:
    lines = [
        "| q0 | dQ | bits / 40 ms | state bits | bytes for 1 s | cepstrum rms | pitch, median error"
        " | pitch > 10 % off | periodicity rms |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for q0, slope in SETTINGS:
        r = measure(model, passages, q0, slope)
        lines.append(
            f"| {q0} | {slope} | {r.latent_bits:.1f} | {r.state_bits:.0f} | {r.payload_bytes:.0f}"
            f" | {r.cepstrum_rms:.3f} | {100 * r.pitch_median:.1f} % | {100 * r.pitch_off:.1f} %"
            f" | {r.periodicity_rms:.3f} |"
        )
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--data", type=Path, required=True, help="folder of a prepared data set")
    parser.add_argument("--models", type=Path, default=MODELS, help="folder of the exported model")
    parser.add_argument("--minutes", type=float, default=5.0, help="speech to take (default 5)")
    options = parser.parse_args(arguments)
    model = DredModel(options.models)
    passages = encode_all(model, Dataset.open(options.data), options.minutes)
    print(table(model, passages))


if __name__ == "__main__":
    main()
