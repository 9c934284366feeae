"""A bidirectional LSTM as PyTorch has it: gates i, f, g, o, one or two bias vectors; both directions in one scan."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import lax
from jaxtyping import Array, DTypeLike, Float

__all__ = ["BiLSTM"]


class _Direction(nn.Module):
    """Weights of one direction of one layer; the columns of a kernel are the gates i, f, g, o, each `width` wide."""

    inputs: int
    width: int
    biases: int

    def setup(self) -> None:
        def uniform(key: Array, shape: tuple[int, ...], dtype: DTypeLike = jnp.float32) -> Array:
            bound = self.width**-0.5
            return jax.random.uniform(key, shape, dtype, -bound, bound)

        gates = 4 * self.width
        self.input_kernel = self.param("input_kernel", uniform, (self.inputs, gates))
        self.recurrent_kernel = self.param("recurrent_kernel", uniform, (self.width, gates))
        self.input_bias = self.param("input_bias", uniform, (gates,))
        if self.biases == 2:
            self.recurrent_bias = self.param("recurrent_bias", uniform, (gates,))

    def project(self, x: Float[Array, "*frames i"]) -> Float[Array, "*frames g"]:
        """Returns what the gates get from the inputs, biases included: of each frame by itself."""
        bias = self.input_bias if self.biases == 1 else self.input_bias + self.recurrent_bias
        projected = x @ self.input_kernel
        return projected + bias.reshape((1,) * (projected.ndim - 1) + (-1,))

    def step(
        self, projected: Float[Array, "b g"], hidden: Float[Array, "b w"], cell: Float[Array, "b w"]
    ) -> tuple[Float[Array, "b w"], Float[Array, "b w"]]:
        """Returns hidden state and cell of the next frame."""
        inward, forget, candidate, outward = jnp.split(projected + hidden @ self.recurrent_kernel, 4, axis=-1)
        cell = nn.sigmoid(forget) * cell + nn.sigmoid(inward) * jnp.tanh(candidate)
        return nn.sigmoid(outward) * jnp.tanh(cell), cell


class _Layer(nn.Module):
    """Both directions of one layer, over sequences whose first axis is time."""

    inputs: int
    width: int
    biases: int

    def setup(self) -> None:
        self.forward = _Direction(self.inputs, self.width, self.biases)
        self.backward = _Direction(self.inputs, self.width, self.biases)

    def project(self, x: Float[Array, "*frames i"]) -> Float[Array, "*frames g2"]:
        """Returns the projections of both directions side by side."""
        return jnp.concatenate([self.forward.project(x), self.backward.project(x)], axis=-1)

    def __call__(self, projected: Float[Array, "t b g2"]) -> Float[Array, "t b w2"]:
        """Returns hidden states, forward beside backward."""
        ahead, back = jnp.split(projected, 2, axis=-1)
        zero = jnp.zeros((*ahead.shape[1:-1], self.width), ahead.dtype)
        start: tuple[Array, ...] = (zero,) * 4

        def step(states: tuple[Array, ...], inputs: tuple[Array, Array]) -> tuple[tuple[Array, ...], tuple[Array, ...]]:
            first = self.forward.step(inputs[0], states[0], states[1])
            second = self.backward.step(inputs[1], states[2], states[3])
            return (*first, *second), (first[0], second[0])

        _, (forward, backward) = lax.scan(step, start, (ahead, back[::-1]))
        return jnp.concatenate([forward, backward[::-1]], axis=-1)


class BiLSTM(nn.Module):
    """Layers of a bidirectional LSTM; each but the first reads both directions of the one before.

    Attributes:
      inputs: Numbers a frame.
      width: Width of a direction.
      layers: Number of layers.
      biases: Bias vectors a direction, 2 (PyTorch) or 1; only training tells the two apart.
    """

    inputs: int
    width: int
    layers: int = 2
    biases: int = 2

    def setup(self) -> None:
        """Makes the layers, named `layer0` and on."""
        for number in range(self.layers):
            inputs = self.inputs if number == 0 else 2 * self.width
            setattr(self, f"layer{number}", _Layer(inputs, self.width, self.biases))

    def project(self, x: Float[Array, "*frames i"]) -> Float[Array, "*frames g"]:
        """Returns what the first layer's gates get from the inputs: of each frame by itself, whatever its window."""
        return self.layer0.project(x)

    def run(self, projected: Float[Array, "b t g"]) -> Float[Array, "b t w2"]:
        """Returns hidden states of the last layer, forward beside backward, from what `project` gave."""
        hidden = self.layer0(jnp.swapaxes(projected, 0, 1))
        for number in range(1, self.layers):
            layer = getattr(self, f"layer{number}")
            hidden = layer(layer.project(hidden))
        return jnp.swapaxes(hidden, 0, 1)

    def __call__(self, x: Float[Array, "b t i"]) -> Float[Array, "b t w2"]:
        """Returns hidden states of the last layer; every sequence starts from a state of zeros."""
        return self.run(self.project(x))
