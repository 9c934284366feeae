"""Code dicts to conditioning images: heads are posed with NumPy and drawn by compiled kernels, frame by frame.

What a frame looks like depends on that frame alone: not on how many are drawn at a time, nor on how many threads.
"""

from __future__ import annotations

import abc
import dataclasses
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Float32, Int, UInt8

from asccl_jax.data.codes import CodeDict
from asccl_jax.errors import InputError
from asccl_jax.head.drawing_rules import CROP_SIZE, DEPTH_OFFSET, LEAST_NORMAL, pixel_centres
from asccl_jax.head.head_model import HeadModel
from data_prep.head_fit.drawing_kernels import fill, paint, place
from data_prep.head_fit.view import View, crop_view
from data_prep.synthetic.head import joint_transforms, rotation_matrix
from data_prep.synthetic.raster import deform, vertex_normals

__all__ = ["HeadRenderer", "Renderer", "Renders", "image_u8", "join_renders", "nmfc_colours"]

_LARGEST_YAW = 39
_LAST_ROW = 78
_LEAST_NORMAL = np.float32(LEAST_NORMAL)


@dataclasses.dataclass(frozen=True, eq=False)
class Renders:
    """Pictures of t frames; float32, 0..1, black where nothing is drawn.

    Attributes:
      frame_index: Number of each frame in the source video.
      nmfc: Normalised mean face coordinates as colour.
      shape: The coarse surface in grey.
      detail_shape: The surface with wrinkles in grey; None without a detail decoder.
      texture: The head in its colours and light, where asked for; values may leave 0..1.
      alpha: Where some part of the head is, whichever way it looks.
      landmarks: 68 points as a detector would see them, in pixels of the picture (the middle of the first is 0).
    """

    frame_index: Int[np.ndarray, " t"]
    nmfc: Float[np.ndarray, "t h w 3"]
    shape: Float[np.ndarray, "t h w 3"]
    detail_shape: Float[np.ndarray, "t h w 3"] | None
    texture: Float[np.ndarray, "t h w 3"] | None
    alpha: Bool[np.ndarray, "t h w"]
    landmarks: Float[np.ndarray, "t 68 2"]


class Renderer(abc.ABC):
    """Anything that draws code dicts of one head, a few frames at a time.

    Args:
      sizes: Identity and expression coefficients that the head takes.
      chunk: Frames drawn at a time.
    """

    def __init__(self, sizes: tuple[int, int], *, chunk: int) -> None:
        self._sizes, self._chunk = sizes, chunk

    def renders(self, codes: CodeDict, *, view: View | None = None) -> Renders:
        """Returns pictures of all frames; see `chunks` for long clips.

        Args:
          codes: Frames to draw, edited or not.
          view: Pictures to draw into; the 224-pixel crop if None.

        Raises:
          InputError: Codes lack what is to be drawn, or do not fit the head or the view.
        """
        return join_renders(list(self.chunks(codes, view=view)))

    def views(self, codes: CodeDict, views: Sequence[View]) -> list[Renders]:
        """Returns pictures of all frames in each view, as `renders`; what no view changes is computed once."""
        parts: list[list[Renders]] = [[] for _ in views]
        for view in views:
            self._check(codes, view)
        for some in self._slices(codes):
            surface = self._surface(codes[some])
            for view, drawn in zip(views, parts, strict=True):
                drawn.append(self._draw(codes[some], surface, View(view.size, view.placement[some])))
        return [join_renders(drawn) for drawn in parts]

    def chunks(self, codes: CodeDict, *, view: View | None = None) -> Iterator[Renders]:
        """Yields pictures of some frames at a time, in order; arguments as `renders`."""
        view = view or crop_view(codes)
        self._check(codes, view)
        for some in self._slices(codes):
            yield self._draw(codes[some], self._surface(codes[some]), View(view.size, view.placement[some]))

    def landmarks(self, codes: CodeDict, *, view: View | None = None) -> Float[np.ndarray, "t 68 2"]:
        """Returns `Renders.landmarks` of all frames, for which nothing need be drawn; arguments as `renders`."""
        view = view or crop_view(codes)
        self._check(codes, view)
        parts = [self._landmarks(codes[some], View(view.size, view.placement[some])) for some in self._slices(codes)]
        return np.concatenate(parts)

    def _slices(self, codes: CodeDict) -> Iterator[slice]:
        return (slice(start, start + self._chunk) for start in range(0, len(codes), self._chunk))

    def _check(self, codes: CodeDict, view: View) -> None:
        sizes = (codes.shape.shape[1], codes.exp.shape[1])
        if sizes != self._sizes:
            raise InputError(f"code dict: {sizes} shape and expression coefficients, this head takes {self._sizes}")
        if not len(codes):
            raise InputError("code dict: no frames, expected one or more")
        if len(view.placement) != len(codes):
            raise InputError(f"view: {len(view.placement)} placements for {len(codes)} frames, expected one each")

    @abc.abstractmethod
    def _surface(self, codes: CodeDict) -> Any:
        """What no view changes."""

    @abc.abstractmethod
    def _draw(self, codes: CodeDict, surface: Any, view: View) -> Renders: ...

    @abc.abstractmethod
    def _landmarks(self, codes: CodeDict, view: View) -> Float[np.ndarray, "t 68 2"]: ...


class _Posed(NamedTuple):
    """Heads of some frames, wherever they are seen from: metres, y up, looking along +z."""

    vertices: Float32[np.ndarray, "t n 3"]
    normals: Float32[np.ndarray, "t n 3"]
    landmarks: Float[np.ndarray, "t 68 3"]


class HeadRenderer(Renderer):
    """Draws NMFC and shape images on the CPU.

    Triangles inside the mouth (`HeadModel.mouth_faces`) are left out.

    Args:
      head: The head.
      chunk: Frames drawn at a time.
      threads: Threads that draw them.
    """

    def __init__(self, head: HeadModel, *, chunk: int = 16, threads: int = 1) -> None:
        super().__init__((head.shape_size, head.expression_size), chunk=chunk)
        self._head, self._threads = head, threads
        drawn = np.setdiff1d(np.arange(len(head.faces)), head.mouth_faces)
        self._drawn_faces = head.faces[drawn]
        self._colours = nmfc_colours(head.v_template)
        self._corrects = bool(head.pose_basis.any())
        fields = head.expression_basis
        if self._corrects:
            fields = np.concatenate([fields, head.pose_basis], axis=2)
        self._moving = np.flatnonzero(fields.any(axis=(1, 2))).astype(np.int32)
        self._fields = np.ascontiguousarray(np.moveaxis(fields[self._moving], 2, 0))
        # Joints follow from the coefficients: no need of the vertices that they are means of.
        regressor = head.joint_regressor.astype(np.float64)
        self._joints = regressor @ head.v_template
        self._joint_basis = np.concatenate(
            [np.tensordot(regressor, basis, axes=1) for basis in (head.identity_basis, head.expression_basis)], axis=2
        )
        self._corners, self._corner_weights = _landmark_corners(head)

    def _surface(self, codes: CodeDict) -> _Posed:
        vertices, landmarks = self._posed(codes)
        normals = np.empty_like(vertices)
        self._for_each(
            len(codes), lambda row: vertex_normals(vertices[row], self._head.faces, normals[row], _LEAST_NORMAL)
        )
        return _Posed(vertices, normals, landmarks)

    def _draw(self, codes: CodeDict, surface: _Posed, view: View) -> Renders:
        matrices = _picture_matrices(codes.cam, view)
        narrow = matrices.astype(np.float32)
        size = view.size
        x, y = pixel_centres(size[1]), pixel_centres(size[0])
        nmfc, shape = (np.empty((len(codes), *size, 3), np.float32) for _ in range(2))
        alpha = np.empty((len(codes), *size), np.bool_)

        def draw(row: int) -> None:
            normals = surface.normals[row]
            points = np.empty_like(normals)
            place(surface.vertices[row], narrow[row], points)
            face, depth = np.empty(size, np.int32), np.empty(size, np.float32)
            weights = np.empty((*size, 3), np.float32)
            fill(points, self._drawn_faces, x, y, face, weights, depth)
            np.greater_equal(face, 0, out=alpha[row])
            # The camera only shifts, scales and turns y and z round: so it does to normals.
            front = np.empty(size, np.bool_)
            paint(
                face, weights, self._drawn_faces, normals, -normals[:, 2], self._colours, nmfc[row], shape[row], front
            )

        self._for_each(len(codes), draw)
        marks = _in_pixels(surface.landmarks, matrices, size)
        return Renders(codes.frame_index, nmfc, shape, None, None, alpha, marks)

    def _landmarks(self, codes: CodeDict, view: View) -> Float[np.ndarray, "t 68 2"]:
        return _in_pixels(self._posed(codes)[1], _picture_matrices(codes.cam, view), view.size)

    def _posed(self, codes: CodeDict) -> tuple[Float32[np.ndarray, "t n 3"], Float[np.ndarray, "t 68 3"]]:
        """Vertices and landmarks."""
        head = self._head
        vertices = np.empty((len(codes), *head.v_template.shape), np.float32)
        rotations = [_rotations(pose) for pose in codes.pose.astype(np.float64)]
        coefficients = np.concatenate([codes.shape, codes.exp], axis=1).astype(np.float64)
        shaped = self._shaped(codes.shape)

        def pose(row: int) -> None:
            joints = self._joints + self._joint_basis @ coefficients[row]
            transforms = joint_transforms(joints, rotations[row]).astype(np.float32)
            strengths = codes.exp[row].astype(np.float32)
            if self._corrects:
                feature = [(rotation - np.eye(3)).ravel() for rotation in rotations[row][1:]]
                strengths = np.concatenate([strengths, *feature], dtype=np.float32)
            deform(shaped[row], self._moving, self._fields, strengths, head.skinning_weights, transforms, vertices[row])

        self._for_each(len(codes), pose)
        rows = [_contour_row(frame) for frame in rotations]
        taken = vertices[np.arange(len(codes))[:, None, None], self._corners[rows]].astype(np.float64)
        return vertices, (self._corner_weights[rows][..., None] * taken).sum(axis=2)

    def _shaped(self, shape: Float[np.ndarray, "t s"]) -> list[Float32[np.ndarray, "n 3"]]:
        """The person of each frame at rest; most clips show one."""
        head = self._head
        basis = head.identity_basis.reshape(-1, head.shape_size)
        shaped: list[np.ndarray] = []
        narrow = shape.astype(np.float32)
        for row, coefficients in enumerate(narrow):
            if row and np.array_equal(coefficients, narrow[row - 1]):
                shaped.append(shaped[-1])
            else:
                shaped.append(head.v_template + (basis @ coefficients).reshape(head.v_template.shape))
        return shaped

    def _for_each(self, count: int, work: Callable[[int], None]) -> None:
        """Does the work of each frame; kernels let other threads run."""
        if self._threads == 1:
            for row in range(count):
                work(row)
            return
        with ThreadPoolExecutor(self._threads) as pool:
            list(pool.map(work, range(count)))


def _landmark_corners(head: HeadModel) -> tuple[Int[np.ndarray, "79 68 3"], Float[np.ndarray, "79 68 3"]]:
    """Vertices about each landmark, and their shares, by row of the contour's embedding."""
    rows = len(head.dynamic_landmark_faces)
    faces = np.concatenate([head.dynamic_landmark_faces, np.tile(head.static_landmark_faces, (rows, 1))], axis=1)
    weights = np.concatenate([head.dynamic_landmark_weights, np.tile(head.static_landmark_weights, (rows, 1, 1))], 1)
    return head.faces[faces], weights.astype(np.float64)


def _rotations(pose: Float[np.ndarray, "6"]) -> list[Float[np.ndarray, "3 3"]]:
    """Of root, neck, jaw and both eyes; neck and eyes are at rest."""
    rest = rotation_matrix(np.zeros(3))
    return [rotation_matrix(pose[:3]), rest, rotation_matrix(pose[3:]), rest, rest]


def _contour_row(rotations: Sequence[Float[np.ndarray, "3 3"]]) -> int:
    """Row of the dynamic landmark embedding that belongs to a head's yaw."""
    # Upstream: FLAME.py takes the yaw with this sign, lbs.py with the other; the embedding was made for this one.
    turned = rotations[0] @ rotations[1]
    yaw = np.rad2deg(np.arctan2(-turned[2, 0], np.hypot(turned[0, 0], turned[1, 0])))
    step = round(min(yaw, _LARGEST_YAW))
    if step >= 0:
        return step
    return _LAST_ROW if step < -_LARGEST_YAW else _LARGEST_YAW - step


def _picture_matrices(cam: Float[np.ndarray, "t 3"], view: View) -> Float[np.ndarray, "t 3 4"]:
    """From metres to x and y, -1..1 across the picture, and depth, as the camera and the view have it.

    Drawing there is what warping the crop's drawing aims at, without its blur.
    """
    scale, right, up = cam.astype(np.float64).T
    half = CROP_SIZE / 2
    # Pixels of the crop, counted from the middle of the first: y up becomes y down.
    crop = np.zeros((len(cam), 2, 4))
    crop[:, 0, 0], crop[:, 0, 3] = half * scale, half * (1 + scale * right) - 0.5
    crop[:, 1, 1], crop[:, 1, 3] = -half * scale, half * (1 - scale * up) - 0.5
    turn = view.placement[:, :, :2]
    pixels = turn @ crop
    pixels[:, :, 3] += view.placement[:, :, 2] + 0.5
    height, width = view.size
    matrices = np.zeros((len(cam), 3, 4))
    matrices[:, :2] = pixels * np.array([[2 / width], [2 / height]])
    matrices[:, :2, 3] -= 1
    matrices[:, 2, 2] = -scale * np.linalg.norm(turn[:, 0], axis=-1)
    matrices[:, 2, 3] = DEPTH_OFFSET
    return matrices


def _in_pixels(
    points: Float[np.ndarray, "t l 3"], matrices: Float[np.ndarray, "t 3 4"], size: tuple[int, int]
) -> Float32[np.ndarray, "t l 2"]:
    height, width = size
    placed = points @ matrices[:, :2, :3].transpose(0, 2, 1) + matrices[:, None, :2, 3]
    return ((placed + 1) * np.array([width / 2, height / 2]) - 0.5).astype(np.float32)


def nmfc_colours(template: Float[np.ndarray, "n 3"]) -> Float[np.ndarray, "n 3"]:
    """Returns red, green and blue of each vertex: its x, y and z on the mean head, each scaled to 0..1."""
    least, most = template.min(axis=0), template.max(axis=0)
    return (template - least) / (most - least)


def join_renders(parts: list[Renders]) -> Renders:
    """Returns the pictures of all parts as one."""
    fields: dict[str, np.ndarray | None] = {}
    for field in dataclasses.fields(Renders):
        values = [getattr(part, field.name) for part in parts]
        fields[field.name] = None if values[0] is None else np.concatenate(values)
    return Renders(**fields)  # type: ignore[arg-type]


def image_u8(image: Float[np.ndarray, "*b 3"]) -> UInt8[np.ndarray, "*b 3"]:
    """Returns 0..1 as 0..255, clipped and rounded to the nearest."""
    # Upstream: reconstruct.py rounds down, create_inputs.py to the nearest.
    return np.rint(np.clip(image * np.float32(255), 0, 255)).astype(np.uint8)
