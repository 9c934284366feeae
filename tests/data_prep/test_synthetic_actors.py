"""Actors: many emotions of few people; emotional twins differ from their neutral clip in the emotion alone."""

import csv

import numpy as np
import pytest

from asccl_jax.data.schema import EMOTIONS
from asccl_jax.data.tracks import TYPICAL_INTENSITY
from asccl_jax.errors import InputError
from data_prep.synthetic.__main__ import main
from data_prep.synthetic.action_units import ACTION_UNITS, EMOTION_UNITS
from data_prep.synthetic.actors import ActorSetSettings, plan_actors
from data_prep.synthetic.clips import ClipSetSettings


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
