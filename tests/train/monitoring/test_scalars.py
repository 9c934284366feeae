"""Scalars: fetched late but all of them, in order, and stopped at the first that is not finite."""

import math

import jax.numpy as jnp
import pytest

from asccl_jax.train.monitoring.scalars import NonFiniteError, ScalarQueue, check_finite


def test_scalars_come_out_in_order_and_depth_steps_late():
    queue = ScalarQueue(depth=2)
    seen = [[step for step, _ in queue.push(step, {"a": jnp.asarray(step)})] for step in range(1, 6)]
    assert seen == [[], [], [1], [2], [3]]
    assert list(queue.drain()) == [(4, {"a": 4.0}), (5, {"a": 5.0})]
    assert list(queue.drain()) == []


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_value_that_is_not_finite_is_named_with_its_step(value):
    queue = ScalarQueue(depth=0)
    with pytest.raises(NonFiniteError, match=f"b is {value} at step 7"):
        list(queue.push(7, {"a": jnp.asarray(1.0), "b": jnp.asarray(value)}))
    with pytest.raises(NonFiniteError) as caught:
        check_finite(3, {"a": 0.0, "c": value})
    assert (caught.value.name, caught.value.step) == ("c", 3)
