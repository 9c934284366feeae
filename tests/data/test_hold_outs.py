"""What is kept to judge a renderer by: marked clips of people it learns, or else some of every person and emotion."""

import collections
import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest

from asccl_jax.data.held_out import training_and_held_out
from asccl_jax.data.sequences import CONTEXT, Lengths, sequence_batches
from asccl_jax.data.test_speakers import (
    SPEAKERS_FILE,
    leak_remarks,
    learnt_speakers,
    reported_split,
    scored_on,
    write_speakers,
)
from asccl_jax.errors import InputError
from tests.data.painted_clips import PaintedClips
from tests.data.tiny_dataset import write_tiny_dataset

CUT = {"frames_per_sequence": 10, "length": 5, "chunk": 4}
PUBLISHED = {"frames_per_sequence": 50, "length": 12, "chunk": 4}


def clips(splits, frames=20):
    """So many frames of each clip, `speaker/emotion/number` or `speaker/number`, in the split given."""
    painted = PaintedClips({name: list(range(frames)) for name in splits})
    painted.clips = {
        name: dataclasses.replace(
            entry,
            speaker=name.split("/")[0],
            emotion=name.split("/")[1] if name.count("/") == 2 else "neutral",
            split=splits[name],
        )
        for name, entry in painted.clips.items()
    }
    return painted


def training_clips(counts, frames=110):
    """Clips to train on, so many of each (speaker, emotion), all of so many frames."""
    names = [f"{who}/{emotion}/{number:03d}" for (who, emotion), count in counts.items() for number in range(count)]
    return clips(dict.fromkeys(names, "train"), frames)


def parted(source, speakers=(), **cut):
    return training_and_held_out(source, speakers=speakers, **{**PUBLISHED, **cut})


def names(sequences):
    return [(item.clip, item.first) for item in sequences.items]


def clips_by_group(sequences):
    found = {item.clip for item in sequences.items}
    return collections.Counter(tuple(clip.split("/")[:2]) for clip in found)


def frames_of(sequences):
    return {(item.clip, item.first + k) for item in sequences.items for k in range(item.frames)}


def test_marked_clips_of_those_trained_on_are_held_out():
    source = clips({"A/1": "train", "A/2": "validation", "B/1": "train"})
    training, held_out = training_and_held_out(source, speakers=(), **CUT)
    assert names(training) == [("A/1", 0), ("A/1", 10), ("B/1", 0), ("B/1", 10)]
    assert names(held_out) == [("A/2", 0), ("A/2", 10)]
    # Five frames are no multiple of the chunk.
    assert training.length == held_out.length == 4


def test_marked_clips_of_others_are_not_what_a_renderer_is_judged_by():
    source = clips({"A/1": "train", "A/2": "train", "B/1": "validation", "C/1": "test"})
    for part in training_and_held_out(source, speakers=(), **CUT):
        assert {clip[0] for clip, _ in names(part)} == {"A"}


def test_only_the_people_asked_for_are_trained_on_and_held_out():
    source = clips({"A/1": "train", "A/2": "validation", "B/1": "train", "B/2": "validation"})
    both = training_and_held_out(source, speakers=("B",), **CUT)
    assert [names(one) for one in both] == [[("B/1", 0), ("B/1", 10)], [("B/2", 0), ("B/2", 10)]]
    # Marked clips of somebody else are no reason to leave B without any.
    other = clips({"A/1": "train", "A/2": "validation", "B/1": "train", "B/2": "train"})
    assert {clip for part in training_and_held_out(other, speakers=("B",), **CUT) for clip, _ in names(part)} == {
        "B/1",
        "B/2",
    }


def test_every_person_is_learned_and_judged_in_every_emotion():
    counts = {(f"S{who:02d}", emotion): 10 for who in range(36) for emotion in ("angry", "happy", "neutral")}
    training, held_out = parted(training_clips(counts))
    assert clips_by_group(training) == dict.fromkeys(counts, 9)
    assert clips_by_group(held_out) == dict.fromkeys(counts, 1)
    # Not the same take of everybody.
    assert len({item.clip.rpartition("/")[2] for item in held_out.items}) == 10


def test_one_actor_gives_a_tenth_of_each_emotion_whole():
    emotions = ("angry", "disgusted", "fear", "happy", "neutral", "sad", "surprised")
    training, held_out = parted(training_clips({("M003", emotion): 30 for emotion in emotions}))
    assert set(clips_by_group(held_out).values()) == {3} and set(clips_by_group(training).values()) == {27}
    assert not {item.clip for item in training.items} & {item.clip for item in held_out.items}
    assert (len(training), len(held_out)) == (7 * 27 * 2, 7 * 3 * 2)


def test_what_is_held_out_does_not_depend_on_the_order_of_ids():
    source = training_clips({("A", "happy"): 25, ("B", "happy"): 3})
    expected = parted(source)
    source.clips = dict(reversed(source.clips.items()))
    assert [part.items for part in parted(source)] == [part.items for part in expected]
    # Nor on the clips of other people.
    assert set(names(parted(source, speakers=("B",))[1])) < set(names(expected[1]))


@pytest.mark.parametrize("count", [2, 5, 9])
def test_a_group_of_few_clips_gives_its_shortest(count):
    source = training_clips({("A", "happy"): count}, frames=200)
    short = f"A/happy/{count // 2:03d}"
    source.clips[short] = dataclasses.replace(source.clips[short], runs=((0, 99),))
    training, held_out = parted(source)
    assert {item.clip for item in held_out.items} == {short}
    assert len({item.clip for item in training.items}) == count - 1


@pytest.mark.parametrize("length", [28, 50, 149, 250])
def test_a_single_clip_gives_its_last_part_and_shares_no_frame(length):
    source = training_clips({("A", "happy"): 1, ("B", "sad"): 12}, frames=length)
    training, held_out = parted(source, speakers=("A",))
    assert not frames_of(training) & frames_of(held_out)
    assert max(frames_of(training)) < min(frames_of(held_out))
    kept = len(frames_of(held_out))
    assert kept == max(round(0.1 * length), 12 + CONTEXT) and kept + len(frames_of(training)) == length
    # Nor does any cut that training may draw, with its context.
    batches = sequence_batches(training, batch_size=4, seed=0, lengths=Lengths(12, 12), threads=0)
    shown = {int(level) for _ in range(30) for level in np.unique(next(batches).image)}
    batches.close()
    assert max(shown) < min(frame for _, frame in frames_of(held_out))


def test_gaps_of_a_single_clip_are_no_way_round_its_last_part():
    source = training_clips({("A", "happy"): 1})
    # The last tenth of 420 usable frames: the last run of 20, and 22 of the run before; what lies between is too short.
    source.clips["A/happy/000"] = dataclasses.replace(
        source.clips["A/happy/000"], runs=((0, 399), (500, 504), (600, 619))
    )
    training, held_out = parted(source)
    assert frames_of(held_out) == {("A/happy/000", frame) for frame in [*range(378, 400), *range(600, 620)]}
    assert frames_of(training) == {("A/happy/000", frame) for frame in range(378)}


def test_clips_too_short_for_a_sequence_count_for_nothing():
    source = training_clips({("A", "happy"): 3})
    for name in list(source.clips)[:2]:
        source.clips[name] = dataclasses.replace(source.clips[name], runs=((0, 12),))
    training, held_out = parted(source)
    assert {item.clip for part in (training, held_out) for item in part.items} == {"A/happy/002"}
    assert not frames_of(training) & frames_of(held_out)


def test_a_clip_that_cannot_be_divided_is_learned_and_judged():
    training, held_out = parted(training_clips({("A", "happy"): 1}, frames=27))
    assert training.items == held_out.items and len(training) == 1
    # With another that can, it is only learned.
    training, held_out = parted(training_clips({("A", "happy"): 1, ("A", "sad"): 2}, frames=27))
    assert clips_by_group(training) == {("A", "happy"): 1, ("A", "sad"): 1}
    assert clips_by_group(held_out) == {("A", "sad"): 1}


def test_speakers_must_be_there_and_must_train():
    source = clips({"A/1": "train", "A/2": "train", "B/1": "test", "C/1": "validation"})
    with pytest.raises(InputError, match="no clip of nobody: there are clips of A, B, C"):
        training_and_held_out(source, speakers=("A", "nobody"), **CUT)
    with pytest.raises(InputError, match="all 1 of B are marked test; prepare them with other --test-speakers"):
        training_and_held_out(source, speakers=("B",), **CUT)


def run(folder: Path, *trained: str, selected=("V",), **config) -> Path:
    (folder / "best").mkdir(parents=True)
    write_speakers(folder, {"train": trained, "validation": selected}, config)
    return folder


def test_reports_are_on_the_test_split_where_there_is_one():
    assert reported_split(["test", "train", "validation"]) == "test"
    assert reported_split({"train", "validation"}) == "validation"


def test_a_run_and_its_networks_tell_whom_they_have_learnt(tmp_path):
    folder = run(tmp_path / "run", "B", "A")
    expected = {"train": {"A", "B"}, "validation": {"V"}}
    assert learnt_speakers(folder) == learnt_speakers(folder / "best") == expected
    assert json.loads((folder / SPEAKERS_FILE).read_text())["train"] == ["A", "B"]


@pytest.mark.parametrize(
    "entry",
    [{"init_from": "{}"}, {"metric": {"path": "{}/best"}}, {"mesh": {"metric": "{}"}}],
    ids=["init_from", "metric.path", "mesh.metric"],
)
def test_what_a_network_started_from_counts_as_learnt(tmp_path, entry):
    first = run(tmp_path / "first", "A")
    config = json.loads(json.dumps(entry).replace("{}", str(first)))
    assert learnt_speakers(run(tmp_path / "second", "B", **config)) == {"train": {"A", "B"}, "validation": {"V"}}


def test_a_run_that_goes_on_with_other_people_has_learnt_both(tmp_path):
    write_speakers(tmp_path, {"train": {"A"}, "validation": {"V"}}, {})
    write_speakers(tmp_path, {"train": {"B"}, "validation": {"V"}}, {}, goes_on=True)
    assert learnt_speakers(tmp_path) == {"train": {"A", "B"}, "validation": {"V"}}
    write_speakers(tmp_path, {"train": {"B"}, "validation": {"V"}}, {})
    assert learnt_speakers(tmp_path) == {"train": {"B"}, "validation": {"V"}}


def test_an_older_run_is_known_by_its_data_as_long_as_they_are_there(tmp_path):
    write_tiny_dataset(tmp_path / "records")
    (tmp_path / "old" / "best").mkdir(parents=True)
    config = {"data": {"dir": str(tmp_path / "records"), "speakers": []}}
    (tmp_path / "old" / "config.json").write_text(json.dumps(config))
    expected = {"train": {"A", "B"}, "validation": {"Zoë 李"}}
    assert learnt_speakers(tmp_path / "old" / "best") == learnt_speakers(tmp_path / "records") == expected
    (tmp_path / "records" / "manifest.json").unlink()
    assert learnt_speakers(tmp_path / "old") is None
    assert learnt_speakers(tmp_path / "nowhere") is None and learnt_speakers("gs://bucket/run") is None


def test_what_is_said_of_figures_on_people_whom_a_network_has_learnt(tmp_path):
    folder = run(tmp_path / "run", "M003", "B", "W015", selected=["V"])
    assert leak_remarks({"ours": folder}, ["M003"]) == [
        f"ours ({folder}) was trained on M003, whose clips are scored here",
        f"ours ({folder}) was trained on W015, whom the papers report on",
    ]
    clean = run(tmp_path / "clean", "B")
    assert leak_remarks({"ours": clean}, ["V", "M003"]) == [
        f"ours ({clean}) was selected by V, whose clips are scored here"
    ]
    assert leak_remarks({"ours": clean}, ["M003"]) == []
    assert leak_remarks({"ours": tmp_path}, ["M003"])[0].startswith(f"nobody knows whom ours ({tmp_path}) was trained")
    assert scored_on("test", ["W015", "M003", "M003"], {"ours": clean}) == "Split test, speakers M003, W015."
    assert "NOTE: ours" in scored_on("test", ["B"], {"ours": clean})
