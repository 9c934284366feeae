"""How well a renderer gives frames back, and how well it shows an edited face, against the exact truth."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, UInt8
from PIL import Image
from scipy import ndimage

from asccl_jax.data.aligned_frames import decode_picture
from asccl_jax.data.dataset import open_records
from asccl_jax.data.manifest import FrameIndex, Manifest, Twin, read_manifest
from asccl_jax.data.schema import RenderRecord
from asccl_jax.errors import InputError
from asccl_jax.evals.landmark_probe import MOUTH
from asccl_jax.evals.statistics import Interval, Units, choose_units, mean
from asccl_jax.image.polygon import face_outline
from asccl_jax.image.warping import inverse_affine, joined, moved

__all__ = [
    "ALIGNED_SIDE",
    "DRIVEN_MEASURES",
    "OWN_MEASURES",
    "DrivenScore",
    "DrivenScorer",
    "Measure",
    "OwnScore",
    "OwnScorer",
    "RenderRecords",
    "TrueFrame",
    "difference",
    "mean_difference",
    "psnr",
    "region_around",
    "scaled_points",
    "ssim",
    "ssim_map",
    "summary",
    "warped",
]

# The exact frames that a perfect manipulation would show: those of a twin clip, seen as the source's are aligned.

ALIGNED_SIDE = 256
"""Side of stored aligned pictures; distances are told in their pixels, whatever the size of the pictures compared."""


@dataclasses.dataclass(frozen=True, eq=False)
class TrueFrame:
    """What a frame should look like.

    Attributes:
      image: The frame, background and all.
      face: Where the face is in it.
      mouth: Landmarks of the mouth in its pixels.
    """

    image: UInt8[np.ndarray, "s s 3"]
    face: Bool[np.ndarray, "s s"]
    mouth: Float[np.ndarray, "20 2"]


class RenderRecords:
    """The render records of a data set, by clip and frame.

    Args:
      directory: Data set.

    Attributes:
      manifest: Its manifest.

    Raises:
      InputError: No such data set.
    """

    def __init__(self, directory: Path) -> None:
        self.manifest: Manifest = read_manifest(directory)
        splits = [name for name, split in self.manifest.splits.items() if split.renders]
        self._index = {name: FrameIndex(self.manifest, name) for name in splits}
        self._records = {name: open_records(directory, self.manifest, name, "renders") for name in splits}

    def mouth(self, clip: str, frame: int, size: int) -> Float[np.ndarray, "20 2"]:
        """Returns the landmarks of a frame's mouth in pixels of its aligned picture at a size."""
        data = self._data(clip, frame)
        landmarks = RenderRecord.decode_field(data, "aligned_landmarks").astype(np.float64)
        return scaled_points(landmarks[MOUTH], ALIGNED_SIDE, size)

    def true_frame(self, twin: Twin, frame: int, size: int) -> TrueFrame:
        """Returns the target's frame in the coordinates of the source's.

        The two are aligned each by their own landmarks, which an emotion moves; the face itself stays in its place.

        Args:
          twin: Source and target.
          frame: Number of the frame in both.
          size: Side of the picture wanted.
        """
        target = RenderRecord.decode(self._data(twin.target, frame))
        matrix, landmarks = self._moved_landmarks(twin, frame)
        stored = decode_picture(target.aligned_image)
        image = warped(stored, matrix)
        points = scaled_points(landmarks, len(stored), size)
        if len(image) != size:
            image = np.array(Image.fromarray(image).resize((size, size), Image.Resampling.BICUBIC))
        return TrueFrame(image, face_outline(points, (size, size)), points[MOUTH])

    def true_mouth(self, twin: Twin, frame: int) -> Float[np.ndarray, "20 2"]:
        """Returns the landmarks of a true frame's mouth in pixels of the aligned picture of its source."""
        return self._moved_landmarks(twin, frame)[1][MOUTH]

    def _moved_landmarks(self, twin: Twin, frame: int) -> tuple[Float[np.ndarray, "2 3"], Float[np.ndarray, "68 2"]]:
        """The matrix from the target's aligned picture to the source's, and the target's landmarks there."""
        data = [self._data(clip, frame) for clip in (twin.source, twin.target)]
        wanted, given = (RenderRecord.decode_field(one, "align_transform").astype(np.float64) for one in data)
        matrix = joined(wanted, inverse_affine(given))
        return matrix, moved(RenderRecord.decode_field(data[1], "aligned_landmarks").astype(np.float64), matrix)

    def _data(self, clip: str, frame: int) -> bytes:
        split = self.manifest.clips[clip].split
        return self._records[split][self._index[split].record(clip, frame)]


def scaled_points(points: Float[np.ndarray, "n 2"], side: int, size: int) -> Float[np.ndarray, "n 2"]:
    """Returns points of a picture in pixels of the same picture at another size.

    >>> scaled_points(np.array([[-0.5, 3.5]]), 8, 16)
    array([[-0.5,  7.5]])
    """
    return (points + 0.5) * (size / side) - 0.5


def warped(image: UInt8[np.ndarray, "h w 3"], matrix: Float[np.ndarray, "2 3"]) -> UInt8[np.ndarray, "h w 3"]:
    """Returns a picture moved, bicubic; black where nothing was.

    Args:
      image: The picture.
      matrix: From its pixels to those wanted, counted from the middle of the first.
    """
    back = np.linalg.inv(matrix[:, :2])
    # Pillow counts from the corner of the first pixel.
    offset = -back @ matrix[:, 2] + 0.5 - back @ np.array([0.5, 0.5])
    data = np.concatenate([back, offset[:, None]], axis=1).ravel().tolist()
    height, width = image.shape[:2]
    picture = Image.fromarray(image)
    return np.array(picture.transform((width, height), Image.Transform.AFFINE, data, Image.Resampling.BICUBIC))


# How near pictures are to the truth: PSNR, SSIM and mean absolute difference, of all of a picture or a part of it.

Region = Bool[np.ndarray, "h w"]

_PEAK = 255.0
_SIGMA, _RADIUS = 1.5, 5
_K1, _K2 = 0.01, 0.03


def psnr(image: ImageU8, truth: ImageU8, region: Region | None = None) -> float:
    """Returns the peak signal-to-noise ratio in dB; infinite for equal pictures.

    >>> round(psnr(np.zeros((4, 4, 3), np.uint8), np.full((4, 4, 3), 255, np.uint8)), 6)
    0.0

    Args:
      image: What is judged.
      truth: What it should be.
      region: Pixels that count; all if None.

    Raises:
      InputError: No pixel counts.
    """
    squares = (image.astype(np.float64) - truth.astype(np.float64)) ** 2
    error = float(_counted(squares, region).mean())
    return math.inf if error == 0 else 10 * math.log10(_PEAK**2 / error)


def mean_difference(image: ImageU8, truth: ImageU8, region: Region | None = None) -> float:
    """Returns the mean absolute difference in levels of 0..255; arguments and errors as `psnr`."""
    differences = np.abs(image.astype(np.float64) - truth.astype(np.float64))
    return float(_counted(differences, region).mean())


def ssim(image: ImageU8, truth: ImageU8, region: Region | None = None) -> float:
    """Returns the structural similarity, 1 for equal pictures: the mean of `ssim_map` over its pixels and channels.

    Args:
      image: What is judged.
      truth: What it should be.
      region: Places whose windows count, by their middle; all if None.

    Raises:
      InputError: A picture smaller than a window, or no window counts.
    """
    inner = None if region is None else region[_RADIUS:-_RADIUS, _RADIUS:-_RADIUS]
    return float(_counted(ssim_map(image, truth), inner).mean())


def ssim_map(image: ImageU8, truth: ImageU8) -> Float[np.ndarray, "y x 3"]:
    """Returns the structural similarity of each window of 11 x 11 pixels that lies inside the picture.

    Of Wang et al. (2004): Gaussian weights of deviation 1.5, K1 = 0.01, K2 = 0.03, population variances, each colour
    by itself. Entry (0, 0) belongs to pixel (5, 5).

    Raises:
      InputError: A picture smaller than a window.
    """
    if min(image.shape[:2]) < 2 * _RADIUS + 1:
        raise InputError(f"SSIM of a picture of {image.shape[1]} x {image.shape[0]} pixels: expected 11 or more")
    first, second = image.astype(np.float64), truth.astype(np.float64)
    first_mean, second_mean = _windows(first), _windows(second)
    first_variance = _windows(first * first) - first_mean**2
    second_variance = _windows(second * second) - second_mean**2
    covariance = _windows(first * second) - first_mean * second_mean
    c1, c2 = (_K1 * _PEAK) ** 2, (_K2 * _PEAK) ** 2
    similar = (2 * first_mean * second_mean + c1) * (2 * covariance + c2)
    return similar / ((first_mean**2 + second_mean**2 + c1) * (first_variance + second_variance + c2))


def region_around(
    centre: Float[np.ndarray, "2"], side: float, shape: tuple[int, int], inside: Region | None = None
) -> Region:
    """Returns the pixels of a square, those of `inside` only if it is given.

    >>> region_around(np.array([1.0, 2.0]), 3.0, (4, 4)).astype(int).tolist()
    [[0, 0, 0, 0], [1, 1, 1, 0], [1, 1, 1, 0], [1, 1, 1, 0]]

    Args:
      centre: Its middle (x, y) in pixels.
      side: Its side in pixels.
      shape: Height and width of the picture.
      inside: Pixels that may belong to it.
    """
    rows, columns = np.indices(shape)
    square = (np.abs(columns - centre[0]) <= side / 2) & (np.abs(rows - centre[1]) <= side / 2)
    return square if inside is None else square & inside


def _windows(values: Float[np.ndarray, "h w 3"]) -> Float[np.ndarray, "y x 3"]:
    means = ndimage.gaussian_filter(values, (_SIGMA, _SIGMA, 0), radius=(_RADIUS, _RADIUS, 0))
    return means[_RADIUS:-_RADIUS, _RADIUS:-_RADIUS]


def _counted(values: np.ndarray, region: Region | None) -> np.ndarray:
    chosen = values if region is None else values[region]
    if not chosen.size:
        raise InputError("a region of no pixels: nothing to compare there")
    return chosen


ImageU8 = UInt8[np.ndarray, "h w 3"]
Mask = Bool[np.ndarray, "h w"]

_MOUTH_SIDE = 72 / ALIGNED_SIDE
"""Side of the square around the mouth, over that of the picture: what the mouth's discriminator sees."""

_SETTLED = 3
"""Frames after which a clip has a full history of generated frames."""


@dataclasses.dataclass(frozen=True)
class OwnScore:
    """A held-out clip drawn from its own conditioning; all but `background` within the mask.

    Attributes:
      clip: Its id.
      speaker: Who speaks.
      emotion: Of the clip.
      psnr: Mean over frames, dB.
      ssim: Likewise.
      mouth: Mean absolute difference around the mouth, levels of 0..255.
      first_psnr: Of the first frame.
      later_psnr: Mean of the frames that have a full history.
      flicker: Mean absolute difference of the change from frame to frame, levels.
      background: Brightest value outside the mask; 0 if all is black.
    """

    clip: str
    speaker: str
    emotion: str
    psnr: float
    ssim: float
    mouth: float
    first_psnr: float
    later_psnr: float
    flicker: float
    background: int


@dataclasses.dataclass(frozen=True)
class DrivenScore:
    """A held-out neutral clip drawn with the expression of its twin, compared with the twin's frames.

    Attributes:
      source: Id of the neutral clip.
      clip: Id of the twin.
      speaker: Who speaks.
      emotion: Of the twin.
      psnr: Mean over frames, dB, where both have the face.
      ssim: Likewise.
      mouth: Mean absolute difference around the true mouth, levels of 0..255.
      landmarks: Mean distance of the mouth's landmarks that the probe finds in output and truth, in pixels of the
        256-pixel aligned picture.
      exact_landmarks: Mean distance of those it finds in the output from the exact ones; the probe's own error is in
        it.
    """

    source: str
    clip: str
    speaker: str
    emotion: str
    psnr: float
    ssim: float
    mouth: float
    landmarks: float
    exact_landmarks: float


@dataclasses.dataclass(frozen=True)
class Measure:
    """A figure of a table: field, heading, direction (None where neither is better), digits after the point."""

    name: str
    title: str
    higher_is_better: bool | None
    digits: int


OWN_MEASURES = (
    Measure("psnr", "PSNR, dB", True, 2),
    Measure("ssim", "SSIM", True, 4),
    Measure("mouth", "mouth error, levels", False, 2),
    Measure("first_psnr", "first frame, dB", True, 2),
    Measure("later_psnr", "later frames, dB", True, 2),
    Measure("flicker", "flicker, levels", False, 2),
    Measure("background", "background", None, 0),
)

DRIVEN_MEASURES = (
    Measure("mouth", "mouth error, levels", False, 2),
    Measure("landmarks", "landmark distance, px", False, 3),
    Measure("exact_landmarks", "to exact landmarks, px", False, 3),
    Measure("psnr", "PSNR, dB", True, 2),
    Measure("ssim", "SSIM", True, 4),
)


class OwnScorer:
    """Scores a clip drawn from its own conditioning, frame by frame: memory does not grow with its pictures."""

    def __init__(self) -> None:
        self._near = _Nearness()
        self._before: tuple[ImageU8, ImageU8, Mask] | None = None
        self._changes, self._changed = 0.0, 0
        self._background = 0

    def add(self, output: ImageU8, truth: ImageU8, mask: Mask, mouth: Float[np.ndarray, "2"]) -> None:
        """Adds the next frame.

        Args:
          output: As it was generated.
          truth: The frame itself, background and all.
          mask: Where the face is.
          mouth: Middle of the mouth (x, y), pixels.
        """
        self._near.add(output, truth, mask, mouth)
        self._background = max(self._background, int(np.where(mask[..., None], 0, output).max()))
        if self._before is not None:
            shared = mask & self._before[2]
            steps = [now.astype(np.int64) - was for now, was in zip((output, truth), self._before, strict=False)]
            changes = np.abs(steps[0] - steps[1])[shared]
            self._changes, self._changed = self._changes + float(changes.sum()), self._changed + changes.size
        self._before = output, truth, mask

    def score(self, **names: str) -> OwnScore:
        """Returns the figures of the frames so far; the names are the score's `clip`, `speaker` and `emotion`."""
        psnrs = self._near.psnr
        return OwnScore(
            **names,
            psnr=_mean(psnrs),
            ssim=_mean(self._near.ssim),
            mouth=_mean(self._near.mouth),
            first_psnr=psnrs[0],
            later_psnr=_mean(psnrs[_SETTLED:] or psnrs),
            flicker=self._changes / self._changed if self._changed else 0.0,
            background=self._background,
        )


class DrivenScorer:
    """Scores a clip drawn with another expression, frame by frame."""

    def __init__(self) -> None:
        self._near = _Nearness()
        self._apart: list[tuple[float, float]] = []

    def add(
        self,
        output: ImageU8,
        truth: ImageU8,
        mask: Mask,
        mouth: Float[np.ndarray, "points 2"],
        found: Float[np.ndarray, "points 2"],
        found_in_truth: Float[np.ndarray, "points 2"],
    ) -> None:
        """Adds the next frame.

        Args:
          output: As it was generated.
          truth: What it should be, background and all.
          mask: Where both have the face.
          mouth: Exact landmarks of the true mouth, pixels.
          found: Landmarks that the probe finds in the output.
          found_in_truth: Landmarks that it finds in the truth, behind the same mask.
        """
        self._near.add(output, truth, mask, mouth.mean(axis=0))
        pixels = ALIGNED_SIDE / len(output)
        self._apart.append((pixels * _distance(found, found_in_truth), pixels * _distance(found, mouth)))

    def score(self, **names: str) -> DrivenScore:
        """Returns the figures so far; the names are the score's `source`, `clip`, `speaker` and `emotion`."""
        landmarks, exact = zip(*self._apart, strict=True)
        near = self._near
        return DrivenScore(
            **names,
            psnr=_mean(near.psnr),
            ssim=_mean(near.ssim),
            mouth=_mean(near.mouth),
            landmarks=_mean(landmarks),
            exact_landmarks=_mean(exact),
        )


class _Nearness:
    """How near frames are to the truth, one after the other, within the mask and around the mouth."""

    def __init__(self) -> None:
        self.psnr: list[float] = []
        self.ssim: list[float] = []
        self.mouth: list[float] = []

    def add(self, output: ImageU8, truth: ImageU8, mask: Mask, mouth: Float[np.ndarray, "2"]) -> None:
        self.psnr.append(psnr(output, truth, mask))
        # Windows at a mask's border reach beyond it: there both pictures are black.
        shown = [np.where(mask[..., None], image, np.uint8(0)) for image in (output, truth)]
        self.ssim.append(ssim(shown[0], shown[1], mask))
        height, width = mask.shape
        self.mouth.append(
            mean_difference(output, truth, region_around(mouth, _MOUTH_SIDE * height, (height, width), mask))
        )


def summary(scores: Sequence[Any], measure: str) -> Interval:
    """Returns the mean of a measure over clips with its bootstrap interval; a clip driven by a twin counts as one."""
    return mean(_values(scores, measure), _units(scores))


def difference(scores: Sequence[Any], others: Sequence[Any], measure: str) -> Interval:
    """Returns the mean of a measure minus that of others on the same clips, with its interval."""
    return mean(_values(scores, measure) - _values(others, measure), _units(scores))


def _values(scores: Sequence[Any], measure: str) -> Float[np.ndarray, " n"]:
    return np.array([getattr(score, measure) for score in scores], np.float64)


def _units(scores: Sequence[Any]) -> Units:
    """Speakers, or where there are few of them clips: of driven ones the sources, which share their speech, first."""
    levels = [("speaker", [score.speaker for score in scores])]
    if scores and isinstance(scores[0], DrivenScore):
        levels.append(("source", [score.source for score in scores]))
    return choose_units(*levels, ("clip", [score.clip for score in scores]))


def _mean(values: Sequence[float]) -> float:
    return float(np.mean(values))


def _distance(first: Float[np.ndarray, "points 2"], second: Float[np.ndarray, "points 2"]) -> float:
    return float(np.linalg.norm(first.astype(np.float64) - second, axis=-1).mean())
