"""Chunks of a sequence's frames, and how a generator draws one: frame by frame, each after the two before it.

A sequence is generated in chunks of a few frames, as published; an update of the networks sees one.
"""

from __future__ import annotations

from typing import Any, TypeAlias, no_type_check

import jax
import jax.numpy as jnp
from flax import struct
from jax import lax
from jaxtyping import Array, Float, Int

from asccl_jax.errors import InputError
from asccl_jax.models.renderer import IMAGE_CHANNELS, RendererGenerator, conditioning_windows, masked
from asccl_jax.types import SequenceBatch, Variables

__all__ = ["FrameChunk", "chunk_count", "cut_chunk", "generate_chunk", "in_one_row", "latest_frames"]

Frames: TypeAlias = Float[Array, "b k h w 3"]


@no_type_check  # a tree map puts axes, shapes and None where arrays were
@struct.dataclass
class FrameChunk:
    """Consecutive frames of some sequences, as the networks take them.

    Attributes:
      blocks: What frames are drawn from, 0..1: NMFC, eyes, shape; the context frames come first, then the chunk's own.
      mask: Where the face is, 0..1.
      real: The frames themselves, RGB in [-1, 1], -1 outside the mask.
      mouth_centre: Middle of the mouth (x, y) in pixels.
      face_box: Borders x0, y0, x1, y1 of the face in pixels, see `geometry.face_box`.
      scene: The frames with their background, RGB in [-1, 1].
    """

    blocks: Float[Array, "b c h w 9"]
    mask: Float[Array, "b k h w 1"]
    real: Float[Array, "b k h w 3"]
    mouth_centre: Int[Array, "b k 2"]
    face_box: Float[Array, "b k 4"]
    scene: Float[Array, "b k h w 3"]


def chunk_count(batch: SequenceBatch, *, chunk: int, context: int) -> int:
    """Returns how many chunks a sequence has after its context frames.

    Raises:
      InputError: The sequence cannot be cut into chunks without a rest.
    """
    frames = batch.image.shape[1] - context
    if frames < chunk or frames % chunk:
        raise InputError(
            f"sequences of {frames} frames after {context} of context: expected a multiple of the chunk, {chunk}"
        )
    return frames // chunk


def cut_chunk(batch: SequenceBatch, number: Int[Array, ""] | int, *, chunk: int, context: int) -> FrameChunk:
    """Returns chunk `number` of some sequences; only its own frames leave their 8 bits."""
    first = jnp.asarray(number * chunk, jnp.int32)

    def frames(values: Any, start: Array, count: int) -> Array:
        return lax.dynamic_slice_in_dim(jnp.asarray(values), start, count, axis=1)

    streams = (batch.nmfc_image, batch.eyes_image, batch.shape_image)
    blocks = jnp.concatenate([frames(stream, first, context + chunk) for stream in streams], axis=-1)
    own = first + context
    mask, scene = _unit(frames(batch.mask, own, chunk)), 2 * _unit(frames(batch.image, own, chunk)) - 1
    return FrameChunk(
        blocks=_unit(blocks),
        mask=mask,
        real=masked(scene, mask),
        mouth_centre=frames(batch.mouth_centre, own, chunk),
        face_box=frames(batch.face_box, own, chunk),
        scene=scene,
    )


def generate_chunk(
    generator: RendererGenerator,
    params: Variables,
    chunk: FrameChunk,
    previous: Float[Array, "b h w p"],
    *,
    backpropagate_frames: int = 1,
    remat: bool = False,
) -> Frames:
    """Returns the frames of a chunk, each drawn from the conditioning and the frames drawn before it.

    Args:
      generator: The network.
      params: Its weights.
      chunk: What to draw; its `real` frames are not looked at.
      previous: The two frames before the chunk, side by side, oldest first; zeros where there are none.
      backpropagate_frames: Frames after which the recurrence's gradient is cut; 1, as published, lets none through.
        Divides the chunk.
      remat: Whether the backward pass computes activations anew instead of keeping them.
    """
    rows, frames = chunk.mask.shape[:2]

    def apply(method: str, *inputs: Array) -> Any:
        return generator.apply({"params": params}, *inputs, method=method)

    if remat:
        apply = jax.checkpoint(apply, static_argnums=0)

    def in_groups(values: Array) -> Array:
        """Time first, in groups between which gradients are cut."""
        return values.swapaxes(0, 1).reshape(-1, backpropagate_frames, rows, *values.shape[2:])

    def draw_group(previous: Array, inputs: tuple[Array, Array]) -> tuple[Array, Array]:
        # Cuts the gradient of the frames before: they are given, as they are at test time.
        previous = lax.stop_gradient(previous)
        drawn = []
        for encoded, mask in zip(*inputs, strict=True):
            drawn.append(apply("decode", encoded, previous, mask))
            previous = jnp.concatenate([previous[..., IMAGE_CHANNELS:], drawn[-1]], axis=-1)
        return previous, jnp.stack(drawn)

    # The conditioning does not depend on what was drawn: all frames in one pass.
    windows = jnp.asarray(conditioning_windows(chunk.blocks, generator.settings.context_frames))
    encoded = apply("encode_conditioning", windows.reshape(rows * frames, *windows.shape[2:]))
    encoded = encoded.reshape(rows, frames, *encoded.shape[1:])
    _, drawn = lax.scan(draw_group, previous, (in_groups(encoded), in_groups(chunk.mask)))
    return drawn.reshape(frames, *drawn.shape[2:]).swapaxes(0, 1)


def in_one_row(values: Array) -> Array:
    """Returns frames of several sequences ("b k ...") as one row of frames."""
    return values.reshape(-1, *values.shape[2:])


def latest_frames(frames: Frames, count: int) -> Float[Array, "b h w p"]:
    """Returns the last frames of a chunk side by side, oldest first, without a gradient."""
    # Cuts the gradient between chunks: each is a step of its own.
    last = lax.stop_gradient(frames[:, -count:])
    return jnp.concatenate([last[:, number] for number in range(count)], axis=-1)


def _unit(image_u8: Array) -> Array:
    return image_u8.astype(jnp.float32) / 255
