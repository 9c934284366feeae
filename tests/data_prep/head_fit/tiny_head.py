"""A head of a few vertices in FLAME's files, for tests of reading them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from data_prep.head_fit.flame_files import write_flame_files

__all__ = ["TINY_FACES", "TINY_VERTICES", "tiny_fields", "write_tiny_head"]

TINY_VERTICES, TINY_FACES = 12, 10


def tiny_fields() -> dict[str, Any]:
    """Returns fields of `HeadAssets` with random numbers of the right sizes, and no albedo."""
    rng = np.random.default_rng(0)

    def numbers(*shape: int) -> np.ndarray:
        return rng.standard_normal(shape).astype(np.float32)

    def triangles(*shape: int) -> np.ndarray:
        return rng.integers(0, TINY_FACES, shape).astype(np.int32)

    first = np.arange(TINY_FACES, dtype=np.int32)
    faces = np.stack([first, first + 1, first + 2], -1)
    weights = np.abs(numbers(TINY_VERTICES, 5)) + 0.1
    return {
        "v_template": numbers(TINY_VERTICES, 3),
        "faces": faces,
        "shapedirs": numbers(TINY_VERTICES, 3, 400),
        "posedirs": numbers(TINY_VERTICES, 3, 36),
        "joint_regressor": numbers(5, TINY_VERTICES) * (numbers(5, TINY_VERTICES) > 0),
        "parents": np.array([-1, 0, 1, 1, 1], np.int32),
        "skinning_weights": weights / weights.sum(axis=1, keepdims=True),
        "static_landmark_faces": triangles(51),
        "static_landmark_weights": numbers(51, 3),
        "dynamic_landmark_faces": triangles(79, 17),
        "dynamic_landmark_weights": numbers(79, 17, 3),
        "full_landmark_faces": triangles(68),
        "full_landmark_weights": numbers(68, 3),
        "uv": rng.random((TINY_VERTICES + 2, 2), np.float32),
        "uv_faces": faces + 2,
        "uv_face_eye_mask": (rng.integers(0, 256, (256, 256)) / 255).astype(np.float32),
        "fixed_displacement": numbers(256, 256),
        "albedo_mean": None,
        "albedo_basis": None,
        "mouth_faces": np.array([3, 4], np.int32),
        "source": "builtin",
    }


def write_tiny_head(directory: Path) -> Path:
    """Writes the files of the tiny head and returns their folder."""
    write_flame_files(directory, tiny_fields())
    return directory
