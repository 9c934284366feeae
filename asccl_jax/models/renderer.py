"""The neural renderer: a recurrent generator that draws frames from their conditioning and from its own last frames."""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from flax import struct, traverse_util
from jaxtyping import Array, DTypeLike, Float, Key

from asccl_jax.models.convolution import Convolution, TransposedConvolution
from asccl_jax.models.normalisation import InstanceNorm, at_least_float32
from asccl_jax.settings import RendererSettings
from asccl_jax.trees import cut_vector
from asccl_jax.types import Variables

__all__ = [
    "IMAGE_CHANNELS",
    "RENDERER_DEVIATION",
    "MultiscaleDiscriminator",
    "Renderer",
    "RendererGenerator",
    "conditioning_windows",
    "init_renderer",
    "masked",
    "network_names",
    "scale_widths",
]

# Discriminator that judges overlapping patches of an image, at several resolutions.

RENDERER_DEVIATION = 0.02
"""Standard deviation of fresh kernels of the renderer's networks."""

_LARGEST_FIRST_WIDTH = 64
_LARGEST_WIDTH = 512


def scale_widths(settings: RendererSettings, scale: int) -> tuple[int, ...]:
    """Returns the output channels of each layer at a scale, 0 being the full resolution.

    >>> scale_widths(RendererSettings(discriminator_width=8), 1)
    (16, 32, 64, 128, 1)
    """
    first = min(_LARGEST_FIRST_WIDTH, settings.discriminator_width * 2**scale)
    inner = (min(_LARGEST_WIDTH, first * 2**layer) for layer in range(settings.discriminator_layers + 1))
    return (*inner, 1)


class PatchDiscriminator(nn.Module):
    """A row of 4x4 convolutions; each value of the last map judges one patch.

    Attributes:
      widths: Output channels of each layer. All but the last two halve the side; all but the first and the last
        normalise.
      dtype: Type of the computation.
      conv_implementation: "auto", "xla", "phase" or "shifts", see `convolution.convolve`.
    """

    widths: tuple[int, ...]
    dtype: DTypeLike = jnp.float32
    conv_implementation: str = "auto"

    @nn.compact
    def __call__(self, x: Float[Array, "n h w c"]) -> list[Float[Array, "n _ _ _"]]:
        """Returns every layer's map, the judgements last, in float32."""
        last, maps = len(self.widths) - 1, []
        for layer, width in enumerate(self.widths):
            x = Convolution(
                width,
                kernel_size=4,
                stride=2 if layer < last - 1 else 1,
                dtype=self.dtype,
                implementation=self.conv_implementation,
                padding=2,
                use_bias=True,
                deviation=RENDERER_DEVIATION,
                name=f"layer{layer}",
            )(x)
            if 0 < layer < last:
                x = InstanceNorm(dtype=self.dtype, name=f"norm{layer}")(x)
            if layer < last:
                x = nn.leaky_relu(x, 0.2)
            maps.append(x.astype(at_least_float32(x.dtype)))
        return maps


class MultiscaleDiscriminator(nn.Module):
    """Patch discriminators with weights of their own at full resolution, half of it and on.

    Attributes:
      settings: Sizes of the networks.
      dtype: Type of the computation.
      conv_implementation: "auto", "xla", "phase" or "shifts", see `convolution.convolve`.
    """

    settings: RendererSettings
    dtype: DTypeLike = jnp.float32
    conv_implementation: str = "auto"

    @nn.compact
    def __call__(self, x: Float[Array, "n h w c"]) -> list[list[Float[Array, "n _ _ _"]]]:
        """Returns the maps of every scale, the full resolution first.

        Args:
          x: A frame's conditioning, then the image that is judged, its channels last.
        """
        judgements = []
        for scale in range(self.settings.discriminator_scales):
            if scale:
                edges = ((1, 1), (1, 1))
                x = nn.avg_pool(x, (3, 3), (2, 2), padding=edges, count_include_pad=False)
            widths = scale_widths(self.settings, scale)
            judge = PatchDiscriminator(widths, self.dtype, self.conv_implementation, name=f"scale{scale}")
            judgements.append(judge(x))
        return judgements


IMAGE_CHANNELS = 3


def conditioning_windows(
    blocks: Float[Array | np.ndarray, "b t h w c"], frames: int = 3
) -> Float[Array | np.ndarray, "b t2 h w k"]:
    """Returns, for every frame but the first `frames - 1`, its conditioning and that of those before, oldest first.

    >>> blocks = jnp.arange(4.0).reshape(1, 4, 1, 1, 1)
    >>> conditioning_windows(blocks)[0, :, 0, 0].tolist()
    [[0.0, 1.0, 2.0], [1.0, 2.0, 3.0]]
    """
    count = blocks.shape[1] - frames + 1
    return jnp.concatenate([blocks[:, first : first + count] for first in range(frames)], axis=-1)


def masked(image: Float[Array, "*n h w 3"], mask: Float[Array, "*n h w 1"]) -> Float[Array, "*n h w 3"]:
    """Returns the image where the mask is 1, and the background's -1 where it is 0.

    >>> masked(jnp.full((1, 2, 3), 0.5), jnp.array([[[1.0], [0.0]]]))[0, :, 0].tolist()
    [0.5, -1.0]
    """
    return image * mask - (1 - mask)


class ResidualBlock(nn.Module):
    """Two convolutions with reflected borders, added to what came in."""

    width: int
    dtype: DTypeLike = jnp.float32
    conv_implementation: str = "auto"

    @nn.compact
    def __call__(self, x: Float[Array, "n h w c"]) -> Float[Array, "n h w c"]:
        """Returns the sum; no rectifier follows."""
        y = self._normalised("conv0", "norm0", x)
        return x + self._normalised("conv1", "norm1", nn.relu(y))

    def _normalised(self, conv: str, norm: str, x: Array) -> Array:
        y = Convolution(
            self.width,
            dtype=self.dtype,
            implementation=self.conv_implementation,
            reflect=True,
            use_bias=True,
            deviation=RENDERER_DEVIATION,
            name=conv,
        )(x)
        return InstanceNorm(dtype=self.dtype, name=norm)(y)


class Encoder(nn.Module):
    """Brings images to the generator's smallest side: a wide convolution, halvings, residual blocks."""

    settings: RendererSettings
    dtype: DTypeLike = jnp.float32
    conv_implementation: str = "auto"

    @nn.compact
    def __call__(self, x: Float[Array, "n h w c"]) -> Float[Array, "n h2 w2 d"]:
        """Returns the encoded maps."""
        width = self.settings.generator_width
        for level in range(self.settings.downsamplings + 1):
            x = Convolution(
                width * 2**level,
                kernel_size=3 if level else 7,
                stride=2 if level else 1,
                dtype=self.dtype,
                implementation=self.conv_implementation,
                reflect=level == 0,
                use_bias=True,
                deviation=RENDERER_DEVIATION,
                name=f"conv{level}",
            )(x)
            x = nn.relu(InstanceNorm(dtype=self.dtype, name=f"norm{level}")(x))
        for number in range(self.settings.encoder_blocks):
            x = ResidualBlock(x.shape[-1], self.dtype, self.conv_implementation, name=f"block{number}")(x)
        return x


class Decoder(nn.Module):
    """Brings the sum of what was encoded back to an image: residual blocks, doublings, a wide convolution."""

    settings: RendererSettings
    dtype: DTypeLike = jnp.float32
    conv_implementation: str = "auto"

    @nn.compact
    def __call__(self, x: Float[Array, "n h w d"]) -> Float[Array, "n h2 w2 3"]:
        """Returns the image in [-1, 1], in float32."""
        for number in range(self.settings.decoder_blocks):
            x = ResidualBlock(x.shape[-1], self.dtype, self.conv_implementation, name=f"block{number}")(x)
        for level in range(self.settings.downsamplings):
            x = TransposedConvolution(
                x.shape[-1] // 2, self.dtype, self.conv_implementation, RENDERER_DEVIATION, name=f"up{level}"
            )(x)
            x = nn.relu(InstanceNorm(dtype=self.dtype, name=f"norm{level}")(x))
        image = Convolution(
            IMAGE_CHANNELS,
            kernel_size=7,
            dtype=self.dtype,
            implementation=self.conv_implementation,
            reflect=True,
            use_bias=True,
            deviation=RENDERER_DEVIATION,
            name="last",
        )(x)
        return jnp.tanh(image.astype(at_least_float32(image.dtype)))


class RendererGenerator(nn.Module):
    """Draws a frame from the conditioning of three frames and the last two frames it drew.

    Conditioning does not depend on what was drawn: all frames of a sequence can be encoded as one batch, and only the
    rest be done frame by frame.

    Attributes:
      settings: Sizes of the network.
      dtype: Type of the computation; statistics are float32 whatever it is, and so are the images.
      conv_implementation: "auto", "xla", "phase" or "shifts", see `convolution.convolve`.
    """

    settings: RendererSettings
    dtype: DTypeLike = jnp.float32
    conv_implementation: str = "auto"

    def setup(self) -> None:
        """Makes the two encoders and the decoder."""
        self.conditioning_encoder = Encoder(self.settings, self.dtype, self.conv_implementation)
        self.previous_encoder = Encoder(self.settings, self.dtype, self.conv_implementation)
        self.decoder = Decoder(self.settings, self.dtype, self.conv_implementation)

    def encode_conditioning(self, blocks: Float[Array, "n h w c"]) -> Float[Array, "n h2 w2 d"]:
        """Returns what the conditioning contributes.

        Args:
          blocks: Rows of `conditioning_windows`, in [0, 1].
        """
        return self.conditioning_encoder(blocks)

    def decode(
        self, encoded: Float[Array, "n h2 w2 d"], previous: Float[Array, "n h w p"], mask: Float[Array, "n h w 1"]
    ) -> Float[Array, "n h w 3"]:
        """Returns the frames, masked.

        Args:
          encoded: What `encode_conditioning` returned.
          previous: Last two frames, oldest first. Where both are zero, as before the first frame of a video, they
            contribute exactly nothing and get no gradient. The published network has a constant map there, whose
            rounding errors its normalisation blows up to full size.
          mask: 1 where the face is, else 0.
        """
        started = jnp.any(previous != 0, axis=(1, 2, 3), keepdims=True)
        contribution = self.previous_encoder(previous)
        image = self.decoder(encoded + jnp.where(started, contribution, jnp.zeros_like(contribution)))
        return masked(image, mask.astype(image.dtype))

    def __call__(
        self, blocks: Float[Array, "n h w c"], previous: Float[Array, "n h w p"], mask: Float[Array, "n h w 1"]
    ) -> Float[Array, "n h w 3"]:
        """Returns the frames, masked: `decode` of `encode_conditioning`."""
        return self.decode(self.encode_conditioning(blocks), previous, mask)


def network_names(settings: RendererSettings) -> tuple[str, ...]:
    """Returns the names of a renderer's networks.

    >>> network_names(RendererSettings())
    ('generator', 'discriminator', 'mouth_discriminator')
    """
    return ("generator", *settings.discriminators)


def init_renderer(settings: RendererSettings, key: Key[Array, ""]) -> Variables:
    """Returns fresh weights of the generator and the discriminators, by name.

    As published: kernels are normal with deviation 0.02, biases uniform within 1 / sqrt(inputs).

    >>> sizes = RendererSettings(generator_width=2, discriminator_width=2, residual_blocks=2)
    >>> networks = jax.eval_shape(lambda key: init_renderer(sizes, key), jax.random.key(0))
    >>> sorted(networks), sorted(networks["generator"])
    (['discriminator', 'generator', 'mouth_discriminator'], ['conditioning_encoder', 'decoder', 'previous_encoder'])
    """
    return _draw_networks(settings, key)


@functools.partial(jax.jit, static_argnums=0)
def _draw_networks(settings: RendererSettings, key: Key[Array, ""]) -> Variables:
    shapes = traverse_util.flatten_dict(jax.eval_shape(lambda: _modules_own(settings, jax.random.key(0))))
    kernels = {path: shape for path, shape in shapes.items() if path[-1] == "kernel"}
    biases = {path: shape for path, shape in shapes.items() if path[-1] == "bias"}
    # XLA takes long to compile each random draw of the modules. Two draws, cut to pieces, have the same distribution.
    kernel_key, bias_key = jax.random.split(key)
    count, bias_count = (sum(leaf.size for leaf in leaves.values()) for leaves in (kernels, biases))
    normal = cut_vector(jax.random.normal(kernel_key, (count,), jnp.float32), kernels)
    uniform = cut_vector(jax.random.uniform(bias_key, (bias_count,), jnp.float32, -1.0, 1.0), biases)
    drawn = {path: RENDERER_DEVIATION * kernel for path, kernel in normal.items()}
    drawn |= {path: bias / math.sqrt(_fan_in(path, shapes)) for path, bias in uniform.items()}
    return traverse_util.unflatten_dict(drawn)


def _fan_in(path: tuple[str, ...], shapes: Mapping[tuple[str, ...], Any]) -> int:
    """Returns the inputs of a layer as PyTorch counts them: for a transposed convolution its outputs."""
    height, width, channels, features = shapes[(*path[:-1], "kernel")].shape
    return height * width * (features if path[-2].startswith("up") else channels)


def _modules_own(settings: RendererSettings, key: Key[Array, ""]) -> Variables:
    """Returns the weights as the modules make them themselves."""
    side = settings.image_size
    block = settings.conditioning_channels
    windows = jnp.zeros((1, side, side, settings.context_frames * block), jnp.float32)
    previous = jnp.zeros((1, side, side, settings.previous_frames * IMAGE_CHANNELS), jnp.float32)
    judged = jnp.zeros((1, side, side, block + IMAGE_CHANNELS), jnp.float32)
    generator = RendererGenerator(settings).init(key, windows, previous, judged[..., :1])["params"]
    judge = MultiscaleDiscriminator(settings).init(key, judged)["params"]
    return {"generator": generator, **dict.fromkeys(settings.discriminators, judge)}


@struct.dataclass
class Renderer:
    """The generator with its weights, and with those of the discriminators where they are wanted.

    A pytree, so that it can be passed through `jit`; its methods are pure functions that compile nothing themselves.

    Attributes:
      params: Weights by network; "generator" is needed.
      settings: Sizes of the networks.
      dtype: Type of the computation.
      conv_implementation: "auto", "xla", "phase" or "shifts", see `convolution.convolve`.
    """

    params: Variables
    settings: RendererSettings = struct.field(pytree_node=False)
    dtype: DTypeLike = struct.field(pytree_node=False, default=jnp.float32)
    conv_implementation: str = struct.field(pytree_node=False, default="auto")

    def encode(self, blocks: Float[Array | np.ndarray, "n h w c"]) -> Float[Array, "n h2 w2 d"]:
        """Returns what the conditioning contributes; see `RendererGenerator.encode_conditioning`."""
        return self._apply("encode_conditioning", blocks)

    def decode(
        self,
        encoded: Float[Array | np.ndarray, "n h2 w2 d"],
        previous: Float[Array | np.ndarray, "n h w p"],
        mask: Float[Array | np.ndarray, "n h w 1"],
    ) -> Float[Array, "n h w 3"]:
        """Returns the frames, masked; see `RendererGenerator.decode`."""
        return self._apply("decode", encoded, previous, mask)

    def _apply(self, method: str, *arguments: Any) -> Any:
        generator = RendererGenerator(self.settings, self.dtype, self.conv_implementation)
        return generator.apply({"params": self.params["generator"]}, *map(jnp.asarray, arguments), method=method)
