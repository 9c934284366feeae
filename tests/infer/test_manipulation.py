import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import optimize

from asccl_jax.errors import InputError
from asccl_jax.infer import manipulation
from asccl_jax.infer.manipulation import (
    at_least_a_window,
    draw_latent,
    gaussian_weights,
    geometric_median,
    label_styles,
    manipulate_coefficients,
    overlap_add,
    reference_style,
    sliding_windows,
    window_styles,
    with_intensity,
)
from asccl_jax.models.manipulator import Manipulator
from tests.models.tiny_manipulator import TINY_MANIPULATOR, drawn_manipulator


@pytest.mark.parametrize("count", [1, 2, 3, 8, 40])
def test_no_other_point_has_a_smaller_sum_of_distances(count):
    points = np.random.default_rng(count).normal(size=(count, 3))

    def total(point):
        return np.linalg.norm(points - point, axis=1).sum()

    best = optimize.minimize(total, points.mean(axis=0), method="Nelder-Mead", options={"xatol": 1e-9, "fatol": 1e-12})
    # The last step is below 1e-5, and each point's distance changes by no more than that.
    assert total(geometric_median(points)) <= best.fun + 1e-5


def test_a_point_that_outweighs_the_others_is_the_median_itself():
    points = np.array([[0.0, 0.0]] * 5 + [[1.0, 0.0], [0.0, 1.0], [-3.0, 2.0]])
    np.testing.assert_allclose(geometric_median(points), [0, 0], atol=1e-4)


def test_a_start_on_data_points_does_not_stop_there():
    # The mean is itself a data point, which the plain iteration could never leave; the median lies elsewhere.
    points = np.array([[0.0, 0.0], [1.0, 0.0], [1.0, 0.0], [1.0, 0.0], [-3.0, 0.0]])
    assert (points.mean(axis=0) == points[0]).all()
    np.testing.assert_allclose(geometric_median(points), [1, 0], atol=1e-3)


def test_equal_points_are_their_own_median_and_the_type_is_kept():
    points = np.full((4, 3), 0.1, np.float32)
    assert geometric_median(points).dtype == np.float32
    np.testing.assert_array_equal(geometric_median(points), points[0])


WINDOW = TINY_MANIPULATOR.window


@pytest.fixture(scope="module")
def manipulator():
    return Manipulator(drawn_manipulator(TINY_MANIPULATOR), TINY_MANIPULATOR)


def clip(frames, seed=0):
    return np.random.default_rng(seed).normal(size=(frames, TINY_MANIPULATOR.coefficients)).astype(np.float32)


def styles(count, seed=1):
    return np.random.default_rng(seed).normal(size=(count, TINY_MANIPULATOR.style_size)).astype(np.float32)


def one_by_one(manipulator, source, own):
    """Every window by itself, as upstream's loop has it."""
    rows = range(len(source) - WINDOW + 1)
    return np.concatenate([generated(manipulator, source[i : i + WINDOW], own[i])[None] for i in rows])


def generated(manipulator, window, style):
    return np.asarray(manipulator.generate(jnp.asarray(window)[None], jnp.asarray(style)[None]))[0]


@pytest.mark.parametrize("frames", [4, 5, 12, 13])
def test_batches_equal_the_loop_over_windows(manipulator, frames, monkeypatch):
    monkeypatch.setattr(manipulation, "_LARGEST_BATCH", 8)
    source, wanted = clip(frames), styles(1)
    expected = overlap_add(one_by_one(manipulator, source, np.repeat(wanted, frames, axis=0)))
    np.testing.assert_allclose(manipulate_coefficients(manipulator, source, wanted), expected, rtol=0, atol=2e-6)


@pytest.mark.parametrize("transition", ["steps", "linear"])
def test_every_window_gets_its_own_style(manipulator, transition):
    source, wanted = clip(23), styles(3)
    own = window_styles(wanted, slice(0, 23), 23, window=WINDOW, transition=transition)
    expected = overlap_add(one_by_one(manipulator, source, own))
    found = manipulate_coefficients(manipulator, source, wanted, transition=transition)
    np.testing.assert_allclose(found, expected, rtol=0, atol=2e-6)
    # All three act: one alone gives something else.
    for number in range(3):
        alone = manipulate_coefficients(manipulator, source, wanted[number : number + 1])
        assert np.abs(found - alone).max() > 1e-3


def test_steps_are_equal_parts_of_the_clip():
    wanted = styles(3)
    own = window_styles(wanted, slice(0, 33), 33, window=WINDOW, transition="steps")
    counts = [int((own == style).all(axis=1).sum()) for style in wanted]
    # Thirty middles lie 2 to 31 frames from the start; one on a border belongs to the later part.
    assert counts == [9, 11, 10]


def test_linear_passes_from_the_first_style_to_the_last():
    wanted = styles(4)
    own = window_styles(wanted, slice(0, 33), 33, window=WINDOW, transition="linear")
    np.testing.assert_array_equal(own[[0, -1]], wanted[[0, -1]])
    moves = np.linalg.norm(np.diff(own, axis=0), axis=1)
    assert moves.max() < np.linalg.norm(np.diff(wanted, axis=0), axis=1).max() / 9


def test_released_choice_of_styles_is_that_of_the_published_programme(manipulator):
    frames, source, wanted = 14, clip(14), styles(3)
    own = wanted[[int(first // (frames / 3)) for first in range(frames - WINDOW + 1)]]
    tail = generated(manipulator, source[-WINDOW:], wanted[-1])
    expected = overlap_add(one_by_one(manipulator, source, own), tail=tail)
    found = manipulate_coefficients(manipulator, source, wanted, compat="released")
    np.testing.assert_allclose(found, expected, rtol=0, atol=2e-6)
    assert np.abs(found - manipulate_coefficients(manipulator, source, wanted)).max() > 1e-3


@pytest.mark.parametrize("compat", ["paper", "released"])
@pytest.mark.parametrize("frames", [1, 2, 3, 4])
def test_clips_as_short_as_one_frame_come_out_whole(manipulator, frames, compat):
    source = clip(frames)
    filled = np.concatenate([source, np.repeat(source[-1:], WINDOW - frames, axis=0)])
    for count in (1, 2):
        found = manipulate_coefficients(manipulator, source, styles(count), compat=compat)
        assert found.shape == source.shape and np.isfinite(found).all()
    expected = generated(manipulator, filled, styles(1)[0])[:frames]
    found = manipulate_coefficients(manipulator, source, styles(1), compat=compat)
    np.testing.assert_allclose(found, expected, rtol=0, atol=2e-6)


def test_windows_do_not_reach_over_missing_frames(manipulator):
    source, index = clip(16), np.array([*range(9), *range(20, 26), 40])
    found = manipulate_coefficients(manipulator, source, styles(1), frame_index=index)
    for part in (slice(0, 9), slice(9, 15), slice(15, 16)):
        alone = manipulate_coefficients(manipulator, source[part], styles(1))
        np.testing.assert_allclose(found[part], alone, rtol=0, atol=2e-6)
    assert np.abs(found - manipulate_coefficients(manipulator, source, styles(1))).max() > 1e-3


def test_labels_share_their_noise(manipulator):
    z = draw_latent(manipulator, jax.random.key(3))
    together = label_styles(manipulator, [4, 1, 4], z)
    np.testing.assert_array_equal(together[0], together[2])
    expected = [manipulator.style_of_label(jnp.asarray(z)[None], jnp.asarray([label]))[0] for label in (4, 1, 4)]
    np.testing.assert_allclose(together, expected, rtol=0, atol=1e-6)


def test_a_reference_gives_the_median_style_of_its_windows(manipulator):
    reference = clip(20, seed=5)
    windows = np.stack([reference[first : first + WINDOW] for first in range(17)])
    expected = manipulation.geometric_median(np.asarray(manipulator.style_of(jnp.asarray(windows))))
    np.testing.assert_allclose(reference_style(manipulator, reference), expected, rtol=0, atol=2e-5)
    # Outliers of a gap, and stretches shorter than a window, are not looked at.
    index = np.array([*range(17), 30, 31, 32])
    found = reference_style(manipulator, reference, frame_index=index)
    np.testing.assert_allclose(found, reference_style(manipulator, reference[:17]), rtol=0, atol=2e-6)
    assert np.isfinite(reference_style(manipulator, reference[:1])).all()


def test_intensity_goes_from_the_base_over_the_style_and_beyond():
    wanted, base = styles(2), styles(1, seed=9)[0]
    np.testing.assert_array_equal(with_intensity(wanted, base, 0.0), [base, base])
    np.testing.assert_array_equal(with_intensity(wanted, base, 1.0), wanted)
    np.testing.assert_allclose(with_intensity(wanted, base, 1.5), wanted + 0.5 * (wanted - base), atol=1e-6)
    for bad in (-0.1, 1.6, float("nan")):
        with pytest.raises(InputError, match="intensity"):
            with_intensity(wanted, base, bad)


def test_bad_input_is_named(manipulator):
    broken = clip(8)
    broken[[3, 6]] = np.nan
    for source, own, message in (
        (clip(8)[:, :3], styles(1), r"shape \(8, 3\): expected one frame or more of 5 numbers"),
        (clip(0), styles(1), r"shape \(0, 5\)"),
        (broken, styles(1), "not finite in row 3 and 1 more"),
        (clip(8), styles(1)[:, :2], r"styles of shape \(1, 2\)"),
        (clip(8), styles(0), r"styles of shape \(0, 3\)"),
    ):
        with pytest.raises(InputError, match=message):
            manipulate_coefficients(manipulator, source, own)
    with pytest.raises(InputError, match="steps only"):
        manipulate_coefficients(manipulator, clip(8), styles(2), compat="released", transition="linear")
    with pytest.raises(InputError, match="reference coefficients of shape"):
        reference_style(manipulator, clip(8)[:, :3])


def test_weights_are_opencvs_kernel():
    # `cv2.getGaussianKernel(10, -1)` of OpenCV 5, as the published programme got it.
    half = [0.01109023, 0.0356875, 0.08574286, 0.15381044, 0.21366898]
    np.testing.assert_allclose(gaussian_weights(10), half + half[::-1], rtol=0, atol=1e-8)
    assert all(abs(gaussian_weights(window).sum() - 1) < 1e-6 for window in range(1, 30))


@pytest.mark.parametrize("window", range(1, 30))
def test_weights_are_the_kernel_that_opencv_gives_of_any_window(window):
    cv2 = pytest.importorskip("cv2")
    expected = cv2.getGaussianKernel(window, 0, cv2.CV_64F)[:, 0]
    np.testing.assert_allclose(gaussian_weights(window), expected, rtol=0, atol=1e-7)


@pytest.mark.parametrize(("frames", "window"), [(4, 4), (5, 4), (7, 4), (30, 4), (3, 1), (9, 5)])
def test_sum_of_windows_is_that_of_a_loop_over_them(frames, window):
    random = np.random.default_rng(0)
    windows = random.normal(size=(frames - window + 1, window, 2)).astype(np.float32)
    tail = random.normal(size=(window, 2)).astype(np.float32)
    for last in (None, tail):
        expected = np.zeros((frames, 2), np.float32)
        for first, content in enumerate(windows):
            expected[first : first + window] += content * gaussian_weights(window)[:, None]
        if window > 1:
            expected[: window - 1] = windows[0][: window - 1]
            expected[frames - window + 1 :] = (windows[-1] if last is None else last)[1:]
        # The same sums in the same order: not a bit differs.
        np.testing.assert_array_equal(overlap_add(windows, tail=last), expected)


def test_windows_that_agree_give_back_the_clip():
    clip = np.random.default_rng(1).normal(size=(25, 3))
    # Weights are float32 numbers whose sum is 1 to their rounding.
    np.testing.assert_allclose(overlap_add(sliding_windows(clip, 6)), clip, rtol=0, atol=1e-6)


def test_a_short_clip_is_filled_with_its_last_frame():
    clip = np.array([[1.0], [2.0]])
    assert at_least_a_window(clip, 4).ravel().tolist() == [1, 2, 2, 2]
    assert at_least_a_window(clip, 2) is not None and len(at_least_a_window(clip, 2)) == 2
    with pytest.raises(InputError, match="0 frames"):
        at_least_a_window(clip[:0], 4)
