"""EfficientFace: expression features and the seven emotions of AffectNet, by a ShuffleNet-V2 with local features."""

from __future__ import annotations

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from asccl_jax.models.conv_norm import ConvNorm, max_pool, vector_norm

__all__ = ["ATTENTION_WIDTH", "EMOTIONS_OF_CLASSES", "QUADRANTS", "EfficientFace"]

EMOTIONS_OF_CLASSES = ("neutral", "happy", "sad", "surprised", "fear", "disgusted", "angry")
"""What AffectNet's classes 0 to 6 are called here."""

QUADRANTS = ("top_left", "bottom_left", "top_right", "bottom_right")
"""Parts of the picture that have convolutions of their own, in the published order."""

ATTENTION_WIDTH = 7
"""Channels inside the modulator."""


class EfficientFace(nn.Module):
    """ShuffleNet-V2 whose first stage is modulated and joined by features of the four quadrants; evaluated only.

    Attributes:
      stem_width: Channels before the stages.
      stage_widths: Channels of the three stages.
      stage_units: Units of each stage.
      features: Features that the classes are told from.
      classes: Emotions.
      image_size: Side of the pictures, a multiple of 32.
    """

    stem_width: int = 29
    stage_widths: tuple[int, ...] = (116, 232, 464)
    stage_units: tuple[int, ...] = (4, 8, 4)
    features: int = 1024
    classes: int = len(EMOTIONS_OF_CLASSES)
    image_size: int = 224

    @property
    def input_shapes(self) -> tuple[tuple[int, ...], ...]:
        """Shapes of what it takes, without the batch."""
        return ((self.image_size, self.image_size, 3),)

    @nn.compact
    def __call__(self, image: Float[Array, "b h w 3"]) -> tuple[Float[Array, "b d"], Float[Array, "b k"]]:
        """Returns features and logits of RGB pictures, normalised by mean and deviation of the training set."""
        x = ConvNorm(self.stem_width, (3, 3), stride=2, padding=1, name="stem")(image)
        stem = max_pool(x, 3, 2, padding=1)
        x = stem
        for stage, (width, units) in enumerate(zip(self.stage_widths, self.stage_units, strict=True), start=2):
            for unit in range(units):
                x = _Unit(width, 2 if unit == 0 else 1, name=f"stage{stage}_unit{unit}")(x)
            if stage == 2:
                x = _Modulator(name="modulator")(x) + _LocalFeatures(width, name="local")(stem)
        x = ConvNorm(self.features, name="head")(x)
        features = jnp.mean(x, axis=(1, 2))
        return features, nn.Dense(self.classes, name="classes")(features)


class _Unit(nn.Module):
    """Unit of ShuffleNet-V2: half of the channels pass, or both branches halve the map; then channels are mixed."""

    width: int
    stride: int

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h2 w2 d"]:
        half = self.width // 2
        if self.stride == 1:
            kept, x = jnp.split(x, 2, axis=-1)
        else:
            kept = self._depthwise("branch1_depthwise", x)
            kept = ConvNorm(half, name="branch1_mix")(kept)
        x = ConvNorm(half, name="branch2_first")(x)
        x = self._depthwise("branch2_depthwise", x)
        x = ConvNorm(half, name="branch2_mix")(x)
        return _shuffled(jnp.concatenate([kept, x], axis=-1))

    def _depthwise(self, name: str, x: Float[Array, "b h w c"]) -> Float[Array, "b h2 w2 c"]:
        width = x.shape[-1]
        return ConvNorm(width, (3, 3), self.stride, padding=1, groups=width, rectify=False, name=name)(x)


def _shuffled(x: Float[Array, "b h w c"]) -> Float[Array, "b h w c"]:
    """Returns channels of the first and of the second half by turns."""
    batch, height, width, channels = x.shape
    return x.reshape(batch, height, width, 2, channels // 2).swapaxes(3, 4).reshape(x.shape)


class _LocalFeatures(nn.Module):
    """Depthwise convolutions of each quadrant by itself, put together again at half the side."""

    width: int

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h2 w2 d"]:
        height, width, channels = x.shape[1] // 2, x.shape[2] // 2, x.shape[3]
        parts = {}
        for quadrant in QUADRANTS:
            top = slice(0, height) if quadrant.startswith("top") else slice(height, None)
            left = slice(0, width) if quadrant.endswith("left") else slice(width, None)
            part = ConvNorm(self.width, (3, 3), 2, padding=1, groups=channels, name=f"{quadrant}1")(x[:, top, left])
            parts[quadrant] = ConvNorm(self.width, (3, 3), padding=1, groups=self.width, name=f"{quadrant}2")(part)
        rows = [jnp.concatenate([parts[f"{row}_left"], parts[f"{row}_right"]], axis=2) for row in ("top", "bottom")]
        return jnp.concatenate(rows, axis=1)


class _Modulator(nn.Module):
    """Weighs every channel and every place of a map, between 0 and 1."""

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h w c"]:
        channel = nn.Dense(ATTENTION_WIDTH, name="channel_reduce")(jnp.mean(x, axis=(1, 2)))
        channel = nn.relu(vector_norm(channel, name="channel_norm"))
        channel = nn.Dense(x.shape[-1], name="channel_final")(channel)
        place = ConvNorm(ATTENTION_WIDTH, use_bias=True, name="place_reduce")(x)
        for number in range(2):
            place = ConvNorm(
                ATTENTION_WIDTH, (3, 3), padding=4, dilation=4, use_bias=True, name=f"place_dilated{number}"
            )(place)
        place = nn.Conv(1, (1, 1), name="place_final")(place)
        return nn.sigmoid(channel[:, None, None] * place) * x
