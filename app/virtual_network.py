"""Two RTP sessions and the network between them, under a virtual clock."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from random import Random
from typing import Protocol

from app.audio.base import CapturedFrame
from app.coding import Outbound, opus_parameters, session_bandwidth
from app.net.red import RedFormat
from app.net.reports import make_cname
from app.net.rtcp import ReportReceived
from app.net.rtp import RtpReceived
from app.net.sdp import PAYLOAD_TYPE
from app.net.session import RtpSession
from app.netem import Delivery, derive_seed
from app.options import CallOptions
from app.sender import EncodedFrame
from codec import FRAME_SECONDS
from codec.frame import PcmFrame

HOUSEKEEPING = 0.1
"""Seconds between looks at RTCP timers, as in a call."""

HOST = "simulated" + 7 * "0"
"""Both sides are of one host, and read the same wall clock."""

NTP_EPOCH = 0xEB00_0000 << 32
"""Wall-clock time (64-bit NTP) of virtual time 0: any will do, so long as it is always the same."""


class Link(Protocol):
    """One direction: what enters with `push` comes out with `pop_due`, or does not."""

    def push(self, data: bytes, now: float) -> None: ...

    def pop_due(self, now: float) -> list[Delivery]: ...

    def next_due(self) -> float | None: ...


class VirtualNetwork:
    """A sender that speaks, a receiver that listens and reports back, and the way between them.

    Nothing happens but in `advance`. Time 0 is the instant at which the first sample is captured;
    coding takes none. `on_media` is given every media packet that arrives, in order of arrival.
    """

    def __init__(
        self,
        options: CallOptions,
        frames: Iterable[PcmFrame],
        *,
        way: Link,
        way_back: Link,
        on_media: Callable[[RtpReceived], None],
        drift: float = 0.0,
    ) -> None:
        """`drift` is by how much faster the sender's sound card runs than the receiver's clock."""
        self.now = 0.0
        self.frames_captured = 0
        self.ended = False
        """Whether the source has no more."""
        red = RedFormat() if options.recovery.red else None
        self.outbound = Outbound(options, opus_parameters(options), red)
        rng = Random(derive_seed(options.seed, "sessions"))
        ssrcs = rng.sample(range(1, 2**32), 2)

        def session(ours: int, theirs: int) -> RtpSession:
            return RtpSession(
                now=0.0,
                rng=rng,
                cname=make_cname(rng, HOST),
                payload_type=PAYLOAD_TYPE,
                red_payload_type=red.payload_type if red else None,
                ssrc=ours,
                peer_ssrc=theirs,
                session_bandwidth=session_bandwidth(options),
            )

        self.speaker = session(ssrcs[0], ssrcs[1])
        self.listener = session(ssrcs[1], ssrcs[0])
        self.sender = self.outbound.sender(
            emit=self._emit,
            ended=self._on_end,
            clock=lambda: self.now,
            rtp_origin=self.speaker.rtp_origin,
        )
        self._frames = iter(frames)
        self._way = way
        self._way_back = way_back
        self._on_media = on_media
        self._frame_seconds = FRAME_SECONDS / (1.0 + drift)
        self._housekeeping = 0

    def captured_at(self, number: float) -> float:
        """The instant at which the first sample of frame `number` was captured."""
        return number * self._frame_seconds

    @property
    def idle(self) -> bool:
        """Whether all that was said has come, or never will."""
        return self.ended and self._way.next_due() is None

    def advance(self, until: float) -> None:
        """Lets everything happen that is due by then."""
        while True:
            events = (
                (None if self.ended else self.captured_at(self.frames_captured + 1), self._capture),
                (self._way.next_due(), self._arrive),
                (self._way_back.next_due(), self._return),
                (HOUSEKEEPING * self._housekeeping, self._keep_house),
            )
            due, happen = min(
                ((at, happen) for at, happen in events if at is not None), key=lambda e: e[0]
            )
            if due > until:
                break
            self.now = max(self.now, due)
            happen()
        self.now = max(self.now, until)

    def _ntp(self) -> int:
        return NTP_EPOCH + round(self.now * 2**32)

    def _capture(self) -> None:
        """A frame is full: the sender has it, or the source has ended."""
        pcm = next(self._frames, None)
        captured_at = self.captured_at(self.frames_captured)
        self.frames_captured += pcm is not None
        self.sender.deliver(None if pcm is None else CapturedFrame(pcm, captured_at))

    def _on_end(self) -> None:
        self.ended = True

    def _emit(self, frame: EncodedFrame) -> None:
        data = self.speaker.packetise(
            frame.payload, frame.timestamp, frame.captured_at, red=frame.is_red
        )
        self._way.push(data, self.now)

    def _arrive(self) -> None:
        for delivery in self._way.pop_due(self.now):
            for event in self.listener.receive(delivery.data, delivery.at, self._ntp()):
                if isinstance(event, RtpReceived):
                    self._on_media(event)

    def _return(self) -> None:
        for delivery in self._way_back.pop_due(self.now):
            for event in self.speaker.receive(delivery.data, delivery.at, self._ntp()):
                if isinstance(event, ReportReceived) and event.reception is not None:
                    fraction = event.reception.fraction_lost
                    self.sender.protect(self.outbound.policy.update(fraction, event.bursts))

    def _keep_house(self) -> None:
        self._housekeeping += 1
        for session, link in ((self.speaker, self._way), (self.listener, self._way_back)):
            if session.rtcp_due(self.now):
                link.push(session.make_report(self.now, self._ntp()), self.now)
