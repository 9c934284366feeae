"""Command line of `asccl data edit-conditioning`: what a renderer draws an edited clip from, aligned as its source.

A clip keeps its shape, pose and camera; expression and jaw opening are those of the edit.
"""

from __future__ import annotations

import argparse
import functools
import hashlib
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from jaxtyping import UInt8

from asccl_jax.data.aligned_frames import decode_picture
from asccl_jax.data.codes import CodeDict
from asccl_jax.data.dataset import open_records
from asccl_jax.data.manifest import FrameIndex, Manifest, find_twins, read_manifest
from asccl_jax.data.records import file_sha256
from asccl_jax.data.schema import RenderRecord
from asccl_jax.data.test_speakers import reported_split
from asccl_jax.data.tracks import clip_file_name
from asccl_jax.errors import InputError, exit_on_input_error, writing
from asccl_jax.head.eyes import draw_eyes, edited_eye_points, eye_points
from asccl_jax.infer.prefetch import prefetched
from asccl_jax.process import command_name
from asccl_jax.progress import ProgressBar
from asccl_jax.work import file_facts, growing_folder, is_made, sole_writer
from data_prep.head_fit.head_drawing import Renderer, image_u8
from data_prep.head_fit.view import View
from data_prep.reconstruct.drawing import ALIGNED_SIZE, encode_png, make_renderer
from data_prep.reconstruct.render_files import choose_view, read_alignment
from data_prep.reconstruct.work import available_cores, one_thread

__all__ = ["edited_pictures", "main"]

Item = TypeVar("Item")

_DESCRIPTION = """\
Draws a clip of `asccl data reconstruct` with another expression: NMFC, shape and eye images in the coordinates of the
source's aligned frames, for `asccl video render --conditioning`. Shape, pose and camera stay the source's.
"""

_EXAMPLES = """\
examples:
  the clip as the manipulator edited its codes:
    asccl data edit-conditioning RECORDS --clip Ann/neutral/s1 --codes happy.npz --output happy
    asccl video render RECORDS --clip Ann/neutral/s1 --conditioning happy --checkpoint runs/renderer --output frames
  every held-out neutral clip with the expression of each clip of the same performance, for asccl eval renderer:
    asccl data edit-conditioning RECORDS --twins --output EDITS
"""


_VERSION = 2
"""Raised when equal sources and options give other pictures, so that old ones are not taken for them."""

_LAST = "eyes"
"""Of the pictures of a frame the one that is written last."""


@exit_on_input_error
def main(arguments: Sequence[str] | None = None) -> int:
    """Draws edited clips and returns the exit status.

    Args:
      arguments: Words of the command line; None takes those of the process.

    Raises:
      InputError: Something the user gave is wrong.
    """
    options = _parser().parse_args(arguments)
    with sole_writer(options.output, "--output"):
        return _edit(options)


def _edit(options: argparse.Namespace) -> int:
    manifest = read_manifest(options.records)
    assets = file_facts(options.assets)
    for clip, edit, folder in _asked(options, manifest):
        edited = edit(_codes(options.records, clip))
        made_of = {**_decisive(options, manifest, clip, edited), "assets": assets}
        if is_made(folder, made_of) and options.twins and not options.overwrite:
            continue
        with writing(folder), growing_folder(folder, made_of) as unfinished:
            _draw(options, manifest, clip, edited, unfinished)
        sys.stdout.write(f"{folder}: {len(edited)} frames of {clip}\n")
    return 0


def _draw(options: argparse.Namespace, manifest: Manifest, clip: str, edited: CodeDict, folder: Path) -> None:
    """Writes the pictures of an edit, from where an interrupted call has left off."""
    # The last frame may be there in part, and others were drawn in whole batches: batches of another size would round
    # differently.
    drawn = max(0, len(list(folder.glob(f"{_LAST}/*.png"))) - 1) // options.batch * options.batch
    pictures = edited_pictures(
        options.records,
        manifest,
        clip,
        edited,
        renderer=make_renderer(
            options.assets,
            detail=options.detail,
            device=options.device,
            batch=options.batch,
            threads=available_cores(),
        ),
        detail=options.detail,
        compat=options.compat,
        first=drawn,
    )
    # While files are compressed and written, a thread draws the next ones.
    ahead = prefetched(_on_one_thread(pictures), depth=options.batch)
    bar = ProgressBar(ahead, total=len(edited), initial=drawn, unit="frame")
    for index, frame in bar:
        for kind, picture in frame.items():
            (folder / kind).mkdir(exist_ok=True)
            (folder / kind / f"{index:06d}.png").write_bytes(encode_png(picture))


def _on_one_thread(items: Iterator[Item]) -> Iterator[Item]:
    """Lets linear algebra round as a reconstruction's does; several threads for such small meshes double the work."""
    with one_thread():
        yield from items


def _decisive(options: argparse.Namespace, manifest: Manifest, clip: str, edited: CodeDict) -> dict[str, Any]:
    """What the pictures of an edit depend on besides the head: no other is gone on with."""
    codes = hashlib.sha256()
    for name, value in vars(edited).items():
        codes.update(f"{name} {np.shape(value)}".encode() + (b"" if value is None else np.asarray(value).tobytes()))
    track = options.records / "tracks" / f"{clip_file_name(clip)}.npz"
    index = FrameIndex(manifest, manifest.clips[clip].split)
    stored = open_records(options.records, manifest, index.split, "renders")
    return {
        "version": _VERSION,
        "clip": clip,
        "codes": codes.hexdigest(),
        "track": file_sha256(track) if track.is_file() else None,
        "renders": stored.digest(index.all_records(clip).tolist()),
        **{name: getattr(options, name) for name in ("detail", "compat", "device", "batch")},
    }


def edited_pictures(
    records: Path,
    manifest: Manifest,
    clip: str,
    edited: CodeDict,
    *,
    renderer: Renderer,
    detail: bool = False,
    compat: str = "paper",
    first: int = 0,
) -> Iterator[tuple[int, dict[str, UInt8[np.ndarray, "h w 3"]]]]:
    """Yields frame index and the pictures "nmfc", "shape" and "eyes" of each frame of an edited clip.

    The contours of the eyes move as the head model's do between source and edit, so that an edit which changes nothing
    gives back the source's pictures; pupils move with their contours.

    Args:
      records: Data set that `asccl data reconstruct` wrote.
      manifest: Its manifest.
      clip: Source clip.
      edited: Its code dict with another expression.
      renderer: Draws the head.
      detail: Draw the surface with wrinkles, as the source's were.
      compat: "released" takes the edited contours from the head model alone, which do not lie where a landmark
        detector, on whose contours renderers are trained, sees them. Upstream: `renderer/create_inputs.py`.
      first: Frames at the start of the clip that are left out.

    Raises:
      InputError: Records, track and codes do not belong together.
    """
    track = records / "tracks" / f"{clip_file_name(clip)}.npz"
    source, edited = (codes[first:] for codes in (_codes(records, clip), edited))
    view, source_view = (
        choose_view("aligned", codes, alignment=read_alignment(track, codes)) for codes in (edited, source)
    )
    index = FrameIndex(manifest, manifest.clips[clip].split)
    stored = open_records(records, manifest, index.split, "renders")
    done = 0
    for renders in renderer.chunks(edited, view=view):
        shapes = renders.detail_shape if detail else renders.shape
        if shapes is None:
            raise InputError("--detail: the code dict has no detail codes, or --assets no decoder of them")
        rows = slice(done, done + len(renders.frame_index))
        # The head model's landmarks before the edit.
        before = renderer.landmarks(source[rows], view=View(source_view.size, source_view.placement[rows]))
        done = rows.stop
        for place, number in enumerate(renders.frame_index.tolist()):
            record = RenderRecord.decode(stored[index.record(clip, number)])
            seen = record.aligned_landmarks.astype(np.float64)
            shown = renders.landmarks[place].astype(np.float64)
            moved = shown if compat == "released" else seen + shown - before[place].astype(np.float64)
            points = edited_eye_points(eye_points(decode_picture(record.aligned_image), seen), moved)
            yield (
                number,
                {
                    "nmfc": image_u8(renders.nmfc[place]),
                    "shape": image_u8(shapes[place]),
                    _LAST: draw_eyes(points, (ALIGNED_SIZE, ALIGNED_SIZE)),
                },
            )


def _asked(
    options: argparse.Namespace, manifest: Manifest
) -> Iterator[tuple[str, Callable[[CodeDict], CodeDict], Path]]:
    """Yields clip, edit and output folder of all that was asked for."""
    if options.twins:
        twins = find_twins(manifest, reported_split(manifest.splits))
        if not twins:
            raise InputError(
                f"--twins {options.records}: no held-out neutral clip has a clip of the same performance in an emotion;"
                " make such ones with asccl data synthesise actors"
            )
        for twin in twins:
            like = functools.partial(_like, other=_codes(options.records, twin.target), name=twin.target)
            yield twin.source, like, options.output / twin.folder
        return
    if options.clip is None:
        raise InputError("--clip: missing; which clip is to be edited?")
    if options.clip not in manifest.clips:
        raise InputError(
            f"--clip {options.clip}: not in {options.records}, whose clips are as {next(iter(manifest.clips))}"
        )
    if options.codes is not None:
        other, name = CodeDict.load(options.codes), str(options.codes)
    else:
        other, name = _codes(options.records, options.expression_of), options.expression_of
    yield options.clip, functools.partial(_like, other=other, name=name), options.output


def _like(codes: CodeDict, *, other: CodeDict, name: str) -> CodeDict:
    if not np.array_equal(codes.frame_index, other.frame_index):
        raise InputError(
            f"{name}: {len(other)} frames that are not those of the clip, which has {len(codes)}; an edit needs the"
            " expression of every frame"
        )
    return codes.edited(other.exp, other.pose[:, 3])


def _codes(records: Path, clip: str) -> CodeDict:
    return CodeDict.load(records / "codes" / f"{clip_file_name(clip)}.npz")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=command_name(),
        description=_DESCRIPTION,
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("records", type=Path, metavar="RECORDS", help="data set that `asccl data reconstruct` wrote")
    add("--clip", metavar="ID", help="clip to edit")
    expression = parser.add_mutually_exclusive_group(required=True)
    expression.add_argument("--codes", type=Path, metavar="EDITED", help="its code dict after the edit (.npz)")
    expression.add_argument("--expression-of", metavar="ID", help="clip of the same frames whose expression it takes")
    expression.add_argument("--twins", action="store_true", help="every held-out neutral clip, as each of its twins")
    add(
        "--output", type=Path, required=True, metavar="DIR", help="folder; with --twins, SPEAKER/EMOTION/SENTENCE in it"
    )
    add("--compat", choices=("paper", "released"), default="paper", help="released: the published rule for eyes")
    add("--detail", action="store_true", help="draw wrinkles; needs detail codes and DECA's decoder in --assets")
    add("--overwrite", action="store_true", help="with --twins: draw again what is already there")
    add("--assets", type=Path, metavar="DIR", help="folder of FLAME's and DECA's files (default: the built-in head)")
    add("--device", default="cpu", help="PyTorch device (cpu)")
    add("--batch", type=int, default=16, metavar="N", help="frames drawn at a time (16)")
    return parser


if __name__ == "__main__":
    sys.exit(main())
