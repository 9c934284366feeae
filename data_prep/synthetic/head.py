"""The head in the FLAME file format: built from procedures, posed by blend shapes and linear blend skinning."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int
from scipy.linalg import eigh
from threadpoolctl import threadpool_limits

from asccl_jax.errors import InputError
from asccl_jax.work import atomic_file
from data_prep.synthetic.action_units import EXPRESSION_SIZE, action_unit_fields, jaw_weights
from data_prep.synthetic.landmark_embedding import static_landmarks
from data_prep.synthetic.skin_surface import (
    EYE_RADIUS,
    EYE_X,
    EYE_Y,
    EYE_Z,
    JAW_LOOP,
    MOUTH_Y,
    SkinSheet,
    bell,
    build_skin,
    ramp,
)

__all__ = [
    "EXPRESSION_START",
    "IDENTITY_SIZE",
    "JOINTS",
    "MATERIALS",
    "Part",
    "SyntheticHead",
    "build_head",
    "build_parts",
    "identity_basis",
    "joint_transforms",
    "rotation_matrix",
]

# What the skin does not cover: inner lips, mouth cavity, teeth, tongue, lid rims, eyeballs, ears.

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


# How heads differ: a smooth, symmetric random deformation of the space they lie in, its components by variance.
#
# A Gaussian process over space moves skin, eyes and teeth together. Deformations are symmetric in the midplane and fade
# out toward the chest. With coefficients drawn from N(0, 1) the head varies as the process does.

# Length scale, standard deviation in x and y, standard deviation in z; metres.
_SCALES = ((0.070, 0.0050, 0.0035), (0.035, 0.0025, 0.0015), (0.018, 0.0012, 0.0006))
_INDUCING = 340
_PER_AXIS = (100, 110, 90)
_CHUNK = 256  # Rows whose intermediate results stay in a core's cache.


def identity_basis(vertices: Float[np.ndarray, "n 3"], *, components: int = 300) -> Float[np.ndarray, "n 3 k"]:
    """Returns the components with the largest variance, in metres per unit coefficient.

    Args:
      vertices: The head at rest.
      components: How many to return; at most the 300 that are computed.
    """
    fade = ramp(vertices[:, 1], -0.150, -0.100)
    # A symmetric field is known by one half.
    near = vertices[(fade > 0) & (vertices[:, 2] > -0.10) & (vertices[:, 0] >= 0)]
    support = near[_farthest_points(near, _INDUCING)]
    within, across = _covariances(support, support), _covariances(vertices, support)
    last = len(support) - 1
    half = vertices[:, 0] >= 0  # of a field that is odd in x both halves hold the greatest value, with either sign
    variances, fields = [], []
    for axis, count in enumerate(_PER_AXIS):
        variance, modes = eigh(within[axis].astype(np.float64), subset_by_index=(last - count + 1, last))
        field = across[axis] @ (modes / np.sqrt(np.maximum(variance, 1e-12))).astype(np.float32)
        strongest = np.take_along_axis(field[half], np.abs(field[half]).argmax(axis=0)[None], axis=0)
        variances.append(variance)
        fields.append(fade[:, None] * field * np.sign(strongest))  # eigenvectors come with either sign
    axis_of = np.repeat(np.arange(3), _PER_AXIS)
    order = np.argsort(-np.concatenate(variances), kind="stable")[:components]
    basis = np.zeros((len(vertices), 3, components), np.float32)
    for axis, start in enumerate(np.cumsum((0, *_PER_AXIS[:2]))):
        places = np.flatnonzero(axis_of[order] == axis)
        basis[:, axis, places] = fields[axis][:, order[places] - start]
    return basis


def _covariances(a: Float[np.ndarray, "n 3"], b: Float[np.ndarray, "m 3"]) -> Float[np.ndarray, "3 n m"]:
    """Covariances of the displacements along x, y and z: odd in x across the midplane for x, even for y and z."""
    total = np.zeros((3, len(a), len(b)), np.float32)
    for start in range(0, len(a), _CHUNK):
        rows = slice(start, start + _CHUNK)
        near = a[rows].astype(np.float32)
        for mirror in (1, -1):
            other = (b * [mirror, 1, 1]).astype(np.float32)
            squared = np.square(near).sum(1)[:, None] + np.square(other).sum(1) - 2 * near @ other.T
            for length, plane, depth in _SCALES:
                falloff = np.exp(np.float32(-0.5 / length**2) * squared)
                for axis, scale in enumerate((mirror * plane**2, plane**2, depth**2)):
                    total[axis, rows] += np.float32(0.5 * scale) * falloff
    return total


def _farthest_points(points: Float[np.ndarray, "n 3"], count: int) -> list[int]:
    """Indices of points spread evenly over a cloud."""
    chosen = [0]
    distance = np.full(len(points), np.inf)
    for _ in range(count - 1):
        distance = np.minimum(distance, np.square(points - points[chosen[-1]]).sum(1))
        chosen.append(int(distance.argmax()))
    return chosen


IDENTITY_SIZE = 300
EXPRESSION_START = 300
"""First expression column of `shapedirs`; 50 follow, then 50 that are zero."""

_SHAPE_COLUMNS = 400

_EYEBALL_SHRINK = 0.98
"""Room between eyeballs and lids, a quarter millimetre, which identities bend differently."""

JOINTS = ("root", "neck", "jaw", "left_eye", "right_eye")
_PARENTS = (-1, 0, 1, 1, 1)
_REST_JOINTS = np.array([[0, -0.160, -0.020], [0, -0.090, -0.025], [0, -0.004, 0.000]])


@dataclasses.dataclass(frozen=True)
class SyntheticHead:
    """A head as FLAME's files describe one; fields keep the names they have there.

    Attributes:
      v_template: Mean head at rest: metres, y up, looking along +z.
      f: Triangles, counter-clockwise from outside.
      shapedirs: Displacement per coefficient: 0..299 identity, 300..349 expression, the rest zero.
      posedirs: Pose correctives; zero here.
      J_regressor: Joints as weighted sums of shaped vertices.
      kintree_table: Parents (-1 for the root) and numbers of `JOINTS`.
      weights: Skinning weights.
      uv: Paint coordinates, as each material understands them.
      label: Material of each triangle, a position in `head_parts.MATERIALS`.
      landmark_faces: Triangle of each static landmark, 17..67 of the 68.
      landmark_weights: Barycentric coordinates in that triangle.
      face_faces: Triangles of the face proper: in front of the ears, above the jaw's edge. The landmarks 0..16 lie
        where rays from between the eyes leave their projection.
      grid_shape: Rows and columns of the skin's grid, the first vertices.
      mouth_faces: Triangles inside the mouth, which shape and NMFC images leave out.
    """

    v_template: Float[np.ndarray, "n 3"]
    f: Int[np.ndarray, "f 3"]
    shapedirs: Float[np.ndarray, "n 3 400"]
    posedirs: Float[np.ndarray, "n 3 36"]
    J_regressor: Float[np.ndarray, "5 n"]
    kintree_table: Int[np.ndarray, "2 5"]
    weights: Float[np.ndarray, "n 5"]
    uv: Float[np.ndarray, "n 2"]
    label: Int[np.ndarray, " f"]
    landmark_faces: Int[np.ndarray, "51"]
    landmark_weights: Float[np.ndarray, "51 3"]
    face_faces: Int[np.ndarray, " g"]
    grid_shape: Int[np.ndarray, "2"]
    mouth_faces: Int[np.ndarray, " h"]

    def save(self, path: Path) -> None:
        """Writes the model as one npz file, whole or not at all."""
        with atomic_file(path) as file:
            np.savez(file, **dataclasses.asdict(self))

    @classmethod
    def load(cls, path: Path) -> SyntheticHead:
        """Returns a saved model.

        Raises:
          InputError: No such file, or arrays are missing.
        """
        if not path.is_file():
            raise InputError(f"{path}: no such head model; `build_head().save(path)` makes one")
        with np.load(path) as arrays:
            missing = [field.name for field in dataclasses.fields(cls) if field.name not in arrays]
            if missing:
                raise InputError(f"{path}: a head model lacks {', '.join(missing)}")
            return cls(**{field.name: arrays[field.name] for field in dataclasses.fields(cls)})

    def shaped(
        self, identity: Float[np.ndarray, " i"], expression: Float[np.ndarray, " e"] | None = None
    ) -> Float[np.ndarray, "n 3"]:
        """Returns vertices at rest for identity and expression coefficients (missing ones are 0)."""
        vertices = self.v_template + self.shapedirs[:, :, : len(identity)] @ identity.astype(np.float32)
        if expression is not None:
            columns = slice(EXPRESSION_START, EXPRESSION_START + len(expression))
            vertices = vertices + self.shapedirs[:, :, columns] @ expression.astype(np.float32)
        return vertices

    def posed(
        self,
        identity: Float[np.ndarray, " i"],
        expression: Float[np.ndarray, " e"],
        pose: Float[np.ndarray, "5 3"],
    ) -> Float[np.ndarray, "n 3"]:
        """Returns posed vertices by FLAME's linear blend skinning.

        Args:
          identity: Identity coefficients.
          expression: Expression coefficients.
          pose: Axis-angle rotation of each of `JOINTS`, radians.
        """
        shaped = self.shaped(identity, expression)
        rotations = [rotation_matrix(joint) for joint in pose]
        feature = np.concatenate([(rotation - np.eye(3)).ravel() for rotation in rotations[1:]])
        shaped = shaped + self.posedirs @ feature.astype(np.float32)
        transforms = joint_transforms(self.J_regressor @ shaped, rotations)
        blended = np.einsum("nj,jab->nab", self.weights, transforms)
        return np.einsum("nab,nb->na", blended[:, :, :3], shaped) + blended[:, :, 3]


def rotation_matrix(axis_angle: Float[np.ndarray, "3"]) -> Float[np.ndarray, "3 3"]:
    """Returns the rotation of an axis-angle vector, with FLAME's epsilon in each component of the norm."""
    angle = np.linalg.norm(axis_angle + 1e-8)
    x, y, z = axis_angle / angle
    skew = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    return np.eye(3) + np.sin(angle) * skew + (1 - np.cos(angle)) * skew @ skew


def joint_transforms(
    joints: Float[np.ndarray, "5 3"], rotations: list[Float[np.ndarray, "3 3"]]
) -> Float[np.ndarray, "5 3 4"]:
    """Returns for each joint the map from rest to posed position of what is fixed to it."""
    world: list[tuple[np.ndarray, np.ndarray]] = []
    for joint, parent in enumerate(_PARENTS):
        if parent < 0:
            world.append((rotations[joint], joints[joint]))
        else:
            turn, place = world[parent]
            world.append((turn @ rotations[joint], turn @ (joints[joint] - joints[parent]) + place))
    return np.stack([np.column_stack([turn, place - turn @ joints[k]]) for k, (turn, place) in enumerate(world)])


@functools.cache
def build_head() -> SyntheticHead:
    """Returns the procedural head; always the same one."""
    # Sums that several threads share are rounded by how many there are.
    with threadpool_limits(1):
        return _build_head()


def _build_head() -> SyntheticHead:
    skin = build_skin()
    parts = build_parts(skin)
    grid = skin.grid_shape
    starts = np.cumsum([len(skin.vertices), *(len(part.vertices) for part in parts)])[:-1]
    vertices = np.concatenate([skin.vertices, *(part.vertices for part in parts)])
    faces = np.concatenate([skin.faces, *(part.faces + start for part, start in zip(parts, starts, strict=True))])
    materials = [MATERIALS.index("skin")] * len(skin.faces)
    for part in parts:
        materials += [MATERIALS.index(part.material)] * len(part.faces)
    label = np.array(materials, np.int32)
    jaw, fields = _motion(skin, parts)
    shapedirs = np.zeros((len(vertices), 3, _SHAPE_COLUMNS), np.float32)
    shapedirs[:, :, :IDENTITY_SIZE] = identity_basis(vertices, components=IDENTITY_SIZE)
    shapedirs[:, :, EXPRESSION_START : EXPRESSION_START + EXPRESSION_SIZE] = fields
    eyes = {
        part.eye: slice(start, start + len(part.vertices))
        for part, start in zip(parts, starts, strict=True)
        if part.eye
    }
    regressor = _joint_regressor(vertices, eyes, grid)
    for joint, ball in eyes.items():
        centre = regressor[joint] @ vertices
        vertices[ball] = centre + _EYEBALL_SHRINK * (vertices[ball] - centre)
    inside = {MATERIALS.index(name) for name in ("mouth", "teeth", "tongue")}
    landmark_faces, landmark_weights = static_landmarks(skin)
    return SyntheticHead(
        v_template=vertices.astype(np.float32),
        f=faces.astype(np.int32),
        shapedirs=shapedirs,
        posedirs=np.zeros((len(vertices), 3, 36), np.float32),
        J_regressor=regressor,
        kintree_table=np.array([_PARENTS, range(5)], np.int64),
        weights=_skinning_weights(vertices, skin, jaw, eyes),
        uv=_paint_coordinates(skin, parts),
        label=label,
        landmark_faces=landmark_faces,
        landmark_weights=landmark_weights,
        face_faces=_face_proper(skin),
        grid_shape=np.array(grid, np.int64),
        mouth_faces=np.flatnonzero(np.isin(label, list(inside))).astype(np.int32),
    )


def _motion(skin: SkinSheet, parts: list[Part]) -> tuple[Float[np.ndarray, " n"], Float[np.ndarray, "n 3 50"]]:
    """Jaw weights and expression fields of all vertices; parts hung on the skin take its motion."""
    skin_jaw, skin_fields = jaw_weights(skin), action_unit_fields(skin)
    jaw, fields = [skin_jaw], [skin_fields]
    for part in parts:
        anchored = part.skin_anchor >= 0
        jaw.append(np.where(anchored, skin_jaw[part.skin_anchor], part.jaw_weight))
        fields.append(skin_fields[part.skin_anchor] * anchored[:, None, None])
    return np.concatenate(jaw), np.concatenate(fields)


def _skinning_weights(
    vertices: Float[np.ndarray, "n 3"], skin: SkinSheet, jaw: Float[np.ndarray, " n"], eyes: dict[int, slice]
) -> Float[np.ndarray, "n 5"]:
    columns = skin.grid_shape[1]
    loop = np.zeros(len(vertices))
    loop[: skin.grid_shape[0] * columns] = np.repeat(skin.loop, columns)
    body = ramp(loop, JAW_LOOP + 0.8, JAW_LOOP + 5.0)
    weights = np.zeros((len(vertices), 5))
    weights[:, 0] = body
    weights[:, 2] = jaw * (1 - body)
    weights[:, 1] = 1 - weights[:, 0] - weights[:, 2]
    for joint, ball in eyes.items():
        weights[ball] = np.eye(5)[joint]
    return weights.astype(np.float32)


def _joint_regressor(
    vertices: Float[np.ndarray, "n 3"], eyes: dict[int, slice], grid: tuple[int, int]
) -> Float[np.ndarray, "5 n"]:
    """Eyes: mean of a latitude-weighted ball. Others: the least affine weights on still vertices that hit the joint."""
    regressor = np.zeros((5, len(vertices)))
    behind = np.flatnonzero((vertices[: grid[0] * grid[1], 2] < -0.02) & (vertices[: grid[0] * grid[1], 1] > -0.15))[
        ::7
    ]
    system = np.concatenate([vertices[behind].T, np.ones((1, len(behind)))])
    for joint, place in enumerate(_REST_JOINTS):
        regressor[joint, behind] = np.linalg.pinv(system) @ np.append(place, 1.0)
    for joint, ball in eyes.items():
        whole = np.arange(ball.start, ball.stop).reshape(17, 29)[:, :-1].ravel()  # the last column repeats the first
        regressor[joint, whole] = 1 / len(whole)
    return regressor.astype(np.float32)


def _paint_coordinates(skin: SkinSheet, parts: list[Part]) -> Float[np.ndarray, "n 2"]:
    rows, columns = skin.grid_shape
    u, v = np.meshgrid(np.linspace(0, 1, columns), np.linspace(0, 1, rows))
    grid = np.stack([u, v], -1).reshape(-1, 2)
    originals = np.concatenate([np.concatenate([edge[0][1:-1] for edge in (skin.lip_edge, *skin.lid_edges)])])
    skin_uv = np.concatenate([grid, grid[originals]])
    return np.concatenate([skin_uv, *(part.uv for part in parts)]).astype(np.float32)


def _face_proper(skin: SkinSheet) -> Int[np.ndarray, " g"]:
    rows, columns = skin.grid_shape
    centres = skin.faces[:, :2]  # a face's first two corners share its column
    row, column = centres[:, 0] // columns, centres[:, 0] % columns
    on_grid = (skin.faces < rows * columns).all(axis=1)
    inside = (skin.loop[np.minimum(row, rows - 1)] < JAW_LOOP - 1e-6) & (skin.loop[np.minimum(row, rows - 1)] > 5.5)
    within = np.abs(skin.angle) < 1.42
    inside &= within[column] & within[np.minimum(column + 1, columns - 1)]
    return np.flatnonzero(on_grid & inside).astype(np.int32)
