import dataclasses

import jax
import numpy as np
import pytest

from asccl_jax.data.schema import EMOTIONS
from asccl_jax.errors import InputError
from asccl_jax.evals.manipulator_scores import (
    REQUESTED,
    by_label,
    by_reference,
    confusion,
    copy_source,
    difference,
    score_clips,
    summary,
)
from asccl_jax.head.face_points import mouth_points
from asccl_jax.infer.manipulation import draw_latent, label_styles, manipulate_coefficients, reference_style
from asccl_jax.models.manipulator import Manipulator
from tests.evals.tiny_deliveries import make_delivery, shift_of
from tests.head.heads import golden_head
from tests.models.tiny_manipulator import TINY_MANIPULATOR, drawn_manipulator

SETTINGS = dataclasses.replace(TINY_MANIPULATOR, coefficients=51)


@pytest.fixture(scope="module")
def deliveries():
    return [make_delivery(clip, seed=seed) for seed, clip in enumerate(("a/neutral/1", "a/neutral/22", "b/neutral/1"))]


@pytest.fixture(scope="module")
def mouth():
    return mouth_points(golden_head())


def truth(delivery):
    return {emotion: delivery.truth[emotion] for emotion in REQUESTED}


def test_the_truth_itself_has_a_perfect_score(deliveries, mouth):
    scores = score_clips(deliveries, truth, mouth=mouth)
    assert len(scores) == 3 * len(REQUESTED)
    for name, expected in (("hits", 1), ("hits_standardised", 1), ("mouth_error_mm", 0), ("jitter", 1)):
        figure = summary(scores, name)
        assert (figure.value, figure.count) == (expected, 3)
    assert summary(scores, "jaw_correlation").value == pytest.approx(1)
    np.testing.assert_array_equal(confusion(scores), np.eye(7)[1:])


def test_a_copy_of_the_source_reaches_no_emotion_and_keeps_the_jaw(deliveries, mouth):
    scores = score_clips(deliveries, copy_source, mouth=mouth)
    assert summary(scores, "hits").value == 0
    assert summary(scores, "jaw_correlation").value == pytest.approx(1)
    np.testing.assert_array_equal(confusion(scores)[:, 0], np.ones(6))
    # The truth is a shift of the expression: its mean square is 2 in 50, and lips keep their motion but for the jaw's
    # turning of the shift.
    assert summary(scores, "expression_error").value == pytest.approx(np.sqrt(2 / 50), rel=1e-5)
    assert summary(scores, "mouth_motion_error_mm").value < 0.1 * summary(scores, "mouth_error_mm").value


def test_another_emotion_is_counted_as_that_one(deliveries):
    scores = score_clips(deliveries, lambda delivery: dict.fromkeys(REQUESTED, delivery.truth["sad"]))
    assert summary([score for score in scores if score.emotion == "sad"], "hits").value == 1
    assert summary(scores, "hits").value == pytest.approx(1 / 6)
    assert (confusion(scores)[:, EMOTIONS.index("sad")] == 1).all()
    assert summary(scores, "mouth_error_mm") is None


def test_the_nearest_emotion_is_decided_frame_by_frame_on_expressions_alone(deliveries):
    def edit(delivery):
        # Three quarters of the way to the emotion in every third frame, a quarter elsewhere; a jaw that is far off.
        share = np.where(np.arange(len(delivery.source)) % 3 == 0, 0.75, 0.25)[:, None].astype(np.float32)
        edited = {name: delivery.source + share * (delivery.truth[name] - delivery.source) for name in REQUESTED}
        for values in edited.values():
            values[:, 0] += 50
        return edited

    scores = score_clips(deliveries, edit)
    assert summary(scores, "hits").value == pytest.approx(1 / 3)
    assert summary(scores, "jaw_correlation").value == pytest.approx(1, abs=1e-4)


def test_standardised_distances_do_not_let_one_large_coefficient_decide(deliveries):
    noise = np.zeros(51, np.float32)
    noise[40] = 30

    def widened(delivery):
        # Coefficient 40 varies a hundred times as much as others in the data, and differs between truths by chance.
        shifted = {name: values + noise * EMOTIONS.index(name) for name, values in delivery.truth.items()}
        return dataclasses.replace(delivery, truth=shifted)

    wide = [widened(delivery) for delivery in deliveries]

    def edit(delivery):
        edited = truth(delivery)
        return {name: values + noise * (0.6 if name != "surprised" else 0) for name, values in edited.items()}

    scores = score_clips(wide, edit)
    assert summary(scores, "hits").value == pytest.approx(1 / 6)
    assert summary(scores, "hits_standardised").value == 1


def test_a_difference_is_taken_clip_by_clip(deliveries):
    good, bad = score_clips(deliveries, truth), score_clips(deliveries, copy_source)
    lead = difference(good, bad, "hits")
    assert (lead.value, lead.units, lead.known) == (1, 3, False)
    more = [
        tuple(dataclasses.replace(score, clip=f"{score.clip}{take}") for take in range(2) for score in scores)
        for scores in (good, bad)
    ]
    lead = difference(*more, "hits")
    assert (lead.low, lead.high, lead.unit, lead.units, lead.within) == (1, 1, "clip", 6, "2 speakers")
    assert difference(good, bad, "mouth_error_mm") is None


def test_a_constant_jaw_has_no_correlation(deliveries):
    def silent(delivery):
        return {name: values * np.r_[0, np.ones(50)].astype(np.float32) for name, values in truth(delivery).items()}

    assert summary(score_clips(deliveries, silent), "jaw_correlation").value == 0


def test_labels_and_references_are_those_of_inference(deliveries):
    manipulator = Manipulator(drawn_manipulator(SETTINGS), SETTINGS)
    source = deliveries[0].source
    found = by_label(manipulator, jax.random.key(2))(deliveries[0])
    again = by_label(manipulator, jax.random.key(2))(deliveries[0])
    other = by_label(manipulator, jax.random.key(2))(deliveries[1])
    assert list(found) == list(REQUESTED)
    np.testing.assert_array_equal(found["sad"], again["sad"])
    z = draw_latent(manipulator, jax.random.key(2))
    assert (
        np.abs(found["sad"] - manipulate_coefficients(manipulator, source, label_styles(manipulator, [5], z))).max() > 0
    )
    assert other["sad"].shape == deliveries[1].source.shape
    # Clips 0 and 1 are of one speaker: the next of another is clip 2, and after clip 2 comes clip 0.
    for clip, reference in ((0, 2), (1, 2), (2, 0)):
        style = reference_style(manipulator, deliveries[reference].truth["fear"])
        expected = manipulate_coefficients(manipulator, deliveries[clip].source, style[None])
        np.testing.assert_array_equal(by_reference(manipulator, deliveries)(deliveries[clip])["fear"], expected)
    with pytest.raises(InputError, match="two speakers"):
        by_reference(manipulator, deliveries[:2])


def test_the_shift_of_each_emotion_is_its_own():
    shifts = [tuple(shift_of(emotion)) for emotion in EMOTIONS]
    assert len(set(shifts)) == len(EMOTIONS)
