"""Actors: many emotions of few people; emotional twins differ from their neutral clip in the emotion alone."""

import csv
import numpy as np
import pytest
from asccl_jax.data.schema import EMOTIONS
from asccl_jax.data.tracks import TYPICAL_INTENSITY
from asccl_jax.errors import InputError
from data_prep.synthetic.__main__ import main
from data_prep.synthetic.action_units import ACTION_UNITS, EMOTION_UNITS
from data_prep.synthetic.synthetic_clips import ActorSetSettings, plan_actors
from data_prep.synthetic.synthetic_clips import ClipSetSettings
import dataclasses
import av
from asccl_jax.data.dataset import read_comparisons
from asccl_jax.data.dataset import begin_dataset, finish_dataset, write_frame_shard
from asccl_jax.data.schema import COMPARISON_CONDITIONS, EMOTIONS, FrameRecord
from data_prep.media.crop import encode_jpeg
from data_prep.synthetic.__main__ import PRESETS, main
from data_prep.synthetic.synthetic_clips import ClipSetSettings, plan_clips, write_clip_set
from data_prep.synthetic.comparisons import ComparisonSettings, plan_groups, write_records
from data_prep.synthetic.speech import speech_distance

@pytest.fixture(scope="module")
def actor_set(tmp_path_factory):
    directory = tmp_path_factory.mktemp("synthetic") / "actors"
    words = ["actors", "--output", str(directory), "--size", "48", "--actors", "1", "--sentences", "1"]
    words += ["--emotions-per-sentence", "1", "--syllables", "1", "1", "--workers", "1", "--quiet"]
    assert main(words) == 0
    return directory


def clips_of(directory, split):
    with (directory / "clips.csv").open() as file:
        return [row for row in csv.DictReader(file) if row["split"] == split]


def files_of(directory, row):
    stem = f"{row['speaker']}_{row['emotion']}_{row['sentence']}"
    assert (directory / row["path"]).is_file() and row["path"] == f"clips/{stem}.mp4"
    return np.load(directory / "truth" / f"{stem}.npz"), np.load(directory / "clips" / f"{stem}.npz")["lm68"]


def test_every_actor_says_own_sentences_in_all_emotions_and_holds_some_out():
    plans = plan_actors(ActorSetSettings(held_out_sentences=2))
    assert len({plan.stem for plan in plans}) == len(plans) == 2 * (6 + 2) * 7
    for number in {plan.sentence for plan in plans}:
        said = [plan for plan in plans if plan.sentence == number]
        assert sorted(plan.emotion for plan in said) == sorted(EMOTIONS)
        assert len({plan.speaker for plan in said}) == len({plan.split for plan in said}) == 1
        held_out = said[0].split == "validation"
        assert len({plan.seed for plan in said}) == (1 if held_out else 7)
        assert [plan.twin for plan in said] == [held_out and plan.emotion != "neutral" for plan in said]
    splits = {(plan.speaker, plan.sentence): plan.split for plan in plans}
    assert sorted(splits.values()) == ["train"] * 12 + ["validation"] * 4
    seeds = {plan.seed for plan in plans}
    assert not seeds & {plan.seed for plan in plan_actors(ActorSetSettings(seed=1))}


def test_fewer_emotions_take_turns():
    plans = plan_actors(ActorSetSettings(emotions_per_sentence=2, held_out_sentences=0))
    counts = [sum(plan.emotion == emotion for plan in plans) for emotion in EMOTIONS]
    assert counts == [12, 4, 4, 4, 4, 4, 4]


def test_twins_differ_from_the_neutral_clip_in_the_units_of_the_emotion_alone(actor_set):
    rows = clips_of(actor_set, "validation")
    assert [row["emotion"] for row in rows] == list(EMOTIONS)
    neutral, still = files_of(actor_set, rows[0])
    assert not neutral["intensity"].any()
    for row in rows[1:]:
        truth, landmarks = files_of(actor_set, row)
        assert set(truth) == set(neutral)
        for name in set(truth) - {"expression", "intensity"}:
            np.testing.assert_array_equal(truth[name], neutral[name], err_msg=name)
        np.testing.assert_array_equal(truth["intensity"], TYPICAL_INTENSITY)
        difference = truth["expression"] - neutral["expression"]
        changed = {ACTION_UNITS[unit] for unit in np.flatnonzero(np.abs(difference).max(axis=0) > 1e-6)}
        assert changed == set(EMOTION_UNITS[row["emotion"]])
        assert landmarks.shape == still.shape
        assert np.linalg.norm(landmarks - still, axis=-1).max(axis=1).min() > 0.2  # pixels of 48, in every frame


def test_training_clips_are_performances_of_their_own(actor_set):
    rows = clips_of(actor_set, "train")
    assert [row["emotion"] for row in rows] == ["neutral", "angry"]
    (one, _), (other, _) = (files_of(actor_set, row) for row in rows)
    count = min(len(one["pose"]), len(other["pose"]))
    assert not np.allclose(one["pose"][:count], other["pose"][:count], atol=1e-3)


def test_bad_settings_are_refused(tmp_path, capsys):
    assert main(["actors", "--output", str(tmp_path), "--quiet", "--actors", "0"]) == 2
    assert "actors 0: expected at least 1" in capsys.readouterr().err
    with pytest.raises(InputError, match="there are 6"):
        ActorSetSettings(emotions_per_sentence=7)
    with pytest.raises(InputError, match="syllables"):
        ClipSetSettings(syllables=(3, 2))


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
