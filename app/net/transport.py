"""Datagrams to and from one peer."""

from __future__ import annotations

import asyncio
import ipaddress
import socket
import struct
import sys
import time
from collections import Counter, deque
from collections.abc import Callable
from contextlib import suppress
from enum import StrEnum
from typing import Protocol

from app.net.errors import CallError, explain
from app.net.rtp import MAX_DATAGRAM

Receiver = Callable[[bytes, float], None]
"""Takes a datagram and the monotonic instant of its arrival, on the event loop's thread."""

HELD = 64
"""Datagrams kept until it is known from whom and for whom they are: over a second of a call."""

MAX_AGE = 5.0
"""Seconds that a datagram may have waited for us to start or wake up; more is a clock set anew."""

SO_TIMESTAMPNS = 35
"""Linux, all architectures Python is commonly built for; not among the constants of `socket`."""
_STAMP = struct.Struct("@qq")
_ANCILLARY = socket.CMSG_SPACE(_STAMP.size)

DSCP_EF = 46 << 2
"""Expedited forwarding, for audio (RFC 8837)."""


class Transport(Protocol):
    """Datagrams to and from one peer, each way unreliable.

    Small on purpose, so that transports stack: `ImpairedTransport` and `PcapTransport` wrap
    another, and DTLS-SRTP would do the same around a `UdpTransport`. It would run the handshake
    over it (its records start with bytes 20-63, RTP and RTCP with 128-191, RFC 7983), protect each
    datagram in `send`, and give its receiver what authenticates.
    """

    @property
    def local(self) -> tuple[str, int]:
        """Address and port datagrams leave from."""

    def send(self, data: bytes) -> None:
        """Any thread; never blocks or raises. What cannot be sent is counted and lost."""

    def set_receiver(self, receiver: Receiver) -> None:
        """Who gets the datagrams of the peer."""

    def refused_since(self, instant: float) -> bool:
        """Whether the peer's host has said since then that nobody listens at its port."""

    def close(self) -> None:
        """Nothing is sent or received any more. May be called twice."""


class TransportCount(StrEnum):
    SENT = "sent"
    RECEIVED = "received"
    UNSENT = "not sent"
    """The system refused: no buffer, no route, too long, not connected."""
    FOREIGN = "from elsewhere"
    """Received from an address and port other than the peer's, before `connect`; after it the
    system drops such datagrams itself."""
    TOO_LARGE = "too large"
    OVERFLOWED = "held too long"
    """Received before `connect` and `set_receiver`, and more than `HELD`."""
    REFUSED = "refused"
    """The peer's host says that nobody listens there (ICMP port unreachable)."""


class UdpTransport:
    """One UDP socket, RTP and RTCP on the same port.

    Datagrams are taken only from the very address and port signalling has given. There is no
    latching onto the source of the first packet ("symmetric RTP"): it would let anyone who is quick
    take over the call, so a peer behind an address translator needs a relay or a forwarded port.

    Arrival is stamped by the kernel where it can (Linux), so that an event loop held up by other
    work does not show as network jitter; otherwise when the datagram is read.
    """

    def __init__(self, sock: socket.socket, loop: asyncio.AbstractEventLoop) -> None:
        self.counts: Counter[TransportCount] = Counter()
        self._socket = sock
        self._loop = loop
        self._remote: tuple[str, int] | None = None
        self._receiver: Receiver | None = None
        self._held: deque[tuple[bytes, tuple[str, int], float]] = deque()
        self._refused_at: float | None = None
        self._closed = False
        self._local = _host_and_port(sock.getsockname())
        loop.add_reader(sock, self._on_readable)

    @classmethod
    async def open(cls, address: str, port: int = 0) -> UdpTransport:
        """Binds. `port` 0 lets the system choose. Raises CallError."""
        family = _family(address)
        sock = socket.socket(family, socket.SOCK_DGRAM)
        try:
            sock.setblocking(False)
            if sys.platform == "linux":
                sock.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
            with suppress(OSError):
                if family == socket.AF_INET6:
                    sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_TCLASS, DSCP_EF)
                else:
                    sock.setsockopt(socket.IPPROTO_IP, socket.IP_TOS, DSCP_EF)
            sock.bind((address, port))
        except OSError as error:
            sock.close()
            raise CallError(f"UDP port {port} of {address}: {explain(error)}") from None
        return cls(sock, asyncio.get_running_loop())

    @property
    def local(self) -> tuple[str, int]:
        return self._local

    @property
    def remote(self) -> tuple[str, int] | None:
        return self._remote

    def connect(self, address: str, port: int) -> None:
        """To the negotiated address: datagrams held so far are sifted by it. Raises CallError."""
        if _family(address) != self._socket.family:
            raise CallError(f"{address} cannot be reached from {self._local[0]}: other IP version")
        try:
            self._socket.connect((address, port))
        except OSError as error:
            raise CallError(f"UDP to {address} port {port}: {explain(error)}") from None
        self._remote = _host_and_port(self._socket.getpeername())
        self._local = _host_and_port(self._socket.getsockname())
        self._deliver_held()

    def set_receiver(self, receiver: Receiver) -> None:
        self._receiver = receiver
        self._deliver_held()

    def send(self, data: bytes) -> None:
        if self._closed or not self._remote:
            self.counts[TransportCount.UNSENT] += 1
            return
        # an ICMP error about an earlier datagram is reported instead of sending this one
        for _ in range(2):
            try:
                self._socket.send(data)
            except ConnectionRefusedError:
                self._note_refusal()
            except OSError:
                break
            else:
                self.counts[TransportCount.SENT] += 1
                return
        self.counts[TransportCount.UNSENT] += 1

    def close(self) -> None:
        if not self._closed:
            self._closed = True
            self._loop.remove_reader(self._socket)
            self._socket.close()
            self._held.clear()

    def refused_since(self, instant: float) -> bool:
        return self._refused_at is not None and self._refused_at >= instant

    def _note_refusal(self) -> None:
        self.counts[TransportCount.REFUSED] += 1
        self._refused_at = time.monotonic()

    def _on_readable(self) -> None:
        """Takes one datagram: the loop calls again as long as there is one.

        Mostly there is no second, and to ask for it, only to be told so by an exception, costs more
        than the next call if there is. A flood does not keep the loop from its other work either.
        """
        try:
            data, ancillary, flags, source = self._socket.recvmsg(MAX_DATAGRAM, _ANCILLARY)
        except ConnectionRefusedError:
            self._note_refusal()
        except OSError:
            return
        else:
            if flags & socket.MSG_TRUNC:
                self.counts[TransportCount.TOO_LARGE] += 1
            else:
                self._on_datagram(data, _host_and_port(source), _arrival(ancillary))

    def _on_datagram(self, data: bytes, source: tuple[str, int], arrival: float) -> None:
        if self._remote and self._receiver:
            if source == self._remote:
                self.counts[TransportCount.RECEIVED] += 1
                self._receiver(data, arrival)
            else:
                self.counts[TransportCount.FOREIGN] += 1
        elif len(self._held) < HELD:
            self._held.append((data, source, arrival))
        else:
            self.counts[TransportCount.OVERFLOWED] += 1

    def _deliver_held(self) -> None:
        if self._remote and self._receiver:
            held, self._held = self._held, deque()
            for data, source, arrival in held:
                self._on_datagram(data, source, arrival)


def _arrival(ancillary: list[tuple[int, int, bytes]]) -> float:
    """Monotonic instant out of the kernel's wall-clock stamp, or now if there is none."""
    now, wall = time.monotonic(), time.time()
    for level, kind, value in ancillary:
        if level == socket.SOL_SOCKET and kind == SO_TIMESTAMPNS and len(value) == _STAMP.size:
            seconds, nanoseconds = _STAMP.unpack(value)
            age: float = wall - (seconds + nanoseconds * 1e-9)
            # a wall clock set between the two readings must not move the datagram in time
            if 0 <= age < MAX_AGE:
                return now - age
    return now


def _family(address: str) -> socket.AddressFamily:
    try:
        version = ipaddress.ip_address(address).version
    except ValueError:
        raise CallError(f"{address!r} is not an IP address") from None
    return socket.AF_INET6 if version == 6 else socket.AF_INET


def _host_and_port(address: tuple[str, int] | tuple[str, int, int, int]) -> tuple[str, int]:
    return address[0], address[1]


async def local_address_towards(host: str, port: int) -> str:
    """Our own address on the way to `host`: what to put into a description. Raises CallError."""
    loop = asyncio.get_running_loop()
    try:
        found = await loop.getaddrinfo(host, port, type=socket.SOCK_DGRAM)
    except (socket.gaierror, UnicodeError):
        raise CallError(f"{host}: unknown host") from None
    reason = "no address"
    for family, kind, protocol, _, address in found:
        with socket.socket(family, kind, protocol) as probe:
            try:
                probe.connect(address)  # sends nothing
                return str(probe.getsockname()[0])
            except OSError as error:
                reason = explain(error)
    raise CallError(f"{host}: {reason}")
