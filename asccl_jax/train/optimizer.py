"""The optimiser as published: Adam, epsilon outside the square root; its rate is constant or falls."""

from __future__ import annotations

from collections.abc import Iterable

import jax
import jax.numpy as jnp
import optax

from asccl_jax.errors import InputError

__all__ = ["adam", "rate_schedule"]


def adam(
    learning_rate: float, *, schedule: str = "constant", steps: int = 1, b1: float = 0.9, b2: float = 0.999
) -> optax.GradientTransformation:
    """Returns Adam as PyTorch has it: epsilon 1e-8 added to the root, no weight decay.

    Args:
      learning_rate: Step size of the first update.
      schedule: "constant" (as published for the metric), or "cosine", which falls to zero over `steps`.
      steps: Updates in all.
      b1: Decay of the mean of gradients: PyTorch's default; the published manipulator has 0.
      b2: Decay of the mean of their squares: PyTorch's default; the published manipulator has 0.99.

    Raises:
      InputError: A rate that is not positive, or an unknown schedule.
    """
    _check(learning_rate, schedule, known=("constant", "cosine"))
    # A constant rate is given as a number: the optimiser's state then needs no count of its own.
    rate = learning_rate if schedule == "constant" else rate_schedule(learning_rate, schedule=schedule, steps=steps)
    transform = optax.adam(rate, b1=b1, b2=b2, eps=1e-8, eps_root=0.0)

    def update(
        updates: optax.Updates, state: optax.OptState, params: optax.Params | None = None
    ) -> tuple[optax.Updates, optax.OptState]:
        # optax raises a float to an integer power, which strict promotion, on in our tests, would refuse.
        with jax.numpy_dtype_promotion("standard"):
            return transform.update(updates, state, params)

    return optax.GradientTransformation(transform.init, update)


def rate_schedule(
    learning_rate: float, *, schedule: str = "constant", steps: int = 1, epochs: int = 10, falling_epochs: int = 10
) -> optax.Schedule:
    """Returns the rate as a function of the updates done, for a task that has several optimisers.

    "stairs" is as published for the manipulator: once an epoch the rate falls by the same amount, such that the epoch
    after the last would be at zero. "cosine" falls to zero over `steps`.

    >>> rate = rate_schedule(1.0, schedule="stairs", steps=80, epochs=4, falling_epochs=2)
    >>> [round(float(rate(step)), 3) for step in (0, 40, 59, 60, 79)]
    [1.0, 1.0, 1.0, 0.5, 0.5]

    Args:
      learning_rate: Rate of the first update.
      schedule: "constant", "cosine" or "stairs".
      steps: Updates in all.
      epochs: Epochs that `steps` are divided in ("stairs"): 10 as published, 20 on Aff-Wild2.
      falling_epochs: A stair is the rate divided by these ("stairs"): 10 as published. The first `epochs -
        falling_epochs + 1` epochs run at the full rate.

    Raises:
      InputError: A rate or a number that is not positive, or an unknown schedule.
    """
    _check(learning_rate, schedule, known=("constant", "cosine", "stairs"))
    if epochs < 1 or not 1 <= falling_epochs <= epochs:
        raise InputError(f"learning rate over {epochs} epochs, falling in {falling_epochs}: expected 1 to {epochs}")
    if schedule == "constant":
        return optax.constant_schedule(learning_rate)
    if schedule == "cosine":
        return optax.cosine_decay_schedule(learning_rate, steps)

    def stairs(count: jax.typing.ArrayLike) -> jax.Array:
        # First the steps of a stair: the product of two large integers would overflow.
        epoch = jnp.asarray(count, jnp.int32) // max(steps // epochs, 1)
        fallen = jnp.clip(epoch - (epochs - falling_epochs), 0, falling_epochs).astype(jnp.float32)
        return learning_rate * (1.0 - fallen / falling_epochs)

    return stairs


def _check(learning_rate: float, schedule: str, *, known: Iterable[str]) -> None:
    if not learning_rate > 0:
        raise InputError(f"config.learning_rate={learning_rate}: expected a positive number")
    if schedule not in known:
        raise InputError(f"config.learning_rate_schedule={schedule!r}: expected one of {', '.join(known)}")
