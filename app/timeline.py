"""The story of a call frame by frame: when packets came, when frames were played and from what."""

from __future__ import annotations

from array import array
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from app.net.rtp import timestamp_difference
from app.options import UsageError
from app.picture import MAX_FRAMES, SOURCES
from app.whole_file import whole_file
from codec import FRAME_SECONDS, RTP_CLOCK
from codec.frame import FrameSource

SUFFIXES = (".png", ".html")

Column = npt.NDArray[np.float64]


class Timeline:
    """Collects packets and frames in bounded memory, 64 bytes for 20 ms, four hours at most.

    `add_packet` may run on another thread than `add_frame`.
    """

    def __init__(self, max_frames: int = MAX_FRAMES) -> None:
        self._max = max_frames
        self._origin: int | None = None
        self._packets = array("d")
        self._frames = array("d")
        self.dropped = 0
        """Frames that came after the last that there is room for."""

    def add_packet(self, timestamp: int, arrival: float) -> None:
        """A media packet has come. Instants are seconds of any one clock."""
        if self._origin is None:
            self._origin = timestamp
        if len(self._packets) < 2 * self._max:
            self._packets.extend((self._media(timestamp), arrival))

    def add_frame(
        self,
        playout: float,
        timestamp: int,
        source: FrameSource,
        *,
        target: float,
        delay: float | None,
        stretched: float = 0.0,
    ) -> None:
        """A frame has been played; all in seconds but `timestamp`, which is RTP's, extended or not.

        `target` is what the jitter buffer aims at, `delay` that from mouth to ear if known,
        `stretched` how much more (or less) time it took than it was said in. Silence in which no
        frame was due, before the first or after the last, has timestamp 0 or comes first of all,
        and is left out.
        """
        silent = source is FrameSource.SILENCE
        if silent and not (timestamp and len(self._frames)):
            return
        if len(self._frames) >= _FRAME * self._max:
            self.dropped += 1
            return
        total = np.nan if delay is None else delay
        kind = float(SOURCES.index(source))
        self._frames.extend((playout, self._media(timestamp), kind, target, total, stretched))

    def _media(self, timestamp: int) -> float:
        """Seconds of speech since the first packet's."""
        if self._origin is None:
            return float("nan")
        return timestamp_difference(timestamp & 0xFFFF_FFFF, self._origin) / RTP_CLOCK

    def view(self) -> TimelineView:
        """All of it as columns."""
        packets = np.array(self._packets, dtype=np.float64)
        packets = packets[: len(packets) // 2 * 2].reshape(-1, 2).T
        frames = np.array(self._frames, dtype=np.float64).reshape(-1, _FRAME).T
        offset = float((packets[1] - packets[0]).min()) if packets.size else 0.0
        return TimelineView(
            packet_media=packets[0],
            packet_delay=packets[1] - packets[0] - offset,
            media=frames[1],
            playout_delay=frames[0] - frames[1] - offset,
            source=frames[2].astype(np.uint8),
            target=frames[3],
            delay=frames[4],
            stretched=frames[5],
        )


_FRAME = 6
"""Numbers kept for a frame."""


@dataclass(frozen=True, slots=True)
class TimelineView:
    """Columns of one value per packet, or per frame played, in seconds.

    Speech time counts from the first packet's. Delays count from when the frame would have come
    as fast as the fastest packet did: those of packets are what the network added, those of
    frames what the jitter buffer did.
    """

    packet_media: Column
    """Speech time of what each packet carries."""
    packet_delay: Column
    media: Column
    """Speech time of each frame played."""
    playout_delay: Column
    source: npt.NDArray[np.uint8]
    """Places in `picture.SOURCES`."""
    target: Column
    """What the jitter buffer aimed at."""
    delay: Column
    """From mouth to ear, NaN where unknown."""
    stretched: Column
    """By how much longer (or shorter) it was played than said."""

    def too_late(self) -> npt.NDArray[np.bool_]:
        """Which packets came when their frame had been played already."""
        played: dict[int, float] = {}
        for number, delay in zip(_numbers(self.media), self.playout_delay, strict=True):
            played[number] = delay
        return np.array(
            [
                number in played and delay > played[number]
                for number, delay in zip(
                    _numbers(self.packet_media), self.packet_delay, strict=True
                )
            ],
            dtype=bool,
        )

    def never_came(self) -> Column:
        """Speech times of the frames played whose own packet has not come."""
        came = set(_numbers(self.packet_media))
        return np.array(
            [
                media
                for media, number in zip(self.media, _numbers(self.media), strict=True)
                if number not in came
            ]
        )


def _numbers(media: Column) -> list[int]:
    """Frame numbers of speech times."""
    return [int(number) for number in np.rint(media / FRAME_SECONDS)]


def check_timeline(path: Path) -> None:
    """Raises UsageError if no timeline can have that name."""
    if path.suffix.lower() not in SUFFIXES:
        raise UsageError(f"--timeline: {path} is none of {', '.join(SUFFIXES)}")


def draw_timeline(timeline: Timeline, title: str, suffix: str) -> bytes:
    """The content of a file with one of `SUFFIXES`: a picture or a page."""
    view = timeline.view()
    shortened = timeline.dropped > 0
    if suffix.lower() == ".html":
        from app.timeline_page import timeline_page

        return timeline_page(view, title, shortened=shortened).encode()
    from app.timeline_picture import timeline_png

    return timeline_png(view, title, shortened=shortened)


def write_timeline(path: Path, timeline: Timeline, title: str) -> None:
    """Draws to a file. Raises UsageError if it cannot be written."""
    content = draw_timeline(timeline, title, path.suffix)
    try:
        with whole_file(path) as file:
            file.write(content)
    except OSError as error:
        raise UsageError(f"--timeline: {path}: {error.strerror}") from None
