"""A simulated call is a call: the same parts, heard at the right place, and the same every time."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pytest

from app.arrivals import ArrivalTrace, frozen_network
from app.audio.sink import LEAD
from app.netem import LossTrace, NetemError, parse_netem
from app.options import CallOptions, Impairment, Recovery, UsageError
from app.reception import BEAT_MARGIN
from app.simulation import Pcm, SimulationOptions, SimulationResult, simulate
from codec import FRAME, FRAME_SECONDS
from codec.frame import FrameSource, HoleAction
from codec.lpcnet import LpcNet
from codec.opus import OpusDecoder, OpusEncoder
from codec.training import ladder
from tests.app.calls import MAN, WOMAN, clip

SPEECH: Pcm = np.concatenate([clip(MAN), clip(WOMAN)])
SECOND = 16_000


def call(netem: str | None = None, **settings: object) -> CallOptions:
    impairment = Impairment(parse_netem(netem) if netem else None)
    return replace(CallOptions(outbound=impairment), **settings)  # type: ignore[arg-type]


def losing(*numbers: int, frames: int) -> LossTrace:
    return LossTrace([number in numbers for number in range(frames)])


def kinds(result: SimulationResult) -> dict[int, FrameSource]:
    """How each frame of the source was obtained, where it was obtained at all."""
    return {
        frame.number: frame.source
        for frame in result.frames
        if frame.number is not None and frame.action is not HoleAction.HOLD
    }


def lag(heard: Pcm, said: Pcm) -> int:
    """Samples by which one lies behind the other, by cross-correlation."""
    size = 2 * len(said)
    spectra = [np.fft.rfft(pcm.astype(np.float64), size) for pcm in (heard, said)]
    correlation = np.fft.irfft(spectra[0] * spectra[1].conj(), size)
    place = int(np.argmax(correlation))
    return place if place < len(said) else place - size


def test_the_same_input_gives_the_same_output_bit_by_bit() -> None:
    options = SimulationOptions(call("delay 30ms 15ms loss gemodel 8% 35%"))
    first, again = (simulate(SPEECH[: 2 * SECOND], options) for _ in range(2))
    assert first.heard.tobytes() == again.heard.tobytes()
    assert first.aligned.tobytes() == again.aligned.tobytes()
    assert first.frames == again.frames
    assert first.report == again.report
    other = simulate(SPEECH[: 2 * SECOND], replace(options, call=replace(options.call, seed=2)))
    assert other.heard.tobytes() != first.heard.tobytes()


@pytest.mark.parametrize("ideal", [False, True])
def test_without_loss_what_is_aligned_is_what_the_decoder_says(ideal: bool) -> None:
    said = SPEECH[: 2 * SECOND + 123]
    options = call(recovery=Recovery.PLC, expected_loss=0)
    result = simulate(said, SimulationOptions(options, ideal=ideal))
    encoder = OpusEncoder(bitrate=options.bitrate, complexity=options.complexity, lbrr=False)
    decoder = OpusDecoder()
    padded = np.pad(said, (0, -len(said) % FRAME + FRAME)).reshape(-1, FRAME)
    decoded = np.concatenate([decoder.decode(encoder.encode(frame)) for frame in padded])
    assert len(result.aligned) == len(said)
    np.testing.assert_array_equal(result.aligned, decoded[encoder.lookahead :][: len(said)])
    assert set(kinds(result).values()) == {FrameSource.PACKET}


@pytest.mark.parametrize("netem", [None, "delay 80ms 10ms", "loss gemodel 5% 40%"])
def test_what_is_aligned_lies_where_it_was_said(netem: str | None) -> None:
    result = simulate(SPEECH[: 3 * SECOND], SimulationOptions(call(netem)))
    assert lag(result.aligned, SPEECH[: 3 * SECOND]) == 0


def test_stretched_time_is_taken_out_where_it_was_put_in() -> None:
    # what the vocoder says has a phase of its own, and not the same one on every processor
    conditions = {"seed": 3, "recovery": Recovery.OPUS_PLC}
    options = call("delay 30ms 15ms loss gemodel 8% 30%", **conditions)
    result = simulate(SPEECH, SimulationOptions(options))
    inbound = result.report.inbound
    assert inbound.insertedSamplesForDeceleration
    assert inbound.removedSamplesForAcceleration % FRAME
    for start in range(0, len(SPEECH) - SECOND, SECOND):
        piece = slice(start, start + SECOND)
        assert lag(result.aligned[piece], SPEECH[piece]) == 0


def test_what_is_heard_lies_behind_by_the_delay_of_the_report() -> None:
    said = SPEECH[: 2 * SECOND]
    # packets are due on the beat that playout begins with, so that it is not moved
    network = 0.040 + LEAD
    on_beat = call(f"delay {1e3 * network:g}ms", buffer_ms=60)
    result = simulate(said, SimulationOptions(on_beat))
    delay = result.report.delay
    assert delay is not None
    assert delay.p50 is not None
    behind = lag(result.heard[: len(said)], said) / 16_000 + result.began
    assert behind == pytest.approx(delay.p50, abs=1e-3)
    lookahead = 104 / 16_000
    expected = FRAME_SECONDS + lookahead + network + 0.060 + BEAT_MARGIN
    assert delay.p50 == pytest.approx(expected, abs=0.5e-3)
    assert sum(seconds or 0.0 for seconds in delay.breakdown.values()) == pytest.approx(
        expected, abs=0.5e-3
    )


def test_frames_lost_by_a_trace_are_made_from_what_follows_them() -> None:
    said = SPEECH[: 3 * SECOND]
    trace = losing(50, 60, 61, 62, 63, frames=400)
    options = call(expected_loss=20, dred_ms=1000)
    result = simulate(said, SimulationOptions(options, ideal=True, loss_trace=trace))
    found = kinds(result)
    assert sorted(found) == list(range(len(found)))
    assert {n: kind for n, kind in found.items() if kind is not FrameSource.PACKET} == {
        50: FrameSource.LBRR,
        60: FrameSource.DRED,
        61: FrameSource.DRED,
        62: FrameSource.DRED,
        63: FrameSource.LBRR,
    }
    assert result.report.inbound.packetsLost == 5
    # the same network, but a hole that has to be filled in time
    hasty = call(expected_loss=20, dred_ms=1000, buffer_ms=30)
    timely = kinds(simulate(said, SimulationOptions(hasty, loss_trace=trace)))
    assert [timely[n] for n in (60, 61, 62)] == [FrameSource.PLC] * 3
    assert timely[63] is FrameSource.LBRR


@pytest.mark.parametrize(
    ("mode", "recovery"),
    [
        (ladder.Mode.OPUS_PLC, Recovery.OPUS_PLC),
        (ladder.Mode.LBRR, Recovery.LBRR),
        (ladder.Mode.DRED, Recovery.DRED),
        (ladder.Mode.LBRR_DRED, Recovery.LBRR_DRED),
    ],
)
def test_an_ideal_buffer_rebuilds_what_the_published_comparison_rebuilds(
    mode: ladder.Mode, recovery: Recovery
) -> None:
    said = SPEECH[: 4 * SECOND]
    sent = ladder.send(said, mode)
    lost = ladder.burst_losses(len(sent.packets), 0.25, np.random.default_rng(3))
    heard = ladder.hear(sent, lost, mode, LpcNet.default())
    options = call(
        recovery=recovery,
        bitrate=ladder.OPUS_BITRATE[mode],
        complexity=10,
        expected_loss=ladder.EXPECTED_LOSS if recovery.lbrr else 0,
        dred_ms=ladder.DRED_MS,
    )
    trace = LossTrace(lost.tolist())
    result = simulate(said, SimulationOptions(options, ideal=True, loss_trace=trace))
    found = kinds(result)
    assert len(found) == len(lost)
    assert [n for n, kind in found.items() if kind is not FrameSource.PACKET] == list(
        np.flatnonzero(lost)
    )
    assert {k: n for k, n in result.report.frames.items() if n} == {
        k: n for k, n in heard.frames.items() if n
    }


def test_packets_arrive_when_a_recording_says_or_never() -> None:
    transits: list[tuple[float, ...]] = [
        (0.001 * (7 * n % 13),) if n % 10 else () for n in range(150)
    ]
    options = SimulationOptions(call(buffer_ms=60), arrivals=ArrivalTrace(transits))
    result = simulate(SPEECH[: 2 * SECOND], options)
    for frame in result.frames:
        if frame.number is None:
            continue
        sent = (frame.number + 1) * FRAME_SECONDS
        if frame.number % 10:
            assert frame.own_arrival == pytest.approx(sent + transits[frame.number][0])
        else:
            assert frame.own_arrival is None


def test_a_network_that_stands_still_is_heard_of_and_left_behind() -> None:
    arrivals = frozen_network(1.0, packets=300, at=75)
    result = simulate(SPEECH, SimulationOptions(call(buffer_ms=40), arrivals=arrivals))
    found = kinds(result)
    own = {n for n, kind in found.items() if kind is FrameSource.PACKET}
    assert own >= set(range(20, 75))
    assert not own & set(range(80, 120))
    # a frame or two may be left out to come back to the delay
    assert len(own & set(range(150, 280))) >= 120
    assert result.frames[-1].delay == pytest.approx(0.0665, abs=0.025)


def test_reports_come_back_through_the_same_network() -> None:
    quiet, lossy = (
        simulate(SPEECH, SimulationOptions(call("delay 40ms"), loss_trace=LossTrace(trace)))
        for trace in ([0], [0] * 40 + [1] * 30)
    )
    assert quiet.report.outbound.remote.roundTripTime == pytest.approx(0.080, abs=1e-3)
    assert quiet.report.outbound.remote.packetsLost == 0
    assert lossy.report.outbound.remote.packetsLost
    sent = [result.report.sent_bitrate for result in (quiet, lossy)]
    assert sent[0] is not None
    assert sent[1] is not None
    assert sent[1].dred > 1.2 * sent[0].dred


def test_fixed_redundancy_does_not_follow_reports() -> None:
    fixed = {"dred_ms": 400, "expected_loss": 10}
    sent = [
        simulate(SPEECH, SimulationOptions(call(netem, **fixed))).report.sent_bitrate
        for netem in (None, "loss 30%")
    ]
    assert sent[0] == sent[1]


def test_a_fast_sound_card_is_caught_up_with() -> None:
    result = simulate(SPEECH, SimulationOptions(call(recovery=Recovery.PLC), drift_ppm=10_000))
    assert result.report.inbound.removedSamplesForAcceleration >= 2 * FRAME
    delays = [frame.delay for frame in result.frames if frame.delay is not None]
    assert abs(delays[-1] - delays[0]) < 0.025  # it would have grown by 0.060


def test_when_everything_is_lost_there_is_silence_and_an_end() -> None:
    for ideal in (False, True):
        options = SimulationOptions(call("loss 100%"), ideal=ideal)
        result = simulate(SPEECH[:SECOND], options)
        assert not result.heard.any()
        assert len(result.aligned) == SECOND
        assert not result.aligned.any()
        assert result.report.inbound.packetsReceived == 0


def test_speech_of_any_length_is_simulated() -> None:
    for length in (1, 319, 320, 321, 5 * FRAME + 7):
        assert len(simulate(SPEECH[:length], SimulationOptions()).aligned) == length


@pytest.mark.parametrize(
    "pcm", [np.zeros(0, np.int16), np.zeros(320), np.zeros((2, 320), np.int16)]
)
def test_other_than_16_bit_mono_speech_is_refused(pcm: npt.NDArray[np.float64]) -> None:
    with pytest.raises(ValueError, match="pcm is int16"):
        simulate(pcm, SimulationOptions())


def test_options_that_exclude_each_other_are_refused() -> None:
    arrivals = ArrivalTrace([(0.0,)])
    with pytest.raises(UsageError, match="--trace-arrivals"):
        SimulationOptions(call("loss 1%"), arrivals=arrivals)
    with pytest.raises(UsageError, match="--trace-arrivals"):
        SimulationOptions(loss_trace=LossTrace([0]), arrivals=arrivals)
    with pytest.raises(UsageError, match="ppm"):
        SimulationOptions(drift_ppm=float("nan"))


def test_a_missing_loss_trace_is_named() -> None:
    options = CallOptions(outbound=Impairment(loss_trace=MAN.with_name("no-trace.txt")))
    with pytest.raises(NetemError, match=r"no-trace\.txt"):
        simulate(SPEECH, SimulationOptions(options))
