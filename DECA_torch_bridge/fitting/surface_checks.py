"""Checks of a head's surface that landmarks cannot make: a fit may be perfect in the landmarks and ruin the face."""

from __future__ import annotations

import dataclasses

import numpy as np
from jaxtyping import Float, Int

from DECA_torch_bridge.fitting.landmark_head import IDENTITY_SIZE
from DECA_torch_bridge.head_assets import HeadAssets

__all__ = ["SurfaceChecks", "check_surface"]

_EYES = (3, 4)
_DRAWS = 8


@dataclasses.dataclass(frozen=True)
class SurfaceChecks:
    """What is measured, all in mm except the last.

    Attributes:
      midline_jump_mm: Greatest jump of an identity component's displacement across the midline: difference between
        mirrored vertices next to it, less what their distance explains.
      depth_shift_mm: Greatest difference in depth between eyeballs and lids that a random identity makes.
      eye_before_lid_mm: How far an eyeball of a random identity reaches in front of the lids' edges around it.
      mouth_triangles_left: 0 if the head lists its mouth's triangles, which images of it leave out.
    """

    midline_jump_mm: float
    depth_shift_mm: float
    eye_before_lid_mm: float
    mouth_triangles_left: float


def check_surface(assets: HeadAssets) -> SurfaceChecks:
    """Returns the checks of a head with its identity basis."""
    rng = np.random.default_rng(0)
    identities = np.clip(rng.standard_normal((_DRAWS, IDENTITY_SIZE)), -2, 2)
    shifts, before = [], []
    for joint in _EYES:
        ball = np.flatnonzero(assets.skinning_weights[:, joint] > 0.5)
        lids = _lid_vertices(assets, joint)
        for identity in identities:
            moved = assets.shapedirs[:, :, :IDENTITY_SIZE] @ identity.astype(np.float32)
            shifts.append(abs(moved[ball, 2].mean() - moved[lids, 2].mean()))
            vertices = assets.v_template + moved
            before.append(_overlap(vertices[ball], vertices[lids]))
    expected = assets.source == "builtin"
    return SurfaceChecks(
        midline_jump_mm=1000 * _midline_jump(assets),
        depth_shift_mm=1000 * float(max(shifts)),
        eye_before_lid_mm=1000 * float(max(before)),
        mouth_triangles_left=float(expected and not len(assets.mouth_faces)),
    )


def _lid_vertices(assets: HeadAssets, joint: int) -> Int[np.ndarray, " v"]:
    """Corners of the triangles that hold an eye's six landmarks: the lids' edges."""
    eye = assets.joint_regressor[joint] @ assets.v_template
    rows = slice(19, 25) if eye[0] < 0 else slice(25, 31)
    return np.unique(assets.faces[assets.static_landmark_faces[rows]])


def _midline_jump(assets: HeadAssets) -> float:
    """Greatest sideways displacement of a midline vertex: a symmetric smooth field has none there."""
    skin = assets.skinning_weights[:, list(_EYES)].max(1) < 0.5
    middle = np.flatnonzero(skin & (np.abs(assets.v_template[:, 0]) < 1e-5))
    return float(2 * np.abs(assets.shapedirs[middle, 0, :IDENTITY_SIZE]).max())


def _overlap(ball: Float[np.ndarray, "b 3"], lids: Float[np.ndarray, "v 3"]) -> float:
    """How deep the deepest lid vertex lies inside the eyeball, a sphere through its vertices; negative if none does."""
    system = np.column_stack([2 * ball, np.ones(len(ball))]).astype(np.float64)
    solution, *_ = np.linalg.lstsq(system, np.square(ball).sum(1).astype(np.float64), rcond=None)
    centre = solution[:3]
    radius = np.sqrt(solution[3] + centre @ centre)
    return float(radius - np.linalg.norm(lids - centre, axis=1).min())
