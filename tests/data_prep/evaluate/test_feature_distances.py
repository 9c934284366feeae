"""Similarities of features: the published choice of images, all with all, and partner with partner."""

import random

import numpy as np
import pytest
from scipy.linalg import sqrtm

from asccl_jax.errors import InputError, WriteError
from data_prep.evaluate.feature_distances import (
    Moments,
    PooledClip,
    chosen_images,
    cross_cosine,
    expression_csim,
    expression_pools,
    frechet_distance,
    frechet_pools,
    paired_cosine,
)


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


RNG = np.random.default_rng(0)


def frechet_features(count, size=6, shift=0.0):
    return np.random.default_rng(count).normal(size=(count, size)) @ np.diag(1.0 + np.arange(size)) + shift


def gaussian(mean, covariance, count=1000):
    return Moments(np.asarray(mean, np.float64), np.asarray(covariance, np.float64), count)


def test_moments_are_those_of_numpy():
    values = frechet_features(40).astype(np.float32)
    moments = Moments.of(values)
    np.testing.assert_allclose(moments.mean, values.astype(np.float64).mean(axis=0), rtol=1e-12)
    np.testing.assert_allclose(moments.covariance, np.cov(values, rowvar=False, dtype=np.float64), rtol=1e-12)
    assert moments.count == 40


@pytest.mark.parametrize("cuts", [(10,), (1, 2, 39), (0, 0, 40), (5, 6, 7)])
def test_merged_moments_are_those_of_all_items(cuts):
    # A large mean: sums of squares would lose half the digits.
    values = frechet_features(40, shift=1e4)
    merged = Moments.of(values[:0])
    for part in np.split(values, cuts):
        merged = merged.merge(Moments.of(part))
    whole = Moments.of(values)
    assert merged.count == whole.count
    np.testing.assert_allclose(merged.mean, whole.mean, rtol=1e-14)
    np.testing.assert_allclose(merged.covariance, whole.covariance, rtol=0, atol=1e-9)


def test_equal_distributions_are_at_zero_even_if_singular():
    for count in (3, 200):
        moments = Moments.of(frechet_features(count))
        assert frechet_distance(moments, moments) == pytest.approx(0, abs=1e-10)
    assert Moments.of(frechet_features(6)).singular and not Moments.of(frechet_features(7)).singular


def test_a_shifted_mean_costs_its_square():
    moments = Moments.of(frechet_features(50))
    shift = np.array([1.0, -2.0, 0.0, 0.5, 0.0, 3.0])
    shifted = Moments(moments.mean + shift, moments.covariance, moments.count)
    assert frechet_distance(moments, shifted) == pytest.approx(shift @ shift)


def test_axis_aligned_distributions_differ_by_their_deviations():
    first, second = np.array([1.0, 4.0, 0.0]), np.array([9.0, 4.0, 2.0])
    distance = frechet_distance(gaussian(np.zeros(3), np.diag(first)), gaussian(np.ones(3), np.diag(second)))
    assert distance == pytest.approx(3 + ((np.sqrt(first) - np.sqrt(second)) ** 2).sum())


def test_it_is_that_of_matrices_that_do_not_commute():
    first, second = Moments.of(frechet_features(60)), Moments.of(frechet_features(80) @ RNG.normal(size=(6, 6)))
    root = sqrtm(first.covariance)
    expected = ((first.mean - second.mean) ** 2).sum() + np.trace(first.covariance + second.covariance)
    expected -= 2 * np.trace(sqrtm(root @ second.covariance @ root)).real
    assert frechet_distance(first, second) == pytest.approx(expected, rel=1e-10)
    assert frechet_distance(second, first) == pytest.approx(expected, rel=1e-10)


def test_it_is_the_published_form_where_that_is_defined():
    first, second = Moments.of(frechet_features(60, shift=1.0)), Moments.of(frechet_features(80))
    mixed = sqrtm(first.covariance @ second.covariance)
    assert np.abs(np.diagonal(np.imag(mixed))).max() < 1e-3
    expected = ((first.mean - second.mean) ** 2).sum() + np.trace(first.covariance) + np.trace(second.covariance)
    assert frechet_distance(first, second) == pytest.approx(expected - 2 * np.trace(mixed).real, rel=1e-10)


@pytest.mark.parametrize("size", [1e-4, 1e4])
def test_the_unit_of_features_scales_the_distance_by_its_square(size):
    first, second = frechet_features(60, shift=1.0), frechet_features(80)
    expected = size**2 * frechet_distance(Moments.of(first), Moments.of(second))
    assert frechet_distance(Moments.of(size * first), Moments.of(size * second)) == pytest.approx(expected, rel=1e-9)


def test_few_items_are_exact_in_the_space_they_span():
    # Three items in six dimensions against three in the orthogonal ones: nothing is shared.
    first = Moments.of(np.pad(frechet_features(3, 2), ((0, 0), (0, 4))))
    second = Moments.of(np.pad(frechet_features(4, 2), ((0, 0), (4, 0))))
    expected = ((first.mean - second.mean) ** 2).sum() + np.trace(first.covariance) + np.trace(second.covariance)
    assert first.singular
    assert frechet_distance(first, second) == pytest.approx(expected, rel=1e-12)


def test_files_are_read_back_and_those_of_others_too(tmp_path):
    moments = Moments.of(frechet_features(12))
    moments.save(tmp_path / "own.npz")
    again = Moments.load(tmp_path / "own.npz")
    assert again.count == 12
    np.testing.assert_array_equal(again.mean, moments.mean)
    np.testing.assert_array_equal(again.covariance, moments.covariance)
    np.savez(tmp_path / "theirs.npz", mu=moments.mean.astype(np.float32), sigma=moments.covariance)
    theirs = Moments.load(tmp_path / "theirs.npz")
    assert theirs.count is None and not theirs.singular
    assert frechet_distance(theirs, moments) == pytest.approx(0, abs=1e-6)
    with pytest.raises(InputError, match="without n"):
        theirs.merge(moments)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"mu": np.zeros(3)}, "no sigma"),
        ({"mu": np.zeros(3), "sigma": np.eye(2)}, r"expected \(d,\) and \(d, d\)"),
        ({"mu": np.array([0, np.inf]), "sigma": np.eye(2)}, "no finite numbers"),
        ({"mu": np.array(["a", "b"]), "sigma": np.eye(2)}, "no finite numbers"),
        ({"mu": np.array([None, 1]), "sigma": np.eye(2)}, "no readable .npz"),
    ],
)
def test_a_file_that_holds_no_moments_is_refused(tmp_path, arrays, message):
    path = tmp_path / "moments.npz"
    np.savez(path, **arrays)
    with pytest.raises(InputError, match=message):
        Moments.load(path)


def test_a_missing_cut_or_foreign_file_is_refused(tmp_path):
    path = tmp_path / "moments.npz"
    for content in (None, b"", b"PK\x03\x04 cut", b"text"):
        if content is not None:
            path.write_bytes(content)
        with pytest.raises(InputError, match=r"moments\.npz: no readable"):
            Moments.load(path)
    np.save(tmp_path / "array.npy", np.zeros(3))
    with pytest.raises(InputError, match="no readable"):
        Moments.load(tmp_path / "array.npy")
    with pytest.raises(WriteError, match="cannot write"):
        Moments.of(frechet_features(3)).save(tmp_path / "nowhere" / "moments.npz")


def test_too_few_items_and_other_features_are_refused():
    with pytest.raises(InputError, match="1 items: expected two or more"):
        frechet_distance(Moments.of(frechet_features(1)), Moments.of(frechet_features(5)))
    with pytest.raises(InputError, match="6 and 4 features"):
        frechet_distance(Moments.of(frechet_features(5)), Moments.of(frechet_features(5, 4)))


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
