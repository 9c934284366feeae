"""Frames of a clip from records: a data set is opened once a process, and again when it is another one."""

import shutil

import pytest

from asccl_jax.data import records
from asccl_jax.data.dataset import begin_dataset, finish_dataset, write_frame_shard
from asccl_jax.data.manifest import Manifest
from data_prep.media.clips import Clip
from data_prep.reconstruct.clip_inputs import InputClip
from data_prep.reconstruct.reconstruct_settings import TrackSettings
from data_prep.reconstruct.sources import read_source
from data_prep.reconstruct.track_step import TrackTask
from data_prep.reconstruct.work import WorkFolder
from tests.data.tiny_dataset import frame_records

SPLITS = {"train": ["A/neutral/1", "A/happy/1", "A/sad/1"], "validation": ["B/neutral/1", "B/happy/1"]}


def write(directory, count):
    begin_dataset(directory)
    entries = [
        write_frame_shard(directory, split, 0, 1, frame_records(dict.fromkeys(clips, range(count))))
        for split, clips in SPLITS.items()
    ]
    finish_dataset(directory, name="tiny", shards=entries)


def numbers(directory):
    """Numbers of the frames of every clip, twice, as the passes of a reconstruction read them."""
    found = []
    for _ in range(2):
        for split, clips in SPLITS.items():
            for name in clips:
                speaker, emotion, sentence = name.split("/")
                clip = Clip(
                    clip_id=name, speaker=speaker, emotion=emotion, sentence=sentence, name="1", video=directory
                )
                item = InputClip(clip=clip, kind="records", split=split)
                found.append([frame.index for frame in read_source(item, image_fps=30, max_frames=None)])
    return found


@pytest.fixture
def opened(monkeypatch):
    """What has been opened so far: "manifest", or the index of a shard."""
    log = []
    from_json, read_offsets = Manifest.from_json, records.read_offsets
    monkeypatch.setattr(Manifest, "from_json", lambda text: log.append("manifest") or from_json(text))
    monkeypatch.setattr(records, "read_offsets", lambda path: log.append("index") or read_offsets(path))
    return log


def test_a_data_set_is_opened_once_however_many_clips_and_passes(tmp_path, opened):
    write(tmp_path / "r", 3)
    opened.clear()
    assert numbers(tmp_path / "r") == [[0, 1, 2]] * 10
    assert sorted(opened) == ["index", "index", "manifest"]


def test_a_data_set_that_was_written_anew_is_read_anew(tmp_path):
    write(tmp_path / "r", 3)
    numbers(tmp_path / "r")
    shutil.rmtree(tmp_path / "r")
    write(tmp_path / "r", 2)
    assert numbers(tmp_path / "r") == [[0, 1]] * 10


@pytest.mark.parametrize("place", ["images/000000/000000.png", "DECA/000000/000000.pkl", "images/000001.png"])
def test_a_subject_whose_files_change_at_any_depth_is_tracked_anew(tmp_path, place):
    path = tmp_path / "subject" / place
    path.parent.mkdir(parents=True)
    path.write_bytes(b"one")
    clip = Clip(clip_id="A/sad/1", speaker="A", emotion="sad", sentence="1", name="1", video=tmp_path / "subject")

    def key():
        return TrackTask(InputClip(clip=clip, kind="folders"), TrackSettings(), WorkFolder(tmp_path / "work")).key

    before = key()
    assert key() == before
    path.write_bytes(b"three")
    assert key() != before
