"""A clip drawn into a folder of pictures; a drawing that was interrupted goes on, and ends in the same bits."""

from __future__ import annotations

import dataclasses
import io
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image

from asccl_jax.data.atomic import atomic_file
from asccl_jax.data.picture_values import to_image
from asccl_jax.infer.render import Conditioning, Preceding, RecurrentRenderer, generate_frames

__all__ = ["render_clip"]

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
