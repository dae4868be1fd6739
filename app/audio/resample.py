"""Rate conversion at the edge, with a delay that speech can afford."""

from __future__ import annotations

import av
import numpy as np
import numpy.typing as npt


class Resampler:
    """Mono int16 from one rate to another, block by block.

    libswresample (through PyAV): its filter runs in the time domain and holds back 1 ms at
    16 kHz, where soxr's works in blocks and holds back 20 to 60. Output sample n lies at the
    instant n / to_rate of the input: the filter's delay is compensated.
    """

    def __init__(self, from_rate: int, to_rate: int) -> None:
        self.from_rate = from_rate
        self.to_rate = to_rate
        self._resampler = (
            None if from_rate == to_rate else av.AudioResampler("s16", "mono", to_rate)
        )

    def process(self, pcm: npt.NDArray[np.int16]) -> npt.NDArray[np.int16]:
        """What can be said so far after `pcm`, int16 [n]; may be empty."""
        if self._resampler is None or not pcm.size:
            return pcm
        frame = av.AudioFrame.from_ndarray(pcm.reshape(1, -1), format="s16", layout="mono")
        frame.sample_rate = self.from_rate
        blocks: list[npt.NDArray[np.int16]] = [
            block.to_ndarray()[0] for block in self._resampler.resample(frame)
        ]
        if len(blocks) == 1:
            return blocks[0]
        return np.concatenate(blocks) if blocks else np.empty(0, np.int16)
