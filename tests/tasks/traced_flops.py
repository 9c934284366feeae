"""Counts the arithmetic that a function needs from its trace: nothing is compiled or run, dead code does not count."""

import math

import jax
from jax.interpreters import partial_eval


def traced_flops(function, *arguments):
    """Returns the operations of all convolutions and matrix products; a multiply and an add are two.

    Zeros between the pixels of a dilated input are not counted, padding is. Bodies of scans count as often as they run.
    Arguments may be abstract.
    """
    closed = jax.make_jaxpr(function)(*arguments)
    jaxpr, _ = partial_eval.dce_jaxpr(closed.jaxpr, [True] * len(closed.jaxpr.outvars))
    return _count(jaxpr)


def _count(jaxpr):
    return sum(_count_equation(equation) for equation in jaxpr.eqns)


def _count_equation(equation):
    name, params = equation.primitive.name, equation.params
    if name == "conv_general_dilated":
        numbers, kernel = params["dimension_numbers"], equation.invars[1].aval.shape
        per_output = math.prod(kernel) // kernel[numbers.rhs_spec[0]]
        return 2 * math.prod(equation.outvars[0].aval.shape) * per_output // math.prod(params["lhs_dilation"])
    if name == "dot_general":
        (contracted, _), _ = params["dimension_numbers"]
        shape = equation.invars[0].aval.shape
        return 2 * math.prod(equation.outvars[0].aval.shape) * math.prod(shape[axis] for axis in contracted)
    assert name not in ("while", "cond"), f"{name} runs an unknown number of times"
    inner = sum(_count(body) for value in params.values() for body in _bodies(value))
    return inner * params["length"] if name == "scan" else inner


def _bodies(value):
    if hasattr(value, "jaxpr"):
        yield value.jaxpr
    elif hasattr(value, "eqns"):
        yield value
    elif isinstance(value, tuple | list):
        for entry in value:
            yield from _bodies(entry)
