"""The correlation metric as a judge of coefficients: heads drawn from generated ones against heads drawn from sources.

The paper's supervision of the manipulator. Upstream: absent from the released code; CDRL, which it builds on, draws
wrinkled heads of 224 pixels from one template and takes its loss in one of the two modes only.
"""

from __future__ import annotations

import dataclasses
import functools

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from asccl_jax.errors import InputError
from asccl_jax.frozen_metric import FrozenMetric
from asccl_jax.geometry.face_box import landmark_box
from asccl_jax.geometry.shape_images import ShapeRenderer
from asccl_jax.losses import asccl_loss
from asccl_jax.sampling import Box, map_sizes, sample_locations

__all__ = ["MeshSupervision"]


@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=("renderer", "metric"),
    meta_fields=("frames_per_step", "within"),
)
@dataclasses.dataclass(frozen=True, eq=False)
class MeshSupervision:
    """Draws windows of coefficients on one template head and compares them by the metric; a pytree of both.

    Attributes:
      renderer: Draws them; both pictures are cut to the box of the source's face, as the metric's training data is, and
        resized to the metric's size.
      metric: The judge; it does not move.
      frames_per_step: How many frames of a batch are compared, other ones at each call; all if None. Under `pmap`, so
        many of each device's rows; where an update takes several passes, so many of each pass's.
      within: Part of the face's box in which places are compared; all of it if None, as in the paper.
    """

    renderer: ShapeRenderer
    metric: FrozenMetric
    frames_per_step: int | None = 8
    within: Box | None = None

    def __post_init__(self) -> None:
        if self.frames_per_step is not None and self.frames_per_step < 1:
            raise InputError(f"frames_per_step: {self.frames_per_step}, expected 1 or more, or None for all")

    def __call__(
        self, generated: Float[Array, "b t c"], source: Float[Array, "b t c"], key: Key[Array, ""]
    ) -> Float[Array, ""]:
        """Returns how far the drawn generated heads leave the speech of the drawn sources; see `asccl_loss`.

        Args:
          generated: Windows of the generator; the gradient goes to them.
          source: The windows that those were made from.
          key: Draws the frames, and the locations at which they are compared.
        """
        frame_key, location_key = jax.random.split(key)
        query, target = (values.reshape(-1, values.shape[-1]) for values in (generated, source))
        if self.frames_per_step is not None and self.frames_per_step < len(query):
            chosen = jax.random.choice(frame_key, len(query), (self.frames_per_step,), replace=False)
            query, target = query[chosen], target[chosen]
        # The source's gradient is cut here rather than after drawing it: nothing is kept to go back through.
        target = jax.lax.stop_gradient(target)
        settings = self.metric.settings
        sizes, counts = map_sizes(settings.image_size), settings.centre_counts
        locations = sample_locations(location_key, sizes, counts, border=settings.border, within=self.within)
        box = landmark_box(self.renderer.landmarks(target.astype(jnp.float32)))
        images = self._draw(query), self._draw(target)
        loss, _ = asccl_loss(self.metric, *images, location_key, face_box=box, locations=locations)
        return loss

    def _draw(self, coefficients: Float[Array, "n c"]) -> Float[Array, "n h w 3"]:
        return 2 * self.renderer(coefficients.astype(jnp.float32)) - 1
