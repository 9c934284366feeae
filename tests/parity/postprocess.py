"""Alignment, un-alignment, blending, erosion, eye pictures and middles, replayed from a golden's stored pictures."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from asccl_jax.head.eyes import draw_eyes, median_point, noisy_eye_points, pupil_centre
from asccl_jax.image.blending import (
    blend_pyramids,
    copy_paste,
    erosion_kernel,
    gaussian_pyramid,
    laplacian_pyramid,
    rebuilt,
    soft_erosion,
)
from asccl_jax.image.warping import moved, similarity, warp_lanczos, warp_nearest
from tests.parity import recipe
from tests.parity.metric import Replayed

__all__ = ["INPUTS", "MANIFESTS", "NAMES", "replay"]

NAMES = r"postprocess.*"
MANIFESTS = ()
INPUTS = (
    r"cfg|align/(face|mask)|f64/align/(mat|points)|f64/umeyama.*/(src|dst)|blend/(A|B|B_small)|eyes/pts\d"
    r"|f64/eyes/noise_draws|pupil/poly|f64/pupil/gray|f64/centres/keypoints"
)

_EROSION = re.compile(r"erosion/k(\d+)_t(\d+)_i(\d+)_hard")
"""Side of the surroundings, threshold in hundredths, iterations."""

_NOISY_EYES = 1
"""The eyes that the stored draws disturb."""

_GREY_LEVELS = {f"align/{name}": 1.0 for name in ("face_aligned", "nmfc_aligned", "face_unaligned")}
"""OpenCV rounds the weights of Lanczos-4 to 15 bits, so a value between two grey levels may fall on the other one."""


def replay(arrays: Mapping[str, np.ndarray], _: Mapping[str, Sequence[Mapping[str, Any]]], *, exact: bool) -> Replayed:
    """Everything a golden of post-processing holds; of a part of it, that part.

    Args:
      arrays: Arrays of the file; pictures, points and noise are read.
      exact: Makes no difference: what is float64 is float64 by nature and compared in both runs.
    """
    del exact
    height, width = arrays["cfg"][1:].tolist()
    found: dict[str, np.ndarray] = {}
    found |= _similarities(arrays) | _erosions(arrays, height, width)
    if "align/face" in arrays:
        found |= _alignment(arrays, height, width)
    if "blend/A" in arrays:
        found |= _blends(arrays, height, width) | _pyramids(arrays, np.float32)
    if "eyes/pts0" in arrays:
        found |= _eyes(arrays, height, width)
    exactly = None if "blend/A" not in arrays else lambda: Replayed(_pyramids(arrays, np.float64))
    return Replayed(tensors=found, exact=exactly, grey_levels=_GREY_LEVELS)


def _similarities(arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    cases = [name.removesuffix("/src") for name in arrays if name.startswith("f64/umeyama") and name.endswith("/src")]
    points = {case: (arrays[f"{case}/src"], arrays[f"{case}/dst"]) for case in cases}
    return {f"{case}/T": similarity(*points[case]) for case in cases} | {
        f"{case}/T_noscale": similarity(*points[case], scale=False) for case in cases
    }


def _alignment(arrays: Mapping[str, np.ndarray], height: int, width: int) -> dict[str, np.ndarray]:
    face, mask, matrix, shape = arrays["align/face"], arrays["align/mask"], arrays["f64/align/mat"], (height, width)
    aligned_mask = warp_nearest(mask, matrix, shape)
    aligned = np.where(aligned_mask == 0, np.uint8(0), warp_lanczos(face, matrix, shape))
    # Un-aligned is the golden's own picture, so that what aligning misses is not counted twice.
    back = warp_lanczos(arrays["align/face_aligned"], matrix, shape, inverse=True)
    return {
        "align/mask_aligned": aligned_mask,
        "align/face_aligned": aligned,
        "align/nmfc_aligned": warp_lanczos(face[::-1], matrix, shape),
        "align/face_unaligned": np.where(mask == 0, np.uint8(0), back),
        "f64/align/points_transformed": moved(arrays["f64/align/points"], matrix),
    }


def _blends(arrays: Mapping[str, np.ndarray], height: int, width: int) -> dict[str, np.ndarray]:
    background, face, mask = arrays["blend/A"], arrays["blend/B"], _disc(2 * height, 2 * width)
    return {
        "blend/copy_paste": copy_paste(background, face, mask),
        "blend/pyramid_l4": blend_pyramids(background, face, mask),
        "blend/pyramid_l3c1": blend_pyramids(background, face, mask, levels=3, copied_levels=1),
        "blend/pyramid_resized": blend_pyramids(background, arrays["blend/B_small"], _disc(height, width)),
    }


def _pyramids(arrays: Mapping[str, np.ndarray], dtype: DTypeLike) -> dict[str, np.ndarray]:
    image, halvings = arrays["blend/A"].astype(dtype), sum(name.startswith("pyramid/gauss") for name in arrays) - 1
    gauss, laplace = gaussian_pyramid(image, halvings), laplacian_pyramid(image, halvings)
    levels = {f"pyramid/gauss{level}": picture for level, picture in enumerate(gauss)}
    levels |= {f"pyramid/laplace{level}": picture for level, picture in enumerate(laplace)}
    levels["pyramid/reconstructed"] = rebuilt(laplace)
    return {name: picture[..., 0] for name, picture in levels.items()}


def _erosions(arrays: Mapping[str, np.ndarray], height: int, width: int) -> dict[str, np.ndarray]:
    found = {}
    for name in arrays:
        if match := _EROSION.fullmatch(name):
            size, hundredths, iterations = (int(number) for number in match.groups())
            eroded = soft_erosion(
                _disc(2 * height, 2 * width), size=size, threshold=hundredths / 100, iterations=iterations
            )
            found |= {f"erosion/k{size}_kernel": erosion_kernel(size), name: eroded.hard}
            found[name.replace("_hard", "_soft")] = eroded.soft
    return found


def _eyes(arrays: Mapping[str, np.ndarray], height: int, width: int) -> dict[str, np.ndarray]:
    points = [arrays[f"eyes/pts{case}"] for case in range(sum(name.startswith("eyes/pts") for name in arrays))]
    noisy = noisy_eye_points(points[_NOISY_EYES], arrays["f64/eyes/noise_draws"])
    keypoints = arrays["f64/centres/keypoints"]
    return {f"eyes/image{case}": draw_eyes(some, (height, width)) for case, some in enumerate(points)} | {
        "eyes/image_noise": draw_eyes(noisy, (height, width)),
        "f64/pupil/mass_center": pupil_centre(arrays["f64/pupil/gray"], arrays["pupil/poly"]),
        "centres/mouth": median_point(keypoints[14:])[None],
        "centres/eyes": median_point(keypoints[:14])[None],
    }


def _disc(height: int, width: int) -> np.ndarray:
    """The recipe's mask; drawn, not random, so neither name nor seed matters."""
    return recipe.make_input("mask", (height, width), 0, "disc")
