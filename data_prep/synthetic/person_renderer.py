"""Draws a person: poses the mesh, shades it in a depth buffer and returns picture and landmarks."""

from __future__ import annotations

import dataclasses

import numpy as np
from jaxtyping import Float, Int, UInt8

from data_prep.synthetic import raster
from data_prep.synthetic.action_units import EXPRESSION_SIZE
from data_prep.synthetic.head import (
    EXPRESSION_START,
    MATERIALS,
    SyntheticHead,
    build_head,
    joint_transforms,
    rotation_matrix,
)
from data_prep.synthetic.landmark_embedding import contour_landmarks
from data_prep.synthetic.paint import TEXEL_M, build_hair, paint_hair, paint_skin
from data_prep.synthetic.people import Person
from data_prep.synthetic.skin_surface import smooth_noise

__all__ = [
    "Drawing",
    "Renderer",
    "View",
    "bake_exposure",
]

# How much light reaches each point of a person at rest: baked once, since light and person hardly move.
#
# The mesh is drawn from many directions into a depth buffer; what a direction's buffer does not hide is lit from
# there.

_SKY_DIRECTIONS = 80
_SUN_DIRECTIONS = 14
_SUN_SPREAD = 0.22
"""Half the width of the main light as seen from the head, radians: it is a large soft lamp."""

_RESOLUTION = 160
_BIAS = 0.0030
_EXTENT = 0.36
_SMOOTHING = 2


def bake_exposure(
    vertices: Float[np.ndarray, "n 3"],
    normals: Float[np.ndarray, "n 3"],
    faces: Int[np.ndarray, "f 3"],
    sun: Float[np.ndarray, "3"],
) -> Float[np.ndarray, "n 2"]:
    """Returns the shares of the sky's light and of the main light that reach each vertex, 0..1.

    Args:
      vertices: The person at rest.
      normals: Their unit normals.
      faces: What casts shadows.
      sun: Unit vector toward the main light.
    """
    sky, sky_total = np.zeros(len(vertices)), np.full(len(vertices), 1e-6)
    for direction in _sphere(_SKY_DIRECTIONS):
        weight = np.clip(normals @ direction, 0, None) * (0.65 + 0.35 * direction[1])
        sky_total += weight
        sky += weight * _seen(vertices, faces, direction)
    main = np.zeros(len(vertices))
    for direction in _cone(sun, _SUN_DIRECTIONS, _SUN_SPREAD):
        main += _seen(vertices, faces, direction) / _SUN_DIRECTIONS
    exposure = np.stack([sky / sky_total, main], -1)
    for _ in range(_SMOOTHING):
        exposure = _smooth(exposure, faces)
    return exposure.astype(np.float32)


def _sphere(count: int) -> Float[np.ndarray, "k 3"]:
    """Directions spread evenly over the sphere."""
    index = np.arange(count) + 0.5
    height = 1 - 2 * index / count
    turn = np.pi * (1 + 5**0.5) * index
    ring = np.sqrt(1 - height**2)
    return np.stack([ring * np.cos(turn), height, ring * np.sin(turn)], -1)


def _cone(axis: Float[np.ndarray, "3"], count: int, half_angle: float) -> Float[np.ndarray, "k 3"]:
    right, up = _frame(axis)
    index = np.arange(count)
    radius = half_angle * np.sqrt((index + 0.5) / count)
    turn = np.pi * (1 + 5**0.5) * index
    directions = axis + radius[:, None] * (np.cos(turn)[:, None] * right + np.sin(turn)[:, None] * up)
    return directions / np.linalg.norm(directions, axis=1, keepdims=True)


def _frame(direction: Float[np.ndarray, "3"]) -> tuple[Float[np.ndarray, "3"], Float[np.ndarray, "3"]]:
    """Picture axes, right and up, of a camera that looks against `direction`."""
    helper = np.array([0.0, 1.0, 0.0]) if abs(direction[1]) < 0.9 else np.array([0.0, 0.0, -1.0])
    right = np.cross(helper, direction)
    right /= np.linalg.norm(right)
    return right, np.cross(direction, right)


def _seen(
    vertices: Float[np.ndarray, "n 3"], faces: Int[np.ndarray, "f 3"], direction: Float[np.ndarray, "3"]
) -> Float[np.ndarray, " n"]:
    """1 where nothing lies between a vertex and a far point in `direction`, else 0."""
    right, up = _frame(direction)
    scale = _RESOLUTION / _EXTENT
    points = np.empty((len(vertices), 3), np.float32)
    points[:, 0] = _RESOLUTION / 2 + vertices @ right * scale
    points[:, 1] = _RESOLUTION / 2 - vertices @ up * scale
    points[:, 2] = vertices @ direction
    depth = np.empty((_RESOLUTION, _RESOLUTION), np.float32)
    face_id = np.empty((_RESOLUTION, _RESOLUTION), np.int32)
    raster.rasterise(points, faces, depth, face_id)
    column = np.clip(points[:, 0].astype(int), 0, _RESOLUTION - 1)
    row = np.clip(points[:, 1].astype(int), 0, _RESOLUTION - 1)
    return (points[:, 2] >= depth[row, column] - _BIAS).astype(np.float64)


def _smooth(values: Float[np.ndarray, "n k"], faces: Int[np.ndarray, "f 3"]) -> Float[np.ndarray, "n k"]:
    """Mean of each vertex with the vertices it shares a triangle with."""
    total, count = values.copy(), np.ones((len(values), 1))
    for corner in range(3):
        for other in (1, 2):
            index, neighbour = faces[:, corner], faces[:, (corner + other) % 3]
            for channel in range(values.shape[1]):
                total[:, channel] += np.bincount(index, values[neighbour, channel], len(values))
            count[:, 0] += np.bincount(index, minlength=len(values))
    return total / count


# Direction and colour of the main light, of the fill light, colour of the sky.
_LIGHTS = np.array(
    [(-0.46, 0.50, 0.74), (1.18, 1.13, 1.06), (0.80, 0.05, 0.60), (0.22, 0.24, 0.28), (0.42, 0.43, 0.46)], np.float32
)
_LIGHTS[[0, 2]] /= np.linalg.norm(_LIGHTS[[0, 2]], axis=1, keepdims=True)

# Film: linear light up to the brightest, with a soft shoulder, to 0..255.
_BRIGHTEST = 2.5
_CURVE = (255 * (1 - np.exp(-1.5 * _BRIGHTEST * np.linspace(0, 1, 8192))) ** (1 / 2.2) + 0.5).astype(np.uint8)

# Exposure to sky and main light of what lies in the mouth: dark at rest, lit when it opens, shaded by its own paint.
_MOUTH_EXPOSURE = {"mouth": (0.75, 0.75), "teeth": (0.72, 0.50), "tongue": (0.60, 0.45)}

_NECK, _LEFT_EYE, _RIGHT_EYE = 1, 3, 4


@dataclasses.dataclass(frozen=True)
class View:
    """What an orthographic camera in front of the head sees.

    Attributes:
      height: Metres from the picture's bottom to its top.
      centre: x and y in its middle.
    """

    height: float = 0.285
    centre: tuple[float, float] = (0.0, 0.013)


@dataclasses.dataclass(frozen=True, eq=False)
class Drawing:
    """One frame.

    Attributes:
      image: RGB, 0..255.
      landmarks: 68 points (x, y) in pixels, pixel centres at integers.
    """

    image: UInt8[np.ndarray, "h w 3"]
    landmarks: Float[np.ndarray, "68 2"]


class Renderer:
    """A person ready to be drawn: shaped, painted, lit, with buffers of one picture size.

    Not for several threads at once: drawings share the buffers.

    Args:
      person: Who.
      size: Side of the square picture in pixels.
      view: What the camera sees.
      supersampling: Samples per pixel and direction.
    """

    def __init__(self, person: Person, *, size: int, view: View | None = None, supersampling: int = 2) -> None:
        self.person = person
        self.size = size
        self.view = view or View()
        self._factor = supersampling
        self._head = build_head()
        self._build_mesh(self._head)
        self._prepare_landmarks(self._head)
        samples = size * supersampling
        self._vertices, self._normals = np.empty_like(self._rest), np.empty_like(self._rest)
        self._depth = np.empty((samples, samples), np.float32)
        self._face_id = np.empty((samples, samples), np.int32)
        self._samples = np.empty((samples, samples, 3), np.float32)
        self._paint()
        self._background = self._wall(samples)
        self._exposure = self._bake()

    @property
    def vertices(self) -> Float[np.ndarray, "n 3"]:
        """The head as last drawn, posed, without hair."""
        return self._vertices[: len(self._head.v_template)]

    def visible_faces(self) -> Int[np.ndarray, "h w"]:
        """Returns the triangle at each sample of the last drawing; -1 is the wall, numbers beyond the head's hair."""
        return self._face_id.copy()

    def draw(self, expression: Float[np.ndarray, "50"], pose: Float[np.ndarray, "5 3"]) -> Drawing:
        """Returns picture and landmarks of one frame.

        Args:
          expression: Expression coefficients.
          pose: Axis-angle rotation of each joint, radians.
        """
        rotations = [rotation_matrix(joint) for joint in pose]
        transforms = joint_transforms(self._joints, rotations).astype(np.float32)
        strengths = expression.astype(np.float32)
        raster.deform(self._rest, self._moving, self._fields, strengths, self._weights, transforms, self._vertices)
        raster.vertex_normals(self._vertices, self._faces, self._normals)
        points = self._project(self._vertices)
        raster.rasterise(points, self._faces, self._depth, self._face_id)
        tangents = self._tangents @ rotations[_NECK].T.astype(np.float32)
        raster.shade(
            points, self._normals, self._faces, self._label, self._uv, tangents, self._exposure, self._face_id,
            self._skin, self._hair, self._colours, _LIGHTS, self._background, self._samples,
        )  # fmt: skip
        image = np.empty((self.size, self.size, 3), np.uint8)
        raster.average_blocks(self._samples, self._factor, _CURVE, _BRIGHTEST, image)
        return Drawing(image, self._landmarks(points, transforms))

    def _build_mesh(self, head: SyntheticHead) -> None:
        """Joins head and hair and keeps of the blend shapes what moves."""
        rest_head = head.shaped(self.person.identity)
        normals = np.empty_like(rest_head)
        raster.vertex_normals(rest_head, head.f, normals)
        hair = build_hair(self.person.look.hair_style, self.person.seed, rest_head, normals)
        self._rest = np.concatenate([rest_head, hair.vertices]).astype(np.float32)
        self._faces = np.concatenate([head.f, hair.faces + len(rest_head)]).astype(np.int32)
        hair_label = np.full(len(hair.faces), MATERIALS.index("hair"), np.int32)
        self._label = np.concatenate([head.label, hair_label])
        self._weights = np.concatenate([head.weights, hair.weights]).astype(np.float32)
        self._uv = np.concatenate([head.uv, hair.uv]).astype(np.float32)
        self._tangents = np.concatenate([np.zeros_like(rest_head), hair.tangents]).astype(np.float32)
        fields = head.shapedirs[:, :, EXPRESSION_START : EXPRESSION_START + EXPRESSION_SIZE]
        self._moving = np.flatnonzero(np.abs(fields).max(axis=(1, 2)) > 1e-7).astype(np.int32)
        self._fields = np.ascontiguousarray(np.moveaxis(fields[self._moving], 2, 0))
        self._joints = head.J_regressor @ rest_head

    def _prepare_landmarks(self, head: SyntheticHead) -> None:
        self._landmark_corners = head.f[head.landmark_faces]
        corners = head.f[head.face_faces]
        sides = np.concatenate([corners[:, [0, 1]], corners[:, [1, 2]], corners[:, [2, 0]]])
        self._face_edges = np.unique(np.sort(sides, axis=1), axis=0)

    def _paint(self) -> None:
        look = self.person.look
        texture = paint_skin(self.person)
        texels_per_sample = self.view.height / (self.size * self._factor) / TEXEL_M
        while texels_per_sample > 1.4:
            half = len(texture) // 2
            texture = texture.reshape(half, 2, half, 2, 4).mean(axis=(1, 3))
            texels_per_sample /= 2
        self._skin = np.ascontiguousarray(texture, np.float32)
        self._hair = paint_hair(self.person)
        rim, inner_lip = 0.75 * np.array(look.skin) + (0.10, 0.02, 0.02), 0.8 * np.array(look.lip)
        self._colours = np.array([rim, inner_lip, look.iris, look.hair], np.float32)

    def _wall(self, samples: int) -> Float[np.ndarray, "h w 3"]:
        rng = np.random.default_rng([0xBAC6, self.person.seed])
        clouds = 0.07 * smooth_noise(rng, (samples, samples), (3, 3))
        plaster = 0.06 * smooth_noise(rng, (samples, samples), (20, 20), octaves=2)
        y, x = np.mgrid[-1 : 1 : samples * 1j, -1 : 1 : samples * 1j]
        vignette = 1.12 - 0.42 * ((x + 0.35) ** 2 + (y + 0.25) ** 2) / 2
        wall = (vignette * np.exp(clouds + plaster))[..., None] * np.array(self.person.look.background)
        return wall.astype(np.float32)

    def _bake(self) -> Float[np.ndarray, "n 2"]:
        raster.vertex_normals(self._rest, self._faces, self._normals)
        exposure = bake_exposure(self._rest, self._normals, self._faces, _LIGHTS[0])
        for material, shares in _MOUTH_EXPOSURE.items():
            exposure[np.unique(self._faces[self._label == MATERIALS.index(material)])] = shares
        return exposure

    def _project(self, vertices: Float[np.ndarray, "n 3"]) -> Float[np.ndarray, "n 3"]:
        """Picture x, y and depth in samples."""
        samples = self.size * self._factor
        scale = np.float32(samples / self.view.height)
        points = vertices * np.array([scale, -scale, scale], np.float32)
        points[:, 0] += samples / 2 - self.view.centre[0] * scale
        points[:, 1] += samples / 2 + self.view.centre[1] * scale
        return points

    def _landmarks(
        self, points: Float[np.ndarray, "n 3"], transforms: Float[np.ndarray, "5 3 4"]
    ) -> Float[np.ndarray, "68 2"]:
        flat = np.ascontiguousarray(points[:, :2])
        static = (flat[self._landmark_corners] * self._head.landmark_weights[:, :, None]).sum(axis=1)
        eyes = np.stack([transforms[_NECK] @ np.append(self._joints[eye], 1.0) for eye in (_RIGHT_EYE, _LEFT_EYE)])
        eye_points = self._project(eyes.astype(np.float32))[:, :2]
        contour = contour_landmarks(flat, self._face_edges, eye_points[0], eye_points[1])
        return (np.concatenate([contour, static]) / self._factor - 0.5).astype(np.float32)
