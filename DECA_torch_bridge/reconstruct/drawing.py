"""Codes drawn into the crop and into the aligned picture, as 8-bit pictures."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float, UInt8

from asccl_jax.data.codes import CodeDict
from data_prep.head_fit.head_drawing import HeadRenderer, Renderer, Renders, image_u8
from data_prep.head_fit.view import View
from DECA_torch_bridge.flame_files import DECA_MODEL
from DECA_torch_bridge.head_export import head_model
from DECA_torch_bridge.reconstruct.encoders import head_assets
from DECA_torch_bridge.state_dict import require_torch

__all__ = ["Drawn", "draw", "make_renderer"]


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
    from DECA_torch_bridge.detail_decoder import DetailDecoder
    from DECA_torch_bridge.reconstruct.deca_encoder import load_deca
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
