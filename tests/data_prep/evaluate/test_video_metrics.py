"""Emotions weigh the same however many clips they have; intervals resample within an emotion."""

import dataclasses

import numpy as np
import pytest

from asccl_jax.data.schema import EMOTIONS
from data_prep.evaluate.video_metrics import METRICS, ClipScores, PoolScore, by_emotion, by_speaker, metric, overall


def clip(emotion, value, speaker="Ann", name="c", source=""):
    return ClipScores(name, speaker, emotion, "s", 10, {"lip_landmark_distance": float(value)}, source=source)


def test_emotions_weigh_the_same():
    clips = [clip("happy", 1.0), clip("happy", 1.0), clip("happy", 1.0), clip("sad", 3.0)]
    figure = overall(metric("lip_landmark_distance"), clips, ())
    assert (figure.value, figure.count) == (2.0, 4)


def test_one_clip_an_emotion_has_no_interval():
    clips = [clip(emotion, place, source="s", name=f"c{place}") for place, emotion in enumerate(EMOTIONS)]
    assert not overall(metric("lip_landmark_distance"), clips, ()).known


@pytest.mark.parametrize(
    ("speakers", "sources", "unit"), [(6, 12, "speaker"), (3, 12, "source"), (2, 4, "clip")], ids=["6", "12", "few"]
)
def test_intervals_resample_speakers_or_sources_where_there_are_enough(speakers, sources, unit):
    clips = [
        clip(emotion, source % 3, f"P{source % speakers}", f"{source}-{emotion}", f"s{source}")
        for source in range(sources)
        for emotion in ("happy", "sad")
    ]
    figure = overall(metric("lip_landmark_distance"), clips, ())
    assert (figure.unit, figure.units) == (unit, {"speaker": 6, "source": 12, "clip": 8}[unit])
    assert figure.low < figure.value < figure.high


def test_clips_of_one_source_are_no_independent_samples():
    random = np.random.default_rng(0)
    levels = random.normal(size=10)
    alike = [
        clip(emotion, levels[source] + 0.1 * random.normal(), "Ann", f"{source}-{emotion}", own)
        for source in range(10)
        for emotion in EMOTIONS
        for own in (f"s{source}",)
    ]
    apart = [dataclasses.replace(one, source="") for one in alike]
    joint, single = (overall(metric("lip_landmark_distance"), clips, ()) for clips in (alike, apart))
    # Seven clips of each source count for one: the root of seven.
    assert (joint.high - joint.low) / (single.high - single.low) == pytest.approx(np.sqrt(7), rel=0.35)


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
    pools = [
        PoolScore("expression_csim", emotion, f"P{place}", place / 5, 5, 5)
        for emotion in ("happy", "sad")
        for place in range(6)
    ]
    figure = overall(metric("expression_csim"), [], pools)
    assert (figure.value, figure.unit, figure.units) == (pytest.approx(0.5), "speaker", 6)
    assert 0 <= figure.low < 0.3 and 0.7 < figure.high <= 1
    assert not overall(metric("expression_csim"), [], pools[:2]).known
    assert by_speaker(metric("expression_csim"), [clip("happy", 0.0, "P5")], pools)["P5"].value == 1.0


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
