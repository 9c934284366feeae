"""Emotions weigh the same however many clips they have; intervals resample within an emotion."""

import numpy as np
import pytest

from asccl_jax.evals.video_metrics import METRICS, ClipScores, PoolScore, metric
from asccl_jax.evals.video_tables import by_emotion, by_speaker, overall, stratified_mean


def clip(emotion, value, speaker="Ann", name="lip_landmark_distance"):
    return ClipScores("c", speaker, emotion, "s", 10, {name: value})


def test_emotions_weigh_the_same():
    clips = [clip("happy", 1.0), clip("happy", 1.0), clip("happy", 1.0), clip("sad", 3.0)]
    figure = overall(metric("lip_landmark_distance"), clips, ())
    assert (figure.value, figure.count) == (2.0, 4)


def test_intervals_shrink_with_clips_and_hold_the_spread_of_means():
    random = np.random.default_rng(1)
    few, many = (stratified_mean([random.normal(0, 1, count) for _ in range(2)]) for count in (10, 1000))
    # The mean of two groups of n has a deviation of 1 / sqrt(2 n): 1.96 of those either way.
    assert many.high - many.low == pytest.approx(2 * 1.96 / np.sqrt(2000), rel=0.1)
    assert few.high - few.low > 5 * (many.high - many.low)


def test_one_clip_an_emotion_has_no_interval():
    assert np.isnan(stratified_mean([np.array([1.0]), np.array([3.0])]).low)
    assert stratified_mean([np.array([1.0]), np.array([3.0, 4.0])]).low == 2.0


def test_clips_without_a_figure_do_not_count():
    clips = [clip("happy", 1.0), ClipScores("d", "Ann", "sad", "s", 10, {})]
    assert set(by_emotion(metric("lip_landmark_distance"), clips, ())) == {"happy"}
    assert overall(metric("ssim"), clips, ()) is None


def test_pools_of_all_speakers_have_no_interval_and_no_figure_of_one():
    pools = [
        PoolScore("fad_resnetface18", emotion, "", value, 5, 5) for emotion, value in (("happy", 1.0), ("sad", 2.0))
    ]
    figure = overall(metric("fad_resnetface18"), [clip("happy", 0.0)], pools)
    assert figure.value == 1.5
    assert np.isnan(figure.low)
    assert by_speaker(metric("fad_resnetface18"), [clip("happy", 0.0)], pools) == {}


def test_pools_by_speaker_vary_with_the_speakers():
    pools = [PoolScore("expression_csim", "happy", one, value, 5, 5) for one, value in (("Ann", 0.5), ("Bob", 1.0))]
    figure = overall(metric("expression_csim"), [], pools)
    assert (figure.value, figure.low, figure.high) == (0.75, 0.5, 1.0)
    assert by_speaker(metric("expression_csim"), [clip("happy", 0.0, "Bob")], pools)["Bob"].value == 1.0


def test_names_of_metrics_carry_their_protocol():
    names = {one.name for one in METRICS}
    assert {
        "fad_resnetface18",
        "fad_arcface",
        "expression_csim",
        "identity_csim",
        "lse_d_25fps",
        "lse_c_30fps",
    } <= names
    assert len(names) == len(METRICS)
