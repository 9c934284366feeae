"""Pools of clips give what their frames laid end to end give, a clip in memory at a time."""

import numpy as np

from asccl_jax.evals.feature_similarity import expression_csim
from asccl_jax.evals.frechet import Moments, frechet_distance
from asccl_jax.evals.video_pools import PooledClip, expression_pools, frechet_pools


def pooled(seed, speaker, emotion, frames):
    features = np.random.default_rng(seed).normal(1, 1, (frames, 6)).astype(np.float32)
    return PooledClip(f"{speaker}/{emotion}/{seed}", speaker, emotion, frames, lambda: features)


REAL = [pooled(1, "Ann", "happy", 90), pooled(2, "Ann", "happy", 60), pooled(3, "Bob", "happy", 20)]
FAKE = [pooled(4, "Ann", "happy", 70), pooled(5, "Ann", "happy", 50), pooled(6, "Bob", "happy", 30)]


def together(clips, speaker=None):
    return np.concatenate([clip.features() for clip in clips if speaker in (None, clip.speaker)])


def test_frechet_distance_is_that_of_all_frames():
    (score,) = frechet_pools("fad_arcface", REAL, FAKE)
    expected = frechet_distance(Moments.of(together(REAL)), Moments.of(together(FAKE)))
    np.testing.assert_allclose(score.value, expected, rtol=1e-9)
    assert (score.emotion, score.speaker, score.real, score.fake) == ("happy", "", 170, 150)


def test_speakers_that_were_not_manipulated_and_frames_without_a_face_do_not_count():
    blind = np.full((5, 6), np.nan, np.float32)
    real = [*REAL, pooled(7, "Eve", "happy", 40), PooledClip("z", "Ann", "happy", 5, lambda: blind)]
    assert frechet_pools("fad_arcface", real, FAKE) == frechet_pools("fad_arcface", REAL, FAKE)


def test_an_emotion_of_one_side_only_has_no_distance():
    assert frechet_pools("fad_arcface", REAL, [pooled(4, "Ann", "sad", 70)]) == []


def test_expression_similarity_is_the_published_one():
    expected = expression_csim(*({one: together(side, one) for one in ("Ann", "Bob")} for side in (REAL, FAKE)))
    scores = expression_pools("expression_csim", REAL, FAKE)
    assert [score.speaker for score in scores] == ["Ann", "Bob"]
    np.testing.assert_allclose([score.value for score in scores], [expected["Ann"], expected["Bob"]], rtol=1e-9)
    assert [(score.real, score.fake) for score in scores] == [(100, 100), (20, 30)]
