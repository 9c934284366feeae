"""A small network that reads the mouth's landmarks off a face, so that a generated mouth can be measured in pixels.

It is trained on the training frames of the very people it measures, whose landmarks are known, and is never better
than its own error on frames it has not seen; whoever quotes a distance quotes that error with it.
"""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any, no_type_check

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import linen as nn
from flax import struct
from jaxtyping import Array, Float, Float32, UInt8

from asccl_jax.errors import InputError
from asccl_jax.types import Variables
from asccl_jax.work import atomic_file

__all__ = ["BATCH", "MOUTH", "LandmarkProbe", "load_probe", "save_probe", "train_probe"]

MOUTH = slice(48, 68)
"""The landmarks that are read, of 68. Those of the jaw lie on the edge of the mask, which is given, not generated."""

_POINTS = 20
_ROWS, _COLUMNS = (0.50, 0.95), (0.22, 0.76)
"""Part of an aligned picture that is looked at, as fractions of its side; mouths lie well inside."""

_WIDTHS = (16, 32, 48)
_HIDDEN = 96
_BATCH = 32
_LEARNING_RATE = 2e-3
_SHIFT = 0.05
_FORMAT = 1
BATCH = 64
"""Pictures looked at in one go; fewer cost as much."""


class _Network(nn.Module):
    @nn.compact
    def __call__(self, x: Float[Array, "n h w 3"]) -> Float[Array, "n points 2"]:
        for width in _WIDTHS:
            x = nn.relu(nn.Conv(width, (3, 3), (2, 2))(x))
        x = nn.relu(nn.Dense(_HIDDEN)(x.reshape(x.shape[0], -1)))
        return nn.Dense(2 * _POINTS)(x).reshape(-1, _POINTS, 2)


@no_type_check  # a tree map puts shapes where arrays were
@struct.dataclass
class LandmarkProbe:
    """A trained network.

    Attributes:
      params: Weights.
      mean: Mean landmarks of the training frames, as fractions of the picture's side.
      image_size: Side of the pictures it reads, in pixels.
    """

    params: Variables
    mean: Float[Array | np.ndarray, "points 2"]
    image_size: int = struct.field(pytree_node=False)

    def locate(self, images: UInt8[np.ndarray, "n s s 3"]) -> Float32[np.ndarray, "n points 2"]:
        """Returns the mouth's landmarks (x, y) in pixels.

        Args:
          images: Aligned faces, black outside the mask, of `image_size`.

        Raises:
          InputError: Pictures of another size.
        """
        if images.shape[1] != self.image_size or images.shape[2] != self.image_size:
            raise InputError(f"landmark probe: pictures of shape {images.shape[1:]}, expected side {self.image_size}")
        found = []
        for start in range(0, len(images), BATCH):
            some = images[start : start + BATCH]
            padding = [(0, BATCH - len(some)), (0, 0), (0, 0), (0, 0)]
            found.append(np.asarray(_locate(self, np.pad(some, padding)))[: len(some)])
        return np.concatenate(found) * np.float32(self.image_size)


def train_probe(
    images: UInt8[np.ndarray, "n s s 3"],
    masks: UInt8[np.ndarray, "n s s 1"],
    landmarks: Float[np.ndarray, "n points 2"],
    *,
    steps: int = 1500,
    seed: int = 0,
) -> LandmarkProbe:
    """Returns a probe trained on frames with known landmarks.

    Every picture is seen behind the mask of a randomly drawn other frame, or none, so that the edge of a mask, which
    follows the chin, tells nothing of the mouth. Pictures are shifted by a few pixels, their landmarks with them, and
    change in brightness, contrast, sharpness and noise, so that what is read is where the lips are, and a generated
    face, which is smoother than a photograph, is read as well.

    Args:
      images: Aligned faces, not masked.
      masks: 255 where the face is.
      landmarks: The mouth's (x, y) in pixels.
      steps: Updates.
      seed: Of weights and draws.

    Raises:
      InputError: No frame, or pictures that are too small to read a mouth from.
    """
    size = images.shape[1] if len(images) else 0
    if size < 32:
        raise InputError(f"landmark probe: {len(images)} frames of side {size}, expected one or more of 32 or larger")
    places = landmarks.astype(np.float32) / size
    probe = LandmarkProbe(_fresh(size, seed), places.mean(axis=0), size)
    optimizer = _optimizer(steps)
    state = optimizer.init(probe.params)
    random = np.random.default_rng(seed)
    order = np.zeros(0, np.int64)
    for step in range(steps):
        while len(order) < _BATCH:
            order = np.concatenate([order, random.permutation(len(images))])
        rows, order = order[:_BATCH], order[_BATCH:]
        others = random.integers(len(images), size=_BATCH)
        hidden = np.where(random.random((_BATCH, 1, 1, 1)) < 0.8, masks[others], np.uint8(255))
        key = jax.random.fold_in(jax.random.key(seed), step)
        probe, state = _update(probe, state, images[rows], hidden, places[rows], key, steps)
    return jax.device_get(probe)


def save_probe(path: Path, probe: LandmarkProbe) -> None:
    """Writes a probe to one file, whole or not at all."""
    leaves: dict[str, Any] = {f"leaf{number}": np.asarray(leaf) for number, leaf in enumerate(jax.tree.leaves(probe))}
    leaves |= {"format": np.array(_FORMAT), "image_size": np.array(probe.image_size)}
    with atomic_file(path) as file:
        np.savez(file, **leaves)


def load_probe(path: Path) -> LandmarkProbe:
    """Returns the probe of a file.

    Raises:
      InputError: No such file, or not one that `save_probe` wrote.
    """
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            fields = {name: archive[name] for name in archive.files}
        size = int(fields["image_size"])
        mean: Any = jax.ShapeDtypeStruct((_POINTS, 2), jnp.float32)
        leaves, tree = jax.tree.flatten(LandmarkProbe(_shapes(size), mean, size))
        found = [fields[f"leaf{number}"] for number in range(len(leaves))]
    except (OSError, ValueError, KeyError, EOFError) as error:
        raise InputError(f"{path}: no landmark probe ({error}); remove it, and it is trained again") from error
    if int(fields["format"]) != _FORMAT or [leaf.shape for leaf in found] != [leaf.shape for leaf in leaves]:
        raise InputError(f"{path}: landmark probe of another version; remove it, and it is trained again")
    return jax.tree.unflatten(tree, found)


def _optimizer(steps: int) -> optax.GradientTransformation:
    def rate(step: Array) -> Array:
        return _LEARNING_RATE * 0.5 * (1 + jnp.cos(jnp.pi * step.astype(jnp.float32) / steps))

    return optax.adam(rate)


def _shapes(size: int) -> Variables:
    faces = jnp.zeros((1, size, size, 3), jnp.float32)
    return jax.eval_shape(lambda: _Network().init(jax.random.key(0), _lower_face(faces)))["params"]


def _fresh(size: int, seed: int) -> Variables:
    # By NumPy: XLA needs seconds to compile each of the modules' own draws.
    random = np.random.default_rng(seed)

    def draw(leaf: jax.ShapeDtypeStruct) -> np.ndarray:
        if len(leaf.shape) == 1:
            return np.zeros(leaf.shape, np.float32)
        return random.normal(0, (2 / np.prod(leaf.shape[:-1])) ** 0.5, leaf.shape).astype(np.float32)

    return jax.tree.map(draw, _shapes(size))


def _lower_face(images: Float[Array, "n s s 3"]) -> Float[Array, "n h w 3"]:
    rows, columns = (slice(*(round(part * images.shape[1]) for part in limits)) for limits in (_ROWS, _COLUMNS))
    return images[:, rows, columns]


def _places(params: Variables, mean: Array, images: Float[Array, "n s s 3"]) -> Float[Array, "n points 2"]:
    # Offsets are hundredths of a side; the network gives numbers near one.
    offsets: Any = _Network().apply({"params": params}, _lower_face(images))
    return mean[None] + 0.05 * offsets


@jax.jit
def _locate(probe: LandmarkProbe, images: UInt8[Array, "n s s 3"]) -> Float[Array, "n points 2"]:
    return _places(probe.params, jnp.asarray(probe.mean), images.astype(jnp.float32) / 255 - 0.5)


@functools.partial(jax.jit, static_argnums=6, donate_argnums=(0, 1))
def _update(
    probe: LandmarkProbe,
    state: Any,
    images: UInt8[Array, "n s s 3"],
    masks: UInt8[Array, "n s s 1"],
    places: Float[Array, "n points 2"],
    key: Any,
    steps: int,
) -> tuple[LandmarkProbe, Any]:
    seen, moved = _varied(images.astype(jnp.float32) / 255, masks.astype(jnp.float32) / 255, places, key)

    mean = jnp.asarray(probe.mean)

    def loss(params: Variables) -> Array:
        # In hundredths of a side, so that the optimiser's epsilon is small beside gradients.
        return jnp.mean(jnp.abs(100 * (_places(params, mean, seen) - moved)))

    gradients = jax.grad(loss)(probe.params)
    # optax raises a float to an integer power, which strict promotion would refuse.
    with jax.numpy_dtype_promotion("standard"):
        updates, state = _optimizer(steps).update(gradients, state)
    params: Any = optax.apply_updates(probe.params, updates)
    return LandmarkProbe(params, mean, probe.image_size), state


def _varied(
    images: Float[Array, "n s s 3"], masks: Float[Array, "n s s 1"], places: Float[Array, "n points 2"], key: Any
) -> tuple[Float[Array, "n s s 3"], Float[Array, "n points 2"]]:
    """Pictures behind their masks, each shifted, blurred, lit and made noisy in its own way; and their landmarks."""
    count, size = images.shape[:2]
    shift_key, draw_key, noise_key = jax.random.split(key, 3)
    reach = max(1, round(_SHIFT * size))
    shifts = jax.random.randint(shift_key, (2 * count,), -reach, reach + 1).reshape(count, 2)
    draws = jax.random.uniform(draw_key, (3 * count,), jnp.float32).reshape(3, count, 1, 1, 1)
    blurred = sum(jnp.roll(images, move, (1, 2)) for move in ((0, 0), (0, 1), (0, -1), (1, 0), (-1, 0))) / 5
    images = images + draws[0] * (blurred - images)
    images = (images - 0.5) * (0.8 + 0.4 * draws[1]) + 0.5 + 0.2 * (draws[2] - 0.5)
    images = images * masks
    moved = jax.vmap(lambda image, shift: jnp.roll(image, shift, (0, 1)))(images, shifts)
    noise = jax.random.normal(noise_key, (images.size,), jnp.float32).reshape(images.shape)
    # Points are (x, y), shifts (rows, columns).
    return moved + 0.02 * noise - 0.5, places + shifts[:, None, ::-1].astype(jnp.float32) / size
