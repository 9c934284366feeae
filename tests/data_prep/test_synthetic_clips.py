"""Clip sets: whole files, resumed runs, clear refusals; comparisons that change one factor."""

import csv
import dataclasses

import av
import numpy as np
import pytest

from asccl_jax.data.dataset_reader import read_comparisons
from asccl_jax.data.dataset_writer import begin_dataset, finish_dataset, write_frame_shard
from asccl_jax.data.schema import COMPARISON_CONDITIONS, EMOTIONS, FrameRecord
from asccl_jax.errors import InputError
from data_prep.crop import encode_jpeg
from data_prep.synthetic.__main__ import PRESETS, main
from data_prep.synthetic.clips import ClipSetSettings, plan_clips, write_clip_set
from data_prep.synthetic.comparisons import ComparisonSettings, plan_groups, write_records
from data_prep.synthetic.speech import speech_distance

TINY = ClipSetSettings(
    size=64, identities=1, validation_identities=0, sentences=1, emotions_per_sentence=1, syllables=(1, 1)
)


@pytest.fixture(scope="module")
def clip_set(tmp_path_factory):
    directory = tmp_path_factory.mktemp("heads")
    words = ["--output", str(directory), "--preset", "smoke", "--size", "64", "--workers", "1", "--quiet"]
    assert main([*words, "--identities", "1", "--validation-identities", "0"]) == 0
    return directory


def test_list_names_every_video_with_its_landmarks_and_truth(clip_set):
    with (clip_set / "clips.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["emotion"] for row in rows] == ["neutral", "angry"]
    for row in rows:
        video = clip_set / row["path"]
        assert video.stem == f"{row['speaker']}_{row['emotion']}_{row['sentence']}"
        with av.open(video) as container:
            frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
        with av.open(video) as container:
            sound = np.concatenate([frame.to_ndarray()[0] for frame in container.decode(audio=0)])
            rate = container.streams.audio[0].rate
        landmarks = np.load(video.with_suffix(".npz"))["lm68"]
        truth = np.load(clip_set / "truth" / f"{video.stem}.npz")
        assert len(frames) == len(landmarks) == len(truth["speech"]) == len(truth["canonical_time_s"])
        assert frames[0].shape == (64, 64, 3) and landmarks.shape[1:] == (68, 2)
        assert landmarks.min() > 0 and landmarks.max() < 63
        # AAC comes in packets of 1024 samples, the last one padded.
        assert 0 <= len(sound) - len(frames) / 30 * rate < 1024


def test_resumed_run_makes_only_what_is_missing_and_makes_it_equal(clip_set, capsys):
    settings = dataclasses.replace(PRESETS["smoke"], size=64, identities=1, validation_identities=0)
    videos = sorted((clip_set / "clips").glob("*.mp4"))
    before = [video.read_bytes() for video in videos]
    (clip_set / "clips" / ".x.mp4.0.partial").write_bytes(b"left by a killed run")
    videos[0].unlink()
    drawn = list(write_clip_set(settings, clip_set))
    assert sorted(count > 0 for count in drawn) == [False, True]
    assert [video.read_bytes() for video in videos] == before


def test_other_settings_are_refused_in_a_used_directory(clip_set, capsys):
    assert main(["--output", str(clip_set), "--preset", "smoke", "--size", "96", "--quiet"]) == 2
    assert "identities, size" in capsys.readouterr().err.replace("validation_identities", "")
    with pytest.raises(InputError, match="even number"):
        dataclasses.replace(TINY, size=63)


def test_emotions_take_turns_and_no_sentence_is_shared():
    plans = plan_clips(ClipSetSettings())
    counts = [sum(plan.emotion == emotion for plan in plans) for emotion in EMOTIONS[1:]]
    assert max(counts) - min(counts) <= 1
    assert len({plan.stem for plan in plans}) == len(plans) and len({plan.seed for plan in plans}) == len(plans)
    speakers = {plan.sentence: {p.speaker for p in plans if p.sentence == plan.sentence} for plan in plans}
    assert all(len(names) == 1 for names in speakers.values())
    held_out = {plan.speaker for plan in plans if plan.split == "validation"}
    assert len(held_out) == 3 and not held_out & {plan.speaker for plan in plans if plan.split == "train"}


def test_comparisons_change_one_factor_at_a_time():
    for group in plan_groups([10, 11, 12], ComparisonSettings(groups=24)):
        keys = {still.condition: still for still in group.keys}
        assert tuple(keys) == COMPARISON_CONDITIONS
        query, matched, plain = group.query, keys["matched"], keys["neutral_same_speech"]

        def differences(a, b):
            fields = ("person", "emotion", "speech", "intensity", "turn", "blink")
            return {name for name in fields if not np.array_equal(getattr(a, name), getattr(b, name))}

        assert differences(query, matched) >= {"emotion", "intensity", "turn"}
        assert "speech" not in differences(query, matched) | differences(query, plain)
        assert differences(matched, keys["other_speech"]) == {"speech"}
        assert differences(matched, keys["small_speech_change"]) == {"speech"}
        assert differences(plain, keys["neutral_other_speech"]) == {"speech"}
        assert differences(plain, keys["brow_only"]) == {"intensity"}
        assert differences(matched, keys["other_identity_same_speech"]) == {"person"}
        assert differences(matched, keys["other_identity_other_speech"]) == {"person", "speech"}
        assert speech_distance(query.speech, keys["other_speech"].speech) >= 1.5
        assert 0.3 <= speech_distance(query.speech, keys["small_speech_change"].speech) <= 0.8
    with pytest.raises(InputError, match="at least 2"):
        plan_groups([10], ComparisonSettings())


def small_records(directory, speakers):
    image = encode_jpeg(np.full((48, 48, 3), 90, np.uint8))
    frames = [
        FrameRecord(
            image=image, speaker=speaker, emotion="neutral", sentence="1", clip=f"{speaker}/neutral/1", frame=0,
            time_s=0.0, landmarks=np.zeros((68, 2), np.float32), crop_box=np.array([0, 0, 48, 48], np.float32),
        )
        for speaker in speakers
    ]  # fmt: skip
    begin_dataset(directory)
    shards = [write_frame_shard(directory, "validation", 0, 1, frames)]
    finish_dataset(directory, name="tiny", shards=shards)


def test_comparisons_join_the_records_of_held_out_people(tmp_path):
    small_records(tmp_path, ["syn004", "syn005"])
    manifest = write_records(tmp_path, ComparisonSettings(groups=2, size=96))
    records = read_comparisons(tmp_path, "comparisons")
    assert [record.condition for record in records] == [*COMPARISON_CONDITIONS] * 2
    assert manifest.split("comparisons").records("frames") == 18
    distance = {record.condition: record.speech_distance for record in records if record.group == 0}
    assert (
        distance["matched"] == distance["brow_only"] == 0 < distance["small_speech_change"] < distance["other_speech"]
    )
    again = write_records(tmp_path, ComparisonSettings(groups=2, size=96))
    assert again.split("comparisons").frames[0].sha256 == manifest.split("comparisons").frames[0].sha256


def test_comparisons_refuse_records_of_other_people(tmp_path, capsys):
    small_records(tmp_path, ["M003"])
    assert main(["comparisons", "--records", str(tmp_path), "--quiet"]) == 2
    assert "'M003' is no synthetic person" in capsys.readouterr().err
