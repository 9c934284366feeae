"""The golden's head of 216 vertices as JAX takes it, templates, coefficients, and the bridge's picture of them."""

from __future__ import annotations

import functools

import numpy as np

from asccl_jax.data.codes import CodeDict
from asccl_jax.head.head_model import HeadModel
from data_prep.head_fit.head_assets import HeadAssets, head_model
from data_prep.head_fit.head_drawing import HeadRenderer, Renders
from data_prep.head_fit.view import crop_view
from tests.data_prep.head_fit.golden_head import golden_arrays, golden_assets

__all__ = ["coefficients_of", "golden_head", "golden_template", "posed_codes", "renders_of"]


@functools.cache
def golden_head() -> HeadModel:
    return head_model(golden_assets())


def golden_template() -> CodeDict:
    arrays = golden_arrays()
    shape, exp, pose, cam = (arrays[f"in/{name}"][:1] for name in ("shape", "exp", "pose", "cam"))
    return CodeDict(np.arange(1), shape, exp, pose, cam)


def coefficients_of(count: int, *, seed: int = 0, scale: float = 1.0) -> np.ndarray:
    """Open mouths and random expressions."""
    rng = np.random.default_rng(seed)
    opening = 0.3 * rng.random((count, 1))
    return np.concatenate([opening, scale * rng.standard_normal((count, 50))], axis=1).astype(np.float32)


def posed_codes(template: CodeDict, coefficients: np.ndarray) -> CodeDict:
    """The template's code dict with these coefficients, frame by frame."""
    repeated = {
        name: np.repeat(getattr(template, name), len(coefficients), axis=0) for name in ("shape", "pose", "cam")
    }
    codes = CodeDict(np.arange(len(coefficients)), exp=coefficients[:, 1:], **repeated)
    return codes.edited(coefficients[:, 1:], coefficients[:, 0])


def renders_of(assets: HeadAssets, codes: CodeDict, size: int) -> Renders:
    return HeadRenderer(head_model(assets)).renders(codes, view=crop_view(codes, size))
