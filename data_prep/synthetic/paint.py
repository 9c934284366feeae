"""Paint and hair: colour and gloss of the skin as functions of the place on the mean head, hair as closed shells."""

from __future__ import annotations

import dataclasses
import functools

import numpy as np
from jaxtyping import Float, Int
from scipy.interpolate import PchipInterpolator
from scipy.spatial import cKDTree

from data_prep.synthetic.people import Look, Person
from data_prep.synthetic.skin_surface import (
    BROW_INNER_X,
    BROW_OUTER_X,
    EYE_HALF_WIDTH,
    EYE_X,
    EYE_Y,
    JAW_LOOP,
    MOUTH_HALF_WIDTH,
    MOUTH_Y,
    Field,
    SkinSheet,
    bell,
    brow_height,
    build_skin,
    lower_lip_outline,
    mirrored_bell,
    ramp,
    smooth_noise,
    upper_lip_outline,
)

__all__ = ["BEARDS", "HAIR_STYLES", "TEXEL_M", "Hair", "build_hair", "hairline_distance", "paint_hair", "paint_skin"]

# Hair as closed shells: a cap over the scalp and, for some styles, a curtain that hangs from it or a bun.


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


BEARDS = ("none", "stubble", "moustache", "goatee", "full")

_SIZE = 512
TEXEL_M = 0.00036
"""Width of a texel in the middle of the face."""

Paint = Float[np.ndarray, "s s 4"]


@functools.cache
def _rest_positions(size: int) -> tuple[Float[np.ndarray, "s s"], ...]:
    """x, y, z on the mean head, loop number and signed rows below the lids' seam, at each texel."""
    skin = build_skin()
    rows, columns = skin.grid_shape
    row = np.clip((np.arange(size) + 0.5) / size * (rows - 1), 0, rows - 1.001)
    column = np.clip((np.arange(size) + 0.5) / size * (columns - 1), 0, columns - 1.001)

    def stretch(values: Float[np.ndarray, "r c"]) -> Float[np.ndarray, "s s"]:
        r, c = row.astype(int), column.astype(int)
        fr, fc = (row - r)[:, None], (column - c)[None]
        top = values[r][:, c] * (1 - fc) + values[r][:, c + 1] * fc
        return (top * (1 - fr) + values[r + 1][:, c] * (1 - fc) * fr + values[r + 1][:, c + 1] * fc * fr).astype(
            np.float32
        )

    x, y, z = (stretch(skin.grid[:, :, axis]) for axis in range(3))
    loop = stretch(np.repeat(skin.loop[:, None], columns, 1))
    eye_row = int(skin.lid_edges[0][0][1]) // columns
    seam = np.repeat((row - eye_row)[:, None], size, 1).astype(np.float32)
    return x, y, z, loop, seam


def paint_skin(person: Person, *, size: int = _SIZE) -> Paint:
    """Returns colour (linear) and gloss of a person's skin, lips, brows, lashes, beard, scalp and clothes."""
    x, y, z, loop, seam = _rest_positions(size)
    rng = np.random.default_rng([0x7E87, person.seed])
    look = person.look
    front = ramp(z, 0.010, 0.040)
    paint = np.empty((size, size, 4), np.float32)
    paint[..., :3] = look.skin
    paint[..., 3] = 0.34
    _tint_skin(paint, look, x, y, front, rng)
    _paint_beard(paint, look, x, y, z, loop, rng)
    _paint_lips(paint, look, x, y, front, rng)
    _paint_brows(paint, look, x, y, front, rng)
    _paint_lashes(paint, look, x, y, front, seam)
    _paint_scalp(paint, person, x, y, z, rng)
    _paint_clothes(paint, look, x, y, z, loop, rng)
    return paint


def _blend(paint: Paint, mask: Field, colour: Field | tuple[float, ...], gloss: float | None = None) -> None:
    paint[..., :3] += mask[..., None] * (np.asarray(colour, np.float32) - paint[..., :3])
    if gloss is not None:
        paint[..., 3] += mask * (gloss - paint[..., 3])


def _scale(paint: Paint, mask: Field, factors: tuple[float, float, float]) -> None:
    paint[..., :3] *= 1 + mask[..., None] * (np.asarray(factors, np.float32) - 1)


def _noise(rng: np.random.Generator, size: int, cells: int, octaves: int = 1) -> Field:
    return smooth_noise(rng, (size, size), (cells, cells), octaves=octaves).astype(np.float32)


def _tint_skin(paint: Paint, look: Look, x: Field, y: Field, front: Field, rng: np.random.Generator) -> None:
    size = len(x)
    # Skin is mottled at every scale; without it most of a face would look alike to anything that compares places.
    mottling = sum(strength * _noise(rng, size, cells) for cells, strength in ((10, 0.045), (28, 0.045), (72, 0.045)))
    pores = rng.standard_normal((size, size)).astype(np.float32)
    paint[..., :3] *= np.exp(mottling + 0.030 * pores)[..., None]
    paint[..., 0] *= np.exp(0.020 * _noise(rng, size, 16, 2))
    cheeks = mirrored_bell(x, 0.0400, 0.0130) * bell(y + 0.0080, 0.0130) * front
    _scale(paint, cheeks, (1.06, 0.80, 0.82))
    _scale(paint, bell(x, 0.009) * bell(y + 0.010, 0.010) * front, (1.04, 0.85, 0.86))
    _scale(paint, bell(x, 0.013) * bell(y + 0.082, 0.009) * front, (1.02, 0.91, 0.92))
    _scale(paint, mirrored_bell(x, EYE_X, 0.0150) * bell(y - EYE_Y + 0.0085, 0.0045) * front, (0.86, 0.78, 0.84))
    _scale(paint, mirrored_bell(x, EYE_X, 0.0150) * bell(y - EYE_Y - 0.0085, 0.0045) * front, (0.88, 0.78, 0.78))
    _scale(paint, mirrored_bell(x, 0.0066, 0.0026) * bell(y + 0.0213, 0.0017) * front, (0.16, 0.10, 0.10))  # nostrils
    _scale(paint, mirrored_bell(x, 0.0187, 0.0014) * bell(y + 0.0160, 0.0060) * front, (0.80, 0.70, 0.70))
    paint[..., 3] += front * 0.22 * (bell(x, 0.010) * bell(y + 0.004, 0.016) + bell(x, 0.030) * bell(y - 0.068, 0.014))
    if look.freckles:
        spots = ramp(_noise(rng, size, 110), 1.3, 2.0) * (bell(x, 0.045) * bell(y + 0.001, 0.016)) * front
        _scale(paint, np.clip(spots * look.freckles, 0, 1), (0.66, 0.52, 0.44))
    for _ in range(int(rng.integers(0, 4))):  # moles
        place = rng.uniform((-0.05, -0.07), (0.05, 0.01))
        _scale(
            paint, np.exp(-((x - place[0]) ** 2 + (y - place[1]) ** 2) / (2 * 0.0008**2)) * front, (0.35, 0.25, 0.22)
        )


def _paint_lips(paint: Paint, look: Look, x: Field, y: Field, front: Field, rng: np.random.Generator) -> None:
    size = len(x)
    soft = 0.0011 - 0.0006 * look.lip_paint
    inside = np.where(y > MOUTH_Y, upper_lip_outline(x) - y, y - lower_lip_outline(x))
    mask = ramp(inside, -soft, soft) * ramp(np.abs(x), MOUTH_HALF_WIDTH + 0.0008, MOUTH_HALF_WIDTH - 0.0022) * front
    lines = np.exp(0.07 * smooth_noise(rng, (size, size), (4, 120)).astype(np.float32))
    shade = np.where(y > MOUTH_Y, 0.86, 1.0) * lines
    _blend(paint, mask * (0.80 + 0.18 * look.lip_paint), np.asarray(look.lip, np.float32) * shade[..., None], 0.75)
    seam = bell(y - MOUTH_Y, 0.0008) * ramp(np.abs(x), MOUTH_HALF_WIDTH + 0.002, MOUTH_HALF_WIDTH - 0.004) * front
    _scale(paint, seam, (0.42, 0.30, 0.30))
    _scale(paint, bell(x, 0.016) * bell(y - MOUTH_Y + 0.0160, 0.0030) * front, (0.90, 0.84, 0.82))


def _paint_brows(paint: Paint, look: Look, x: Field, y: Field, front: Field, rng: np.random.Generator) -> None:
    size = len(x)
    away = np.abs(x)
    along = (away - BROW_INNER_X) / (BROW_OUTER_X - BROW_INNER_X)
    thick = 0.0038 * look.brow_width * (1 - 0.70 * ramp(along, 0.45, 1.05)) * (0.75 + 0.25 * ramp(along, 0.0, 0.2))
    off = (y - brow_height(away)) / thick
    mask = ramp(np.abs(off), 1.25, 0.55) * ramp(along, -0.07, 0.10) * ramp(along, 1.06, 0.90) * front
    hairs = smooth_noise(rng, (size, size), (30, 170), octaves=1).astype(np.float32)
    mask = np.clip(mask * (0.90 + 0.12 * hairs), 0, 1)
    _blend(paint, mask * 0.92, look.brow, 0.10)


def _paint_lashes(paint: Paint, look: Look, x: Field, y: Field, front: Field, seam: Field) -> None:
    """`seam` counts rows below the lids' seam: negative is upper lid, whatever the opening between."""
    for side in (-1, 1):
        along = np.clip(1 - np.square((x - side * EYE_X) / (EYE_HALF_WIDTH * 1.06)), 0, 1)
        outward = side * (x - side * EYE_X) / EYE_HALF_WIDTH
        inside = ramp(along, 0.0, 0.25) * front * (np.abs(y - EYE_Y) < 0.02)
        weight = np.clip(look.lash * (0.75 + 0.35 * outward), 0, 1)
        upper = bell(np.minimum(seam + 0.9, 0), 0.8) * (seam < 0.5)
        lower = bell(np.maximum(seam - 0.6, 0), 0.45) * (seam >= 0.5)
        _blend(paint, inside * upper * (0.45 + 0.5 * weight), (0.012, 0.008, 0.008), 0.1)
        _scale(paint, inside * lower * 0.8, (0.62 - 0.25 * look.lash, 0.42 - 0.15 * look.lash, 0.40 - 0.15 * look.lash))


def _paint_beard(paint: Paint, look: Look, x: Field, y: Field, z: Field, loop: Field, rng: np.random.Generator) -> None:
    if look.beard == "none":
        return
    size = len(x)
    away = np.abs(x)
    low_front = ramp(z, -0.020, 0.010) * ramp(loop, JAW_LOOP + 2.4, JAW_LOOP + 1.2)
    cheek_line = -0.030 + 0.020 * ramp(away, 0.034, 0.066)
    jaw = ramp(y, cheek_line + 0.006, cheek_line - 0.006) * ramp(away, 0.013, 0.032)
    jaw = np.maximum(jaw, ramp(y, -0.0555, -0.0640))
    chin = ramp(away, 0.031, 0.023) * ramp(y, -0.0560, -0.0620)
    top = -0.0262 - 0.0060 * ramp(away, 0.008, 0.028)
    moustache = ramp(away, 0.034, 0.022) * ramp(y, top, top - 0.0035) * ramp(y, MOUTH_Y - 0.008, MOUTH_Y - 0.002)
    bridge = bell(away - 0.030, 0.0042) * ramp(y, -0.036, -0.042) * ramp(y, -0.072, -0.062)
    soul = bell(x, 0.005) * bell(y + 0.0600, 0.004)
    areas = {
        "stubble": np.maximum.reduce([jaw, moustache, chin, bridge]) * 0.42,
        "moustache": moustache,
        "goatee": np.maximum.reduce([chin, moustache, bridge, soul]),
        "full": np.maximum.reduce([jaw, moustache, chin, bridge, soul]),
    }
    grain = smooth_noise(rng, (size, size), (150, 190)).astype(np.float32)
    mask = np.clip(areas[look.beard] * low_front * look.beard_strength * (0.90 + 0.13 * grain), 0, 0.94)
    _blend(paint, mask, np.asarray(look.brow, np.float32) * (0.95 + 0.12 * grain[..., None]), 0.08)


def _paint_scalp(paint: Paint, person: Person, x: Field, y: Field, z: Field, rng: np.random.Generator) -> None:
    """Hair roots: the hair's own mesh ends in them, so that the hairline is not a cut."""
    size = len(x)
    inside = hairline_distance(person.look.hair_style, x, y, z)
    ragged = inside + 0.0022 * smooth_noise(rng, (size, size), (10, 170)).astype(np.float32)
    density = 0.80 if person.look.hair_style == "buzz" else 0.94
    _blend(paint, density * ramp(ragged, -0.0030, 0.0045), 0.75 * np.asarray(person.look.hair, np.float32), 0.05)


def _paint_clothes(
    paint: Paint, look: Look, x: Field, y: Field, z: Field, loop: Field, rng: np.random.Generator
) -> None:
    size = len(x)
    depth = 1.6 if look.collar == "v" else 0.0
    inside = loop - (JAW_LOOP + 4.7 + depth * ramp(np.abs(x), 0.050, 0.0) * (z > 0))
    weave = np.exp(0.05 * smooth_noise(rng, (size, size), (60, 300)).astype(np.float32))
    colour = np.asarray(look.cloth, np.float32) * weave[..., None]
    _blend(paint, ramp(inside, -0.03, 0.03), colour, 0.02)
    band = ramp(inside, 0.0, 0.05) * ramp(inside, 0.60, 0.50)
    if look.collar == "shirt":
        _blend(paint, 0.8 * band, (0.72, 0.72, 0.74), 0.02)
    else:
        _scale(paint, band, (0.78, 0.78, 0.78))
    _scale(paint, bell(inside + 0.12, 0.10) * (inside < 0), (0.72, 0.66, 0.64))


def paint_hair(person: Person, *, size: int = 256) -> Float[np.ndarray, "s s 2"]:
    """Returns brightness of the strands and the shift of their highlight; strands run along v."""
    rng = np.random.default_rng([0x4A13, person.seed])
    fine = smooth_noise(rng, (size, size), (6, 110), octaves=1)
    locks = smooth_noise(rng, (size, size), (4, 28), octaves=2)
    brightness = np.exp(0.20 * fine + 0.22 * locks)
    return np.stack([brightness, 0.10 * locks + 0.05 * fine], -1).astype(np.float32)
