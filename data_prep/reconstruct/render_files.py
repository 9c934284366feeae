"""Pictures or a video of a code dict, edited or not: what the manipulator and the renderer use at test time."""

from __future__ import annotations

import argparse
import contextlib
import sys
from collections.abc import Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Literal, Self

import av
import numpy as np
from jaxtyping import Float, UInt8

from asccl_jax.data.codes import CodeDict
from asccl_jax.errors import InputError, exit_on_input_error, writing
from asccl_jax.process import command_name
from asccl_jax.work import PARTIAL_SUFFIX, require_writable_file, require_writable_folder
from data_prep.head_fit.head_drawing import Renderer, Renders, image_u8
from data_prep.head_fit.view import View, aligned_view, crop_view, source_view
from data_prep.media.layouts import VIDEO_SUFFIXES
from data_prep.reconstruct.drawing import encode_png, make_renderer
from data_prep.reconstruct.work import available_cores

__all__ = [
    "PICTURES",
    "VIEWS",
    "choose_view",
    "main",
    "read_alignment",
    "render_files",
    "render_images",
]

PICTURES = ("nmfc", "shape", "detail_shape", "texture", "alpha")
"""What can be drawn."""

VIEWS = ("crop", "source", "aligned")

Picture = Literal["nmfc", "shape", "detail_shape", "texture", "alpha"]


def render_images(
    renderer: Renderer, codes: CodeDict, *, view: View | None = None
) -> Iterator[dict[str, UInt8[np.ndarray, "h w 3"]]]:
    """Yields the pictures of each frame by name, 0..255, in the order of the codes.

    Args:
      renderer: Draws them.
      codes: Frames to draw; `CodeDict.edited` gives them another expression.
      view: Coordinates of the pictures; the 224-pixel crop if None.

    Raises:
      InputError: Codes, renderer and view do not fit each other.
    """
    for renders in renderer.chunks(codes, view=view):
        for row in range(len(renders.frame_index)):
            yield {name: image for name in PICTURES if (image := _picture(renders, name, row)) is not None}


def render_files(
    renderer: Renderer,
    codes: CodeDict,
    output: Path,
    *,
    view: View | None = None,
    pictures: tuple[str, ...] = ("nmfc", "shape"),
    fps: float = 30.0,
) -> int:
    """Writes PNG files `PICTURE/%06d.png`, numbered by frame index, or a video of the pictures side by side.

    Args:
      renderer: Draws them.
      codes: Frames to draw.
      output: Folder, or a video by its ending; a video has one picture a frame of the codes.
      view: Coordinates of the pictures; the 224-pixel crop if None.
      pictures: Which of `PICTURES`.
      fps: Frame rate of a video.

    Returns:
      How many frames were written.

    Raises:
      InputError: Pictures that this renderer does not draw, or codes that it cannot.
    """
    frames = _chosen(render_images(renderer, codes, view=view), pictures)
    if output.suffix.lower() in VIDEO_SUFFIXES:
        with _Video(output, fps) as video:
            for chosen in frames:
                video.write(np.concatenate(list(chosen.values()), axis=1))
        return len(codes)
    if output.is_file():
        raise InputError(f"{output}: a file, expected a folder or the name of a video ({', '.join(VIDEO_SUFFIXES)})")
    with writing(output):
        for name in pictures:
            (output / name).mkdir(parents=True, exist_ok=True)
        for index, chosen in zip(codes.frame_index.tolist(), frames, strict=True):
            for name, image in chosen.items():
                (output / name / f"{index:06d}.png").write_bytes(encode_png(image))
    return len(codes)


def choose_view(
    name: str, codes: CodeDict, *, size: int | None = None, alignment: Float[np.ndarray, "t 2 3"] | None = None
) -> View:
    """Returns a view by its name.

    Args:
      name: One of `VIEWS`.
      codes: Frames to draw.
      size: Side of crops and aligned pictures in pixels; as usual (224, 256) if None.
      alignment: For "aligned", from pixels of the source frame to those of the 256-pixel aligned picture.

    Raises:
      InputError: An unknown name, or codes that do not know their source.
    """
    if name == "crop":
        return crop_view(codes, size or 224)
    if name == "source":
        return source_view(codes)
    if name != "aligned" or alignment is None:
        raise InputError(f"view {name!r}: expected one of {', '.join(VIEWS)}; aligned needs an alignment")
    side = size or 256
    scale = side / 256
    scaled = alignment * scale
    scaled[:, :, 2] += (scale - 1) / 2
    return aligned_view(codes, scaled, side)


def read_alignment(path: Path, codes: CodeDict) -> Float[np.ndarray, "t 2 3"]:
    """Returns the alignment of the codes' frames from a track that `asccl data reconstruct` has written.

    Raises:
      InputError: No such file, no alignment in it, or not of all frames.
    """
    try:
        with np.load(path, allow_pickle=False) as track:
            index, matrices = track["frame_index"], track["align_transforms"]
    except (OSError, ValueError, KeyError, EOFError) as error:
        raise InputError(f"{path}: no track of `asccl data reconstruct` ({error}); it lies in OUTPUT/tracks") from error
    row = {number: place for place, number in enumerate(index.tolist())}
    missing = [number for number in codes.frame_index.tolist() if number not in row]
    if missing:
        raise InputError(
            f"{path}: no frame {missing[0]} and {len(missing) - 1} more of the code dict: of another clip?"
        )
    return matrices[[row[number] for number in codes.frame_index.tolist()]].astype(np.float64)


def _picture(renders: Renders, name: str, row: int) -> UInt8[np.ndarray, "h w 3"] | None:
    values = getattr(renders, name)
    if values is None:
        return None
    if name == "alpha":
        return np.repeat(values[row, :, :, None].astype(np.uint8) * 255, 3, axis=-1)
    return image_u8(values[row])


def _chosen(
    frames: Iterator[dict[str, UInt8[np.ndarray, "h w 3"]]], pictures: tuple[str, ...]
) -> Iterator[dict[str, UInt8[np.ndarray, "h w 3"]]]:
    for frame in frames:
        absent = [name for name in pictures if name not in frame]
        if absent or not pictures:
            raise InputError(
                f"pictures {', '.join(absent) or 'none'}: this renderer draws {', '.join(frame)};"
                " detail_shape needs deca_model.tar and detail codes, texture an albedo model and light"
            )
        yield {name: frame[name] for name in pictures}


class _Video:
    """An H.264 video that appears whole or not at all; a context manager."""

    def __init__(self, path: Path, fps: float) -> None:
        self._path, self._rate = path, Fraction(fps).limit_denominator(100_000)
        self._partial = path.with_name(f".{path.stem}{PARTIAL_SUFFIX}{path.suffix}")
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> Self:
        with writing(self._path):
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._container = self._stack.enter_context(av.open(f"file:{self._partial}", "w"))
        self._stream = self._container.add_stream("libx264", rate=self._rate, options={"crf": "12"})
        self._stream.pix_fmt = "yuv444p"
        return self

    def write(self, image: UInt8[np.ndarray, "h w 3"]) -> None:
        """Appends a frame."""
        if not self._stream.codec_context.is_open:
            self._stream.height, self._stream.width = image.shape[:2]
        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb24")
        self._container.mux(self._stream.encode(frame))

    def __exit__(self, kind: type[BaseException] | None, error: object, trace: object) -> None:
        with self._stack:
            if kind is None:
                self._container.mux(self._stream.encode())
        if kind is None:
            self._partial.replace(self._path)
        else:
            self._partial.unlink(missing_ok=True)


# Command line of the render-only entry: `asccl head draw CODES.npz --output DIR|VIDEO`.

_EXAMPLES = """examples:
  a video of NMFC and shape, side by side, of codes that `asccl data reconstruct` has made:
    asccl head draw codes/CLIP.npz --output head.mp4
  edited codes of the same clip as files, aligned as the source was:
    asccl head draw edited.npz --output renders --view aligned --track tracks/CLIP.npz"""


@exit_on_input_error
def main(arguments: Sequence[str] | None = None) -> int:
    """Renders a code dict and returns the exit status.

    Args:
      arguments: Words of the command line; None takes those of the process.

    Raises:
      InputError: Something the user gave is wrong.
    """
    options = _parser().parse_args(arguments)
    codes = CodeDict.load(options.codes)
    alignment = None
    if options.view == "aligned":
        if options.track is None:
            raise InputError("--view aligned: needs --track, the file of OUTPUT/tracks that belongs to the clip")
        alignment = read_alignment(options.track, codes)
    renderer = make_renderer(
        options.assets,
        detail=codes.detail is not None,
        device=options.device,
        batch=options.batch,
        threads=available_cores(),
    )
    view = choose_view(options.view, codes, size=options.size, alignment=alignment)
    pictures = tuple(options.pictures.split(","))
    if unknown := [name for name in pictures if name not in PICTURES]:
        raise InputError(f"--pictures {','.join(unknown)}: expected some of {', '.join(PICTURES)}")
    require_writable = require_writable_file if options.output.suffix else require_writable_folder
    require_writable(options.output)
    count = render_files(renderer, codes, options.output, view=view, pictures=pictures, fps=options.fps)
    sys.stdout.write(f"{options.output}: {count} frames of {', '.join(pictures)}\n")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=command_name(),
        description="Draws a code dict, edited or not, as pictures or as a video.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("codes", type=Path, help="code dict (.npz)")
    parser.add_argument("--output", required=True, type=Path, help="folder, or name of a video (.mp4)")
    parser.add_argument("--pictures", default="nmfc,shape", help=f"some of {','.join(PICTURES)} (nmfc,shape)")
    parser.add_argument("--view", choices=VIEWS, default="crop", help="coordinates of the pictures (crop)")
    parser.add_argument("--size", type=int, help="side of crops (224) and aligned pictures (256)")
    parser.add_argument("--track", type=Path, help="for --view aligned: the clip's file of OUTPUT/tracks")
    parser.add_argument("--assets", type=Path, help="folder of FLAME's and DECA's files (default: the built-in head)")
    parser.add_argument("--fps", type=float, default=30.0, help="frame rate of a video (30)")
    parser.add_argument("--device", default="cpu", help="PyTorch device (cpu)")
    parser.add_argument("--batch", type=int, default=16, help="frames drawn at a time (16)")
    return parser


if __name__ == "__main__":
    sys.exit(main())
