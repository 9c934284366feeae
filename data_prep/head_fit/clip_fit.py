"""The `landmarks` encoder: shape of a speaker from neutral clips, then camera, pose and expression of every frame."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float, Int, UInt8

from asccl_jax.data.codes import CodeDict
from asccl_jax.errors import InputError
from asccl_jax.head.drawing_rules import CROP_SIZE
from data_prep.head_fit.gauss_newton import FitSettings, Measurements, Solution, fit
from data_prep.head_fit.head_assets import HeadAssets
from data_prep.head_fit.landmark_tables import LandmarkTable, load_table
from data_prep.head_fit.projection import (
    EXPRESSION,
    IDENTITY_SIZE,
    JAW,
    ROTATION,
    SCALE,
    TRANSLATION,
    LandmarkHead,
    build_landmark_head,
    head_rotations,
)

__all__ = [
    "FLAG_MISSING",
    "FLAG_PARTIAL",
    "FLAG_POOR",
    "ClipFit",
    "LandmarkFitter",
    "SpeakerShape",
    "code_dict",
    "crop_camera",
    "crop_transforms",
    "frame_camera",
    "join_windows",
    "split_windows",
]

# The fitted camera in DECA's terms: rotation about the root joint, and (scale, x, y) in a crop of 224 px.

_MARGIN = 1.25
_BOX_TO_FACE = 1.1  # DECA's detector boxes are this much larger than the box of the landmarks


def frame_camera(
    head: LandmarkHead, states: Float[np.ndarray, "t d"], shape: Float[np.ndarray, " i"]
) -> Float[np.ndarray, "t 3"]:
    """Returns scale in px/m and the place of the origin in pixels, for heads that turn about their root joint.

    A posed vertex (X, Y, Z) of the FLAME layer lies at (x + scale X, y - scale Y) of the frame.
    """
    scale = np.exp(states[:, SCALE])
    rotation, _ = head_rotations(states[:, ROTATION])
    root = head.joints[0] + head.joint_identity[0] @ shape + states[:, EXPRESSION] @ head.joint_expression[0].T
    from_centre = (rotation @ (root - head.centre)[..., None])[..., 0] - root
    shift = from_centre[:, :2] * scale[:, None] * (1, -1)
    return np.concatenate([scale[:, None], states[:, TRANSLATION] + shift], axis=1)


def crop_transforms(landmarks: Float[np.ndarray, "t 68 2"]) -> Float[np.ndarray, "t 3 3"]:
    """Returns the similarities from pixels of the frame to pixels of DECA's crop around the landmarks' box."""
    low, high = landmarks.min(1), landmarks.max(1)
    size = np.floor((high - low).mean(1) * _BOX_TO_FACE * _MARGIN)
    corner = (low + high) / 2 - size[:, None] / 2
    factor = (CROP_SIZE - 1) / size
    transforms = np.zeros((len(landmarks), 3, 3))
    transforms[:, 0, 0] = transforms[:, 1, 1] = factor
    transforms[:, :2, 2] = -corner * factor[:, None]
    transforms[:, 2, 2] = 1
    return transforms


def crop_camera(camera: Float[np.ndarray, "t 3"], transforms: Float[np.ndarray, "t 3 3"]) -> Float[np.ndarray, "t 3"]:
    """Returns DECA's cam (s, x, y).

    A vertex lies at 112 (1 + s (X + x)) and 112 (1 - s (Y + y)) of the crop's plane, borders at 0 and 224; pixel
    positions, counted from the middle of the first pixel, are half less.
    """
    half = CROP_SIZE / 2
    factor = transforms[:, 0, 0]
    scale = factor * camera[:, 0] / half
    origin = factor[:, None] * camera[:, 1:] + transforms[:, :2, 2]
    place = ((origin + 0.5) / half - 1) / scale[:, None] * (1, -1)
    return np.concatenate([scale[:, None], place], axis=1)


# Long clips in windows that overlap, so that memory stays bounded and the seams do not show.

_LENGTH = 1200
_OVERLAP = 60


def split_windows(seen: Bool[np.ndarray, " t"], *, length: int = _LENGTH, overlap: int = _OVERLAP) -> list[slice]:
    """Returns windows that cover a clip, each with a frame with a face.

    Args:
      seen: Which frames have a face; at least one.
      length: Frames of a window; those without a face go to a neighbour.
      overlap: Frames that neighbours share.
    """
    frames, start = len(seen), 0
    windows: list[slice] = []
    for stop in [*range(length, frames, length - overlap), frames]:
        if seen[start:stop].any():
            windows.append(slice(start, stop))
            start = stop - overlap
    if windows[-1].stop < frames:  # what is left has no face of its own
        windows[-1] = slice(windows[-1].start, frames)
    return windows


def join_windows(parts: list[Float[np.ndarray, "_ ..."]], windows: list[slice]) -> Float[np.ndarray, "t ..."]:
    """Returns one array of the windows' results, faded into each other where they overlap."""
    joined = parts[0]
    for part, window in zip(parts[1:], windows[1:], strict=True):
        shared = len(joined) - window.start
        fade = (np.arange(shared) + 1) / (shared + 1)
        fade = fade.reshape(-1, *([1] * (part.ndim - 1)))
        seam = (1 - fade) * joined[window.start :] + fade * part[:shared]
        joined = np.concatenate([joined[: window.start], seam, part[shared:]])
    return joined


FLAG_MISSING, FLAG_PARTIAL, FLAG_POOR = 1, 2, 4
"""Bits of `ClipFit.flags`: no landmark found, some not found, fitted far from the landmarks."""

EXPRESSION_SIZE = 50
_POOR_RESIDUAL = 0.05
"""Median distance of the landmarks, over the distance between the eyes, beyond which a fit is called poor."""

_SHAPE_FRAMES = 600


@dataclasses.dataclass(frozen=True, eq=False)
class SpeakerShape:
    """Shape of a speaker.

    Attributes:
      coefficients: Identity coefficients, those not in use 0.
      neutral: Whether it comes from neutral clips. If not, it has taken some of the expression with it: differences
        between frames are good, strengths of action units are not.
      frames: From how many frames with a face.
      note: What a user should know about it; empty if nothing.
    """

    coefficients: Float[np.ndarray, "100"]
    neutral: bool
    frames: int
    note: str = ""


@dataclasses.dataclass(frozen=True, eq=False)
class ClipFit:
    """What the `landmarks` encoder finds in a clip: one row per frame of the clip.

    Attributes:
      frame_index: Index of each frame in the clip.
      camera: Scale in px/m, x and y of the origin in pixels of the frame.
      crop_camera: DECA's cam in the crop.
      crop_transform: Similarity from pixels of the frame to pixels of the crop of 224.
      pose: Axis-angle of the head, then of the jaw, radians.
      expression: Expression coefficients.
      shape: Identity coefficients of the speaker, the same in every frame.
      landmarks: Fitted landmarks, pixels of the frame.
      residual_px: Median distance of each frame's found landmarks 17..67 from the fitted ones; NaN without any.
      flags: Bits `FLAG_MISSING`, `FLAG_PARTIAL`, `FLAG_POOR`.
      units_valid: Whether strengths of action units mean something: the shape comes from neutral clips, and the head
        has action units.
      notes: What a user should know.
      iterations: Of the solver.
    """

    frame_index: Int[np.ndarray, " t"]
    camera: Float[np.ndarray, "t 3"]
    crop_camera: Float[np.ndarray, "t 3"]
    crop_transform: Float[np.ndarray, "t 3 3"]
    pose: Float[np.ndarray, "t 6"]
    expression: Float[np.ndarray, "t 50"]
    shape: Float[np.ndarray, "100"]
    landmarks: Float[np.ndarray, "t 68 2"]
    residual_px: Float[np.ndarray, " t"]
    flags: UInt8[np.ndarray, " t"]
    units_valid: bool
    notes: tuple[str, ...]
    iterations: int


class LandmarkFitter:
    """Fits a head to landmarks of one detector.

    Args:
      assets: The head.
      detector: Name of a landmark table, see `landmark_tables`, or a table.
      settings: How.
    """

    def __init__(
        self, assets: HeadAssets, detector: str | LandmarkTable, *, settings: FitSettings | None = None
    ) -> None:
        self.settings = settings or FitSettings()
        self.table = load_table(detector, head=assets.source) if isinstance(detector, str) else detector
        self.head = build_landmark_head(assets, self.table)

    def fit_speaker(
        self, clips: Sequence[Float[np.ndarray, "_ 68 2"]], *, neutral: bool = True, fps: float = 30.0
    ) -> SpeakerShape:
        """Returns the shape that all clips of a speaker have in common.

        Args:
          clips: Landmarks in pixels of the speaker's neutral clips; NaN where there is no face.
          neutral: False where there are no neutral clips and these are others.
          fps: Frames a second.

        Raises:
          InputError: No clip has a face.
        """
        seen = [clip for clip in clips if np.isfinite(clip).all(-1).any()]
        if not seen:
            raise InputError(f"shape of a speaker: none of {len(clips)} clips has a face; give a neutral clip with one")
        share = max(_SHAPE_FRAMES // len(seen), 1)
        parts = [_densest(clip, share) for clip in seen]
        measured = Measurements.of(parts)
        solution = fit(
            self.head,
            measured,
            settings=self.settings,
            fps=fps,
            neutral=np.full(len(measured.landmarks), neutral),
        )
        note = "" if neutral else "no neutral clip of the speaker: action units are not reported, only used for renders"
        frames = int(measured.found.any(1).sum())
        return SpeakerShape(_padded(solution.shape, IDENTITY_SIZE), neutral, frames, note)

    def fit_clip(
        self,
        landmarks: Float[np.ndarray, "t 68 2"],
        speaker: SpeakerShape | None,
        *,
        neutral: bool = False,
        fps: float = 30.0,
    ) -> ClipFit:
        """Returns camera, pose and expression of every frame of a clip.

        Args:
          landmarks: Pixels of the frame; NaN where there is no face or a point is not known.
          speaker: Shape of who speaks; None finds one in the clip itself and says so.
          neutral: Whether the face is known to be neutral: units of emotions are then held near 0.
          fps: Frames a second.

        Raises:
          InputError: No frame has a face.
        """
        if not np.isfinite(landmarks).all(-1).any():
            raise InputError(f"clip of {len(landmarks)} frames: no face in any; nothing to fit, leave it out")
        if speaker is None:
            speaker = self.fit_speaker([landmarks], neutral=False, fps=fps)
        shape = speaker.coefficients[: self.head.identity_size]
        pieces: list[Solution] = []
        windows = split_windows(np.isfinite(landmarks).all(-1).any(-1))
        for window in windows:
            measured = Measurements.of([landmarks[window]])
            at_rest = np.full(len(measured.landmarks), neutral)
            pieces.append(fit(self.head, measured, settings=self.settings, fps=fps, shape=shape, neutral=at_rest))
        states = join_windows([solution.states for solution in pieces], windows)
        fitted = join_windows([solution.landmarks for solution in pieces], windows)
        iterations = max(solution.iterations for solution in pieces)
        return self._result(landmarks, states, fitted, speaker, iterations)

    def _result(
        self,
        measured: Float[np.ndarray, "t 68 2"],
        states: Float[np.ndarray, "t d"],
        fitted: Float[np.ndarray, "t 68 2"],
        speaker: SpeakerShape,
        iterations: int,
    ) -> ClipFit:
        found = np.isfinite(measured).all(-1)
        residual = _residuals(measured, fitted, found)
        eyes = np.linalg.norm(fitted[:, 36:42].mean(1) - fitted[:, 42:48].mean(1), axis=-1)
        flags = np.zeros(len(states), np.uint8)
        flags |= np.where(found.any(1), 0, FLAG_MISSING).astype(np.uint8)
        flags |= np.where(found.any(1) & ~found.all(1), FLAG_PARTIAL, 0).astype(np.uint8)
        flags |= np.where(np.nan_to_num(residual) > _POOR_RESIDUAL * eyes, FLAG_POOR, 0).astype(np.uint8)
        camera = frame_camera(self.head, states, speaker.coefficients[: self.head.identity_size])
        transforms = crop_transforms(np.where(found[..., None], measured, fitted))
        pose = np.zeros((len(states), 6))
        pose[:, :3], pose[:, 3] = states[:, ROTATION], states[:, JAW]
        return ClipFit(
            frame_index=np.arange(len(states)),
            camera=camera,
            crop_camera=crop_camera(camera, transforms),
            crop_transform=transforms,
            pose=pose,
            expression=_padded(states[:, EXPRESSION], EXPRESSION_SIZE),
            shape=speaker.coefficients,
            landmarks=fitted,
            residual_px=residual,
            flags=flags,
            units_valid=speaker.neutral and bool(self.head.unit_names),
            notes=self._notes(speaker, flags),
            iterations=iterations,
        )

    def _notes(self, speaker: SpeakerShape, flags: UInt8[np.ndarray, " t"]) -> tuple[str, ...]:
        notes = [speaker.note] if speaker.note else []
        if self.table.remark:
            notes.append(self.table.remark)
        for flag, meaning in ((FLAG_MISSING, "without a face, interpolated"), (FLAG_POOR, "fitted poorly")):
            if count := int((flags & flag > 0).sum()):
                notes.append(f"{count} of {len(flags)} frames {meaning}")
        return tuple(notes)


def _densest(clip: Float[np.ndarray, "t 68 2"], count: int) -> Float[np.ndarray, "k 68 2"]:
    """The run of `count` frames with the most faces."""
    if len(clip) <= count:
        return clip
    total = np.concatenate([[0], np.cumsum(np.isfinite(clip).all(-1).any(-1))])
    start = int(np.argmax(total[count:] - total[:-count]))
    return clip[start : start + count]


def _residuals(
    measured: Float[np.ndarray, "t 68 2"], fitted: Float[np.ndarray, "t 68 2"], found: Bool[np.ndarray, "t 68"]
) -> Float[np.ndarray, " t"]:
    """Median over the found landmarks 17..67 of each frame; NaN without any."""
    distance = np.linalg.norm(fitted - measured, axis=-1)[:, 17:]
    return np.array(
        [np.median(row[known]) if known.any() else np.nan for row, known in zip(distance, found[:, 17:], strict=True)]
    )


def _padded(values: Float[np.ndarray, "*t c"], size: int) -> Float[np.ndarray, "*t k"]:
    return np.concatenate([values, np.zeros((*values.shape[:-1], size - values.shape[-1]))], axis=-1)


# What the fit found as a code dict: the `landmarks` encoder speaks the same language as DECA's networks.


def code_dict(fit: ClipFit, *, original_size: tuple[int, int] | None = None) -> CodeDict:
    """Returns the code dict of a fitted clip; texture, light and detail are not known.

    Args:
      fit: The clip.
      original_size: Width and height of its frames in pixels.
    """
    return CodeDict(
        frame_index=fit.frame_index,
        shape=np.repeat(fit.shape[None], len(fit.frame_index), axis=0).astype(np.float32),
        exp=fit.expression.astype(np.float32),
        pose=fit.pose.astype(np.float32),
        cam=fit.crop_camera.astype(np.float32),
        tform=fit.crop_transform,
        original_size=original_size,
    )
