"""Codes drawn into the crop and into the aligned picture, as 8-bit pictures."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from jaxtyping import Bool, Float, UInt8

from asccl_jax.data.codes import CodeDict
from asccl_jax.errors import require_torch
from asccl_jax.image.warping import inverse_affine, joined, similarity
from data_prep.head_fit.flame_files import DECA_MODEL
from data_prep.head_fit.head_assets import head_model
from data_prep.head_fit.head_drawing import HeadRenderer, Renderer, Renders, image_u8
from data_prep.head_fit.view import View
from data_prep.reconstruct.encoders import head_assets

__all__ = ["ALIGNED_SIZE", "TEMPLATE", "Drawn", "alignment_matrices", "draw", "encode_png", "make_renderer", "warped"]


@dataclasses.dataclass(frozen=True, eq=False)
class Drawn:
    """Pictures of some frames in one kind of coordinates.

    Attributes:
      nmfc: Normalised mean face coordinates.
      shape: The coarse surface.
      detail: The surface with wrinkles; None without a detail decoder.
      alpha: Where the head is.
      landmarks: Of the head, as a detector would see them, in pixels of the picture.
    """

    nmfc: UInt8[np.ndarray, "t h w 3"]
    shape: UInt8[np.ndarray, "t h w 3"]
    detail: UInt8[np.ndarray, "t h w 3"] | None
    alpha: Bool[np.ndarray, "t h w"]
    landmarks: Float[np.ndarray, "t 68 2"]


def make_renderer(
    assets: Path | None, *, detail: bool, device: str = "cpu", batch: int = 16, threads: int = 1
) -> Renderer:
    """Returns a renderer; kept for later calls in the same process.

    Wrinkles, and any device but the CPU, are for PyTorch, which is imported then; no other drawing needs it.

    Args:
      assets: Folder of FLAME's and DECA's files; None takes the built-in head.
      detail: Whether the codes hold detail codes; wrinkles are drawn if the folder has DECA's decoder, too.
      device: Where to draw: "cpu", or a device of PyTorch.
      batch: Frames drawn at a time.
      threads: Threads that draw them without PyTorch.

    Raises:
      InputError: Assets are missing or not what they should be.
    """
    decoded = detail and assets is not None and (assets / DECA_MODEL).is_file()
    if decoded or device != "cpu":
        return _torch_renderer(assets, decoded, device, batch)
    return _head_renderer(assets, batch, threads)


@functools.lru_cache(maxsize=2)
def _head_renderer(assets: Path | None, batch: int, threads: int) -> Renderer:
    return HeadRenderer(head_model(head_assets(assets)), chunk=batch, threads=threads)


@functools.lru_cache(maxsize=2)
def _torch_renderer(assets: Path | None, detail: bool, device: str, batch: int) -> Renderer:
    require_torch("Drawing wrinkles, or on another device than the CPU,")
    from DECA_torch_bridge.deca_encoder import load_deca
    from DECA_torch_bridge.deca_model import DetailDecoder
    from DECA_torch_bridge.renderer import TorchRenderer, fastest_backend

    decoder = None
    if detail:
        assert assets is not None
        decoder = DetailDecoder()
        decoder.load_state_dict(load_deca(assets).D_detail)
    rasteriser, shader = fastest_backend(device)
    return TorchRenderer(
        head_assets(assets), rasteriser=rasteriser, shader=shader, detail_decoder=decoder, device=device, chunk=batch
    )


def draw(renderer: Renderer, codes: CodeDict, views: Sequence[View]) -> list[Drawn]:
    """Returns pictures of codes in each view.

    Args:
      renderer: Draws them.
      codes: Of some frames.
      views: Where they are seen from.
    """
    return [_drawn(renders) for renders in renderer.views(codes, views)]


def _drawn(renders: Renders) -> Drawn:
    return Drawn(
        image_u8(renders.nmfc),
        image_u8(renders.shape),
        None if renders.detail_shape is None else image_u8(renders.detail_shape),
        renders.alpha,
        renders.landmarks,
    )


# Pictures into other coordinates, and into files.

_ENLARGES = 0.75
"""Scale above which plain interpolation does; below it the picture is averaged first, or it would alias."""


def warped(
    image: UInt8[np.ndarray, "h w 3"] | None,
    placement: Float[np.ndarray, "2 3"] | None,
    matrix: Float[np.ndarray, "2 3"],
    size: int,
    *,
    sharp: bool = False,
) -> UInt8[np.ndarray, "size size 3"]:
    """Returns a picture of the source frame in other coordinates; black outside, and where there is no picture.

    Args:
      image: Stored picture, or None.
      placement: From pixels of the source frame to those of the stored picture; None if they are the same.
      matrix: From pixels of the source frame to those wanted.
      size: Side of the picture wanted.
      sharp: Lanczos instead of bilinear interpolation.
    """
    if image is None:
        return np.zeros((size, size, 3), np.uint8)
    if placement is not None:
        matrix = joined(matrix, inverse_affine(placement))
    scale = float(np.sqrt(abs(np.linalg.det(matrix[:, :2]))))
    if scale < _ENLARGES:
        height, width = image.shape[:2]
        shrunk = (max(1, round(width * scale)), max(1, round(height * scale)))
        image = cv2.resize(image, shrunk, interpolation=cv2.INTER_AREA)
        ratio = np.array([shrunk[0] / width, shrunk[1] / height])
        shrinking = np.concatenate([np.diag(ratio), (ratio / 2 - 0.5)[:, None]], axis=1)
        matrix = joined(matrix, inverse_affine(shrinking))
    flags = cv2.INTER_LANCZOS4 if sharp else cv2.INTER_LINEAR
    return np.asarray(cv2.warpAffine(image, matrix, (size, size), flags=flags))


def encode_png(image: UInt8[np.ndarray, "h w 3"] | Bool[np.ndarray, "h w"]) -> bytes:
    """Returns a PNG file: RGB, or white where a mask is true."""
    stored = image.astype(np.uint8) * 255 if image.dtype == bool else image[..., ::-1]
    return cv2.imencode(".png", stored, [cv2.IMWRITE_PNG_COMPRESSION, 3])[1].tobytes()


# Aligned coordinates: the similarity that lays 68 landmarks on an upright frontal face in a 256-pixel picture.

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
