"""The skin: one sheet from the crown to the chest, lofted over profile curves, slit at the mouth and the lids.

The head looks along +z with y up and x to its left, in metres, in the middle of the picture's frame. A row of the
sheet is a closed loop around the head: level in the face, rising to the jaw's angle below it, tilted under the chin.
"""

from __future__ import annotations

import dataclasses

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.interpolate import PchipInterpolator

__all__ = [
    "BROW_INNER_X",
    "BROW_OUTER_X",
    "EYE_HALF_WIDTH",
    "EYE_RADIUS",
    "EYE_X",
    "EYE_Y",
    "EYE_Z",
    "JAW_LOOP",
    "LID_RADIUS",
    "MOUTH_HALF_WIDTH",
    "MOUTH_Y",
    "Field",
    "SkinSheet",
    "bell",
    "brow_height",
    "build_skin",
    "lower_lip_outline",
    "mirrored_bell",
    "ramp",
    "smooth_noise",
    "upper_lip_outline",
]

# Smooth bumps and steps of which the head's shape, motion and paint are composed.

Field = Float[np.ndarray, "*grid"]


def bell(x: Field, width: float | Field) -> Field:
    """Returns a Gaussian of standard deviation `width`, 1 at 0."""
    return np.exp(-0.5 * np.square(x / width))


def mirrored_bell(x: Field, centre: float, width: float) -> Field:
    """Returns a Gaussian around +centre and one around -centre: the same feature on both halves of a face."""
    return bell(x - centre, width) + bell(x + centre, width)


def ramp(x: Field, start: float | Field, end: float | Field) -> Field:
    """Returns a smooth step: 0 at `start`, 1 at `end` (which may lie below `start`), flat beyond."""
    t = np.clip((x - start) / (end - start), 0.0, 1.0)
    return t * t * (3.0 - 2.0 * t)


def smooth_noise(
    rng: np.random.Generator, size: tuple[int, int], cells: tuple[int, int], *, octaves: int = 1
) -> Float[np.ndarray, "h w"]:
    """Returns noise of about unit variance, smooth at the scale of `cells` cells over the picture.

    Args:
      rng: Source of randomness.
      size: Height and width of the result.
      cells: Rows and columns of the coarsest lattice.
      octaves: Lattices summed, each twice as fine and half as strong as the one before.
    """
    total = np.zeros(size)
    for octave in range(octaves):
        rows, columns = cells[0] << octave, cells[1] << octave
        lattice = rng.standard_normal((rows + 3, columns + 3))
        weights = [_cubic_weights(length, count) for length, count in ((size[0], rows), (size[1], columns))]
        total += 0.5**octave * (weights[0] @ lattice @ weights[1].T)
    return total / max(float(total.std()), 1e-9)


def _cubic_weights(length: int, cells: int) -> Float[np.ndarray, "length knots"]:
    """Uniform cubic B-spline weights of `cells` + 3 knots at `length` positions."""
    position = (np.arange(length) + 0.5) / length * cells
    cell = np.minimum(position.astype(int), cells - 1)
    t = position - cell
    weights = np.zeros((length, cells + 3))
    rows = np.arange(length)
    for offset, value in enumerate(
        ((1 - t) ** 3 / 6, (3 * t**3 - 6 * t**2 + 4) / 6, (-3 * t**3 + 3 * t**2 + 3 * t + 1) / 6, t**3 / 6)
    ):
        weights[rows, cell + offset] = value
    return weights


MOUTH_Y = -0.044
MOUTH_HALF_WIDTH = 0.0255
EYE_X, EYE_Y, EYE_Z = 0.0318, 0.0240, 0.0610
EYE_HALF_WIDTH = 0.0152
EYE_RADIUS = 0.0122
LID_RADIUS = EYE_RADIUS + 0.0013
"""Lids ride this far from the eye's centre: a lid moves along a chord, which must not cut the eyeball."""

# The loft's loops, crown to chest. Front: y, z. Side: y, half width, z. Back: y, z. Squareness of the front.
_LOOPS = np.array(
    [
        [0.1365, -0.012, 0.1365, 0.0010, -0.015, 0.1365, -0.018, 2.0],
        [0.1330, 0.020, 0.1310, 0.0350, -0.018, 0.1310, -0.055, 2.0],
        [0.1225, 0.0445, 0.1180, 0.0560, -0.020, 0.1170, -0.079, 2.1],
        [0.1060, 0.0640, 0.0970, 0.0695, -0.021, 0.0950, -0.097, 2.2],
        [0.0850, 0.0770, 0.0750, 0.0752, -0.020, 0.0700, -0.106, 2.3],
        [0.0620, 0.0835, 0.0550, 0.0760, -0.016, 0.0470, -0.108, 2.35],
        [0.0420, 0.0850, 0.0380, 0.0738, -0.011, 0.0270, -0.105, 2.35],
        [0.0240, 0.0795, 0.0215, 0.0710, -0.006, 0.0080, -0.099, 2.3],
        [0.0050, 0.0800, 0.0035, 0.0690, -0.004, -0.0120, -0.090, 2.2],
        [-0.0200, 0.0828, -0.0165, 0.0655, -0.004, -0.0320, -0.079, 2.12],
        [-0.0440, 0.0828, -0.0335, 0.0600, -0.006, -0.0480, -0.071, 2.05],
        [-0.0620, 0.0800, -0.0450, 0.0558, -0.008, -0.0580, -0.0665, 1.95],
        [-0.0780, 0.0785, -0.0535, 0.0515, -0.011, -0.0660, -0.0640, 1.88],
        [-0.0885, 0.0725, -0.0600, 0.0478, -0.014, -0.0720, -0.0630, 1.85],
        [-0.0930, 0.0590, -0.0680, 0.0460, -0.018, -0.0780, -0.0625, 1.9],
        [-0.0985, 0.0350, -0.0800, 0.0455, -0.021, -0.0850, -0.0620, 2.0],
        [-0.1120, 0.0205, -0.0970, 0.0470, -0.023, -0.0980, -0.0615, 2.0],
        [-0.1330, 0.0175, -0.1150, 0.0530, -0.025, -0.1120, -0.0630, 2.0],
        [-0.1500, 0.0260, -0.1290, 0.0760, -0.027, -0.1240, -0.0690, 2.0],
        [-0.1660, 0.0400, -0.1430, 0.1250, -0.029, -0.1400, -0.0790, 2.1],
        [-0.1900, 0.0530, -0.1640, 0.1760, -0.030, -0.1700, -0.0870, 2.3],
        [-0.2300, 0.0630, -0.2100, 0.2010, -0.030, -0.2200, -0.0910, 2.5],
        [-0.3000, 0.0720, -0.3000, 0.2050, -0.030, -0.3000, -0.0930, 2.5],
    ]
)
JAW_LOOP = 13
"""Loop that runs along the lower edge of the jaw: above it is face, below it neck."""


@dataclasses.dataclass(frozen=True)
class SkinSheet:
    """The skin at rest.

    Attributes:
      vertices: Grid vertices, row by row, then the lower copies of those on the slits.
      faces: Counter-clockwise from outside.
      grid_shape: Rows and columns of the grid.
      loop: Loop number (fractional) of each row: `JAW_LOOP` is the jaw's edge.
      angle: Angle around the head of each column, -pi..pi, 0 in front, positive toward +x.
      below_mouth: Vertices below the lips' seam, the lower lip's edge among them.
      below_eyes: Vertices below the lids' seam, the lower lids' edges among them.
      lip_edge: Upper and lower lip's edge, right corner to left corner; both share the corners.
      lid_edges: Likewise for the lids of the eye at -x and of the eye at +x.
    """

    vertices: Float[np.ndarray, "n 3"]
    faces: Int[np.ndarray, "f 3"]
    grid_shape: tuple[int, int]
    loop: Float[np.ndarray, " rows"]
    angle: Float[np.ndarray, " columns"]
    below_mouth: Bool[np.ndarray, " n"]
    below_eyes: Bool[np.ndarray, " n"]
    lip_edge: Int[np.ndarray, "2 m"]
    lid_edges: tuple[Int[np.ndarray, "2 m"], Int[np.ndarray, "2 m"]]

    @property
    def grid(self) -> Float[np.ndarray, "rows columns 3"]:
        """Positions of the grid's own vertices."""
        rows, columns = self.grid_shape
        return self.vertices[: rows * columns].reshape(rows, columns, 3)


def build_skin() -> SkinSheet:
    """Returns the mean head's skin with closed lips and open eyes."""
    loop, angle = _row_loops(), _column_angles()
    x, y, z, front = _loft(loop, angle)
    z = z + front * _face_relief(x, y)
    shape = x.shape
    vertices = np.stack([x, y, z], -1).reshape(-1, 3)
    mouth_row = int(np.argmin(np.abs(y[:, shape[1] // 2] - MOUTH_Y)))
    eye_row = int(np.argmin(np.abs(y[:, shape[1] // 2] - EYE_Y)))
    in_front = np.abs(angle) < 1.2
    slits = [(mouth_row, np.flatnonzero(in_front & (np.abs(x[mouth_row]) < MOUTH_HALF_WIDTH)))]
    for side in (-1, 1):
        inside = np.abs(x[eye_row] - side * EYE_X) < EYE_HALF_WIDTH
        slits.append((eye_row, np.flatnonzero(in_front & inside)))
    vertices, faces, edges = _cut(vertices, shape, slits)
    row = np.repeat(np.arange(shape[0]), shape[1])
    copies = len(vertices) - len(row)
    mouth_copies = np.arange(copies) < len(edges[0][0]) - 2
    below_mouth = np.concatenate([row > mouth_row, mouth_copies])
    below_eyes = np.concatenate([row > eye_row, np.ones(copies, bool)])
    vertices = _open_lids(vertices, below_eyes)
    return SkinSheet(vertices, faces, shape, loop, angle, below_mouth, below_eyes, edges[0], (edges[1], edges[2]))


def _row_loops() -> Float[np.ndarray, " rows"]:
    """Loop number of each row: close together where a face has detail, one row exactly on mouth and eyes."""
    heights = np.concatenate(
        [
            np.linspace(_LOOPS[0, 0], 0.0520, 24)[:-1],
            np.linspace(0.0520, 0.0400, 6)[:-1],
            np.linspace(0.0400, EYE_Y, 14)[:-1],
            np.linspace(EYE_Y, 0.0120, 11)[:-1],
            np.linspace(0.0120, -0.0130, 11)[:-1],
            np.linspace(-0.0130, -0.0260, 11)[:-1],
            np.linspace(-0.0260, MOUTH_Y, 17)[:-1],
            np.linspace(MOUTH_Y, -0.0620, 16)[:-1],
            np.linspace(-0.0620, _LOOPS[JAW_LOOP, 0], 11),
        ]
    )
    numbers = np.arange(len(_LOOPS), dtype=float)
    of_height = PchipInterpolator(_LOOPS[::-1, 0], numbers[::-1])
    face = of_height(heights)
    face[-1] = JAW_LOOP
    return np.concatenate([face, JAW_LOOP + np.array([0.3, 0.6]), np.arange(JAW_LOOP + 1, numbers[-1] + 0.1, 0.7)])


def _column_angles() -> Float[np.ndarray, " columns"]:
    """Angle of each column, symmetric, with a column on the midline: a millimetre and a half apart in the face."""
    half = np.concatenate([np.linspace(0, 0.80, 37), np.linspace(0.80, 1.95, 18)[1:], np.linspace(1.95, np.pi, 11)[1:]])
    return np.concatenate([-half[:0:-1], half])


def _loft(
    loop: Float[np.ndarray, " rows"], angle: Float[np.ndarray, " columns"]
) -> tuple[Float[np.ndarray, "rows columns"], ...]:
    """Returns x, y, z of the sheet and how much it faces forward, 0..1."""
    curves = PchipInterpolator(np.arange(len(_LOOPS), dtype=float), _LOOPS)(loop)[:, :, None]
    front_y, front_z, side_y, half_width, side_z, back_y, back_z, squareness = np.moveaxis(curves, 1, 0)
    sine, cosine = np.sin(angle)[None], np.cos(angle)[None]
    power = np.where(cosine > 0, squareness, 2.1)
    reach = (np.abs(sine) ** power + np.abs(cosine) ** power) ** (-1 / power)
    x = half_width * reach * sine
    z = side_z + np.where(cosine > 0, front_z - side_z, side_z - back_z) * reach * cosine
    away = np.abs(angle)[None]
    level = (0.78 - 0.62 * ramp(loop, 10.2, 12.5))[:, None]  # rows stay level across eyes and mouth
    to_side, to_back = ramp(away, level, 1.55), ramp(away, 1.5, 3.1)
    y = front_y + (side_y - front_y) * to_side + (back_y - side_y) * to_back
    front = ramp(cosine, -0.1, 0.55) * ramp(loop, JAW_LOOP + 0.9, JAW_LOOP - 0.6)[:, None]
    return x, y, z, front * np.ones_like(x)


def _face_relief(x: Float[np.ndarray, "r c"], y: Float[np.ndarray, "r c"]) -> Float[np.ndarray, "r c"]:
    """Height of nose, lips, sockets and cheeks over the loft."""
    relief = _nose(x, y) + _lips(x, y)
    relief -= 0.0085 * mirrored_bell(x, EYE_X - 0.001, 0.0165) * bell(y - EYE_Y - 0.001, 0.0105)  # sockets
    relief -= 0.0040 * mirrored_bell(x, 0.0165, 0.0060) * bell(y - EYE_Y - 0.001, 0.0090)  # beside the nose's root
    relief += 0.0034 * mirrored_bell(x, 0.0280, 0.0190) * bell(y - 0.0420, 0.0065)  # brow ridge
    relief += 0.0018 * bell(x, 0.0120) * bell(y - 0.0400, 0.0080)  # between the brows
    relief += 0.0052 * mirrored_bell(x, 0.0475, 0.0140) * bell(y - 0.0000, 0.0120)  # cheek bones
    relief += 0.0030 * mirrored_bell(x, 0.0330, 0.0110) * bell(y + 0.0100, 0.0100)  # apples of the cheeks
    relief -= 0.0022 * mirrored_bell(x, 0.0480, 0.0130) * bell(y + 0.0380, 0.0170)  # under the cheek bones
    crease = np.abs(x) - (0.0200 + 0.0125 * ramp(y, -0.014, -0.046))
    relief -= 0.0007 * bell(crease, 0.0022) * bell(y + 0.028, 0.0110)  # from nose to mouth
    relief += 0.0050 * bell(x, 0.0150) * bell(y + 0.0780, 0.0095)  # chin
    relief += 0.0015 * mirrored_bell(x, 0.0110, 0.0080) * bell(y + 0.0800, 0.0080)
    return relief


def _nose(x: Float[np.ndarray, "r c"], y: Float[np.ndarray, "r c"]) -> Float[np.ndarray, "r c"]:
    profile = PchipInterpolator(
        [-0.0290, -0.0245, -0.0220, -0.0200, -0.0165, -0.0115, -0.0060, 0.0040, 0.0150, 0.0240, 0.0330, 0.0420],
        [0.0000, 0.0008, 0.0050, 0.0130, 0.0200, 0.0218, 0.0190, 0.0125, 0.0070, 0.0038, 0.0016, 0.0000],
        extrapolate=False,
    )
    height = np.nan_to_num(profile(y))
    width = 0.0058 + 0.0022 * ramp(y, 0.016, -0.014) + 0.0014 * ramp(y, 0.018, 0.034)
    nose = height * np.exp(-0.5 * np.abs(x / width) ** 2.3)
    nose += 0.0092 * mirrored_bell(x, 0.0122, 0.0050) * bell(y + 0.0150, 0.0058)  # wings
    nose -= 0.0014 * mirrored_bell(x, 0.0195, 0.0030) * bell(y + 0.0150, 0.0080)  # groove around them
    nose -= 0.0035 * mirrored_bell(x, 0.0068, 0.0030) * bell(y + 0.0207, 0.0020)  # nostrils
    return nose


def _lips(x: Float[np.ndarray, "r c"], y: Float[np.ndarray, "r c"]) -> Float[np.ndarray, "r c"]:
    across = np.clip(1 - np.square(x / (MOUTH_HALF_WIDTH * 1.06)), 0, None)
    above = y - MOUTH_Y
    mound = 0.0030 * bell(x, 0.024) * bell(above, 0.016)  # the teeth behind
    upper = 0.0058 * across**0.75 * bell(above - 0.0046, 0.0030)
    upper += 0.0010 * bell(x, 0.0045) * bell(above - 0.0030, 0.0024)  # tubercle
    lower = 0.0072 * across**0.8 * bell(above + 0.0056, 0.0038)
    seam = -0.0022 * np.sqrt(across) * bell(above, 0.0013)
    corners = -0.0018 * mirrored_bell(x, MOUTH_HALF_WIDTH + 0.001, 0.0034) * bell(above, 0.0045)
    philtrum = -0.0013 * bell(x, 0.0028) * bell(above - 0.0135, 0.0048)
    philtrum += 0.0006 * mirrored_bell(x, 0.0056, 0.0022) * bell(above - 0.0120, 0.0050)
    below = -0.0036 * bell(x, 0.0170) * bell(above + 0.0175, 0.0048)
    return mound + upper + lower + seam + corners + philtrum + below


def _cut(
    vertices: Float[np.ndarray, "n 3"], shape: tuple[int, int], slits: list[tuple[int, Int[np.ndarray, " m"]]]
) -> tuple[Float[np.ndarray, "k 3"], Int[np.ndarray, "f 3"], list[Int[np.ndarray, "2 m"]]]:
    """Doubles the vertices inside each slit; the faces below it use the copies."""
    rows, columns = shape
    own = np.arange(rows * columns).reshape(shape)
    seen_from_below = own.copy()
    copies: list[int] = []
    edges = []
    for row, inside in slits:
        for column in inside[1:-1]:
            seen_from_below[row, column] = len(vertices) + len(copies)
            copies.append(int(own[row, column]))
        edges.append(np.stack([own[row, inside], seen_from_below[row, inside]]))
    upper_left, upper_right = seen_from_below[:-1, :-1], seen_from_below[:-1, 1:]
    lower_left, lower_right = own[1:, :-1], own[1:, 1:]
    faces = np.concatenate(
        [
            np.stack([upper_left, lower_left, lower_right], -1).reshape(-1, 3),
            np.stack([upper_left, lower_right, upper_right], -1).reshape(-1, 3),
        ]
    )
    return np.concatenate([vertices, vertices[copies]]), faces, edges


def _open_lids(vertices: Float[np.ndarray, "n 3"], below_eyes: Bool[np.ndarray, " n"]) -> Float[np.ndarray, "n 3"]:
    """Draws the lids apart to an almond and lays them on the eyeball."""
    x, y, z = vertices.T.copy()
    in_front = z > 0.02
    for side in (-1, 1):
        along = (x - side * EYE_X) / EYE_HALF_WIDTH
        outward = side * along
        opening = np.clip(1 - along**2, 0, None) ** 0.72 * in_front
        distance = np.abs(y - EYE_Y)
        lift = np.where(
            below_eyes,
            -0.0047 * (1 + 0.16 * outward) * np.exp(-distance / 0.0090),
            0.0051 * (1 - 0.12 * outward) * np.exp(-distance / 0.0105),
        )
        tilt = 0.0011 * outward * bell(along, 1.1) * bell(distance, 0.013) * in_front
        y = y + opening * lift + tilt
    for side in (-1, 1):
        from_centre = np.hypot(x - side * EYE_X, y - EYE_Y)
        on_ball = EYE_Z + np.sqrt(np.clip(LID_RADIUS**2 - from_centre**2, 0, None))
        on_ball = np.where((from_centre < LID_RADIUS) & in_front, on_ball, -1.0)
        # A smooth maximum: lids bulge over the ball and run out into the socket without an edge.
        above = z - on_ball
        z = 0.5 * (z + on_ball + np.hypot(above, 0.0022)) * (on_ball > 0) + z * (on_ball < 0)
        crease = 0.0012 * bell(y - EYE_Y - 0.0092 + 9.0 * (x - side * EYE_X) ** 2, 0.0010)
        z = z - crease * (np.abs(x - side * EYE_X) < EYE_HALF_WIDTH) * in_front
    return np.stack([x, y, z], -1)


# Where brows and lips run on the mean face: paint and landmarks agree on these curves.

BROW_INNER_X, BROW_OUTER_X = 0.0125, 0.0515


def brow_height(x: Field) -> Field:
    """Returns y of the brow's middle line at distance `x` from the midline."""
    t = np.clip((x - BROW_INNER_X) / (BROW_OUTER_X - BROW_INNER_X), -0.2, 1.2)
    return 0.0395 + 0.0052 * np.sin(np.pi * np.clip(t, 0, 1) ** 1.3 * 0.86) - 0.0030 * np.clip(t - 0.6, 0, None)


def upper_lip_outline(x: Field) -> Field:
    """Returns y of the upper lip's border with the skin; the mouth's height at the corners."""
    across = np.clip(1 - np.square(x / (MOUTH_HALF_WIDTH * 1.01)), 0, None)
    bow = 0.0009 * bell(np.abs(x) - 0.0056, 0.0028) - 0.0009 * bell(x, 0.0026)
    return MOUTH_Y + 0.0090 * across**0.85 + bow


def lower_lip_outline(x: Field) -> Field:
    """Returns y of the lower lip's border with the skin."""
    across = np.clip(1 - np.square(x / (MOUTH_HALF_WIDTH * 1.01)), 0, None)
    return MOUTH_Y - 0.0108 * across**0.75
