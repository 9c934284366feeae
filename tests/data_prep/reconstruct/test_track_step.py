"""Landmarks of a clip's frames: as many as frames are shown, under whatever name the video has."""

import shutil
from pathlib import Path

import pytest

from data_prep.media.decode import BrokenMediaError
from data_prep.reconstruct.clip_inputs import find_inputs
from data_prep.reconstruct.reconstruct_settings import Reconstruction, TrackSettings
from data_prep.reconstruct.track_step import Track, TrackTask
from data_prep.reconstruct.work import WorkFolder
from data_prep.video.reconstruct_options import ReconstructOptions
from tests.data_prep.tiny_media import write_landmarks, write_video
from tests.test_paths import NAMES


def track_task(video, work, **options):
    settings = Reconstruction(source=video, output=work, layout="video", track=TrackSettings(**options))
    ((item,), _, _) = find_inputs(settings)
    folder = WorkFolder(work)
    folder.make()
    return TrackTask(item, settings.track, folder)


@pytest.fixture(scope="module")
def video(tmp_path_factory):
    return write_video(tmp_path_factory.mktemp("video") / "plain.mp4", 5)


@pytest.mark.parametrize("name", NAMES, ids=ascii)
def test_a_video_of_any_name_is_read_in_its_folder(name, video, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    here = Path(f"{name}.mp4")
    shutil.copy(video, here)
    write_landmarks(f"./{name}.npz", 5)
    task = track_task(here, tmp_path / "work")
    task.run()
    status = task.work.status("tracks", task.name, task.key)
    assert status["problem"] is None and status["frames"] == 5
    assert len(Track.load(task.work.file("tracks", task.name, ".npz")).found) == 5
    # What asccl manipulate runs names the same clip, and the video so that it is not taken for an option.
    options = ReconstructOptions(landmarks="precomputed", landmark_table="synthetic")
    assert options.clip(here) == task.item.name
    word = options.words(here, tmp_path / "records")[5]
    assert not word.startswith("-") and Path(word).samefile(here)


@pytest.mark.parametrize("rows", [4, 8])
@pytest.mark.parametrize("most", [None, 2])
def test_landmarks_of_more_or_fewer_frames_than_are_shown_are_refused(video, tmp_path, rows, most):
    shutil.copy(video, tmp_path / "a.mp4")
    write_landmarks(tmp_path / "a.npz", rows)
    task = track_task(tmp_path / "a.mp4", tmp_path / "work", max_frames=most)
    with pytest.raises(BrokenMediaError, match=f"{rows} rows, the video 5 frames"):
        task.compute()
