"""Weights of a small metric without compiling JAX's generators, which takes longer than most tests."""

import jax
import jax.numpy as jnp
import numpy as np

from asccl_jax.models.correlation import init_variables


def drawn_variables(settings):
    """Returns variables distributed about as `init_variables` draws them."""
    random = np.random.default_rng(7)
    shapes = jax.eval_shape(lambda key: init_variables(settings, key), jax.random.key(0))

    def draw(path, leaf):
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        constants = {"scale": 1.0, "slope": 0.25, "var": 1.0, "mean": 0.0}
        if name.rpartition("/")[2] in constants:
            return jnp.full(leaf.shape, constants[name.rpartition("/")[2]], jnp.float32)
        spread = leaf.shape[-2] ** -0.5 / 3**0.5 if "heads" in name and "kernel" in name else 0.1
        return jnp.asarray(random.normal(0, spread, leaf.shape), jnp.float32)

    return jax.tree_util.tree_map_with_path(draw, shapes)
