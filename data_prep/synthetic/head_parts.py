"""What the skin does not cover: inner lips, mouth cavity, teeth, tongue, lid rims, eyeballs, ears."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np
from jaxtyping import Float, Int

from data_prep.synthetic.fields import bell, ramp
from data_prep.synthetic.skin_surface import EYE_RADIUS, EYE_X, EYE_Y, EYE_Z, MOUTH_Y, SkinSheet

__all__ = ["MATERIALS", "Part", "build_parts"]

MATERIALS = ("skin", "eye", "mouth", "teeth", "tongue", "rim", "hair")
"""What a face of the mesh is made of; a face's label is its material's position here."""

_ARCH_FRONT = 0.0770
"""How far forward the front teeth stand."""


@dataclasses.dataclass(frozen=True)
class Part:
    """A piece of the mesh beside the skin sheet.

    Attributes:
      name: What it is, for those who look for its vertices.
      material: One of `MATERIALS`.
      vertices: At rest.
      faces: Into `vertices`.
      uv: Coordinates that the material's paint is a function of.
      jaw_weight: Share of the jaw's rotation each vertex takes.
      skin_anchor: Skin vertex whose motion each vertex takes over; -1 for those that expressions do not move.
      eye: 0 for none, 3 for the eyeball at +x and 4 for the one at -x, which is its joint's number.
    """

    name: str
    material: str
    vertices: Float[np.ndarray, "n 3"]
    faces: Int[np.ndarray, "f 3"]
    uv: Float[np.ndarray, "n 2"]
    jaw_weight: Float[np.ndarray, " n"]
    skin_anchor: Int[np.ndarray, " n"]
    eye: int = 0


def build_parts(skin: SkinSheet) -> list[Part]:
    """Returns all parts, fitted to the skin's slits."""
    parts = [_inner_lip(skin, upper=True), _inner_lip(skin, upper=False)]
    for index, side in enumerate((-1, 1)):
        for upper in (True, False):
            parts.append(_lid_rim(skin, index, side, upper=upper))
        parts.append(_eye_socket(skin, index, side))
    parts += [_cavity(skin), _teeth(upper=True), _teeth(upper=False), _tongue()]
    parts += [_eyeball(-1), _eyeball(1), _ear(skin, -1), _ear(skin, 1)]
    return parts


Surface = Callable[[Float[np.ndarray, "v u"], Float[np.ndarray, "v u"]], Float[np.ndarray, "v u 3"]]


def _patch(
    surface: Surface, across: int, along: int
) -> tuple[Float[np.ndarray, "n 3"], Int[np.ndarray, "f 3"], Float[np.ndarray, "n 2"]]:
    """A grid over u, v in 0..1; faces turn toward the viewer where u runs to +x and v downward."""
    u, v = np.meshgrid(np.linspace(0, 1, across), np.linspace(0, 1, along))
    vertices = surface(u, v).reshape(-1, 3)
    return vertices, _grid_faces(along, across), np.stack([u, v], -1).reshape(-1, 2)


def _grid_faces(rows: int, columns: int) -> Int[np.ndarray, "f 3"]:
    index = np.arange(rows * columns).reshape(rows, columns)
    a, b, c, d = index[:-1, :-1], index[:-1, 1:], index[1:, 1:], index[1:, :-1]
    return np.concatenate([np.stack([a, d, c], -1).reshape(-1, 3), np.stack([a, c, b], -1).reshape(-1, 3)])


def _strip(
    edge: Int[np.ndarray, " m"], rings: list[Float[np.ndarray, "m 3"]], *, flip: bool
) -> tuple[Float[np.ndarray, "n 3"], Int[np.ndarray, "f 3"], Float[np.ndarray, "n 2"], Int[np.ndarray, " n"]]:
    """A band of rings that starts on a row of skin vertices (its first ring repeats them)."""
    count = len(edge)
    faces = _grid_faces(len(rings), count)
    u, v = np.meshgrid(np.linspace(0, 1, count), np.linspace(0, 1, len(rings)))
    uv = np.stack([u, v], -1).reshape(-1, 2)
    return np.concatenate(rings), faces[:, ::-1] if flip else faces, uv, np.tile(edge, len(rings))


def _inner_lip(skin: SkinSheet, *, upper: bool) -> Part:
    edge = skin.lip_edge[0 if upper else 1]
    start = skin.vertices[edge]
    width = np.abs(start[:, :1]).max()
    middle = np.clip(1 - np.square(start[:, :1] / width), 0, 1)
    sign = 1.0 if upper else -1.0
    steps = [(0.0, 0.0), (0.0001, -0.0016), (0.0006, -0.0036), (0.0022, -0.0058), (0.0060, -0.0072)]
    rings = [start + np.concatenate([0 * middle, sign * dy * middle, dz + 0 * middle], 1) for dy, dz in steps]
    vertices, faces, uv, anchor = _strip(edge, rings, flip=upper)
    name = "upper_inner_lip" if upper else "lower_inner_lip"
    return Part(name, "mouth", vertices, faces, uv, np.zeros(len(vertices)), anchor)


def _lid_rim(skin: SkinSheet, index: int, side: int, *, upper: bool) -> Part:
    edge = skin.lid_edges[index][0 if upper else 1]
    start = skin.vertices[edge]
    centre = np.array([side * EYE_X, EYE_Y, EYE_Z])
    rings = []
    for depth in (0.0, 0.5, 1.0):
        direction = start - centre
        distance = np.linalg.norm(direction, axis=1, keepdims=True)
        inner = np.minimum(distance, EYE_RADIUS - 0.0012)
        rings.append(centre + direction / distance * (distance + depth * (inner - distance)))
        rings[-1][:, 2] -= 0.004 * depth * np.clip((distance[:, 0] - EYE_RADIUS) / 0.004, 0, 1)
    vertices, faces, uv, anchor = _strip(edge, rings, flip=not upper)
    return Part("lid_rim", "rim", vertices, faces, uv, np.zeros(len(vertices)), anchor)


def _cavity(skin: SkinSheet) -> Part:
    def surface(u: Float[np.ndarray, "v u"], v: Float[np.ndarray, "v u"]) -> Float[np.ndarray, "v u 3"]:
        x, y = 2 * u - 1, 1 - 2 * v
        depth = 0.020 * np.clip(1 - x**2, 0, 1) ** 0.5 * np.clip(1 - y**2, 0, 1) ** 0.4
        height = 0.023 * (1 - 0.62 * x**2)
        return np.stack([0.0300 * x, MOUTH_Y - 0.002 + height * y, 0.061 - 0.006 * x**2 - depth], -1)

    vertices, faces, uv = _patch(surface, 13, 11)
    # Its sides follow the corners of the mouth, so that a broad smile does not uncover what lies beside it.
    corner = np.where(vertices[:, 0] < 0, skin.lip_edge[0, 0], skin.lip_edge[0, -1])
    anchor = np.where(np.abs(vertices[:, 0]) > 0.020, corner, -1)
    return Part("cavity", "mouth", vertices, faces, uv + np.array([0, 1]), uv[:, 1] ** 1.2, anchor)


def _eye_socket(skin: SkinSheet, index: int, side: int) -> Part:
    """Flesh behind lids and ball: what shows in the corners of the eye."""
    edge = skin.vertices[skin.lid_edges[index][0]]
    right, left = edge[0], edge[-1]

    def surface(u: Float[np.ndarray, "v u"], v: Float[np.ndarray, "v u"]) -> Float[np.ndarray, "v u 3"]:
        spread = 1.12 * (u - 0.5) + 0.5
        middle = right + spread[..., None] * (left - right)
        away = np.abs(2 * u - 1)
        depth = 0.0016 + 0.0060 * (1 - away**3)
        return middle + np.stack([0 * u, 0.020 * (0.5 - v), -depth], -1)

    vertices, faces, uv = _patch(surface, 15, 7)
    count = len(vertices)
    return Part("eye_socket", "rim", vertices, faces, 0 * uv, np.zeros(count), np.full(count, -1))


def _teeth(*, upper: bool) -> Part:
    def surface(u: Float[np.ndarray, "v u"], v: Float[np.ndarray, "v u"]) -> Float[np.ndarray, "v u 3"]:
        angle = (2 * u - 1) * 1.35
        scale = 1.0 if upper else 0.90
        x = 0.0225 * scale * np.sin(angle)
        arch = _ARCH_FRONT - (0.0 if upper else 0.0022) - 0.0275 * scale * (1 - np.cos(angle)) ** 0.95
        tooth = np.abs(np.sin(np.pi * 10 * u)) ** 0.35  # the gaps between ten teeth
        z = arch - 0.0010 * (1 - tooth) - 0.0022 * (2 * v - 0.9) ** 2
        if upper:
            incisor = 1 - 0.10 * bell(np.abs(angle) - 0.62, 0.12)
            y = MOUTH_Y + 0.0125 - 0.0142 * v * incisor
        else:
            y = MOUTH_Y - 0.0030 - 0.0115 * v
        return np.stack([x, y, z], -1)

    vertices, faces, uv = _patch(surface, 61, 7)
    name = "upper_teeth" if upper else "lower_teeth"
    uv = uv if upper else np.stack([uv[:, 0], 1 - uv[:, 1]], -1)
    weight = np.zeros(len(vertices)) if upper else np.ones(len(vertices))
    return Part(name, "teeth", vertices, faces, uv, weight, np.full(len(vertices), -1))


def _tongue() -> Part:
    def surface(u: Float[np.ndarray, "v u"], v: Float[np.ndarray, "v u"]) -> Float[np.ndarray, "v u 3"]:
        across, along = 2 * u - 1, v  # back to tip, then under it
        bend = np.pi * along**1.5
        y = MOUTH_Y - 0.0105 + 0.0045 * np.cos(bend) - 0.0016 * across**2 - 0.0008 * bell(across, 0.18)
        z = 0.040 + 0.0325 * np.sin(np.clip(along * 1.9, 0, np.pi / 2)) * (1 - 0.22 * across**2)
        return np.stack([0.0165 * across * (1 - 0.16 * along), y, z], -1)

    vertices, faces, uv = _patch(surface, 13, 13)
    return Part("tongue", "tongue", vertices, faces, uv, np.full(len(vertices), 0.9), np.full(len(vertices), -1))


def _eyeball(side: int) -> Part:
    def surface(u: Float[np.ndarray, "v u"], v: Float[np.ndarray, "v u"]) -> Float[np.ndarray, "v u 3"]:
        turn, fall = (2 * u - 1) * np.pi, v * np.pi
        ball = np.stack([np.sin(turn) * np.sin(fall), np.cos(fall), np.cos(turn) * np.sin(fall)], -1)
        return np.array([side * EYE_X, EYE_Y, EYE_Z]) + EYE_RADIUS * ball

    vertices, faces, _ = _patch(surface, 29, 17)
    uv = (vertices[:, :2] - [side * EYE_X, EYE_Y]) / EYE_RADIUS
    uv[vertices[:, 2] < EYE_Z] = 2.0
    none = np.zeros(len(vertices))
    name, joint = ("left_eyeball", 3) if side > 0 else ("right_eyeball", 4)
    return Part(name, "eye", vertices, faces, uv, none, np.full(len(vertices), -1), eye=joint)


def _ear(skin: SkinSheet, side: int) -> Part:
    """A shell with rim, hollow and lobe, hinged where the jaw's branch meets the skull."""
    around, outward = 33, 11
    turn, radius = np.meshgrid(np.linspace(0, 2 * np.pi, around), np.linspace(0, 1, outward))
    up, back = np.cos(turn), np.sin(turn)
    size_up = np.where(up > 0, 0.0300, 0.0300 - 0.003 * back)
    size_back = 0.0172 * (1 + 0.22 * up)
    lift = 0.0052 * bell(radius - 0.84, 0.085) * ramp(up, -1.0, -0.40)  # rim
    lift += 0.0042 * bell(radius - 0.50, 0.09) * ramp(back, -0.3, 0.4) * ramp(up, -0.9, -0.3)  # inner fold
    lift -= 0.0100 * bell(radius, 0.25) * ramp(up * radius, 0.45, 0.05)  # hollow
    lift += 0.0036 * bell(back + 0.60, 0.22) * bell(radius - 0.40, 0.16) * bell(up + 0.25, 0.35)  # flap in front
    lift -= 0.0070 * ramp(radius, 0.88, 1.0)
    shell_up, shell_back = radius * up * size_up, radius * back * size_back
    flare = 0.42
    behind = shell_back + 0.016
    x = 0.0675 + behind * np.sin(flare) + lift * np.cos(flare) + 0.0010 * up
    z = -0.006 - behind * np.cos(flare) + lift * np.sin(flare) - 0.16 * shell_up
    y = 0.0060 + shell_up
    vertices = np.stack([side * x, y, z], -1).reshape(-1, 3)
    faces = _grid_faces(outward, around)
    faces = faces[:, ::-1] if side > 0 else faces
    rows, columns = skin.grid_shape
    # Paint: a plain patch of cheek in front of the ear.
    row, column = np.argmin(np.abs(skin.loop - 8.6)), np.argmin(np.abs(skin.angle - side * 1.0))
    patch = np.stack([column / (columns - 1) + 0.012 * radius * back, row / (rows - 1) + 0.012 * radius * up], -1)
    count = len(vertices)
    return Part("ear", "skin", vertices, faces, patch.reshape(-1, 2), np.zeros(count), np.full(count, -1))
