"""The `landmarks` encoder: shape of a speaker from neutral clips, then camera, pose and expression of every frame."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float, Int, UInt8

from asccl_jax.errors import InputError
from DECA_torch_bridge.fitting.deca_camera import crop_camera, crop_transforms, frame_camera
from DECA_torch_bridge.fitting.gauss_newton import FitSettings, Solution, fit
from DECA_torch_bridge.fitting.landmark_head import IDENTITY_SIZE, build_landmark_head
from DECA_torch_bridge.fitting.landmark_tables import LandmarkTable, load_table
from DECA_torch_bridge.fitting.projection import EXPRESSION, JAW, ROTATION
from DECA_torch_bridge.fitting.residuals import Measurements
from DECA_torch_bridge.fitting.windows import join_windows, split_windows
from DECA_torch_bridge.head_assets import HeadAssets

__all__ = ["FLAG_MISSING", "FLAG_PARTIAL", "FLAG_POOR", "ClipFit", "LandmarkFitter", "SpeakerShape"]

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
