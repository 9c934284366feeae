"""Several versions of one video beside each other, named: as a video with the sound of the first, and as a sheet.

asccl video side-by-side source=talk.mp4 happy=happy.mp4 --output both.mp4 --sheet both.png
"""

from __future__ import annotations

import argparse
import contextlib
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageDraw, ImageFont

from asccl_jax.data.manifest import evenly_spaced
from asccl_jax.errors import InputError, exit_on_input_error, writing
from asccl_jax.process import command_name
from asccl_jax.work import atomic_file, require_writable_file
from data_prep.media.encode import YuvPicture
from data_prep.media.video_files import MarkedVideoWriter, SourceVideo, TimedPicture, open_video, probe_video

__all__ = ["main", "write_sheet", "write_side_by_side"]

_BAR = 22
"""Height of a name's strip in pixels."""
_TEXT = (235, 235, 235)
_GROUND = (24, 24, 24)

Named = Sequence[tuple[str, Path]]


@exit_on_input_error
def main(arguments: Sequence[str] | None = None) -> int:
    """Writes the video and, if asked for, the sheet; returns the exit status.

    Args:
      arguments: Words of the command line; None takes those of the process.

    Raises:
      InputError: A video cannot be read, or they do not have the same frames.
    """
    options = _parser().parse_args(arguments)
    require_writable_file(options.output)
    if options.columns < 1 or options.height < 32 or options.frames < 1:
        raise InputError("--columns and --frames: expected at least 1, --height: at least 32")
    videos = [_named(word) for word in options.videos]
    write_side_by_side(videos, options.output, columns=options.columns, height=options.height)
    sys.stdout.write(f"{options.output}\n")
    if options.sheet is not None:
        write_sheet(videos, options.sheet, frames=options.frames, height=options.height)
        sys.stdout.write(f"{options.sheet}\n")
    return 0


def write_side_by_side(videos: Named, output: Path, *, columns: int = 4, height: int = 256) -> None:
    """Writes a video that shows all videos at once, at the times and with the sound of the first.

    Args:
      videos: Their names and files.
      output: Video to write.
      columns: Of the grid, at most.
      height: Of one picture in pixels.

    Raises:
      InputError: A video cannot be read, or they do not have the same number of frames.
    """
    with contextlib.ExitStack() as stack:
        opened = [stack.enter_context(open_video(path)) for _, path in videos]
        first = opened[0]
        writer = stack.enter_context(
            MarkedVideoWriter(
                output,
                clock=first.clock,
                rate=first.rate,
                sound_of=first.path,
                origin_s=first.origin_s,
                title=f"{first.title or first.path.stem}, side by side",
            )
        )
        for row in _rows(opened):
            tiles = [_tile(name, picture.picture.rgb(), height) for (name, _), picture in zip(videos, row, strict=True)]
            grid = YuvPicture.of_rgb(_grid(tiles, min(columns, len(tiles))))
            writer.write(grid, pts=row[0].pts, duration=row[0].duration)


def write_sheet(videos: Named, output: Path, *, frames: int = 6, height: int = 256) -> None:
    """Writes a picture with a row for each video, of frames evenly spaced over all of it.

    Args:
      videos: Their names and files.
      output: PNG file to write.
      frames: Of a row, at most.
      height: Of one picture in pixels.

    Raises:
      InputError: A video cannot be read, or they do not have the same number of frames.
    """
    count = probe_video(videos[0][1]).frames
    shown = set(evenly_spaced(range(count), frames))
    rows: list[list[np.ndarray]] = [[] for _ in videos]
    with contextlib.ExitStack() as stack:
        opened = [stack.enter_context(open_video(path)) for _, path in videos]
        for row in _rows(opened):
            if row[0].index not in shown:
                continue
            for place, ((name, _), picture) in enumerate(zip(videos, row, strict=True)):
                words = name if not rows[place] else ""
                rows[place].append(_tile(words, picture.picture.rgb(), height))
    tiles = [tile for row in rows for tile in row]
    with writing(output):
        output.parent.mkdir(parents=True, exist_ok=True)
        with atomic_file(output) as file:
            Image.fromarray(_grid(tiles, len(rows[0]))).save(file, format="PNG")


def _rows(videos: Sequence[SourceVideo]) -> Iterator[list[TimedPicture]]:
    """Yields frame t of all videos."""
    streams = [video.pictures() for video in videos]
    while True:
        row = [next(stream, None) for stream in streams]
        found = [picture for picture in row if picture is not None]
        if not found:
            return
        if len(found) < len(row):
            ended = videos[row.index(None)].path
            raise InputError(
                f"{ended}: ends after {found[0].index} frames, others go on; expected versions of one video"
            )
        yield found


def _tile(name: str, image: UInt8[np.ndarray, "h w 3"], height: int) -> UInt8[np.ndarray, "h2 w2 3"]:
    """The picture at some height, a strip with its name above."""
    width = max(round(image.shape[1] * height / image.shape[0] / 2) * 2, 2)
    canvas = Image.new("RGB", (width, height + _BAR), _GROUND)
    canvas.paste(Image.fromarray(image).resize((width, height), Image.Resampling.BICUBIC), (0, _BAR))
    if name:
        ImageDraw.Draw(canvas).text((6, _BAR // 2), name, fill=_TEXT, font=ImageFont.load_default(14), anchor="lm")
    return np.array(canvas)


def _grid(tiles: Sequence[UInt8[np.ndarray, "h w 3"]], columns: int) -> UInt8[np.ndarray, "gh gw 3"]:
    """Tiles row by row, in cells as large as the largest."""
    height, width = (max(tile.shape[axis] for tile in tiles) for axis in (0, 1))
    grid = np.full((-(-len(tiles) // columns) * height, columns * width, 3), _GROUND, np.uint8)
    for place, tile in enumerate(tiles):
        y, x = (place // columns) * height, (place % columns) * width
        grid[y : y + tile.shape[0], x : x + tile.shape[1]] = tile
    return grid


def _named(word: str) -> tuple[str, Path]:
    name, sign, path = word.partition("=")
    return (name, Path(path)) if sign else (Path(word).stem, Path(word))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=command_name(),
        description="Shows versions of one video beside each other, with the sound of the first.",
    )
    add = parser.add_argument
    add("videos", nargs="+", metavar="[NAME=]VIDEO", help="videos of as many frames each, the source first")
    add("--output", type=Path, required=True, metavar="OUT", help="video to write")
    add("--sheet", type=Path, metavar="PNG", help="picture to write, a row for each video")
    add("--columns", type=int, default=4, metavar="N", help="of the video's grid (4)")
    add("--frames", type=int, default=6, metavar="N", help="of a row of the sheet (6)")
    add("--height", type=int, default=256, metavar="PX", help="of one picture (256)")
    return parser


if __name__ == "__main__":
    sys.exit(main())
