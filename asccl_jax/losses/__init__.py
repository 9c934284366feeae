"""Losses: pure functions on arrays. `asccl_loss` is the one that supervises other generators."""

from asccl_jax.image.face_box import landmark_box
from asccl_jax.image.face_crop import crop_faces
from asccl_jax.losses.contrastive import CorrelationParts, correlation_loss
from asccl_jax.losses.supervision import asccl_loss

__all__ = ["CorrelationParts", "asccl_loss", "correlation_loss", "crop_faces", "landmark_box"]
