"""A caller made by hand, for what the program itself would never send."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import cycle
from random import Random

import pytest
from aiortc.rtp import RtpPacket

from app.audio.file import file_frames
from app.net.clockmap import WallClock, host_token
from app.net.errors import CallError
from app.net.reports import make_cname
from app.net.rtcp import ByeReceived
from app.net.sdp import Answer, MediaDescription, Offer
from app.net.session import RtpSession
from app.net.signalling import hang_up, place_call
from app.pacing import Pacer
from codec import FRAME_SECONDS, FRAME_TICKS
from codec.opus import OpusEncoder
from tests.app.calls import LOOPBACK, MAN, be_punctual

REPORT_EVERY = 25
"""Frames."""


def speech_packets() -> list[bytes]:
    """Some seconds of speech in Opus packets of 20 ms."""
    encoder = OpusEncoder(expected_loss=20)
    return [encoder.encode(frame) for frame in file_frames(MAN)]


@dataclass
class Offset:
    """What is added to the numbers of every RTP packet."""

    sequence: int = 0
    timestamp: int = 0


class Peer:
    """Places a call with real signalling, then sends over one real socket what it is told to."""

    def __init__(self, port: int, *, seed: int = 1) -> None:
        """Calls the listener at `port`. Raises CallError."""
        self._rng = Random(seed)
        self._wall = WallClock()
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind((LOOPBACK, 0))
        self.address: tuple[str, int] = self._socket.getsockname()
        self.cname = make_cname(self._rng, host_token())
        self.ssrc = self._rng.getrandbits(32)
        media = MediaDescription(LOOPBACK, self.address[1], ssrc=self.ssrc, cname=self.cname)
        offer = Offer(media, session_id=self._rng.getrandbits(62))
        self._payloads = cycle(speech_packets())
        self.answer: Answer
        try:
            self.answer, self._resource = asyncio.run(place_call(LOOPBACK, port, offer))
        except CallError:
            self._socket.close()
            raise
        self.there = (self.answer.media.address, self.answer.media.port)
        self._socket.connect(self.there)
        self._socket.settimeout(0.2)
        self.offset = Offset()
        self.sent: list[int] = []
        """RTP timestamps of the packets of speech."""
        self._late: list[float] = []
        """Seconds by which each of them left late."""
        self.latest = b""
        """The latest of them."""
        self.heard = 0
        """RTP packets of the other side."""
        self.said_goodbye = threading.Event()
        """The other side has."""
        self._silent = False
        self._lock = threading.Lock()
        self._over = threading.Event()
        self._media_time = 0
        self.restart()
        self._threads: list[threading.Thread] = []

    @contextlib.contextmanager
    def unless_it_was_late(self, since: int = 0, seconds: float = 0.020) -> Iterator[None]:
        """A failure becomes a skip if the machine kept this thread from sending in time, from
        packet number `since` on."""
        try:
            yield
        except AssertionError as error:
            late = max(self._late[since:])
            if late < seconds:
                raise
            pytest.skip(f"this test was kept from sending for {1e3 * late:.0f} ms: {error}")

    def restart(self) -> None:
        """Another random sequence number and timestamp, as after a restart of the sender."""
        self.session = RtpSession(
            now=time.monotonic(),
            rng=self._rng,
            cname=self.cname,
            payload_type=self.answer.media.payload_type,
            ssrc=self.ssrc,
            peer_ssrc=self.answer.media.ssrc,
        )

    def start(self) -> None:
        """Speaks, reports and listens from now on."""
        for work in (self._speak, self._listen):
            thread = threading.Thread(target=work, daemon=True)
            thread.start()
            self._threads.append(thread)

    def pause(self, silent: bool) -> None:
        """Sends nothing, neither RTP nor RTCP, as long as `silent`."""
        self._silent = silent

    def send(self, data: bytes) -> None:
        """Any datagram, from the negotiated address."""
        with contextlib.suppress(ConnectionRefusedError):  # about an earlier one
            self._socket.send(data)

    def packet(self, captured_at: float) -> bytes:
        """The next packet of speech, which counts as sent."""
        with self._lock:
            data = self.session.packetise(next(self._payloads), self._media_time, captured_at)
        self._media_time += FRAME_TICKS
        packet = RtpPacket.parse(data)
        packet.sequence_number = (packet.sequence_number + self.offset.sequence) % 2**16
        packet.timestamp = (packet.timestamp + self.offset.timestamp) % 2**32
        self.sent.append(packet.timestamp)
        self.latest = packet.serialize()
        return self.latest

    def report(self) -> bytes:
        now = time.monotonic()
        with self._lock:
            return self.session.make_report(now, self._wall.ntp(now))

    def goodbye(self) -> bytes:
        now = time.monotonic()
        return self.session.make_bye(now, self._wall.ntp(now))

    def _speak(self) -> None:
        be_punctual()
        pacer = Pacer()
        reported = 0
        while not self._over.is_set():
            deadline = pacer.wait()
            if self._silent:
                self._media_time += FRAME_TICKS
                continue
            self.send(self.packet(deadline - FRAME_SECONDS))
            self._late.append(time.monotonic() - deadline)
            if len(self.sent) >= reported + REPORT_EVERY:
                self.send(self.report())
                reported = len(self.sent)

    def _listen(self) -> None:
        while not self._over.is_set():
            try:
                data = self._socket.recv(2048)
            except (TimeoutError, ConnectionRefusedError):
                continue
            except OSError:
                return
            now = time.monotonic()
            with self._lock:
                events = self.session.receive(data, now, self._wall.ntp(now))
            for event in events:
                if isinstance(event, ByeReceived):
                    self.said_goodbye.set()
                else:
                    self.heard += 1

    def stop(self) -> None:
        """Falls silent; the socket stays open."""
        self._over.set()
        for thread in self._threads:
            thread.join()
        self._threads.clear()

    def hang_up(self) -> None:
        """In an orderly manner."""
        self.stop()
        self.send(self.goodbye())
        asyncio.run(hang_up(self._resource))

    def hang_up_by_http(self) -> None:
        """As if the goodbye had been lost."""
        self.stop()
        asyncio.run(hang_up(self._resource))

    def close(self) -> None:
        """Without a word."""
        self.stop()
        self._socket.close()


def until(condition: Callable[[], bool], seconds: float = 60.0) -> None:
    """Waits; AssertionError when it takes too long."""
    limit = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < limit, "it never came about"
        time.sleep(0.02)
