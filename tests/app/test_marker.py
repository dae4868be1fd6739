"""Markers put into speech are found where they are heard, through the real coder too."""

from collections.abc import Callable, Iterator
from pathlib import Path

import av
import numpy as np
import numpy.typing as npt
import pytest

from app.marker import (
    MARKER,
    MarkerDetector,
    MarkerGrid,
    MarkerHit,
    MarkerInjector,
    MarkerKind,
    MarkerMatch,
    SentMarker,
    marker_kind,
    match_markers,
)
from codec import FRAME, SAMPLE_RATE
from codec.opus import OpusDecoder, OpusEncoder, has_lbrr

Pcm = npt.NDArray[np.int16]
DATA = Path(__file__).parents[1] / "data"
LOOKAHEAD = 104 / SAMPLE_RATE
CAPTURE = 5000.0
"""Instant of the first sample."""


def frames(pcm: Pcm) -> Iterator[Pcm]:
    for begin in range(0, len(pcm) - FRAME + 1, FRAME):
        yield pcm[begin : begin + FRAME]


def clip(name: str) -> Pcm:
    with av.open(str(DATA / name)) as container:
        return np.concatenate([f.to_ndarray().ravel() for f in container.decode(audio=0)])


@pytest.fixture(scope="module")
def speech() -> Pcm:
    """int16, half a minute: a man and a woman in turn."""
    both = np.concatenate([clip("man.flac"), clip("woman.flac")])
    return np.tile(both, 5)[: 29 * SAMPLE_RATE + SAMPLE_RATE // 2]


def marked(pcm: Pcm, injector: MarkerInjector | None = None) -> Pcm:
    injector = injector or MarkerInjector()
    return np.concatenate([injector.mix(f, n * FRAME) for n, f in enumerate(frames(pcm))])


def listen(pcm: Pcm, first_played_at: float) -> list[MarkerHit]:
    detector = MarkerDetector()
    hits = []
    for number, frame in enumerate(frames(pcm)):
        hits += detector.push(frame, first_played_at + number * FRAME / SAMPLE_RATE)
    return hits + detector.flush()


def sent_in(pcm: Pcm) -> list[SentMarker]:
    """The markers of which nothing is cut off by the end."""
    return MarkerGrid().sent(CAPTURE, CAPTURE, CAPTURE + (len(pcm) - MARKER) / SAMPLE_RATE)


def transmitted(pcm: Pcm, is_lost: Callable[[int], bool] = lambda number: False) -> Pcm:
    """Through Opus; a lost frame comes out of the next packet's LBRR or is concealed."""
    encoder = OpusEncoder(bitrate=24_000, expected_loss=20)
    decoder = OpusDecoder()
    packets = [encoder.encode(frame) for frame in frames(pcm)]
    out = []
    for number, packet in enumerate(packets):
        if not is_lost(number):
            out.append(decoder.decode(packet))
        elif (
            number + 1 < len(packets) and not is_lost(number + 1) and has_lbrr(packets[number + 1])
        ):
            out.append(decoder.decode_lbrr(packets[number + 1]))
        else:
            out.append(decoder.conceal())
    return np.concatenate(out)


def test_markers_in_silence_are_heard_to_the_sample() -> None:
    pcm = marked(np.zeros(10 * SAMPLE_RATE, np.int16))
    matches = match_markers(listen(pcm, CAPTURE + 0.25), sent_in(pcm), max_delay=1.0)
    assert [match.sent.index for match in matches] == list(range(10))
    assert [match.delay for match in matches] == pytest.approx([0.25] * 10, abs=5e-6)
    assert min(match.hit.score for match in matches) > 0.99


def test_markers_through_opus_tell_the_imposed_delay_within_a_millisecond(speech: Pcm) -> None:
    sent = sent_in(speech)
    heard = listen(transmitted(marked(speech)), CAPTURE + 0.1373)
    matches = match_markers(heard, sent, max_delay=1.9)
    delays = np.array([match.delay for match in matches])
    assert len(heard) == len(matches) >= len(sent) - 1
    assert np.abs(delays - 0.1373 - LOOKAHEAD).max() < 1e-3
    assert abs(np.median(delays) - 0.1373 - LOOKAHEAD) < 1e-4


def test_markers_survive_the_loss_of_every_fifth_packet(speech: Pcm) -> None:
    rng = np.random.default_rng(5)
    lost = rng.random(len(speech) // FRAME) < 0.2
    sent = sent_in(speech)
    heard = listen(transmitted(marked(speech), lambda number: bool(lost[number])), CAPTURE + 0.2)
    matches = match_markers(heard, sent, max_delay=1.9)
    assert len(heard) == len(matches) >= 0.8 * len(sent)
    errors = np.array([match.delay for match in matches]) - 0.2 - LOOKAHEAD
    assert np.abs(errors).max() < 2e-3
    assert np.quantile(np.abs(errors), 0.9) < 1e-3


def test_speech_without_markers_is_not_mistaken_for_one(speech: Pcm) -> None:
    assert listen(transmitted(speech), CAPTURE) == []


def test_noise_and_digital_silence_are_not_mistaken_for_a_marker() -> None:
    rng = np.random.default_rng(1)
    noise = rng.normal(0, 1000, 20 * SAMPLE_RATE).astype(np.int16)
    assert listen(noise, CAPTURE) == []
    dither = rng.integers(-1, 2, 5 * SAMPLE_RATE).astype(np.int16)
    assert listen(dither, CAPTURE) == []
    assert listen(np.zeros(SAMPLE_RATE, np.int16), CAPTURE) == []


def test_a_marker_shortened_by_time_stretching_is_off_by_the_stretch_at_most() -> None:
    pcm = marked(np.zeros(2 * SAMPLE_RATE, np.int16))
    removed = 80
    places = range(SAMPLE_RATE, SAMPLE_RATE + MARKER, 50)
    delays = []
    for place in places:
        shorter = np.delete(pcm, slice(place, place + removed))
        matches = match_markers(listen(shorter, CAPTURE), sent_in(pcm)[1:], 1.0, tolerance=0.01)
        delays += [match.delay for match in matches]
    # a cut close to the middle leaves too little on either side of it to be sure
    assert len(delays) >= 0.7 * len(places)
    assert -removed / SAMPLE_RATE - 1e-3 <= min(delays) <= max(delays) <= 1e-3


def test_a_marker_is_heard_where_playout_put_it_although_playout_jumped() -> None:
    pcm = marked(np.zeros(3 * SAMPLE_RATE, np.int16))
    detector = MarkerDetector()
    hits = []
    for number, frame in enumerate(frames(pcm)):
        jump = 0.3 if number >= 75 else 0.0
        hits += detector.push(frame, CAPTURE + 0.1 + jump + number * FRAME / SAMPLE_RATE)
    hits += detector.flush()
    delays = [m.delay for m in match_markers(hits, sent_in(pcm), 1.9)]
    assert delays == pytest.approx([0.1, 0.1, 0.4], abs=1e-5)


def test_frames_may_begin_anywhere_in_media_time() -> None:
    pcm = np.full(3 * SAMPLE_RATE, 300, np.int16)
    injector = MarkerInjector()
    whole = injector.mix(pcm, 1234)
    pieces = [injector.mix(pcm[at : at + FRAME], 1234 + at) for at in range(0, len(pcm), FRAME)]
    assert np.array_equal(np.concatenate(pieces), whole)
    assert np.array_equal(injector.mix(pcm, 1234 + 2 * SAMPLE_RATE), whole)


def test_speech_is_ducked_under_a_marker_and_untouched_elsewhere() -> None:
    pcm = np.full(2 * SAMPLE_RATE, 1000, np.int16)
    plain = MarkerInjector(duck_db=0.0).mix(np.zeros_like(pcm), 0)
    mixed = MarkerInjector(duck_db=20.0).mix(pcm, 0)
    under = mixed[SAMPLE_RATE : SAMPLE_RATE + MARKER] - plain[SAMPLE_RATE : SAMPLE_RATE + MARKER]
    assert np.abs(under - 100).max() <= 1
    assert np.all(mixed[2 * MARKER : SAMPLE_RATE - MARKER] == 1000)


def test_a_marker_on_full_scale_speech_saturates_instead_of_wrapping() -> None:
    loud = np.full(MARKER, 32767, np.int16)
    mixed = MarkerInjector(level_dbfs=0.0, duck_db=0.0).mix(loud, 0)
    assert mixed.max() == 32767
    assert np.abs(np.diff(mixed.astype(int))).max() < 40_000


def test_two_kinds_tell_delays_of_up_to_two_intervals_apart() -> None:
    grid = MarkerGrid(interval=0.5)
    for index in range(20):
        for delay in (0.0, 0.3, 0.7, 0.95):
            at = grid.captured_at(index, CAPTURE)
            match = grid.identify(MarkerHit(at + delay, 0.9, marker_kind(index)), CAPTURE)
            assert match is not None
            assert match.sent.index == index
            assert match.delay == pytest.approx(delay)


def test_a_marker_of_the_wrong_kind_before_the_first_is_not_identified() -> None:
    assert MarkerGrid().identify(MarkerHit(CAPTURE + 0.1, 0.9, MarkerKind.DOWN), CAPTURE) is None
    assert MarkerGrid().identify(MarkerHit(CAPTURE - 0.1, 0.9, MarkerKind.UP), CAPTURE) is None


def indices(matches: list[MarkerMatch]) -> list[tuple[int, float]]:
    return [(match.sent.index, round(match.delay, 6)) for match in matches]


def test_matching_leaves_out_what_was_not_heard_and_what_was_not_sent() -> None:
    sent = [SentMarker(n, CAPTURE + n) for n in range(6)]
    heard = [
        MarkerHit(CAPTURE + 0.2, 0.9, MarkerKind.UP),
        MarkerHit(CAPTURE + 2.3, 0.6, MarkerKind.UP),
        MarkerHit(CAPTURE + 2.9, 0.5, MarkerKind.UP),  # weaker than the one before
        MarkerHit(CAPTURE + 3.997, 0.9, MarkerKind.UP),  # clocks disagree by 3 ms
        MarkerHit(CAPTURE + 6.8, 0.9, MarkerKind.DOWN),  # later than any may be
        MarkerHit(CAPTURE - 0.5, 0.9, MarkerKind.UP),
    ]
    matches = match_markers(heard, sent, max_delay=1.5)
    assert indices(matches) == [(0, 0.2), (2, 0.3), (4, -0.003)]


def test_the_grid_lists_the_markers_of_a_stretch_of_time() -> None:
    sent = MarkerGrid(0.25).sent(CAPTURE, CAPTURE + 0.9, CAPTURE + 1.75)
    assert [(m.index, m.captured_at - CAPTURE) for m in sent] == [(4, 1.0), (5, 1.25), (6, 1.5)]
    assert MarkerGrid().sent(CAPTURE, CAPTURE - 3.0, CAPTURE + 0.5) == [SentMarker(0, CAPTURE)]


@pytest.mark.parametrize("interval", [0.0, 0.1, -1.0, float("nan"), float("inf")])
def test_an_interval_that_markers_do_not_fit_is_refused(interval: float) -> None:
    with pytest.raises(ValueError, match="interval"):
        MarkerGrid(interval)
