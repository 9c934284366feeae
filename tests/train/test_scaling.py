"""Scaling by numbers: a metric's steps on 1, 2, 4 and 8 devices, its state whole or split, are the same steps."""

import jax
import numpy as np
import pytest

from tests.tasks.test_metric import TASK, assert_trees_close
from tests.train.scaled import scaled

pytestmark = pytest.mark.slow


@pytest.mark.parametrize(
    ("devices", "fsdp"), [(2, 1), (4, 1), (8, 1), (8, 4)], ids=["2", "4", "8", "8, state split over 4"]
)
def test_losses_weights_and_statistics_do_not_depend_on_the_devices(devices, fsdp):
    found, expected = scaled(devices, fsdp=fsdp), scaled(1)
    begun = jax.device_get(TASK.init(jax.random.key(3)).params)
    ways = [jax.tree.map(np.subtract, begun, run.params) for run in (found, expected)]
    assert max(float(np.abs(way).max()) for way in jax.tree.leaves(ways)) > 0.1
    # The same float32 sums in another order, through ten BatchNorms and a softmax at temperature 0.07: a thousandth of
    # the largest entry after one step (test_metric.py); the second starts from there and doubles it.
    assert_trees_close(*ways, of_largest=2e-3)
    assert_trees_close(found.batch_stats, expected.batch_stats, of_largest=1e-3)
    for step, other in zip(found.scalars, expected.scalars, strict=True):
        assert step.keys() == other.keys()
        for name, value in step.items():
            # Shares of hits move by whole hits of some hundred.
            tolerance = 0.02 if "top1" in name else 1e-3
            np.testing.assert_allclose(value, other[name], rtol=tolerance, atol=tolerance, err_msg=name)


def test_a_device_holds_about_its_share_of_the_state():
    whole, split = scaled(1).state_bytes, scaled(8, fsdp=4).state_bytes
    # What stays whole are vectors of 16 numbers: scales, biases, slopes, statistics.
    assert split < 0.3 * whole
    assert scaled(8).state_bytes == whole
