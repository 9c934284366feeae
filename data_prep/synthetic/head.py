"""The head in the FLAME file format: built from procedures, posed by blend shapes and linear blend skinning."""

from __future__ import annotations

import dataclasses
import functools
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int
from threadpoolctl import threadpool_limits

from asccl_jax.data.atomic import atomic_file
from asccl_jax.errors import InputError
from data_prep.synthetic.action_units import EXPRESSION_SIZE, action_unit_fields, jaw_weights
from data_prep.synthetic.fields import ramp
from data_prep.synthetic.head_parts import MATERIALS, Part, build_parts
from data_prep.synthetic.identity_basis import identity_basis
from data_prep.synthetic.landmark_embedding import static_landmarks
from data_prep.synthetic.skin_surface import JAW_LOOP, SkinSheet, build_skin

__all__ = [
    "EXPRESSION_START",
    "IDENTITY_SIZE",
    "JOINTS",
    "HeadModel",
    "build_head",
    "joint_transforms",
    "rotation_matrix",
]

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
class HeadModel:
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
    def load(cls, path: Path) -> HeadModel:
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
def build_head() -> HeadModel:
    """Returns the procedural head; always the same one."""
    # Sums that several threads share are rounded by how many there are.
    with threadpool_limits(1):
        return _build_head()


def _build_head() -> HeadModel:
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
    return HeadModel(
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
