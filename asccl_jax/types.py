"""Batches and states that travel between the parts: rank, unit and range of every field."""

from __future__ import annotations

from typing import Any, TypeAlias, no_type_check

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import struct
from jaxtyping import Array, Bool, Float32, Int, Key, Shaped, UInt8

from asccl_jax.errors import InputError

__all__ = [
    "Locations",
    "PairBatch",
    "SequenceBatch",
    "TrainState",
    "Variables",
    "WindowBatch",
    "check_image",
]

Variables: TypeAlias = dict[str, Any]
"""Flax variable collections: "params" and "batch_stats"."""

Locations: TypeAlias = tuple[Int[Array, "_ 2"], ...]
"""Centres (row, column) per stage, shared by all images of a batch and by query and key."""


@no_type_check  # a tree map puts shapes, shardings and None where arrays were
@struct.dataclass
class PairBatch:
    """Aligned frames of one speaker saying one sentence in two emotions.

    Attributes:
      query_image: Neutral frames, RGB, 0..255, at the size they are stored.
      key_image: Emotional frames of the same moment of speech, like `query_image`.
      index: Position of each pair in the data set's list of frame pairs; tells which examples a step saw.
    """

    query_image: UInt8[Array | np.ndarray, "b h w 3"]
    key_image: UInt8[Array | np.ndarray, "b h w 3"]
    index: Int[Array | np.ndarray, " b"]


@no_type_check  # a tree map puts shapes, shardings and None where arrays were
@struct.dataclass
class TrainState:
    """All that an update changes.

    Attributes:
      step: Updates done so far.
      params: Trainable weights.
      batch_stats: What is kept beside weights: running BatchNorm statistics, of a recurrent generator the last frames.
      opt_state: State of the optax optimiser.
      key: Base PRNG key; an update folds `step` into it and never replaces it.
    """

    step: Int[Array, ""]
    params: Variables
    batch_stats: Variables
    opt_state: optax.OptState
    key: Key[Array, ""]


@no_type_check  # a tree map puts shapes, shardings and None where arrays were
@struct.dataclass
class WindowBatch:
    """Windows of facial coefficients, each with another window whose style it may be given.

    Column 0 of a window is the jaw's opening in radians, the others are expression coefficients as the head model
    has them.

    Attributes:
      source: Windows to change.
      source_emotion: Emotion of each source, a position in `schema.EMOTIONS`.
      reference: Windows that show a style, drawn independently of the sources from the same windows.
      reference_emotion: Like `source_emotion`.
      index: Position of each source in the data set's list of windows; tells which examples a step saw.
      reference_index: Like `index`.
    """

    source: Float32[Array | np.ndarray, "b t c"]
    source_emotion: Int[Array | np.ndarray, " b"]
    reference: Float32[Array | np.ndarray, "b t c"]
    reference_emotion: Int[Array | np.ndarray, " b"]
    index: Int[Array | np.ndarray, " b"]
    reference_index: Int[Array | np.ndarray, " b"]


@no_type_check  # a tree map puts shapes, shardings and None where arrays were
@struct.dataclass
class SequenceBatch:
    """Aligned frames of talking faces with what a renderer draws them from, in sequences of consecutive frames.

    The first two frames only give context; the others are generated. All pictures are RGB, 0..255.

    Attributes:
      image: The frames themselves, background and all.
      nmfc_image: Normalised mean face coordinates of the head model.
      eyes_image: Discs where the pupils are.
      shape_image: The head model's surface in grey.
      mask: 255 where the face is, else 0.
      mouth_centre: Middle of the mouth (x, y) in whole pixels.
      face_box: Borders x0, y0, x1, y1 of the face in pixels, see `geometry.face_box`.
      begins: Whether nothing was drawn of a sequence before; else it goes on where the batch before ended.
      fresh_start: Whether a sequence begins as a video does: its first two frames repeat the third.
      index: Position of each sequence in the data set's list; tells which examples a step saw.
    """

    image: UInt8[Array | np.ndarray, "b t h w 3"]
    nmfc_image: UInt8[Array | np.ndarray, "b t h w 3"]
    eyes_image: UInt8[Array | np.ndarray, "b t h w 3"]
    shape_image: UInt8[Array | np.ndarray, "b t h w 3"]
    mask: UInt8[Array | np.ndarray, "b t h w 1"]
    mouth_centre: Int[Array | np.ndarray, "b t 2"]
    face_box: Float32[Array | np.ndarray, "b t 4"]
    begins: Bool[Array | np.ndarray, " b"]
    fresh_start: Bool[Array | np.ndarray, " b"]
    index: Int[Array | np.ndarray, " b"]


# Whether what a user hands to the metric can be images as it takes them: floats, RGB in [-1, 1], channels last.

_FARTHEST = 2.0
"""Resampling and generators without a bound overshoot [-1, 1], but not by so much."""


def check_image(image: Shaped[Array, "..."], name: str) -> None:
    """Refuses other shapes and whole numbers, also while tracing, and values that are no [-1, 1], once there are any.

    Args:
      image: What was given.
      name: What the caller calls it, for the message.

    Raises:
      InputError: See above.
    """
    if image.ndim != 4 or image.shape[-1] != 3 or not image.size:
        raise InputError(f"{name}: shape {tuple(image.shape)}, expected (batch, height, width, 3), channels last")
    turn = "image / 127.5 - 1"
    if not jnp.issubdtype(image.dtype, jnp.floating):
        raise InputError(
            f"{name}: {image.dtype}, expected floating-point RGB in [-1, 1]; of 0..255 that is"
            f" {turn.replace('image', 'image.astype(jnp.float32)')}"
        )
    if isinstance(image, jax.core.Tracer) or not getattr(image, "is_fully_addressable", True):
        return
    with jax.ensure_compile_time_eval():
        # A maximum need not be NaN where a value is: on CPU some are passed over.
        finite, farthest = bool(jnp.isfinite(image).all()), float(jnp.max(jnp.abs(image)))
    if not finite:
        raise InputError(f"{name}: NaN or infinite values, expected RGB in [-1, 1]")
    if farthest > _FARTHEST:
        raise InputError(f"{name}: values up to {farthest:g}, expected RGB in [-1, 1]; of 0..255 that is {turn}")
