"""Placing and taking calls: from options to a `Call` that runs, and back to a report."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from random import SystemRandom

from app.audio import AudioError, AudioSink, AudioSource, Recorder, parse_sink, parse_source
from app.audio.recording import WRITERS
from app.call import Call, CallEnd, Ending
from app.coding import load_models, opus_parameters, session_bandwidth
from app.impairment import impaired_link
from app.net.clockmap import host_token
from app.net.errors import CallError
from app.net.impaired import ImpairedTransport
from app.net.pcap import PcapTransport, PcapWriter
from app.net.red import RedFormat
from app.net.reports import make_cname
from app.net.rtp import random_ssrc
from app.net.sdp import Answer, MediaDescription, Offer
from app.net.session import RtpSession
from app.net.signalling import SignallingServer, hang_up, place_call, reach
from app.net.transport import (
    Transport,
    UdpTransport,
    local_address_towards,
)
from app.options import CallOptions, UsageError
from app.timeline import check_timeline
from codec.libopus import OpusUnavailable

logger = logging.getLogger(__name__)

OnCall = Callable[[Call], None]
"""Told of a call about to run: the place to hang a view on it."""


@dataclass(slots=True)
class _Line:
    """What one side brings to a call before it knows the other."""

    options: CallOptions
    udp: UdpTransport
    source: AudioSource
    sink: AudioSink
    recorder: Recorder | None
    ssrc: int
    cname: str

    @classmethod
    async def open(cls, options: CallOptions, address: str, avoid_ssrc: int | None = None) -> _Line:
        """Raises AudioError or CallError if a file, device or port will not do."""
        source = parse_source(options.source, loop=options.loop)
        sink = parse_sink(options.sink)
        recorder = Recorder(options.record) if options.record else None
        try:
            udp = await UdpTransport.open(address)
        except CallError:
            if recorder:
                recorder.close()
            raise
        rng = SystemRandom()
        return cls(
            options,
            udp,
            source,
            sink,
            recorder,
            random_ssrc(rng, avoid=avoid_ssrc),
            make_cname(rng, host_token()),
        )

    def description(self) -> MediaDescription:
        return MediaDescription(
            address=self.udp.local[0],
            port=self.udp.local[1],
            opus=opus_parameters(self.options),
            red=RedFormat() if self.options.recovery.red else None,
            ssrc=self.ssrc,
            cname=self.cname,
        )

    async def run(
        self, remote: MediaDescription, caller: bool, on_call: OnCall
    ) -> tuple[Call, CallEnd]:
        """The call itself, from the agreed descriptions to the hang-up."""
        options = self.options
        red = remote.red if options.recovery.red else None
        self.udp.connect(remote.address, remote.port)
        session = RtpSession(
            now=asyncio.get_running_loop().time(),
            rng=SystemRandom(),
            cname=self.cname,
            payload_type=remote.payload_type,
            red_payload_type=red.payload_type if red else None,
            ssrc=self.ssrc,
            peer_ssrc=remote.ssrc,
            session_bandwidth=session_bandwidth(options),
        )
        with contextlib.ExitStack() as stack:
            transport = self._transport(stack, (remote.address, remote.port))
            call = Call(
                options,
                transport=transport,
                session=session,
                remote=remote,
                source=self.source,
                sink=self.sink,
                recorder=self.recorder,
                hang_up_at_end=caller,
            )
            on_call(call)
            return call, await call.run()

    def _transport(self, stack: contextlib.ExitStack, remote: tuple[str, int]) -> Transport:
        """The capture shows the wire: what we impair on sending is missing from it."""
        options = self.options
        transport: Transport = self.udp
        if options.pcap:
            try:
                writer = PcapWriter(options.pcap)
            except OSError as error:
                raise CallError(f"{options.pcap}: {error.strerror}") from None
            stack.callback(writer.close)
            transport = PcapTransport(
                transport, writer, remote, clock=time.monotonic, wall_clock=time.time
            )
        outbound = impaired_link(options.outbound, options.seed, "outbound")
        inbound = impaired_link(options.inbound, options.seed, "inbound")
        if outbound is not None or inbound is not None:
            transport = ImpairedTransport(transport, outbound, inbound)
        stack.callback(transport.close)
        return transport

    def close(self) -> None:
        """Gives everything back; harmless after a call."""
        self.udp.close()
        if self.recorder:
            self.recorder.close()


def check(options: CallOptions) -> None:
    """Raises what would otherwise fail only when a call comes in; changes no file.

    Also loads what a call would otherwise spend its first second on.
    """
    try:
        load_models(options)
    except OpusUnavailable as error:
        if options.libopus is None:
            raise
        raise UsageError(f"--libopus: {error}") from None
    parse_source(options.source)
    parse_sink(options.sink)
    for impairment in (options.outbound, options.inbound):
        impaired_link(impairment, options.seed, "")
    if options.record and options.record.suffix.lower() not in WRITERS:
        raise UsageError(f"--record: {options.record} is none of {', '.join(WRITERS)}")
    if options.timeline:
        check_timeline(options.timeline)
    for flag, path in (
        ("--record", options.record),
        ("--ledger", options.ledger),
        ("--pcap", options.pcap),
        ("--record-arrivals", options.record_arrivals),
        ("--timeline", options.timeline),
    ):
        if path:
            check_writable(flag, path)


def check_writable(flag: str, path: Path) -> None:
    """Raises UsageError if a file cannot be made or overwritten; does neither."""
    if path.is_dir():
        raise UsageError(f"{flag}: {path} is a folder")
    if not path.exists() and not path.parent.is_dir():
        raise UsageError(f"{flag}: {path}: there is no folder {path.parent}")
    if not os.access(path if path.exists() else path.parent, os.W_OK):
        raise UsageError(f"{flag}: {path} cannot be written")


async def call(options: CallOptions, host: str, port: int, on_call: OnCall) -> tuple[Call, CallEnd]:
    """Calls `host` and talks until somebody hangs up. Raises AudioError or CallError."""
    ours, theirs = await reach(host, port)
    line = await _Line.open(options, ours)
    try:
        offer = Offer(line.description(), session_id=SystemRandom().getrandbits(62))
        answer, resource = await place_call(theirs, port, offer)
        try:
            return await line.run(answer.media, caller=True, on_call=on_call)
        finally:
            # BYE has told a peer that is still there; this reaches one that missed it
            with contextlib.suppress(CallError):
                await hang_up(resource)
    finally:
        line.close()


class Listener:
    """Waits for calls, one at a time."""

    def __init__(self, options: CallOptions, host: str | None, port: int, on_call: OnCall) -> None:
        self.options = options
        """Of the next call."""
        self._on_call = on_call
        self._server = SignallingServer(host, port, self._on_offer, self._on_hang_up)
        self._agreed: asyncio.Queue[tuple[_Line, MediaDescription]] = asyncio.Queue(1)
        self._current: Call | None = None
        self._idle = asyncio.Event()
        self._idle.set()
        self._closed = False

    async def start(self) -> int:
        """The TCP port it listens on. Raises CallError if it cannot be had."""
        await self._server.start()
        return self._server.port

    async def next_call(self) -> tuple[Call, CallEnd]:
        """Waits for one call and runs it."""
        line, remote = await self._agreed.get()
        try:
            return await line.run(remote, caller=False, on_call=self._begin)
        finally:
            self._current = None
            line.close()
            self._server.end_call()
            self._idle.set()

    async def close(self) -> None:
        self._closed = True
        await self._server.close()

    def _begin(self, call: Call) -> None:
        self._current = call
        self._on_call(call)

    async def _on_offer(self, offer: Offer, caller: str) -> Answer:
        # a caller may have hung up, which frees the line, while its call is still being put away
        await self._idle.wait()
        if self._closed:
            raise CallError("nobody is listening any more")
        address = await local_address_towards(caller, offer.media.port)
        try:
            line = await _Line.open(self.options, address, avoid_ssrc=offer.media.ssrc)
        except AudioError as error:
            logger.warning("a call from %s is refused: %s", caller, error)
            raise CallError("there is no sound here") from None
        answer = offer.answer(line.description(), session_id=SystemRandom().getrandbits(62))
        self._idle.clear()
        await self._agreed.put((line, offer.media))
        return answer

    async def _on_hang_up(self) -> None:
        if self._current:
            self._current.hang_up(Ending.PEER)
