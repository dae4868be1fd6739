"""Packet losses for training: bursts as calls over the Internet show them."""

import numpy as np
import numpy.typing as npt

LOSS_RATE = (0.03, 0.5)
MEAN_BURST = (1.0, 12.0)
"""Packets, drawn on a logarithmic scale per pattern: calls differ more than a call's bursts do."""
LONGEST_BURST = 50
"""Packets: 1 s; a longer hole is not concealed, and ends."""


def loss_pattern(packets: int, rng: np.random.Generator) -> npt.NDArray[np.bool_]:
    """bool [packets], true where lost: a two-state Markov chain with random parameters.

    Each call draws its own loss rate and mean burst (Gilbert's model; the mixture over calls gives
    the heavy tail of burst lengths that one chain lacks).
    """
    rate = rng.uniform(*LOSS_RATE)
    burst = float(np.exp(rng.uniform(*np.log(MEAN_BURST))))
    recovery = 1 / burst
    onset = min(1.0, rate * recovery / (1 - rate))
    lost = np.zeros(packets, bool)
    position = 0
    bad = rng.random() < rate
    while position < packets:
        length = int(rng.geometric(recovery if bad else onset))
        if bad:
            length = min(length, LONGEST_BURST)
            lost[position : position + length] = True
        position += length
        bad = not bad
    return lost


def frame_losses(frames: int, rng: np.random.Generator) -> npt.NDArray[np.bool_]:
    """bool [frames] of 10 ms: `loss_pattern` of 20 ms packets, beginning anywhere in one."""
    offset = int(rng.integers(2))
    packets = loss_pattern((frames + offset + 1) // 2, rng)
    return np.repeat(packets, 2)[offset : offset + frames]
