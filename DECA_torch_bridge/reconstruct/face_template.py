"""Aligned coordinates: the similarity that lays 68 landmarks on an upright frontal face in a 256-pixel picture."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

from asccl_jax.image.warping import similarity

__all__ = ["ALIGNED_SIZE", "TEMPLATE", "alignment_matrices"]

ALIGNED_SIZE = 256

_TEMPLATE_POINTS = """
57,113 60,133 62,149 67,166 72,182 83,197 93,204 105,215 128,220 148,215 159,204 169,197 176,182 181,164 184,146
186,131 186,111 70,93 77,85 88,85 98,85 108,88 143,88 153,85 164,85 174,85 179,93 126,111 126,126 126,138 126,149
115,154 121,156 128,159 133,156 138,154 83,111 90,106 98,106 108,111 100,113 90,113 143,111 153,106 161,106 166,108
161,113 151,113 100,174 110,171 123,169 128,169 133,169 146,169 153,174 146,179 136,184 128,184 121,184 110,182
100,174 121,174 128,174 136,174 151,174 136,176 128,176 121,176
"""

TEMPLATE: Float[np.ndarray, "68 2"] = np.array(
    [[float(number) for number in point.split(",")] for point in _TEMPLATE_POINTS.split()]
)
"""The published template: x and y of the 68 landmarks in the aligned picture."""


def alignment_matrices(landmarks: Float[np.ndarray, "t 68 2"]) -> Float[np.ndarray, "t 2 3"]:
    """Returns, for each frame, the matrix from its pixels to those of the aligned picture.

    Pixels count from the middle of the first, as `cv2.warpAffine` takes them.
    """
    return np.stack([similarity(points.astype(np.float64), TEMPLATE)[:2] for points in landmarks])
