"""68 facial landmarks from one of three back ends: face-alignment, precomputed files, MediaPipe next door.

Points are (x, y) in pixels of the frame, pixel centres at integers, in the 68-point order of iBUG. Do not mix back
ends within a data set: their jaw and brow points differ by a few per cent of the face.
"""

from __future__ import annotations

import abc
import contextlib
import dataclasses
import inspect
import os
import struct
import subprocess
import urllib.error
import warnings
import zipfile
import zlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np
from jaxtyping import Float32

from asccl_jax.errors import InputError
from data_prep.media import mediapipe_worker
from data_prep.media.clips import Clip
from data_prep.media.decode import BrokenMediaError, Frame

__all__ = [
    "BACKENDS",
    "FaceAlignment",
    "LandmarkBackend",
    "LandmarkSettings",
    "MediaPipe",
    "Precomputed",
    "check_file",
    "make_backend",
]

BACKENDS = ("face-alignment", "precomputed", "mediapipe")

_LANDMARK_KEYS = ("landmarks68", "lm68")

FACE_ALIGNMENT_FILES = {
    "s3fd-619a316812.pth": "https://www.adrianbulat.com/downloads/python-fan/s3fd-619a316812.pth",
    "2DFAN4-11f355bf06.pth.tar": "https://www.adrianbulat.com/downloads/python-fan/2DFAN4-11f355bf06.pth.tar",
}
"""Weight files of face-alignment and where it fetches them from."""


class LandmarkBackend(abc.ABC):
    """Finds the landmarks of a clip's frames, which come in order, a chunk a call."""

    @abc.abstractmethod
    def landmarks68(self, frames: Sequence[Frame], clip: Clip) -> Float32[np.ndarray, "t 68 2"]:
        """Returns the landmarks of each frame; NaN rows where there is no face.

        Raises:
          BrokenMediaError: This clip's landmarks cannot be had.
        """

    def check_count(self, frames: Callable[[], int], clip: Clip) -> None:  # noqa: B027 - what is found as asked fits
        """Refuses a clip whose landmarks are not of as many frames as it shows; call it after the last chunk.

        Args:
          frames: Counts all frames that the clip's source shows; called only where landmarks may be too many.
          clip: The clip of the calls before.

        Raises:
          BrokenMediaError: They are of more frames, or of fewer.
        """

    def close(self) -> None:  # noqa: B027 - not every back end holds something
        """Ends what the back end holds."""


@dataclasses.dataclass(frozen=True)
class LandmarkSettings:
    """Which back end, and what it needs.

    Attributes:
      backend: One of `BACKENDS`.
      directory: Folder of precomputed files; None looks beside each video.
      mediapipe_python: Python interpreter of the environment that has MediaPipe.
      device: PyTorch device of face-alignment; "auto" takes a GPU where there is one.
    """

    backend: str = "face-alignment"
    directory: Path | None = None
    mediapipe_python: Path | None = None
    device: str = "auto"


def make_backend(settings: LandmarkSettings) -> LandmarkBackend:
    """Returns the back end, ready to run.

    Raises:
      InputError: Unknown back end, or something it needs is missing; says what goes where.
    """
    if settings.backend == "face-alignment":
        return FaceAlignment(device=settings.device)
    if settings.backend == "precomputed":
        return Precomputed(settings.directory)
    if settings.backend == "mediapipe":
        if settings.mediapipe_python is None:
            raise InputError(f"--landmarks mediapipe needs --mediapipe-python; {_MEDIAPIPE_REMEDY}")
        return MediaPipe(settings.mediapipe_python)
    raise InputError(f"landmark back end {settings.backend!r}: expected one of {', '.join(BACKENDS)}")


class Precomputed(LandmarkBackend):
    """Landmarks stored in npz files, key `landmarks68` (or `lm68`), shape [frames, 68, 2].

    A clip's file is the one its list row names, else `DIRECTORY/CLIP_ID.npz` or `DIRECTORY/VIDEO_NAME.npz`, else
    `VIDEO_NAME.npz` beside the video.

    Args:
      directory: Folder of the files, or None.

    Raises:
      InputError: The folder does not exist.
    """

    def __init__(self, directory: Path | None = None) -> None:
        if directory is not None and not directory.is_dir():
            raise InputError(f"--landmarks-dir {directory}: no such folder")
        self._directory = directory
        self._clip: Clip | None = None
        self._points = np.zeros((0, 68, 2), np.float32)

    def landmarks68(self, frames: Sequence[Frame], clip: Clip) -> Float32[np.ndarray, "t 68 2"]:
        """Returns the stored rows of the frames, NaN for those beyond the last; `check_count` refuses such clips."""
        if clip != self._clip:
            path = self.find(clip)
            if path is None:
                raise BrokenMediaError("no landmark file")
            self._points = _load_landmarks(path)
            self._clip = clip
        rows = np.array([frame.source_index for frame in frames], int)
        points = np.full((len(rows), 68, 2), np.nan, np.float32)
        there = rows < len(self._points)
        points[there] = self._points[rows[there]]
        return points

    def check_count(self, frames: Callable[[], int], clip: Clip) -> None:
        """See `LandmarkBackend`: a row belongs to a frame by its number, so one too many shifts all that follow."""
        del clip
        _check_rows(len(self._points), frames())

    def find(self, clip: Clip) -> Path | None:
        """Returns the clip's landmark file, or None where there is none."""
        if clip.landmarks is not None:
            return clip.landmarks if clip.landmarks.is_file() else None
        name = (clip.video.name if clip.video.is_dir() else clip.video.stem) + ".npz"
        candidates = [clip.video.parent / name]
        if self._directory is not None:
            candidates = [self._directory / f"{clip.clip_id}.npz", self._directory / name, *candidates]
        return next((path for path in candidates if path.is_file()), None)


def check_file(path: Path, frames: int) -> None:
    """Raises `BrokenMediaError` unless a landmark file is one, of a video that shows so many frames."""
    _check_rows(len(_load_landmarks(path)), frames)


def _check_rows(rows: int, frames: int) -> None:
    if rows != frames:
        raise BrokenMediaError(
            f"landmark file has {rows} rows, the video {frames} frames: not the landmarks of this very video; find them"
            " again, a row for each frame that it shows"
        )


class FaceAlignment(LandmarkBackend):
    """The 2D face alignment network behind the S3FD detector; the largest face of a frame counts.

    Raises:
      InputError: The package or its weights are missing.
    """

    def __init__(self, *, device: str = "auto") -> None:
        try:
            import face_alignment
            import torch
        except ImportError as error:
            raise InputError(
                f"landmark back end face-alignment: {error}. Install its needs with pip install 'asccl-jax[landmarks]'"
                " and the package itself with pip install --no-deps face-alignment (it asks for the desktop OpenCV,"
                " which --no-deps keeps out), or choose --landmarks precomputed or mediapipe"
            ) from error
        if device == "auto":
            device = "cuda" if torch.cuda.is_available() else "cpu"
        kind = getattr(face_alignment.LandmarksType, "TWO_D", None)
        if kind is None:  # the name before version 1.4
            kind = face_alignment.LandmarksType._2D
        options = {"compile": False} if "compile" in inspect.signature(face_alignment.FaceAlignment).parameters else {}
        try:
            self._network: Any = face_alignment.FaceAlignment(kind, device=device, flip_input=True, **options)
        except (urllib.error.URLError, OSError, RuntimeError) as error:
            folder = Path(torch.hub.get_dir()) / "checkpoints"
            missing = {n: url for n, url in FACE_ALIGNMENT_FILES.items() if not (folder / n).is_file()}
            if not missing:
                raise
            files = "; ".join(f"{name} (from {url}) goes to {folder / name}" for name, url in missing.items())
            raise InputError(
                f"landmark back end face-alignment cannot fetch its weights ({error}): {files}."
                " Put them there (the folder is $TORCH_HOME/hub/checkpoints), or choose --landmarks precomputed or"
                " mediapipe"
            ) from error

    def landmarks68(self, frames: Sequence[Frame], clip: Clip) -> Float32[np.ndarray, "t 68 2"]:
        """Returns the landmarks of the largest face of each frame."""
        del clip
        points = np.full((len(frames), 68, 2), np.nan, np.float32)
        for row, frame in enumerate(frames):
            if frame.image is None:
                continue
            faces = self._network.face_detector.detect_from_image(frame.image)
            if len(faces) == 0:
                continue
            largest = max(faces, key=lambda face: (face[2] - face[0]) * (face[3] - face[1]))
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                found = self._network.get_landmarks_from_image(frame.image, detected_faces=[largest])
            if found:
                points[row] = found[0]
        return points


class MediaPipe(LandmarkBackend):
    """MediaPipe's face mesh, run by another Python interpreter (see `mediapipe_worker`).

    Args:
      python: Interpreter of the environment that has MediaPipe.

    Raises:
      InputError: There is no such interpreter, or it cannot import MediaPipe.
    """

    def __init__(self, python: Path) -> None:
        check = [str(python), "-c", "import mediapipe; mediapipe.solutions.face_mesh"]
        try:
            verdict = subprocess.run(check, capture_output=True, text=True, check=False)
        except OSError as error:
            raise InputError(f"--mediapipe-python {python}: {error.strerror}; {_MEDIAPIPE_REMEDY}") from error
        if verdict.returncode != 0:
            reason = (verdict.stderr.strip().splitlines() or ["no message"])[-1]
            raise InputError(f"--mediapipe-python {python} cannot use MediaPipe ({reason}); {_MEDIAPIPE_REMEDY}")
        self._python = python
        self._process: subprocess.Popen[bytes] | None = None
        self._clip = ""

    def landmarks68(self, frames: Sequence[Frame], clip: Clip) -> Float32[np.ndarray, "t 68 2"]:
        """Returns the landmarks as MediaPipe tracks them through the clip."""
        points = np.full((len(frames), 68, 2), np.nan, np.float32)
        requests, answers = self._pipes()
        try:
            if clip.clip_id != self._clip:
                requests.write(struct.pack("<ii", 0, 0))
                self._clip = clip.clip_id
            for row, frame in enumerate(frames):
                if frame.image is None:
                    continue
                requests.write(struct.pack("<ii", *frame.image.shape[:2]) + frame.image.tobytes())
                requests.flush()
                points[row] = np.frombuffer(answers.read(points[row].nbytes), np.float32).reshape(68, 2)
        except (BrokenPipeError, ValueError) as error:
            self.close()
            raise BrokenMediaError("the MediaPipe process ended") from error
        return points

    def close(self) -> None:
        """Ends the other process."""
        if self._process is not None:
            for pipe in (self._process.stdin, self._process.stdout):
                if pipe is not None:
                    with contextlib.suppress(BrokenPipeError):
                        pipe.close()
            self._process.wait()
        self._process, self._clip = None, ""

    def _pipes(self) -> tuple[IO[bytes], IO[bytes]]:
        if self._process is None:
            self._process = subprocess.Popen(
                [str(self._python), str(Path(mediapipe_worker.__file__).resolve())],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                env={name: value for name, value in os.environ.items() if name != "PYTHONPATH"},
            )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        return self._process.stdin, self._process.stdout


_MEDIAPIPE_REMEDY = (
    "make an environment for it: python3.11 -m venv MP && MP/bin/pip install --no-deps mediapipe==0.10.21 &&"
    ' MP/bin/pip install absl-py attrs flatbuffers "protobuf<5" matplotlib "opencv-python-headless<5" numpy,'
    " then --mediapipe-python MP/bin/python"
)


def _load_landmarks(path: Path) -> Float32[np.ndarray, "t 68 2"]:
    try:
        with path.open("rb") as file:
            archive = np.load(file, allow_pickle=False)
            if not isinstance(archive, Mapping):
                raise ValueError("a single array, expected an npz archive")
            key = next((key for key in _LANDMARK_KEYS if key in archive), None)
            if key is None:
                raise ValueError(f"no array {' or '.join(_LANDMARK_KEYS)}; it has {', '.join(archive) or 'none'}")
            points = archive[key]
    # Of what is damaged the archive, its compression or an array's header may be the first to stumble.
    except (OSError, ValueError, EOFError, NotImplementedError, zipfile.BadZipFile, zlib.error) as error:
        raise BrokenMediaError(f"landmark file {path.name}: {error}") from error
    if not (np.issubdtype(points.dtype, np.floating) or np.issubdtype(points.dtype, np.integer)):
        raise BrokenMediaError(f"landmark file {path.name}: {points.dtype}, expected floating-point numbers")
    if points.ndim != 3 or points.shape[1:] != (68, 2):
        raise BrokenMediaError(f"landmark file {path.name}: shape {points.shape}, expected (frames, 68, 2)")
    return points.astype(np.float32)
