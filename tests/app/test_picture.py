"""The picture shows every frame in the colour of its source, where it was played."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from matplotlib.colors import to_rgb
from matplotlib.image import imread

from app.picture import (
    COLOURS,
    COLUMNS,
    HEIGHT,
    SLOTS,
    SOURCES,
    WIDTH,
    CallTrace,
    PictureSide,
    _columns,
    draw_call,
)
from codec import FRAME
from codec.frame import FrameSource

Image = npt.NDArray[np.float32]


def tone(frames: int, amplitude: int = 8000) -> Iterator[npt.NDArray[np.int16]]:
    t = np.arange(frames * FRAME)
    pcm = np.rint(amplitude * np.sin(2 * np.pi * 440 / 16_000 * t)).astype(np.int16)
    yield from pcm.reshape(frames, FRAME)


def traced(sources: list[FrameSource], delay: float | None = None) -> CallTrace:
    trace = CallTrace()
    for pcm, source in zip(tone(len(sources)), sources, strict=True):
        trace.add(pcm, source, delay)
    return trace


def drawn(tmp_path: Path, *traces: CallTrace) -> Image:
    path = tmp_path / "call.png"
    draw_call(path, [PictureSide(f"side {n}", trace) for n, trace in enumerate(traces)], "a call")
    image: Image = imread(path)[:, :, :3]
    return image


def pixels(image: Image, colour: str) -> npt.NDArray[np.bool_]:
    """bool [height, width]: where the picture has exactly that colour."""
    near: npt.NDArray[np.bool_] = (np.abs(image - np.array(to_rgb(colour))) < 2 / 255).all(axis=2)
    return near


def test_each_source_that_occurs_is_drawn_and_no_other(tmp_path: Path) -> None:
    image = drawn(tmp_path, traced([FrameSource.PACKET] * 400 + [FrameSource.DRED] * 100))
    assert image.shape == (HEIGHT, WIDTH, 3)
    counts = {source: int(pixels(image, COLOURS[source]).sum()) for source in SOURCES}
    assert counts[FrameSource.DRED] > 10_000
    assert counts[FrameSource.PACKET] / counts[FrameSource.DRED] == pytest.approx(4, rel=0.1)
    for absent in (FrameSource.RED, FrameSource.LBRR, FrameSource.PLC, FrameSource.SILENCE):
        assert counts[absent] == 0


def test_a_hole_is_drawn_where_it_was_played(tmp_path: Path) -> None:
    sources = [FrameSource.PACKET] * 500
    sources[300:310] = [FrameSource.PLC] * 10  # 6.0 s to 6.2 s of 10 s
    image = drawn(tmp_path, traced(sources))[HEIGHT // 4 :]  # below the legend
    ordinary = np.flatnonzero(pixels(image, COLOURS[FrameSource.PACKET]).any(axis=0))
    left, width = ordinary[0], ordinary[-1] + 1 - ordinary[0]
    hole = np.flatnonzero(pixels(image, COLOURS[FrameSource.PLC]).any(axis=0))
    assert hole[0] == pytest.approx(left + 0.60 * width, abs=2)
    assert hole[-1] + 1 == pytest.approx(left + 0.62 * width, abs=2)


def test_a_lost_frame_of_silence_is_still_seen(tmp_path: Path) -> None:
    trace = CallTrace()
    for number in range(200):
        lost = 80 <= number < 120
        trace.add(np.zeros(FRAME, np.int16), SOURCES[-1] if lost else SOURCES[0])
    image = drawn(tmp_path, trace)
    tint = 0.22 * np.array(to_rgb(COLOURS[FrameSource.SILENCE])) + 0.78
    tinted = (np.abs(image - tint) < 3 / 255).all(axis=2)
    assert tinted.mean() > 0.1


def test_two_sides_and_their_delay_make_three_rows(tmp_path: Path) -> None:
    def rows(image: Image) -> int:
        """Counts the upper and lower borders of the axes: long dark lines."""
        dark = (image.max(axis=2) < 0.15).sum(axis=1) > 0.8 * WIDTH
        return int(np.count_nonzero(np.diff(dark.astype(int)) == 1)) // 2

    plain = [FrameSource.PACKET] * 200
    assert rows(drawn(tmp_path, traced(plain))) == 1
    assert rows(drawn(tmp_path, traced(plain, 0.1), traced(plain))) == 3


def test_calls_of_any_length_can_be_drawn(tmp_path: Path) -> None:
    assert drawn(tmp_path, CallTrace()).shape == (HEIGHT, WIDTH, 3)
    long_call = traced([FrameSource.PACKET, FrameSource.LBRR] * 10_000, 0.1)
    assert pixels(drawn(tmp_path, long_call), COLOURS[FrameSource.LBRR]).any()


def test_columns_keep_the_extremes_and_the_worst_source() -> None:
    sources = [FrameSource.PACKET] * 20_000
    sources[12_345] = FrameSource.PLC
    trace = traced(sources)
    edges, low, high, worst = _columns(trace, COLUMNS)
    assert len(low) == len(high) == len(worst) == len(edges) - 1 <= COLUMNS
    assert edges[-1] == pytest.approx(400.0)
    assert low.min() == pytest.approx(-8000 / 32768)
    assert high.max() == pytest.approx(8000 / 32768)
    (column,) = np.flatnonzero(worst == SOURCES.index(FrameSource.PLC))
    assert edges[column] <= 12_345 * 0.02 + 1e-9 < edges[column + 1]


@pytest.mark.parametrize("frames", [1, 7, 100, 376, 751, 1501, 3001])
def test_a_column_never_spans_a_part_of_a_frame_beside_another(frames: int) -> None:
    edges, *_ = _columns(traced([FrameSource.PACKET] * frames), COLUMNS)
    frame_edges = np.arange(frames + 1) * 0.02
    coarse, fine = sorted([edges, frame_edges], key=len)
    assert np.abs(coarse[:, None] - fine[None, :]).min(axis=1).max() < 1e-9


def test_a_trace_keeps_what_was_added() -> None:
    trace = CallTrace()
    pcm = np.zeros(FRAME, np.int16)
    pcm[0], pcm[-1] = -32768, 16384
    trace.add(pcm, FrameSource.DRED, 0.125)
    trace.add(pcm, FrameSource.PACKET)
    assert trace.extremes.shape == (2, 2 * SLOTS)
    assert trace.extremes[:, 0].tolist() == [-1.0, 0.0]
    assert trace.extremes[:, SLOTS - 1].tolist() == [0.0, 0.5]
    assert trace.delays[0] == 0.125
    assert np.isnan(trace.delays[1])
    assert trace.counts() == {FrameSource.PACKET: 1, FrameSource.DRED: 1}


def test_a_trace_stops_growing_at_its_limit() -> None:
    trace = CallTrace(max_frames=10)
    for pcm in tone(15):
        trace.add(pcm, FrameSource.PACKET)
    assert len(trace) == 10
    assert trace.dropped == 5


@pytest.mark.parametrize("number", [0, 3])
def test_more_or_fewer_sides_than_one_or_two_are_refused(number: int, tmp_path: Path) -> None:
    sides = [PictureSide("side", CallTrace())] * number
    with pytest.raises(ValueError, match=f"not {number}"):
        draw_call(tmp_path / "call.png", sides)


def test_a_place_that_cannot_be_written_raises_os_error(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="missing"):
        draw_call(tmp_path / "missing" / "call.png", [PictureSide("side", CallTrace())])


def test_importing_the_module_does_not_import_matplotlib() -> None:
    check = "import sys, app.picture; sys.exit('matplotlib' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", check], check=False).returncode == 0
