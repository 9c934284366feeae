"""Frechet distance: closed forms, the published form of it, moments that merge, files of others."""

import numpy as np
import pytest
from scipy.linalg import sqrtm

from asccl_jax.errors import InputError, WriteError
from asccl_jax.evals.frechet import Moments, frechet_distance

RNG = np.random.default_rng(0)


def features(count, size=6, shift=0.0):
    return np.random.default_rng(count).normal(size=(count, size)) @ np.diag(1.0 + np.arange(size)) + shift


def gaussian(mean, covariance, count=1000):
    return Moments(np.asarray(mean, np.float64), np.asarray(covariance, np.float64), count)


def test_moments_are_those_of_numpy():
    values = features(40).astype(np.float32)
    moments = Moments.of(values)
    np.testing.assert_allclose(moments.mean, values.astype(np.float64).mean(axis=0), rtol=1e-12)
    np.testing.assert_allclose(moments.covariance, np.cov(values, rowvar=False, dtype=np.float64), rtol=1e-12)
    assert moments.count == 40


@pytest.mark.parametrize("cuts", [(10,), (1, 2, 39), (0, 0, 40), (5, 6, 7)])
def test_merged_moments_are_those_of_all_items(cuts):
    # A large mean: sums of squares would lose half the digits.
    values = features(40, shift=1e4)
    merged = Moments.of(values[:0])
    for part in np.split(values, cuts):
        merged = merged.merge(Moments.of(part))
    whole = Moments.of(values)
    assert merged.count == whole.count
    np.testing.assert_allclose(merged.mean, whole.mean, rtol=1e-14)
    np.testing.assert_allclose(merged.covariance, whole.covariance, rtol=0, atol=1e-9)


def test_equal_distributions_are_at_zero_even_if_singular():
    for count in (3, 200):
        moments = Moments.of(features(count))
        assert frechet_distance(moments, moments) == pytest.approx(0, abs=1e-10)
    assert Moments.of(features(6)).singular and not Moments.of(features(7)).singular


def test_a_shifted_mean_costs_its_square():
    moments = Moments.of(features(50))
    shift = np.array([1.0, -2.0, 0.0, 0.5, 0.0, 3.0])
    shifted = Moments(moments.mean + shift, moments.covariance, moments.count)
    assert frechet_distance(moments, shifted) == pytest.approx(shift @ shift)


def test_axis_aligned_distributions_differ_by_their_deviations():
    first, second = np.array([1.0, 4.0, 0.0]), np.array([9.0, 4.0, 2.0])
    distance = frechet_distance(gaussian(np.zeros(3), np.diag(first)), gaussian(np.ones(3), np.diag(second)))
    assert distance == pytest.approx(3 + ((np.sqrt(first) - np.sqrt(second)) ** 2).sum())


def test_it_is_that_of_matrices_that_do_not_commute():
    first, second = Moments.of(features(60)), Moments.of(features(80) @ RNG.normal(size=(6, 6)))
    root = sqrtm(first.covariance)
    expected = ((first.mean - second.mean) ** 2).sum() + np.trace(first.covariance + second.covariance)
    expected -= 2 * np.trace(sqrtm(root @ second.covariance @ root)).real
    assert frechet_distance(first, second) == pytest.approx(expected, rel=1e-10)
    assert frechet_distance(second, first) == pytest.approx(expected, rel=1e-10)


def test_it_is_the_published_form_where_that_is_defined():
    first, second = Moments.of(features(60, shift=1.0)), Moments.of(features(80))
    mixed = sqrtm(first.covariance @ second.covariance)
    assert np.abs(np.diagonal(np.imag(mixed))).max() < 1e-3
    expected = ((first.mean - second.mean) ** 2).sum() + np.trace(first.covariance) + np.trace(second.covariance)
    assert frechet_distance(first, second) == pytest.approx(expected - 2 * np.trace(mixed).real, rel=1e-10)


@pytest.mark.parametrize("size", [1e-4, 1e4])
def test_the_unit_of_features_scales_the_distance_by_its_square(size):
    first, second = features(60, shift=1.0), features(80)
    expected = size**2 * frechet_distance(Moments.of(first), Moments.of(second))
    assert frechet_distance(Moments.of(size * first), Moments.of(size * second)) == pytest.approx(expected, rel=1e-9)


def test_few_items_are_exact_in_the_space_they_span():
    # Three items in six dimensions against three in the orthogonal ones: nothing is shared.
    first = Moments.of(np.pad(features(3, 2), ((0, 0), (0, 4))))
    second = Moments.of(np.pad(features(4, 2), ((0, 0), (4, 0))))
    expected = ((first.mean - second.mean) ** 2).sum() + np.trace(first.covariance) + np.trace(second.covariance)
    assert first.singular
    assert frechet_distance(first, second) == pytest.approx(expected, rel=1e-12)


def test_files_are_read_back_and_those_of_others_too(tmp_path):
    moments = Moments.of(features(12))
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
        Moments.of(features(3)).save(tmp_path / "nowhere" / "moments.npz")


def test_too_few_items_and_other_features_are_refused():
    with pytest.raises(InputError, match="1 items: expected two or more"):
        frechet_distance(Moments.of(features(1)), Moments.of(features(5)))
    with pytest.raises(InputError, match="6 and 4 features"):
        frechet_distance(Moments.of(features(5)), Moments.of(features(5, 4)))
