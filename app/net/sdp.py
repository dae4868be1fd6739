"""Session descriptions of a call: one Opus stream over RTP/AVP (RFC 8866, RFC 3264, RFC 7587).

Lines are split and written with aiortc's helpers. Its parser proper is made for WebRTC: it leaves
out a=ptime and takes several lawful lines for broken ones.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from enum import StrEnum

from aiortc.sdp import DIRECTIONS, grouplines, ipaddress_to_sdp, parse_attr

from app.net.opus_fmtp import OpusParameters
from app.net.red import MAX_BLOCKS, RedFormat

MAX_SDP = 64 * 1024
MAX_MEDIA = 32
"""Media sections in one description; no lawful offer comes near."""

PAYLOAD_TYPE = 111
"""What WebRTC made the custom for Opus."""

PTIME = 20
"""ms in a packet."""

WIDEBAND = OpusParameters(maxplaybackrate=16_000, sprop_maxcapturerate=16_000, useinbandfec=True)

_RTCP_RANGE = range(64, 96)
"""Payload types that look like RTCP on a shared port (RFC 5761 section 4)."""


class SdpError(ValueError):
    """A description that is malformed or that this program cannot use; the text is one line."""


class Direction(StrEnum):
    """Of media, as the party that states it sees it."""

    SENDRECV = "sendrecv"
    SENDONLY = "sendonly"
    RECVONLY = "recvonly"
    INACTIVE = "inactive"

    @property
    def sends(self) -> bool:
        return self in (Direction.SENDRECV, Direction.SENDONLY)

    @property
    def receives(self) -> bool:
        return self in (Direction.SENDRECV, Direction.RECVONLY)

    @classmethod
    def of(cls, *, sends: bool, receives: bool) -> Direction:
        if sends:
            return cls.SENDRECV if receives else cls.SENDONLY
        return cls.RECVONLY if receives else cls.INACTIVE


def answer_direction(offered: Direction, wanted: Direction) -> Direction:
    """As much of `wanted` as the offer leaves room for (RFC 3264 section 6.1)."""
    return Direction.of(
        sends=wanted.sends and offered.receives, receives=wanted.receives and offered.sends
    )


@dataclass(frozen=True, slots=True)
class MediaDescription:
    """Where one party receives its audio, and what it says about it."""

    address: str
    port: int
    payload_type: int = PAYLOAD_TYPE
    direction: Direction = Direction.SENDRECV
    opus: OpusParameters = WIDEBAND
    red: RedFormat | None = None
    """Whether the party takes earlier packets repeated in later ones (RFC 2198)."""
    ptime: int | None = PTIME
    """ms the party would like in a packet."""
    maxptime: int | None = PTIME
    """ms it takes in a packet at most."""
    ssrc: int | None = None
    cname: str | None = None

    def lines(self) -> list[str]:
        opus, red = self.payload_type, self.red
        lines = [
            f"m=audio {self.port} RTP/AVP {f'{red.payload_type} ' if red else ''}{opus}",
            f"a=rtpmap:{opus} opus/48000/2",
            f"a=fmtp:{opus} {self.opus.to_fmtp()}",
        ]
        if red:
            lines += [
                f"a=rtpmap:{red.payload_type} red/48000/2",
                f"a=fmtp:{red.payload_type} {'/'.join([str(opus)] * (red.copies + 1))}",
            ]
        if self.ptime is not None:
            lines.append(f"a=ptime:{self.ptime}")
        if self.maxptime is not None:
            lines.append(f"a=maxptime:{self.maxptime}")
        lines += ["a=rtcp-mux", f"a={self.direction}"]
        if self.ssrc is not None and self.cname is not None:
            lines.append(f"a=ssrc:{self.ssrc} cname:{self.cname}")
        return lines


@dataclass(frozen=True, slots=True)
class Offer:
    media: MediaDescription
    session_id: int
    """Any number below 2**63 that the offerer has not used before."""
    sections: tuple[str | None, ...] = (None,)
    """The m= lines of the offer in order, None standing for `media`."""

    def to_sdp(self) -> str:
        return _write(self.media, self.session_id, self.sections)

    @classmethod
    def parse(cls, text: str) -> Offer:
        """Raises SdpError; takes the first audio section that can be used."""
        description = _Description(text)
        failure: SdpError | None = None
        for index, section in enumerate(description.media):
            if not section[0].startswith("m=audio "):
                continue
            try:
                media = _read_media(section, description.session)
            except SdpError as error:
                failure = failure or error
                continue
            sections = tuple(
                None if i == index else refused[0] for i, refused in enumerate(description.media)
            )
            return cls(media, description.session_id, sections)
        raise failure or SdpError("the description has no audio")

    def answer(self, media: MediaDescription, session_id: int) -> Answer:
        """Accepts the audio with `media`, in the payload type of the offer, and refuses the rest.

        `media.direction` is what we would like; the answer has what the offer allows of it.
        """
        agreed = replace(
            media,
            payload_type=self.media.payload_type,
            red=self._agree_on_red(media.red),
            direction=answer_direction(self.media.direction, media.direction),
        )
        refused = tuple(line and _refuse(line) for line in self.sections)
        return Answer(agreed, session_id, refused)

    def _agree_on_red(self, ours: RedFormat | None) -> RedFormat | None:
        """What we say of RED, in the payload type of the offer; None unless both sides take it."""
        theirs = self.media.red
        return replace(ours, payload_type=theirs.payload_type) if ours and theirs else None


@dataclass(frozen=True, slots=True)
class Answer:
    media: MediaDescription
    session_id: int
    sections: tuple[str | None, ...] = (None,)

    def to_sdp(self) -> str:
        return _write(self.media, self.session_id, self.sections)

    @classmethod
    def parse(cls, text: str, offer: Offer) -> Answer:
        """Raises SdpError also if it is no answer to `offer`."""
        description = _Description(text)
        if len(description.media) != len(offer.sections):
            raise SdpError("the answer has not as many media sections as the offer")
        index = offer.sections.index(None)
        media = _read_media(description.media[index], description.session)
        if media.payload_type != offer.media.payload_type:
            raise SdpError(
                f"the answer uses payload type {media.payload_type}"
                f" instead of {offer.media.payload_type}"
            )
        if media.red and (
            offer.media.red is None or media.red.payload_type != offer.media.red.payload_type
        ):
            media = replace(media, red=None)  # what was not offered is not used
        allowed = answer_direction(offer.media.direction, media.direction)
        if media.direction != allowed:
            raise SdpError(
                f"the answer is {media.direction} to an offer that is {offer.media.direction}"
            )
        sections = tuple(
            None if i == index else refused[0] for i, refused in enumerate(description.media)
        )
        return cls(media, description.session_id, sections)


@dataclass(slots=True)
class _Description:
    """The lines of a description, sorted into sections."""

    text: str
    session: list[str] = field(init=False)
    media: list[list[str]] = field(init=False)
    session_id: int = field(init=False)

    def __post_init__(self) -> None:
        if len(self.text) > MAX_SDP:
            raise SdpError(f"the description is longer than {MAX_SDP // 1024} kB")
        self.session, self.media = grouplines(self.text)
        if not self.session or self.session[0].strip() != "v=0":
            raise SdpError("the description does not begin with v=0")
        if len(self.media) > MAX_MEDIA:
            raise SdpError(f"the description has more than {MAX_MEDIA} media sections")
        for section in self.media:
            if not re.fullmatch(r"m=[\w-]+ [0-9/]+ [\w/.-]+ .+", section[0].strip()):
                raise SdpError(f"{_quoted(section[0])} is not a valid m= line")
        origin = next((line for line in self.session if line.startswith("o=")), "")
        match = re.match(r"o=\S+ ([0-9]{1,20}) ", origin)
        if not match:
            raise SdpError("the description has no valid o= line")
        self.session_id = int(match[1])


def _write(media: MediaDescription, session_id: int, sections: tuple[str | None, ...]) -> str:
    address = ipaddress_to_sdp(media.address)
    lines = ["v=0", f"o=- {session_id} 0 {address}", "s=-", f"c={address}", "t=0 0"]
    for section in sections:
        lines += media.lines() if section is None else [section]
    return "".join(f"{line}\r\n" for line in lines)


def _refuse(line: str) -> str:
    """The m= line with port 0 (RFC 3264 section 6)."""
    return re.sub(r"^(m=\S+) \S+", r"\1 0", line)


def _quoted(text: str) -> str:
    return repr(text if len(text) <= 40 else text[:40] + "…")


def _read_media(section: list[str], session: list[str]) -> MediaDescription:
    match = re.fullmatch(r"m=audio ([0-9]{1,5})(?:/1)? (\S+) (.+)", section[0].strip())
    if not match:
        raise SdpError(f"{_quoted(section[0])} cannot be answered")
    port, profile = int(match[1]), match[2]
    if profile != "RTP/AVP":
        raise SdpError(f"the audio is {_quoted(profile)}, not RTP/AVP")
    if not 0 < port < 65536:
        raise SdpError("the audio is refused: port 0" if not port else f"port {port} is too high")
    attributes = [parse_attr(line.strip()) for line in section if line.startswith("a=")]
    formats = match[3].split()
    payload_type, opus = _read_opus(formats, attributes)
    if ("rtcp-mux", None) not in attributes:
        raise SdpError("a=rtcp-mux is missing: RTCP on a port of its own is not supported")
    maxptime = _milliseconds("maxptime", attributes)
    if maxptime is not None and maxptime < PTIME:
        raise SdpError(f"maxptime {maxptime} is less than the {PTIME} ms of our packets")
    ssrc, cname = _read_ssrc(attributes)
    return MediaDescription(
        address=_read_address(section, session),
        port=port,
        payload_type=payload_type,
        direction=_read_direction(section, session),
        opus=opus,
        red=_read_red(formats, attributes, payload_type),
        ptime=_milliseconds("ptime", attributes),
        maxptime=maxptime,
        ssrc=ssrc,
        cname=cname,
    )


Attributes = list[tuple[str, str | None]]


def _read_opus(formats: list[str], attributes: Attributes) -> tuple[int, OpusParameters]:
    """The first Opus format in the order of preference of the m= line."""
    for number, parameters in _formats_of("opus/48000/2", formats, attributes):
        if number > 127:
            raise SdpError(f"payload type {number} is not between 0 and 127")
        if number in _RTCP_RANGE:
            raise SdpError(f"payload type {number} cannot be told from RTCP")
        try:
            return number, OpusParameters.from_fmtp(parameters)
        except ValueError as error:
            raise SdpError(str(error)) from None
    raise SdpError("opus/48000/2 is not among the audio formats")


def _read_red(formats: list[str], attributes: Attributes, opus: int) -> RedFormat | None:
    """The first RED format that repeats that Opus format and nothing else, if there is one."""
    for number, parameters in _formats_of("red/48000/2", formats, attributes):
        blocks = parameters.strip().split("/")
        repeats = 1 < len(blocks) <= MAX_BLOCKS and set(blocks) == {str(opus)}
        if repeats and number < 128 and number not in (opus, *_RTCP_RANGE):
            return RedFormat(number, len(blocks) - 1)
    return None


def _formats_of(
    encoding: str, formats: list[str], attributes: Attributes
) -> Iterator[tuple[int, str]]:
    """Payload types of that encoding and their parameters, in the order of the m= line."""
    mapped: dict[str, str] = {}
    stated: dict[str, str] = {}
    for name, value in attributes:
        payload_type, _, rest = (value or "").partition(" ")
        if name == "rtpmap":
            mapped.setdefault(payload_type, rest.strip().lower())
        elif name == "fmtp":
            stated.setdefault(payload_type, rest)
    for payload_type in formats:
        if mapped.get(payload_type) == encoding and re.fullmatch("[0-9]{1,3}", payload_type):
            yield int(payload_type), stated.get(payload_type, "")


def _read_address(section: list[str], session: list[str]) -> str:
    line = next((line for line in section + session if line.startswith("c=")), None)
    if line is None:
        raise SdpError("the description has no connection address")
    match = re.fullmatch(r"c=IN IP([46]) ([^ /]+)(?:/[0-9/]+)?", line.strip())
    if not match:
        raise SdpError(f"{_quoted(line)} is not a valid c= line")
    try:
        address = ipaddress.ip_address(match[2])
    except ValueError:
        raise SdpError(f"connection address {_quoted(match[2])} is not an IP address") from None
    if address.version != int(match[1]):
        raise SdpError(f"connection address {address} is not of type IP{match[1]}")
    routed = getattr(address, "ipv4_mapped", None) or address
    if routed.is_multicast:
        raise SdpError(f"connection address {address} is multicast")
    if routed.is_unspecified or str(routed) == "255.255.255.255":
        raise SdpError(f"connection address {address} is not the address of a host")
    return str(address)


def _read_direction(section: list[str], session: list[str]) -> Direction:
    for line in section + session:
        name = line[2:].strip()
        if line.startswith("a=") and name in DIRECTIONS:
            return Direction(name)
    return Direction.SENDRECV


def _read_ssrc(attributes: Attributes) -> tuple[int | None, str | None]:
    """The first a=ssrc with a CNAME (RFC 5576 section 4.1)."""
    for name, value in attributes:
        if name == "ssrc":
            match = re.fullmatch(r"([0-9]{1,10}) cname:(.+)", value or "")
            if match and int(match[1]) < 2**32 and len(match[2].encode()) < 256:
                return int(match[1]), match[2]
    return None, None


def _milliseconds(wanted: str, attributes: Attributes) -> int | None:
    for name, value in attributes:
        if name == wanted and value is not None and re.fullmatch("[0-9]{1,5}", value):
            return int(value)
    return None
