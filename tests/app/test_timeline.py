"""A timeline shows when packets came and frames were played, as a picture and as a page."""

from __future__ import annotations

import io
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.colors import to_rgb
from matplotlib.image import imread

from app.options import UsageError
from app.picture import COLOURS, SOURCES
from app.timeline import Timeline, check_timeline, draw_timeline, write_timeline
from app.timeline_picture import HEIGHT, LATE, WIDTH
from codec import FRAME_SECONDS, FRAME_TICKS
from codec.frame import FrameSource

ORIGIN = 2**32 - 10 * FRAME_TICKS
"""RTP timestamps wrap in the tenth frame."""


def timeline(
    sources: list[FrameSource], *, late: frozenset[int] = frozenset(), stretched: float = 0.0
) -> Timeline:
    """Packets take 30 ms, those that are `late` 200; frames are played 100 ms after capture."""
    line = Timeline()
    for n, source in enumerate(sources):
        captured = 7.0 + n * FRAME_SECONDS
        if source is FrameSource.PACKET or n in late:
            transit = 0.200 if n in late else 0.030
            line.add_packet((ORIGIN + n * FRAME_TICKS) % 2**32, captured + transit)
        line.add_frame(
            captured + 0.100,
            ORIGIN + n * FRAME_TICKS,
            source,
            target=0.060,
            delay=0.1065,
            stretched={50: stretched, 60: -stretched}.get(n, 0.0),
        )
    return line


def mixed() -> list[FrameSource]:
    sources = [FrameSource.PACKET] * 200
    sources[100:103] = [FrameSource.DRED, FrameSource.DRED, FrameSource.LBRR]
    sources[150] = FrameSource.PLC
    return sources


def pixels(png: bytes, colour: str) -> int:
    image = imread(io.BytesIO(png))[:, :, :3]
    assert image.shape == (HEIGHT, WIDTH, 3)
    return int((np.abs(image - np.array(to_rgb(colour))) < 2 / 255).all(axis=2).sum())


def data_of(page: str) -> dict[str, Any]:
    match = re.search(r"^const data = (.*);$", page, re.MULTILINE)
    assert match
    data: dict[str, Any] = json.loads(match[1])
    return data


def test_delays_count_from_the_fastest_packet() -> None:
    view = timeline(mixed(), late=frozenset({150})).view()
    assert view.media == pytest.approx(FRAME_SECONDS * np.arange(200), abs=1e-6)
    assert view.playout_delay == pytest.approx([0.070] * 200)
    assert np.flatnonzero(view.packet_delay > 0.1).tolist() == [147]
    assert view.packet_media[147] == pytest.approx(150 * FRAME_SECONDS)
    assert np.flatnonzero(view.too_late()).tolist() == [147]
    assert view.never_came() == pytest.approx(FRAME_SECONDS * np.array([100, 101, 102]))


def test_silence_in_which_nothing_was_due_is_left_out() -> None:
    line = Timeline()
    line.add_frame(1.0, 0, FrameSource.SILENCE, target=0.06, delay=None)
    line.add_packet(ORIGIN, 1.01)
    line.add_frame(1.02, ORIGIN, FrameSource.SILENCE, target=0.06, delay=None)
    line.add_frame(1.08, ORIGIN, FrameSource.PACKET, target=0.06, delay=None)
    line.add_frame(1.10, ORIGIN + FRAME_TICKS, FrameSource.SILENCE, target=0.06, delay=None)
    line.add_frame(1.12, 0, FrameSource.SILENCE, target=0.06, delay=None)
    assert line.view().media == pytest.approx([0.0, FRAME_SECONDS])


def test_a_picture_shows_each_source_that_occurs_and_no_other() -> None:
    png = draw_timeline(timeline(mixed()), "a call", ".png")
    shown = {source for source in SOURCES if pixels(png, COLOURS[source]) > 100}
    assert shown == set(mixed())
    assert not pixels(png, LATE)
    assert pixels(draw_timeline(timeline(mixed(), late=frozenset({150})), "", ".png"), LATE)


def test_time_scaling_has_a_row_where_there_was_some() -> None:
    scaled, plain = (
        draw_timeline(timeline(mixed(), stretched=stretched), "", ".png")
        for stretched in (0.01, 0.0)
    )
    for colour in ("#7b3fa0", "#00838f"):
        assert pixels(scaled, colour)
        assert not pixels(plain, colour)


def test_a_page_holds_every_frame_and_needs_nothing_else() -> None:
    title = "</script><b>a & b"
    page = draw_timeline(timeline(mixed(), stretched=0.01), title, ".HTML").decode()
    assert title not in page
    assert "&lt;/script&gt;&lt;b&gt;a &amp; b" in page
    assert not re.search(r"(src|href)\s*=|https?://|import\s*\(", page)
    frames = data_of(page)["frames"]
    assert [SOURCES[n] for n in frames["source"]] == mixed()
    assert frames["playout"] == [70.0] * 200
    assert frames["target"] == [60.0] * 200
    assert frames["delay"] == [106.5] * 200
    assert {n: ms for n, ms in enumerate(frames["stretched"]) if ms} == {50: 10.0, 60: -10.0}
    assert len(data_of(page)["packets"]["media"]) == 196


@pytest.mark.parametrize("suffix", [".png", ".html"])
def test_calls_without_a_packet_are_drawn_too(suffix: str) -> None:
    assert draw_timeline(Timeline(), "nobody spoke", suffix)


def test_memory_is_bounded() -> None:
    line = Timeline(max_frames=10)
    for n in range(25):
        line.add_packet(n * FRAME_TICKS, 1.0 + n * FRAME_SECONDS)
        line.add_frame(2.0, n * FRAME_TICKS, FrameSource.PACKET, target=0.06, delay=None)
    assert line.dropped == 15
    assert len(line.view().media) == len(line.view().packet_media) == 10
    assert "the beginning only" in draw_timeline(line, "", ".html").decode()


def test_names_and_places_that_will_not_do_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"line\.svg is none of \.png, \.html"):
        check_timeline(Path("line.svg"))
    with pytest.raises(UsageError, match="--timeline"):
        write_timeline(tmp_path / "missing" / "line.html", Timeline(), "")
