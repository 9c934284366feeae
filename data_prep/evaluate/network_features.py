"""What the networks that score faces say of pictures and sound, each fed exactly as the published evaluation feeds it.

All take any number of pictures, one at a time, and hold a batch of them: an iterator will do. The last batch is filled
up, so that there is one compiled program a network and what it says of a picture does not hang on the others.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Float32, Real, UInt8
from PIL import Image

from asccl_jax.errors import InputError
from asccl_jax.image.warping import similarity, warp_linear
from asccl_jax.models.face_networks import CEPSTRA, FRAMES, LIP_SIZE, SOUND_STEPS
from asccl_jax.types import Variables
from asccl_jax.weights import FaceModule, FaceNetwork, missing_face_network
from data_prep.evaluate.lip_sync import face_boxes

__all__ = [
    "CROP_SIDE",
    "ClipCrop",
    "aligned_to_template",
    "arcface_features",
    "clip_crop",
    "efficient_face_outputs",
    "five_points",
    "grey_crop",
    "resnet_face_features",
    "rgb_crop",
    "syncnet_audio_features",
    "syncnet_lip_features",
]

Picture: TypeAlias = UInt8[np.ndarray, "h w 3"]
Forward: TypeAlias = Callable[[FaceModule, Variables, Array], tuple[Array, ...]]

_GREY_SHORTER_SIDE = 164
_RGB_SHORTER_SIDE, _RGB_SIDE = 256, 224
_RGB_MEAN = np.array([0.57535914, 0.44928582, 0.40079932], np.float32)
_RGB_DEVIATION = np.array([0.20735591, 0.18981615, 0.18132027], np.float32)

_TEMPLATE = np.array(
    [[38.2946, 51.6963], [73.5318, 51.5014], [56.0252, 71.7366], [41.5493, 92.3655], [70.7299, 92.2041]]
)
_TEMPLATE_SIDE = 112
"""ArcFace's places of both eyes, the tip of the nose and both corners of the mouth, in a picture of this side."""


def resnet_face_features(
    network: FaceNetwork, images: Iterable[Picture], *, batch_size: int = 32
) -> Float32[np.ndarray, "n d"]:
    """Returns embeddings of faces whose Fréchet distance the published tables give, not normalised.

    Args:
      network: ResNetFace-18.
      images: Faces, RGB; `grey_crop` is applied.
      batch_size: Pictures in one pass.

    Raises:
      InputError: Another network, or no picture.
    """
    module = _expect(network, "resnet-face")
    crops = (grey_crop(image, module.image_size) for image in images)
    return _features(network, _of_centred, crops, batch_size)[0]


def efficient_face_outputs(
    network: FaceNetwork, images: Iterable[Picture], *, batch_size: int = 32
) -> tuple[Float32[np.ndarray, "n d"], Float32[np.ndarray, "n k"]]:
    """Returns features of expressions and the probabilities of emotions, in the order of `EMOTIONS_OF_CLASSES`.

    Args:
      network: EfficientFace.
      images: Faces, RGB; `rgb_crop` is applied.
      batch_size: Pictures in one pass.

    Raises:
      InputError: Another network, or no picture.
    """
    module = _expect(network, "efficient-face")
    crops = (rgb_crop(image, module.image_size) for image in images)
    features, probabilities = _features(network, _efficient_face, crops, batch_size)
    return features, probabilities


def arcface_features(
    network: FaceNetwork,
    images: Iterable[Picture],
    landmarks: Iterable[Real[np.ndarray, "68 2"]],
    *,
    batch_size: int = 32,
) -> Float32[np.ndarray, "n d"]:
    """Returns embeddings of identities, not of unit length.

    Args:
      network: ArcFace.
      images: Pictures with a face, RGB.
      landmarks: Of each face, (x, y) in pixels of its picture; `aligned_to_template` is applied.
      batch_size: Pictures in one pass.

    Raises:
      InputError: Another network, no picture, landmarks no face has, or not as many as pictures.
    """
    module = _expect(network, "arcface")
    faces = (aligned_to_template(image, points, module.image_size) for image, points in _paired(images, landmarks))
    return _features(network, _of_centred, faces, batch_size)[0]


def syncnet_lip_features(
    network: FaceNetwork, windows: Iterable[Real[np.ndarray, "5 224 224 3"]], *, batch_size: int = 16
) -> Float32[np.ndarray, "n d"]:
    """Returns embeddings of windows of five frames.

    Args:
      network: SyncNet.
      windows: Frames, BGR, 0..255, uint8 or real; a strided view of overlapping windows costs nothing.
      batch_size: Windows in one pass.

    Raises:
      InputError: Another network, or no window, or windows of another shape.
    """
    _expect(network, "syncnet")
    shape = (FRAMES, LIP_SIZE, LIP_SIZE, 3)
    return _features(network, _syncnet_lip, (_shaped(window, shape) for window in windows), batch_size)[0]


def syncnet_audio_features(
    network: FaceNetwork, windows: Iterable[Real[np.ndarray, "20 13"]], *, batch_size: int = 64
) -> Float32[np.ndarray, "n d"]:
    """Returns embeddings of windows of sound.

    Args:
      network: SyncNet.
      windows: Columns of cepstral coefficients, one a row.
      batch_size: Windows in one pass.

    Raises:
      InputError: Another network, or no window, or windows of another shape.
    """
    _expect(network, "syncnet")
    shape = (SOUND_STEPS, CEPSTRA)
    return _features(network, _syncnet_audio, (_shaped(window, shape) for window in windows), batch_size)[0]


def grey_crop(image: Picture, side: int = 128) -> UInt8[np.ndarray, "s s 1"]:
    """Returns what ResNetFace-18 sees: grey by Pillow, the shorter side 164 (bilinear), the middle 128 x 128.

    Args:
      image: A face, RGB.
      side: Of the crop.
    """
    return _middle(Image.fromarray(image).convert("L"), _GREY_SHORTER_SIDE, side)[..., None]


def rgb_crop(image: Picture, side: int = _RGB_SIDE) -> UInt8[np.ndarray, "s s 3"]:
    """Returns what EfficientFace sees: the shorter side 256 (bilinear, by Pillow), the middle 224 x 224.

    Args:
      image: A face, RGB.
      side: Of the crop.
    """
    return _middle(Image.fromarray(image), _RGB_SHORTER_SIDE, side)


def five_points(landmarks: Real[np.ndarray, "68 2"]) -> Float[np.ndarray, "5 2"]:
    """Returns eyes, tip of the nose and corners of the mouth of 68 landmarks, image left first."""
    points = landmarks.astype(np.float64)
    return np.stack([points[36:42].mean(axis=0), points[42:48].mean(axis=0), points[30], points[48], points[54]])


def aligned_to_template(
    image: Picture, landmarks: Real[np.ndarray, "68 2"], side: int = _TEMPLATE_SIDE
) -> UInt8[np.ndarray, "s s 3"]:
    """Returns what ArcFace sees: 112 x 112, five points brought to its template by a similarity, black outside.

    Args:
      image: A picture with a face, RGB.
      landmarks: Of the face, (x, y) in pixels.
      side: Of the result; the template grows with it.

    Raises:
      InputError: The landmarks are not finite, or all in one place.
    """
    if not np.isfinite(landmarks).all():
        raise InputError("landmarks that are not finite: no face can be aligned by them")
    # Centres of pixels are at integers: those of another side are scaled about the picture's corner.
    template = (_TEMPLATE + 0.5) * (side / _TEMPLATE_SIDE) - 0.5
    matrix = similarity(five_points(landmarks), template)[:2]
    if not np.isfinite(matrix).all() or np.linalg.det(matrix[:, :2]) <= 0:
        raise InputError("landmarks all in one place: no face can be aligned by them")
    return warp_linear(image, matrix, (side, side))


def _of_centred(module: FaceModule, variables: Variables, batch: Array) -> tuple[Array, ...]:
    return (_applied(module, variables, (batch.astype(jnp.float32) / 255 - 0.5) / 0.5),)


def _efficient_face(module: FaceModule, variables: Variables, batch: Array) -> tuple[Array, ...]:
    mean, deviation = (jnp.asarray(values)[None, None, None] for values in (_RGB_MEAN, _RGB_DEVIATION))
    features, logits = _applied(module, variables, (batch.astype(jnp.float32) / 255 - mean) / deviation)
    return features, jax.nn.softmax(logits)


def _syncnet_lip(module: FaceModule, variables: Variables, batch: Array) -> tuple[Array, ...]:
    return (_applied(module, variables, batch.astype(jnp.float32), method="lip"),)


def _syncnet_audio(module: FaceModule, variables: Variables, batch: Array) -> tuple[Array, ...]:
    return (_applied(module, variables, batch.astype(jnp.float32), method="audio"),)


def _applied(module: FaceModule, variables: Variables, inputs: Array, *, method: str | None = None) -> Any:
    return module.apply(variables, inputs, method=method)


@functools.partial(jax.jit, static_argnums=(0, 1))
def _run(forward: Forward, module: FaceModule, variables: Variables, batch: Array) -> tuple[Array, ...]:
    # GPUs would else round what goes into products to ten bits, and scores of one clip would hang on the machine.
    with jax.default_matmul_precision("float32"):
        return forward(module, variables, batch)


def _features(
    network: FaceNetwork, forward: Forward, items: Iterable[np.ndarray], batch_size: int
) -> list[Float32[np.ndarray, "n _"]]:
    """Every output of a network for every item, one a row."""
    module = network.module
    rows = [
        [np.asarray(values)[:count] for values in _run(forward, module, network.variables, batch)]
        for batch, count in _batches(items, batch_size)
    ]
    if not rows:
        raise InputError(f"{network.name}: no pictures or sound were given, nothing to say of them")
    return [np.concatenate(values) for values in zip(*rows, strict=True)]


def _batches(items: Iterable[np.ndarray], size: int) -> Iterator[tuple[np.ndarray, int]]:
    """Yields arrays of `size` items, the last one filled up with zeros, and how many of them are real."""
    gathered: list[np.ndarray] = []
    for item in items:
        gathered.append(item)
        if len(gathered) == size:
            yield np.stack(gathered), size
            gathered = []
    if gathered:
        missing = [np.zeros_like(gathered[0])] * (size - len(gathered))
        yield np.stack(gathered + missing), len(gathered)


def _expect(network: FaceNetwork, name: str) -> Any:
    if network.name != name:
        raise InputError(f"network {network.name}: expected {name}; {missing_face_network(name)}")
    return network.module


def _paired(images: Iterable[np.ndarray], landmarks: Iterable[np.ndarray]) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    try:
        yield from zip(images, landmarks, strict=True)
    except ValueError as error:
        raise InputError(f"pictures and landmarks: expected as many of the one as of the other ({error})") from error


def _middle(picture: Image.Image, shorter: int, side: int) -> np.ndarray:
    """A picture whose shorter side was brought to a size, and of that the square in the middle."""
    width, height = picture.size
    scaled = (shorter, shorter * height // width) if width <= height else (shorter * width // height, shorter)
    array = np.asarray(picture.resize(scaled, Image.Resampling.BILINEAR))
    top, left = (round((length - side) / 2) for length in array.shape[:2])
    return array[top : top + side, left : left + side]


def _shaped(window: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    if window.shape != shape:
        raise InputError(f"window of shape {window.shape}: expected {shape}")
    return window


# The face of a clip, cut out of whole frames as the published pipeline cuts it: one square for the whole clip.

CROP_SIDE = 256

_MARGIN = 70 / (256 - 70)
"""Of the published crops: 70 of 256 pixels are margin."""


@dataclasses.dataclass(frozen=True)
class ClipCrop:
    """A square of a clip's frames.

    Attributes:
      left: Its left border, pixels.
      top: Its upper border.
      side: Its side.
    """

    left: int
    top: int
    side: int

    def image(self, frame: UInt8[np.ndarray, "h w 3"]) -> UInt8[np.ndarray, "256 256 3"]:
        """Returns the square of a frame, black outside the frame, at 256 pixels."""
        box = (self.left, self.top, self.left + self.side, self.top + self.side)
        resized = Image.fromarray(frame).crop(box).resize((CROP_SIDE, CROP_SIDE), Image.Resampling.BILINEAR)
        return np.asarray(resized)

    def points(self, landmarks: Float32[np.ndarray, "t 68 2"]) -> Float32[np.ndarray, "t 68 2"]:
        """Returns landmarks in pixels of the square."""
        corner = np.array([self.left, self.top], np.float32)
        return ((landmarks - corner + 0.5) * np.float32(CROP_SIDE / self.side) - 0.5).astype(np.float32)


def clip_crop(landmarks: Float32[np.ndarray, "t 68 2"]) -> ClipCrop | None:
    """Returns the square around the median of the face's boxes, or None for a clip without a face.

    Upstream: NED's detect.py smooths a square per frame; one for all frames leaves the head's own movement as it is.
    """
    known = np.isfinite(landmarks).all(axis=(1, 2))
    if not known.any():
        return None
    left, top, right, bottom = np.median(face_boxes(landmarks[known]), axis=0)
    height = bottom - top
    side = max(2, round(height * (1 + _MARGIN)))
    middle_x, middle_y = (left + right) / 2, (top + bottom) / 2
    return ClipCrop(round(middle_x - side / 2), round(middle_y - side / 2), side)
