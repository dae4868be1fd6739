"""Calls that something happens to: the peer dies, falls silent, jumps, or was never there."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from app.cli import main
from app.control_timer import ControlTimer
from app.ledger import LedgerEntry
from codec import FRAME
from codec.frame import FrameSource
from tests.app.calls import (
    LOOPBACK,
    Endpoint,
    Pair,
    be_punctual,
    books_agree,
    calls,
    endpoints,
    envelope,
    equal_timer,
    read_wav,
    unless_stalled,
)
from tests.app.peer import Offset, Peer
from tests.app.test_report import violations

PHASE = 1.4
"""Seconds between two jumps of a peer."""


@dataclass
class Encounter:
    """A listener and what a caller made by hand had sent at certain points."""

    listener: Endpoint
    peer: Peer
    phases: list[list[int]]
    """RTP timestamps of the packets sent in each phase."""

    def played(self) -> set[int]:
        ledger = self.listener.ledger
        packets = (entry for entry in ledger if entry.source is FrameSource.PACKET)
        return {entry.timestamp & 0xFFFF_FFFF for entry in packets}


@dataclass
class Scenes:
    killed: Pair
    outage: Pair
    jumps: Encounter
    pause: Encounter
    gone: Endpoint
    mute: Endpoint
    timer: ControlTimer
    """Ran all the while."""


def kill_the_caller(place: Callable[..., Pair], folder: Path) -> Pair:
    pair = place(folder, call=["--loop"], listen=["--loop"])
    for side in (pair.listener, pair.caller):
        side.wait_until_heard(100)
    pair.caller.process.kill()
    pair.end()
    return pair


def lose_everything_for_5_s(place: Callable[..., Pair], folder: Path) -> Pair:
    trace = folder / "outage.txt"
    folder.mkdir()
    trace.write_text("0 " * 100 + "1 " * 250 + "0 " * 1000)
    lossy = ["--loss-trace", str(trace), "--loop"]
    pair = place(folder, listen=lossy, call=[*lossy, "--duration", "11"])
    pair.end()
    return pair


def listener(start: Callable[..., Endpoint], folder: Path, *arguments: str) -> Endpoint:
    folder.mkdir()
    return start(folder, "listen", "--host", LOOPBACK, "--port", "0", *arguments)


def jump(start: Callable[..., Endpoint], folder: Path) -> Encounter:
    side = listener(start, folder)
    peer = Peer(side.port, seed=3)
    peer.start()
    side.wait_until_heard(40)
    marks = [len(peer.sent)]
    for sequence, timestamp in ((20_000, 0), (20_000, 48_000 * 3600), (20_000, 0)):
        peer.offset = Offset(sequence, timestamp)
        time.sleep(PHASE)
        marks.append(len(peer.sent))
    peer.restart()
    time.sleep(PHASE)
    marks.append(len(peer.sent))
    peer.hang_up()
    side.end()
    peer.close()
    return Encounter(side, peer, [peer.sent[a:b] for a, b in pairwise(marks)])


def fall_silent_for_5_s(start: Callable[..., Endpoint], folder: Path) -> Encounter:
    side = listener(start, folder)
    peer = Peer(side.port, seed=4)
    peer.start()
    side.wait_until_heard(100)
    before = len(peer.sent)
    peer.pause(True)
    time.sleep(5)
    peer.pause(False)
    resumed = len(peer.sent)
    time.sleep(2)
    peer.hang_up()
    side.end()
    peer.close()
    return Encounter(side, peer, [peer.sent[:before], peer.sent[resumed:]])


def be_gone(start: Callable[..., Endpoint], folder: Path) -> Endpoint:
    side = listener(start, folder)
    Peer(side.port, seed=5).close()
    side.end()
    return side


def say_nothing(start: Callable[..., Endpoint], folder: Path) -> Endpoint:
    side = listener(start, folder, "--timeout", "2")
    peer = Peer(side.port, seed=6)
    side.end()
    peer.close()
    return side


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scenes]:
    folder = tmp_path_factory.mktemp("survival")
    timer = equal_timer()
    with (
        calls() as place,
        endpoints() as start,
        ThreadPoolExecutor(initializer=be_punctual) as pool,
    ):
        outage = pool.submit(lose_everything_for_5_s, place, folder / "outage")
        pause = pool.submit(fall_silent_for_5_s, start, folder / "pause")
        jumps = pool.submit(jump, start, folder / "jumps")
        killed = pool.submit(kill_the_caller, place, folder / "killed")
        gone = pool.submit(be_gone, start, folder / "gone")
        mute = pool.submit(say_nothing, start, folder / "mute")
        try:
            made = Scenes(
                killed.result(),
                outage.result(),
                jumps.result(),
                pause.result(),
                gone.result(),
                mute.result(),
                timer,
            )
        finally:
            timer.stop()
        yield made


@pytest.mark.slow
def test_a_peer_that_is_killed_ends_the_call_with_a_clear_line(scenes: Scenes) -> None:
    side = scenes.killed.listener
    assert side.process.returncode == 1
    assert side.said[-1] == "dredcall: the peer is gone: its port is closed"
    report = side.report
    assert report["ended"] == "the peer is gone: its port is closed"
    assert violations(report) == []
    assert books_agree(side.recording, side.ledger)


def test_what_the_killed_side_had_recorded_can_be_played_up_to_the_last_second(
    scenes: Scenes,
) -> None:
    side = scenes.killed.caller
    assert side.process.returncode == -9
    assert side.said == [f"dredcall: calling {LOOPBACK} port {scenes.killed.listener.port}"]
    recording = read_wav(side.path("wav"), whole=False)
    assert len(recording) > FRAME * (len(side.ledger) - 50)
    assert len(recording) > FRAME * 50


def waits(ledger: list[LedgerEntry]) -> list[float]:
    return [entry.wait_ms for entry in ledger if entry.wait_ms is not None]


def test_5_s_of_total_loss_are_survived_and_the_delay_is_what_it_was(scenes: Scenes) -> None:
    pair = scenes.outage
    assert (pair.listener.process.returncode, pair.caller.process.returncode) == (0, 0)
    with unless_stalled(scenes.timer):
        for side in (pair.listener, pair.caller):
            ledger = side.ledger
            heard = [i for i, entry in enumerate(ledger) if entry.source is FrameSource.PACKET]
            first_gap = max(range(1, len(heard)), key=lambda n: heard[n] - heard[n - 1])
            away, back = heard[first_gap - 1], heard[first_gap]
            assert 240 <= back - away <= 260
            before, after = ledger[away - 24 : away], ledger[back + 50 :]
            assert len(after) > 25
            assert {entry.source for entry in after} == {FrameSource.PACKET}
            assert np.median(waits(after)) == pytest.approx(np.median(waits(before)), abs=2)
            assert after[-1].delay_ms == pytest.approx(before[-1].delay_ms, abs=2)
            # for a second something is made up, then there is silence
            quiet = side.recording[FRAME * (away + 80) : FRAME * (back - 5)]
            assert not (envelope(quiet) > 30).any()


def test_a_sender_whose_numbers_jump_is_played_on(scenes: Scenes) -> None:
    side = scenes.jumps.listener
    assert side.process.returncode == 0, side.said
    assert side.said[1:] == ["dredcall: the peer hung up"]
    with unless_stalled(scenes.timer), scenes.jumps.peer.unless_it_was_late():
        played = scenes.jumps.played()
        for number, phase in enumerate(scenes.jumps.phases):
            assert len(phase) > 40
            # the second packet proves that the sender has begun anew
            settled = phase[25:-5]
            assert [timestamp for timestamp in settled if timestamp not in played] == [], number
    assert violations(side.report) == []


def test_a_peer_that_is_silent_for_5_s_goes_on_as_late_as_before(scenes: Scenes) -> None:
    side = scenes.pause.listener
    assert side.process.returncode == 0, side.said
    before, after = scenes.pause.phases
    ledger = {
        entry.timestamp & 0xFFFF_FFFF: entry
        for entry in side.ledger
        if entry.source is FrameSource.PACKET
    }
    with unless_stalled(scenes.timer), scenes.pause.peer.unless_it_was_late():
        steady = before[50:-5], after[50:-5]
        assert [at for phase in steady for at in phase if at not in ledger] == []
        earlier, later = ([ledger[at] for at in phase] for phase in steady)
        assert len(earlier) > 40
        assert len(later) > 20
        assert np.median(waits(later)) == pytest.approx(np.median(waits(earlier)), abs=2)


def test_a_peer_whose_port_is_closed_from_the_start_is_given_up_soon(scenes: Scenes) -> None:
    side = scenes.gone
    assert side.process.returncode == 1
    assert side.said[1:] == ["dredcall: the peer is gone: its port is closed"]
    report = side.report
    assert report["duration_s"] < 8
    assert report["inbound"]["packetsReceived"] == 0
    assert violations(report) == []
    assert not side.recording.any()


def test_a_peer_that_never_says_anything_is_given_up_after_the_timeout(scenes: Scenes) -> None:
    side = scenes.mute
    assert side.process.returncode == 1
    assert side.said[1:] == ["dredcall: nothing from the peer: for 2 s"]
    assert 2 <= side.report["duration_s"] < 5
    assert violations(side.report) == []


def test_a_second_caller_is_told_that_the_line_is_busy_and_http_alone_ends_a_call(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with endpoints() as start:
        side = listener(start, tmp_path / "busy")
        peer = Peer(side.port)
        peer.start()
        side.wait_until_heard(20)
        where = f"{LOOPBACK} port {side.port}"
        second = ["call", f"{LOOPBACK}:{side.port}", "--source", "tone", "--sink", "null"]
        assert main(second) == 1
        assert capsys.readouterr().err.splitlines() == [
            f"dredcall: calling {where}",
            f"dredcall: {where} is busy",
        ]
        assert side.process.poll() is None
        peer.hang_up_by_http()
        assert side.end() == 0
        assert side.said[-1] == "dredcall: the peer hung up"
        peer.close()
