"""Hair as closed shells: a cap over the scalp and, for some styles, a curtain that hangs from it or a bun."""

from __future__ import annotations

import dataclasses
import functools

import numpy as np
from jaxtyping import Float, Int
from scipy.interpolate import PchipInterpolator
from scipy.spatial import cKDTree

from data_prep.synthetic.fields import Field, bell, ramp, smooth_noise
from data_prep.synthetic.skin_surface import SkinSheet, build_skin

__all__ = ["HAIR_STYLES", "Hair", "build_hair", "hairline_distance"]


@dataclasses.dataclass(frozen=True)
class _Style:
    """Shape of a hair style; lengths in metres.

    Attributes:
      thickness: Of the cap on top and at the sides.
      quiff: Additional height over the forehead.
      part: Additional height on the person's left of a side parting.
      curl: Depth of the cap's lumps.
      fringe: How far the hairline comes down the forehead.
      bun: Radius of a bun, 0 for none.
      ends: Height y at which a curtain ends; None for none.
      wave: Amplitude of the curtain's waves.
    """

    thickness: tuple[float, float]
    quiff: float = 0.0
    part: float = 0.0
    curl: float = 0.0
    fringe: float = 0.0
    bun: float = 0.0
    ends: float | None = None
    wave: float = 0.0


_STYLES = {
    "buzz": _Style((0.0022, 0.0016)),
    "crop": _Style((0.0080, 0.0040), curl=0.0012),
    "short": _Style((0.0130, 0.0060), curl=0.0016, fringe=0.008),
    "side_part": _Style((0.0130, 0.0055), part=0.010, curl=0.0010),
    "quiff": _Style((0.0120, 0.0040), quiff=0.016, curl=0.0014),
    "afro": _Style((0.0340, 0.0270), curl=0.0040),
    "bun": _Style((0.0060, 0.0050), bun=0.034),
    "fringe": _Style((0.0130, 0.0100), fringe=0.040, ends=-0.075),
    "bob": _Style((0.0130, 0.0110), part=0.006, ends=-0.085),
    "long": _Style((0.0110, 0.0090), part=0.005, ends=-0.230),
    "wavy": _Style((0.0150, 0.0130), part=0.007, curl=0.0022, ends=-0.190, wave=0.0050),
}

HAIR_STYLES = tuple(_STYLES)


@dataclasses.dataclass(frozen=True)
class Hair:
    """A person's hair at rest.

    Attributes:
      vertices: At rest, in the head's frame.
      faces: Into `vertices`, counter-clockwise from outside.
      uv: Around the head, along the strands.
      tangents: Unit direction of the strands.
      weights: Skinning weights.
    """

    vertices: Float[np.ndarray, "n 3"]
    faces: Int[np.ndarray, "f 3"]
    uv: Float[np.ndarray, "n 2"]
    tangents: Float[np.ndarray, "n 3"]
    weights: Float[np.ndarray, "n 5"]


_ANGLES = np.radians([0, 14, 30, 42, 52, 60, 68, 74, 79, 84, 92, 106, 118, 132, 180])
_HEIGHTS = np.array([100.5, 102, 101.5, 95, 80, 63, 40, 14, -6, 0, 36, 26, -25, -52, -64]) / 1000


def hairline_distance(style: str, x: Field, y: Field, z: Field) -> Field:
    """Returns how far above the hairline a point of the mean head lies, in metres, negative on bare skin."""
    angle = np.abs(np.arctan2(x, z + 0.010))
    height = PchipInterpolator(_ANGLES, _HEIGHTS)(angle)
    height = height - _STYLES[style].fringe * ramp(angle, np.radians(62), np.radians(38))
    steep = 0.55 + 0.45 * ramp(np.abs(y - 0.09), 0.06, 0.02)
    return ((y - height) * steep - 0.05 * ramp(y, -0.068, -0.080)).astype(np.float32)


@functools.cache
def _mean_skin() -> tuple[SkinSheet, cKDTree]:
    skin = build_skin()
    return skin, cKDTree(skin.vertices)


def build_hair(
    style: str, seed: int, head_vertices: Float[np.ndarray, "n 3"], head_normals: Float[np.ndarray, "n 3"]
) -> Hair:
    """Returns the hair of a person whose own head is given.

    Args:
      style: One of `HAIR_STYLES`.
      seed: Of the lumps and waves.
      head_vertices: The person's head at rest; the skin's vertices come first.
      head_normals: Its unit normals.
    """
    shape = _STYLES[style]
    skin, _ = _mean_skin()
    skin_vertices, skin_normals = head_vertices[: len(skin.vertices)], head_normals[: len(skin.vertices)]
    pieces = [_cap(style, seed, skin_vertices, skin_normals)]
    moved = skin_vertices - skin.vertices
    if shape.ends is not None:
        pieces.append(_curtain(shape, seed, moved))
    if shape.bun:
        pieces.append(_bun(shape.bun, moved))
    starts = np.cumsum([0, *(len(piece.vertices) for piece in pieces)])
    faces = np.concatenate([piece.faces + start for piece, start in zip(pieces, starts[:-1], strict=True)])
    joined = [
        np.concatenate([getattr(piece, name) for piece in pieces]) for name in ("vertices", "uv", "tangents", "weights")
    ]
    return Hair(joined[0], faces, *joined[1:])


def _neck_weights(vertices: Float[np.ndarray, "n 3"]) -> Float[np.ndarray, "n 5"]:
    weights = np.zeros((len(vertices), 5), np.float32)
    weights[:, 0] = ramp(vertices[:, 1], -0.105, -0.190)
    weights[:, 1] = 1 - weights[:, 0]
    return weights


def _cap(
    style: str, seed: int, skin_vertices: Float[np.ndarray, "n 3"], skin_normals: Float[np.ndarray, "n 3"]
) -> Hair:
    shape = _STYLES[style]
    skin, _ = _mean_skin()
    rows, columns = skin.grid_shape
    count = rows * columns
    x, y, z = skin.vertices[:count].T
    inside = hairline_distance(style, x, y, z)
    angle = np.arctan2(x, z + 0.010)
    top = ramp(y, 0.060, 0.115)
    thickness = shape.thickness[1] + (shape.thickness[0] - shape.thickness[1]) * top
    thickness = thickness + shape.quiff * bell(angle, 0.75) * ramp(y, 0.088, 0.112) * ramp(z, -0.02, 0.04)
    thickness = thickness + shape.part * ramp(x, -0.030, -0.018) * top * (0.6 + 0.4 * ramp(x, 0.07, 0.0))
    rng = np.random.default_rng([0x4A14, seed])
    lumps = smooth_noise(rng, (rows, columns), (13, 17), octaves=2).reshape(-1) * np.repeat(
        ramp(skin.loop, 0.0, 2.0), columns
    )
    ragged = inside + 0.0012 * smooth_noise(rng, (rows, columns), (12, 40)).reshape(-1)
    # The shell dips below the skin with the slope it rises by: the line where they cross is smooth.
    step = np.clip(ragged / (0.006 + 0.8 * thickness), -0.6, 1)
    height = (thickness + shape.curl * lumps) * step * (2 - np.clip(step, 0, 1))
    faces = skin.faces[(skin.faces < count).all(axis=1)]
    faces = faces[(inside[faces] > -0.008).any(axis=1)]
    used, faces = np.unique(faces, return_inverse=True)
    vertices = skin_vertices[used] + height[used, None] * skin_normals[used]
    grid = skin_vertices[:count].reshape(rows, columns, 3)
    along = np.gradient(grid, axis=0).reshape(-1, 3)[used]
    along /= np.maximum(np.linalg.norm(along, axis=1, keepdims=True), 1e-9)
    uv = np.stack([used % columns / (columns - 1), used // columns / (rows - 1)], -1)
    uv[:, 0] = (angle[used] / (2 * np.pi) + 0.5) % 1.0
    return Hair(vertices, faces.reshape(-1, 3), uv, along, _neck_weights(vertices))


def _curtain(shape: _Style, seed: int, moved: Float[np.ndarray, "n 3"]) -> Hair:
    """Hair that hangs around the back and sides: an outer wall, turned inward at its front edges and ends."""
    rng = np.random.default_rng([0x4A15, seed])
    assert shape.ends is not None
    start = 0.092
    count_down, count_around = 26, 49
    down = np.linspace(0, 1, count_down)[:, None]
    y = start + (shape.ends - start) * down + 0 * down
    width = PchipInterpolator(
        [-0.30, -0.13, -0.09, -0.04, 0.0, 0.035, 0.065, 0.092],
        [0.118, 0.092, 0.084, 0.086, 0.0880, 0.0860, 0.0800, 0.066],
    )(y)
    back = PchipInterpolator([-0.30, -0.10, -0.03, 0.05, 0.092], [0.110, 0.098, 0.108, 0.112, 0.092])(y)
    open_to = PchipInterpolator([-0.30, -0.12, -0.04, 0.02, 0.06, 0.092], np.radians([40, 50, 66, 68, 60, 46]))(y)
    around = np.linspace(-1, 1, count_around)[None]
    angle = np.sign(around) * (np.pi - (np.pi - open_to) * np.abs(around))
    angle = np.where(around == 0, np.pi, angle)
    inward = 1 - 0.16 * np.clip((np.abs(around) - 0.90) / 0.10, 0, 1) ** 1.5
    inward = inward * (1 - 0.10 * np.clip((down - 0.93) / 0.07, 0, 1) ** 2)
    waves = 1 + shape.wave / 0.09 * np.sin(22 * down**1.2 * (start - shape.ends) / 0.25 + 2.0 * np.abs(around) + around)
    locks = 1 + 0.012 * smooth_noise(rng, (count_down, count_around), (2, 14)) * ramp(down, 0.1, 0.5)
    radius = inward * waves * locks
    spread = ramp(y, -0.05, -0.14)
    x = width * np.sin(angle) * radius
    front = 0.066 + 0.030 * spread
    z = -0.012 + np.where(np.cos(angle) > 0, front, back) * np.cos(angle) * radius
    vertices = np.stack([x, y + 0 * x, z], -1)
    tangents = np.gradient(vertices, axis=0).reshape(-1, 3)
    tangents /= np.linalg.norm(tangents, axis=1, keepdims=True)
    index = np.arange(count_down * count_around).reshape(count_down, count_around)
    a, b, c, d = index[:-1, :-1], index[:-1, 1:], index[1:, 1:], index[1:, :-1]
    outer = np.concatenate([np.stack([a, b, c], -1).reshape(-1, 3), np.stack([a, c, d], -1).reshape(-1, 3)])
    flat = vertices.reshape(-1, 3)
    flat = flat + _carried(flat, moved)
    uv = np.stack(np.broadcast_arrays(0.5 + 0.5 * around, 0.2 + 0.75 * down), -1).reshape(-1, 2)
    # The wall is seen from both sides: a second one, a hair's breadth inside, faces the neck.
    twice, inner = np.concatenate([flat, flat]), outer[:, ::-1] + len(flat)
    return Hair(
        twice, np.concatenate([outer, inner]), np.tile(uv, (2, 1)), np.tile(tangents, (2, 1)), _neck_weights(twice)
    )


def _bun(radius: float, moved: Float[np.ndarray, "n 3"]) -> Hair:
    turn, fall = np.meshgrid(np.linspace(-np.pi, np.pi, 25), np.linspace(0, np.pi, 13))
    ball = np.stack([np.sin(turn) * np.sin(fall), 0.8 * np.cos(fall), np.cos(turn) * np.sin(fall)], -1)
    vertices = (np.array([0, 0.146, -0.030]) + radius * ball).reshape(-1, 3)
    index = np.arange(25 * 13).reshape(13, 25)
    a, b, c, d = index[:-1, :-1], index[:-1, 1:], index[1:, 1:], index[1:, :-1]
    faces = np.concatenate([np.stack([a, d, c], -1).reshape(-1, 3), np.stack([a, c, b], -1).reshape(-1, 3)])
    tangents = np.stack([np.cos(turn), 0.3 + 0 * turn, -np.sin(turn)], -1).reshape(-1, 3)
    vertices = vertices + _carried(vertices, moved)
    uv = np.stack([fall / np.pi, turn / (2 * np.pi) + 0.5], -1).reshape(-1, 2)
    return Hair(vertices, faces, uv, tangents, _neck_weights(vertices))


def _carried(vertices: Float[np.ndarray, "n 3"], moved: Float[np.ndarray, "m 3"]) -> Float[np.ndarray, "n 3"]:
    """How the person's shape moves points off the skin: as it moves the skin nearest to them."""
    _, tree = _mean_skin()
    _, nearest = tree.query(vertices, k=24)
    return moved[nearest].mean(axis=1)
