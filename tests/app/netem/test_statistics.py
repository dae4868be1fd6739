"""The statistics that the options of netem promise, against closed forms where there are any.

Seeds are fixed, and bounds are about four standard errors, so that a right model passes.
"""

from __future__ import annotations

import math
from itertools import groupby, pairwise

import numpy as np
import numpy.typing as npt
import pytest
from scipy import stats

from app.netem import Netem, parse_netem
from app.netem.distributions import CorrelatedRandom, deviation
from app.netem.spec import Distribution

N = 100_000

Floats = npt.NDArray[np.float64]


def losses(spec: str, packets: int = N, seed: int = 11) -> npt.NDArray[np.bool_]:
    netem = Netem(parse_netem(spec), seed=seed)
    return np.array([not netem.process(b"", float(i)) for i in range(packets)])


def delays(spec: str, packets: int = N, seed: int = 11) -> Floats:
    """Seconds."""
    netem = Netem(parse_netem(spec), seed=seed)
    return np.array([netem.process(b"", 10.0 * i)[0].at - 10.0 * i for i in range(packets)])


def bursts(lost: npt.NDArray[np.bool_]) -> npt.NDArray[np.int64]:
    return np.array([sum(1 for _ in run) for value, run in groupby(lost.tolist()) if value])


def autocorrelation(x: Floats, lag: int = 1) -> float:
    x = x - x.mean()
    return float((x[lag:] * x[:-lag]).mean() / x.var())


def test_random_loss_strikes_its_share_independently() -> None:
    lost = losses("loss 5%")
    assert lost.mean() == pytest.approx(0.05, abs=0.003)
    assert autocorrelation(lost.astype(float)) == pytest.approx(0.0, abs=0.013)
    assert bursts(lost).mean() == pytest.approx(1 / 0.95, abs=0.015)


@pytest.mark.parametrize(("p", "r"), [(0.05, 0.3), (0.02, 0.1), (0.2, 0.5)])
def test_a_simple_gilbert_loss_has_its_rate_and_geometric_bursts(p: float, r: float) -> None:
    lost = losses(f"loss gemodel {100 * p}% {100 * r}%")
    assert lost.mean() == pytest.approx(p / (p + r), rel=0.08)
    # The indicator of a two-state chain decays by 1-p-r per packet.
    assert autocorrelation(lost.astype(float)) == pytest.approx(1 - p - r, abs=0.03)
    lengths = bursts(lost)
    assert lengths.mean() == pytest.approx(1 / r, rel=0.06)
    cells = np.arange(1, math.ceil(3 / r))
    observed = np.append([(lengths == n).sum() for n in cells], (lengths > cells[-1]).sum())
    expected = np.append(stats.geom.pmf(cells, r), stats.geom.sf(cells[-1], r)) * len(lengths)
    assert stats.chisquare(observed, expected).pvalue > 1e-3


def test_a_gilbert_elliott_loss_loses_in_both_states() -> None:
    p, r, bad, good = 0.05, 0.2, 0.6, 0.02
    lost = losses("loss gemodel 5% 20% 60% 2%")
    share_bad = p / (p + r)
    assert lost.mean() == pytest.approx(share_bad * bad + (1 - share_bad) * good, abs=0.007)


def test_gemodel_with_p_alone_is_independent() -> None:
    lost = losses("loss gemodel 5%")
    assert lost.mean() == pytest.approx(0.05, abs=0.003)
    assert autocorrelation(lost.astype(float)) == pytest.approx(0.0, abs=0.013)


def test_the_four_states_have_their_stationary_shares() -> None:
    p13, p31, p32, p23, p14 = 0.02, 0.25, 0.15, 0.4, 0.03
    lost = losses("loss state 2% 25% 15% 40% 3%", 4 * N)
    # Balance: 1 -> 3 and 3 -> 1 cancel, so do 2 -> 3 and 3 -> 2, and 4 always returns to 1.
    one = 1 / (1 + p13 / p31 + p13 / p31 * p32 / p23 + p14)
    three, four = one * p13 / p31, one * p14
    assert lost.mean() == pytest.approx(three + four, rel=0.05)
    # A burst is a stay in state 3, of mean 1/(p31+p32), or a lone loss.
    starts_three, starts_four = one * p13 + three * p32 / p23 * p23, four
    mean = (starts_three / (p31 + p32) + starts_four) / (starts_three + starts_four)
    assert bursts(lost).mean() == pytest.approx(mean, rel=0.03)


def test_lone_losses_of_state_four_are_alone() -> None:
    lost = losses("loss state 0% 100% 0% 100% 20%")
    assert lost.mean() == pytest.approx(0.2 / 1.2, abs=0.005)
    assert set(bursts(lost)) == {1}


def test_state_with_p13_alone_is_independent() -> None:
    lost = losses("loss state 5%")
    assert lost.mean() == pytest.approx(0.05, abs=0.003)
    assert autocorrelation(lost.astype(float)) == pytest.approx(0.0, abs=0.013)


@pytest.mark.parametrize("c", [0.25, 0.5, 0.9])
def test_correlated_numbers_are_an_ar1_process(c: float) -> None:
    numbers = CorrelatedRandom(5, c)
    x = np.array([numbers.next() for _ in range(N)])
    assert x.mean() == pytest.approx(0.5, abs=0.005)
    assert x.var() == pytest.approx((1 - c) / (1 + c) / 12, rel=0.06)
    assert [autocorrelation(x, lag) for lag in (1, 2, 3)] == pytest.approx(
        [c, c**2, c**3], abs=0.02
    )


def test_correlated_losses_are_those_of_the_ar1_process_and_rarer_than_asked() -> None:
    lost = losses("loss 20% 50%")
    u = np.random.default_rng(1).random(4 * N)
    x, ar = np.empty(4 * N), 0.5
    for i in range(4 * N):
        ar = x[i] = 0.5 * u[i] + 0.5 * ar
    expected = x < 0.2
    assert expected.mean() < 0.04
    assert lost.mean() == pytest.approx(expected.mean(), rel=0.06)
    assert autocorrelation(lost.astype(float)) == pytest.approx(
        autocorrelation(expected.astype(float)), abs=0.03
    )


def test_a_normal_delay_has_its_mean_deviation_and_shape() -> None:
    x = delays("delay 200ms 20ms distribution normal", 20_000)
    assert x.mean() == pytest.approx(0.2, abs=0.0006)
    assert x.std() == pytest.approx(0.02, rel=0.03)
    assert stats.kstest((x - 0.2) / 0.02, "norm").pvalue > 1e-3
    assert abs(autocorrelation(x)) < 0.03


def test_a_uniform_delay_fills_its_width() -> None:
    x = delays("delay 200ms 20ms distribution uniform", 20_000)
    assert stats.kstest(x, "uniform", (0.18, 0.04)).pvalue > 1e-3


def test_a_pareto_delay_is_a_pareto_law_of_shape_three() -> None:
    x = (delays("delay 200ms 20ms distribution pareto", 20_000) - 0.2) / 0.02
    # Undoing netem's scaling leaves the law on [1, oo), cut at four units of jitter.
    inside = x < 3.999
    assert x.max() == pytest.approx(4.0)
    cut = 4 * 3 / 4 + 1.5
    law = stats.truncpareto(3, cut)
    assert stats.kstest(x[inside] * 3 / 4 + 1.5, law.cdf).pvalue > 1e-3
    assert (~inside).mean() == pytest.approx(cut**-3, abs=0.003)
    assert stats.skew(x) > 1.5


def test_paretonormal_lies_between_normal_and_pareto() -> None:
    x = delays("delay 200ms 20ms distribution paretonormal", 20_000)
    expected = np.array(
        [deviation(Distribution.PARETONORMAL, (i + 0.5) / 20_000) for i in range(20_000)]
    )
    assert x.mean() == pytest.approx(0.2 + 0.02 * expected.mean(), abs=0.0006)
    assert x.std() == pytest.approx(0.02 * expected.std(), rel=0.04)
    assert 0.5 < stats.skew(x) < stats.skew(delays("delay 200ms 20ms distribution pareto", 20_000))
    # A quarter of the normal deviation and three quarters of the Pareto one, at each quantile.
    for q in (0.1, 0.5, 0.9):
        pareto = ((1 - q) ** (-1 / 3) - 1.5) * 4 / 3
        quantile = 0.25 * stats.norm.ppf(q) + 0.75 * pareto
        assert np.quantile((x - 0.2) / 0.02, q) == pytest.approx(quantile, abs=0.05)


def test_the_default_shape_is_normal() -> None:
    assert np.array_equal(
        delays("delay 100ms 10ms", 1000), delays("delay 100ms 10ms distribution normal", 1000)
    )


def test_a_correlated_jitter_leans_on_the_delay_before() -> None:
    x = delays("delay 200ms 20ms 70% distribution uniform")
    assert autocorrelation(x) == pytest.approx(0.7, abs=0.02)
    assert x.mean() == pytest.approx(0.2, abs=0.0006)


def test_reordering_strikes_its_share() -> None:
    sent = delays("delay 100ms reorder 25%")
    assert set(np.round(sent, 6)) == {0.0, 0.1}
    assert (sent < 0.05).mean() == pytest.approx(0.25, abs=0.006)


def test_a_gap_sets_reordered_packets_apart() -> None:
    sent = delays("delay 100ms reorder 25% gap 5")
    spacing = [b - a for a, b in pairwise(np.flatnonzero(sent < 0.05).tolist())]
    assert min(spacing) == 5
    # Four that must wait, then a geometric wait for one in four.
    assert np.mean(spacing) == pytest.approx(4 + 1 / 0.25, rel=0.03)


def test_duplication_strikes_its_share() -> None:
    netem = Netem(parse_netem("duplicate 10%"), seed=11)
    copies = [len(netem.process(b"", float(i))) for i in range(N)]
    assert set(copies) == {1, 2}
    assert np.mean(copies) == pytest.approx(1.1, abs=0.004)


def test_corruption_strikes_its_share() -> None:
    netem = Netem(parse_netem("corrupt 10%"), seed=11)
    damaged = [netem.process(b"speech", float(i))[0].data != b"speech" for i in range(N)]
    assert np.mean(damaged) == pytest.approx(0.1, abs=0.004)
