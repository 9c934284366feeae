import dataclasses

import numpy as np

from data_prep.reconstruct.smoothing import crop_cameras, fill_gaps, gaussian_over_time, smooth_codes, source_cameras
from tests.data_prep.reconstruct.tiny_clips import codes_of

RNG = np.random.default_rng(0)


def moving_crops(frames: int) -> np.ndarray:
    tform = np.tile(np.eye(3), (frames, 1, 1))
    tform[:, 0, 0] = tform[:, 1, 1] = 1 + 0.2 * RNG.random(frames)
    tform[:, :2, 2] = 10 * RNG.standard_normal((frames, 2))
    return tform


def test_cameras_come_back_from_the_source():
    cam, tform = np.array([[8.0, 0.1, -0.2]] * 5), moving_crops(5)
    np.testing.assert_allclose(crop_cameras(source_cameras(cam, tform), tform), cam, atol=1e-12)


def test_a_vertex_lies_where_the_crop_draws_it():
    (scale, x, y), point = source_cameras(np.array([[8.0, 0.01, -0.02]]), np.eye(3)[None])[0], np.array([0.03, 0.05])
    image_space = np.array([8 * (point[0] + 0.01), -8 * (point[1] - 0.02)])
    drawn = (image_space + 1) * 112 - 0.5
    np.testing.assert_allclose([x + scale * point[0], y - scale * point[1]], drawn, atol=1e-12)


def test_a_still_head_stays_still_though_its_crops_move():
    tform = moving_crops(9)
    still = np.tile(np.array([[700.0, 110.0, 90.0]]), (9, 1))
    codes = dataclasses.replace(codes_of(9, open_mouth=False), tform=tform, cam=crop_cameras(still, tform))
    smoothed = smooth_codes(codes, 2.0, trusted=np.ones(9, bool))
    # The code dict holds float32: 110 pixels to about 1e-5.
    np.testing.assert_allclose(source_cameras(smoothed.cam, tform), still, rtol=1e-5)


def test_no_smoothing_changes_nothing():
    codes = codes_of(4, open_mouth=True)
    assert smooth_codes(codes, 0.0, trusted=np.ones(4, bool)) is codes


def test_noise_shrinks_and_a_line_stays():
    index = np.arange(200)
    noise = RNG.standard_normal((200, 1))
    assert gaussian_over_time(noise, index, 3.0, np.ones(200)).std() < 0.5 * noise.std()
    line = np.linspace(0, 1, 200)[:, None]
    middle = slice(20, -20)
    np.testing.assert_allclose(gaussian_over_time(line, index, 3.0, np.ones(200))[middle], line[middle], atol=1e-12)


def test_a_frame_without_weight_takes_from_its_neighbours_and_gives_nothing():
    values, weight = np.ones((7, 1)), np.ones(7)
    values[3], weight[3] = 100, 0
    np.testing.assert_allclose(gaussian_over_time(values, np.arange(7), 1.0, weight), 1.0)


def test_gaps_are_filled_along_the_line_between_neighbours():
    values = np.array([[5.0], [1.0], [np.nan], [4.0], [np.nan]])
    found = np.array([False, True, False, True, False])
    filled = fill_gaps(values, np.array([0, 1, 2, 4, 5]), found)
    np.testing.assert_allclose(filled[:, 0], [1, 1, 2, 4, 4])
