"""Frames of a face from its conditioning pictures: a stream in, as many frames out, nothing early and nothing late."""

from __future__ import annotations

import dataclasses
import functools
import io
import zipfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, UInt8
from PIL import Image

from asccl_jax.data.aligned_frames import AlignedFrame, decode_picture
from asccl_jax.data.frames import to_image
from asccl_jax.errors import InputError
from asccl_jax.infer.prefetch import prefetched
from asccl_jax.work import atomic_file

__all__ = [
    "CHUNK",
    "STREAMS",
    "Conditioning",
    "Preceding",
    "RecurrentRenderer",
    "check_edit",
    "generate_frames",
    "render_clip",
    "render_frames",
    "with_edit",
]

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


# A clip drawn into a folder of pictures; a drawing that was interrupted goes on, and ends in the same bits.

_SAVED_EVERY = 64
"""Frames after which at the latest the state is saved, rounded up to whole chunks: all that a kill can cost."""

_STATE = ".state.npz"


@dataclasses.dataclass(frozen=True, eq=False)
class _State:
    """What the drawing of a frame needs of those before it.

    Attributes:
      number: Number of the frame; all those before it are in the folder.
      generated: The last frames, oldest first, unrounded.
    """

    number: int
    generated: Float[np.ndarray, "p h w 3"]

    def save(self, path: Path) -> None:
        """Writes it to a file."""
        with atomic_file(path) as file:
            np.savez(file, number=np.array(self.number), generated=self.generated)

    @classmethod
    def load(cls, path: Path) -> _State | None:
        """Returns what was saved; None where there is nothing."""
        try:
            with np.load(path, allow_pickle=False) as archive:
                return cls(int(archive["number"]), archive["generated"])
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
            return None


def render_clip(
    renderer: RecurrentRenderer,
    read: Callable[[int], Conditioning],
    runs: tuple[tuple[int, int], ...],
    folder: Path,
    *,
    chunk: int,
) -> Iterator[int]:
    """Draws a clip into a folder (%06d.png) and yields the number of each frame that is there, in order.

    Frames that an interrupted call with the same arguments has left are yielded, too, and not drawn again.

    Args:
      renderer: Trained generator.
      read: From a frame's number to what it is drawn from; called by another thread, too.
      runs: First and last number of each run of consecutive frames; every run starts afresh.
      folder: Where the pictures go, and the state while they are drawn.
      chunk: Frames computed in one go.
    """
    saved = _State.load(folder / _STATE)
    for first, last in runs:
        start, preceding = first, None
        if saved is not None and first < saved.number:
            start = min(saved.number, last + 1)
            yield from range(first, start)
        if start > last:
            continue
        if start > first:
            assert saved is not None
            reach = renderer.settings.context_frames - 1
            seen = [read(max(first, start - back)) for back in range(reach, 0, -1)]
            preceding = Preceding(saved.generated, seen)
        yield from _draw_run(renderer, read, range(start, last + 1), preceding, folder, chunk)
    (folder / _STATE).unlink(missing_ok=True)


def _draw_run(
    renderer: RecurrentRenderer,
    read: Callable[[int], Conditioning],
    numbers: range,
    preceding: Preceding | None,
    folder: Path,
    chunk: int,
) -> Iterator[int]:
    every = -(-_SAVED_EVERY // chunk) * chunk
    kept = renderer.settings.previous_frames
    images: list[np.ndarray] = []
    for done, (number, image) in enumerate(
        zip(numbers, generate_frames(renderer, map(read, numbers), chunk=chunk, preceding=preceding), strict=True), 1
    ):
        (folder / f"{number:06d}.png").write_bytes(_png(to_image(image)))
        images = [*images, image][-kept:]
        if done % every == 0:
            _State(number + 1, np.stack(images)).save(folder / _STATE)
        yield number


def _png(image: UInt8[np.ndarray, "h w 3"]) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, format="PNG", compress_level=3)
    return buffer.getvalue()


# Conditioning pictures of an edited clip, as `asccl data edit-conditioning` leaves them in a folder.

STREAMS = {"nmfc": "nmfc_image", "shape": "shape_image", "eyes": "eyes_image"}
"""Sub-folder -> field of the frame."""


def with_edit(frame: AlignedFrame, folder: Path, number: int) -> AlignedFrame:
    """Returns a frame with the conditioning pictures of an edit; the rest is as it was.

    Args:
      frame: Source frame; the pictures are brought to its size.
      folder: Holds `nmfc/%06d.png`, `shape/%06d.png` and `eyes/%06d.png`.
      number: Number of the frame.

    Raises:
      InputError: A picture is missing or damaged.
    """
    size = len(frame.image)
    pictures = {field: _read(folder / name / f"{number:06d}.png", size) for name, field in STREAMS.items()}
    return dataclasses.replace(frame, **pictures)  # type: ignore[arg-type]


def check_edit(folder: Path) -> None:
    """Refuses a folder that does not hold an edit, with `InputError`."""
    missing = [name for name in STREAMS if not (folder / name).is_dir()]
    if missing:
        raise InputError(
            f"{folder}: no folder {', '.join(missing)} in it; draw the edit with `asccl data edit-conditioning`"
        )


def _read(path: Path, size: int) -> np.ndarray:
    try:
        image = decode_picture(path.read_bytes())
    except (OSError, InputError) as error:
        raise InputError(f"{path}: no readable picture ({error}); draw the edit again") from error
    if image.shape[:2] == (size, size):
        return image
    return np.array(Image.fromarray(image).resize((size, size), Image.Resampling.BICUBIC))
