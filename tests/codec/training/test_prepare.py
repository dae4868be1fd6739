"""Preparing a data set, and opening it."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np
import numpy.typing as npt
import pytest

from codec.features import HOP, FeatureExtractor
from codec.training.augment import alter
from codec.training.dataset import INDEX, SIGNAL, Dataset, read_index
from codec.training.prepare import PrepareError, choose_valid, decode, main, prepare

CLIPS = Path(__file__).parents[2] / "data"
SPEAKERS = ("ann", "bob", "cleo", "dan")


def write_wav(path: Path, pcm: npt.NDArray[np.int16], rate: int = 16_000) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("pcm_s16le", rate=rate, layout="mono")
        frame = av.AudioFrame.from_ndarray(pcm[None, :], format="s16", layout="mono")
        frame.sample_rate = rate
        for packet in [*stream.encode(frame), *stream.encode(None)]:
            container.mux(packet)


@pytest.fixture
def recordings(tmp_path: Path) -> Path:
    """Four speakers with two recordings each, 35 hops and a bit."""
    folder = tmp_path / "recordings"
    clip = decode(CLIPS / "woman.flac")
    for i, speaker in enumerate(SPEAKERS):
        for j in range(2):
            start = (8 * i + 20 * j) * HOP
            write_wav(folder / speaker / f"{j}.wav", clip[start : start + 35 * HOP + 7])
    return folder


def test_signal_and_features_lie_file_after_file(recordings: Path, tmp_path: Path) -> None:
    prepare(recordings, tmp_path / "out", valid_speakers=1, workers=1)
    data = Dataset.open(tmp_path / "out")
    assert [e.file for e in data.entries] == [f"{s}/{j}.wav" for s in SPEAKERS for j in range(2)]
    assert [(e.first_frame, e.frames) for e in data.entries] == [(35 * i, 35) for i in range(8)]
    for entry in data.entries:
        frames = slice(entry.first_frame, entry.first_frame + entry.frames)
        pcm = decode(recordings / entry.file)
        np.testing.assert_array_equal(data.signal[frames.start * HOP : frames.stop * HOP], pcm)
        np.testing.assert_array_equal(data.features[frames], FeatureExtractor().process(pcm))


def test_validation_speakers_are_never_trained_on(recordings: Path, tmp_path: Path) -> None:
    prepare(recordings, tmp_path / "out", copies=2, valid_speakers=0.5, workers=1)
    data = Dataset.open(tmp_path / "out")
    speakers = {s: {e.speaker for e in data.entries if e.split == s} for s in ("train", "valid")}
    assert len(speakers["valid"]) == 2
    assert speakers["train"] == set(SPEAKERS) - speakers["valid"]
    assert len(data.runs("train")) == len(data.runs("valid")) == 8
    assert len(data.runs("valid", copies=[0])) == 4
    assert set(data.runs("train", copies=[1])) < set(data.runs("train"))


def test_the_first_copy_is_the_recording_and_the_others_are_not(
    recordings: Path, tmp_path: Path
) -> None:
    prepare(recordings, tmp_path / "out", copies=3, valid_speakers=1, workers=1)
    data = Dataset.open(tmp_path / "out")
    for i in range(0, len(data.entries), 3):
        entries = data.entries[i : i + 3]
        assert [e.copy for e in entries] == [0, 1, 2]
        signals = [data.signal[e.first_frame * HOP :][: e.frames * HOP] for e in entries]
        np.testing.assert_array_equal(signals[0], decode(recordings / entries[0].file))
        for signal, entry in zip(signals[1:], entries[1:], strict=True):
            assert np.mean(signal != signals[0]) > 0.5
            features = data.features[entry.first_frame :][: entry.frames]
            np.testing.assert_array_equal(features, FeatureExtractor().process(np.array(signal)))
        assert np.mean(signals[1] != signals[2]) > 0.5


def test_equal_seeds_give_equal_data_with_any_number_of_processes(
    recordings: Path, tmp_path: Path
) -> None:
    for name, workers, seed in (("a", 1, 5), ("b", 2, 5), ("c", 1, 6)):
        prepare(recordings, tmp_path / name, copies=2, seed=seed, valid_speakers=1, workers=workers)
    contents = {
        name: [(tmp_path / name / part).read_bytes() for part in (SIGNAL, INDEX)] for name in "abc"
    }
    assert contents["a"] == contents["b"]
    assert contents["a"] != contents["c"]


def test_the_manifest_names_the_speakers(recordings: Path, tmp_path: Path) -> None:
    manifest = tmp_path / "manifest.tsv"
    rows = [f'{s}/{j}.wav\t1.0\tthe "{s}{j}"' for s in SPEAKERS for j in range(2)]
    manifest.write_text("\n".join(["file\tseconds\tspeaker", *rows]) + "\n")
    entries = prepare(recordings, tmp_path / "out", manifest=manifest, workers=1)
    assert {e.speaker for e in entries} == {f'the "{s}{j}"' for s in SPEAKERS for j in range(2)}
    assert read_index(tmp_path / "out" / INDEX) == entries


def test_other_rates_become_16_khz_mono(tmp_path: Path) -> None:
    t = np.arange(48_000) / 48_000
    tone = (10_000 * np.sin(2 * np.pi * 1000 * t)).astype(np.int16)
    write_wav(tmp_path / "tone.wav", tone, rate=48_000)
    pcm = decode(tmp_path / "tone.wav")
    assert len(pcm) == 16_000
    spectrum = np.abs(np.fft.rfft(pcm[4000:12_000] * np.hanning(8000)))
    assert np.argmax(spectrum) == 500


def test_recordings_without_a_whole_frame_are_left_out(recordings: Path, tmp_path: Path) -> None:
    write_wav(recordings / "ann" / "2.wav", np.ones(100, np.int16))
    assert len(prepare(recordings, tmp_path / "out", valid_speakers=1, workers=1)) == 8


def test_altered_copies_keep_clear_of_clipping_and_of_silence() -> None:
    clip = decode(CLIPS / "man.flac")
    loud = np.clip(clip.astype(np.int32) * 4, -32768, 32767).astype(np.int16)
    for seed in range(20):
        altered = alter(loud, np.random.default_rng(seed)).astype(np.float64)
        assert np.sum(np.abs(altered) >= 32767) <= 2
        ratio = 10 * np.log10(np.mean(altered**2) / np.mean(loud.astype(np.float64) ** 2))
        assert -21 < ratio < 6.1
    silence = np.zeros(1600, np.int16)
    np.testing.assert_array_equal(alter(silence, np.random.default_rng(0)), silence)


def test_validation_speakers_are_a_number_or_a_fraction() -> None:
    speakers = {f"s{i}" for i in range(40)}
    assert len(choose_valid(speakers, 3, 0)) == 3
    assert len(choose_valid(speakers, 0.05, 0)) == 2
    assert choose_valid(speakers, 0, 0) == frozenset()
    assert choose_valid(speakers, 3, 0) != choose_valid(speakers, 3, 1)
    with pytest.raises(PrepareError, match="40 validation speakers"):
        choose_valid(speakers, 40, 0)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["{recordings}/nowhere", "--out", "{tmp}/out"], "nowhere is not a folder"),
        (["{tmp}/empty", "--out", "{tmp}/out"], "no audio files below"),
        (["{recordings}", "--out", "{tmp}/empty"], "is there already"),
        (["{recordings}", "--out", "{tmp}/out", "--manifest", "{tmp}/m.tsv"], "no column speaker"),
        (["{recordings}", "--out", "{tmp}/out", "--manifest", "{tmp}/n.tsv"], "ann/0.wav has no"),
        (["{recordings}", "--out", "{tmp}/out", "--manifest", "{tmp}/none.tsv"], "none.tsv"),
        (["{recordings}", "--out", "{tmp}/out", "--valid-speakers", "4"], "4 validation speakers"),
        (["{broken}", "--out", "{tmp}/out", "--valid-speakers", "0"], "x.wav: cannot be decoded"),
    ],
)
def test_bad_input_is_one_line_and_leaves_nothing(
    arguments: list[str],
    message: str,
    recordings: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "x.wav").write_bytes(b"RIFF, or not")
    (tmp_path / "m.tsv").write_text("file\tlanguage\n")
    (tmp_path / "n.tsv").write_text("file\tspeaker\n")
    before = sorted(tmp_path.iterdir())
    names = {"recordings": recordings, "tmp": tmp_path, "broken": tmp_path / "broken"}
    assert main([*(a.format(**names) for a in arguments), "--jobs", "1"]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.parametrize(
    "arguments", [["--copies", "0"], ["--copies", "two"], ["--valid-speakers", "nan"]]
)
def test_bad_numbers_are_usage_errors(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as exit_:
        main(["x", "--out", "y", *arguments])
    assert exit_.value.code == 2
    assert arguments[1] in capsys.readouterr().err


def test_a_damaged_data_set_is_refused(recordings: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    prepare(recordings, out, valid_speakers=1, workers=1)
    index = (out / INDEX).read_text()
    for damaged, message in [
        (index.replace("\tcopy\t", "\tkopie\t"), "columns"),
        (index.replace("\t35\n", "\tmany\n"), "line 2"),
        (index.replace("\ttrain\t", "\ttest\t"), "malformed"),
        (index.replace("\t245\t35", "\t246\t35"), "past the last of 280"),
    ]:
        (out / INDEX).write_text(damaged)
        with pytest.raises(ValueError, match=message):
            Dataset.open(out)
    (out / INDEX).unlink()
    with pytest.raises(ValueError, match=r"index\.tsv is missing"):
        Dataset.open(out)
