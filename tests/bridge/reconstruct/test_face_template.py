import numpy as np

from asccl_jax.image.warping import moved
from DECA_torch_bridge.reconstruct.face_template import TEMPLATE, alignment_matrices


def test_the_template_has_the_published_size_and_mean():
    assert TEMPLATE.shape == (68, 2)
    np.testing.assert_allclose(TEMPLATE.mean(axis=0), [126, 145.985], atol=5e-4)  # as printed in the source
    np.testing.assert_array_equal([TEMPLATE.min(axis=0), TEMPLATE.max(axis=0)], [[57, 85], [186, 220]])


def test_aligned_landmarks_lie_on_the_template():
    landmarks = np.stack([TEMPLATE * 0.5 + 20, TEMPLATE * 2 - 4])
    aligned = moved(landmarks, alignment_matrices(landmarks))
    np.testing.assert_allclose(aligned, np.stack([TEMPLATE, TEMPLATE]), atol=1e-9)
