"""Warps, sizes, pyramids and blending against OpenCV itself, where it is installed."""

import time

import numpy as np
import pytest

from asccl_jax.image.blending import blend_pyramids, doubled, halved, soft_erosion
from asccl_jax.image.warping import resize_lanczos, resize_nearest, warp_lanczos, warp_linear, warp_nearest

cv2 = pytest.importorskip("cv2")

RNG = np.random.default_rng(0)
BYTES = RNG.integers(0, 256, (70, 90, 3)).astype(np.uint8)
NUMBERS = RNG.random((70, 90, 3)).astype(np.float32)
MATRICES = [
    np.array([[0.98, -0.2, 9.3], [0.2, 0.98, -4.7]]),
    np.array([[-1.6, 0.4, 99.0], [0.1, 1.3, -20.5]]),
    np.array([[0.5, 0, 3], [0, 0.5, 4]]),
    np.array([[4.0, 1, -90], [0, 3.0, -70.25]]),
]


@pytest.mark.parametrize("inverse", [False, True])
@pytest.mark.parametrize("matrix", MATRICES)
def test_warps_are_those_of_opencv(matrix, inverse):
    shape = (65, 101)

    def expected(image, flag):
        return cv2.warpAffine(image, matrix, shape[::-1], flags=flag | (cv2.WARP_INVERSE_MAP if inverse else 0))

    levels = warp_lanczos(BYTES, matrix, shape, inverse=inverse).astype(int) - expected(BYTES, cv2.INTER_LANCZOS4)
    # OpenCV rounds its weights to 15 bits: noise of about 0.003 of a grey level before the result is rounded.
    assert np.abs(levels).max() <= 1
    assert (levels != 0).mean() < 0.01
    numbers = warp_lanczos(NUMBERS, matrix, shape, inverse=inverse)
    np.testing.assert_allclose(numbers, expected(NUMBERS, cv2.INTER_LANCZOS4), atol=2e-6)  # float32 sums of 64 terms
    nearest = warp_nearest(BYTES, matrix, shape, inverse=inverse)
    np.testing.assert_array_equal(nearest, expected(BYTES, cv2.INTER_NEAREST))
    levels = warp_linear(BYTES, matrix, shape, inverse=inverse).astype(int) - expected(BYTES, cv2.INTER_LINEAR)
    assert np.abs(levels).max() <= 1
    np.testing.assert_allclose(
        warp_linear(NUMBERS, matrix, shape, inverse=inverse), expected(NUMBERS, cv2.INTER_LINEAR), atol=2e-6
    )


@pytest.mark.parametrize("shape", [(140, 200), (33, 91), (71, 7)])
def test_sizes_are_changed_as_opencv_changes_them(shape):
    def expected(image, interpolation):
        return cv2.resize(image, shape[::-1], interpolation=interpolation)

    # OpenCV rounds weights of bytes to 11 bits: noise of about 0.1 of a grey level.
    assert np.abs(resize_lanczos(BYTES, shape).astype(int) - expected(BYTES, cv2.INTER_LANCZOS4)).max() <= 1
    # OpenCV computes places in float32.
    np.testing.assert_allclose(resize_lanczos(NUMBERS, shape), expected(NUMBERS, cv2.INTER_LANCZOS4), atol=1e-5)
    np.testing.assert_array_equal(resize_nearest(BYTES, shape), expected(BYTES, cv2.INTER_NEAREST))


@pytest.mark.parametrize("height", range(1, 8))
@pytest.mark.parametrize("width", [1, 2, 5, 8])
def test_levels_of_pyramids_are_those_of_opencv(height, width):
    image = RNG.random((height, width, 3)).astype(np.float32)
    np.testing.assert_allclose(halved(image), cv2.pyrDown(image), atol=5e-7)  # float32, another order of sums
    for shape in ((2 * height, 2 * width), (2 * height - 1, 2 * width - 1)):
        np.testing.assert_allclose(doubled(image, shape), cv2.pyrUp(image, dstsize=shape[::-1]), atol=5e-7)


def test_a_blend_is_that_of_opencvs_pyramids():
    face, mask = NUMBERS[::-1].copy(), np.zeros(NUMBERS.shape[:2], np.float32)
    mask[8:60, 15:80] = 1
    inner = soft_erosion(mask, size=9, threshold=0.8).hard.astype(np.float32)  # int(33 x 70 / 256), odd
    pyramids = []
    for picture in (NUMBERS, face, np.repeat(inner[..., None], 3, axis=2)):
        pyramids.append([picture])
        for _ in range(4):
            pyramids[-1].append(cv2.pyrDown(pyramids[-1][-1]))
    expected = None
    for level in (4, 3, 2, 1, 0):
        under, over, share = (pyramid[level] for pyramid in pyramids)
        size = under.shape[1::-1]
        if level < 4:
            under, over = (p[level] - cv2.pyrUp(p[level + 1], dstsize=size) for p in pyramids[:2])
        mixed = over * share + under * (1 - share)
        expected = mixed if expected is None else cv2.pyrUp(expected, dstsize=size) + mixed
    np.testing.assert_allclose(blend_pyramids(NUMBERS, face, mask), expected, atol=2e-6)  # float32 through five levels


def test_a_face_is_warped_in_milliseconds():
    image = RNG.integers(0, 256, (256, 256, 3)).astype(np.uint8)
    spent = []
    for _ in range(5):
        start = time.process_time()
        warp_lanczos(image, MATRICES[0], (256, 256))
        spent.append(time.process_time() - start)
    # About 10 ms of one core; ten times that would hold a video up.
    assert min(spent) < 0.1
