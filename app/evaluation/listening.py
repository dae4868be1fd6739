"""What to listen to: the best and the worst heard clip, in every condition, with pictures."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cache

import av
import numpy as np
import numpy.typing as npt
from av.audio.stream import AudioStream

from app.evaluation.cell import LETTERS, Cell, Row, frame_letters
from app.evaluation.charts import RATE, SINGLE
from app.evaluation.networks import NO_NETWORK
from app.evaluation.statistics import number
from app.picture import COLOURS
from codec import FRAME, FRAME_SECONDS, SAMPLE_RATE

Pcm = npt.NDArray[np.int16]

BITRATE = 40_000
"""bits/s of the sound in the report: enough to leave what is to be heard as it is."""

INCHES = (9.6, 1.45)
DPI = 100
SHADES = 200
"""Colours of a spectrogram; with all of them the report would be twice as large."""

_SOURCES = {letter: source for source, letter in LETTERS.items()}


@dataclass(frozen=True, slots=True)
class Sound:
    """One thing to listen to."""

    mode: str | None
    """Condition; None for what was said."""
    row: Row | None
    picture: str
    """Data URI of a PNG: the spectrogram, and above it how each frame was had."""
    audio: str
    """Data URI of Ogg Opus."""


@dataclass(frozen=True, slots=True)
class Example:
    """One clip on one network, in all conditions."""

    title: str
    clip: str
    network: str
    buffer: str
    sounds: Sequence[Sound]


def examples(cells: Sequence[Cell], rows: Sequence[Row], score: str) -> list[Example]:
    """The clip that fared worst and the one that fared best with the last condition with loss.

    `rows` are those of `cells`. Simulates them again. Raises what `Cell.hear` does.
    """
    pairs = list(zip(cells, rows, strict=True))
    met = [
        (cell, row) for cell, row in pairs if row["trace"] != NO_NETWORK and number(row, "lost") > 0
    ]
    met = [(c, row) for c, row in met if row["class"] not in (RATE, SINGLE)] or met
    if not met:
        return []
    mode, buffer = met[-1][1]["mode"], pairs[0][1]["buffer"]
    ranked = sorted(
        (pair for pair in met if pair[1]["mode"] == mode and pair[1]["buffer"] == buffer),
        key=lambda pair: number(pair[1], score),
    )
    chosen = [("worst", ranked[0])] + ([("best", ranked[-1])] if len(ranked) > 1 else [])
    return [_example(title, cell, pairs) for title, (cell, _) in chosen]


def _example(title: str, chosen: Cell, pairs: Sequence[tuple[Cell, Row]]) -> Example:
    said = chosen.clip.pcm
    sounds = [Sound(None, None, draw(said, ""), opus_uri(said))]
    for cell, row in pairs:
        same = cell.clip == chosen.clip and cell.buffer == chosen.buffer
        if same and (cell.network == chosen.network or cell.condition.lossless):
            result = cell.hear()
            heard = result.aligned
            sounds.append(
                Sound(cell.condition.name, row, draw(heard, frame_letters(result)), opus_uri(heard))
            )
    return Example(title, chosen.clip.name, chosen.network.name, chosen.buffer, sounds)


def opus_uri(pcm: Pcm) -> str:
    """A data URI of Ogg Opus, of int16 [n] at 16 kHz; the same bytes every time."""
    file = io.BytesIO()
    with av.open(file, "w", format="ogg", options={"fflags": "+bitexact"}) as container:
        stream = container.add_stream("libopus", rate=SAMPLE_RATE, layout="mono")
        assert isinstance(stream, AudioStream)
        stream.bit_rate = BITRATE
        stream.options = {"application": "audio", "frame_duration": "20"}
        frame = av.AudioFrame.from_ndarray(pcm.reshape(1, -1), format="s16", layout="mono")
        frame.sample_rate = SAMPLE_RATE
        frame.time_base = Fraction(1, SAMPLE_RATE)
        frame.pts = 0
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return _uri("audio/ogg", file.getvalue())


def draw(pcm: Pcm, letters: str) -> str:
    """A data URI of a PNG: the spectrogram of int16 [n] below a strip with a colour per frame."""
    # imported here: they take half a second
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.colors import to_rgb
    from matplotlib.figure import Figure
    from PIL import Image

    palette = Image.new("P", (1, 1))
    palette.putpalette(_palette())
    seconds = len(pcm) / SAMPLE_RATE
    figure = Figure(figsize=INCHES, dpi=DPI)
    canvas = FigureCanvasAgg(figure)
    strip = figure.add_axes((0.055, 0.88, 0.925, 0.11))
    below = figure.add_axes((0.055, 0.2, 0.925, 0.66))
    if letters:
        colours = [[to_rgb(COLOURS[_SOURCES[letter]]) for letter in letters]]
        strip.imshow(
            colours,
            extent=(0, len(letters) * FRAME_SECONDS, 0, 1),
            aspect="auto",
            interpolation="none",
        )
    strip.set_xlim(0, seconds)
    strip.axis("off")
    with np.errstate(divide="ignore"):  # digital silence has no level
        below.specgram(
            pcm / 32768,
            NFFT=400,
            Fs=SAMPLE_RATE,
            noverlap=400 - FRAME // 4,
            pad_to=512,
            vmin=-130,
            vmax=-50,
            cmap="magma",
        )
    below.set_facecolor("black")
    below.set_xlim(0, seconds)
    below.set_yticks([0, 4000, 8000], ["0", "4", "8 kHz"])
    below.set_xticks(range(int(seconds) + 1), [f"{s} s" for s in range(int(seconds) + 1)])
    below.tick_params(labelsize=7.5, length=2, pad=2)
    canvas.draw()  # type: ignore[no-untyped-call]
    pixels = np.asarray(canvas.buffer_rgba())  # type: ignore[no-untyped-call]
    image = Image.fromarray(pixels[..., :3])
    file = io.BytesIO()
    image = image.quantize(palette=palette, dither=Image.Dither.NONE)
    image.save(file, format="png", optimize=True)
    return _uri("image/png", file.getvalue())


@cache
def _palette() -> bytes:
    """Of a spectrogram, of the strip above it, and of the writing around it."""
    from matplotlib import colormaps
    from matplotlib.colors import to_rgb

    shades = colormaps["magma"](np.linspace(0, 1, SHADES))[:, :3]
    sources = [to_rgb(colour) for colour in COLOURS.values()]
    greys = np.repeat(np.linspace(0, 1, 256 - SHADES - len(sources))[:, None], 3, axis=1)
    colours = 255 * np.concatenate([shades, sources, greys])
    return bytes(np.rint(colours).astype(np.uint8).tobytes())


def _uri(kind: str, content: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"
