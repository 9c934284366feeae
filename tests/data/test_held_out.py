"""What is kept to judge a renderer by: marked clips of people it learns, or else the last of its own sequences."""

import dataclasses

from asccl_jax.data.held_out import training_and_held_out
from tests.data.painted_clips import PaintedClips

CUT = {"frames_per_sequence": 10, "length": 5, "chunk": 4}


def clips(splits):
    """Twenty frames of each clip, `speaker/number`, in the split given."""
    painted = PaintedClips({name: list(range(20)) for name in splits})
    painted.clips = {
        name: dataclasses.replace(entry, speaker=name.partition("/")[0], split=splits[name])
        for name, entry in painted.clips.items()
    }
    return painted


def names(sequences):
    return [(item.clip, item.first) for item in sequences.items]


def test_marked_clips_of_those_trained_on_are_held_out():
    source = clips({"A/1": "train", "A/2": "validation", "B/1": "train"})
    training, held_out = training_and_held_out(source, speakers=(), **CUT)
    assert names(training) == [("A/1", 0), ("A/1", 10), ("B/1", 0), ("B/1", 10)]
    assert names(held_out) == [("A/2", 0), ("A/2", 10)]
    # Five frames are no multiple of the chunk.
    assert training.length == held_out.length == 4


def test_marked_clips_of_others_are_not_what_a_renderer_is_judged_by():
    source = clips({"A/1": "train", "A/2": "train", "B/1": "validation"})
    training, held_out = training_and_held_out(source, speakers=(), **CUT)
    assert names(held_out) == [("A/2", 10)]
    assert names(training) == [("A/1", 0), ("A/1", 10), ("A/2", 0)]


def test_only_the_people_asked_for_are_trained_on_and_held_out():
    source = clips({"A/1": "train", "A/2": "validation", "B/1": "train", "B/2": "validation"})
    both = training_and_held_out(source, speakers=("B",), **CUT)
    assert [names(one) for one in both] == [[("B/1", 0), ("B/1", 10)], [("B/2", 0), ("B/2", 10)]]
