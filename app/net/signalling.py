"""Setting a call up and taking it down: one HTTP POST in the manner of WHIP (RFC 9725).

See docs/signalling.md.
"""

from __future__ import annotations

import asyncio
import errno
import ipaddress
import logging
import os
import re
import secrets
import socket
from collections.abc import Awaitable, Callable

import aiohttp
from aiohttp import web
from yarl import URL

from app.net.errors import CallError, explain
from app.net.sdp import MAX_SDP, Answer, Offer, SdpError

PATH = "/call"
SDP_TYPE = "application/sdp"

RETRY_AFTER = 5
"""Seconds a busy line asks callers to wait."""
BODY_TIME = 5.0
"""Seconds an offer may take to come in."""
ANSWER_TIME = 20.0
"""Seconds `on_offer` may take."""
CONNECTION_TIME = 30.0
"""Seconds any connection may last, so that clients that send drop by drop come to an end."""
MAX_CONNECTIONS = 32

log = logging.getLogger(__name__)

OnOffer = Callable[[Offer, str], Awaitable[Answer]]
"""Takes an offer and the caller's IP address. May raise SdpError (the offer cannot be used) or
CallError (the call cannot be taken)."""


class SignallingServer:
    """Takes calls, one at a time."""

    def __init__(
        self,
        host: str | None,
        port: int,
        on_offer: OnOffer,
        on_hangup: Callable[[], Awaitable[None]],
    ) -> None:
        """`host` None: all interfaces. `port` 0: the system chooses."""
        self._host = host
        self._port = port
        self._on_offer = on_offer
        self._on_hangup = on_hangup
        self._call: str | None = None
        self._server: asyncio.Server | None = None
        self._runner: web.AppRunner | None = None

    @property
    def port(self) -> int:
        return self._port

    async def start(self) -> None:
        """Raises CallError if the port cannot be had."""
        application = web.Application(client_max_size=MAX_SDP)
        application.router.add_post(PATH, self._take)
        application.router.add_delete(PATH + "/{call}", self._hang_up)
        # aiohttp reports every malformed request with a traceback; what matters is logged here
        quiet = logging.getLogger(f"{__name__}.http")
        quiet.setLevel(logging.CRITICAL)
        self._runner = web.AppRunner(
            application,
            access_log=None,
            logger=quiet,
            keepalive_timeout=5.0,
            max_line_size=4096,
            max_field_size=4096,
            shutdown_timeout=1.0,
        )
        await self._runner.setup()
        loop = asyncio.get_running_loop()
        try:
            if self._host is None:
                sock = _everywhere(self._port)
                self._server = await loop.create_server(self._connection, sock=sock)
            else:
                self._server = await loop.create_server(self._connection, self._host, self._port)
        except OSError as error:
            await self._runner.cleanup()
            where = f"TCP port {self._port}" + (f" of {self._host}" if self._host else "")
            in_use = error.errno == errno.EADDRINUSE
            raise CallError(
                f"{where} is already in use" if in_use else f"{where}: {explain(error)}"
            ) from None
        self._port = self._server.sockets[0].getsockname()[1]

    def end_call(self) -> None:
        """The call is over for a reason other than a DELETE; the line is free again."""
        self._call = None

    async def close(self) -> None:
        if self._server:
            self._server.close()
        if self._runner:
            await self._runner.cleanup()

    def _connection(self) -> asyncio.Protocol:
        assert self._runner
        assert self._runner.server
        handler = self._runner.server()
        loop = asyncio.get_running_loop()
        crowded = len(self._runner.server.connections) >= MAX_CONNECTIONS
        # a crowded-out connection is closed as soon as it is there
        loop.call_later(0.0 if crowded else CONNECTION_TIME, handler.force_close)
        return handler

    async def _take(self, request: web.Request) -> web.Response:
        if request.content_type != SDP_TYPE:
            return _line(415, f"an offer is {SDP_TYPE}", {"Accept-Post": SDP_TYPE})
        try:
            offer = Offer.parse((await asyncio.wait_for(request.read(), BODY_TIME)).decode())
            caller = _caller(request, offer)
        except TimeoutError:
            return _line(408, f"the offer took longer than {BODY_TIME:.0f} s")
        except UnicodeDecodeError:
            return _line(400, "the offer is not UTF-8")
        except SdpError as error:
            return _line(400, str(error))
        if self._call:
            return _line(503, "busy", {"Retry-After": str(RETRY_AFTER)})
        call = self._call = secrets.token_urlsafe(16)
        try:
            answer = await asyncio.wait_for(self._on_offer(offer, caller), ANSWER_TIME)
        except BaseException as error:
            self.end_call()
            if isinstance(error, SdpError):
                return _line(400, str(error))
            if isinstance(error, CallError):
                return _line(500, str(error))
            if isinstance(error, Exception):
                log.exception("taking a call failed")
                return _line(500, "the call cannot be taken")
            raise
        return web.Response(
            status=201,
            headers={"Location": f"{PATH}/{call}"},
            content_type=SDP_TYPE,
            text=answer.to_sdp(),
        )

    async def _hang_up(self, request: web.Request) -> web.Response:
        call = request.match_info["call"]
        if not self._call or not secrets.compare_digest(call.encode(), self._call.encode()):
            return _line(404, "no such call")
        self.end_call()
        await self._on_hangup()
        return web.Response(status=200)


def _everywhere(port: int) -> socket.socket:
    """Listens for both versions of IP, on one port even if the system chooses it."""
    if socket.has_dualstack_ipv6():
        try:
            return socket.create_server(("", port), family=socket.AF_INET6, dualstack_ipv6=True)
        except OSError as error:
            if error.errno not in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT):
                raise
    return socket.create_server(("", port))


def _line(status: int, text: str, headers: dict[str, str] | None = None) -> web.Response:
    return web.Response(status=status, text=text + "\n", headers=headers)


def _caller(request: web.Request, offer: Offer) -> str:
    """The caller's address, which the offer must name too.

    Media goes to where the offer says: without this check anyone could aim a stream at anyone.
    """
    caller = _plain(request.remote or "")
    if _plain(offer.media.address) != caller:
        raise SdpError(f"the offer asks for media to {offer.media.address} but comes from {caller}")
    return caller


def _plain(address: str) -> str:
    """Without IPv4 in IPv6 clothes or an interface."""
    parsed = ipaddress.ip_address(address.partition("%")[0])
    return str(getattr(parsed, "ipv4_mapped", None) or parsed)


async def reach(host: str, port: int, timeout: float = 5.0) -> tuple[str, str]:
    """Our own and the host's IP address on the way to its signalling port. Raises CallError.

    Found by connecting, since only that tells which of several addresses of a name is in use. The
    first belongs in the offer, the second is the one to call.
    """
    try:
        async with asyncio.timeout(timeout):
            _, writer = await asyncio.open_connection(host, port, happy_eyeballs_delay=0.25)
    except TimeoutError:
        raise CallError(f"{host} port {port}: no answer within {timeout:g} s") from None
    except (socket.gaierror, UnicodeError):
        raise CallError(f"{host}: unknown host") from None
    except OSError as error:
        raise CallError(f"{host} port {port}: {_explain(error)}") from None
    ours, theirs = (writer.get_extra_info(name)[0] for name in ("sockname", "peername"))
    writer.close()
    return ours, theirs


async def place_call(
    host: str, port: int, offer: Offer, timeout: float = 15.0
) -> tuple[Answer, str]:
    """The answer, and the URL of the call for `hang_up`. Raises CallError."""
    called = f"{host} port {port}"
    async with _client(timeout) as client:
        try:
            url = URL.build(scheme="http", host=host, port=port, path=PATH)
            response = await client.post(
                url,
                data=offer.to_sdp().encode(),
                headers={"Content-Type": SDP_TYPE},
                allow_redirects=False,
            )
            body = await _read(response)
        except aiohttp.ClientConnectorDNSError:
            raise CallError(f"{host}: unknown host") from None
        except aiohttp.ClientConnectorError as error:
            raise CallError(f"{called}: {_explain(error.os_error)}") from None
        except TimeoutError:
            raise CallError(f"{called}: no answer within {timeout:g} s") from None
        except aiohttp.ClientError:
            raise CallError(f"{called} is not a dredcall endpoint") from None
        except ValueError as error:
            raise CallError(f"{called}: {error}") from None
    if response.status == 503:
        raise CallError(f"{called} is busy")
    if response.status in (400, 500) and response.content_type == "text/plain":
        raise CallError(f"{called} refused: {_one_line(body)}")
    if response.status != 201 or response.content_type != SDP_TYPE:
        raise CallError(f"{called} is not a dredcall endpoint (HTTP status {response.status})")
    try:
        answer = Answer.parse(body.decode(), offer)
        resource = response.url.join(URL(response.headers["Location"]))
        if resource.origin() != response.url.origin():
            raise ValueError("the resource of the call is on another host")
    except KeyError:
        raise CallError(f"{called}: the answer names no resource") from None
    except ValueError as error:
        raise CallError(f"{called}: {_one_line(str(error).encode())}") from None
    return answer, str(resource)


async def hang_up(resource: str, timeout: float = 3.0) -> None:
    """Ends the call at the peer. Raises CallError; a call it no longer knows is no error."""
    async with _client(timeout) as client:
        try:
            response = await client.delete(URL(resource, encoded=True), allow_redirects=False)
        except (aiohttp.ClientError, TimeoutError, ValueError) as error:
            raise CallError(f"hanging up: {_one_line(str(error).encode())}") from None
    if response.status not in (200, 404):
        raise CallError(f"hanging up: HTTP status {response.status}")


def _client(timeout: float) -> aiohttp.ClientSession:
    return aiohttp.ClientSession(
        timeout=aiohttp.ClientTimeout(total=timeout),
        cookie_jar=aiohttp.DummyCookieJar(),
        auto_decompress=False,
        max_line_size=4096,
        max_field_size=4096,
    )


async def _read(response: aiohttp.ClientResponse) -> bytes:
    body = b""
    async for chunk in response.content.iter_any():
        body += chunk
        if len(body) > MAX_SDP:
            raise ValueError(f"the answer is longer than {MAX_SDP // 1024} kB")
    return body


def _explain(error: OSError) -> str:
    """Of several addresses each may have failed in its own way; a refusal says most."""
    codes = [error.errno] if error.errno else re.findall(r"\[Errno (\d+)\]", str(error))
    if errno.ECONNREFUSED in map(int, codes):
        return "connection refused; is it listening?"
    return explain(OSError(int(codes[0]), os.strerror(int(codes[0])))) if codes else str(error)


def _one_line(text: bytes) -> str:
    """Fit for a terminal, whoever wrote it."""
    shown = text[:200].decode("utf-8", "replace")
    return "".join(c if c.isprintable() else " " for c in shown).strip()
