"""Similarities of features: the published choice of images, all with all, and partner with partner."""

import random

import numpy as np
import pytest

from asccl_jax.errors import InputError
from asccl_jax.evals.feature_similarity import chosen_images, cross_cosine, expression_csim, paired_cosine


def features(count, seed=0, size=8):
    return np.random.default_rng(seed).normal(size=(count, size)).astype(np.float32)


def cosine(a, b):
    return a.astype(float) @ b / (np.linalg.norm(a.astype(float)) * np.linalg.norm(b.astype(float)))


def test_all_pairs_count_alike():
    first, second = features(7), features(5, 1)
    expected = np.mean([[cosine(a, b) for b in second] for a in first])
    assert cross_cosine(first, second) == pytest.approx(expected)


def test_partners_are_compared_one_by_one():
    first, second = features(6), features(6, 1)
    np.testing.assert_allclose(
        paired_cosine(first, second), [cosine(*pair) for pair in zip(first, second, strict=True)]
    )
    np.testing.assert_allclose(paired_cosine(first, 3 * first), 1)


def test_images_are_drawn_from_one_stream_real_ones_first():
    real = {"W015": [f"r{i:03d}" for i in range(130)], "M003": [f"r{i:03d}" for i in range(150)]}
    fake = {"M003": [f"f{i:03d}" for i in range(101)], "W015": [f"f{i:03d}" for i in range(120)]}
    stream = random.Random(1)
    expected = {actor: [stream.sample(side[actor], 100) for side in (real, fake)] for actor in real}
    chosen = chosen_images(*({actor: len(names) for actor, names in side.items()} for side in (real, fake)))
    assert list(chosen) == ["W015", "M003"]
    for actor, (first, second) in chosen.items():
        assert [[real[actor][i] for i in first], [fake[actor][i] for i in second]] == expected[actor]


def test_expression_similarity_is_that_of_the_chosen_images_of_each_actor():
    real = {"a": features(9), "b": features(3, 1)}
    fake = {"a": features(8, 2), "b": features(4, 3)}
    scores = expression_csim(real, fake, limit=5)
    chosen = chosen_images({"a": 9, "b": 3}, {"a": 8, "b": 4}, limit=5)
    assert [len(side) for actor in "ab" for side in chosen[actor]] == [5, 5, 3, 4]
    assert scores["a"] == cross_cosine(real["a"][chosen["a"][0]], fake["a"][chosen["a"][1]])
    assert scores["b"] == cross_cosine(real["b"], fake["b"])
    assert scores == expression_csim(real, fake, limit=5)
    assert scores["a"] != expression_csim(real, fake, limit=5, seed=2)["a"]


def test_bad_sides_and_features_are_refused():
    with pytest.raises(InputError, match="actors a have real images only, b generated"):
        expression_csim({"a": features(2)}, {"b": features(2)})
    with pytest.raises(InputError, match="no images of a on one side"):
        expression_csim({"a": features(2)}, {"a": features(0)})
    with pytest.raises(InputError, match="1 of 2 features are zero or not finite"):
        paired_cosine(np.array([[0.0, 0.0], [1.0, 2.0]]), np.ones((2, 2)))
    with pytest.raises(InputError, match="0 with 2 features"):
        cross_cosine(features(0), features(2))
