"""The base layer: libopus as a wide-band speech coder of 20 ms frames.

An encoder or decoder belongs to one thread at a time; nothing here locks. libopus runs with the
GIL released.
"""

from __future__ import annotations

import ctypes
import os
import weakref

import numpy as np
import numpy.typing as npt

from codec import FRAME, FRAME_TICKS, SAMPLE_RATE
from codec.frame import PcmFrame
from codec.libopus import Libopus, OpusError, OpusUnavailable, load_libopus
from codec.opus_packet import MalformedPacket, has_lbrr, packet_frames, packet_samples

__all__ = [
    "MAX_PACKET",
    "Libopus",
    "MalformedPacket",
    "OpusDecoder",
    "OpusEncoder",
    "OpusError",
    "OpusUnavailable",
    "has_lbrr",
    "load_libopus",
    "packet_frames",
    "packet_samples",
]

MAX_PACKET = 65_507
"""Bytes: the payload of the largest UDP datagram; a longer packet cannot have come by network."""

# opus_defines.h
APPLICATION_VOIP = 2048
SIGNAL_VOICE = 3001
BANDWIDTH_WIDEBAND = 1103
SET_BITRATE, GET_BITRATE = 4002, 4003
SET_MAX_BANDWIDTH = 4004
SET_BANDWIDTH = 4008
SET_COMPLEXITY = 4010
SET_INBAND_FEC, GET_INBAND_FEC = 4012, 4013
SET_PACKET_LOSS_PERC, GET_PACKET_LOSS_PERC = 4014, 4015
SET_DTX = 4016
SET_SIGNAL = 4024
GET_LOOKAHEAD = 4027
RESET_STATE = 4028
GET_FINAL_RANGE = 4031

MIN_BITRATE, MAX_BITRATE = 6_000, 510_000
"""bits/s (RFC 7587, section 6.1, maxaveragebitrate)."""

LARGEST_FRAME = 1 + 1275
"""Bytes of the largest packet of one frame: TOC and frame (RFC 6716, section 3.4, R2)."""

_INT16 = np.dtype(np.int16)
_Samples = ctypes.c_int16 * FRAME


class OpusEncoder:
    """Speech to Opus packets: VOIP application, mono, 16 kHz, wide band, 20 ms.

    `expected_loss` (percent) makes libopus spend on robustness; with 0 it sends no LBRR whatever
    `lbrr` says. `library` names a libopus (see `load_libopus`).

    Raises OpusUnavailable, and ValueError when a setting is out of range.
    """

    def __init__(
        self,
        *,
        bitrate: int = 24_000,
        complexity: int = 9,
        expected_loss: int = 0,
        lbrr: bool = True,
        dtx: bool = False,
        library: str | os.PathLike[str] | None = None,
    ) -> None:
        if not 0 <= complexity <= 10:
            raise ValueError(f"complexity {complexity} is not in 0..10")
        self.library = load_libopus(library)
        error = ctypes.c_int()
        state = self.library.opus_encoder_create(
            SAMPLE_RATE, 1, APPLICATION_VOIP, ctypes.byref(error)
        )
        self.library.check(error.value, "creating an encoder")
        self._state: int = state
        weakref.finalize(self, self.library.opus_encoder_destroy, state)
        self._input = np.zeros(FRAME, np.int16)
        self._input_samples = _Samples.from_buffer(self._input.data)
        self._output = (ctypes.c_ubyte * LARGEST_FRAME)()
        self._output_view = memoryview(self._output).cast("B")
        self._set(SET_MAX_BANDWIDTH, BANDWIDTH_WIDEBAND)
        self._set(SET_BANDWIDTH, BANDWIDTH_WIDEBAND)
        self._set(SET_SIGNAL, SIGNAL_VOICE)
        self._set(SET_COMPLEXITY, complexity)
        self._set(SET_DTX, int(dtx))
        self.bitrate = bitrate
        self.expected_loss = expected_loss
        self.lbrr = lbrr

    def encode(self, pcm: PcmFrame) -> bytes:
        """One packet from one frame, int16 [320].

        With `dtx`, a packet of at most 2 bytes need not be sent. Raises ValueError on another
        shape or dtype, OpusError when libopus fails.
        """
        if pcm.shape != (FRAME,) or pcm.dtype != _INT16:
            raise ValueError(f"a frame is int16 [{FRAME}], not {pcm.dtype} {list(pcm.shape)}")
        self._input[:] = pcm
        size = self.library.opus_encode(
            self._state, self._input_samples, FRAME, self._output, LARGEST_FRAME
        )
        self.library.check(size, "encoding")
        return bytes(self._output_view[:size])

    def reset(self) -> None:
        """Forgets what was encoded; settings stay."""
        code = self.library.opus_encoder_ctl(self._state, RESET_STATE)
        self.library.check(code, "resetting an encoder")

    @property
    def bitrate(self) -> int:
        """bits/s."""
        return self._get(GET_BITRATE)

    @bitrate.setter
    def bitrate(self, value: int) -> None:
        if not MIN_BITRATE <= value <= MAX_BITRATE:
            raise ValueError(f"bitrate {value} bits/s is not in {MIN_BITRATE}..{MAX_BITRATE}")
        self._set(SET_BITRATE, value)

    @property
    def expected_loss(self) -> int:
        """Percent, 0..100."""
        return self._get(GET_PACKET_LOSS_PERC)

    @expected_loss.setter
    def expected_loss(self, value: int) -> None:
        if not 0 <= value <= 100:
            raise ValueError(f"expected loss {value} % is not in 0..100")
        self._set(SET_PACKET_LOSS_PERC, value)

    @property
    def lbrr(self) -> bool:
        """Whether packets may carry a coarse copy of the frame before (RFC 6716, 2.1.7)."""
        return bool(self._get(GET_INBAND_FEC))

    @lbrr.setter
    def lbrr(self, value: bool) -> None:
        self._set(SET_INBAND_FEC, int(value))

    @property
    def lookahead(self) -> int:
        """Samples at 16 kHz by which decoded speech lags what was encoded."""
        return self._get(GET_LOOKAHEAD)

    @property
    def final_range(self) -> int:
        """The range coder's state after the last packet; equal on both sides if they agree."""
        return self._get(GET_FINAL_RANGE) & 0xFFFFFFFF

    def _set(self, request: int, value: int) -> None:
        self.library.control(self.library.opus_encoder_ctl, self._state, request, value)

    def _get(self, request: int) -> int:
        return self.library.query(self.library.opus_encoder_ctl, self._state, request)


class OpusDecoder:
    """Opus packets of 20 ms to frames of int16 [320] at 16 kHz, mono.

    Any Opus packet of that duration will do: stereo is mixed down, wider bands are cut. A packet
    that is refused raises OpusError and leaves the decoder as it was.
    """

    def __init__(self, *, library: str | os.PathLike[str] | None = None) -> None:
        self.library = load_libopus(library)
        error = ctypes.c_int()
        state = self.library.opus_decoder_create(SAMPLE_RATE, 1, ctypes.byref(error))
        self.library.check(error.value, "creating a decoder")
        self._state: int = state
        weakref.finalize(self, self.library.opus_decoder_destroy, state)
        self._output = np.zeros(FRAME, np.int16)
        self._output_samples = _Samples.from_buffer(self._output.data)

    def decode(self, packet: bytes) -> PcmFrame:
        """The frame in `packet`, int16 [320].

        Raises MalformedPacket when `packet` is not Opus or does not last 20 ms, OpusError when
        libopus refuses it.
        """
        self._check_duration(packet)
        return self._decode(packet, fec=False)

    def decode_lbrr(self, following: bytes) -> PcmFrame:
        """The frame before the one in `following`, out of its LBRR, int16 [320].

        Call it in place of `decode` for the missing frame, then `decode(following)`. Raises as
        `decode` does, and OpusError when `following` carries no LBRR: libopus would conceal.
        """
        self._check_duration(following)
        if not has_lbrr(following):
            raise OpusError("the packet carries no LBRR")
        return self._decode(following, fec=True)

    def conceal(self) -> PcmFrame:
        """libopus's own guess at a missing frame, int16 [320]."""
        return self._decode(None, fec=False)

    def copy(self) -> OpusDecoder:
        """An independent decoder that goes on from the same packet."""
        other = OpusDecoder(library=self.library.path)
        # a decoder's state is in one piece and holds no pointer into itself (opus.h)
        ctypes.memmove(other._state, self._state, self.library.opus_decoder_get_size(1))
        return other

    def reset(self) -> None:
        """Forgets everything, as if newly made."""
        code = self.library.opus_decoder_ctl(self._state, RESET_STATE)
        self.library.check(code, "resetting a decoder")

    @property
    def final_range(self) -> int:
        """The range coder's state after the last packet; see `OpusEncoder.final_range`."""
        function = self.library.opus_decoder_ctl
        return self.library.query(function, self._state, GET_FINAL_RANGE) & 0xFFFFFFFF

    def _check_duration(self, packet: bytes) -> None:
        if len(packet) > MAX_PACKET:
            raise MalformedPacket(f"a packet of {len(packet)} bytes is longer than {MAX_PACKET}")
        ticks = packet_samples(packet)
        if ticks != FRAME_TICKS:
            raise MalformedPacket(f"the packet lasts {ticks / 48:g} ms, not 20")

    def _decode(self, packet: bytes | None, *, fec: bool) -> npt.NDArray[np.int16]:
        size = 0 if packet is None else len(packet)
        count = self.library.opus_decode(
            self._state, packet, size, self._output_samples, FRAME, int(fec)
        )
        self.library.check(count, "decoding")
        if count != FRAME:
            raise OpusError(f"libopus gave {count} samples for {FRAME}")
        return self._output.copy()
