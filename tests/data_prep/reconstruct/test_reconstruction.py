"""What `asccl data reconstruct` promises: T results for T frames, nothing lost when killed, mistakes named."""

import csv
import hashlib
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from asccl_jax.data.codes import CodeDict
from asccl_jax.data.dataset import open_records, verify_dataset
from asccl_jax.data.manifest import read_manifest
from asccl_jax.data.schema import FrameRecord, RenderRecord
from asccl_jax.work import sole_writer
from data_prep.reconstruct.clip_step import ClipTask
from data_prep.reconstruct.folders import read_subject
from DECA_torch_bridge.__main__ import main
from tests.data_prep.reconstruct.tiny_clips import codes_of, write_clip, write_list

FRAMES, GAP = 6, 3
COMMON = ("--landmarks", "precomputed", "--landmark-table", "synthetic", "--workers", "1", "--device", "cpu", "--quiet")


@pytest.fixture(scope="module")
def clips(tmp_path_factory) -> Path:
    """One neutral and one happy clip (one frame of it without a face), a clip without faces, a broken video."""
    root = tmp_path_factory.mktemp("clips")
    write_clip(root / "calm", frames=FRAMES, open_mouth=False)
    write_clip(root / "glad", frames=FRAMES, open_mouth=True, missing=(GAP,))
    write_clip(root / "empty", frames=FRAMES, open_mouth=True, missing=tuple(range(FRAMES)))
    (root / "broken.mp4").write_bytes(b"no video at all")
    rows = [
        ("calm", "Ann", "neutral", "s1"),
        ("glad", "Ann", "happy", "s1"),
        ("empty", "Ann", "sad", "s1"),
        ("broken.mp4", "Ann", "angry", "s1"),
    ]
    return write_list(root / "clips.csv", rows)


def precompute(source: Path, output: Path, *more: str) -> int:
    return main(["precompute", str(source), "--output", str(output), *COMMON, *more])


@pytest.fixture(scope="module")
def dataset(clips, tmp_path_factory) -> Path:
    output = tmp_path_factory.mktemp("records") / "codes"
    assert precompute(clips, output) == 0
    return output


def renders(directory: Path) -> list[RenderRecord]:
    source = open_records(directory, read_manifest(directory), "train", "renders")
    return [RenderRecord.decode(data) for data in source]


def digests(directory: Path) -> dict[str, str]:
    paths = sorted(path for path in directory.rglob("*") if path.is_file() and "work" not in path.parts)
    return {str(path.relative_to(directory)): hashlib.sha256(path.read_bytes()).hexdigest() for path in paths}


def test_every_frame_has_one_render_and_the_one_without_a_face_is_flagged(dataset):
    found = [(render.clip, render.frame, render.flags) for render in renders(dataset)]
    happy = [("Ann/happy/s1", frame, int(frame == GAP)) for frame in range(FRAMES)]
    assert found == happy + [("Ann/neutral/s1", frame, 0) for frame in range(FRAMES)]


def test_the_data_set_is_sound_and_frames_go_with_renders(dataset):
    assert verify_dataset(dataset) == []
    source = open_records(dataset, read_manifest(dataset), "train", "frames")
    frames = [FrameRecord.decode(data) for data in source]
    assert [(f.clip, f.frame) for f in frames] == [(r.clip, r.frame) for r in renders(dataset)]


def test_code_dicts_are_the_truth_that_the_landmarks_come_from(dataset):
    (path,) = (dataset / "codes").glob("Ann_happy*.npz")
    codes = CodeDict.load(path)
    np.testing.assert_array_equal(codes.frame_index, np.arange(FRAMES))
    truth = codes_of(FRAMES, open_mouth=True)
    # The fit smooths over time and bears with noise that is not there: hundredths of a radian.
    np.testing.assert_allclose(codes.pose[:, 3], truth.pose[:, 3], atol=0.06)
    np.testing.assert_allclose(codes.pose[:, 1], truth.pose[:, 1], atol=0.06)
    assert len({row.tobytes() for row in codes.shape}) == 1


def test_drawn_landmarks_meet_the_measured_ones(dataset, clips):
    (path,) = (dataset / "tracks").glob("Ann_happy*.npz")
    with np.load(path) as track:
        measured, residual = track["landmarks"], track["residual_px"]
    assert np.isnan(measured[GAP]).all() and np.isnan(residual[GAP])
    # 224 pixels a face; half a pixel would betray a mistaken pixel centre on top of the fit's own 0.3 or so.
    assert np.nanmedian(residual) < 0.6


def test_bad_clips_are_named_and_cost_nothing_else(dataset):
    report = json.loads((dataset / "report" / "report.json").read_text())
    dropped = {p["subject"]: p["reason"] for p in report["problems"] if p["outcome"] == "dropped"}
    assert dropped["Ann/sad/s1"] == f"no face found, in all {FRAMES} frames"
    assert "not a video" in dropped["Ann/angry/s1"]
    assert (dataset / "report" / "contact_sheet.png").is_file()
    assert report["clips"] == {"found": 4, "kept": 2, "dropped": 2}


def test_a_killed_run_goes_on_and_ends_with_the_same_files(clips, dataset, tmp_path, monkeypatch):
    compute, calls = ClipTask.compute, []

    def dies_at_the_second_clip(task):
        calls.append(task.name)
        if len(calls) == 2:
            raise SystemExit("killed")
        return compute(task)

    monkeypatch.setattr(ClipTask, "compute", dies_at_the_second_clip)
    output = tmp_path / "codes"
    with pytest.raises(SystemExit):
        precompute(clips, output)
    assert not (output / "manifest.json").exists()
    monkeypatch.setattr(ClipTask, "compute", lambda task: calls.append(task.name) or compute(task))
    assert precompute(clips, output) == 0
    assert len(calls) == 3 and len(set(calls)) == 2  # the first clip was not done again
    assert digests(output) == digests(dataset)


def start(source: Path, output: Path, *more: str) -> subprocess.Popen:
    command = [sys.executable, "-m", "DECA_torch_bridge", "precompute", str(source), "--output", str(output)]
    return subprocess.Popen([*command, *COMMON, *more])


@pytest.mark.slow
def test_beam_workers_make_the_same_data_set(clips, dataset, tmp_path):
    output = tmp_path / "codes"
    assert start(clips, output, "--workers", "2").wait() == 0
    assert digests(output) == digests(dataset)


def test_parts_make_the_same_data_set(clips, dataset, tmp_path, capsys):
    output = tmp_path / "codes"
    for part in ("1/2", "2/2"):
        assert precompute(clips, output, "--shard", part) == 0
        assert "without --shard" in capsys.readouterr().out
        assert not (output / "manifest.json").exists()
    assert precompute(clips, output) == 0
    assert digests(output) == digests(dataset)


def test_parts_work_side_by_side_but_no_two_runs_on_one(clips, tmp_path, capsys):
    output = tmp_path / "codes"
    with sole_writer(output, "--output", shared=True), sole_writer(output / "work/parts/1-of-2", "--shard"):
        assert precompute(clips, output) == 2
        assert f"--output {output}: another run works there" in capsys.readouterr().err
        assert precompute(clips, output, "--shard", "1/2") == 2
        assert "--shard 1/2" in (said := capsys.readouterr().err) and "another run works there" in said
        assert precompute(clips, output, "--shard", "2/2") == 0
    with sole_writer(output, "--output"):
        assert precompute(clips, output, "--shard", "1/2") == 2


def test_folders_are_written_and_read_back(clips, tmp_path):
    output = tmp_path / "ned"
    assert precompute(clips, output, "--layout-out", "folders") == 0
    subject = read_subject(output / "Ann")
    numbers = np.arange(2 * FRAMES)
    np.testing.assert_array_equal(subject.numbers, numbers)
    assert list(subject.nmfcs) == list(subject.shapes) == numbers.tolist()
    with (output / "Ann" / "frames.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["clip"] for row in rows] == ["Ann/happy/s1"] * FRAMES + ["Ann/neutral/s1"] * FRAMES
    assert [int(row["frame"]) for row in rows] == [*range(FRAMES), *range(FRAMES)]
    again = tmp_path / "records"
    assert main(["precompute", str(output), "--output", str(again), "--landmarks", "precomputed", *COMMON[4:]]) == 0
    (path,) = (again / "codes").glob("*.npz")
    for name in ("shape", "exp", "pose", "cam"):
        np.testing.assert_array_equal(getattr(CodeDict.load(path), name), getattr(subject.codes, name))
    assert len(renders(again)) == 2 * FRAMES


def test_training_folders_hold_fifty_frames_and_mouths(clips, tmp_path):
    output = tmp_path / "ned"
    assert precompute(clips, output, "--layout-out", "folders", "--train-folders") == 0
    assert np.loadtxt(output / "Ann" / "eye_landmarks" / "000000" / "000007.txt").shape == (34, 2)
    assert not (output / "Ann" / "full_frames").exists()
    assert len(read_subject(output / "Ann").codes) == 2 * FRAMES


def test_records_are_read_with_their_gaps_and_squashed_crops(dataset, tmp_path):
    output = tmp_path / "again"
    assert precompute(dataset, output) == 0
    first, second = (CodeDict.load(next((d / "codes").glob("Ann_neutral*.npz"))) for d in (dataset, output))
    np.testing.assert_array_equal(first.frame_index, second.frame_index)
    # The stored landmarks are float32 of the crop; the fit of the same numbers hardly moves.
    np.testing.assert_allclose(second.pose, first.pose, atol=5e-3)
    np.testing.assert_allclose(second.cam[:, 0], first.cam[:, 0], rtol=2e-2)


def test_smoothing_takes_motion_out(clips, dataset, tmp_path):
    assert precompute(clips, tmp_path / "codes", "--smooth", "2") == 0
    rough, smooth = (CodeDict.load(next((d / "codes").glob("Ann_happy*.npz"))) for d in (dataset, tmp_path / "codes"))
    assert np.ptp(smooth.pose[:, 3]) < np.ptp(rough.pose[:, 3])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere"], "does not exist"),
        (["{clips}", "--encoder", "deca"], "--assets"),
        (["{clips}", "--assets", "nowhere"], "nowhere"),
        (["{clips}", "--shard", "3/2"], "--shard"),
        (["{clips}", "--shard", "x"], "--shard"),
        (["{clips}", "--smooth", "-1"], "--smooth"),
        (["{folder}"], "no videos"),
    ],
)
def test_bad_input_is_one_clear_line(arguments, message, clips, tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    words = [word.format(clips=clips, folder=tmp_path / "empty") for word in arguments]
    assert main(["precompute", *words, "--output", str(tmp_path / "out"), *COMMON]) == 2
    error = capsys.readouterr().err
    assert message in error and error.startswith("error: ") and error.count("\n") == 1


def test_precomputed_landmarks_must_say_whose_they_are(clips, tmp_path, capsys):
    assert main(["precompute", str(clips), "--output", str(tmp_path), "--landmarks", "precomputed"]) == 2
    assert "--landmark-table" in capsys.readouterr().err


def test_an_input_without_any_face_says_so(clips, tmp_path, capsys):
    alone = write_list(clips.parent / "alone.csv", [("empty", "Ann", "sad", "s1")])
    assert precompute(alone, tmp_path / "out") == 2
    assert "no face found" in capsys.readouterr().err


def test_edited_codes_are_drawn_into_files_and_videos(dataset, tmp_path):
    codes = CodeDict.load(next((dataset / "codes").glob("Ann_neutral*.npz")))
    edited = codes.edited(codes.exp, np.full(FRAMES, 0.3))
    edited.save(tmp_path / "edited.npz")
    track = next((dataset / "tracks").glob("Ann_neutral*.npz"))
    words = ["render", str(tmp_path / "edited.npz"), "--view", "aligned", "--track", str(track)]
    assert main([*words, "--output", str(tmp_path / "files"), "--pictures", "nmfc,alpha"]) == 0
    assert len(list((tmp_path / "files" / "nmfc").glob("*.png"))) == FRAMES
    assert main([*words, "--output", str(tmp_path / "head.mp4")]) == 0
    assert (tmp_path / "head.mp4").stat().st_size > 0
    assert main([*words, "--output", str(tmp_path / "x"), "--pictures", "texture"]) == 2
