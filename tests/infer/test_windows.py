import numpy as np
import pytest

from asccl_jax.errors import InputError
from asccl_jax.infer.windows import at_least_a_window, gaussian_weights, overlap_add, sliding_windows


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
