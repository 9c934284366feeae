"""The optimiser as published: Adam, epsilon outside the square root; its rate is constant or falls."""

from __future__ import annotations

import jax
import optax

from asccl_jax.errors import InputError

__all__ = ["adam"]


def adam(learning_rate: float, *, schedule: str = "constant", steps: int = 1) -> optax.GradientTransformation:
    """Returns PyTorch's default Adam: betas (0.9, 0.999), epsilon 1e-8 added to the root, no weight decay.

    Args:
      learning_rate: Step size of the first update.
      schedule: "constant" (as published), or "cosine", which falls to zero over `steps`.
      steps: Updates in all.

    Raises:
      InputError: A rate that is not positive, or an unknown schedule.
    """
    if not learning_rate > 0:
        raise InputError(f"config.learning_rate={learning_rate}: expected a positive number")
    rates = {"constant": learning_rate, "cosine": optax.cosine_decay_schedule(learning_rate, steps)}
    if schedule not in rates:
        raise InputError(f"config.learning_rate_schedule={schedule!r}: expected one of {', '.join(rates)}")
    transform = optax.adam(rates[schedule], b1=0.9, b2=0.999, eps=1e-8, eps_root=0.0)

    def update(
        updates: optax.Updates, state: optax.OptState, params: optax.Params | None = None
    ) -> tuple[optax.Updates, optax.OptState]:
        # optax raises a float to an integer power, which strict promotion, on in our tests, would refuse.
        with jax.numpy_dtype_promotion("standard"):
            return transform.update(updates, state, params)

    return optax.GradientTransformation(transform.init, update)
