"""Where a clip's results go, frame by frame: records in the work folder, or files of the published layout."""

from __future__ import annotations

import contextlib
import dataclasses
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self

import numpy as np
from jaxtyping import Float, Int

from asccl_jax.data.codes import CodeDict
from asccl_jax.data.records import RecordWriter
from asccl_jax.data.schema import FrameRecord, RenderRecord
from asccl_jax.image.warping import inverse_affine, joined, moved
from asccl_jax.work import write_atomically
from data_prep.head_fit.published_codes import write_published_codes
from data_prep.media.crop import encode_jpeg
from data_prep.reconstruct.clip_inputs import InputClip
from data_prep.reconstruct.drawing import ALIGNED_SIZE, Drawn, encode_png, warped
from data_prep.reconstruct.folders import CROP_SIZE, box_matrices, eye_rows, face_boxes, frame_path
from data_prep.reconstruct.sources import SourceFrame
from data_prep.reconstruct.track_step import Track

__all__ = ["DrawnFrames", "FolderSink", "RecordSink", "Sink"]


@dataclasses.dataclass(frozen=True, eq=False)
class DrawnFrames:
    """Some frames of a clip with all that was made of them.

    Attributes:
      frames: Of the source.
      codes: Their code dict.
      flags: Bits per frame.
      landmarks: In pixels of the source; interpolated where no face was found.
      align: From pixels of the source to those of the aligned picture.
      crop: Pictures in the sink's own crop.
      aligned: Pictures in aligned coordinates.
    """

    frames: list[SourceFrame]
    codes: CodeDict
    flags: Int[np.ndarray, " t"]
    landmarks: Float[np.ndarray, "t 68 2"]
    align: Float[np.ndarray, "t 2 3"]
    crop: Drawn
    aligned: Drawn


class Sink(Protocol):
    """Takes the frames of a clip in order; a context manager."""

    crop_size: int

    def crop_matrices(self, codes: CodeDict, landmarks: Float[np.ndarray, "t 68 2"]) -> Float[np.ndarray, "t 2 3"]:
        """Returns the matrices from pixels of the source to those of this sink's crop, for the whole clip."""

    def __enter__(self) -> Self:
        """Opens what is to be written."""

    def write(self, drawn: DrawnFrames) -> None:
        """Writes some frames."""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Ends."""


class RecordSink:
    """Writes `FrameRecord`s of the 224-pixel crops and, for each, a `RenderRecord`.

    Args:
      item: The clip.
      frames: File of the frame records.
      renders: File of the render records.
    """

    crop_size = 224

    def __init__(self, item: InputClip, frames: Path, renders: Path) -> None:
        self._clip = item.clip
        self._frames, self._renders = RecordWriter(frames), RecordWriter(renders)
        self._stack = contextlib.ExitStack()

    def crop_matrices(self, codes: CodeDict, landmarks: Float[np.ndarray, "t 68 2"]) -> Float[np.ndarray, "t 2 3"]:
        """See `Sink`."""
        del landmarks
        assert codes.tform is not None
        return codes.tform[:, :2].astype(np.float64)

    def __enter__(self) -> Self:
        """Opens both files."""
        self._stack.enter_context(self._frames)
        self._stack.enter_context(self._renders)
        return self

    def write(self, drawn: DrawnFrames) -> None:
        """See `Sink`."""
        for row, frame in enumerate(drawn.frames):
            self._frames.write(self._frame_record(drawn, row, frame).encode())
            self._renders.write(self._render_record(drawn, row, frame).encode())

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Gives the files their names, or discards them after an error."""
        self._stack.__exit__(kind, error, trace)

    def _frame_record(self, drawn: DrawnFrames, row: int, frame: SourceFrame) -> FrameRecord:
        assert drawn.codes.tform is not None
        tform = drawn.codes.tform[row, :2].astype(np.float64)
        borders = np.array([[-0.5, -0.5], [self.crop_size - 0.5, self.crop_size - 0.5]])
        back = inverse_affine(tform)
        box = borders @ back[:, :2].T + back[:, 2] + 0.5
        return FrameRecord(
            image=encode_jpeg(warped(frame.image, frame.placement, tform, self.crop_size)),
            speaker=self._clip.speaker,
            emotion=self._clip.emotion,
            sentence=self._clip.sentence,
            clip=self._clip.clip_id,
            frame=frame.index,
            time_s=frame.time_s,
            landmarks=(drawn.landmarks[row] @ tform[:, :2].T + tform[:, 2]).astype(np.float32),
            crop_box=box.ravel().astype(np.float32),
        )

    def _render_record(self, drawn: DrawnFrames, row: int, frame: SourceFrame) -> RenderRecord:
        codes, align = drawn.codes, drawn.align[row]
        assert codes.tform is not None
        none = np.zeros(0, np.float32)
        crop, aligned = (_pngs(pictures, row) for pictures in (drawn.crop, drawn.aligned))
        return RenderRecord(
            clip=self._clip.clip_id,
            frame=frame.index,
            flags=int(drawn.flags[row]),
            nmfc_image=crop["nmfc"],
            shape_image=crop["shape"],
            detail_image=crop["detail"],
            alpha_image=crop["alpha"],
            aligned_image=encode_jpeg(warped(frame.image, frame.placement, align, ALIGNED_SIZE, sharp=True)),
            aligned_nmfc_image=aligned["nmfc"],
            aligned_shape_image=aligned["shape"],
            aligned_detail_image=aligned["detail"],
            aligned_alpha_image=aligned["alpha"],
            aligned_landmarks=moved(drawn.landmarks[row], align).astype(np.float32),
            crop_transform=codes.tform[row].astype(np.float32),
            align_transform=align.astype(np.float32),
            shape=codes.shape[row],
            exp=codes.exp[row],
            pose=codes.pose[row],
            cam=codes.cam[row],
            tex=none if codes.tex is None else codes.tex[row],
            light=none if codes.light is None else codes.light[row].ravel(),
            detail=none if codes.detail is None else codes.detail[row],
        )


class FolderSink:
    """Writes files of the published layout.

    Args:
      item: The clip.
      track: Its frames.
      folder: The subject's folder.
      first: Number of the clip's first frame within the subject.
      train: Sub-folders of 50 frames, and mouths in the eye files.
    """

    crop_size = CROP_SIZE

    def __init__(self, item: InputClip, track: Track, folder: Path, *, first: int, train: bool) -> None:
        self._item, self._track, self._folder = item, track, folder
        self._next, self._train = first, train
        self._boxes = np.zeros((0, 4), int)
        self._matrices = np.zeros((0, 2, 3))
        self._written = 0

    def crop_matrices(self, codes: CodeDict, landmarks: Float[np.ndarray, "t 68 2"]) -> Float[np.ndarray, "t 2 3"]:
        """See `Sink`; where the source's size is not known its crops may reach beyond it."""
        del codes
        far = int(np.ceil(landmarks.max())) * 4 + 1
        self._boxes = face_boxes(landmarks, self._track.size if self._track.size[0] else (far, far))
        self._matrices = box_matrices(self._boxes)
        return self._matrices

    def __enter__(self) -> Self:
        """Makes the subject's folder."""
        self._folder.mkdir(parents=True, exist_ok=True)
        return self

    def write(self, drawn: DrawnFrames) -> None:
        """See `Sink`."""
        count = len(drawn.frames)
        matrices = self._matrices[self._written : self._written + count]
        numbers = np.arange(self._next, self._next + count)
        for row, frame in enumerate(drawn.frames):
            self._write_frame(drawn, row, frame, int(numbers[row]), matrices[row])
        assert drawn.codes.tform is not None
        bottom = np.broadcast_to(np.array([0.0, 0.0, 1.0]), (count, 1, 3))
        whole = np.concatenate([matrices, bottom], axis=1)
        codes = dataclasses.replace(
            drawn.codes,
            frame_index=numbers,
            tform=drawn.codes.tform @ np.linalg.inv(whole),
            original_size=(CROP_SIZE, CROP_SIZE),
        )
        for row in range(count):
            path = self._path("DECA", int(numbers[row]), ".pkl")
            write_published_codes(path.parent, codes[row : row + 1])
        self._next += count
        self._written += count

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Writes the boxes of the clip, unless something went wrong."""
        if kind is not None or not self._written:
            return
        track = self._track
        lines = [f"{self._item.clip.video.name} {track.fps:g} fps {self._written} frames"]
        lines += [" ".join(map(str, box)) for box in self._boxes.tolist()]
        path = self._folder / "videos" / f"{self._item.clip.file_name}.txt"
        path.parent.mkdir(exist_ok=True)
        write_atomically(path, "\n".join(lines) + "\n")

    def _write_frame(
        self, drawn: DrawnFrames, row: int, frame: SourceFrame, number: int, matrix: Float[np.ndarray, "2 3"]
    ) -> None:
        image = warped(frame.image, frame.placement, matrix, CROP_SIZE)
        points = moved(drawn.landmarks[row], matrix)
        align = joined(drawn.align[row], inverse_affine(matrix))
        eyes = eye_rows(image, points, mouth=self._train)
        pictures = {"images": image}
        if not self._train and frame.image is not None and frame.placement is None:
            pictures["full_frames"] = frame.image
        for drawing, ending in ((drawn.crop, ""), (drawn.aligned, "_aligned")):
            pictures[f"nmfcs{ending}"] = drawing.nmfc[row]
            pictures[f"shapes{ending}"] = (drawing.shape if drawing.detail is None else drawing.detail)[row]
        for kind, picture in pictures.items():
            self._path(kind, number, ".png").write_bytes(encode_png(picture))
        texts = {
            "align_transforms": align,
            "eye_landmarks": eyes,
            "eye_landmarks_aligned": eyes @ align[:, :2].T + align[:, 2],
        }
        for kind, values in texts.items():
            np.savetxt(self._path(kind, number, ".txt"), values)

    def _path(self, kind: str, number: int, suffix: str) -> Path:
        path = frame_path(self._folder, kind, number, suffix, sequences=self._train)
        path.parent.mkdir(parents=True, exist_ok=True)
        return path


def _pngs(drawn: Drawn, row: int) -> dict[str, bytes]:
    return {
        "nmfc": encode_png(drawn.nmfc[row]),
        "shape": encode_png(drawn.shape[row]),
        "detail": b"" if drawn.detail is None else encode_png(drawn.detail[row]),
        "alpha": encode_png(drawn.alpha[row]),
    }
