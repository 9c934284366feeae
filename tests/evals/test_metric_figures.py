from pathlib import Path

import numpy as np

from asccl_jax.data.frames import FrameStore
from asccl_jax.evals.metric_figures import look_at_pairs
from asccl_jax.sampling import location_region, map_sizes
from asccl_jax.weights import FrozenMetric
from tests.evals.conftest import SETTINGS


def test_weights_cover_every_cell_that_may_be_a_centre(metric: FrozenMetric, records: Path):
    images = FrameStore(records, "comparisons").decode([0, 9])
    look = look_at_pairs(metric, images, images, stage=1, count=3)
    for weights, size in zip(look.weights, map_sizes(SETTINGS.image_size), strict=True):
        assert weights.shape == (2, size, size)
        first, side = location_region(size, border="inside")
        inside = weights[:, first : first + side, first : first + side]
        assert np.all((inside >= 1) & (inside <= 2))
        assert np.isfinite(weights).sum() == inside.size
    assert not np.array_equal(*look.weights[0], equal_nan=True)


def test_changes_of_a_face_are_found_in_the_same_face(metric: FrozenMetric, records: Path):
    images = FrameStore(records, "comparisons").decode([0, 9])
    itself, across = (look_at_pairs(metric, images, keys, stage=1, count=4).picks for keys in (images, images[::-1]))
    for picks in itself:
        assert picks.right.all() and len(picks.right) == 4
        assert len(np.unique(picks.centres, axis=0)) == 4
    assert not np.concatenate([picks.right for picks in across]).all()
