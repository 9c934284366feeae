"""Rendering a clip: as many frames out as in, the same whatever the chunk, a stream that is never held whole."""

import itertools
import threading

import numpy as np
import pytest

from asccl_jax.data.frames import to_image
from asccl_jax.errors import InputError
from asccl_jax.infer.prefetch import prefetched
from asccl_jax.infer.rendering import _render_chunk, generate_frames, render_frames
from tests.infer.toy_renderer import Frame, toy_frames, toy_renderer


def one_by_one(renderer, frames):
    """Frame by frame, in plain NumPy, as the issue words it: the first frame's conditioning stands in for older."""
    shown = [np.concatenate([f.nmfc_image, f.eyes_image, f.shape_image], -1).astype(np.float32) / 255 for f in frames]
    previous = np.zeros((16, 16, 6), np.float32)
    for t, frame in enumerate(frames):
        window = np.concatenate([shown[max(0, t - back)] for back in (2, 1, 0)], -1)
        encoded = renderer.encode(window[None])
        image = np.asarray(renderer.decode(encoded, previous[None], frame.mask[None].astype(np.float32) / 255))[0]
        previous = np.concatenate([previous[..., 3:], image], -1)
        yield image


@pytest.mark.parametrize("count", [1, 2, 4, 11])
@pytest.mark.parametrize("chunk", [1, 4, 16])
def test_any_number_of_frames_equals_frame_by_frame(count, chunk):
    renderer, frames = toy_renderer(), toy_frames(count)
    found = list(generate_frames(renderer, frames, chunk=chunk))
    expected = list(one_by_one(renderer, frames))
    assert len(found) == count
    np.testing.assert_allclose(np.stack(found), np.stack(expected), rtol=0, atol=1e-6)


def test_a_frame_answers_its_own_conditioning_and_no_later_one():
    renderer, frames = toy_renderer(), toy_frames(9)
    changed = list(frames)
    changed[5] = toy_frames(10)[5]._replace(mask=frames[5].mask)
    found, other = (np.stack(list(generate_frames(renderer, some, chunk=4))) for some in (frames, changed))
    differs = (found != other).reshape(9, -1).any(axis=1)
    assert differs.tolist() == [False] * 5 + [True] * 4


def test_every_call_starts_afresh():
    renderer, frames = toy_renderer(), toy_frames(6)
    alone = list(render_frames(renderer, frames[3:], chunk=4))
    list(render_frames(renderer, frames[:3], chunk=4))
    np.testing.assert_array_equal(alone, list(render_frames(renderer, frames[3:], chunk=4)))


def test_outside_the_mask_is_black_and_pictures_are_rounded():
    renderer, frames = toy_renderer(), toy_frames(5)
    for frame, image, exact in zip(
        frames, render_frames(renderer, frames), generate_frames(renderer, frames), strict=True
    ):
        assert not image[frame.mask[..., 0] == 0].any()
        np.testing.assert_allclose(image, (exact + 1) * 127.5, rtol=0, atol=0.5 + 1e-4)
    assert to_image(np.array([[[-3.0, 0.999, 3.0]]])).tolist() == [[[0, 255, 255]]]


def test_a_stream_is_read_only_so_far_ahead_and_let_go_of():
    read = []

    def endless():
        for number in itertools.count():
            read.append(number)
            yield toy_frames(1)[0]

    stream = render_frames(toy_renderer(), endless(), chunk=4)
    next(stream)
    assert len(read) <= 6 * 4  # two chunks computed, one at hand, two that wait and one that is being made
    stream_threads = [thread for thread in threading.enumerate() if thread.name == "prefetch"]
    assert stream_threads
    del stream
    for thread in stream_threads:
        thread.join(timeout=60)
        assert not thread.is_alive()


def test_one_compilation_serves_every_length():
    renderer = toy_renderer()
    list(render_frames(renderer, toy_frames(3), chunk=8))

    before = _render_chunk._cache_size()
    for count in (1, 8, 21):
        list(render_frames(renderer, toy_frames(count), chunk=8))
    assert _render_chunk._cache_size() == before


def test_what_the_source_raises_is_raised_after_the_frames_before_it():
    def broken():
        yield from toy_frames(4)
        raise InputError("frame 4 is damaged")

    stream = render_frames(toy_renderer(), broken(), chunk=2)
    with pytest.raises(InputError, match="frame 4"):
        list(stream)


def test_sizes_that_do_not_fit_are_refused():
    small = toy_frames(1)[0]
    with pytest.raises(InputError, match="multiples of 8"):
        list(render_frames(toy_renderer(), toy_frames(1, size=12)))
    with pytest.raises(InputError, match="one size"):
        list(render_frames(toy_renderer(), [small, *toy_frames(1, size=24)]))
    with pytest.raises(InputError, match="one size"):
        list(render_frames(toy_renderer(), [Frame(*small[:3], np.zeros((8, 8, 1), np.uint8))]))
    with pytest.raises(InputError, match="chunk 0"):
        list(render_frames(toy_renderer(), [small], chunk=0))


def test_prefetching_ends_where_the_items_end():
    assert list(prefetched(iter(()))) == []
    assert list(prefetched(range(100), depth=1)) == list(range(100))
