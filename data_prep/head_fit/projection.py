"""From coefficients to pixels: the landmarks of all frames of a clip and their derivatives by every unknown."""

from __future__ import annotations

import dataclasses

import numpy as np
from jaxtyping import Float, Int
from scipy.interpolate import CubicSpline

from data_prep.head_fit.head_assets import HeadAssets
from data_prep.head_fit.landmark_tables import LandmarkTable

__all__ = [
    "CAMERA",
    "CONTOUR",
    "EXPRESSION",
    "EXPRESSION_START",
    "IDENTITY_SIZE",
    "JAW",
    "ROTATION",
    "SCALE",
    "STATIC",
    "TRANSLATION",
    "Derivatives",
    "LandmarkHead",
    "Projection",
    "build_landmark_head",
    "contour_candidates",
    "contour_normals",
    "head_rotations",
    "jaw_rotations",
    "project",
    "skew",
    "support_points",
]

# The jaw's contour: landmarks 0..16 lie where the outline of the posed face is farthest along its normal.
#
# A point on an outline can slide along it unseen, so only its distance along the normal counts. The vertex that is
# farthest along the normal, the support point, is found anew whenever the face has moved.

CONTOUR = 17
"""Landmarks on the outline: the first of the 68."""

_EYE_JOINTS = (3, 4)
_INNERMOST = 0.82  # of the outline's distance from the face's middle: farther in, no vertex is ever on the outline
_OUTERMOST = 1.01
_BEHIND_EARS_M = 0.012
_SPACING_M = 0.005


def contour_candidates(assets: HeadAssets) -> Int[np.ndarray, " c"]:
    """Returns vertices that may be on the outline of a turned face: a band along the jaw, from ear to ear.

    The band lies within the outline of the frontal mean face, as the embedding of landmarks 0..16 draws it, so that no
    vertex of the neck gets in.
    """
    vertices = assets.v_template.astype(np.float64)
    corners = vertices[assets.faces[assets.full_landmark_faces]]
    landmarks = (assets.full_landmark_weights[:, :, None] * corners).sum(1)
    centre = landmarks[27:48, :2].mean(0)
    jaw = landmarks[:CONTOUR]
    turn = _angle(jaw[:, :2] - centre)
    order = np.argsort(turn)
    reach = CubicSpline(turn[order], np.linalg.norm(jaw[order, :2] - centre, axis=1))
    angle, distance = _angle(vertices[:, :2] - centre), np.linalg.norm(vertices[:, :2] - centre, axis=1)
    limit = reach(np.clip(angle, turn.min(), turn.max()))
    near = (angle > turn.min() - 0.1) & (angle < turn.max() + 0.1)
    near &= (distance > _INNERMOST * limit) & (distance < _OUTERMOST * limit)
    near &= vertices[:, 2] > jaw[:, 2].min() - _BEHIND_EARS_M
    near &= assets.skinning_weights[:, _EYE_JOINTS].max(1) < 0.5
    near[np.unique(assets.faces[assets.mouth_faces])] = False
    return _thinned(vertices, np.flatnonzero(near))


def _angle(offsets: Float[np.ndarray, "n 2"]) -> Float[np.ndarray, " n"]:
    """Angle from straight down, rising toward +x: continuous over the lower face."""
    return np.arctan2(offsets[:, 0], -offsets[:, 1])


def _thinned(vertices: Float[np.ndarray, "n 3"], candidates: Int[np.ndarray, " c"]) -> Int[np.ndarray, " k"]:
    """Keeps one candidate per cell of a grid."""
    cells = np.round(vertices[candidates] / _SPACING_M).astype(np.int64)
    _, first = np.unique(cells, axis=0, return_index=True)
    return candidates[np.sort(first)]


def contour_normals(landmarks: Float[np.ndarray, "t 68 2"]) -> Float[np.ndarray, "t 17 2"]:
    """Returns outward unit normals of the measured outline, y down."""
    along = np.gradient(landmarks[:, :CONTOUR], axis=1)
    normals = np.stack([-along[..., 1], along[..., 0]], -1)
    normals /= np.linalg.norm(normals, axis=-1, keepdims=True) + 1e-9
    centre = landmarks[:, 27:48].mean(1, keepdims=True)
    outward = ((landmarks[:, :CONTOUR] - centre) * normals).sum(-1, keepdims=True)
    return normals * np.where(outward < 0, -1.0, 1.0)


def support_points(
    candidates: Float[np.ndarray, "t c 2"], normals: Float[np.ndarray, "t 17 2"]
) -> Int[np.ndarray, "t 17"]:
    """Returns the position of the candidate that is farthest along each normal."""
    return np.argmax(normals @ candidates.transpose(0, 2, 1), axis=-1)


# What of a head matters for 68 landmarks: 51 points fixed to its skin and the candidates for its outline.

STATIC = 51
"""Landmarks 17..67: brows, nose, eyes, lips."""

EXPRESSION_START = 300
IDENTITY_SIZE = 100

_ROOT, _JAW = 0, 2
_JAW_FEATURES = slice(9, 18)  # the pose correctives that follow the jaw's rotation


@dataclasses.dataclass(frozen=True, eq=False)
class LandmarkHead:
    """Points of a head as linear functions of identity and expression, metres, before the jaw and the head turn.

    Attributes:
      points: 51 static landmarks, then candidates for the outline, at rest.
      identity: Their displacement per identity coefficient.
      expression: Their displacement per expression coefficient.
      jaw_weights: Share of the jaw's rotation each takes.
      jaw_correctives: Displacement per entry of the jaw's rotation matrix minus one.
      joints: Root and jaw joint of the mean head.
      joint_identity: Displacement of both joints per identity coefficient.
      joint_expression: Displacement of both joints per expression coefficient.
      insets: How far inside the outline each of the landmarks 0..16 lies.
      centre: Point that the fit turns the head about; the root joint takes its place in the result.
      unit_names: Names of the expression coefficients where they are action units, else empty.
    """

    points: Float[np.ndarray, "k 3"]
    identity: Float[np.ndarray, "k 3 i"]
    expression: Float[np.ndarray, "k 3 e"]
    jaw_weights: Float[np.ndarray, " k"]
    jaw_correctives: Float[np.ndarray, "k 3 9"]
    joints: Float[np.ndarray, "2 3"]
    joint_identity: Float[np.ndarray, "2 3 i"]
    joint_expression: Float[np.ndarray, "2 3 e"]
    insets: Float[np.ndarray, "17"]
    centre: Float[np.ndarray, "3"]
    unit_names: tuple[str, ...]

    @property
    def identity_size(self) -> int:
        """Identity coefficients in use."""
        return self.identity.shape[-1]

    @property
    def expression_size(self) -> int:
        """Expression coefficients in use."""
        return self.expression.shape[-1]

    @property
    def size_slope(self) -> Float[np.ndarray, " i"]:
        """Relative growth of the landmarks' spread in the picture plane per identity coefficient."""
        spread = (self.points[:STATIC] - self.points[:STATIC].mean(0))[:, :2]
        change = (self.identity[:STATIC] - self.identity[:STATIC].mean(0))[:, :2]
        return np.einsum("kc,kci->i", spread, change) / np.square(spread).sum()

    def restricted(self, coefficients: slice | list[int]) -> LandmarkHead:
        """Returns the head with some of its expression coefficients."""
        return dataclasses.replace(
            self,
            expression=self.expression[..., coefficients],
            joint_expression=self.joint_expression[..., coefficients],
        )


def build_landmark_head(
    assets: HeadAssets, table: LandmarkTable, *, identity_size: int = IDENTITY_SIZE
) -> LandmarkHead:
    """Returns the landmarks of a head as a detector sees them.

    Args:
      assets: The head.
      table: Where the detector puts its landmarks on this head.
      identity_size: Identity coefficients to fit.
    """
    candidates = contour_candidates(assets)
    corners = assets.faces[assets.static_landmark_faces]
    weights = assets.static_landmark_weights.astype(np.float64)

    def at_points(field: np.ndarray) -> np.ndarray:
        """Values of a per-vertex field at landmarks and candidates."""
        static = np.einsum("kj,kj...->k...", weights, field[corners].astype(np.float64))
        return np.concatenate([static, field[candidates].astype(np.float64)])

    names, used = _expression_coefficients(assets)
    identity = assets.shapedirs[:, :, :identity_size]
    expression = assets.shapedirs[:, :, EXPRESSION_START : EXPRESSION_START + used]
    regressor = assets.joint_regressor[[_ROOT, _JAW]].astype(np.float64)
    points = at_points(assets.v_template)
    points[:STATIC] += table.offsets_m
    return LandmarkHead(
        points=points,
        identity=at_points(identity),
        expression=at_points(expression),
        jaw_weights=at_points(assets.skinning_weights[:, _JAW]),
        jaw_correctives=at_points(assets.posedirs[:, :, _JAW_FEATURES]),
        joints=regressor @ assets.v_template.astype(np.float64),
        joint_identity=np.einsum("jn,nci->jci", regressor, identity, optimize=True),
        joint_expression=np.einsum("jn,nce->jce", regressor, expression, optimize=True),
        insets=table.insets_m.copy(),
        centre=points[:STATIC].mean(0),
        unit_names=names,
    )


def _expression_coefficients(assets: HeadAssets) -> tuple[tuple[str, ...], int]:
    """Names of the action units, where there are, and how many coefficients are worth fitting."""
    if assets.source != "builtin":
        return (), assets.expression_size
    from data_prep.synthetic.action_units import ACTION_UNITS

    return ACTION_UNITS, len(ACTION_UNITS)


assert STATIC + CONTOUR == 68


# Rotations of whole clips with their derivatives: axis-angle vectors for the head, one angle for the jaw.


def skew(vectors: Float[np.ndarray, "*b 3"]) -> Float[np.ndarray, "*b 3 3"]:
    """Returns the matrices that take the cross product with vectors from the left."""
    matrices = np.zeros((*vectors.shape, 3))
    for row, column, axis, sign in ((0, 1, 2, -1), (0, 2, 1, 1), (1, 2, 0, -1)):
        matrices[..., row, column] = sign * vectors[..., axis]
        matrices[..., column, row] = -sign * vectors[..., axis]
    return matrices


def head_rotations(
    axis_angles: Float[np.ndarray, "t 3"],
) -> tuple[Float[np.ndarray, "t 3 3"], Float[np.ndarray, "t 3 3"]]:
    """Returns rotation matrices R and the left Jacobians L of the exponential map.

    A small change d of an axis-angle vector turns a rotated point p by the vector L d: dp = (L d) x p.
    """
    angle = np.linalg.norm(axis_angles, axis=-1)[:, None, None]
    small = angle < 1e-4
    safe = np.where(small, 1.0, angle)
    sine = np.where(small, 1 - angle**2 / 6, np.sin(safe) / safe)
    cosine = np.where(small, 0.5 - angle**2 / 24, (1 - np.cos(safe)) / safe**2)
    cubic = np.where(small, 1 / 6 - angle**2 / 120, (safe - np.sin(safe)) / safe**3)
    cross = skew(axis_angles)
    squared = cross @ cross
    return np.eye(3) + sine * cross + cosine * squared, np.eye(3) + cosine * cross + cubic * squared


def jaw_rotations(
    angles: Float[np.ndarray, " t"],
) -> tuple[Float[np.ndarray, "t 3 3"], Float[np.ndarray, "t 3 3"]]:
    """Returns rotations about the x axis and their derivatives by the angle; positive angles open the mouth."""
    rotation, slope = np.zeros((len(angles), 3, 3)), np.zeros((len(angles), 3, 3))
    cosine, sine = np.cos(angles), np.sin(angles)
    rotation[:, 0, 0] = 1
    rotation[:, 1, 1] = rotation[:, 2, 2] = cosine
    rotation[:, 1, 2], rotation[:, 2, 1] = -sine, sine
    slope[:, 1, 1] = slope[:, 2, 2] = -sine
    slope[:, 1, 2], slope[:, 2, 1] = -cosine, cosine
    return rotation, slope


# Columns of a frame's state: log of the scale in px/m, place of the head's centre in px, axis-angle, jaw angle,
# expression coefficients.
SCALE, TRANSLATION, ROTATION, JAW, EXPRESSION = 0, slice(1, 3), slice(3, 6), 6, slice(7, None)
CAMERA = slice(0, 3)

_FLIP = np.array([1.0, -1.0])  # the head's y points up, the picture's down


@dataclasses.dataclass(frozen=True, eq=False)
class Derivatives:
    """Derivatives of the projected landmarks.

    Attributes:
      state: By the state of the same frame.
      identity: By the identity coefficients; None where they were not asked for.
    """

    state: Float[np.ndarray, "t 68 2 d"]
    identity: Float[np.ndarray, "t 68 2 i"] | None


@dataclasses.dataclass(frozen=True, eq=False)
class Projection:
    """Landmarks of a clip in pixels.

    Attributes:
      points: Landmarks 0..16 as support points of the outline, inset included; 17..67 as fixed points.
      support: Which candidate each of the landmarks 0..16 is.
    """

    points: Float[np.ndarray, "t 68 2"]
    support: Int[np.ndarray, "t 17"]


class _Pose:
    """What all points of a clip have in common, frame by frame."""

    def __init__(self, head: LandmarkHead, states: Float[np.ndarray, "t d"], shape: Float[np.ndarray, " i"]) -> None:
        self.scale = np.exp(states[:, SCALE])
        self.translation = states[:, TRANSLATION]
        self.expression = states[:, EXPRESSION]
        self.rotation, self.left_jacobian = head_rotations(states[:, ROTATION])
        jaw, self.jaw_slope = jaw_rotations(states[:, JAW])
        self.jaw_bend = jaw - np.eye(3)
        self.jaw_joint = head.joints[1] + head.joint_identity[1] @ shape + self.expression @ head.joint_expression[1].T
        # Rows of the rotation that make x and y of the picture, in pixels.
        self.to_picture = self.rotation[:, :2] * _FLIP[:, None] * self.scale[:, None, None]


def project(
    head: LandmarkHead,
    states: Float[np.ndarray, "t d"],
    shape: Float[np.ndarray, " i"],
    normals: Float[np.ndarray, "t 17 2"],
    *,
    support: Int[np.ndarray, "t 17"] | None = None,
    derivatives: bool = False,
    identity_derivatives: bool = True,
) -> tuple[Projection, Derivatives | None]:
    """Returns the landmarks of each frame and, if asked, their derivatives.

    Args:
      head: The head.
      states: Unknowns of each frame, see the columns above.
      shape: Identity coefficients.
      normals: Outward normals of the measured outline.
      support: Candidates to keep for the outline; None finds the support points anew.
      derivatives: Whether to return derivatives.
      identity_derivatives: Whether those by the identity are among them.
    """
    pose = _Pose(head, states, shape)
    rest = head.points + head.identity @ shape
    static = _Posed(pose, head, rest[:STATIC], slice(0, STATIC))
    if support is None:
        support = support_points(_Posed(pose, head, rest[STATIC:], slice(STATIC, None)).points, normals)
    chosen = STATIC + support
    contour = _Posed(pose, head, rest[chosen], chosen)
    inset = (pose.scale[:, None] * head.insets)[..., None] * normals
    projection = Projection(np.concatenate([contour.points - inset, static.points], axis=1), support)
    if not derivatives:
        return projection, None
    by_state = np.concatenate([contour.by_state(), static.by_state()], axis=1)
    by_state[:, :CONTOUR, :, SCALE] -= inset
    by_identity = None
    if identity_derivatives:
        by_identity = np.concatenate([contour.by_identity(), static.by_identity()], axis=1)
    return projection, Derivatives(by_state, by_identity)


class _Posed:
    """Some points of the head, posed; `rows` are the same for all frames (a slice) or each frame's own."""

    def __init__(self, pose: _Pose, head: LandmarkHead, rest: np.ndarray, rows: slice | Int[np.ndarray, "t k"]) -> None:
        self._pose, self._head, self._rows = pose, head, rows
        self._fields = head.expression[rows]
        if isinstance(rows, slice):
            count, size = self._fields.shape[0], self._fields.shape[-1]
            moved = (pose.expression @ self._fields.reshape(-1, size).T).reshape(-1, count, 3)
        else:
            moved = (self._fields @ pose.expression[:, None, :, None])[..., 0]
        self._correctives = head.jaw_correctives[rows]
        feature = pose.jaw_bend.reshape(-1, 1, 9, 1)
        self._vertices = rest + moved
        if head.jaw_correctives.any():
            self._vertices = self._vertices + (self._correctives @ feature)[..., 0]
        weights = head.jaw_weights[rows]
        self._weights = np.broadcast_to(weights, self._vertices.shape[:2])[..., None]
        self._from_jaw = self._vertices - pose.jaw_joint[:, None]
        bent = self._vertices + self._weights * (self._from_jaw @ pose.jaw_bend.transpose(0, 2, 1))
        self._from_centre = bent - head.centre
        self.points = self._from_centre @ pose.to_picture.transpose(0, 2, 1) + pose.translation[:, None]

    def by_state(self) -> Float[np.ndarray, "t k 2 d"]:
        """Derivatives by the state."""
        pose, head = self._pose, self._head
        frames, count = self._vertices.shape[:2]
        result = np.zeros((frames, count, 2, 7 + head.expression_size))
        result[..., SCALE] = self.points - pose.translation[:, None]
        result[..., 0, 1] = result[..., 1, 2] = 1
        turned = self._from_centre @ pose.rotation.transpose(0, 2, 1)
        along = -skew(turned)[:, :, :2] * _FLIP[:, None] * pose.scale[:, None, None, None]
        result[..., ROTATION] = along @ pose.left_jacobian[:, None]
        opened = self._weights * (self._from_jaw @ pose.jaw_slope.transpose(0, 2, 1))
        if head.jaw_correctives.any():
            slope = (self._correctives @ pose.jaw_slope.reshape(-1, 1, 9, 1))[..., 0]
            opened = opened + slope + self._weights * (slope @ pose.jaw_bend.transpose(0, 2, 1))
        result[..., JAW] = opened @ pose.to_picture.transpose(0, 2, 1)
        result[..., EXPRESSION] = self._by_field(self._fields, head.joint_expression[1])
        return result

    def by_identity(self) -> Float[np.ndarray, "t k 2 i"]:
        """Derivatives by the identity coefficients."""
        return self._by_field(self._head.identity[self._rows], self._head.joint_identity[1])

    def _by_field(self, field: np.ndarray, jaw_joint_field: Float[np.ndarray, "3 c"]) -> np.ndarray:
        """Derivatives by coefficients of a linear field over the points and the jaw joint."""
        pose = self._pose
        through_jaw = self._weights[..., None] * (pose.to_picture @ pose.jaw_bend)[:, None]
        through = pose.to_picture[:, None] + through_jaw
        if isinstance(self._rows, slice):  # one product per landmark instead of one per landmark and frame
            frames, count = through.shape[:2]
            flat = through.transpose(1, 0, 2, 3).reshape(count, frames * 2, 3)
            result = (flat @ field).reshape(count, frames, 2, -1).transpose(1, 0, 2, 3)
        else:
            result = through @ field
        if jaw_joint_field.any():
            result = result - through_jaw @ jaw_joint_field
        return result
