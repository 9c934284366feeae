"""Preparations from end to end, whole, broken, interrupted, and on several processes."""

import dataclasses
import json
import os
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import simplejpeg

from asccl_jax.data.dataset import open_records, read_pairs, verify_dataset
from asccl_jax.data.manifest import read_manifest
from asccl_jax.data.records import file_sha256
from asccl_jax.data.schema import FrameRecord
from asccl_jax.errors import InputError
from data_prep.__main__ import main
from data_prep.media.landmarks import LandmarkSettings
from data_prep.prepare import stage_workers
from data_prep.prepare.alignment import AlignmentSettings
from data_prep.prepare.clip_records import ClipSettings
from data_prep.prepare.preparation import prepare
from data_prep.prepare.prepare_settings import Preparation, RunnerSettings
from tests.data_prep.tiny_media import (
    picture,
    voice,
    write_clip,
    write_landmarks,
    write_sound,
    write_table,
    write_video,
)

ROOT = Path(__file__).resolve().parents[3]
REAL_CLIPS = ROOT.parent / "shared" / "clips"


def settings(source, output, **options):
    clips = options.pop("clips", {})
    return Preparation(
        source=source,
        layout=options.pop("layout", "list"),
        output=output,
        clips=ClipSettings(image_size=48, landmarks=LandmarkSettings(backend="precomputed"), **clips),
        **options,
    )


def checksums(directory):
    """Digest of every file that belongs to the data set."""
    files = [path for path in sorted(directory.rglob("*")) if path.is_file() and "report" not in path.parts]
    return {path.relative_to(directory).as_posix(): file_sha256(path) for path in files if "work" not in path.parts}


def reasons(outcome):
    return {problem.subject: problem.reason for problem in outcome.problems}


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """Two speakers, one sentence in three emotions each."""
    folder = tmp_path_factory.mktemp("small")
    rows = []
    for speaker in ("Ann", "Bob"):
        for number, emotion in enumerate(("neutral", "happy", "sad")):
            write_clip(folder, f"{speaker}-{emotion}", tempo=number or None, first=number, frames=30)
            rows.append((f"{speaker}-{emotion}.mp4", speaker, emotion, "hello"))
    return write_table(folder / "clips.csv", rows)


@pytest.fixture(scope="module")
def prepared(small, tmp_path_factory):
    output = tmp_path_factory.mktemp("prepared")
    return output, prepare(settings(small, output), progress=False)


def test_records_hold_what_the_clips_show(prepared, small):
    output, outcome = prepared
    assert verify_dataset(output) == []
    manifest = read_manifest(output)
    assert manifest.speakers("train") == ["Ann"]
    assert manifest.speakers("validation") == ["Bob"]
    assert manifest.clips["Ann/sad/hello"].source == "Ann-sad.mp4"
    assert manifest.clips["Ann/sad/hello"].fps == pytest.approx(30, rel=1e-3)
    frames = [FrameRecord.decode(data) for data in open_records(output, manifest, "train", "frames")]
    assert len(frames) == sum(outcome.statuses[f"Ann/{e}/hello"].kept for e in ("neutral", "happy", "sad"))
    happy = [frame for frame in frames if frame.emotion == "happy"]
    assert [frame.frame for frame in happy] == list(range(len(happy)))
    np.testing.assert_allclose([frame.time_s for frame in happy], np.arange(len(happy)) / 30, atol=1e-5)
    image = simplejpeg.decode_jpeg(happy[3].image)
    assert image.shape == (48, 48, 3)
    # The blue of the tiny videos counts the frames (one step is 23): the right picture, in RGB.
    assert abs(int(image[24, 24, 2]) - int(picture(4)[40, 40, 2])) < 10
    low, high = happy[3].landmarks.min(axis=0) + 0.5, happy[3].landmarks.max(axis=0) + 0.5
    np.testing.assert_allclose([low, high], [[4, 4], [44, 44]], atol=0.1)  # a twelfth of the crop on each side


def test_pairs_are_neutral_against_each_emotion_within_limits(prepared):
    output, _ = prepared
    for split, speaker in (("train", "Ann"), ("validation", "Bob")):
        pairs = read_pairs(output, split)
        assert [(pair.query_clip, pair.key_clip) for pair in pairs] == [
            (f"{speaker}/neutral/hello", f"{speaker}/{emotion}/hello") for emotion in ("happy", "sad")
        ]
        for pair in pairs:
            steps = np.diff(np.stack([pair.query_frame, pair.key_frame]))
            assert steps.min() >= 0
            assert max(np.unique(f, return_counts=True)[1].max() for f in (pair.query_frame, pair.key_frame)) <= 3
            assert 0 < pair.cost < 0.4


def test_the_report_counts_and_shows(prepared):
    output, outcome = prepared
    figures = json.loads((output / "report" / "report.json").read_text())
    assert figures["clips"] == {"found": 6, "kept": 6, "dropped": 0}
    assert figures["frames"]["kept"] == sum(status.kept for status in outcome.statuses.values())
    assert figures["pairs"]["count"] == 4
    assert figures["splits"]["validation"]["speakers"] == ["Bob"]
    page = (output / "report" / "report.html").read_text()
    for name in ("crops.png", "aligned_frames.png", "paths.png"):
        assert f'src="{name}"' in page
        assert (output / "report" / name).stat().st_size > 1000
    assert not (output / "work").exists()


@pytest.mark.slow
def test_two_processes_write_the_same_bytes_as_one(prepared, small, tmp_path, monkeypatch):
    output, _ = prepared
    for limit in ("_FEW_VIDEO_BYTES", "_FEW_PAIRS", "_FEW_BYTES"):
        monkeypatch.setattr(stage_workers, limit, 0)
    prepare(settings(small, tmp_path, runner=RunnerSettings(workers=2)), progress=False)
    assert checksums(tmp_path) == checksums(output)


def test_small_shards_hold_whole_clips_in_order(small, tmp_path):
    prepare(settings(small, tmp_path, shard_bytes=1), progress=False)
    manifest = read_manifest(tmp_path)
    assert len(manifest.splits["train"].frames) == 3
    assert [manifest.clips[f"Ann/{e}/hello"].shard for e in ("happy", "neutral", "sad")] == [0, 1, 2]
    assert verify_dataset(tmp_path) == []


def test_options_of_frames_reach_the_records(small, tmp_path):
    options = {"fps": 15.0, "max_frames": 10, "crop": "released"}
    prepare(settings(small, tmp_path, clips=options), progress=False)
    manifest = read_manifest(tmp_path)
    clip = manifest.clips["Ann/sad/hello"]
    assert clip.frames == ((0, 9),)
    assert clip.fps == pytest.approx(15, rel=0.05)
    frames = [FrameRecord.decode(data) for data in open_records(tmp_path, manifest, "train", "frames")]
    np.testing.assert_allclose(frames[4].time_s, 8 / 30, atol=1e-5)


def test_exported_pairs_make_the_same_data_set_again(prepared, small, tmp_path):
    output, _ = prepared
    first = prepare(settings(small, tmp_path / "a", pairs_to=tmp_path / "pairs.json"), progress=False)
    second = prepare(settings(small, tmp_path / "b", pairs_from=tmp_path / "pairs.json"), progress=False)
    assert [pair.name for pair in first.pairs] == [pair.name for pair in second.pairs]
    for split in ("train", "validation"):
        for one, two in zip(read_pairs(output, split), read_pairs(tmp_path / "b", split), strict=True):
            np.testing.assert_array_equal(one.query_frame, two.query_frame)
            np.testing.assert_array_equal(one.key_frame, two.key_frame)


def broken_clips(folder):
    """One good pair for each of two speakers, and one clip for each thing that goes wrong."""
    samples, moments = voice(1, tempo=3)
    frames, rows = len(moments), []
    for speaker in ("Ann", "Bob"):
        for emotion in ("neutral", "happy"):
            write_clip(folder, f"{speaker}-{emotion}", tempo=3)
            rows.append((f"{speaker}-{emotion}.mp4", speaker, emotion, "good"))
    whole = (folder / "Ann-happy.mp4").read_bytes()

    def add(name, take="", emotion="sad", landmarks=frames):
        rows.append((name, "Ann", emotion, "good", "", take or Path(name).stem))
        if landmarks:
            write_landmarks((folder / name).with_suffix(".npz"), landmarks)

    (folder / "empty.mp4").touch()
    (folder / "text.mp4").write_text("words" * 100)
    (folder / "cut.mp4").write_bytes(whole[: len(whole) // 2])
    (folder / "renamed.avi").write_bytes(whole)
    write_video(folder / "mute.mp4", 12)
    write_video(folder / "hushed.mp4", 12, samples=np.zeros(8000, np.float32))
    write_sound(folder / "only_sound.mp4", samples)
    for name in ("empty.mp4", "text.mp4", "cut.mp4", "renamed.avi", "only_sound.mp4"):
        add(name)
    for name in ("mute.mp4", "hushed.mp4"):
        add(name, landmarks=12)
    for name in ("faceless.mp4", "blinking.mp4", "unmarked.mp4"):
        (folder / name).write_bytes(whole)
        add(name, landmarks=0)
    write_landmarks(folder / "faceless.npz", len(moments), missing=range(len(moments)))
    write_landmarks(folder / "blinking.npz", len(moments), missing=(3, 4))
    add("blinking.mp4", take="blinking", landmarks=0)  # the same id again
    add("nowhere.mp4", landmarks=0)
    add("mute.mp4", take="contempt", emotion="contempt", landmarks=0)
    stills = folder / "stills"
    stills.mkdir()
    for number in range(5):
        write_still(stills / f"{number + 1:06d}.png", number)
    (stills / "000003.png").write_bytes(b"no picture")
    add("stills", take="stills", landmarks=5)
    return write_table(folder / "clips.csv", rows)


def write_still(path, number):
    from PIL import Image

    Image.fromarray(picture(number)).save(path)


def test_a_broken_clip_costs_that_clip_and_is_named(tmp_path):
    outcome = prepare(settings(broken_clips(tmp_path), tmp_path / "out"), progress=False)
    assert verify_dataset(tmp_path / "out") == []
    found = reasons(outcome)
    expected = {
        "Ann/sad/good/empty": "an empty file",
        "Ann/sad/good/text": "not a video, or truncated (wrong extension?)",
        "Ann/sad/good/cut": "not a video, or truncated (wrong extension?)",
        "Ann/sad/good/renamed": "wrong extension '.avi': the file is mov,mp4,m4a,3gp,3g2,mj2",
        "Ann/sad/good/mute": "no audio track: in no pair",
        "Ann/sad/good/hushed": "silent audio track: in no pair",
        "Ann/sad/good/only_sound": "no video track",
        "Ann/sad/good/faceless": "no face found, in all",
        "Ann/sad/good/blinking": "no face found, in 2 of",
        "Ann/sad/good/unmarked": "no landmark file",
        "Ann/sad/good/stills": "unreadable picture, in 1 of 5 frames",
        "nowhere.mp4": "no such file",
        "mute.mp4": "emotion 'contempt' is not one of",
    }
    for subject, reason in expected.items():
        assert any(p.subject == subject and p.reason.startswith(reason) for p in outcome.problems), (subject, found)
    assert any("duplicate clip id" in p.reason and "blinking" in p.subject for p in outcome.problems)
    manifest = read_manifest(tmp_path / "out")
    kept = {name.rsplit("/", 1)[-1] for name in manifest.clips if name.startswith("Ann/sad")}
    assert kept == {"renamed", "mute", "hushed", "blinking", "stills"}
    assert manifest.clips["Ann/sad/good/stills"].frames == ((0, 1), (3, 4))
    assert manifest.clips["Ann/sad/good/blinking"].frames[0] == (0, 2)
    paired = {pair.key_clip for pair in read_pairs(tmp_path / "out", "train")}
    assert paired == {"Ann/happy/good", "Ann/sad/good/renamed", "Ann/sad/good/blinking"}
    blinking = next(p for p in read_pairs(tmp_path / "out", "train") if p.key_clip.endswith("blinking"))
    assert not {3, 4} & set(blinking.key_frame.tolist())
    page = (tmp_path / "out" / "report" / "report.html").read_text()
    assert all(reason.split(",")[0].split(" (")[0].replace("'", "&#39;") in page for reason in expected.values())


def test_nothing_usable_and_nothing_to_pair_end_the_run_with_one_line(tmp_path, capsys):
    write_clip(tmp_path, "a", frames=4)
    (tmp_path / "b.mp4").write_text("words")
    none = write_table(tmp_path / "none.csv", [("b.mp4", "Ann", "neutral", "1"), ("b.mp4", "Ann", "sad", "1")])
    alone = write_table(tmp_path / "alone.csv", [("a.mp4", "Ann", "neutral", "1"), ("a.mp4", "Ann", "sad", "2")])
    write_video(tmp_path / "mute.mp4", 4)
    write_landmarks(tmp_path / "mute.npz", 4)
    silent = write_table(tmp_path / "silent.csv", [("a.mp4", "Ann", "neutral", "1"), ("mute.mp4", "Ann", "sad", "1")])
    for table, message in (
        (none, "none of the 2 clips can be used: not a video"),
        (alone, "no two of them can be paired (a neutral and an emotional one of the same speaker and sentence"),
        (silent, "no audio track: in no pair (1). More is in"),
    ):
        output = tmp_path / table.stem
        words = [table, "--layout", "list", "--landmarks", "precomputed", "--workers", "1", "--output", output]
        status = main([str(word) for word in words])
        error = capsys.readouterr().err
        assert status == 2
        assert error.count("\n") == 1
        assert message in error
        assert (output / "report" / "report.html").is_file()
        assert not (output / "manifest.json").exists()


def test_wrong_options_fail_before_any_work(small, tmp_path):
    (tmp_path / "pairs.json").write_text("[]")
    for options, message in [
        ({"validation_speakers": ("Zoe",)}, "Zoe: not among Ann, Bob"),
        ({"pairs_from": tmp_path / "gone.json"}, "as a list of pairs"),
        ({"pairs_from": tmp_path / "pairs.json"}, "as a list of pairs"),
        ({"transcripts": tmp_path / "gone.csv"}, "as a CSV file"),
    ]:
        with pytest.raises(InputError, match=message):
            prepare(settings(small, tmp_path / "out", **options), progress=False)
    with pytest.raises(InputError, match="--runner MoonRunner"):
        prepare(settings(small, tmp_path / "out", runner=RunnerSettings(runner="MoonRunner")), progress=False)
    for options in ({"levels": ()}, {"shard_bytes": 0}, {"runner": RunnerSettings(workers=0)}):
        with pytest.raises(InputError):
            settings(small, tmp_path, **options)
    for options in ({"image_size": 8}, {"fps": 0.0}, {"max_frames": 0}):
        with pytest.raises(InputError):
            ClipSettings(**options)
    for options in ({"band": 1.5}, {"max_hold": 0}):
        with pytest.raises(InputError):
            AlignmentSettings(**options)


def test_another_beam_runner_can_be_named(prepared, small, tmp_path):
    runner = RunnerSettings(runner="BundleBasedDirectRunner", beam_options="--direct_running_mode=in_memory")
    prepare(settings(small, tmp_path, runner=runner), progress=False)
    assert checksums(tmp_path) == checksums(prepared[0])


def test_pairs_that_cost_too_much_are_dropped_by_name(small, tmp_path):
    with pytest.raises(InputError, match="above the limit 0"):
        prepare(settings(small, tmp_path, max_cost=0.0), progress=False)


def test_mead_videos_pair_by_sentence_with_their_sound_files(tmp_path):
    for speaker in ("M005", "W021"):
        for emotion, level, number, sentence in (
            ("neutral", 1, "001", 1),
            ("sad", 3, "001", 1),
            ("sad", 3, "011", 5),
            ("disgusted", 3, "001", 6),
            ("disgusted", 3, "028", 1),
        ):
            folder = tmp_path / "mead" / speaker / "video" / "front" / emotion / f"level_{level}"
            sound = tmp_path / "mead" / speaker / "audio" / emotion / f"level_{level}"
            folder.mkdir(parents=True, exist_ok=True)
            sound.mkdir(parents=True, exist_ok=True)
            samples, moments = voice(sentence, tempo=int(number))
            write_video(folder / f"{number}.mp4", len(moments))
            write_landmarks(folder / f"{number}.npz", len(moments))
            write_sound(sound / f"{number}.m4a", samples)
    outcome = prepare(settings(tmp_path / "mead", tmp_path / "out", layout="mead"), progress=False)
    assert read_manifest(tmp_path / "out").speakers("validation") == ["W021"]
    pairs = [(pair.query_clip, pair.key_clip) for pair in read_pairs(tmp_path / "out", "train")]
    # Disgusted 028, not 001, is the common sentence of this speaker; 011 is another one.
    assert pairs == [("M005/neutral/001", "M005/disgusted/028"), ("M005/neutral/001", "M005/sad/001")]
    assert "028-030 are taken for" in reasons(outcome)["M005/disgusted"]


def test_a_run_killed_while_it_removes_its_work_can_be_given_again(prepared, small, tmp_path, monkeypatch):
    remove = shutil.rmtree

    def dies_half_way(folder, **options):
        remove(Path(folder) / "clips", **options)
        raise SystemExit("killed")

    with monkeypatch.context() as patched:
        patched.setattr(stage_workers.shutil, "rmtree", dies_half_way)
        with pytest.raises(SystemExit):
            prepare(settings(small, tmp_path), progress=False)
    prepare(settings(small, tmp_path), progress=False)
    assert checksums(tmp_path) == checksums(prepared[0])
    assert not [path.name for path in tmp_path.iterdir() if "work" in path.name]


STAND_INS = {
    "torch.py": """
import types
cuda = types.SimpleNamespace(is_available=lambda: False)
""",
    "face_alignment.py": """
import os, types
import numpy as np

LandmarksType = types.SimpleNamespace(TWO_D=1)

class FaceAlignment:
    def __init__(self, kind, *, device, flip_input):
        self.face_detector = self

    def detect_from_image(self, image):
        if len(image) == 32:
            os._exit(9)  # as the kernel does where memory runs out
        return [(0, 0, 9, 9, 1.0)]

    def get_landmarks_from_image(self, image, detected_faces):
        angle = np.linspace(0, 6.2, 68)
        return [32 + 16 * np.stack([np.cos(angle), np.sin(angle)], axis=1)]
""",
}


@pytest.mark.slow
def test_a_clip_that_kills_its_worker_costs_only_itself(tmp_path, monkeypatch):
    rows = []
    for speaker in ("Ann", "Bob"):
        for emotion in ("neutral", "happy"):
            write_clip(tmp_path, f"{speaker}-{emotion}", frames=20)
            rows.append((f"{speaker}-{emotion}.mp4", speaker, emotion, "1"))
    write_video(tmp_path / "deadly.mp4", 5, size=32)
    table = write_table(tmp_path / "clips.csv", [*rows, ("deadly.mp4", "Ann", "sad", "1")])
    (tmp_path / "stand_ins").mkdir()
    for name, content in STAND_INS.items():
        (tmp_path / "stand_ins" / name).write_text(content)
        monkeypatch.delitem(sys.modules, name.removesuffix(".py"), raising=False)
    monkeypatch.syspath_prepend(tmp_path / "stand_ins")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "stand_ins"))
    chosen = settings(table, tmp_path / "out", runner=RunnerSettings(workers=2))
    outcome = prepare(dataclasses.replace(chosen, clips=ClipSettings(image_size=48)), progress=False)
    assert {p.subject for p in outcome.problems if "died, twice" in p.reason} == {"Ann/sad/1"}
    assert sorted(read_manifest(tmp_path / "out").clips) == [
        f"{s}/{e}/1" for s in ("Ann", "Bob") for e in ("happy", "neutral")
    ]


def test_changed_settings_and_files_are_prepared_anew(small, tmp_path):
    prepare(settings(small, tmp_path, keep_work=True), progress=False)
    work = tmp_path / "work" / "clips"

    def stamps():
        return {path.name: path.stat().st_mtime_ns for path in work.glob("*.json")}

    first = stamps()
    prepare(settings(small, tmp_path, keep_work=True), progress=False)
    assert stamps() == first
    clip = small.parent / "Ann-sad.mp4"
    os.utime(clip)
    prepare(settings(small, tmp_path, keep_work=True), progress=False)
    second = stamps()
    assert [name for name in first if first[name] != second[name]] == [n for n in first if n.startswith("Ann_sad")]
    prepare(settings(small, tmp_path, keep_work=True, clips={"max_frames": 9}), progress=False)
    assert all(second[name] != stamp for name, stamp in stamps().items())


@pytest.mark.skipif(
    not REAL_CLIPS.is_dir(), reason="the real clips lie beside the repository only where it is developed"
)
def test_real_clips(tmp_path):
    names = ("W015_s039_neutral_src", "W015_s039_neutral_to_happy_ned", "W015_s039_neutral_to_happy_ours")
    rows = [
        (REAL_CLIPS / "clips" / f"{name}.mp4", "W015", emotion, "039", "train", name[-4:])
        for name, emotion in zip(names, ("neutral", "happy", "happy"), strict=True)
    ]
    table = write_table(tmp_path / "clips.csv", rows)
    landmarks = LandmarkSettings(backend="precomputed", directory=REAL_CLIPS / "landmarks68")
    chosen = settings(table, tmp_path / "out", clips={"max_frames": 60})
    outcome = prepare(
        dataclasses.replace(chosen, clips=dataclasses.replace(chosen.clips, landmarks=landmarks)), progress=False
    )
    assert all(status.kept == 60 and not status.dropped for status in outcome.statuses.values())
    pairs = read_pairs(tmp_path / "out", "train")
    assert [pair.key_clip for pair in pairs] == ["W015/happy/039/_ned", "W015/happy/039/ours"]
    for pair in pairs:
        # The outputs carry the source's sound, so that the right path is the diagonal, frame by frame.
        np.testing.assert_array_equal(pair.query_frame, pair.key_frame)
        assert pair.cost < 0.01
