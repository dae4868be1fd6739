"""Giving a decoder back the past that it lost with the packets of a hole.

What SILK decodes depends on what it decoded before: the long-term predictor repeats the last pitch
periods, the short-term filter rings on. After a hole these memories hold libopus's concealment at
best, and the first frames come out too quiet and out of shape. But what was heard is known. A
spare encoder codes it, the decoder decodes that, and goes on as if it had been sent.
"""

from __future__ import annotations

import numpy as np

from codec import FRAME
from codec.frame import PcmFrame
from codec.opus import OpusDecoder, OpusEncoder

FRAMES = 2
"""Re-coded packets: the first fills the predictors' memories, the second is right. More are no
better."""

BITRATE = 40_000
"""Below this they sound a little worse, above they do not sound better."""

COMPLEXITY = 0
"""How it is coded is not heard, only what: a sixth of the time of full complexity."""


class DecoderPrimer:
    """Puts Opus decoders behind holes that others have filled. Belongs to one thread at a time.

    Raises OpusUnavailable.
    """

    def __init__(self) -> None:
        self._encoder = OpusEncoder(bitrate=BITRATE, complexity=COMPLEXITY, lbrr=False)
        self.lookahead = self._encoder.lookahead
        """Samples at 16 kHz by which the sound must go beyond the end of the hole."""

    def prime(self, decoder: OpusDecoder, heard: PcmFrame) -> None:
        """Make `decoder` ready for the packet after a hole.

        `heard` is int16 [FRAMES * 320]: what was heard last and, for the last `lookahead` samples,
        how that would have gone on. Raises OpusError when libopus fails.
        """
        self._encoder.reset()
        decoder.reset()
        for frame in np.ascontiguousarray(heard).reshape(FRAMES, FRAME):
            decoder.decode(self._encoder.encode(frame))
