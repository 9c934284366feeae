"""Scores of rendered clips: of perfect ones, of ones spoilt in a known way, and only where it counts."""

import math

import numpy as np
import pytest

from asccl_jax.evals.renderer_scores import DrivenScorer, OwnScorer, difference, summary

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
