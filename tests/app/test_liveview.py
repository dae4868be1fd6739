"""The live view: what it says, where it fits, and that it is quiet where nobody looks."""

import io
import re
import threading
from dataclasses import replace

import pytest
from rich.console import Console

from app.liveview import (
    PLAIN_SECONDS,
    REFRESH_HZ,
    CallSnapshot,
    Level,
    LiveView,
    RecentLoss,
    meter_bar,
    plain_line,
    render,
)
from app.report import Bitrate, DredUse
from codec.frame import FrameSource

SNAPSHOT = CallSnapshot(
    elapsed=83.2,
    state="in call",
    peer="[fe80::1]:5004",
    codec="Opus 24 kb/s",
    recovery="lbrr+dred",
    sending=Bitrate(23_500, 12_300),
    receiving=Bitrate(23_400, 12_200),
    packets_received=480,
    packets_lost=120,
    frames={FrameSource.PACKET: 480, FrameSource.DRED: 90, FrameSource.PLC: 30},
    jitter=0.0021,
    round_trip=0.042,
    buffer=0.04,
    delay=0.1062,
    delay_p95=0.12,
    uncertainty=0.0003,
    deadlines_missed=2,
    microphone=Level(-23.0, -12.0),
    speaker=Level(-31.0, -5.0),
    dred=DredUse(480, 0, 0, None, "the peer's model is another version"),
    note="the peer has been silent for 3 s",
)


def drawn(snapshot: CallSnapshot, width: int, *, ascii_only: bool = False) -> list[str]:
    console = Console(file=io.StringIO(), width=width, color_system=None)
    console.print(render(snapshot, width, 0.12, ascii_only=ascii_only))
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue().splitlines()


def test_the_view_says_who_how_much_was_lost_and_what_became_of_it() -> None:
    text = "\n".join(drawn(SNAPSHOT, 100))
    for words in (
        "01:23  in call  [fe80::1]:5004",
        "Opus 24 kb/s, lbrr+dred",
        "-23 dB  23.5 + 12.3 kb/s",
        "lost 20.0 % (now 12 %), jitter 2.1 ms, round trip 42 ms",
        "packet 480  dred 90  plc 30",
        "106 ms ± 0.3, p95 120 ms, buffer 40 ms",
        "carried in 480 packets, parsed 0, used 0 frames (the peer's model is another version)",
        "2 frames missed",
        "silent for 3 s",
    ):
        assert words in text


@pytest.mark.parametrize("width", [1, 8, 20, 32, 49, 60, 80, 250])
def test_every_line_fits_on_one_line_of_the_terminal(width: int) -> None:
    lines = drawn(SNAPSHOT, width)
    assert len(lines) == 10
    assert max(len(line) for line in lines) <= width


def test_a_narrow_terminal_keeps_the_level_readable() -> None:
    assert any("-31 dB" in line for line in drawn(SNAPSHOT, 32))


def test_a_terminal_without_unicode_gets_ascii() -> None:
    assert "\n".join(drawn(SNAPSHOT, 60, ascii_only=True)).isascii()


def test_what_is_unknown_is_left_out_or_said_to_be_unknown() -> None:
    lines = drawn(CallSnapshot(elapsed=0.0, state="ringing"), 80)
    assert [re.sub(" +", " ", line).strip() for line in lines] == [
        "00:00 ringing",
        "network nothing received",
        "frames none yet",
        "delay not known yet",
    ]


def test_a_meter_fills_with_the_level_and_ticks_at_the_peak() -> None:
    assert meter_bar(Level(-30.0, -6.0), 20).plain == "██████████·······▌··"
    assert meter_bar(Level(-96.0, -96.0), 20).plain == "·" * 20
    assert meter_bar(Level(0.0, 0.0), 10).plain == "█████████▌"


def test_a_meter_turns_red_only_near_full_scale() -> None:
    def colours(level: Level) -> set[str]:
        bar = meter_bar(level, 30)
        lit = len(bar.plain.rstrip("·"))
        return {str(span.style) for span in bar.spans if span.start < lit}

    assert colours(Level(-25.0, -20.0)) == {"green"}
    assert colours(Level(-25.0, -2.0)) == {"green", "yellow", "red"}


def test_recent_loss_forgets_what_is_past() -> None:
    recent = RecentLoss(seconds=5.0)
    assert recent.update(CallSnapshot(elapsed=0.0, state="in call")) is None
    shares = []
    for second in range(1, 21):
        lost = 10 * min(second, 10)  # 20 % in the first ten seconds, none after
        snapshot = CallSnapshot(
            elapsed=float(second),
            state="in call",
            packets_received=50 * second - lost,
            packets_lost=lost,
        )
        shares.append(recent.update(snapshot))
    assert shares[9] == pytest.approx(0.2)
    assert shares[12] == pytest.approx(0.08)
    assert shares[15:] == [0.0] * 5


def test_the_plain_line_is_one_line_with_the_same_figures() -> None:
    line = plain_line(SNAPSHOT, 0.12)
    assert "\n" not in line
    for words in ("01:23 in call", "lost 20.0 % (now 12 %)", "dred 90", "106 ms ± 0.3", "2 late"):
        assert words in line


def console_to(file: io.StringIO, *, terminal: bool) -> Console:
    return Console(file=file, force_terminal=terminal, width=80, color_system=None)


def test_without_a_terminal_there_are_plain_lines_every_few_seconds() -> None:
    file = io.StringIO()
    view = LiveView(lambda: SNAPSHOT, console_to(file, terminal=False))
    assert view.period == PLAIN_SECONDS == 5.0
    view.refresh()
    view.refresh()
    assert len(file.getvalue().splitlines()) == 2
    assert "\x1b" not in file.getvalue()


def test_in_a_terminal_the_view_is_redrawn_at_most_five_times_a_second() -> None:
    file = io.StringIO()
    view = LiveView(lambda: SNAPSHOT, console_to(file, terminal=True))
    assert view.period == 1 / REFRESH_HZ >= 0.2
    with view:
        view.refresh()
    assert "\x1b[2K" in file.getvalue()  # lines are erased, not scrolled
    assert "lost 20.0 %" in file.getvalue()


def test_no_color_is_respected(monkeypatch: pytest.MonkeyPatch) -> None:
    def redrawn() -> str:
        file = io.StringIO()
        view = LiveView(
            lambda: SNAPSHOT, Console(file=file, force_terminal=True, color_system="standard")
        )
        with view:
            view.refresh()
        return file.getvalue()

    colours = re.compile(r"\x1b\[[\d;]*3[0-7]m")
    assert colours.search(redrawn())
    monkeypatch.setenv("NO_COLOR", "1")
    assert not colours.search(redrawn())


def test_the_thread_refreshes_until_it_is_stopped() -> None:
    seen = threading.Semaphore(0)

    def snapshot() -> CallSnapshot:
        seen.release()
        return replace(SNAPSHOT, elapsed=1.0)

    view = LiveView(snapshot, console_to(io.StringIO(), terminal=False), plain_seconds=0.01)
    view.start()
    for _ in range(3):
        assert seen.acquire(timeout=10)
    view.stop()
    assert not any(thread.name == "live view" for thread in threading.enumerate())


def test_a_reader_that_goes_away_ends_the_view_quietly() -> None:
    class Closed(io.StringIO):
        def write(self, text: str) -> int:
            raise BrokenPipeError

    view = LiveView(lambda: SNAPSHOT, console_to(Closed(), terminal=False), plain_seconds=0.001)
    view.start()
    assert view._thread is not None
    view._thread.join(timeout=10)
    assert not view._thread.is_alive()
    view.stop()


def test_an_interval_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="0 s between lines"):
        LiveView(lambda: SNAPSHOT, plain_seconds=0)
