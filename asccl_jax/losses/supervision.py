"""The frozen metric as a loss for any generator of faces written in JAX."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Array, Float, Key, Shaped

from asccl_jax.errors import InputError
from asccl_jax.image.face_crop import crop_faces
from asccl_jax.losses.contrastive import CorrelationParts, correlation_loss
from asccl_jax.sampling import map_sizes, sample_locations
from asccl_jax.settings import MetricSettings
from asccl_jax.types import Locations, check_image

__all__ = ["Metric", "asccl_loss"]


@runtime_checkable
class Metric(Protocol):
    """What the loss needs of a metric; `asccl_jax.weights.FrozenMetric` has it."""

    @property
    def settings(self) -> MetricSettings:
        """Network and conventions of the metric."""

    def features(self, image: Shaped[Array, "b h w 3"]) -> tuple[Float[Array, "b _ _ _"], ...]:
        """Returns the feature maps of the four stages."""

    def embed(self, level: int, disparities: Float[Array, "b p c"]) -> Float[Array, "b p e"]:
        """Returns unit embeddings of the disparities of a stage."""


def asccl_loss(
    metric: Metric,
    query_image: Shaped[Array, "*b_h_w_3"],
    key_image: Shaped[Array, "*b_h2_w2_3"],
    key: Key[Array, ""],
    *,
    face_box: Float[Array | np.ndarray, "b 4"] | None = None,
    locations: Locations | None = None,
) -> tuple[Float[Array, ""], CorrelationParts]:
    """Returns how far the generated faces leave the speech of the real ones, and the parts of that number.

    Add it to a generator's loss in three lines, one before the training step and two in it (which is under `jit`):

    >>> import jax
    >>> from asccl_jax.weights import FrozenMetric
    >>> from asccl_jax.losses import landmark_box
    >>> from asccl_jax.models.correlation import init_variables
    >>> settings = MetricSettings(stage_blocks=(1, 1, 1, 1), stage_widths=(4, 4, 8, 8), image_size=40)
    >>> generated, source = jax.random.uniform(jax.random.key(1), (2, 1, 48, 48, 3), minval=-1, maxval=1)

    >>> metric = FrozenMetric(init_variables(settings, jax.random.key(0)), settings)  # or load_metric("path/to/best")
    >>> correlation, parts = jax.jit(asccl_loss)(metric, generated, source, jax.random.key(2))
    >>> total = 0.0 + correlation

    >>> parts.stage_nce.shape, bool(total > 0)
    ((4,), True)

    The metric knows faces as they fill their box. Of whole frames say where the source's face is, by its 68 landmarks:

    >>> landmarks = jax.random.uniform(jax.random.key(3), (1, 68, 2), minval=8, maxval=40)
    >>> box = landmark_box(landmarks)
    >>> correlation, _ = jax.jit(asccl_loss)(metric, generated, source, jax.random.key(2), face_box=box)

    Works under `jit`, `grad` and `vmap`. The gradient reaches `query_image` only: neither the key image, nor the
    metric's weights, nor its statistics move.

    Args:
      metric: A frozen metric.
      query_image: Generated faces [batch, height, width, 3], floating-point RGB in [-1, 1], of any size of at least 33
        pixels; resized to the metric's. Keep the background of a generator that draws faces only: put its faces into
        the source frames.
      key_image: Faces of the same moments of speech with another expression, like `query_image`: the source frames.
      key: PRNG key for the locations at which regions are compared; use another at every step.
      face_box: Borders x0, y0, x1, y1 of the faces in pixels (`landmark_box`), by which both images are cut. Without
        it they are taken for crops. Faces that do not lie in the same place are cut out before, by `crop_faces`.
      locations: Replaces the drawn locations, for a comparison that can be repeated.

    Raises:
      InputError: Images of other shapes, of two batch sizes, of whole numbers, or of values that are no [-1, 1] as far
        as they are known when this is traced; one box for images of two sizes; a box with no face in it.
    """
    settings = metric.settings
    check_image(query_image, "query_image")
    check_image(key_image, "key_image")
    if len(query_image) != len(key_image):
        raise InputError(
            f"query_image and key_image: {len(query_image)} and {len(key_image)} images, expected as many of both: each"
            " generated face is compared with the real one of its own moment"
        )
    if face_box is not None:
        if query_image.shape != key_image.shape:
            shapes = f"{tuple(query_image.shape)} and {tuple(key_image.shape)}"
            raise InputError(
                f"face_box: one box for images of shapes {shapes}; cut out the faces with crop_faces before"
            )
        query_image, key_image = (
            crop_faces(image, face_box, settings.image_size) for image in (query_image, key_image)
        )
    if locations is None:
        sizes = map_sizes(settings.image_size)
        locations = sample_locations(key, sizes, settings.centre_counts, border=settings.border)
    # One image after the other: a joint batch would carry the key through the backward pass, and with
    # `frozen_statistics="batch"` mix the two images' statistics. `correlation_loss` cuts the key's gradient.
    return correlation_loss(metric.features(query_image), metric.features(key_image), metric.embed, locations, settings)
