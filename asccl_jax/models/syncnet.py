"""SyncNet: embeddings of five frames of a mouth and of the sound beside them, near each other where the two agree."""

from __future__ import annotations

from flax import linen as nn
from jaxtyping import Array, Float

from asccl_jax.models.conv_norm import ConvNorm, max_pool, vector_norm

__all__ = ["CEPSTRA", "FRAMES", "LIP_SIZE", "SOUND_STEPS", "SyncNet"]

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
