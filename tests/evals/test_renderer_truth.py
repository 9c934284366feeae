"""The truth of a manipulated frame: the twin's frame where the source's frame has it."""

import numpy as np
import pytest

from asccl_jax.data.twins import find_twins
from asccl_jax.evals.renderer_truth import RenderRecords, scaled_points, warped
from tests.data.painted_clips import landmarks
from tests.evals.talking_records import LOWER, write_talking_records


@pytest.fixture(scope="module")
def records(tmp_path_factory):
    return RenderRecords(write_talking_records(tmp_path_factory.mktemp("talking") / "records"))


def dark_middle(true):
    rows, columns = np.nonzero((true.image[..., 0] < 130) & true.face)
    return np.array([columns.mean(), rows.mean()])


@pytest.mark.parametrize("size", [256, 64])
def test_the_twins_mouth_lies_where_the_source_would_have_it(records, size):
    (twin,) = find_twins(records.manifest)
    assert (twin.source, twin.target, str(twin.folder)) == ("A/neutral/2", "A/happy/2", "A/happy/2")
    true = records.true_frame(twin, 2, size)
    expected = landmarks()[48:68] + np.array([0, LOWER + 2])
    np.testing.assert_allclose(true.mouth, scaled_points(expected, 256, size), atol=1e-4)
    # The picture itself, not only its landmarks, has lost the four pixels of its own alignment.
    np.testing.assert_allclose(dark_middle(true), true.mouth.mean(axis=0), atol=0.3)
    assert true.face.shape == (size, size) and true.face[size // 2, size // 2] and not true.face[0, 0]


def test_a_picture_moves_as_points_do():
    random = np.random.default_rng(0)
    image = random.integers(0, 256, (20, 24, 3), np.uint8)
    shifted = warped(image, np.array([[1.0, 0, 3], [0, 1, -2]]))
    np.testing.assert_array_equal(shifted[:18, 3:], image[2:, :21])
    assert not shifted[18:].any() and not shifted[:, :3].any()
    bump = np.zeros((41, 41, 3), np.uint8)
    rows, columns = np.indices((41, 41))
    bump[:] = (255 * np.exp(-((columns - 15) ** 2 + (rows - 22) ** 2) / 18.0))[..., None]
    matrix = np.array([[0.9, -0.2, 8], [0.2, 0.9, -1]])
    found = warped(bump, matrix)[..., 0].astype(float)
    middle = np.array([(columns * found).sum(), (rows * found).sum()]) / found.sum()
    np.testing.assert_allclose(middle, matrix @ [15, 22, 1], atol=0.05)
