"""Codes smoothed over time, and filled in where no face was found."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int

from asccl_jax.data.codes import CodeDict
from DECA_torch_bridge.reconstruct.frame_cameras import crop_cameras, source_cameras

__all__ = ["fill_gaps", "gaussian_over_time", "smooth_codes"]

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
