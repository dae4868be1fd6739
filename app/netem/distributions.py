"""Random numbers with netem's shapes and correlation."""

from __future__ import annotations

import hashlib
from random import Random
from statistics import NormalDist

from app.netem.spec import Distribution

MAX_DEVIATION = 4.0
"""In units of the jitter: netem's tables are 16 bit with 8192 to the unit."""

PARETO_SHAPE = 3.0
PARETO_MEAN = 1.5
"""Of the Pareto law of shape 3 and scale 1, taken off so that the delay keeps its mean."""
PARETO_SCALE = 4.0 / 3.0
NORMAL_SHARE = 0.25
"""Of paretonormal; the rest is Pareto (iproute2)."""

_NORMAL = NormalDist()
_TINY = 2.0**-53


def derive_seed(seed: int, *labels: str) -> int:
    """A seed for one purpose out of the seed of a run: 64 bits, the same on every machine."""
    text = "/".join((str(seed), *labels))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")


class CorrelatedRandom:
    """Numbers in [0, 1), each leaning on the one before by `correlation`.

    x[n] = (1-c) u[n] + c x[n-1], as netem does it: an AR(1) process with mean 1/2, lag-k
    autocorrelation c**k and variance (1-c)/(1+c)/12. With c = 0 the numbers are uniform; with
    c > 0 they crowd about 1/2, so an event of probability p < 1/2 becomes rarer than p.
    """

    def __init__(self, seed: int, correlation: float = 0.0) -> None:
        self._random = Random(seed)
        self._correlation = correlation
        self._last = self._random.random()

    def next(self) -> float:
        value = self._random.random()
        if self._correlation:
            value = (1.0 - self._correlation) * value + self._correlation * self._last
            self._last = value
        return value

    def below(self, probability: float) -> bool:
        return self.next() < probability


def deviation(distribution: Distribution, quantile: float) -> float:
    """The deviation from the mean, in units of the jitter, at `quantile` in [0, 1).

    At most `MAX_DEVIATION`, as in netem's tables. Means are 0 but for what that cut takes off the
    tail; standard deviations are 1 (normal), 0.577 (uniform), 0.84 (pareto), 0.82 (paretonormal).
    """
    if distribution is Distribution.UNIFORM:
        return 2.0 * quantile - 1.0
    if distribution is Distribution.NORMAL:
        return _normal(quantile)
    pareto = _pareto(quantile)
    if distribution is Distribution.PARETO:
        return pareto
    return NORMAL_SHARE * _normal(quantile) + (1.0 - NORMAL_SHARE) * pareto


def _normal(quantile: float) -> float:
    value = _NORMAL.inv_cdf(min(max(quantile, _TINY), 1.0 - _TINY))
    return max(-MAX_DEVIATION, min(value, MAX_DEVIATION))


def _pareto(quantile: float) -> float:
    tail = max(1.0 - quantile, _TINY)
    value: float = tail ** (-1.0 / PARETO_SHAPE)
    return min(PARETO_SCALE * (value - PARETO_MEAN), MAX_DEVIATION)
