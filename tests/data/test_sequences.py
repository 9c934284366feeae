"""Sequences: which frames they hold, how they grow, that a batch follows from its number, what noise does to them."""

import dataclasses
import logging

import numpy as np
import pytest

from asccl_jax.data.loader import evaluation_batches
from asccl_jax.data.sequences import (
    ConditioningNoise,
    Lengths,
    RenderSequences,
    SequenceItem,
    moved_and_scaled,
    sequence_batches,
    training_stages,
)
from asccl_jax.errors import InputError
from tests.data.painted_clips import PaintedClips

SHORT = Lengths(start=4, most=8, epochs=2)


def painted(**frames: int) -> PaintedClips:
    return PaintedClips({clip: list(range(count)) for clip, count in frames.items()})


def sequences(**frames: int) -> RenderSequences:
    return RenderSequences(painted(**frames), length=4)


def chunks(source, count, **options):
    options = {"batch_size": 4, "seed": 7, "lengths": SHORT, "threads": 0, "noise": "none", **options}
    iterator = sequence_batches(source, **options)
    return [next(iterator) for _ in range(count)]


def batches(source, count, **options):
    """Whole sequences, put together from their chunks."""
    options = {"batch_size": 4, "seed": 7, "lengths": SHORT, "threads": 0, "noise": "none", **options}
    iterator, found, parts = sequence_batches(source, **options), [], []
    while len(found) < count:
        part = next(iterator)
        assert part.image.shape[1] == 6
        if part.begins.all() and parts:
            found.append(joined(parts))
            parts = []
        assert part.begins.all() == (not parts) and part.begins.any() == part.begins.all()
        parts.append(part)
    return found


def joined(parts):
    whole = {}
    for name in parts[0].__dataclass_fields__:
        arrays = [getattr(part, name) for part in parts]
        if arrays[0].ndim == 1:
            assert name == "begins" or all(np.array_equal(array, arrays[0]) for array in arrays)
            whole[name] = arrays[0]
        else:
            whole[name] = np.concatenate([arrays[0], *(array[:, 2:] for array in arrays[1:])], axis=1)
    return parts[0].replace(**whole)


def same(a, b) -> bool:
    return all(np.array_equal(getattr(a, name), getattr(b, name)) for name in a.__dataclass_fields__)


def test_runs_are_cut_into_even_items_and_never_across_a_gap():
    clips = PaintedClips({"A": [*range(50), *range(60, 62)], "B": list(range(110)), "C": list(range(70))})
    source = RenderSequences(clips)
    assert source.items == [
        SequenceItem("A", 0, 50),
        SequenceItem("B", 0, 55),
        SequenceItem("B", 55, 55),
        SequenceItem("C", 0, 70),
    ]
    assert source.short_runs == 1


def test_frames_of_a_sequence_follow_each_other_and_all_streams_agree():
    source = sequences(A=20, B=11)
    for batch in batches(source, 12, fresh_start_share=0.5):
        assert batch.image.shape == (4, batch.mask.shape[1], 8, 8, 3) and batch.image.dtype == np.uint8
        for row in range(4):
            frames = batch.image[row, :, 0, 0, 0].astype(int)
            item = source.items[batch.index[row]]
            assert frames.min() >= 0 and frames.max() < item.frames
            np.testing.assert_array_equal(np.diff(frames[2:]), 1)
            before = [0, 0] if batch.fresh_start[row] else [1, 1]
            np.testing.assert_array_equal(np.diff(frames[:3]), before)
            np.testing.assert_array_equal(batch.nmfc_image[row, :, 0, 0, 0], frames + 1)
            np.testing.assert_array_equal(batch.shape_image[row, :, 0, 0, 0], frames + 2)
            np.testing.assert_array_equal(batch.mouth_centre[row, :, 0], frames)
            assert (batch.mouth_centre[row, :, 1] == batch.index[row]).all()
            np.testing.assert_allclose(batch.face_box[row, :, 3], 7 - frames / 100, rtol=1e-6)


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_share_of_fresh_starts(share):
    for batch in batches(sequences(A=20), 5, fresh_start_share=share):
        assert (batch.fresh_start == bool(share)).all()


def test_every_place_of_an_item_is_a_start_and_no_other():
    source = sequences(A=9)
    seen = {fresh: set() for fresh in (False, True)}
    for batch in batches(source, 60, lengths=Lengths(4, 4), fresh_start_share=0.5):
        for frames, fresh in zip(batch.image[:, :, 0, 0, 0], batch.fresh_start.tolist(), strict=True):
            seen[fresh].add(int(frames[2]))
    assert seen == {False: {2, 3, 4, 5}, True: {0, 1, 2, 3, 4, 5}}


def test_lengths_double_as_published():
    assert Lengths().values() == [12, 24, 48]
    assert Lengths(12, 40).values() == [12, 24, 40] and Lengths(8, 8).values() == [8]
    source = sequences(A=20, B=20, C=20, D=20, E=20, F=20)
    stages = training_stages(source, Lengths(4, 16, epochs=3), batch_size=4)
    assert [(stage.length, stage.first, stage.batches) for stage in stages] == [(4, 0, 4), (8, 4, 8), (16, 12, None)]
    lengths = [batch.image.shape[1] - 2 for batch in batches(source, 10, lengths=Lengths(4, 16, epochs=3))]
    assert lengths == [4] * 4 + [8] * 4 + [16] * 2


def test_an_epoch_goes_through_all_items_once():
    source = sequences(A=20, B=20, C=20, D=20, E=20, F=20)
    rows = np.concatenate([batch.index for batch in batches(source, 30, batch_size=2, lengths=Lengths(4, 4))])
    epochs = rows.reshape(-1, 6)
    np.testing.assert_array_equal(np.sort(epochs, axis=1), np.tile(np.arange(6), (10, 1)))
    assert len({tuple(epoch) for epoch in epochs.tolist()}) > 5


def test_short_items_sit_out_long_stages_and_are_reported(caplog):
    source = sequences(A=20, B=7, C=30)
    stages = training_stages(source, Lengths(4, 64, epochs=1), batch_size=1)
    with caplog.at_level(logging.WARNING):
        sequence_batches(source, batch_size=1, seed=0, lengths=Lengths(4, 64, epochs=1), threads=0)
    assert [(stage.length, stage.items.tolist()) for stage in stages] == [
        (4, [0, 1, 2]),
        (8, [0, 2]),
        (16, [0, 2]),
        (28, [2]),
    ]
    assert "sequences of 28 frames: 2 of 3 items are too short" in caplog.text
    assert "grow to 28 frames only, not 64" in caplog.text


def test_a_batch_follows_from_its_number_whoever_makes_it():
    source = sequences(A=20, B=15, C=30)
    options = {"noise": "frame", "fresh_start_share": 0.3}
    straight = chunks(source, 9, **options)
    iterator = sequence_batches(source, batch_size=4, seed=7, lengths=SHORT, threads=2, **options)
    for expected in straight[:5]:
        assert same(next(iterator), expected)
    state = iterator.get_state()
    iterator.close()
    resumed = sequence_batches(source, batch_size=4, seed=7, lengths=SHORT, threads=2, **options)
    resumed.set_state(state)
    for expected in straight[5:]:
        assert same(next(resumed), expected)
    resumed.close()
    assert not same(chunks(source, 1, seed=8, **options)[0], straight[0])
    for part in range(2):
        rows = slice(2 * part, 2 * part + 2)
        for mine, whole in zip(
            chunks(source, 4, process_index=part, process_count=2, **options), straight, strict=False
        ):
            assert all(
                np.array_equal(getattr(mine, name), getattr(whole, name)[rows]) for name in whole.__dataclass_fields__
            )


def test_parts_of_clips_can_be_chosen_whatever_their_order():
    clips = painted(A=200, B=20, C=20)
    part = dataclasses.replace(clips.clips["A"], runs=((100, 139), (150, 154), (160, 179)))
    source = RenderSequences(clips, [clips.clips["C"], part], frames_per_sequence=20, length=4)
    assert source.items == [
        *(SequenceItem("A", first, 20) for first in (100, 120, 160)),
        SequenceItem("C", 0, 20),
    ]
    assert source.short_runs == 1


def test_chunks_of_a_sequence_overlap_in_their_context_and_share_its_disturbance():
    source = sequences(A=20)
    first, second = chunks(source, 2, batch_size=1, lengths=Lengths(8, 8), fresh_start_share=0.0, noise="sequence")
    for name in ("image", "nmfc_image", "eyes_image", "shape_image", "mask", "mouth_centre", "face_box"):
        np.testing.assert_array_equal(getattr(second, name)[:, :2], getattr(first, name)[:, -2:])
    assert first.begins.all() and not second.begins.any()


def test_evaluation_shows_every_item_from_its_beginning_as_a_video_begins():
    source = sequences(A=20, B=15, C=30)
    found = list(evaluation_batches(source, batch_size=2, threads=0))
    assert [valid.tolist() for _, valid in found] == [[True, True], [True, False]]
    for batch, _ in found:
        assert batch.fresh_start.all()
        np.testing.assert_array_equal(batch.image[:, :, 0, 0, 0], np.tile([0, 0, 0, 1, 2, 3], (2, 1)))


def test_a_sequence_is_disturbed_as_one_a_frame_and_stream_on_its_own():
    size = 256
    clips = PaintedClips({"A": list(range(4))}, image_size=size)
    for kind, shared in (("sequence", True), ("frame", False)):
        noise = ConditioningNoise(kind, np.random.default_rng(3), size)
        moved = [noise(clips.read("A", frame)) for frame in range(4)]
        # All of these pictures are even: what differs is the black border that the motion leaves, and the discs.
        borders = {(name, (pictures[name][:, :, 0] == 0).tobytes()) for pictures in moved for name in pictures}
        assert len({border for name, border in borders if name == "nmfc_image"}) == (1 if shared else 4)
        assert len({border for name, border in borders if name != "eyes_image"}) == (1 if shared else 8)
        assert len({border for name, border in borders if name == "eyes_image"}) == (1 if shared else 4)
        untouched = clips.read("A", 0)
        assert not np.array_equal(moved[0]["eyes_image"], untouched.eyes_image)
        for name, picture in moved[0].items():
            # A hundredth of 256 and of half of it: at most 3 + 2 pixels of the border are black.
            assert name == "eyes_image" or picture[5:-5, 5:-5].min() > 0
    still = ConditioningNoise("none", np.random.default_rng(3), size)(clips.read("A", 1))
    assert all(picture is getattr(clips.read("A", 1), name) for name, picture in still.items())


def test_motion_is_the_nearest_pixel_of_the_inverse_map():
    rng = np.random.default_rng(0)
    image = rng.integers(1, 256, (20, 30, 3), np.uint8)
    np.testing.assert_array_equal(moved_and_scaled(image, (0, 0), 1.0), image)
    moved = moved_and_scaled(image, (2, -1), 1.0)
    np.testing.assert_array_equal(moved[:-1, 2:], image[1:, :-2])
    assert not moved[-1].any() and not moved[:, :2].any()
    scaled = moved_and_scaled(image, (1, 0), 1.25)
    for row in range(20):
        for column in range(30):
            y, x = (row + 0.5 - 10) / 1.25 + 10, (column + 0.5 - 15 - 1) / 1.25 + 15
            np.testing.assert_array_equal(scaled[row, column], image[int(y), int(x)])


def test_bad_sizes_are_refused():
    with pytest.raises(InputError, match=r"no sequence of 14 .* the longest has 9; set a shorter length"):
        RenderSequences(painted(A=9))
    with pytest.raises(InputError, match="in 0 clips"):
        RenderSequences(painted(A=90), [])
    with pytest.raises(InputError, match="multiple of the chunk"):
        RenderSequences(painted(A=90), length=6)
    with pytest.raises(InputError, match="at least 14"):
        RenderSequences(painted(A=90), frames_per_sequence=13)
    with pytest.raises(InputError, match="start <= most"):
        Lengths(12, 8)
    with pytest.raises(InputError, match="noise 'much'"):
        sequence_batches(sequences(A=9), batch_size=1, seed=0, noise="much")
    with pytest.raises(InputError, match="expected 0 to 1"):
        sequence_batches(sequences(A=9), batch_size=1, seed=0, fresh_start_share=1.5)
    with pytest.raises(IndexError, match="items 0 to 3 of 1"):
        sequences(A=9).batch([0, 3])
