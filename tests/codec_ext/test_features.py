"""The native features against their NumPy definition, and as a stream."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from codec.features import (
    MAX_PERIOD,
    MIN_PERIOD,
    PERIODICITY,
    PITCH,
    FeatureExtractor,
    cepstrum_to_lpc,
    correlation,
    period,
)
from codec.training.prepare import decode
from tests.codec_ext import features_reference as reference

Pcm = npt.NDArray[np.int16]

HOP = 160
CLIPS = Path(__file__).parents[1] / "data"
C0_OF_FULL_SCALE = 45.0
"""18 bands of at most 10^9.9 give c0 = 9.9 sqrt(18) - 4 = 38."""


@pytest.fixture(scope="module", params=["man", "woman"])
def speech(request: pytest.FixtureRequest) -> Pcm:
    return decode(CLIPS / f"{request.param}.flac")[: 300 * HOP]


def harmonics(frequency: float, hops: int) -> Pcm:
    """All harmonics below 4 kHz at equal strength."""
    t = np.arange(hops * HOP) / 16_000
    orders = np.arange(1, int(4000 / frequency) + 1)
    wave = np.cos(2 * np.pi * frequency * np.outer(orders, t)).sum(axis=0)
    return np.asarray(np.rint(8000 * wave / np.abs(wave).max()), dtype=np.int16)


def pulses(hops: int) -> Pcm:
    pcm = np.zeros(hops * HOP, dtype=np.int16)
    pcm[::1237] = 32767
    pcm[500::2411] = -32768
    return pcm


HARSH = {
    "silence": np.zeros(100 * HOP, dtype=np.int16),
    "least step": (np.arange(100 * HOP) % 2).astype(np.int16),
    "square at full scale": np.where(np.arange(16_000) // 40 % 2, 32767, -32768).astype(np.int16),
    "alternating full scale": np.where(np.arange(16_000) % 2, 32767, -32768).astype(np.int16),
    "constant full scale": np.full(100 * HOP, -32768, dtype=np.int16),
    "impulses": pulses(100),
    "noise at full scale": np.random.default_rng(3).integers(
        -32768, 32768, 100 * HOP, dtype=np.int16
    ),
}


def test_cepstra_are_those_of_the_definition(speech: Pcm) -> None:
    # float32 against float64: the logarithm turns a relative error of 1e-6 into 4e-7, the energy
    # floor bounds the cancellation in quiet bands, and 18 such values are summed.
    expected = np.array(
        [reference.cepstrum(w) for w in reference.windows(reference.emphasised(speech))]
    )
    found = FeatureExtractor().process(speech)[:, :18]
    np.testing.assert_allclose(found, expected, atol=2e-4, rtol=0)


def test_periods_are_those_of_the_definition(speech: Pcm) -> None:
    # Two lags that score equally to six digits may change places; nothing else may differ.
    expected, found = reference.extract(speech), FeatureExtractor().process(speech)
    same = period(found) == period(expected.astype(np.float32))
    assert np.mean(same) > 0.99
    # Half a thousandth of an octave is 0.03 % of the period: the parabola divides a small
    # difference of float32 correlations.
    np.testing.assert_allclose(found[same, PITCH], expected[same, PITCH], atol=5e-4, rtol=0)
    # 2e-4 of cepstrum is 0.2 % of a band, which the predictor, and so the residual, inherits.
    np.testing.assert_allclose(
        found[same, PERIODICITY], expected[same, PERIODICITY], atol=5e-4, rtol=0
    )


def test_predictors_are_those_of_the_definition(speech: Pcm) -> None:
    features = FeatureExtractor().process(speech)
    expected = np.array([reference.lpc(f[:18].astype(np.float64)) for f in features])
    # 10^x of a float32 cepstrum is good to 1e-5, which normal equations conditioned like speech
    # (up to about 1e3 with the white noise correction) enlarge.
    np.testing.assert_allclose(cepstrum_to_lpc(features), expected, atol=5e-3, rtol=0)


def test_prediction_is_best_on_the_frame_half_a_hop_back(speech: Pcm) -> None:
    features = FeatureExtractor().process(speech)
    signal = reference.emphasised(speech)
    predictors = cepstrum_to_lpc(features).astype(np.float64)

    def residual_power(lag: int) -> float:
        total = 0.0
        for k in range(2, len(features) - 2):
            n = np.arange(k * HOP - lag, (k + 1) * HOP - lag)
            predicted = sum(predictors[k, i] * signal[n - 1 - i] for i in range(16))
            total += float(np.sum((signal[n] - predicted) ** 2))
        return total

    assert residual_power(80) < min(residual_power(0), residual_power(160))
    assert residual_power(80) < 0.2 * float(np.sum(signal**2))


@settings(max_examples=25, deadline=None)
@given(cuts=st.lists(st.integers(0, 40), max_size=8))
def test_any_cut_of_a_stream_gives_the_same_bits(cuts: list[int]) -> None:
    pcm = decode(CLIPS / "woman.flac")[: 160 * HOP]
    whole = FeatureExtractor().process(pcm)
    stream, parts, at = FeatureExtractor(), [], 0
    for hops in [*cuts, 160]:
        part = pcm[at * HOP : min(160, at + hops) * HOP]
        parts.append(stream.process(part))
        at = min(160, at + hops)
    np.testing.assert_array_equal(np.concatenate(parts), whole)


def test_a_feature_depends_on_nothing_after_its_hop(speech: Pcm) -> None:
    altered = speech.copy()
    altered[150 * HOP :] = 12345
    one, other = FeatureExtractor().process(speech), FeatureExtractor().process(altered)
    np.testing.assert_array_equal(one[:150], other[:150])
    assert np.abs(one[150] - other[150]).max() > 0.1


def test_a_copy_goes_its_own_way_from_where_the_original_was(speech: Pcm) -> None:
    original = FeatureExtractor()
    original.process(speech[: 100 * HOP])
    copy = original.copy()
    original.process(HARSH["impulses"])
    np.testing.assert_array_equal(
        copy.process(speech[100 * HOP :]), FeatureExtractor().process(speech)[100:]
    )


def test_reset_forgets_everything(speech: Pcm) -> None:
    extractor = FeatureExtractor()
    first = extractor.process(speech)
    extractor.reset()
    np.testing.assert_array_equal(extractor.process(speech), first)


@pytest.mark.parametrize("kind", HARSH)
def test_harsh_signals_give_bounded_features(kind: str) -> None:
    extractor = FeatureExtractor()
    # Speech before and after: a state that has gone wrong shows.
    clip = decode(CLIPS / "man.flac")[: 100 * HOP]
    features = extractor.process(np.concatenate([clip, HARSH[kind], clip]))
    assert np.all(np.isfinite(features))
    assert np.all(np.abs(features[:, :18]) < C0_OF_FULL_SCALE)
    assert np.all(np.abs(features[:, PITCH]) <= 1.5)
    assert np.all(np.abs(features[:, PERIODICITY]) <= 0.5001)
    predictors = cepstrum_to_lpc(features)
    assert np.all(np.isfinite(predictors))
    for taps in predictors:
        assert np.abs(np.roots([1.0, *-taps.astype(np.float64)])).max() < 1


def test_digital_silence_is_the_floor_of_the_cepstrum() -> None:
    features = FeatureExtractor().process(HARSH["silence"])
    np.testing.assert_allclose(features[:, 0], -2 * np.sqrt(18) - 4, rtol=1e-6)
    np.testing.assert_allclose(features[:, 1:18], 0, atol=1e-6)
    np.testing.assert_allclose(correlation(features), 0, atol=1e-4)


@pytest.mark.parametrize("frequency", [70, 100, 130, 180, 250, 340, 460])
def test_the_period_of_a_harmonic_tone_is_found_within_one_percent(frequency: float) -> None:
    features = FeatureExtractor().process(harmonics(frequency, 50))[10:]
    found = 256 / np.exp2(features[:, PITCH] + 1.5)
    np.testing.assert_allclose(found, 16_000 / frequency, rtol=0.01)
    assert correlation(features).min() > 0.8


def test_noise_is_less_periodic_than_a_tone() -> None:
    features = FeatureExtractor().process(HARSH["noise at full scale"])
    assert np.median(correlation(features)) < 0.5


@pytest.mark.parametrize(
    ("pcm", "message"),
    [
        (np.zeros(100, dtype=np.int16), "100 samples"),
        (np.zeros(160, dtype=np.float32), "mismatch"),
        (np.zeros((1, 160), dtype=np.int16), "wrong number of dimensions"),
        (np.zeros(320, dtype=np.int16)[::2], "contiguous"),
    ],
)
def test_what_is_no_whole_number_of_hops_is_refused(pcm: Pcm, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        FeatureExtractor().process(pcm)


def test_no_samples_give_no_features() -> None:
    assert FeatureExtractor().process(np.zeros(0, dtype=np.int16)).shape == (0, 20)
    assert cepstrum_to_lpc(np.zeros((0, 20), dtype=np.float32)).shape == (0, 16)


def test_read_only_samples_are_taken() -> None:
    pcm = np.zeros(160, dtype=np.int16)
    pcm.flags.writeable = False
    assert FeatureExtractor().process(pcm).shape == (1, 20)


def test_too_few_features_are_refused() -> None:
    with pytest.raises(ValueError, match="17 features"):
        cepstrum_to_lpc(np.zeros((2, 17), dtype=np.float32))


@settings(max_examples=200, deadline=None)
@given(hnp.arrays(np.float32, (3, 20), elements=st.floats(width=32)))
def test_any_features_give_a_finite_predictor_and_a_valid_period(
    features: npt.NDArray[np.float32],
) -> None:
    taps = cepstrum_to_lpc(features)
    assert taps.shape == (3, 16)
    assert np.all(np.isfinite(taps))
    periods = period(features)
    assert np.all((periods >= MIN_PERIOD) & (periods <= MAX_PERIOD))


def test_period_undoes_the_pitch_feature() -> None:
    features = np.zeros((MAX_PERIOD - MIN_PERIOD + 1, 20), dtype=np.float32)
    expected = np.arange(MIN_PERIOD, MAX_PERIOD + 1)
    features[:, PITCH] = np.log2(256 / expected) - 1.5
    np.testing.assert_array_equal(period(features), expected)
