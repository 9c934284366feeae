"""What a record holds: a face frame, its renders, an aligned pair of clips, a controlled comparison of two frames.

A field's metadata says how it is stored, once: encoding, decoding and the TFDS description all follow from it.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any, ClassVar, Literal, TypeAlias, TypeVar

import numpy as np
from jaxtyping import Float32, Int64

from asccl_jax.data.records import Values, decode_example, encode_example
from asccl_jax.errors import InputError

__all__ = [
    "COMPARISON_CONDITIONS",
    "EMOTIONS",
    "RECORD_TYPES",
    "SCHEMA_VERSION",
    "UNLABELLED",
    "ClipPairRecord",
    "ComparisonRecord",
    "Feature",
    "FrameRecord",
    "Kind",
    "Record",
    "RenderRecord",
]

SCHEMA_VERSION = 1
"""Raised when a reader of the old records would misread new ones."""

EMOTIONS = ("neutral", "angry", "disgusted", "fear", "happy", "sad", "surprised")
"""Emotion names in the order of their class labels."""

UNLABELLED = "unlabelled"
"""In the place of an emotion, where nobody has said which it is; no pair and no comparison has it."""

Kind: TypeAlias = Literal["frames", "renders", "pairs", "comparisons"]
"""What the records of a shard are; `RECORD_TYPES` names the class of each."""

COMPARISON_CONDITIONS = (
    "matched",
    "other_speech",
    "small_speech_change",
    "neutral_same_speech",
    "neutral_other_speech",
    "brow_only",
    "other_identity_same_speech",
    "other_identity_other_speech",
)
"""How the key frame of a comparison differs from its query frame."""


@dataclasses.dataclass(frozen=True)
class Feature:
    """How one field is stored.

    Attributes:
      kind: "image" (a JPEG file), "png" (a PNG file), "text" (UTF-8), "float" (float32) or "int" (int64).
      shape: Shape of the numbers; () is one value, None an axis of any length. Of a picture: height, width and
        channels, () where the manifest's `image_size` says it.
    """

    kind: Literal["image", "png", "text", "float", "int"]
    shape: tuple[int | None, ...] = ()


def _stored(kind: Literal["image", "png", "text", "float", "int"], *shape: int | None) -> dict[str, Feature]:
    return {"feature": Feature(kind, shape)}


_RecordType = TypeVar("_RecordType", bound="Record")


class Record:
    """A dataclass whose fields are all `Feature`s."""

    NAME: ClassVar[str]

    @classmethod
    def features(cls) -> dict[str, Feature]:
        """Returns how each field is stored, by name."""
        return _features_of(cls)  # type: ignore[arg-type]  # mypy doubts that a class is hashable

    def encode(self) -> bytes:
        """Returns the record as a `tf.train.Example`.

        Raises:
          InputError: A field's type or shape is not the schema's.
        """
        values = {}
        for name, feature in self.features().items():
            value = getattr(self, name)
            if feature.kind in ("float", "int"):
                value = np.asarray(value, np.float32 if feature.kind == "float" else None)
                integers = np.issubdtype(value.dtype, np.integer)
                if not _fits(value.shape, feature.shape) or (feature.kind == "int" and not integers):
                    found = f"{value.dtype} of shape {value.shape}"
                    raise InputError(f"{self.NAME} record, field {name!r}: {found}, expected {feature}")
            values[name] = value
        return encode_example(values)

    @classmethod
    def decode(cls: type[_RecordType], data: bytes) -> _RecordType:
        """Returns the record stored in a `tf.train.Example`.

        Raises:
          InputError: `data` is no such message, lacks a field, or a field has another type or shape.
        """
        values = decode_example(data)
        return cls(**{name: _restore(cls, name, values) for name in cls.features()})

    @classmethod
    def decode_field(cls, data: bytes, name: str) -> Any:
        """Returns one field of the record stored in a `tf.train.Example`; cheaper than all of them.

        Raises:
          InputError: As for `decode`.
        """
        return _restore(cls, name, decode_example(data, only=name))


@functools.cache
def _features_of(record: type) -> dict[str, Feature]:
    return {field.name: field.metadata["feature"] for field in dataclasses.fields(record)}


def _fits(shape: tuple[int, ...], expected: tuple[int | None, ...]) -> bool:
    return len(shape) == len(expected) and all(b in (None, a) for a, b in zip(shape, expected, strict=True))


def _restore(record: type[Record], name: str, values: Mapping[str, Values]) -> Any:
    if name not in values:
        raise InputError(f"{record.NAME} record without {name!r}; it has {', '.join(values) or 'nothing of it'}")
    feature, value = record.features()[name], values[name]
    try:
        if feature.kind in ("image", "png", "text"):
            (content,) = value
            if not isinstance(content, bytes):
                raise ValueError("numbers where text was expected")
            return content.decode() if feature.kind == "text" else content
        if not isinstance(value, np.ndarray) or value.dtype != (np.float32 if feature.kind == "float" else np.int64):
            raise ValueError(f"expected {feature.kind}s")
        return (
            value.reshape([-1 if size is None else size for size in feature.shape]) if feature.shape else value.item()
        )
    except ValueError as error:
        raise InputError(f"{record.NAME} record, field {name!r}: {error}") from error


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class FrameRecord(Record):
    """One cropped face.

    Attributes:
      image: JPEG file, RGB, square, of the data set's one image size.
      speaker: Whose face.
      emotion: One of `EMOTIONS`, or `UNLABELLED`.
      sentence: What is said: equal for two clips of a speaker exactly if they say the same words.
      clip: Clip the frame belongs to, "SPEAKER/EMOTION/SENTENCE" or with "/TAKE".
      frame: 0-based position in the source video; dropped frames leave gaps.
      time_s: Presentation time in the source video.
      landmarks: 68 facial landmarks (x, y) in pixels of the stored image, pixel centres at integers.
      crop_box: Part of the source frame shown (x0, y0, x1, y1) in its pixels; x1 and y1 lie just outside.
    """

    NAME: ClassVar[str] = "frame"

    image: bytes = dataclasses.field(metadata=_stored("image"))
    speaker: str = dataclasses.field(metadata=_stored("text"))
    emotion: str = dataclasses.field(metadata=_stored("text"))
    sentence: str = dataclasses.field(metadata=_stored("text"))
    clip: str = dataclasses.field(metadata=_stored("text"))
    frame: int = dataclasses.field(metadata=_stored("int"))
    time_s: float = dataclasses.field(metadata=_stored("float"))
    landmarks: Float32[np.ndarray, "68 2"] = dataclasses.field(metadata=_stored("float", 68, 2))
    crop_box: Float32[np.ndarray, "4"] = dataclasses.field(metadata=_stored("float", 4))


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class RenderRecord(Record):
    """What was reconstructed of one frame: its code dict and the conditioning pictures drawn of it.

    In a data set of `DECA_torch_bridge`, record i of a split's renders belongs to record i of its frames, and every
    frame of the source has one. Pictures "of the crop" are 224 pixels wide and cover what the frame's own image
    does; "aligned" ones are 256 pixels wide, and the mean face of the alignment's template is upright in them.

    Attributes:
      clip: Clip the frame belongs to.
      frame: 0-based position in the source video.
      flags: Bits: 1 no face was found and what is drawn is interpolated, 2 some landmarks were not found, 4 a poor
        fit, 8 the picture could not be read. 0 is a frame to trust.
      nmfc_image: Normalised mean face coordinates, of the crop.
      shape_image: The coarse surface in grey, of the crop.
      detail_image: The surface with wrinkles, of the crop; empty without a detail decoder.
      alpha_image: White where the head is, of the crop.
      aligned_image: The source frame, aligned; a JPEG file.
      aligned_nmfc_image: As `nmfc_image`, aligned; likewise the following three.
      aligned_shape_image: See above.
      aligned_detail_image: See above.
      aligned_alpha_image: See above.
      aligned_landmarks: 68 facial landmarks (x, y) in pixels of the aligned picture, pixel centres at integers.
      crop_transform: Homogeneous matrix from pixels of the source frame to those of the crop: the code dict's `tform`.
      align_transform: Matrix from pixels of the source frame to those of the aligned picture.
      shape: Identity coefficients.
      exp: Expression coefficients.
      pose: Axis-angle rotations of head and jaw, radians.
      cam: Scale, tx, ty of the camera that looks at the crop.
      tex: Texture coefficients; empty where none were estimated.
      light: Nine spherical harmonics for red, green and blue, row by row; empty where none were estimated.
      detail: Code of the detail decoder; empty where there is none.
    """

    NAME: ClassVar[str] = "render"

    clip: str = dataclasses.field(metadata=_stored("text"))
    frame: int = dataclasses.field(metadata=_stored("int"))
    flags: int = dataclasses.field(metadata=_stored("int"))
    nmfc_image: bytes = dataclasses.field(metadata=_stored("png", 224, 224, 3))
    shape_image: bytes = dataclasses.field(metadata=_stored("png", 224, 224, 3))
    detail_image: bytes = dataclasses.field(metadata=_stored("png", 224, 224, 3))
    alpha_image: bytes = dataclasses.field(metadata=_stored("png", 224, 224, 1))
    aligned_image: bytes = dataclasses.field(metadata=_stored("image", 256, 256, 3))
    aligned_nmfc_image: bytes = dataclasses.field(metadata=_stored("png", 256, 256, 3))
    aligned_shape_image: bytes = dataclasses.field(metadata=_stored("png", 256, 256, 3))
    aligned_detail_image: bytes = dataclasses.field(metadata=_stored("png", 256, 256, 3))
    aligned_alpha_image: bytes = dataclasses.field(metadata=_stored("png", 256, 256, 1))
    aligned_landmarks: Float32[np.ndarray, "68 2"] = dataclasses.field(metadata=_stored("float", 68, 2))
    crop_transform: Float32[np.ndarray, "3 3"] = dataclasses.field(metadata=_stored("float", 3, 3))
    align_transform: Float32[np.ndarray, "2 3"] = dataclasses.field(metadata=_stored("float", 2, 3))
    shape: Float32[np.ndarray, " s"] = dataclasses.field(metadata=_stored("float", None))
    exp: Float32[np.ndarray, " e"] = dataclasses.field(metadata=_stored("float", None))
    pose: Float32[np.ndarray, "6"] = dataclasses.field(metadata=_stored("float", 6))
    cam: Float32[np.ndarray, "3"] = dataclasses.field(metadata=_stored("float", 3))
    tex: Float32[np.ndarray, " k"] = dataclasses.field(metadata=_stored("float", None))
    light: Float32[np.ndarray, " l"] = dataclasses.field(metadata=_stored("float", None))
    detail: Float32[np.ndarray, " d"] = dataclasses.field(metadata=_stored("float", None))

    def absent(self) -> frozenset[str]:
        """Returns the pictures that were not drawn."""
        features = self.features().items()
        return frozenset(name for name, feature in features if feature.kind == "png" and not getattr(self, name))


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class ClipPairRecord(Record):
    """Two clips of one speaker saying one sentence, frame aligned with frame.

    Entry k of the path says that the mouth does in `query_frame[k]` what it does in `key_frame[k]`. Both never go
    back; a frame may repeat while the other clip moves on.

    Attributes:
      query_clip: Neutral clip.
      key_clip: Clip in another emotion.
      speaker: Whose clips.
      sentence: What both say.
      query_emotion: Emotion of the query clip.
      key_emotion: Emotion of the key clip.
      query_frame: 0-based positions in the query clip's source video.
      key_frame: Likewise for the key clip.
      cost: Mean cost of the alignment along the path; comparable within a data set only.
    """

    NAME: ClassVar[str] = "clip pair"

    query_clip: str = dataclasses.field(metadata=_stored("text"))
    key_clip: str = dataclasses.field(metadata=_stored("text"))
    speaker: str = dataclasses.field(metadata=_stored("text"))
    sentence: str = dataclasses.field(metadata=_stored("text"))
    query_emotion: str = dataclasses.field(metadata=_stored("text"))
    key_emotion: str = dataclasses.field(metadata=_stored("text"))
    query_frame: Int64[np.ndarray, " n"] = dataclasses.field(metadata=_stored("int", None))
    key_frame: Int64[np.ndarray, " n"] = dataclasses.field(metadata=_stored("int", None))
    cost: float = dataclasses.field(metadata=_stored("float"))


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class ComparisonRecord(Record):
    """Two frames that differ in a known way, for evaluation.

    Attributes:
      group: Comparisons of one group share their query frame, so that a ratio of their losses means something.
      condition: One of `COMPARISON_CONDITIONS`.
      query_clip: Clip of the query frame.
      query_frame: Its position in that clip.
      key_clip: Clip of the key frame.
      key_frame: Its position in that clip.
      speaker: Whose face the query shows.
      emotion: The emotion compared with neutral.
      speech_distance: How far apart the two mouths are; 0 for equal speech.
    """

    NAME: ClassVar[str] = "comparison"

    group: int = dataclasses.field(metadata=_stored("int"))
    condition: str = dataclasses.field(metadata=_stored("text"))
    query_clip: str = dataclasses.field(metadata=_stored("text"))
    query_frame: int = dataclasses.field(metadata=_stored("int"))
    key_clip: str = dataclasses.field(metadata=_stored("text"))
    key_frame: int = dataclasses.field(metadata=_stored("int"))
    speaker: str = dataclasses.field(metadata=_stored("text"))
    emotion: str = dataclasses.field(metadata=_stored("text"))
    speech_distance: float = dataclasses.field(metadata=_stored("float"))


RECORD_TYPES: Mapping[Kind, type[Record]] = {
    "frames": FrameRecord,
    "renders": RenderRecord,
    "pairs": ClipPairRecord,
    "comparisons": ComparisonRecord,
}
