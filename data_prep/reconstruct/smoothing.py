"""Codes smoothed over time, and filled in where no face was found."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int

from asccl_jax.data.codes import CodeDict
from asccl_jax.head.drawing_rules import CROP_SIZE

__all__ = [
    "crop_cameras",
    "fill_gaps",
    "gaussian_over_time",
    "smooth_codes",
    "source_cameras",
]

# The camera of code dicts in pixels of the source frame, where it can be smoothed: crops move from frame to frame.

_HALF = CROP_SIZE / 2


def source_cameras(cam: Float[np.ndarray, "t 3"], tform: Float[np.ndarray, "t 3 3"]) -> Float[np.ndarray, "t 3"]:
    """Returns scale in pixels per metre and the origin's x and y in pixels of the source frame.

    A posed vertex (X, Y, Z) lies at (x + scale X, y - scale Y), counted from the middle of the first pixel.

    Args:
      cam: Cameras that look at the crops, as `camera` draws them.
      tform: From pixels of the source frame to those of the crop; upright.
    """
    zoom = tform[:, 0, 0]
    in_crop = (_HALF - 0.5) + _HALF * cam[:, :1] * cam[:, 1:] * (1, -1)
    origin = (in_crop - tform[:, :2, 2]) / zoom[:, None]
    return np.concatenate([(_HALF * cam[:, 0] / zoom)[:, None], origin], axis=1)


def crop_cameras(cameras: Float[np.ndarray, "t 3"], tform: Float[np.ndarray, "t 3 3"]) -> Float[np.ndarray, "t 3"]:
    """Returns the cameras that look at the crops: `source_cameras` back."""
    zoom = tform[:, 0, 0]
    scale = (zoom * cameras[:, 0] / _HALF)[:, None]
    in_crop = zoom[:, None] * cameras[:, 1:] + tform[:, :2, 2]
    shift = (in_crop - (_HALF - 0.5)) / (_HALF * scale) * (1, -1)
    return np.concatenate([scale, shift], axis=1)


_REACH = 4  # Standard deviations after which a neighbour no longer counts.
_SMOOTHED = ("shape", "exp", "pose", "tex", "light", "detail")


def smooth_codes(codes: CodeDict, sigma: float, *, trusted: Bool[np.ndarray, " t"]) -> CodeDict:
    """Returns codes after a Gaussian over time; frames without a face lend their neighbours nothing.

    Expression, jaw, head, camera (in pixels of the source, so that the crop's own motion does not count), shape, light.

    Args:
      codes: Code dict with `tform`.
      sigma: Standard deviation in frames; 0 changes nothing.
      trusted: Frames with a face; at least one.
    """
    if not sigma:
        return codes
    weight = trusted.astype(np.float64)
    index = codes.frame_index

    def smooth(values: Float[np.ndarray, "t *k"]) -> Float[np.ndarray, "t *k"]:
        return gaussian_over_time(values, index, sigma, weight).astype(values.dtype)

    fields: dict[str, Any] = {
        name: smooth(getattr(codes, name)) for name in _SMOOTHED if getattr(codes, name) is not None
    }
    assert codes.tform is not None
    cameras = smooth(source_cameras(codes.cam, codes.tform))
    return dataclasses.replace(codes, **fields, cam=crop_cameras(cameras, codes.tform).astype(np.float32))


def gaussian_over_time(
    values: Float[np.ndarray, "t *k"],
    index: Int[np.ndarray, " t"],
    sigma: float,
    weight: Float[np.ndarray, " t"],
) -> Float[np.ndarray, "t *k"]:
    """Returns weighted means over neighbouring frames; ends count what is there. Gaps in `index` are kept as gaps."""
    total = np.zeros(values.shape, np.float64)
    norm = np.zeros(len(values))
    reach = min(len(values) - 1, int(np.ceil(_REACH * sigma)))
    spread = (-1,) + (1,) * (values.ndim - 1)
    for step in range(-reach, reach + 1):
        here = slice(max(0, -step), len(values) - max(0, step))
        there = slice(max(0, step), len(values) - max(0, -step))
        factor = np.exp(-0.5 * ((index[there] - index[here]) / sigma) ** 2) * weight[there]
        total[here] += factor.reshape(spread) * values[there]
        norm[here] += factor
    alone = norm < 1e-9
    return np.where(alone.reshape(spread), values, total / np.where(alone, 1, norm).reshape(spread))


def fill_gaps(
    values: Float[np.ndarray, "t *k"], index: Int[np.ndarray, " t"], found: Bool[np.ndarray, " t"]
) -> Float[np.ndarray, "t *k"]:
    """Returns values with frames that were not found put on the line between their neighbours, ends held.

    Args:
      values: What is known of each frame; rows that were not found are ignored.
      index: Number of each frame in the source.
      found: Which rows count; at least one.
    """
    flat = values.reshape(len(values), -1)
    filled = np.stack([np.interp(index, index[found], column[found]) for column in flat.T], axis=1)
    return filled.reshape(values.shape).astype(values.dtype)
