"""Aligned frames of talking faces with the pictures a renderer draws them from, whatever they are stored in."""

from __future__ import annotations

import abc
import collections
import dataclasses
import io
import itertools
import threading
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import simplejpeg
from jaxtyping import Bool, Float, Float32, Int, Int32, Int64, Real, UInt8
from PIL import Image

from asccl_jax.data.dataset import open_records, read_render_flags
from asccl_jax.data.manifest import MANIFEST_NAME, FrameIndex, read_manifest
from asccl_jax.data.records import RecordSource
from asccl_jax.data.schema import UNLABELLED, RenderRecord
from asccl_jax.errors import InputError
from asccl_jax.head.eyes import MOUTH, draw_eyes, eye_points, median_point
from asccl_jax.image.face_box import landmark_box, mask_box
from asccl_jax.image.polygon import face_outline
from asccl_jax.paths import is_litter
from asccl_jax.work import file_facts

__all__ = [
    "REGIONS",
    "UNTRUSTED",
    "AlignedClips",
    "AlignedFrame",
    "FolderClips",
    "RecordClips",
    "RenderedClip",
    "aligned_frame",
    "decode_picture",
    "eyes_at",
    "find_runs",
    "is_subject_folder",
    "open_clips",
]

_OPAQUE = 128


@dataclasses.dataclass(frozen=True, eq=False)
class AlignedFrame:
    """One frame, RGB, 0..255; its arrays may be shared and must not be changed.

    Attributes:
      image: The frame, background and all.
      nmfc_image: Normalised mean face coordinates of the head model.
      shape_image: The head model's surface in grey.
      eyes_image: Discs where the pupils are.
      mask: 255 where the face is, else 0.
      mouth_centre: Middle of the mouth (x, y) in whole pixels.
      face_box: Borders x0, y0, x1, y1 of the face, see `geometry.face_box`.
      eye_points: Contours and pupils (`geometry.eyes`), in pixels of the picture as it is stored.
      stored_size: Side of the picture as it is stored.
    """

    image: UInt8[np.ndarray, "h w 3"]
    nmfc_image: UInt8[np.ndarray, "h w 3"]
    shape_image: UInt8[np.ndarray, "h w 3"]
    eyes_image: UInt8[np.ndarray, "h w 3"]
    mask: UInt8[np.ndarray, "h w 1"]
    mouth_centre: Int32[np.ndarray, "2"]
    face_box: Float32[np.ndarray, "4"]
    eye_points: Int64[np.ndarray, "14 2"]
    stored_size: int

    @property
    def bytes(self) -> int:
        """Memory that the pictures take."""
        pictures = (self.image, self.nmfc_image, self.shape_image, self.eyes_image, self.mask)
        return sum(picture.nbytes for picture in pictures)


@dataclasses.dataclass(frozen=True)
class RenderedClip:
    """A clip whose frames are aligned and rendered.

    Attributes:
      clip: Its id.
      speaker: Whose face.
      emotion: One of `schema.EMOTIONS`, or `schema.UNLABELLED`.
      sentence: What is said; empty where nobody knows.
      split: "train", "validation" or "test".
      fps: Frames a second.
      runs: Runs (first, last) of frames that can be used, both ends included.
    """

    clip: str
    speaker: str
    emotion: str
    sentence: str
    split: str
    fps: float
    runs: tuple[tuple[int, int], ...]

    @property
    def frames(self) -> Int64[np.ndarray, " n"]:
        """Positions of the frames that can be used, rising."""
        return np.concatenate([np.arange(first, last + 1) for first, last in self.runs])


class AlignedClips(abc.ABC):
    """Clips whose frames can be read at random, at one size; safe to read from several threads.

    Frames read are kept decoded as far as the memory allowed reaches, the last ones used.

    Args:
      image_size: Side of the pictures wanted, in pixels.
      cache_bytes: Memory for frames kept.

    Attributes:
      image_size: See above.
      clips: The clips by id.
      left_out: Frames of each clip that cannot be used; clips without any are not in it.
    """

    clips: Mapping[str, RenderedClip]
    left_out: Mapping[str, int]

    def __init__(self, image_size: int, *, cache_bytes: int) -> None:
        if image_size < 8:
            raise InputError(f"image size {image_size}: expected at least 8 pixels")
        self.image_size = image_size
        self._kept: collections.OrderedDict[tuple[str, int], AlignedFrame] = collections.OrderedDict()
        self._free = cache_bytes
        self._lock = threading.Lock()

    def read(self, clip: str, frame: int) -> AlignedFrame:
        """Returns a frame.

        Raises:
          InputError: There is no such frame, or what is stored of it is damaged.
        """
        key = (clip, frame)
        with self._lock:
            found = self._kept.get(key)
            if found is not None:
                self._kept.move_to_end(key)
                return found
        found = self._load(clip, frame)
        with self._lock:
            if key not in self._kept:  # another thread may have been faster
                self._kept[key] = found
                self._free -= found.bytes
            while self._free < 0:
                self._free += self._kept.popitem(last=False)[1].bytes
        return found

    def entry(self, clip: str) -> RenderedClip:
        """Returns a clip by its id; raises `InputError` where there is none."""
        if clip not in self.clips:
            shown = ", ".join(list(self.clips)[:5])
            raise InputError(f"no clip {clip!r} with usable frames; there are {len(self.clips)}, as {shown}")
        return self.clips[clip]

    @abc.abstractmethod
    def facts(self, clip: str) -> list[Any]:
        """Returns what changes, as JSON has it, when a frame of a clip does or others can be used; reads no frame."""

    @abc.abstractmethod
    def _load(self, clip: str, frame: int) -> AlignedFrame:
        """Reads a frame from where it is stored."""


def find_runs(frames: Int[np.ndarray, " n"]) -> tuple[tuple[int, int], ...]:
    """Returns the runs (first, last) of consecutive numbers.

    >>> find_runs(np.array([0, 1, 2, 5, 7, 8]))
    ((0, 2), (5, 5), (7, 8))
    """
    pieces = np.split(frames, np.flatnonzero(np.diff(frames) != 1) + 1) if frames.size else []
    return tuple((int(piece[0]), int(piece[-1])) for piece in pieces)


def aligned_frame(
    *,
    image: UInt8[np.ndarray, "s s 3"],
    nmfc_image: UInt8[np.ndarray, "s s 3"],
    shape_image: UInt8[np.ndarray, "s s 3"],
    mask: Bool[np.ndarray, "s s"],
    eye_points: Int64[np.ndarray, "14 2"],
    mouth: Real[np.ndarray, "n 2"],
    face_box: Float[np.ndarray, "4"],
    size: int,
) -> AlignedFrame:
    """Returns a frame at another size, averaged where it shrinks.

    Args:
      image: The frame as it is stored; likewise the following.
      nmfc_image: See `AlignedFrame`.
      shape_image: See `AlignedFrame`.
      mask: Where the face is.
      eye_points: Contours and pupils.
      mouth: Landmarks of the mouth.
      face_box: See `AlignedFrame`.
      size: Side wanted.
    """
    stored = len(image)
    cover = np.asarray(Image.fromarray(mask).convert("L").resize((size, size), Image.Resampling.BOX))
    frame = AlignedFrame(
        image=_resized(image, size),
        nmfc_image=_resized(nmfc_image, size),
        shape_image=_resized(shape_image, size),
        eyes_image=eyes_at(eye_points, stored, size),
        mask=np.where(cover >= _OPAQUE, np.uint8(255), np.uint8(0))[:, :, None],
        mouth_centre=median_point((mouth + 0.5) * (size / stored) - 0.5),
        face_box=(face_box * (size / stored)).astype(np.float32),
        eye_points=eye_points,
        stored_size=stored,
    )
    for array in (frame.image, frame.nmfc_image, frame.shape_image, frame.eyes_image, frame.mask):
        array.flags.writeable = False
    return frame


def eyes_at(points: Int64[np.ndarray, "14 2"], stored: int, size: int) -> UInt8[np.ndarray, "size size 3"]:
    """Returns the eye image, drawn at the size the points belong to and averaged: a disc may be smaller than a pixel.

    Args:
      points: Contours and pupils.
      stored: Side of the picture whose pixels they count.
      size: Side wanted.
    """
    return _resized(draw_eyes(points, (stored, stored)), size)


def decode_picture(content: bytes, *, channels: int = 3) -> UInt8[np.ndarray, "h w *c"]:
    """Returns a picture file's pixels, RGB or (one channel) grey.

    Raises:
      InputError: It is no picture.
    """
    try:
        with Image.open(io.BytesIO(content)) as picture:
            return np.array(picture.convert("RGB" if channels == 3 else "L"))
    except (OSError, ValueError, SyntaxError) as error:
        raise InputError(f"no readable picture ({error})") from error


def _resized(image: UInt8[np.ndarray, "h w 3"], size: int) -> UInt8[np.ndarray, "size size 3"]:
    if image.shape[:2] == (size, size):
        return image
    return np.array(Image.fromarray(image).resize((size, size), Image.Resampling.BICUBIC))


# Aligned frames straight from the published folders of a subject, in sub-folders of 50 frames or flat.

_EYES = "eye_landmarks_aligned"
_KINDS = ("faces_aligned", "masks_aligned", "nmfcs_aligned", "shapes_aligned", _EYES)
_EYE_ROWS = 14
_USUAL_MOUTH = np.array([[126.5, 174.0]])
"""Where the alignment's template has the middle of the mouth; for eye files without one, as test folders have them."""


def is_subject_folder(path: Path) -> bool:
    """Returns whether a folder is laid out as a subject's, with aligned pictures."""
    return all((path / kind).is_dir() for kind in ("nmfcs_aligned", "shapes_aligned"))


class FolderClips(AlignedClips):
    """The clips of one or several subjects: each sub-folder is one, "SUBJECT/000000"; a flat folder is all one.

    Args:
      folders: Of the subjects; each has faces, masks, NMFC, shapes and eye landmarks, aligned.
      image_size: Side of the pictures wanted, in pixels.
      held_out: Sub-folders of each subject, the last ones, that are for validation; at least one is left for training.
      fps: Frames a second, which the folders do not tell.
      cache_bytes: Memory for decoded frames.

    Raises:
      InputError: A folder is missing or not complete, or two have one name.
    """

    def __init__(
        self,
        folders: Sequence[Path | str],
        *,
        image_size: int = 256,
        held_out: int = 1,
        fps: float = 30.0,
        cache_bytes: int = 1 << 30,
    ) -> None:
        super().__init__(image_size, cache_bytes=cache_bytes)
        subjects = [Path(folder) for folder in folders]
        names = [subject.resolve().name for subject in subjects]
        if not subjects or len(set(names)) < len(names):
            raise InputError(
                f"subjects {', '.join(names) or 'none'}: expected at least one folder, each of another name"
            )
        self.clips, self.left_out = {}, {}
        self._folders: dict[str, tuple[Path, str]] = {}
        for subject, name in zip(subjects, names, strict=True):
            sequences = _sequences(subject)
            training = max(len(sequences) - held_out, 1)
            for place, (sequence, frames) in enumerate(sequences.items()):
                clip = f"{name}/{sequence}" if sequence else name
                split = "train" if place < training else "validation"
                self.clips[clip] = RenderedClip(clip, name, UNLABELLED, "", split, fps, find_runs(np.array(frames)))
                self._folders[clip] = subject, sequence

    def facts(self, clip: str) -> list[Any]:
        """See `AlignedClips`."""
        subject, sequence = self._folders[clip]
        runs = self.entry(clip).runs
        # Of a flat folder with sub-folders beside it the latter count, too: work that was not needed, nothing stale.
        return [runs, *file_facts(*(subject / kind / sequence for kind in _KINDS))]

    def _load(self, clip: str, frame: int) -> AlignedFrame:
        entry = self.entry(clip)
        if not any(first <= frame <= last for first, last in entry.runs):
            raise InputError(f"clip {clip!r} has no frame {frame}")
        subject, sequence = self._folders[clip]
        image, mask, nmfc, shape = (
            _read_picture(subject / kind / sequence / f"{frame:06d}.png") for kind in _KINDS if kind != _EYES
        )
        for kind, picture in zip(_KINDS, (image, mask, nmfc, shape), strict=False):
            if picture.shape != (len(image), len(image), 3):
                raise InputError(
                    f"{subject / kind / sequence / f'{frame:06d}.png'}: {picture.shape[1]} x {picture.shape[0]} pixels,"
                    f" expected {len(image)} x {len(image)} as the face"
                )
        points = _read_points(subject / _EYES / sequence / f"{frame:06d}.txt")
        face = mask[:, :, 0] > 127
        return aligned_frame(
            image=image,
            nmfc_image=nmfc,
            shape_image=shape,
            mask=face,
            eye_points=np.trunc(points[:_EYE_ROWS]).astype(np.int64),
            mouth=points[_EYE_ROWS:] if len(points) > _EYE_ROWS else _USUAL_MOUTH * (len(image) / 256),
            face_box=mask_box(face, points[:_EYE_ROWS]),
            size=self.image_size,
        )


def _sequences(subject: Path) -> dict[str, list[int]]:
    """Frame numbers by sub-folder, "" for a flat folder; all kinds must have the same."""
    missing = [kind for kind in _KINDS if not (subject / kind).is_dir()]
    if missing:
        raise InputError(
            f"{subject}: no {', '.join(missing)}; expected the folder of one subject after alignment (a data set"
            " of `asccl data reconstruct` needs no masks)"
        )
    found = {kind: _frames(subject / kind, ".txt" if kind == _EYES else ".png") for kind in _KINDS}
    first = found[_KINDS[0]]
    for kind, frames in found.items():
        odd = sorted(frames ^ first)
        if odd:
            place = "/".join(filter(None, odd[0]))
            raise InputError(
                f"{subject}: frame {place} and {len(odd) - 1} more are not in both {_KINDS[0]} and {kind};"
                " the folders must have the same frames"
            )
    if not first:
        raise InputError(f"{subject / _KINDS[0]}: no pictures; expected 000000.png, 000001.png, ...")
    grouped = itertools.groupby(sorted(first), key=lambda frame: frame[0])
    return {sequence: sorted(int(number) for _, number in frames) for sequence, frames in grouped}


def _frames(folder: Path, suffix: str) -> set[tuple[str, str]]:
    """Sub-folder ("" for none) and name of each file."""
    files: Iterable[Path] = itertools.chain(folder.glob(f"*{suffix}"), folder.glob(f"*/*{suffix}"))
    kept = (path for path in files if not is_litter(path.name))
    names = {(path.parent.name if path.parent != folder else "", path.stem) for path in kept}
    strange = sorted(name for _, name in names if not (name.isdecimal() and len(name) == 6))
    if strange:
        raise InputError(f"{folder}: {', '.join(strange[:3])} name no frame; expected 000000{suffix}, ...")
    return names


def _read_picture(path: Path) -> UInt8[np.ndarray, "h w 3"]:
    try:
        return decode_picture(path.read_bytes())
    except (OSError, InputError) as error:
        raise InputError(f"{path}: {error}") from error


def _read_points(path: Path) -> Float[np.ndarray, "n 2"]:
    try:
        points = np.loadtxt(path, ndmin=2)
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: not a list of points ({error})") from error
    if points.shape[1] != 2 or len(points) < _EYE_ROWS or not np.isfinite(points).all():
        raise InputError(f"{path}: {points.shape[0]} x {points.shape[1]} numbers, expected at least 14 points x, y")
    return points


# Aligned frames from the records that a reconstruction (`asccl data reconstruct`) has written.

REGIONS = ("face", "head")
"""What a mask may cover."""

UNTRUSTED = 1 | 4 | 8
"""Flags of frames left out: no face was found, a poor fit, an unreadable picture (see `schema.RenderRecord`)."""


class RecordClips(AlignedClips):
    """The clips of a data set of renders.

    A frame's mask is where its head model was drawn, and of that the face: `geometry.face_outline`. Pupils are looked
    for in the aligned frame.

    Args:
      directory: Data set.
      image_size: Side of the pictures wanted, in pixels.
      detail: Take the surface with wrinkles rather than the coarse one.
      region: "face", or "head" for all of the head model, with the scalp, ears and neck.
      untrusted: Flags of frames to leave out; 0 takes all.
      cache_bytes: Memory for decoded frames.

    Raises:
      InputError: No such data set, no renders in it, not the pictures wanted, or no frame to trust.
    """

    def __init__(
        self,
        directory: Path | str,
        *,
        image_size: int = 256,
        detail: bool = False,
        region: str = "face",
        untrusted: int = UNTRUSTED,
        cache_bytes: int = 1 << 30,
    ) -> None:
        super().__init__(image_size, cache_bytes=cache_bytes)
        if region not in REGIONS:
            raise InputError(f"region {region!r}: expected {' or '.join(REGIONS)}")
        manifest = read_manifest(directory)
        splits = [name for name, split in manifest.splits.items() if split.renders]
        if not splits:
            raise InputError(f"{directory} has no renders; make records that have them with `asccl data reconstruct`")
        self._directory, self._region = Path(directory), region
        self._shape_picture = "aligned_detail_image" if detail else "aligned_shape_image"
        self._records = {name: open_records(directory, manifest, name, "renders") for name in splits}
        self._index = {name: FrameIndex(manifest, name) for name in splits}
        self.clips, self.left_out = {}, {}
        for split in splits:
            self._check_pictures(self._records[split])
            flags = read_render_flags(directory, manifest, split)
            for clip, entry in sorted(self._index[split].clips.items()):
                trusted = (flags[clip] & untrusted) == 0
                positions = self._index[split].positions(clip)
                if not trusted.all():
                    self.left_out[clip] = int((~trusted).sum())
                if trusted.any():
                    runs = find_runs(positions[trusted])
                    who = (entry.speaker, entry.emotion, entry.sentence)
                    self.clips[clip] = RenderedClip(clip, *who, split, entry.fps, runs)
        if not self.clips:
            raise InputError(f"{directory}: none of {sum(self.left_out.values())} frames can be trusted (their flags)")

    def _check_pictures(self, records: RecordSource) -> None:
        if not len(records):
            return
        wanted = {"aligned_image", "aligned_nmfc_image", self._shape_picture, "aligned_alpha_image"}
        absent = wanted & RenderRecord.decode(records[0]).absent()
        if absent:
            raise InputError(
                f"{self._directory}: its records have no {', '.join(sorted(absent))}; wrinkles need DECA's decoder"
            )

    def facts(self, clip: str) -> list[Any]:
        """See `AlignedClips`."""
        entry = self.entry(clip)
        numbers = self._index[entry.split].all_records(clip)
        return [self._region, entry.runs, self._records[entry.split].digest(numbers.tolist())]

    def _load(self, clip: str, frame: int) -> AlignedFrame:
        split = self.entry(clip).split
        number = self._index[split].record(clip, frame)
        records = self._records[split]
        try:
            return self._decode(RenderRecord.decode(records[number]))
        except ValueError as error:  # of which InputError is one
            raise InputError(f"{records.describe(number)}: {error}") from error

    def _decode(self, record: RenderRecord) -> AlignedFrame:
        image = simplejpeg.decode_jpeg(record.aligned_image, "RGB")
        nmfc, shape, alpha = (
            _picture(record, name, len(image))
            for name in ("aligned_nmfc_image", self._shape_picture, "aligned_alpha_image")
        )
        landmarks = record.aligned_landmarks
        mask = alpha[:, :, 0] > 127
        if self._region == "face":
            mask &= face_outline(landmarks, mask.shape)
        return aligned_frame(
            image=image,
            nmfc_image=nmfc,
            shape_image=shape,
            mask=mask,
            eye_points=eye_points(image, landmarks),
            mouth=landmarks[MOUTH],
            face_box=landmark_box(landmarks),
            size=self.image_size,
        )


def _picture(record: RenderRecord, name: str, side: int) -> UInt8[np.ndarray, "h w 3"]:
    picture = decode_picture(getattr(record, name))
    if picture.shape[:2] != (side, side):
        raise InputError(f"its {name!r} has {picture.shape[0]} x {picture.shape[1]} pixels, its frame {side} x {side}")
    return picture


# Opens whatever holds aligned frames: a data set of renders, published folders of one subject or of several.


def open_clips(
    path: Path | str,
    *,
    image_size: int = 256,
    detail: bool = False,
    region: str = "face",
    untrusted: int = UNTRUSTED,
    cache_bytes: int = 1 << 30,
) -> AlignedClips:
    """Returns the clips of a data set of renders, of a subject's folder, or of a folder of subjects' folders.

    Args:
      path: Where.
      image_size: Side of the pictures wanted, in pixels.
      detail: Of records, take the surface with wrinkles rather than the coarse one.
      region: Of records, what the mask covers: "face" or "head".
      untrusted: Of records, flags of frames to leave out.
      cache_bytes: Memory for decoded frames.

    Raises:
      InputError: Nothing of the kind, or it is damaged.
    """
    path = Path(path)
    if (path / MANIFEST_NAME).is_file():
        return RecordClips(
            path, image_size=image_size, detail=detail, region=region, untrusted=untrusted, cache_bytes=cache_bytes
        )
    if not path.is_dir():
        raise InputError(f"{path} does not exist; expected records of `asccl data reconstruct`, or folders of subjects")
    folders = [path] if is_subject_folder(path) else sorted(filter(is_subject_folder, path.iterdir()))
    if not folders:
        raise InputError(
            f"{path}: neither records (no {MANIFEST_NAME}) nor folders of subjects (no nmfcs_aligned/, shapes_aligned/)"
        )
    return FolderClips(folders, image_size=image_size, cache_bytes=cache_bytes)
