"""The call at a glance while it lasts: some lines redrawn in a terminal, else one now and then."""

from __future__ import annotations

import contextlib
import threading
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.text import Text

from app.report import Bitrate, DredUse
from codec.frame import FrameSource

REFRESH_HZ = 4.0
"""Enough for a needle to follow speech; a redraw costs a millisecond or two of CPU."""

PLAIN_SECONDS = 5.0
"""Between lines where there is no terminal."""

RECENT_SECONDS = 5.0
"""What "recent" loss means, the time a user has a loss in mind."""

LABEL = 9
"""Columns of the labels on the left."""

NARROW = 50
"""Columns below which the meters get the place of the bit rates."""

METER_FLOOR_DB = -60.0
METER_YELLOW_DB = -18.0
METER_RED_DB = -6.0
"""EBU R 68 alignment level, and the headroom below which clipping is near."""

SOURCE_STYLES: Mapping[FrameSource, str] = {
    FrameSource.PACKET: "green",
    FrameSource.RED: "magenta",
    FrameSource.LBRR: "cyan",
    FrameSource.DRED: "blue",
    FrameSource.PLC: "yellow",
    FrameSource.SILENCE: "red",
}


@dataclass(frozen=True, slots=True)
class Level:
    """One needle, dBFS."""

    rms_db: float
    held_db: float


@dataclass(frozen=True, slots=True, kw_only=True)
class CallSnapshot:
    """A call at one instant; counters since its beginning, None where nothing is known."""

    elapsed: float
    """Seconds since the call began."""
    state: str
    """One or two words: `ringing`, `in call`, `peer silent`."""
    peer: str | None = None
    codec: str | None = None
    recovery: str | None = None
    sending: Bitrate | None = None
    receiving: Bitrate | None = None
    packets_received: int = 0
    packets_lost: int = 0
    frames: Mapping[FrameSource, int] = field(default_factory=dict)
    jitter: float | None = None
    round_trip: float | None = None
    buffer: float | None = None
    """Seconds a packet waits before playout at present."""
    delay: float | None = None
    """Seconds from mouth to ear of the latest frame."""
    delay_p95: float | None = None
    uncertainty: float | None = None
    deadlines_missed: int = 0
    microphone: Level | None = None
    speaker: Level | None = None
    dred: DredUse | None = None
    note: str | None = None
    """Something the user should know now."""


class RecentLoss:
    """Loss over the last seconds, out of cumulative counters."""

    def __init__(self, seconds: float = RECENT_SECONDS) -> None:
        self._seconds = seconds
        self._marks: deque[tuple[float, int, int]] = deque()

    def update(self, snapshot: CallSnapshot) -> float | None:
        """Share lost, 0..1; None while nothing was expected."""
        now = snapshot.elapsed
        self._marks.append((now, snapshot.packets_received, snapshot.packets_lost))
        while len(self._marks) > 2 and self._marks[1][0] <= now - self._seconds:
            self._marks.popleft()
        _, received, lost = self._marks[0]
        return _loss(snapshot.packets_received - received, snapshot.packets_lost - lost)


class LiveView:
    """Shows snapshots from a thread of its own, for a terminal may block.

    `snapshot` is called on that thread, `REFRESH_HZ` times a second in a terminal and every
    `plain_seconds` elsewhere (a pipe, TERM=dumb). Writes to stderr unless given a console, so that
    stdout stays free for JSON. Colours follow NO_COLOR.
    """

    def __init__(
        self,
        snapshot: Callable[[], CallSnapshot],
        console: Console | None = None,
        *,
        plain_seconds: float = PLAIN_SECONDS,
    ) -> None:
        if plain_seconds <= 0:
            raise ValueError(f"{plain_seconds} s between lines is not positive")
        self._snapshot = snapshot
        self._console = console or Console(stderr=True)
        self._recent = RecentLoss()
        self._live: Live | None = None
        if self._console.is_terminal and not self._console.is_dumb_terminal:
            self._live = Live(
                console=self._console, auto_refresh=False, transient=True, redirect_stdout=False
            )
        self.period = plain_seconds if self._live is None else 1.0 / REFRESH_HZ
        """Seconds between refreshes."""
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        if self._live:
            self._live.start()
        self._thread = threading.Thread(target=self._run, name="live view", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Clears the view; returns at once if the terminal does not take output."""
        self._stopping.set()
        if self._thread:
            self._thread.join(timeout=1.0)
            if self._thread.is_alive():
                return
        if self._live:
            with contextlib.suppress(OSError):  # a terminal that is gone needs no clearing
                self._live.stop()

    def refresh(self) -> None:
        """Shows the present state once."""
        snapshot = self._snapshot()
        recent = self._recent.update(snapshot)
        if self._live:
            view = render(snapshot, self._console.width, recent, ascii_only=self._ascii_only)
            self._live.update(view, refresh=True)
        else:
            line = plain_line(snapshot, recent)
            if self._ascii_only:
                line = line.replace("±", "+/-")
            # past rich, which answers a closed pipe by exiting and closing stdout too
            self._console.file.write(line + "\n")
            self._console.file.flush()

    @property
    def _ascii_only(self) -> bool:
        return not self._console.encoding.startswith("utf")

    def _run(self) -> None:
        # a terminal wants a picture at once, a log its first line when there is something to say
        try:
            if self._live:
                self.refresh()
            while not self._stopping.wait(self.period):
                self.refresh()
        except OSError:  # nobody reads any more
            return

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()


def render(
    snapshot: CallSnapshot, width: int, recent_loss: float | None, *, ascii_only: bool = False
) -> RenderableType:
    """Lines for a terminal `width` columns wide; what does not fit is cut off."""
    dash = ("--" if ascii_only else "–") + " "
    head = Text.assemble(
        (_clock(snapshot.elapsed), "bold"),
        f"  {snapshot.state}  ",
        (snapshot.peer or "", "bold"),
    )
    coding = ", ".join(filter(None, (snapshot.codec, snapshot.recovery)))
    narrow = width < NARROW
    sending, receiving = (None, None) if narrow else (snapshot.sending, snapshot.receiving)
    rows = [
        ("codec", Text(coding) if coding else None),
        ("sending", _level_row(snapshot.microphone, sending, width, ascii_only)),
        ("heard", _level_row(snapshot.speaker, receiving, width, ascii_only)),
        ("network", Text(_network_text(snapshot, recent_loss))),
        ("frames", _frames_row(snapshot.frames)),
        ("delay", Text(_delay_text(snapshot, "+/-" if ascii_only else "±"))),
        ("DRED", Text(str(snapshot.dred)) if snapshot.dred else None),
        ("late", _late_row(snapshot.deadlines_missed)),
    ]
    lines = [head]
    for label, row in rows:
        if row is not None:
            lines.append(Text.assemble((f"{label:<{LABEL}}", "dim"), row))
    if snapshot.note:
        lines.append(Text(dash + snapshot.note, "bold yellow"))
    for line in lines:
        line.no_wrap = True
        line.truncate(width, overflow="crop" if ascii_only else "ellipsis")
    return Group(*lines)


def plain_line(snapshot: CallSnapshot, recent_loss: float | None) -> str:
    """The same in one line without colour."""
    frames = " ".join(
        f"{source.value} {snapshot.frames[source]}"
        for source in FrameSource
        if snapshot.frames.get(source)
    )
    levels = [
        f"{name} {level.rms_db:.0f} dB"
        for name, level in (("mic", snapshot.microphone), ("heard", snapshot.speaker))
        if level
    ]
    parts = [
        f"{_clock(snapshot.elapsed)} {snapshot.state}",
        _network_text(snapshot, recent_loss),
        f"frames {frames}" if frames else "",
        f"delay {_delay_text(snapshot)}",
        _bitrate_text(snapshot.receiving),
        *levels,
        f"DRED {snapshot.dred}" if snapshot.dred else "",
        f"{snapshot.deadlines_missed} late" if snapshot.deadlines_missed else "",
        snapshot.note or "",
    ]
    return "; ".join(filter(None, parts))


def meter_bar(level: Level, width: int, *, ascii_only: bool = False) -> Text:
    """`width` (1 or more) columns from -60 to 0 dBFS: the RMS filled, the held peak as a tick."""
    full, tick, empty = ("#", "|", ".") if ascii_only else ("█", "▌", "·")
    filled, peak = _column(level.rms_db, width), _column(level.held_db, width)
    cells = [full] * filled + [empty] * (width - filled)
    if peak:
        cells[peak - 1] = tick
    bar = Text()
    edges = [_column(METER_YELLOW_DB, width), _column(METER_RED_DB, width), width]
    begin = 0
    # few pieces, one per colour: the cost of a redraw is in their number
    for end, colour in zip(edges, ("green", "yellow", "red"), strict=True):
        bar.append("".join(cells[begin:end]), colour)
        begin = end
    return bar


def _column(db: float, width: int) -> int:
    return max(0, min(width, round((1.0 - db / METER_FLOOR_DB) * width)))


def _level_row(
    level: Level | None, bitrate: Bitrate | None, width: int, ascii_only: bool
) -> Text | None:
    if level is None and bitrate is None:
        return None
    row = Text()
    if level:
        # a label of 9 and a figure of 8 beside it, and 20 more for the bit rate
        columns = max(4, min(30, width - LABEL - 8 - (20 if bitrate else 0)))
        row.append_text(meter_bar(level, columns, ascii_only=ascii_only))
        row.append(f" {level.rms_db:4.0f} dB")
    if bitrate:
        row.append(("  " if level else "") + _bitrate_text(bitrate))
    return row


def _frames_row(frames: Mapping[FrameSource, int]) -> Text:
    row = Text()
    for source in FrameSource:
        if count := frames.get(source, 0):
            row.append(f"{source.value} {count}  ", SOURCE_STYLES[source])
    return row if row else Text("none yet")


def _late_row(missed: int) -> Text | None:
    return Text(f"{missed} frames missed their deadline", "red") if missed else None


def _network_text(snapshot: CallSnapshot, recent_loss: float | None) -> str:
    loss = _loss(snapshot.packets_received, snapshot.packets_lost)
    if loss is None:
        return "nothing received"
    parts = [f"lost {100 * loss:.1f} %"]
    if recent_loss is not None:
        parts[0] += f" (now {100 * recent_loss:.0f} %)"
    if snapshot.jitter is not None:
        parts.append(f"jitter {1e3 * snapshot.jitter:.1f} ms")
    if snapshot.round_trip is not None:
        parts.append(f"round trip {1e3 * snapshot.round_trip:.0f} ms")
    return ", ".join(parts)


def _delay_text(snapshot: CallSnapshot, plus_minus: str = "±") -> str:
    if snapshot.delay is None:
        text = "not known yet"
    else:
        text = f"{1e3 * snapshot.delay:.0f} ms"
        if snapshot.uncertainty is not None:
            text += f" {plus_minus} {1e3 * snapshot.uncertainty:.1f}"
        if snapshot.delay_p95 is not None:
            text += f", p95 {1e3 * snapshot.delay_p95:.0f} ms"
    if snapshot.buffer is not None:
        text += f", buffer {1e3 * snapshot.buffer:.0f} ms"
    return text


def _bitrate_text(bitrate: Bitrate | None) -> str:
    if bitrate is None:
        return ""
    return f"{bitrate.opus / 1e3:.1f} + {(bitrate.dred + bitrate.red) / 1e3:.1f} kb/s"


def _loss(received: int, lost: int) -> float | None:
    expected = received + lost
    return max(0.0, lost / expected) if expected > 0 else None


def _clock(seconds: float) -> str:
    minutes, rest = divmod(max(0, int(seconds)), 60)
    return f"{minutes:02d}:{rest:02d}"
