"""PSNR, SSIM and mean differences against their definitions, computed here window by window."""

import math

import numpy as np
import pytest

from asccl_jax.errors import InputError
from asccl_jax.evals.image_scores import mean_difference, psnr, region_around, ssim, ssim_map


def pictures(seed: int = 0, shape=(17, 14)):
    random = np.random.default_rng(seed)
    truth = random.integers(0, 256, (*shape, 3), np.uint8)
    noise = random.normal(0, 20, truth.shape)
    return np.clip(truth + noise, 0, 255).astype(np.uint8), truth


def ssim_of_window(first, second):
    """Wang et al. (2004), equations 13 to 16, with L = 255."""
    x = np.arange(11) - 5.0
    weight = np.exp(-(x[:, None] ** 2 + x[None] ** 2) / (2 * 1.5**2))
    weight /= weight.sum()
    a, b = (weight * first).sum(), (weight * second).sum()
    va, vb = (weight * (first - a) ** 2).sum(), (weight * (second - b) ** 2).sum()
    cov = (weight * (first - a) * (second - b)).sum()
    c1, c2 = 2.55**2, 7.65**2
    return (2 * a * b + c1) * (2 * cov + c2) / ((a * a + b * b + c1) * (va + vb + c2))


def test_ssim_is_that_of_the_definition_window_by_window():
    image, truth = pictures()
    expected = np.array(
        [
            [
                [
                    ssim_of_window(*(p[y : y + 11, x : x + 11, c].astype(float) for p in (image, truth)))
                    for c in range(3)
                ]
                for x in range(4)
            ]
            for y in range(7)
        ]
    )
    # Variances as mean of squares minus squared mean: 1e-16 of 255 squared.
    np.testing.assert_allclose(ssim_map(image, truth), expected, rtol=0, atol=1e-9)
    assert ssim(image, truth) == pytest.approx(expected.mean())
    region = np.zeros(image.shape[:2], bool)
    region[6, 8] = region[9, 5] = True
    assert ssim(image, truth, region) == pytest.approx((expected[1, 3] + expected[4, 0]).mean() / 2)


def test_equal_pictures_are_at_the_top_of_every_scale():
    _, truth = pictures()
    assert psnr(truth, truth) == math.inf and mean_difference(truth, truth) == 0
    assert ssim(truth, truth) == pytest.approx(1)


def test_a_constant_offset_has_the_psnr_of_its_size():
    truth = np.full((12, 12, 3), 100, np.uint8)
    assert psnr(truth + np.uint8(10), truth) == pytest.approx(20 * math.log10(25.5))
    assert mean_difference(truth - np.uint8(10), truth) == pytest.approx(10)


def test_only_the_region_counts():
    image, truth = pictures()
    region = region_around(np.array([6.0, 7.0]), 6.0, truth.shape[:2])
    spoilt = np.where(region[..., None], image, 255 - image).astype(np.uint8)
    assert psnr(spoilt, truth, region) == psnr(image, truth, region) != psnr(image, truth)
    assert mean_difference(spoilt, truth, region) == mean_difference(image, truth, region)


def test_a_region_is_a_square_cut_to_picture_and_mask():
    assert region_around(np.array([5.0, 5.0]), 4.0, (11, 11)).sum() == 25
    assert region_around(np.array([0.0, 0.0]), 4.0, (11, 11)).sum() == 9
    half = np.arange(11)[None] * np.ones((11, 1)) < 5
    assert region_around(np.array([5.0, 5.0]), 4.0, (11, 11), half).sum() == 10


def test_nothing_to_compare_is_refused():
    image, truth = pictures()
    nowhere = np.zeros(truth.shape[:2], bool)
    for score in (psnr, ssim, mean_difference):
        with pytest.raises(InputError, match="no pixels"):
            score(image, truth, nowhere)
    with pytest.raises(InputError, match="11 or more"):
        ssim(image[:8], truth[:8])
