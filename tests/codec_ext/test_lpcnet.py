"""The vocoder kernel, on every path this machine has, against its NumPy definition."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from codec.features import HOP, SYNTHESIS_LAG, FeatureExtractor, cepstrum_to_lpc, correlation
from codec.training.prepare import decode
from codec_ext.lpcnet import Condition, Model, State, paths
from tests.codec_ext import lpcnet_reference as reference

Pcm = npt.NDArray[np.int16]
Weights = dict[str, npt.NDArray[np.float32]]

CLIPS = Path(__file__).parents[1] / "data"
TRAINED = Path(__file__).parents[2] / "codec" / "models" / "lpcnet.npz"
FRAMES = range(60, 72)
"""Of the clip: the onset of a voiced stretch."""

VARIANTS = [(path, quantised) for path in paths() for quantised in (False, True)]


@pytest.fixture(scope="module")
def trained() -> Weights:
    with np.load(TRAINED) as arrays:
        return {name: arrays[name] for name in arrays if name != "metadata"}


def small(seed: int, units_a: int = 48, units_b: int = 16, density: float = 0.3) -> Weights:
    """Random weights of other sizes, with empty row blocks among the sparse ones."""
    rng = np.random.default_rng(seed)

    def normal(*shape: int, scale: float = 0.3) -> npt.NDArray[np.float32]:
        return rng.normal(0, scale, shape).astype(np.float32)

    recurrent = normal(3 * units_a, units_a)
    keep = rng.random((3 * units_a // 16, units_a // 4)) < density
    keep[1] = False
    recurrent *= np.kron(keep, np.ones((16, 4))).astype(np.float32)
    return {
        "feature_mean": normal(20),
        "feature_std": 1 + np.abs(normal(20)),
        "period_embedding": normal(256, 8),
        "conv1_weight": normal(32, 28, 3, scale=0.1),
        "conv1_bias": normal(32),
        "conv2_weight": normal(16, 32, 3, scale=0.1),
        "conv2_bias": normal(16),
        "dense1_weight": normal(16, 16),
        "dense1_bias": normal(16),
        "dense2_weight": normal(32, 16),
        "dense2_bias": normal(32),
        "sample_embedding": normal(3, 256, 12),
        "embedding_weight": normal(3, 12, 3 * units_a),
        "gru_a_condition_weight": normal(3 * units_a, 32),
        "gru_a_condition_bias": normal(3 * units_a),
        "gru_a_recurrent_weight": recurrent,
        "gru_a_recurrent_bias": normal(units_a),
        "gru_b_condition_weight": normal(3 * units_b, 32),
        "gru_b_condition_bias": normal(3 * units_b),
        "gru_b_input_weight": normal(3 * units_b, units_a),
        "gru_b_recurrent_weight": normal(3 * units_b, units_b),
        "gru_b_recurrent_bias": normal(units_b),
        **{f"tree_{k}{j}": normal(256, scale=1.0) for k in ("bias", "scale") for j in (1, 2)},
        **{f"tree_weight{j}": normal(256, units_b) for j in (1, 2)},
    }


@pytest.fixture(scope="module")
def speech() -> Pcm:
    return decode(CLIPS / "man.flac")[: 80 * HOP]


@pytest.fixture(scope="module")
def features(speech: Pcm) -> npt.NDArray[np.float32]:
    return FeatureExtractor().process(speech)


def span(pcm: Pcm, frame: int) -> Pcm:
    start = frame * HOP - SYNTHESIS_LAG
    return pcm[start : start + HOP]


def forced(
    model: Model, pcm: Pcm, features: npt.NDArray[np.float32], frames: range = FRAMES
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.uint8]]:
    """Logits and excitation of the clip's frames, from a fresh state."""
    state, condition = State(), Condition()
    lpc = cepstrum_to_lpc(features)
    results = []
    for k in frames:
        condition.compute(model, features[k - 3 : k + 2], lpc[k])
        results.append(state.force_observed(model, condition, span(pcm, k)))
    logits, excitation = zip(*results, strict=True)
    return np.concatenate(logits).astype(float), np.concatenate(excitation)


def forced_reference(
    weights: Weights, pcm: Pcm, features: npt.NDArray[np.float32], frames: range = FRAMES
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.uint8]]:
    network = reference.SampleNetwork(weights)
    lpc = cepstrum_to_lpc(features)
    logits, excitation = zip(
        *(
            network.force(
                reference.frame_network(weights, features[k - 3 : k + 2]), lpc[k], span(pcm, k)
            )
            for k in frames
        ),
        strict=True,
    )
    return np.concatenate(logits), np.concatenate(excitation)


@pytest.fixture(scope="module")
def expected(
    trained: Weights, speech: Pcm, features: npt.NDArray[np.float32]
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.uint8]]:
    return forced_reference(trained, speech, features)


@pytest.mark.parametrize("path", paths())
def test_the_float_kernel_gives_the_logits_of_the_reference_sample_by_sample(
    path: str,
    trained: Weights,
    speech: Pcm,
    features: npt.NDArray[np.float32],
    expected: tuple[npt.NDArray[np.float64], npt.NDArray[np.uint8]],
) -> None:
    logits, excitation = forced(Model(trained, path, False), speech, features)
    # float rounding can put a mu-law level on the other side of a boundary
    assert np.mean(excitation != expected[1]) < 0.002
    # the embedding tables are int16, with a step of about 1e-3 in the largest column
    error = np.abs(logits - expected[0])[:, 1:]
    assert np.median(error) < 1e-4
    assert np.quantile(error, 0.99) < 2e-3
    assert reference.loss(logits, excitation) == pytest.approx(reference.loss(*expected), abs=1e-4)


@pytest.mark.parametrize("path", paths())
def test_eight_bits_cost_less_than_a_hundredth_of_a_nat(
    path: str,
    trained: Weights,
    speech: Pcm,
    features: npt.NDArray[np.float32],
    expected: tuple[npt.NDArray[np.float64], npt.NDArray[np.uint8]],
) -> None:
    quantised = forced(Model(trained, path, True), speech, features)
    assert abs(reference.loss(*quantised) - reference.loss(*expected)) < 0.01


@pytest.mark.parametrize(("path", "quantised"), VARIANTS)
@pytest.mark.parametrize(("units_a", "units_b"), [(48, 16), (16, 32), (80, 48)])
def test_other_widths_and_sparse_rows_agree_with_the_reference(
    path: str,
    quantised: bool,
    units_a: int,
    units_b: int,
    speech: Pcm,
    features: npt.NDArray[np.float32],
) -> None:
    weights = small(units_a, units_a, units_b)
    frames = range(60, 62)
    logits, _ = forced(Model(weights, path, quantised), speech, features, frames)
    expected, _ = forced_reference(weights, speech, features, frames)
    error = np.abs(logits - expected)[:, 1:]
    assert np.median(error) < (0.01 if quantised else 1e-4)
    assert np.quantile(error, 0.99) < (0.1 if quantised else 1e-3)


@pytest.mark.parametrize("path", paths()[1:])
def test_all_paths_multiply_the_same_integers(
    path: str, trained: Weights, speech: Pcm, features: npt.NDArray[np.float32]
) -> None:
    frames = range(60, 62)
    best, _ = forced(Model(trained, paths()[0]), speech, features, frames)
    other, _ = forced(Model(trained, path), speech, features, frames)
    # only float rounding differs, until it moves a quantised state over a boundary
    np.testing.assert_allclose(other[:4], best[:4], atol=0.02)
    assert np.median(np.abs(other - best)) < 0.02


def conditions(
    model: Model, features: npt.NDArray[np.float32], frames: range = FRAMES
) -> list[Condition]:
    lpc = cepstrum_to_lpc(features)
    made = []
    for k in frames:
        made.append(Condition())
        made[-1].compute(model, features[k - 3 : k + 2], lpc[k])
    return made


def spoken(model: Model, state: State, series: list[Condition], *, walk: bool = False) -> Pcm:
    out = np.zeros(HOP * len(series), np.int16)
    for i, condition in enumerate(series):
        state.run(model, condition, out[HOP * i : HOP * (i + 1)], walk=walk)
    return out


@pytest.mark.parametrize(("path", "quantised"), VARIANTS)
@pytest.mark.parametrize("walk", [False, True])
def test_a_seed_decides_every_sample(
    path: str, quantised: bool, walk: bool, trained: Weights, features: npt.NDArray[np.float32]
) -> None:
    model = Model(trained, path, quantised)
    series = conditions(model, features)
    first = spoken(model, State(7), series, walk=walk)
    np.testing.assert_array_equal(spoken(model, State(7), series, walk=walk), first)
    again = State(8)
    assert not np.array_equal(spoken(model, again, series, walk=walk), first)
    again.reset(7)
    np.testing.assert_array_equal(spoken(model, again, series, walk=walk), first)


@pytest.mark.parametrize(("path", "quantised"), VARIANTS)
def test_a_copy_goes_on_from_the_same_sample_and_leaves_the_original_alone(
    path: str, quantised: bool, trained: Weights, features: npt.NDArray[np.float32]
) -> None:
    model = Model(trained, path, quantised)
    series = conditions(model, features)
    state = State(3)
    spoken(model, state, series[:6])
    copy = state.copy()
    rest = spoken(model, copy, series[6:])
    np.testing.assert_array_equal(spoken(model, state, series[6:]), rest)


def test_cutting_a_frame_into_calls_changes_nothing(
    trained: Weights, features: npt.NDArray[np.float32]
) -> None:
    model = Model(trained)
    condition = conditions(model, features)[0]
    whole, parts = np.zeros(HOP, np.int16), np.zeros(HOP, np.int16)
    State(5).run(model, condition, whole)
    state = State(5)
    for start, end in ((0, 1), (1, 80), (80, 80), (80, 160)):
        state.run(model, condition, parts[start:end])
    np.testing.assert_array_equal(parts, whole)


@pytest.mark.parametrize(("path", "quantised"), VARIANTS)
def test_a_followed_signal_leaves_the_same_voice_whether_observed_or_cut_or_not(
    path: str,
    quantised: bool,
    trained: Weights,
    speech: Pcm,
    features: npt.NDArray[np.float32],
) -> None:
    model = Model(trained, path, quantised)
    series = conditions(model, features)
    plain, cut, observed = State(4), State(4), State(4)
    for condition, k in zip(series, FRAMES, strict=True):
        pcm = span(speech, k)
        plain.force(model, condition, pcm)
        observed.force_observed(model, condition, pcm)
        for start, end in ((0, 1), (1, 90), (90, 160)):
            cut.force(model, condition, pcm[start:end])
    rest, _ = plain.copy().force_observed(model, series[-1], span(speech, FRAMES.stop))
    for other in (cut, observed):
        logits, _ = other.copy().force_observed(model, series[-1], span(speech, FRAMES.stop))
        np.testing.assert_array_equal(logits, rest)
        np.testing.assert_array_equal(
            spoken(model, other, series[:2]), spoken(model, plain.copy(), series[:2])
        )


def drawn_levels(
    model: Model, state: State, condition: Condition, draws: int, **how: float
) -> npt.NDArray[np.float64]:
    """Shares of the levels in `draws` first samples of a silent past: prediction is 0 there."""
    values = np.array([round(reference.mu_law_value(level)) for level in range(256)])
    counts: npt.NDArray[np.float64] = np.zeros(256)
    out = np.zeros(1, np.int16)
    for seed in range(draws):
        voice = state.copy()
        voice.reseed(seed)
        voice.run(model, condition, out, **how)  # type: ignore[arg-type]
        counts[np.argmin(np.abs(values - out[0]))] += 1
    shares: npt.NDArray[np.float64] = counts / draws
    return shares


def first_logits(model: Model, condition: Condition) -> npt.NDArray[np.float64]:
    logits, _ = State().force_observed(model, condition, np.zeros(1, np.int16))
    return np.asarray(logits[0], dtype=float)


@pytest.mark.parametrize("path", paths())
@pytest.mark.parametrize("voicing", [0.0, 1.5])
def test_draws_follow_the_sharpened_distribution_less_its_floor(
    path: str, voicing: float, trained: Weights, features: npt.NDArray[np.float32]
) -> None:
    draws, floor = 6000, 0.002
    model = Model(trained, path)
    frame = 60 + int(np.argmax(features[60:72, 19]))
    condition = conditions(model, features, range(frame, frame + 1))[0]
    p = reference.level_probabilities(first_logits(model, condition))
    p = np.where(p < floor, 0, p)
    power = 1 + max(0, voicing * float(correlation(features[frame])) - 0.5)
    assert voicing == 0 or power > 1.3
    p = p**power / (p**power).sum()
    p = np.maximum(p - floor, 0)
    p /= p.sum()
    shares = drawn_levels(model, State(), condition, draws, floor=floor, voicing=voicing)
    assert np.all(shares[p == 0] == 0)
    # five standard deviations of a share
    np.testing.assert_array_less(np.abs(shares - p), 5 * np.sqrt(p / draws) + 1e-9)


@pytest.mark.parametrize("path", paths())
def test_draws_without_a_floor_reach_every_part_of_a_broad_distribution(
    path: str, features: npt.NDArray[np.float32]
) -> None:
    draws = 6000
    weights = small(4)
    for name in ("tree_scale1", "tree_scale2"):
        weights[name] *= 0.2
    model = Model(weights, path)
    condition = conditions(model, features)[0]
    p = reference.level_probabilities(first_logits(model, condition))
    assert np.all(p.reshape(16, 16).sum(axis=1) > 0.005)
    shares = drawn_levels(model, State(), condition, draws, floor=0, voicing=0)
    # five standard deviations of a share, and of a draw at least
    np.testing.assert_array_less(np.abs(shares - p), 5 * np.sqrt(p / draws) + 5 / draws)


@pytest.mark.parametrize("path", paths())
def test_walked_draws_follow_the_tree_less_its_improbable_branches(
    path: str, trained: Weights, features: npt.NDArray[np.float32]
) -> None:
    draws, cut = 6000, 0.05
    model = Model(trained, path)
    condition = conditions(model, features)[0]
    one = reference.sigmoid(first_logits(model, condition))
    one = np.where(one < cut, 0, np.where(one > 1 - cut, 1, one))
    with np.errstate(divide="ignore"):
        p = reference.level_probabilities(np.log(one) - np.log1p(-one))
    shares = drawn_levels(model, State(), condition, draws, walk=True, cut=cut, voicing=0)
    assert np.all(shares[p == 0] == 0)
    np.testing.assert_array_less(np.abs(shares - p), 5 * np.sqrt(p / draws) + 1e-9)


@pytest.mark.parametrize(("path", "quantised"), VARIANTS)
@settings(max_examples=15, deadline=None)
@given(
    rows=hnp.arrays(np.float32, (5, 20), elements=st.floats(width=32, allow_subnormal=False)),
    pcm=hnp.arrays(np.int16, 160),
)
def test_no_features_and_no_signal_put_a_voice_out_of_order(
    path: str, quantised: bool, rows: npt.NDArray[np.float32], pcm: Pcm
) -> None:
    model = Model(small(1), path, quantised)
    condition, state = Condition(), State(1)
    lpc = cepstrum_to_lpc(rows)
    condition.compute(model, rows, lpc[3])
    state.force(model, condition, pcm)
    state.run(model, condition, np.zeros(160, np.int16))
    logits, _ = state.force_observed(model, condition, pcm)
    assert np.isfinite(logits).all()


def test_denormal_numbers_exist_again_after_a_call() -> None:
    # in a process of its own: another library may have switched them off in this one
    script = f"""
import sys
sys.path.insert(0, {str(TRAINED.parents[2])!r})
import numpy as np
from codec_ext.lpcnet import Condition, Model, State
with np.load({str(TRAINED)!r}) as arrays:
    model = Model({{name: arrays[name] for name in arrays if name != "metadata"}})
condition, state = Condition(), State()
condition.compute(model, np.zeros((5, 20), np.float32), np.zeros(16, np.float32))
state.run(model, condition, np.zeros(160, np.int16))
state.force(model, condition, np.zeros(160, np.int16))
sys.exit(not np.array([1e-39], np.float32)[0] * np.float32(1) > 0)
"""
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0


def test_the_sparse_share_of_the_weights_is_known(trained: Weights) -> None:
    weights = small(2)
    assert Model(weights).density == pytest.approx(
        np.count_nonzero(weights["gru_a_recurrent_weight"]) / (3 * 48 * 48)
    )
    assert 0 < Model(trained).density <= 1


@pytest.mark.parametrize(
    ("name", "change", "complaint"),
    [
        ("conv1_bias", None, "lack 'conv1_bias'"),
        ("conv1_bias", np.zeros(7, np.float32), "'conv1_bias': shape"),
        ("tree_weight1", np.full((256, 16), np.nan, np.float32), "'tree_weight1' are not finite"),
        ("gru_a_recurrent_weight", np.zeros((60, 20), np.float32), "multiples of 16"),
        ("embedding_weight", np.zeros((3, 12, 3), np.float32), "'embedding_weight': shape"),
    ],
)
def test_unfit_weights_are_refused_by_name(
    name: str, change: npt.NDArray[np.float32] | None, complaint: str
) -> None:
    weights = small(1)
    if change is None:
        del weights[name]
    else:
        weights[name] = change
    with pytest.raises(ValueError, match=complaint):
        Model(weights)


def test_unknown_paths_and_misshapen_calls_are_refused() -> None:
    with pytest.raises(ValueError, match="'mmx'"):
        Model(small(1), "mmx")
    model, state, condition = Model(small(1)), State(), Condition()
    with pytest.raises(ValueError, match=r"\[4, 20\]"):
        condition.compute(model, np.zeros((4, 20), np.float32), np.zeros(16, np.float32))
    with pytest.raises(ValueError, match="15 predictor"):
        condition.compute(model, np.zeros((5, 20), np.float32), np.zeros(15, np.float32))
    with pytest.raises(ValueError, match="161 samples"):
        state.run(model, condition, np.zeros(161, np.int16))
    with pytest.raises(ValueError, match="161 samples"):
        state.force(model, condition, np.zeros(161, np.int16))
    with pytest.raises(ValueError, match=r"floor=0\.5"):
        state.run(model, condition, np.zeros(1, np.int16), floor=0.5)
