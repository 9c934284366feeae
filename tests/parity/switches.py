"""Rectifiers decided alike in two runs of different precision.

A rectifier input within rounding of zero falls on either side by chance. One on the other side multiplies one element
of the back-propagated signal by four or a quarter, and moves every gradient before it by some tenths of a per cent: a
thousand times the rounding error that a comparison of gradients is to see. So float32 gradients are taken with every
rectifier on the side on which the exact (float64) run of the same code has it; values move by less than their rounding.
The signs of the differences in an absolute error are such switches too.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any
from unittest import mock

import jax
import jax.numpy as jnp
from flax import linen as nn

from asccl_jax.models.iresnet import PReLU
from asccl_jax.models.manipulator import Layers
from asccl_jax.tasks import manipulator

__all__ = ["aligned", "recorded"]


@contextlib.contextmanager
def recorded(signs: list[jax.Array]) -> Iterator[None]:
    """Appends, in the order of the calls, where the input of each rectifier or absolute value is positive."""

    def record(value: jax.Array) -> jax.Array:
        signs.append(value > 0)
        return value

    with _at_rectifiers(record):
        yield


@contextlib.contextmanager
def aligned(signs: Sequence[jax.Array]) -> Iterator[None]:
    """Gives the input of each rectifier the recorded sign; gradients pass as if nothing had been done."""
    recorded_signs = iter(signs)

    def align(value: jax.Array) -> jax.Array:
        magnitude = jnp.abs(value)
        wanted = jnp.where(next(recorded_signs), magnitude, -magnitude)
        return value + jax.lax.stop_gradient(wanted - value)

    with _at_rectifiers(align):
        yield
        assert next(recorded_signs, None) is None, "fewer rectifiers than recorded"


@contextlib.contextmanager
def _at_rectifiers(change: Callable[[jax.Array], jax.Array]) -> Iterator[None]:
    def interceptor(call: Callable[..., Any], args: tuple, kwargs: dict, context: nn.module.InterceptorContext) -> Any:
        if context.method_name != "__call__":
            return call(*args, **kwargs)
        if isinstance(context.module, PReLU):
            return call(change(args[0]))
        result = call(*args, **kwargs)
        return change(result) if _is_rectified(context.module) else result

    absolute_error = manipulator.absolute_error

    def changed_error(found: jax.Array, expected: jax.Array) -> jax.Array:
        return absolute_error(change(found - expected), jnp.zeros_like(expected))

    with nn.intercept_methods(interceptor), mock.patch.object(manipulator, "absolute_error", changed_error):
        yield


def _is_rectified(module: nn.Module) -> bool:
    """Whether a ReLU follows a linear layer."""
    if isinstance(module.parent, Layers):
        number = int((module.name or "").removeprefix("linear"))
        return module.parent.rectify_last or number < len(module.parent.widths) - 1
    # The hidden layers of the metric's heads and of the mapping network's branches.
    return module.name in ("hidden", "unshared0")
