"""The optimiser as published: Adam with a constant rate, epsilon outside the square root."""

from __future__ import annotations

import jax
import optax

from asccl_jax.errors import InputError

__all__ = ["adam"]


def adam(learning_rate: float) -> optax.GradientTransformation:
    """Returns PyTorch's default Adam: betas (0.9, 0.999), epsilon 1e-8 added to the root, no decay.

    Args:
      learning_rate: Constant step size.

    Raises:
      InputError: A rate that is not positive.
    """
    if not learning_rate > 0:
        raise InputError(f"config.learning_rate={learning_rate}: expected a positive number")
    transform = optax.adam(learning_rate, b1=0.9, b2=0.999, eps=1e-8, eps_root=0.0)

    def update(
        updates: optax.Updates, state: optax.OptState, params: optax.Params | None = None
    ) -> tuple[optax.Updates, optax.OptState]:
        # optax raises a float to an integer power, which strict promotion, on in our tests, would refuse.
        with jax.numpy_dtype_promotion("standard"):
            return transform.update(updates, state, params)

    return optax.GradientTransformation(transform.init, update)
