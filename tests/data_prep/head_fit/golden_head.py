"""The golden's head of 216 vertices and its arrays, for tests that need a whole head and no time."""

from __future__ import annotations

import dataclasses
import functools
from pathlib import Path

import numpy as np

from asccl_jax.data.codes import CodeDict
from data_prep.head_fit.head_assets import HeadAssets
from tests.parity.flame_deca import make_assets

__all__ = ["golden_arrays", "golden_assets", "golden_codes", "some_codes"]

_FILE = Path(__file__).resolve().parents[2] / "goldens" / "flame_deca_one.npz"


@functools.cache
def golden_arrays() -> dict[str, np.ndarray]:
    with np.load(_FILE) as file:
        return dict(file)


@functools.cache
def golden_assets() -> HeadAssets:
    return make_assets(golden_arrays())


def some_codes(frames: int = 3) -> CodeDict:
    """Frames of a head that turns and opens its mouth, as found in a 300 x 200 video, every second frame of it."""
    rng = np.random.default_rng(0)

    def numbers(*shape: int) -> np.ndarray:
        return rng.standard_normal((frames, *shape)).astype(np.float32)

    pose = 0.2 * numbers(6)
    cam = np.float32([7.0, 0, 0]) + 0.01 * numbers(3)
    tform = np.tile(np.array([[1.6, 0, -50], [0, 1.6, -30], [0, 0, 1]]), (frames, 1, 1))
    return CodeDict(
        2 * np.arange(frames), numbers(100), numbers(50), pose, cam, numbers(50), numbers(9, 3), numbers(128), tform,
        (300, 200),
    )  # fmt: skip


def golden_codes() -> CodeDict:
    """The frame that the golden draws."""
    golden = golden_arrays()
    codes = some_codes(1)
    return dataclasses.replace(
        codes, shape=golden["in/shape"], exp=golden["in/exp"], pose=golden["in/pose"], cam=golden["in/cam"]
    )
