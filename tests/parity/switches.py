"""Rectifiers decided alike in two runs of different precision.

A rectifier input within rounding of zero falls on either side by chance. One on the other side multiplies one element
of the back-propagated signal by four or a quarter, by five or a fifth, or takes it away altogether, and moves every
gradient before it by some tenths of a per cent: a thousand times the rounding error that a comparison of gradients is
to see. So float32 gradients are taken with every rectifier on the side on which the exact (float64) run of the same
code has it; values move by less than their rounding. The signs of the differences in an absolute error are such
switches too, and so is the choice between two nearly equal values of a maximum.

Only what is within rounding of zero is moved. An input on the other side and further from zero is an error, not chance:
it stays where it is, for the comparison of gradients to find.
"""

from __future__ import annotations

import contextlib
import types
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeAlias
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax import lax

from asccl_jax.losses import generator
from asccl_jax.models.iresnet import PReLU
from asccl_jax.tasks import frame_chunks, manipulator_task

__all__ = ["NEAR_ZERO", "aligned", "aligned_gradient", "exactly", "lightly_compiled", "recorded"]

NEAR_ZERO = 1e-3
"""How far from zero an input may be for its side to be chance, in root mean squares of all inputs of its switch.

In the renderer's first training step, the deepest computation that is replayed, inputs of the switches that decide
anything otherwise in float32 are off by up to 4e-4 of that, 4e-5 in the root mean square, and what is on the other side
is up to 6e-5 from zero. From weights that differ in their last bit the first is up to 6e-4, the last up to 1.6e-4.
"""

Signs: TypeAlias = "jax.Array | list[Signs]"
"""Where a switch's input is positive; of a loop the switches of its body, stacked by turn."""

_Change: TypeAlias = Callable[[jax.Array], jax.Array]


@contextlib.contextmanager
def recorded(signs: list[Signs]) -> Iterator[None]:
    """Appends, in the order of the calls, where the input of each switch is positive."""
    lists = [signs]

    def record(value: jax.Array) -> jax.Array:
        lists[-1].append(value > 0)
        return value

    def scan(body: Callable[..., Any], start: Any, inputs: Any) -> Any:
        def recording(carried: Any, turn: Any) -> Any:
            lists.append([])
            carried, result = body(carried, turn)
            return carried, (result, lists.pop())

        carried, (results, inner) = lax.scan(recording, start, inputs)
        lists[-1].append(inner)
        return carried, results

    with _at_switches(record, scan):
        yield


@contextlib.contextmanager
def aligned(signs: Sequence[Signs], *, near: float | jax.Array = NEAR_ZERO) -> Iterator[None]:
    """Gives the input of each switch that is near zero the recorded sign; gradients pass as if nothing had been done.

    Args:
      signs: What `recorded` appended.
      near: See `NEAR_ZERO`; 0 moves none.
    """
    recorded_signs = [iter(signs)]

    def align(value: jax.Array) -> jax.Array:
        magnitude = jnp.abs(value)
        wanted = jnp.where(next(recorded_signs[-1]), magnitude, -magnitude)
        reach = near * jnp.sqrt(jnp.mean(jnp.square(value)))
        return value + lax.stop_gradient(jnp.where(magnitude <= reach, wanted - value, jnp.zeros_like(value)))

    def scan(body: Callable[..., Any], start: Any, inputs: Any) -> Any:
        def aligning(carried: Any, turn: Any) -> Any:
            turn, inner = turn
            recorded_signs.append(iter(inner))
            result = body(carried, turn)
            _check_used_up(recorded_signs.pop())
            return result

        return lax.scan(aligning, start, (inputs, next(recorded_signs[-1])))

    with _at_switches(align, scan):
        yield
        _check_used_up(recorded_signs[-1])


def lightly_compiled(function: Callable[..., Any]) -> Any:
    """A jitted function; most of a replay's time would go to optimising code that runs once or a few times."""
    return jax.jit(function, compiler_options={"xla_backend_optimization_level": 0})


def exactly(function: Callable[..., Any], *arguments: Any) -> Any:
    """Result of a function of float32 arrays in float64, as NumPy arrays."""
    host = jax.device_get(arguments)
    with jax.enable_x64(True):
        widened = jax.tree.map(lambda leaf: leaf.astype(np.float64) if leaf.dtype == np.float32 else leaf, host)
        return jax.device_get(lightly_compiled(function)(*widened))


def aligned_gradient(function: Callable[..., Any], *arguments: Any, argnums: int | tuple[int, ...] = 0) -> Any:
    """Value, by-product and gradient of a function, with every switch on the side on which its float64 run has it.

    Args:
      function: Returns a loss and a by-product; computes in the type of what it is given.
      *arguments: Of float64 the gradient is just that.
      argnums: With respect to which arguments.
    """

    def switches(*arguments: Any) -> list[Signs]:
        signs: list[Signs] = []
        with recorded(signs):
            function(*arguments)
        return signs

    def aligning(*arguments: Any, signs: Sequence[Signs] | None) -> Any:
        with contextlib.nullcontext() if signs is None else aligned(signs):
            return function(*arguments)

    exact = any(leaf.dtype == np.float64 for leaf in jax.tree.leaves(arguments))
    signs = None if exact else exactly(switches, *arguments)
    return lightly_compiled(jax.value_and_grad(aligning, argnums, has_aux=True))(*arguments, signs=signs)


def _check_used_up(signs: Iterator[Signs]) -> None:
    assert next(signs, None) is None, "fewer switches than recorded"


@contextlib.contextmanager
def _at_switches(change: _Change, scan: Callable[..., Any]) -> Iterator[None]:
    """Puts a change before every switch, and a loop that knows of it in place of the loop over frames."""

    def interceptor(call: Callable[..., Any], args: tuple, kwargs: dict, context: nn.module.InterceptorContext) -> Any:
        if isinstance(context.module, PReLU) and context.method_name == "__call__":
            return call(change(args[0]))
        return call(*args, **kwargs)

    relu, leaky_relu = nn.relu, nn.leaky_relu
    absolute_error, mean_distance = manipulator_task.absolute_error, generator._mean_distance

    def changed_error(found: jax.Array, expected: jax.Array) -> jax.Array:
        return absolute_error(change(found - expected), jnp.zeros_like(expected))

    def changed_distance(found: jax.Array, expected: jax.Array) -> jax.Array:
        return mean_distance(change(found - lax.stop_gradient(expected)), jnp.zeros_like(expected))

    def larger(one: jax.Array, other: jax.Array) -> jax.Array:
        return jnp.where(change(other - one) > 0, other, one)

    def max_pool(maps: jax.Array, window: tuple[int, int], strides: tuple[int, int]) -> jax.Array:
        assert (window, strides) == ((2, 2), (2, 2)), f"windows of {window}, {strides} apart, are not provided for"
        rows, columns = (side // 2 * 2 for side in maps.shape[1:3])
        taller = larger(maps[:, 0:rows:2], maps[:, 1:rows:2])
        return larger(taller[:, :, 0:columns:2], taller[:, :, 1:columns:2])

    with contextlib.ExitStack() as stack:
        stack.enter_context(nn.intercept_methods(interceptor))
        for module, name, replacement in (
            (nn, "relu", lambda x: relu(change(x))),
            (nn, "leaky_relu", lambda x, slope: leaky_relu(change(x), slope)),
            (nn, "max_pool", max_pool),
            (manipulator_task, "absolute_error", changed_error),
            (generator, "_mean_distance", changed_distance),
            (frame_chunks, "lax", types.SimpleNamespace(**{**vars(lax), "scan": scan})),
        ):
            stack.enter_context(mock.patch.object(module, name, replacement))
        yield
