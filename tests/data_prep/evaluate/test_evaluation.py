"""Whole evaluations of tiny clips: known lags, exact truths, refusals by name, the same bytes every time."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from asccl_jax.data.test_speakers import write_speakers
from asccl_jax.errors import InputError
from data_prep.evaluate import evaluate_command, lip_sync_scores, video_features
from data_prep.evaluate.evaluation import evaluate
from data_prep.evaluate.evaluation_run import EvaluationSettings
from data_prep.evaluate.inputs import read_clips
from data_prep.evaluate.landmark_sources import LandmarkFinder
from data_prep.evaluate.score_cache import Fingerprints
from data_prep.evaluate.video_features import frame_chunks
from data_prep.evaluate.video_metrics import METRICS
from data_prep.evaluate.video_report import to_text
from data_prep.media.landmarks import LandmarkSettings
from tests.data_prep.evaluate.tiny_clips import brightness_networks, course, face, write_clip, write_list


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    """Two speakers; Ann's happy clip is exact, Bob's sad one is three frames late."""
    root = tmp_path_factory.mktemp("clips")
    for speaker in ("Ann", "Bob"):
        write_clip(root / "source", f"{speaker}_n")
        write_clip(root / "real", f"{speaker}_happy")
        write_clip(root / "real", f"{speaker}_sad", first=7)
    write_clip(root / "fake", "Ann_happy")
    write_clip(root / "fake", "Bob_sad", shift=3)
    write_clip(root / "fake", "short", frames=12)
    write_clip(root / "fake", "large", size=80)
    write_clip(root / "fake", "silent", sound=False, landmarks=False)
    (root / "fake/broken.mp4").write_bytes(b"no video")
    write_list(root / "source", *((f"{one}_n.mp4", one, "neutral", "s1") for one in ("Ann", "Bob")))
    write_list(root / "real", *((f"{one}_{e}.mp4", one, e, "s1") for one in ("Ann", "Bob") for e in ("happy", "sad")))
    write_list(
        root / "fake",
        ("Ann_happy.mp4", "Ann", "happy", "s1"),
        ("Bob_sad.mp4", "Bob", "sad", "s1"),
        ("short.mp4", "Ann", "sad", "s1"),
        ("large.mp4", "Ann", "angry", "s1"),
        ("broken.mp4", "Ann", "fear", "s1"),
        ("silent.mp4", "Bob", "happy", "s1"),
        ("missing.mp4", "Bob", "fear", "s1"),
    )
    return root


def evaluated(clips, work, *, networks=None, **settings):
    fingerprints = Fingerprints()
    real, fake, source = (read_clips(clips / name, f"--{name}") for name in ("real", "fake", "source"))
    finder = LandmarkFinder(["precomputed"], LandmarkSettings(), fingerprints)
    chosen = EvaluationSettings(**settings)
    return evaluate(fake, real, source, networks or brightness_networks(), finder, work=work, settings=chosen)[0]


@pytest.fixture(scope="module")
def evaluation(clips, tmp_path_factory):
    return evaluated(clips, tmp_path_factory.mktemp("work"), threads=2)


def scores(evaluation, clip):
    return next(one for one in evaluation.clips if one.clip == clip)


def test_a_known_shift_is_the_lag(evaluation):
    assert scores(evaluation, "Ann/happy/s1").values["lag_frames"] == 0
    assert scores(evaluation, "Bob/sad/s1").values["lag_frames"] == 3


def test_another_pace_and_a_late_sound_are_no_exact_copies(clips, tmp_path):
    for name in ("source", "real"):
        shutil.copytree(clips / name, tmp_path / name)
    write_clip(tmp_path / "fake", "slow", fps=25)
    write_clip(tmp_path / "fake", "sound", delay=3200)
    write_list(tmp_path / "fake", ("slow.mp4", "Ann", "happy", "s1"), ("sound.mp4", "Bob", "sad", "s1"))
    found = evaluated(tmp_path, tmp_path / "work")
    slow, late = (scores(found, clip) for clip in ("Ann/happy/s1", "Bob/sad/s1"))
    assert "plays at 25 and its source at 30 frames a second" in slow.clock
    assert slow.values["lag_ms"] == pytest.approx(1000 * np.mean(np.arange(16) * (1 / 25 - 1 / 30)), abs=1)
    assert slow.values["lip_landmark_distance"] > 0.01 and "psnr_db" in slow.lacking
    assert late.values["lag_ms"] == pytest.approx(-200, abs=1) and late.clock == ""
    words = to_text(found)
    assert "No lag" not in words
    assert "LAG" in words and "ANOTHER CLOCK than the source: Ann/happy/s1 plays at 25" in words


def test_an_exact_copy_is_at_no_distance_and_of_highest_quality(evaluation):
    values = scores(evaluation, "Ann/happy/s1").values
    assert values["lip_landmark_distance"] == 0
    assert values["psnr_db"] == 100
    np.testing.assert_allclose([values["mouth_correlation"], values["ssim"]], 1, atol=1e-12)
    np.testing.assert_allclose(values["identity_csim"], 1, atol=1e-6)


def test_clips_that_do_not_fit_their_source_are_refused_by_name(evaluation):
    reasons = {one.clip: one.reason for one in evaluation.refused if one.side == "fake"}
    assert set(reasons) == {"Ann/sad/s1", "Ann/angry/s1", "Ann/fear/s1", "missing.mp4"}
    assert "12 frames, its source Ann/neutral/s1 16" in reasons["Ann/sad/s1"]
    assert "frames of 80 x 80" in reasons["Ann/angry/s1"]
    assert "not a video" in reasons["Ann/fear/s1"]


def test_a_clip_without_landmarks_lacks_what_needs_them_only(evaluation):
    silent = scores(evaluation, "Bob/happy/s1")
    assert "no landmarks" in silent.lacking["lip_landmark_distance"]
    assert "no landmarks" in silent.lacking["lse_d_25fps"]
    assert {"psnr_db", "picture_jitter", "emotion_accuracy_efficientface", "lse_d_30fps"} <= set(silent.values)
    assert silent.sound == "source"


def test_every_metric_has_a_figure_or_a_reason(evaluation):
    names = {one.name for one in METRICS if not one.pooled}
    assert all(set(one.values) | set(one.lacking) == names for one in evaluation.clips)
    assert {pool.metric for pool in evaluation.pools} == {one.name for one in METRICS if one.pooled}


def test_emotions_asked_for_are_compared_with_those_seen(evaluation):
    name = "emotion_accuracy_efficientface"
    assert [scores(evaluation, clip).values[name] for clip in ("Ann/happy/s1", "Bob/sad/s1")] == [1, 0]


def test_common_parts_are_scored_on_request(clips, tmp_path):
    short = scores(evaluated(clips, tmp_path, allow_lengths=True), "Ann/sad/s1")
    assert short.frames == 12
    assert short.values["lip_landmark_distance"] == pytest.approx(0, abs=1e-6)


def test_a_second_run_computes_nothing_and_finds_the_same(clips, tmp_path, monkeypatch):
    first = evaluated(clips, tmp_path)
    read = []

    def watched(path):
        read.append(path.name)
        return frame_chunks(path)

    monkeypatch.setattr(video_features, "frame_chunks", watched)
    monkeypatch.setattr(lip_sync_scores, "frame_chunks", watched)
    again = evaluated(clips, tmp_path)
    assert read == ["broken.mp4"]
    assert again.clips == first.clips
    assert again.pools == first.pools


def test_whole_scenes_need_the_face_cut_out(tmp_path):
    for side in ("source", "real", "fake"):
        folder = tmp_path / side / "happy/Ann/1"
        folder.mkdir(parents=True)
        for number, opening in enumerate(course(6)):
            scene = np.full((90, 120, 3), 40 + 10 * int(opening), np.uint8)
            Image.fromarray(scene).save(folder / f"{number:06d}.png")
        points = np.stack([face(opening) for opening in course(6)]) + np.float32([25, 12])
        np.savez(folder.parent / "1.npz", landmarks68=points)
    whole, cut = (evaluated(tmp_path, tmp_path / "work", crop=crop).clips[0] for crop in (False, True))
    for name in ("identity_csim", "emotion_accuracy_efficientface"):
        assert "frames of 120 x 90 are no face crops: give --crop" in whole.lacking[name]
        assert name in cut.values
    assert whole.values["lip_landmark_distance"] == cut.values["lip_landmark_distance"] == 0


def test_not_one_clip_to_score_is_an_error(clips, tmp_path):
    write_list(tmp_path / "fake", ("a.mp4", "Ann", "happy", "s1"))
    (tmp_path / "fake/a.mp4").write_bytes(b"no video")
    real, fake = read_clips(clips / "real", "--real"), read_clips(tmp_path / "fake", "--fake")
    finder = LandmarkFinder(["precomputed"], LandmarkSettings(), Fingerprints())
    with pytest.raises(InputError, match="not one manipulated clip could be scored: Ann/happy/s1: not a video"):
        evaluate(fake, real, None, brightness_networks(), finder, work=tmp_path, settings=EvaluationSettings())


def test_a_map_without_the_speakers_is_an_error(clips, tmp_path):
    with pytest.raises(InputError, match="no clip of --source belongs to the map"):
        evaluated(clips, tmp_path, setting="cross")


def run(clips, report, *more):
    paths = (part for name in ("real", "fake", "source") for part in (f"--{name}", str(clips / name)))
    return evaluate_command.main([*paths, "--report", str(report), "--show", "1", *more])


def test_the_command_writes_the_same_bytes_every_time(clips, tmp_path, capsys):
    for name, threads in (("a", "1"), ("b", "2")):
        assert run(clips, tmp_path / name, "--threads", threads) == 0
    text = (tmp_path / "a/evaluation.json").read_text()
    assert text == (tmp_path / "b/evaluation.json").read_text()
    page = (tmp_path / "a/report.html").read_text()
    assert "data:video/mp4" in page
    assert "resnet18_110.pth" in page
    assert set(json.loads(text)["missing_networks"]) == {"resnet-face", "efficient-face", "arcface", "syncnet"}
    output = capsys.readouterr().out
    assert "get syncnet_v2.model from" in output
    assert "not scored: Ann/fear/s1" in output


def test_the_page_says_whether_what_made_the_clips_had_seen_the_speakers(clips, tmp_path, capsys):
    seen, clean = tmp_path / "seen", tmp_path / "clean"
    for folder, speakers in ((seen, {"Ann", "Dora"}), (clean, {"Cleo"})):
        folder.mkdir()
        write_speakers(folder, {"train": speakers, "validation": ()}, {})
    told = []
    for words in ((), ("--trained-on", str(clean)), ("--trained-on", str(clean), "--trained-on", str(seen))):
        assert run(clips, tmp_path / "report", *words) == 0
        notes = [line for line in capsys.readouterr().out.splitlines() if line.startswith("NOTE: ")]
        told.append(notes)
        assert all(note[6:20] in (tmp_path / "report/report.html").read_text() for note in notes)
    assert told[0] == ["NOTE: nobody knows whether what made the clips had learnt these speakers (--trained-on RUN)"]
    assert told[1] == []
    assert told[2] == [f"NOTE: seen ({seen}) was trained on Ann, whose clips are scored here"]
    assert run(clips, tmp_path / "report", "--trained-on", str(tmp_path / "absent")) == 2


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--landmarks", "dlib"], "--landmarks dlib: expected of face-alignment"),
        (["--arcface", "nowhere"], "--arcface nowhere: no such folder; get backbone.pth"),
        (["--threads", "0"], "--threads 0: expected at least 1"),
        (["--fake", "nowhere"], "--fake nowhere: no such file or folder"),
    ],
)
def test_wrong_words_are_one_clear_line(clips, tmp_path, capsys, words, message):
    assert run(clips, tmp_path, *words) == 2
    error = capsys.readouterr().err
    assert message in error
    assert "Traceback" not in error


SHARED = Path(__file__).resolve().parents[4] / "shared" / "clips"


@pytest.mark.skipif(not SHARED.is_dir(), reason="the real clips are not beside this checkout")
@pytest.mark.parametrize(("method", "distance"), [("ned", 0.085), ("ours", 0.035)])
def test_real_clips_have_the_known_lip_landmark_distance(tmp_path, method, distance):
    names = {"fake": f"W015_s039_neutral_to_happy_{method}", "source": "W015_s039_neutral_src"}
    for side, name in names.items():
        table = tmp_path / f"{side}.csv"
        emotion = "happy" if side == "fake" else "neutral"
        row = f"{SHARED}/clips/{name}.mp4,W015,{emotion},039,{SHARED}/landmarks68/{name}.npz"
        table.write_text(f"path,speaker,emotion,sentence,landmarks\n{row}\n")
    options = ["--real", "source", "--fake", "fake", "--source", "source"]
    words = [word if word.startswith("--") else str(tmp_path / f"{word}.csv") for word in options]
    assert evaluate_command.main([*words, "--report", str(tmp_path / "report"), "--show", "0"]) == 0
    (clip,) = json.loads((tmp_path / "report/evaluation.json").read_text())["clips"]
    assert clip["values"]["lip_landmark_distance"] == pytest.approx(distance, rel=0.15)
    assert clip["values"]["lag_frames"] == 0
