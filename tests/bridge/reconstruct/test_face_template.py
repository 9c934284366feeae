from pathlib import Path

import numpy as np
import pytest

from DECA_torch_bridge.reconstruct.face_template import TEMPLATE, align_landmarks, alignment_matrices, similarity

GOLDENS = Path(__file__).parents[4] / "shared" / "goldens" / "postprocess.npz"


def test_the_template_has_the_published_size_and_mean():
    assert TEMPLATE.shape == (68, 2)
    np.testing.assert_allclose(TEMPLATE.mean(axis=0), [126, 145.985], atol=5e-4)  # as printed in the source
    np.testing.assert_array_equal([TEMPLATE.min(axis=0), TEMPLATE.max(axis=0)], [[57, 85], [186, 220]])


def test_a_known_similarity_is_found():
    rotation = np.array([[np.cos(0.4), -np.sin(0.4)], [np.sin(0.4), np.cos(0.4)]])
    matrix = similarity(TEMPLATE, 1.7 * TEMPLATE @ rotation.T + [3, -8])
    np.testing.assert_allclose(matrix[:2, :2], 1.7 * rotation, atol=1e-12)
    np.testing.assert_allclose(matrix[:2, 2], [3, -8], atol=1e-10)


def test_a_mirrored_face_is_not_mirrored_back():
    assert np.linalg.det(similarity(TEMPLATE * [-1, 1], TEMPLATE)[:2, :2]) > 0


def test_aligned_landmarks_lie_on_the_template():
    landmarks = np.stack([TEMPLATE * 0.5 + 20, TEMPLATE * 2 - 4])
    aligned = align_landmarks(landmarks, alignment_matrices(landmarks))
    np.testing.assert_allclose(aligned, np.stack([TEMPLATE, TEMPLATE]), atol=1e-9)


@pytest.mark.skipif(not GOLDENS.is_file(), reason="needs ../shared/goldens")
@pytest.mark.parametrize("case", ["umeyama0", "umeyama1", "umeyama2", "umeyama_rank1"])
def test_published_alignments_are_met(case):
    with np.load(GOLDENS) as goldens:
        source, target, expected = (goldens[f"f64/{case}/{name}"] for name in ("src", "dst", "T"))
    # Both are float64; the singular values of a thin set of points carry a few more roundings.
    np.testing.assert_allclose(similarity(source, target), expected, atol=1e-9, rtol=1e-9)
