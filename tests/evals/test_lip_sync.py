"""Lip synchrony: distances as torch has them, windows, shifts found, both protocols and their pictures."""

import numpy as np
import pytest
import torch

from asccl_jax.errors import InputError
from asccl_jax.evals.lip_sync import (
    SYNC_25FPS,
    SYNC_30FPS,
    lip_sync,
    lip_sync_of_clip,
    lip_windows,
    sound_columns,
    sound_windows,
    window_count,
)
from asccl_jax.evals.speech_mfcc import syncnet_mfcc

RNG = np.random.default_rng(0)


def embeddings(count, size=16, seed=0):
    return np.random.default_rng(seed).normal(size=(count, size)).astype(np.float32)


def torch_scores(lip, sound, most):
    """Distances at every shift by torch's own pairwise distance, whose epsilon is 1e-6, and median."""
    lip, sound = torch.from_numpy(lip), torch.from_numpy(sound)
    padded = torch.nn.functional.pad(sound, (0, 0, most, most))
    each = [torch.nn.functional.pairwise_distance(lip[[i]], padded[i : i + 2 * most + 1]) for i in range(len(lip))]
    mean = torch.stack(each, 1).mean(1)
    least, place = torch.min(mean, 0)
    return float(least), float(torch.median(mean) - least), most - int(place)


@pytest.mark.parametrize(("count", "most"), [(40, 10), (40, 15), (3, 10), (1, 2)])
def test_scores_are_those_of_torch(count, most):
    lip, sound = embeddings(count), embeddings(count, seed=1)
    scores = lip_sync(lip, sound, most=most)
    lse_d, lse_c, offset = torch_scores(lip, sound, most)
    # torch works in float32.
    assert scores.lse_d == pytest.approx(lse_d, rel=1e-6)
    assert scores.lse_c == pytest.approx(lse_c, abs=1e-5)
    assert (scores.offset, scores.windows) == (offset, count)


def test_the_epsilon_is_added_to_each_component():
    lip = np.zeros((1, 4))
    assert lip_sync(lip, lip, most=0).lse_d == pytest.approx(np.sqrt(4) * 1e-6)


@pytest.mark.parametrize("offset", [-7, -1, 0, 4, 10])
def test_a_picture_that_is_late_has_a_positive_offset(offset):
    course = embeddings(60, 64)
    lip = course[12 - offset : 42 - offset] + 0.3 * embeddings(30, 64, seed=5)
    sound = course[12:42] + 0.3 * embeddings(30, 64, seed=6)
    scores = lip_sync(lip, sound)
    assert scores.offset == offset
    assert scores.lse_c > 1


def test_windows_are_five_frames_and_the_twenty_columns_beside_them():
    images = RNG.integers(0, 256, (12, 4, 4, 3), np.uint8)
    columns = RNG.normal(size=(43, 13))
    count = window_count(12, 43)
    assert count == 10 - 5  # ten whole frames of sound
    seen, heard = lip_windows(images, count), sound_windows(columns, count)
    assert seen.shape == (5, 5, 4, 4, 3) and heard.shape == (5, 20, 13)
    for i in range(count):
        np.testing.assert_array_equal(seen[i], images[i : i + 5])
        np.testing.assert_array_equal(heard[i], columns[4 * i : 4 * i + 20])
    assert window_count(12, 400) == 7


def test_a_clip_too_short_for_one_window_is_refused():
    for frames, columns in ((5, 100), (100, 23), (0, 0)):
        with pytest.raises(InputError, match="needs 6 frames and 24 columns"):
            window_count(frames, columns)


def test_networks_get_every_window_once_in_order():
    images = RNG.integers(0, 256, (80, 2, 2, 3), np.uint8)
    columns = RNG.normal(size=(330, 13))
    sizes = []

    def lip(windows):
        sizes.append(len(windows))
        assert windows.shape[1:] == (5, 2, 2, 3) and windows.flags.c_contiguous
        return windows.reshape(len(windows), -1).astype(np.float32)[:, :13]

    def sound(windows):
        return windows.mean(axis=1).astype(np.float32)

    scores = lip_sync_of_clip(images, columns, lip, sound)
    assert scores.windows == sum(sizes) == 75 and max(sizes) <= 32
    expected = lip(np.stack([images[i : i + 5] for i in range(75)]))
    assert scores == lip_sync(expected, sound(sound_windows(columns, 75)))


def test_protocols_differ_in_step_amplitude_and_what_a_skipped_frame_is():
    samples = RNG.normal(0, 0.1, 16000)
    np.testing.assert_array_equal(sound_columns(samples, SYNC_25FPS), syncnet_mfcc(samples, 160, amplitude=32768.0))
    np.testing.assert_array_equal(sound_columns(samples, SYNC_30FPS), syncnet_mfcc(samples, 133))
    skipped = sound_columns(samples, SYNC_30FPS, skip=2)
    np.testing.assert_array_equal(skipped, syncnet_mfcc(samples[2 * 533 :], 133))
    np.testing.assert_array_equal(
        sound_columns(samples, SYNC_25FPS, skip=1), syncnet_mfcc(samples[640:], 160, amplitude=32768.0)
    )


def test_embeddings_that_are_not_finite_are_refused():
    bad = embeddings(4)
    bad[2, 3] = np.nan
    with pytest.raises(InputError, match="finite"):
        lip_sync(bad, embeddings(4))
