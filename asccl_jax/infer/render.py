"""Frames of a face from its conditioning pictures: a stream in, as many frames out, nothing early and nothing late."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, UInt8

from asccl_jax.data.picture_values import to_image
from asccl_jax.errors import InputError
from asccl_jax.infer.prefetch import prefetched

__all__ = ["CHUNK", "Conditioning", "Preceding", "RecurrentRenderer", "generate_frames", "render_frames"]

CHUNK = 16
"""Frames that are computed in one go."""

_COLOURS = 3
_STREAMS = ("nmfc_image", "eyes_image", "shape_image")
"""Pictures of a frame in the order of their channels."""


@runtime_checkable
class Conditioning(Protocol):
    """What a frame is drawn from: pictures of one size, RGB, 0..255, and a mask, 255 where the face is."""

    @property
    def nmfc_image(self) -> UInt8[np.ndarray, "h w 3"]:
        """Normalised mean face coordinates."""

    @property
    def eyes_image(self) -> UInt8[np.ndarray, "h w 3"]:
        """Discs where the pupils are."""

    @property
    def shape_image(self) -> UInt8[np.ndarray, "h w 3"]:
        """The surface in grey."""

    @property
    def mask(self) -> UInt8[np.ndarray, "h w 1"]:
        """255 where the face is."""


@runtime_checkable
class RecurrentRenderer(Protocol):
    """The generator with its weights, a pytree: `asccl_jax.models.renderer.Renderer`."""

    @property
    def settings(self) -> Any:
        """Sizes: `RendererSettings`."""

    def encode(self, blocks: Any) -> Any:
        """Returns what is computed of the conditioning alone, for all frames at once."""

    def decode(self, encoded: Any, previous: Any, mask: Any) -> Any:
        """Returns frames, given the ones before them."""


class Preceding(NamedTuple):
    """What a frame is drawn from besides its own conditioning, where a clip is gone on with.

    Attributes:
      generated: The generated frames before it, oldest first, as many as the generator sees.
      conditioning: What the frames before it were drawn from, likewise.
    """

    generated: Float[np.ndarray, "p h w 3"]
    conditioning: Sequence[Conditioning]


class _Block(NamedTuple):
    """Frames that are computed in one go, the last one repeated where the stream has ended; `real` of them are."""

    conditioning: UInt8[np.ndarray, "k h w c"]
    mask: UInt8[np.ndarray, "k h w 1"]
    real: int


class _Carried(NamedTuple):
    """What a chunk takes over from the one before it: the last generated frames and the last conditioning."""

    previous: Float[Array, "h w p"]
    context: UInt8[Array, "n h w c"]


def render_frames(
    renderer: RecurrentRenderer, frames: Iterable[Conditioning], *, chunk: int = CHUNK
) -> Iterator[UInt8[np.ndarray, "h w 3"]]:
    """Yields the frames of one clip, RGB, 0..255, black outside the mask; arguments as `generate_frames`."""
    return map(to_image, generate_frames(renderer, frames, chunk=chunk))


def generate_frames(
    renderer: RecurrentRenderer,
    frames: Iterable[Conditioning],
    *,
    chunk: int = CHUNK,
    preceding: Preceding | None = None,
) -> Iterator[Float[np.ndarray, "h w 3"]]:
    """Yields the frames of one clip as the generator gives them, -1 to 1: one for each frame given, at its own place.

    A call starts afresh, as a video does: the frames before the first are black holes (zeros), its conditioning is
    repeated in their place. Upstream: `renderer/test.py` gives no frame for the first two, so that whoever numbers the
    files has the picture two frames early.

    A thread reads ahead, so that the frames may come from a disk; memory does not grow with the clip.

    Args:
      renderer: Trained generator.
      frames: Consecutive frames of one clip, all of one size.
      chunk: Frames computed in one go. The result does not depend on it; the last ones of a clip cost as much as a
        full chunk.
      preceding: What came before the first frame, of a clip that is gone on with; None starts afresh.

    Raises:
      InputError: Pictures of different sizes, or of a size that the generator cannot halve as often as it does.
    """
    if chunk < 1:
        raise InputError(f"chunk {chunk}: expected at least 1 frame")
    blocks = prefetched(_blocks(frames, chunk, renderer.settings.downsamplings))
    step = _step(renderer)
    carried, waiting = None, None
    for block in blocks:
        if carried is None:
            carried = _start(renderer, block) if preceding is None else _go_on(preceding)
        images, carried = step(carried, block.conditioning, block.mask)
        # The next chunk is under way before this thread waits for the one before it.
        if waiting is not None:
            yield from np.asarray(waiting[0])[: waiting[1]]
        waiting = images, block.real
    if waiting is not None:
        yield from np.asarray(waiting[0])[: waiting[1]]


def _step(renderer: RecurrentRenderer) -> Callable[..., tuple[Array, _Carried]]:
    # On the device once, not once a chunk.
    return functools.partial(_render_chunk, jax.device_put(renderer))


@functools.partial(jax.jit, donate_argnums=1)
def _render_chunk(
    renderer: Any, carried: _Carried, conditioning: UInt8[Array, "k h w c"], mask: UInt8[Array, "k h w 1"]
) -> tuple[Float[Array, "k h w 3"], _Carried]:
    joined = jnp.concatenate([carried.context, conditioning])
    count, reach = len(conditioning), len(carried.context)
    # Of a window the oldest frame's channels come first.
    windows = jnp.concatenate([joined[start : start + count] for start in range(reach + 1)], axis=-1)
    encoded = renderer.encode(windows.astype(jnp.float32) / 255)
    shown = (mask >= 128).astype(jnp.float32)

    def draw(previous: Array, inputs: tuple[Array, Array]) -> tuple[Array, Array]:
        image = renderer.decode(inputs[0][None], previous[None], inputs[1][None])[0].astype(jnp.float32)
        return jnp.concatenate([previous[..., _COLOURS:], image], axis=-1), image

    previous, images = jax.lax.scan(draw, carried.previous, (encoded, shown))
    return images, _Carried(previous, joined[count:])


def _start(renderer: RecurrentRenderer, block: _Block) -> _Carried:
    height, width, channels = block.conditioning.shape[1:]
    sizes = renderer.settings
    previous = jnp.zeros((height, width, _COLOURS * sizes.previous_frames), jnp.float32)
    first = np.broadcast_to(block.conditioning[:1], (sizes.context_frames - 1, height, width, channels))
    return _Carried(previous, jnp.asarray(first))


def _go_on(preceding: Preceding) -> _Carried:
    context = np.stack([_joined(frame) for frame in preceding.conditioning])
    return _Carried(jnp.asarray(np.concatenate(list(preceding.generated), axis=-1)), jnp.asarray(context))


def _joined(frame: Conditioning) -> UInt8[np.ndarray, "h w c"]:
    return np.concatenate([getattr(frame, name) for name in _STREAMS], axis=-1)


def _blocks(frames: Iterable[Conditioning], chunk: int, downsamplings: int) -> Iterator[_Block]:
    rows: list[np.ndarray] = []
    masks: list[np.ndarray] = []
    size: tuple[int, ...] | None = None
    for frame in frames:
        pictures = [getattr(frame, name) for name in _STREAMS]
        size = size or pictures[0].shape[:2]
        _check_sizes([*pictures, frame.mask], size, downsamplings)
        rows.append(_joined(frame))
        masks.append(frame.mask)
        if len(rows) == chunk:
            yield _Block(np.stack(rows), np.stack(masks), chunk)
            rows, masks = [], []
    if rows:
        padding = [(0, chunk - len(rows)), (0, 0), (0, 0), (0, 0)]
        conditioning, mask = (np.pad(np.stack(part), padding, mode="edge") for part in (rows, masks))
        yield _Block(conditioning, mask, len(rows))


def _check_sizes(pictures: list[np.ndarray], size: tuple[int, ...], downsamplings: int) -> None:
    found = {picture.shape[:2] for picture in pictures}
    if found != {size}:
        shown = ", ".join(f"{width} x {height}" for height, width in sorted(found | {size}))
        raise InputError(f"pictures of {shown} pixels: expected one size for all frames of a clip")
    if any(side % 2**downsamplings for side in size):
        raise InputError(
            f"pictures of {size[1]} x {size[0]} pixels: expected sides that are multiples of {2**downsamplings}"
        )
