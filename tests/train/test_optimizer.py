"""The optimiser: PyTorch's Adam, written out."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from asccl_jax.errors import InputError
from asccl_jax.train.optimizer import adam, rate_schedule


def updates(transform, gradients):
    """Returns the change of each step for a row of gradients of one number."""
    state = transform.init(jnp.zeros(()))
    changes = []
    for gradient in gradients:
        change, state = jax.jit(transform.update)(jnp.asarray(gradient, jnp.float32), state, jnp.zeros(()))
        changes.append(float(change))
    return changes


def test_steps_are_pytorchs_with_epsilon_outside_the_root():
    # Gradients near epsilon, where an epsilon inside the root would show.
    gradients, first, second, expected = [1e-8, -3e-8, 2.0], 0.0, 0.0, []
    for step, gradient in enumerate(gradients, start=1):
        first = 0.9 * first + 0.1 * gradient
        second = 0.999 * second + 0.001 * gradient**2
        expected.append(-1e-3 * (first / (1 - 0.9**step)) / (np.sqrt(second / (1 - 0.999**step)) + 1e-8))
    # float32, with 1 - 0.999^t computed from powers: five digits.
    np.testing.assert_allclose(updates(adam(1e-3), gradients), expected, rtol=1e-4)


def test_a_cosine_rate_falls_to_zero_at_the_last_step():
    changes = updates(adam(0.1, schedule="cosine", steps=4), [1.0] * 5)
    rates = [0.1 * (1 + np.cos(np.pi * step / 4)) / 2 for step in range(5)]
    np.testing.assert_allclose(changes, [-rate for rate in rates], rtol=1e-4, atol=1e-7)  # a constant gradient


@pytest.mark.parametrize("rate", [0.0, -1.0, float("nan")])
def test_a_rate_that_is_not_positive_is_refused(rate):
    with pytest.raises(InputError, match=r"config\.learning_rate="):
        adam(rate)


def test_an_unknown_schedule_is_refused():
    with pytest.raises(InputError, match="learning_rate_schedule='linear'"):
        adam(0.1, schedule="linear")


def test_no_step_depends_on_the_weights():
    transform = adam(0.1)
    state = transform.init(jnp.zeros(()))
    one, _ = transform.update(jnp.asarray(1.0), state, jnp.asarray(0.0))
    other, _ = transform.update(jnp.asarray(1.0), state, jnp.asarray(9.0))
    assert float(one) == float(other)
    assert isinstance(transform, optax.GradientTransformation)


def test_betas_of_the_manipulator_make_the_first_step_the_rate_whatever_the_gradient():
    for gradient in (1e-3, -40.0):
        first, second = updates(adam(0.1, b1=0.0, b2=0.99), [gradient, gradient])
        np.testing.assert_allclose([first, second], [-0.1 * np.sign(gradient)] * 2, rtol=1e-4)


@pytest.mark.parametrize(("epochs", "full"), [(10, 1), (20, 11)])
def test_stairs_fall_as_published_after_the_first_epochs(epochs, full):
    rate = rate_schedule(1e-4, schedule="stairs", steps=7 * epochs, epochs=epochs, falling_epochs=10)
    # The published loop: after epoch e, counted from 1, a tenth less if e > epochs - 10, while that is not below zero.
    expected, now = [], 1e-4
    for epoch in range(1, epochs + 1):
        expected.append(now)
        if epoch > epochs - 10 and now - 1e-5 >= 0:
            now -= 1e-5
    assert expected.count(1e-4) == full
    found = [[float(rate(7 * epoch + step)) for step in range(7)] for epoch in range(epochs)]
    np.testing.assert_allclose(found, np.repeat(np.array(expected)[:, None], 7, axis=1), rtol=1e-5)


def test_a_rate_of_many_steps_does_not_overflow():
    rate = rate_schedule(1.0, schedule="stairs", steps=10**9, epochs=10)
    assert float(rate(10**9 - 1)) == pytest.approx(0.1)


def test_more_falling_epochs_than_there_are_is_refused():
    with pytest.raises(InputError, match="over 5 epochs, falling in 10: expected 1 to 5"):
        rate_schedule(1.0, schedule="stairs", steps=10, epochs=5, falling_epochs=10)
