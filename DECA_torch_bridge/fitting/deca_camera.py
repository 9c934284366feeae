"""The fitted camera in DECA's terms: rotation about the root joint, and (scale, x, y) in a crop of 224 px."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

from asccl_jax.head.drawing_rules import CROP_SIZE
from DECA_torch_bridge.fitting.landmark_head import LandmarkHead
from DECA_torch_bridge.fitting.projection import EXPRESSION, ROTATION, SCALE, TRANSLATION
from DECA_torch_bridge.fitting.rotations import head_rotations

__all__ = ["crop_camera", "crop_transforms", "frame_camera"]

_MARGIN = 1.25
_BOX_TO_FACE = 1.1  # DECA's detector boxes are this much larger than the box of the landmarks


def frame_camera(
    head: LandmarkHead, states: Float[np.ndarray, "t d"], shape: Float[np.ndarray, " i"]
) -> Float[np.ndarray, "t 3"]:
    """Returns scale in px/m and the place of the origin in pixels, for heads that turn about their root joint.

    A posed vertex (X, Y, Z) of the FLAME layer lies at (x + scale X, y - scale Y) of the frame.
    """
    scale = np.exp(states[:, SCALE])
    rotation, _ = head_rotations(states[:, ROTATION])
    root = head.joints[0] + head.joint_identity[0] @ shape + states[:, EXPRESSION] @ head.joint_expression[0].T
    from_centre = (rotation @ (root - head.centre)[..., None])[..., 0] - root
    shift = from_centre[:, :2] * scale[:, None] * (1, -1)
    return np.concatenate([scale[:, None], states[:, TRANSLATION] + shift], axis=1)


def crop_transforms(landmarks: Float[np.ndarray, "t 68 2"]) -> Float[np.ndarray, "t 3 3"]:
    """Returns the similarities from pixels of the frame to pixels of DECA's crop around the landmarks' box."""
    low, high = landmarks.min(1), landmarks.max(1)
    size = np.floor((high - low).mean(1) * _BOX_TO_FACE * _MARGIN)
    corner = (low + high) / 2 - size[:, None] / 2
    factor = (CROP_SIZE - 1) / size
    transforms = np.zeros((len(landmarks), 3, 3))
    transforms[:, 0, 0] = transforms[:, 1, 1] = factor
    transforms[:, :2, 2] = -corner * factor[:, None]
    transforms[:, 2, 2] = 1
    return transforms


def crop_camera(camera: Float[np.ndarray, "t 3"], transforms: Float[np.ndarray, "t 3 3"]) -> Float[np.ndarray, "t 3"]:
    """Returns DECA's cam (s, x, y).

    A vertex lies at 112 (1 + s (X + x)) and 112 (1 - s (Y + y)) of the crop's plane, borders at 0 and 224; pixel
    positions, counted from the middle of the first pixel, are half less.
    """
    half = CROP_SIZE / 2
    factor = transforms[:, 0, 0]
    scale = factor * camera[:, 0] / half
    origin = factor[:, None] * camera[:, 1:] + transforms[:, :2, 2]
    place = ((origin + 0.5) / half - 1) / scale[:, None] * (1, -1)
    return np.concatenate([scale[:, None], place], axis=1)
