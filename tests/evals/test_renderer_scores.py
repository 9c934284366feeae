"""Scores of rendered clips: of perfect ones, of ones spoilt in a known way, and only where it counts."""

import math

import numpy as np
import pytest

from asccl_jax.data.manifest import find_twins
from asccl_jax.errors import InputError
from asccl_jax.evals.renderer_scores import (
    DrivenScorer,
    OwnScorer,
    RenderRecords,
    difference,
    mean_difference,
    psnr,
    region_around,
    scaled_points,
    ssim,
    ssim_map,
    summary,
    warped,
)
from tests.data.painted_clips import landmarks
from tests.evals.talking_records import LOWER, write_talking_records

NAMES = {"clip": "A/neutral/2", "speaker": "A", "emotion": "neutral"}
SIZE, FRAMES = 32, 6


def clip():
    random = np.random.default_rng(0)
    truth = random.integers(20, 200, (FRAMES, SIZE, SIZE, 3), np.uint8)
    masks = np.zeros((FRAMES, SIZE, SIZE), bool)
    masks[:, 4:28, 6:26] = True
    return truth, masks, np.tile([16.0, 20.0], (FRAMES, 1))


def own(output, truth, masks, mouths, **names):
    scorer = OwnScorer()
    for frame in zip(output, truth, masks, mouths, strict=True):
        scorer.add(*frame)
    return scorer.score(**(NAMES | names))


def test_a_perfect_clip_is_at_the_top_whatever_lies_behind_the_face():
    truth, masks, mouths = clip()
    score = own(np.where(masks[..., None], truth, np.uint8(0)), truth, masks, mouths)
    assert score.psnr == math.inf and score.ssim == pytest.approx(1)
    assert (score.mouth, score.flicker, score.background) == (0, 0, 0)


def test_a_bad_first_frame_is_told_from_the_later_ones():
    truth, masks, mouths = clip()
    output = truth + np.uint8(2)
    output[0] = truth[0] + np.uint8(20)
    score = own(output, truth, masks, mouths)
    assert score.first_psnr == pytest.approx(20 * math.log10(255 / 20))
    assert score.later_psnr == pytest.approx(20 * math.log10(255 / 2))
    assert score.mouth == pytest.approx((20 + 5 * 2) / 6)
    # One of five changes from frame to frame is wrong, by 18.
    assert score.flicker == pytest.approx(18 / 5)
    assert score.background > 0


def test_an_error_at_the_forehead_is_none_of_the_mouths():
    truth, masks, mouths = clip()
    output = truth.copy()
    output[:, 5:10, 8:24] += np.uint8(30)
    score = own(output, truth, masks, mouths)
    assert score.mouth == 0 and score.psnr < 40


def test_landmark_distances_are_told_in_pixels_of_the_aligned_picture():
    truth, masks, _ = clip()
    exact = np.random.default_rng(1).uniform(12, 20, (FRAMES, 20, 2))
    found = exact + np.array([0.3, 0.4])
    scorer = DrivenScorer()
    for frame in zip(truth, truth, masks, exact, found + np.array([1.0, 0.0]), found, strict=True):
        scorer.add(*frame)
    score = scorer.score(source="A/neutral/2", **NAMES)
    assert score.landmarks == pytest.approx(256 / SIZE * 1.0)
    assert score.exact_landmarks == pytest.approx(256 / SIZE * math.hypot(1.3, 0.4))


def test_differences_are_taken_clip_by_clip():
    truth, masks, mouths = clip()
    added = (2, 10, 3, 9, 4, 8)
    scores, better = (
        [own(truth + np.uint8(add - less), truth, masks, mouths, clip=f"A/neutral/{add}") for add in added]
        for less in (0, 1)
    )
    assert summary(scores, "mouth").value == pytest.approx(6)
    lead = difference(scores, better, "mouth")
    assert (lead.unit, lead.units, lead.within) == ("clip", 6, "1 speaker")
    # The same lead on every clip leaves nothing to chance, though the clips themselves differ.
    assert (lead.low, lead.high) == pytest.approx((1, 1))


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


@pytest.fixture(scope="module")
def records(tmp_path_factory):
    return RenderRecords(write_talking_records(tmp_path_factory.mktemp("talking") / "records"))


def dark_middle(true):
    rows, columns = np.nonzero((true.image[..., 0] < 130) & true.face)
    return np.array([columns.mean(), rows.mean()])


@pytest.mark.parametrize("size", [256, 64])
def test_the_twins_mouth_lies_where_the_source_would_have_it(records, size):
    (twin,) = find_twins(records.manifest)
    assert (twin.source, twin.target, str(twin.folder)) == ("A/neutral/2", "A/happy/2", "A/happy/2")
    true = records.true_frame(twin, 2, size)
    expected = landmarks()[48:68] + np.array([0, LOWER + 2])
    np.testing.assert_allclose(true.mouth, scaled_points(expected, 256, size), atol=1e-4)
    # The picture itself, not only its landmarks, has lost the four pixels of its own alignment.
    np.testing.assert_allclose(dark_middle(true), true.mouth.mean(axis=0), atol=0.3)
    assert true.face.shape == (size, size) and true.face[size // 2, size // 2] and not true.face[0, 0]


def test_a_picture_moves_as_points_do():
    random = np.random.default_rng(0)
    image = random.integers(0, 256, (20, 24, 3), np.uint8)
    shifted = warped(image, np.array([[1.0, 0, 3], [0, 1, -2]]))
    np.testing.assert_array_equal(shifted[:18, 3:], image[2:, :21])
    assert not shifted[18:].any() and not shifted[:, :3].any()
    bump = np.zeros((41, 41, 3), np.uint8)
    rows, columns = np.indices((41, 41))
    bump[:] = (255 * np.exp(-((columns - 15) ** 2 + (rows - 22) ** 2) / 18.0))[..., None]
    matrix = np.array([[0.9, -0.2, 8], [0.2, 0.9, -1]])
    found = warped(bump, matrix)[..., 0].astype(float)
    middle = np.array([(columns * found).sum(), (rows * found).sum()]) / found.sum()
    np.testing.assert_allclose(middle, matrix @ [15, 22, 1], atol=0.05)
