"""What both ends of a call code and decode with, from its options: of real calls and simulated."""

from __future__ import annotations

from collections.abc import Callable

from app.audio.sink import LEAD
from app.marker import MarkerInjector
from app.net.opus_fmtp import OpusParameters
from app.net.red import RedEncoder, RedFormat
from app.net.sdp import PAYLOAD_TYPE
from app.options import CallOptions, Recovery
from app.redundancy import MAX_REACH, RedundancyPolicy
from app.sender import EncodedFrame, Sender
from codec import SAMPLE_RATE
from codec.concealer import Concealer
from codec.dred import DredDecoder, DredEncoder
from codec.libopus import load_libopus
from codec.opus import OpusDecoder, OpusEncoder
from codec.receiver import SpeechDecoder
from jitterbuffer import JitterBuffer

HEADERS_BITRATE = 8 * (20 + 8 + 12) * 50
"""bits/s of IP, UDP and RTP headers: part of a session's bandwidth (RFC 3550 section 6.2)."""


def load_models(options: CallOptions) -> None:
    """Reads from disk what a call needs, a second's work: not to be done while the peer talks."""
    load_libopus(options.libopus)
    if options.recovery is not Recovery.OPUS_PLC:
        Concealer()
    if options.recovery.dred:
        DredEncoder()
        DredDecoder()


def opus_parameters(options: CallOptions) -> OpusParameters:
    """What one side says of itself when a call is agreed on."""
    reach = MAX_REACH if options.dred_ms is None else options.dred_ms
    return OpusParameters(
        maxplaybackrate=SAMPLE_RATE,
        sprop_maxcapturerate=SAMPLE_RATE,
        useinbandfec=options.recovery.lbrr,
        dred_duration=MAX_REACH if options.recovery.dred else None,
        sprop_dred_duration=reach if options.recovery.dred else None,
    )


def session_bandwidth(options: CallOptions) -> int:
    """bits/s, of which RTCP takes its share."""
    return options.bitrate + HEADERS_BITRATE


class Outbound:
    """How one side codes what it sends to a peer, and protects it."""

    def __init__(
        self,
        options: CallOptions,
        peer: OpusParameters,
        red: RedFormat | None = None,
        payload_type: int = PAYLOAD_TYPE,
    ) -> None:
        """`peer` and `red` are what the other side has said of itself, `payload_type` Opus's."""
        self.lbrr = options.recovery.lbrr and peer.useinbandfec
        self.dred = options.recovery.dred and bool(peer.dred_duration)
        """Whether we may send DRED: we were asked to, and the peer can use it."""
        self.red_copies = min(options.red_copies, red.copies) if options.recovery.red and red else 0
        self._payload_type = payload_type
        self.bitrate = min(options.bitrate, peer.maxaveragebitrate or options.bitrate)
        self.policy = RedundancyPolicy(
            bitrate=self.bitrate,
            lbrr=self.lbrr,
            dred=self.dred,
            red_copies=self.red_copies,
            dred_ms=options.dred_ms,
            max_dred_ms=min(MAX_REACH, peer.dred_duration or 0),
            total_bitrate=peer.maxaveragebitrate,
            expected_loss=options.expected_loss,
        )
        redundancy = self.policy.current
        self.encoder = OpusEncoder(
            bitrate=redundancy.opus_bitrate,
            complexity=options.complexity,
            expected_loss=redundancy.expected_loss_percent,
            lbrr=redundancy.lbrr,
            library=options.libopus,
        )
        self._injector = MarkerInjector() if options.probe else None

    def sender(
        self,
        *,
        emit: Callable[[EncodedFrame], None],
        ended: Callable[[], None],
        clock: Callable[[], float],
        rtp_origin: int,
    ) -> Sender:
        """The one sender that codes with this."""
        return Sender(
            self.encoder,
            emit=emit,
            ended=ended,
            clock=clock,
            redundancy=self.policy.current,
            dred=DredEncoder(lookahead=self.encoder.lookahead) if self.dred else None,
            red=RedEncoder(self._payload_type) if self.red_copies else None,
            injector=self._injector,
            rtp_origin=rtp_origin,
        )

    def codec_name(self) -> str:
        """What both sides agreed on, and with whose code we do it."""
        extras = (" + LBRR" if self.lbrr else "") + (" + DRED" if self.dred else "")
        if self.red_copies:
            extras += f" + RED, {self.red_copies} cop{'y' if self.red_copies == 1 else 'ies'}"
        library = self.encoder.library.version
        return f"Opus wideband {self.bitrate / 1e3:g} kb/s{extras} ({library})"


def make_buffer(options: CallOptions) -> JitterBuffer:
    return JitterBuffer(
        target_delay=options.target_delay, notice=LEAD, recovery=options.recovery.sources
    )


def make_decoder(options: CallOptions) -> SpeechDecoder:
    """Raises OpusError and the errors of missing models."""
    return SpeechDecoder(
        OpusDecoder(library=options.libopus),
        concealer=Concealer() if options.recovery is not Recovery.OPUS_PLC else None,
        dred=DredDecoder() if options.recovery.dred else None,
    )
