"""Networks that score faces: ArcFace, ResNetFace, EfficientFace, SyncNet."""

from __future__ import annotations

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from asccl_jax.models.conv_norm import ConvNorm, max_pool, vector_norm
from asccl_jax.models.convolution import Convolution
from asccl_jax.models.iresnet import IResNet, PReLU
from asccl_jax.models.normalisation import BatchNorm

__all__ = [
    "ATTENTION_WIDTH",
    "BLOCKS",
    "CEPSTRA",
    "EMOTIONS_OF_CLASSES",
    "FRAMES",
    "LIP_SIZE",
    "QUADRANTS",
    "SOUND_STEPS",
    "ArcFace",
    "EfficientFace",
    "ResNetFace",
    "SyncNet",
]


class ArcFace(nn.Module):
    """IResNet with its embedding; evaluated only.

    Attributes:
      stage_blocks: Residual blocks of each stage: (3, 4, 14, 3) of depth 50, (3, 13, 30, 3) of depth 100.
      stage_widths: Channels of each stage.
      embedding: Numbers that come out.
      image_size: Side of the pictures, a multiple of 16, which the linear layer is made for.
    """

    stage_blocks: tuple[int, int, int, int] = (3, 4, 14, 3)
    stage_widths: tuple[int, int, int, int] = (64, 128, 256, 512)
    embedding: int = 512
    image_size: int = 112

    @property
    def input_shapes(self) -> tuple[tuple[int, ...], ...]:
        """Shapes of what it takes, without the batch."""
        return ((self.image_size, self.image_size, 3),)

    @nn.compact
    def __call__(self, image: Float[Array, "b h w 3"]) -> Float[Array, "b d"]:
        """Returns embeddings, not of unit length, of aligned RGB faces in [-1, 1]."""
        x = IResNet(self.stage_blocks, self.stage_widths, name="trunk")(image, train=False)[-1]
        x = BatchNorm(name="map_norm")(x, train=False)
        x = nn.Dense(self.embedding, name="embedding")(x.reshape(x.shape[0], -1))
        return vector_norm(x, name="embedding_norm")


# ResNetFace-18, whose embeddings of grey faces the Fréchet distance of the published tables is taken of.

BLOCKS = 2
"""Residual blocks of each stage."""


class ResNetFace(nn.Module):
    """Stem, four stages of two blocks, a linear layer; evaluated only.

    Attributes:
      widths: Channels of each stage.
      embedding: Numbers that come out.
      image_size: Side of the pictures, a multiple of 16, which the linear layer is made for.
    """

    widths: tuple[int, ...] = (64, 128, 256, 512)
    embedding: int = 512
    image_size: int = 128

    @property
    def input_shapes(self) -> tuple[tuple[int, ...], ...]:
        """Shapes of what it takes, without the batch."""
        return ((self.image_size, self.image_size, 1),)

    @nn.compact
    def __call__(self, image: Float[Array, "b h w 1"]) -> Float[Array, "b d"]:
        """Returns embeddings, not normalised, of grey pictures in [-1, 1]."""
        x = Convolution(self.widths[0], name="stem_conv")(image)
        x = BatchNorm(name="stem_norm")(x, train=False)
        x = max_pool(PReLU(shared=True, name="stem_activation")(x), 2, 2)
        for stage, width in enumerate(self.widths, start=1):
            for block in range(BLOCKS):
                stride = 2 if stage > 1 and block == 0 else 1
                x = _Block(width, stride, name=f"stage{stage}_block{block}")(x)
        x = BatchNorm(name="map_norm")(x, train=False)
        x = nn.Dense(self.embedding, name="embedding")(x.reshape(x.shape[0], -1))
        return vector_norm(x, name="embedding_norm")


class _Block(nn.Module):
    """BatchNorm, convolution, BatchNorm, PReLU, convolution, BatchNorm, plus the shortcut, and the same PReLU again."""

    width: int
    stride: int

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h2 w2 d"]:
        channels = x.shape[-1]
        activation = PReLU(shared=True, name="activation")
        residual = BatchNorm(name="norm0")(x, train=False)
        residual = Convolution(channels, name="conv1")(residual)
        residual = activation(BatchNorm(name="norm1")(residual, train=False))
        residual = Convolution(self.width, stride=self.stride, name="conv2")(residual)
        residual = BatchNorm(name="norm2")(residual, train=False)
        if self.stride > 1 or channels != self.width:
            x = Convolution(self.width, 1, self.stride, name="shortcut_conv")(x)
            x = BatchNorm(name="shortcut_norm")(x, train=False)
        return activation(residual + x)


# EfficientFace: expression features and the seven emotions of AffectNet, by a ShuffleNet-V2 with local features.

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


# SyncNet: embeddings of five frames of a mouth and of the sound beside them, near each other where the two agree.

FRAMES = 5
"""Frames of a window, all of which the first convolution covers at once."""

LIP_SIZE = 224
"""Side of a frame, which the last convolution is made for."""

CEPSTRA, SOUND_STEPS = 13, 20
"""Coefficients of the sound, and columns of them in a window."""


class SyncNet(nn.Module):
    """Two towers of six convolutions and two linear layers each; evaluated only.

    Attributes:
      lip_widths: Channels of the convolutions over pictures.
      audio_widths: Channels of the convolutions over sound.
      hidden: Channels between the linear layers.
      embedding: Numbers that come out.
    """

    lip_widths: tuple[int, ...] = (96, 256, 256, 256, 256, 512)
    audio_widths: tuple[int, ...] = (64, 192, 384, 256, 256, 512)
    hidden: int = 512
    embedding: int = 1024

    @property
    def input_shapes(self) -> tuple[tuple[int, ...], ...]:
        """Shapes of what it takes, without the batch."""
        return (FRAMES, LIP_SIZE, LIP_SIZE, 3), (SOUND_STEPS, CEPSTRA)

    def setup(self) -> None:
        """Makes the towers."""
        self.lip_tower = _LipTower(self.lip_widths)
        self.lip_head = _Head(self.hidden, self.embedding)
        self.audio_tower = _AudioTower(self.audio_widths)
        self.audio_head = _Head(self.hidden, self.embedding)

    def __call__(
        self, windows: Float[Array, "b 5 224 224 3"], mfcc: Float[Array, "b 20 13"]
    ) -> tuple[Float[Array, "b d"], Float[Array, "b d"]]:
        """Returns both embeddings; visits all weights, so that `init` makes them all."""
        return self.lip(windows), self.audio(mfcc)

    def lip(self, windows: Float[Array, "b 5 224 224 3"]) -> Float[Array, "b d"]:
        """Returns embeddings of windows of frames, BGR in 0..255."""
        return self.lip_head(self.lip_tower(windows))

    def audio(self, mfcc: Float[Array, "b 20 13"]) -> Float[Array, "b d"]:
        """Returns embeddings of windows of sound: columns of cepstral coefficients."""
        return self.audio_head(self.audio_tower(mfcc))


class _LipTower(nn.Module):
    widths: tuple[int, ...]

    @nn.compact
    def __call__(self, windows: Float[Array, "b t h w 3"]) -> Float[Array, "b c"]:
        # The published convolutions are of three dimensions; as the first covers all frames and the others one each,
        # frames are channels here and every convolution is of two.
        batch, frames, height, width, channels = windows.shape
        x = windows.transpose(0, 2, 3, 1, 4).reshape(batch, height, width, frames * channels)
        x = _convolution(self.widths, 0, 7, x, stride=2)
        x = max_pool(x, 3, 2)
        x = _convolution(self.widths, 1, 5, x, stride=2, padding=1)
        x = max_pool(x, 3, 2, padding=1)
        for number in (2, 3, 4):
            x = _convolution(self.widths, number, 3, x, padding=1)
        x = max_pool(x, 3, 2)
        x = _convolution(self.widths, 5, 6, x)
        return x.reshape(batch, -1)


class _AudioTower(nn.Module):
    widths: tuple[int, ...]

    @nn.compact
    def __call__(self, mfcc: Float[Array, "b t k"]) -> Float[Array, "b c"]:
        x = mfcc.swapaxes(1, 2)[..., None]
        x = _convolution(self.widths, 0, 3, x, padding=1)
        x = _convolution(self.widths, 1, 3, x, padding=1)
        x = max_pool(x, 3, (1, 2))
        for number in (2, 3, 4):
            x = _convolution(self.widths, number, 3, x, padding=1)
        x = max_pool(x, 3, 2)
        x = _convolution(self.widths, 5, (5, 4), x)
        return x.reshape(x.shape[0], -1)


class _Head(nn.Module):
    hidden: int
    embedding: int

    @nn.compact
    def __call__(self, x: Float[Array, "b c"]) -> Float[Array, "b d"]:
        x = nn.relu(vector_norm(nn.Dense(self.hidden, name="hidden")(x), name="norm"))
        return nn.Dense(self.embedding, name="output")(x)


def _convolution(
    widths: tuple[int, ...],
    number: int,
    kernel: int | tuple[int, int],
    x: Float[Array, "b h w c"],
    *,
    stride: int = 1,
    padding: int = 0,
) -> Float[Array, "b h2 w2 d"]:
    sides = (kernel, kernel) if isinstance(kernel, int) else kernel
    return ConvNorm(widths[number], sides, stride, padding, use_bias=True, name=f"conv{number}")(x)
