"""The part of a head that JAX draws with, written to one file."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from asccl_jax.errors import writing
from asccl_jax.head.flame import HeadModel, save_head_model
from data_prep.synthetic.head import EXPRESSION_START
from DECA_torch_bridge.head_assets import HeadAssets

__all__ = ["export_head", "head_model"]


def head_model(assets: HeadAssets) -> HeadModel:
    """Returns mesh, blend shapes, joints and landmarks of a head: as many coefficients as DECA uses."""

    def floats(values: np.ndarray) -> np.ndarray:
        return np.ascontiguousarray(values, np.float32)

    def numbers(values: np.ndarray) -> np.ndarray:
        return np.ascontiguousarray(values, np.int32)

    expression = slice(EXPRESSION_START, EXPRESSION_START + assets.expression_size)
    return HeadModel(
        v_template=floats(assets.v_template),
        faces=numbers(assets.faces),
        identity_basis=floats(assets.shapedirs[:, :, : assets.shape_size]),
        expression_basis=floats(assets.shapedirs[:, :, expression]),
        pose_basis=floats(assets.posedirs),
        joint_regressor=floats(assets.joint_regressor),
        parents=numbers(assets.parents),
        skinning_weights=floats(assets.skinning_weights),
        static_landmark_faces=numbers(assets.static_landmark_faces),
        static_landmark_weights=floats(assets.static_landmark_weights),
        dynamic_landmark_faces=numbers(assets.dynamic_landmark_faces),
        dynamic_landmark_weights=floats(assets.dynamic_landmark_weights),
        full_landmark_faces=numbers(assets.full_landmark_faces),
        full_landmark_weights=floats(assets.full_landmark_weights),
        mouth_faces=numbers(assets.mouth_faces),
        source=assets.source,
    )


def export_head(assets: HeadAssets, path: Path) -> None:
    """Writes a head for JAX; `asccl_jax.head.flame.load_head_model` reads it.

    Raises:
      WriteError: The disk is full, or access is denied; what was there is as it was.
    """
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        save_head_model(path, head_model(assets))
