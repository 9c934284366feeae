"""The expression manipulator: a generator of jaw and expression coefficients, and what makes and judges their style."""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from flax import struct
from jax import lax
from jaxtyping import Array, DTypeLike, Float, Int, Key

from asccl_jax.settings import ManipulatorSettings
from asccl_jax.trees import cut_vector
from asccl_jax.types import Variables

__all__ = [
    "NETWORKS",
    "BiLSTM",
    "Discriminator",
    "Generator",
    "Manipulator",
    "MappingNetwork",
    "StyleEncoder",
    "init_manipulator",
    "make_network",
]

# A bidirectional LSTM as PyTorch has it: gates i, f, g, o, one or two bias vectors; both directions in one scan.


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


_HE_NORMAL = nn.initializers.variance_scaling(2.0, "fan_in", "normal")


class Layers(nn.Module):
    """Linear layers `linear0`, `linear1` and on, a ReLU between two.

    Attributes:
      widths: Outputs of each layer.
      rectify_last: Whether a ReLU follows the last layer too.
    """

    widths: tuple[int, ...]
    rectify_last: bool

    @nn.compact
    def __call__(self, x: Float[Array, "*rows i"]) -> Float[Array, "*rows o"]:
        """Returns the last layer's outputs."""
        for number, width in enumerate(self.widths):
            x = nn.Dense(width, kernel_init=_HE_NORMAL, name=f"linear{number}")(x)
            if self.rectify_last or number < len(self.widths) - 1:
                x = nn.relu(x)
        return x


class Generator(nn.Module):
    """Gives a window another style: a BiLSTM over frames that each carry the wanted style.

    The result is the coefficients themselves, not a change of them.
    """

    settings: ManipulatorSettings

    def setup(self) -> None:
        """Makes the layers before the LSTM, the LSTM and the layers after it."""
        sizes = self.settings
        self.seq1 = Layers((sizes.generator_width, sizes.generator_width), rectify_last=True)
        self.lstm = BiLSTM(sizes.generator_width, sizes.generator_width, sizes.lstm_layers, sizes.lstm_biases)
        head = sizes.generator_head_width
        self.seq2 = Layers((head, head, sizes.coefficients), rectify_last=False)

    def prepare(self, frames: Float[Array, "*frames c"], style: Float[Array, "*frames s"]) -> Float[Array, "*frames g"]:
        """Returns all that is computed of a frame by itself, for `finish`: windows that overlap can share it."""
        return self.lstm.project(self.seq1(jnp.concatenate([frames, style], axis=-1)))

    def finish(self, prepared: Float[Array, "b t g"]) -> Float[Array, "b t c"]:
        """Returns the coefficients of windows of prepared frames."""
        return self.seq2(self.lstm.run(prepared))

    def __call__(self, x: Float[Array, "b t c"], style: Float[Array, "b s"]) -> Float[Array, "b t c"]:
        """Returns windows in the wanted style."""
        repeated = jnp.broadcast_to(style[:, None, :], (*x.shape[:2], style.shape[-1]))
        return self.finish(self.prepare(x, repeated))


class EmotionLayer(nn.Module):
    """A linear layer for each emotion, all computed at once."""

    emotions: int
    width: int

    @nn.compact
    def __call__(self, x: Float[Array, "b e i"]) -> Float[Array, "b e o"]:
        """Returns each emotion's outputs of its inputs."""

        def he_normal(key: Array, shape: tuple[int, ...], dtype: DTypeLike = jnp.float32) -> Array:
            return math.sqrt(2 / shape[-2]) * jax.random.normal(key, shape, dtype)

        kernel = self.param("kernel", he_normal, (self.emotions, x.shape[-1], self.width))
        bias = self.param("bias", nn.initializers.zeros, (self.emotions, self.width), jnp.float32)
        return jnp.einsum("bei,eio->beo", x, kernel) + bias[None]


class MappingNetwork(nn.Module):
    """Makes a style from noise, for an emotion given by its label."""

    settings: ManipulatorSettings

    def setup(self) -> None:
        """Makes the layers that emotions share and those that each has for itself."""
        sizes = self.settings
        self.shared = Layers((sizes.hidden_size,) * 3, rectify_last=True)
        self.unshared0 = EmotionLayer(sizes.emotions, sizes.hidden_size)
        self.unshared1 = EmotionLayer(sizes.emotions, sizes.style_size)

    def __call__(self, z: Float[Array, "b z"], emotion: Int[Array, " b"]) -> Float[Array, "b s"]:
        """Returns one style a row."""
        hidden = self.shared(z)
        every = jnp.broadcast_to(hidden[:, None, :], (hidden.shape[0], self.settings.emotions, hidden.shape[-1]))
        styles = self.unshared1(nn.relu(self.unshared0(every)))
        return jnp.take_along_axis(styles, emotion[:, None, None], axis=1)[:, 0]


class SequenceEncoder(nn.Module):
    """Layers, BiLSTM, layers, mean over time: what style encoder and discriminator have in common."""

    settings: ManipulatorSettings
    outputs: int

    def setup(self) -> None:
        """Makes the layers before the LSTM, the LSTM and the layers after it."""
        sizes = self.settings
        self.seq1 = Layers(sizes.encoder_widths, rectify_last=True)
        self.lstm = BiLSTM(sizes.encoder_widths[-1], sizes.encoder_lstm_width, sizes.lstm_layers, sizes.lstm_biases)
        self.seq2 = Layers((*sizes.encoder_head_widths, self.outputs), rectify_last=False)

    def encode(self, x: Float[Array, "b t c"]) -> Float[Array, "b o"]:
        """Returns one vector a window."""
        return jnp.mean(self.seq2(self.lstm(self.seq1(x))), axis=1)


class StyleEncoder(SequenceEncoder):
    """Reads the style of a window."""

    def __call__(self, x: Float[Array, "b t c"]) -> Float[Array, "b s"]:
        """Returns one style a window."""
        return self.encode(x)


class Discriminator(SequenceEncoder):
    """Judges, for each emotion, whether a window is a real one of that emotion."""

    def __call__(self, x: Float[Array, "b t c"], emotion: Int[Array, " b"]) -> Float[Array, " b"]:
        """Returns the score for the emotion asked about; trained towards 1 for real windows and 0 for generated."""
        return jnp.take_along_axis(self.encode(x), emotion[:, None], axis=1)[:, 0]


NETWORKS = ("generator", "mapping_network", "style_encoder", "discriminator")
"""Names of the four networks, as in published checkpoints, in that order."""


def make_network(name: str, settings: ManipulatorSettings) -> nn.Module:
    """Returns the module of one of `NETWORKS`."""
    if name == "generator":
        return Generator(settings)
    if name == "mapping_network":
        return MappingNetwork(settings)
    if name == "style_encoder":
        return StyleEncoder(settings, outputs=settings.style_size)
    return Discriminator(settings, outputs=settings.emotions)


def init_manipulator(settings: ManipulatorSettings, key: Key[Array, ""]) -> Variables:
    """Returns fresh weights of the four networks, by name.

    As published: linear weights are normal with deviation sqrt(2 / inputs), their biases zero; all of an LSTM is
    uniform within 1 / sqrt(width).

    >>> sizes = ManipulatorSettings(generator_width=4, generator_head_width=4, encoder_widths=(4, 4))
    >>> networks = init_manipulator(sizes, jax.random.key(0))
    >>> sorted(networks), sorted(networks["generator"])
    (['discriminator', 'generator', 'mapping_network', 'style_encoder'], ['lstm', 'seq1', 'seq2'])
    """
    return _draw_networks(settings, key)


@functools.partial(jax.jit, static_argnums=0)
def _draw_networks(settings: ManipulatorSettings, key: Key[Array, ""]) -> Variables:
    shapes = jax.eval_shape(lambda: _modules_own(settings, jax.random.key(0)))
    # XLA takes a second or more to compile each random draw of the modules. Two draws, cut to pieces, have the same
    # distribution.
    size = sum(leaf.size for leaf in jax.tree.leaves(shapes))
    normal_key, uniform_key = jax.random.split(key)
    normal = cut_vector(jax.random.normal(normal_key, (size,), jnp.float32), shapes)
    uniform = cut_vector(jax.random.uniform(uniform_key, (size,), jnp.float32, -1.0, 1.0), shapes)

    def scaled(path: tuple[Any, ...], normal: Array, uniform: Array) -> Array:
        names = [entry.key for entry in path]
        if "lstm" in names:
            width = settings.generator_width if names[0] == "generator" else settings.encoder_lstm_width
            return width**-0.5 * uniform
        return math.sqrt(2 / normal.shape[-2]) * normal if names[-1] == "kernel" else jnp.zeros_like(normal)

    return jax.tree_util.tree_map_with_path(scaled, normal, uniform)


def _modules_own(settings: ManipulatorSettings, key: Key[Array, ""]) -> Variables:
    """Returns the weights as the modules make them themselves."""
    window = jnp.zeros((1, settings.window, settings.coefficients), jnp.float32)
    style, z = jnp.zeros((1, settings.style_size), jnp.float32), jnp.zeros((1, settings.latent_size), jnp.float32)
    emotion = jnp.zeros(1, jnp.int32)
    inputs = dict(zip(NETWORKS, ((window, style), (z, emotion), (window,), (window, emotion)), strict=True))
    return {name: make_network(name, settings).init(key, *given)["params"] for name, given in inputs.items()}


@struct.dataclass
class Manipulator:
    """The four networks with their weights.

    A pytree, so that it can be passed through `jit`; its methods are pure functions that compile nothing themselves.
    Windows are (batch, time, coefficients): column 0 the jaw's opening in radians, then the expression.

    Attributes:
      variables: Weights of each of `NETWORKS`, by name.
      settings: Sizes of the networks.
    """

    variables: Variables
    settings: ManipulatorSettings = struct.field(pytree_node=False)

    def generate(
        self, x: Float[Array | np.ndarray, "b t c"], style: Float[Array | np.ndarray, "b s"]
    ) -> Float[Array, "b t c"]:
        """Returns windows in another style."""
        return self._apply("generator", x, style)

    def prepare(
        self, frames: Float[Array | np.ndarray, "*frames c"], style: Float[Array | np.ndarray, "*frames s"]
    ) -> Float[Array, "*frames g"]:
        """Returns the part of `generate` that each frame has by itself, a fifth of the work.

        `finish` of windows of prepared frames equals `generate` of the windows: at inference, where windows overlap,
        it is computed once a frame.
        """
        return self._apply("generator", frames, style, method="prepare")

    def finish(self, prepared: Float[Array | np.ndarray, "b t g"]) -> Float[Array, "b t c"]:
        """Returns the rest of `generate` for windows of prepared frames."""
        return self._apply("generator", prepared, method="finish")

    def style_of_label(
        self, z: Float[Array | np.ndarray, "b z"], emotion: Int[Array | np.ndarray, " b"]
    ) -> Float[Array, "b s"]:
        """Returns styles of emotions given by label.

        Args:
          z: Standard normal noise; the same noise gives corresponding styles of different emotions.
          emotion: Positions in `asccl_jax.data.schema.EMOTIONS`.
        """
        return self._apply("mapping_network", z, emotion)

    def style_of(self, x: Float[Array | np.ndarray, "b t c"]) -> Float[Array, "b s"]:
        """Returns the styles of windows."""
        return self._apply("style_encoder", x)

    def judge(
        self, x: Float[Array | np.ndarray, "b t c"], emotion: Int[Array | np.ndarray, " b"]
    ) -> Float[Array, " b"]:
        """Returns how real windows look as ones of given emotions: near 1 for real ones, near 0 for generated."""
        return self._apply("discriminator", x, emotion)

    def with_networks(self, networks: Mapping[str, Any]) -> Manipulator:
        """Returns the manipulator with some networks' weights replaced."""
        return Manipulator({**self.variables, **networks}, self.settings)

    def _apply(self, name: str, *arguments: Any, method: str | None = None) -> Any:
        network = make_network(name, self.settings)
        return network.apply({"params": self.variables[name]}, *map(jnp.asarray, arguments), method=method)
