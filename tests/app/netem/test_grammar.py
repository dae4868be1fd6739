"""The words of --netem."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.netem import NetemError, NetemSpec, parse_netem
from app.netem.grammar import MAX_SPEC_CHARACTERS, OPTION_READERS
from app.netem.spec import (
    Chance,
    Delay,
    Distribution,
    GilbertElliottLoss,
    RandomLoss,
    Rate,
    Reorder,
    StateLoss,
)

MS = 1_000_000

PROBABILITIES = st.integers(0, 10**6).map(lambda millionths: millionths / 10**6)
CORRELATIONS = st.one_of(st.just(0.0), PROBABILITIES)
TIMES = st.integers(0, 10**11)
CHANCES = st.builds(Chance, PROBABILITIES, CORRELATIONS)


@st.composite
def state_losses(draw: st.DrawFn) -> StateLoss:
    p13, p31 = draw(st.integers(0, 1000)), draw(st.integers(0, 1000))
    p14, p32 = draw(st.integers(0, 1000 - p13)), draw(st.integers(0, 1000 - p31))
    return StateLoss(p13 / 1000, p31 / 1000, p32 / 1000, draw(PROBABILITIES), p14 / 1000)


@st.composite
def specs(draw: st.DrawFn) -> NetemSpec:
    jitter = draw(TIMES)
    delay = Delay(
        draw(TIMES),
        jitter,
        draw(CORRELATIONS),
        draw(st.sampled_from(Distribution)) if jitter else Distribution.NORMAL,
    )
    reorder = st.none() | st.builds(
        Reorder, PROBABILITIES, CORRELATIONS, gap=st.integers(1, 2**32 - 1)
    )
    return NetemSpec(
        delay=draw(st.just(delay) if delay.time_ns else st.none()),
        loss=draw(
            st.none()
            | st.builds(RandomLoss, PROBABILITIES, CORRELATIONS)
            | state_losses()
            | st.builds(
                GilbertElliottLoss, PROBABILITIES, PROBABILITIES, PROBABILITIES, PROBABILITIES
            )
        ),
        duplicate=draw(st.none() | CHANCES),
        reorder=draw(reorder if delay.time_ns else st.none()),
        corrupt=draw(st.none() | CHANCES),
        rate=draw(
            st.none()
            | st.builds(
                Rate,
                st.integers(1, 10**15),
                st.integers(-65_535, 65_535),
                st.integers(0, 65_535),
                st.integers(-65_535, 65_535),
            )
        ),
        limit=draw(st.integers(1, 10**6)),
    )


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ("", NetemSpec()),
        ("delay 100ms", NetemSpec(delay=Delay(100 * MS))),
        ("latency 1.5s", NetemSpec(delay=Delay(1500 * MS))),
        ("delay 100ms 10ms 25%", NetemSpec(delay=Delay(100 * MS, 10 * MS, 0.25))),
        (
            "delay 100ms 20ms distribution pareto",
            NetemSpec(delay=Delay(100 * MS, 20 * MS, 0.0, Distribution.PARETO)),
        ),
        (
            "distribution uniform delay 1ms 500us",
            NetemSpec(delay=Delay(MS, MS // 2, 0.0, Distribution.UNIFORM)),
        ),
        ("loss 5%", NetemSpec(loss=RandomLoss(0.05))),
        ("drop .5", NetemSpec(loss=RandomLoss(0.005))),
        ("loss random 5% 25%", NetemSpec(loss=RandomLoss(0.05, 0.25))),
        ("loss state 10%", NetemSpec(loss=StateLoss(0.1, 0.9, 0.0, 1.0, 0.0))),
        ("loss state 1% 10% 5% 50% 2%", NetemSpec(loss=StateLoss(0.01, 0.1, 0.05, 0.5, 0.02))),
        ("loss gemodel 1%", NetemSpec(loss=GilbertElliottLoss(0.01, 0.99, 1.0, 0.0))),
        ("loss gemodel 1% 10%", NetemSpec(loss=GilbertElliottLoss(0.01, 0.1, 1.0, 0.0))),
        (
            "loss gemodel 1% 10% 70% 0.1%",
            NetemSpec(loss=GilbertElliottLoss(0.01, 0.1, 0.7, 0.001)),
        ),
        ("duplicate 1% 50%", NetemSpec(duplicate=Chance(0.01, 0.5))),
        ("corrupt 0.1%", NetemSpec(corrupt=Chance(0.001))),
        (
            "delay 10ms reorder 25% 50% gap 5",
            NetemSpec(delay=Delay(10 * MS), reorder=Reorder(0.25, 0.5, gap=5)),
        ),
        ("rate 5kbit 20 100 5", NetemSpec(rate=Rate(5000, 20, 100, 5))),
        ("rate 1mbit -14", NetemSpec(rate=Rate(1_000_000, -14))),
        ("limit 20", NetemSpec(limit=20)),
    ],
)
def test_a_spec_means_what_the_manual_of_tc_says(spec: str, expected: NetemSpec) -> None:
    assert parse_netem(spec) == expected


@pytest.mark.parametrize(
    ("word", "nanoseconds"),
    [
        ("7", 7_000),
        ("7us", 7_000),
        ("7usecs", 7_000),
        ("7ns", 7),
        ("7ms", 7 * MS),
        ("7MSEC", 7 * MS),
        ("0.25s", 250 * MS),
        ("1e1ms", 10 * MS),
    ],
)
def test_times_have_the_units_of_tc(word: str, nanoseconds: int) -> None:
    assert parse_netem(f"delay {word}").delay == Delay(nanoseconds)


@pytest.mark.parametrize(
    ("word", "bits_per_second"),
    [
        ("300", 300),
        ("300bit", 300),
        ("1.5kbit", 1500),
        ("2Mbit", 2_000_000),
        ("1gbit", 10**9),
        ("1kibit", 1024),
        ("1mibit", 1024**2),
        ("10bps", 80),
        ("10kbps", 80_000),
        ("1mibps", 8 * 1024**2),
    ],
)
def test_rates_have_the_units_of_tc(word: str, bits_per_second: int) -> None:
    assert parse_netem(f"rate {word}").rate == Rate(bits_per_second)


@pytest.mark.parametrize(
    ("spec", "word", "position", "expected"),
    [
        ("dealy 10ms", "dealy", 1, "delay, loss"),
        ("delay", "delay", None, "a delay such as 100ms"),
        ("delay fast", "fast", 7, "a delay such as 100ms"),
        ("delay -5ms", "-5ms", 7, "a delay"),
        ("delay 10ms 5xs", "5xs", 12, "a jitter"),
        ("delay 10ms 5ms 101%", "101%", 16, "0% to 100%"),
        ("delay 2h", "2h", 7, "a delay"),
        ("delay 5000s", "5000s", 7, "at most 4294s"),
        ("delay 10ms 5ms distribution gauss", "gauss", 29, "uniform, normal"),
        ("delay 10ms distribution normal", "distribution", 12, "a jitter"),
        ("loss", "loss", None, "a loss percentage"),
        ("loss some", "some", 6, "random, state or gemodel"),
        ("loss 1%  lots", "lots", 10, "delay, loss"),
        ("loss state x", "x", 12, "p13"),
        ("loss state 60 50 60", "60", 18, "p32 of at most"),
        ("loss state 60 50 10 10 50", "50", 24, "p14 of at most"),
        ("loss gemodel", "gemodel", None, "p, a percentage"),
        ("loss 1% drop 2%", "drop", 9, "only once"),
        ("reorder 5%", "reorder", 1, "a delay"),
        ("delay 0ms reorder 5%", "reorder", 11, "a delay"),
        ("delay 1ms gap 3", "gap", 11, "a reorder"),
        ("rate 0kbit", "0kbit", 6, "1bit to"),
        ("rate 5 furlongs", "furlongs", 8, "delay, loss"),
        ("rate 5kbit 20 -1", "-1", 15, "a cell size"),
        ("limit 0", "0", 7, "1 to"),
        ("limit 99999999", "99999999", 7, "1 to 1000000"),
        ("limit 2k", "2k", 7, "a limit in packets"),
        ("slot 10ms", "slot", 1, "not supported"),
        ("loss 5% ecn", "ecn", 9, "not supported"),
        ("seed 5", "seed", 1, "--seed"),
    ],
)
def test_a_wrong_word_is_named_with_its_place_and_what_was_expected(
    spec: str, word: str, position: int | None, expected: str
) -> None:
    with pytest.raises(NetemError) as caught:
        parse_netem(spec)
    message = str(caught.value)
    assert repr(word) in message
    assert expected in message
    assert "\n" not in message
    if position is not None:
        assert f"at character {position}:" in message


@given(specs())
def test_a_printed_spec_reads_as_the_same_spec(spec: NetemSpec) -> None:
    assert parse_netem(str(spec)) == spec


WORDS = st.sampled_from(
    [
        *sorted(OPTION_READERS),
        *("random", "state", "gemodel", "slot", "normal", "pareto", "latency"),
        *("5%", "100%", "1e9%", "10ms", "3s", "1e99s", "5kbit", "20", "-14", "99999999999"),
        *(".", "-", "+", "%", "ms", "nan", "inf", "0x10", "\N{ARABIC-INDIC DIGIT THREE}", "1_0"),
    ]
)


@given(st.one_of(st.text(max_size=200), st.lists(WORDS, max_size=12).map(" ".join)))
def test_any_text_is_a_spec_or_a_netem_error(text: str) -> None:
    try:
        spec = parse_netem(text)
    except NetemError:
        return
    assert parse_netem(str(spec)) == spec


def test_a_long_text_is_refused() -> None:
    with pytest.raises(NetemError, match="longer than 4096"):
        parse_netem("9" * 10_000_000)
    with pytest.raises(NetemError, match="expected a delay"):
        parse_netem("delay " + "9" * (MAX_SPEC_CHARACTERS - 6))
