"""`asccl video render`: frames of a face from the conditioning of a clip, its own or an edited one."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from asccl_jax import process
from asccl_jax.errors import InputError, exit_on_input_error, writing
from asccl_jax.process import command_name
from asccl_jax.progress import ProgressBar
from asccl_jax.work import sole_writer

if TYPE_CHECKING:
    from asccl_jax.data.aligned_frames import AlignedClips, AlignedFrame, RenderedClip

__all__ = ["main"]

_SETTINGS_FILE = "render.json"
_VERSION = 1
"""Raised when equal sources and settings give other frames, so that old ones are not taken for them."""

_DESCRIPTION = """\
Renders clips: a PNG file for each frame that can be used, named by its number (%06d.png), aligned, black outside the
face. A clip's own conditioning gives the clip itself back; that of an edit gives it another expression.
"""

_EXAMPLES = """\
examples:
  asccl video render RECORDS --checkpoint runs/renderer --output frames
  asccl data edit-conditioning RECORDS --clip Ann/neutral/s1 --codes happy.npz --output happy
  asccl video render RECORDS --checkpoint runs/renderer --clip Ann/neutral/s1 --conditioning happy --output frames
"""


@exit_on_input_error
def main(arguments: Sequence[str] | None = None) -> int:
    """Renders what the command line names and returns the exit status: 0, or 2 for bad input.

    Args:
      arguments: Words after the command's name; None takes those of the process.

    Raises:
      InputError: Anything wrong with what the user gave.
    """
    options = _parser().parse_args(arguments)
    _check(options)
    # Before the first import of JAX: XLA reads its flags once.
    process.apply_xla_flags()
    with sole_writer(options.output, "--output"):
        return _render(options)


def _render(options: argparse.Namespace) -> int:
    import jax

    from asccl_jax.data.aligned_frames import open_clips
    from asccl_jax.infer.rendering import render_clip
    from asccl_jax.weights import load_renderer
    from asccl_jax.work import claim_folder, growing_folder, is_made

    renderer = load_renderer(options.checkpoint)
    size = renderer.settings.image_size
    clips = open_clips(options.source, image_size=size, detail=options.detail, cache_bytes=0)
    chosen = [clips.entry(options.clip)] if options.clip is not None else _of_split(clips, options.split)
    settings = _settings(renderer, options)
    claim_folder(options.output, _SETTINGS_FILE, settings, overwrite=options.overwrite)
    decisive = {**settings, "chunk": options.chunk, "drawn": _facts_of_edit(options.conditioning)}
    renderer = jax.device_put(renderer)
    written = 0
    single = len(chosen) == 1  # a bar of its frames is enough for a single clip
    for clip in ProgressBar(chosen, unit="clip", disable=single):
        folder, made_of = options.output / clip.clip, {**decisive, "clip": clips.facts(clip.clip)}
        if is_made(folder, made_of) and not options.overwrite:
            continue
        with writing(folder), growing_folder(folder, made_of) as unfinished:
            read = _reader(clips, clip.clip, options.conditioning)
            frames = render_clip(renderer, read, clip.runs, unfinished, chunk=options.chunk)
            for _ in ProgressBar(frames, total=len(clip.frames), unit="frame", leave=single):
                written += 1
    sys.stdout.write(f"{options.output}: {len(chosen)} clips, {written} frames written\n")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=command_name(),
        description=_DESCRIPTION,
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add(
        "source",
        type=Path,
        metavar="SOURCE",
        help="records of asccl data reconstruct, or published folders of subjects",
    )
    add("--checkpoint", type=Path, required=True, metavar="DIR", help="renderer, or workdir of a run (its best)")
    add("--clip", metavar="ID", help="the clip (default: all of --split)")
    add("--split", default="validation", help="which clips without --clip (default: validation)")
    add("--conditioning", type=Path, metavar="DIR", help="pictures of an edit of --clip, in place of its own")
    add("--detail", action="store_true", help="the renderer was trained on surfaces with wrinkles")
    add("--chunk", type=int, default=16, metavar="N", help="frames computed in one go (default: 16)")
    add("--output", type=Path, required=True, metavar="DIR", help="folder for OUTPUT/CLIP/%%06d.png")
    add("--overwrite", action="store_true", help="render clips again that are already there")
    return parser


def _check(options: argparse.Namespace) -> None:
    if options.chunk < 1:
        raise InputError(f"--chunk {options.chunk}: expected at least 1")
    if options.conditioning is not None:
        if options.clip is None:
            raise InputError("--conditioning: belongs to one clip; say which with --clip")
        from asccl_jax.infer.rendering import check_edit

        check_edit(options.conditioning)


def _of_split(clips: AlignedClips, split: str) -> list[RenderedClip]:
    chosen = [clip for clip in clips.clips.values() if clip.split == split]
    if not chosen:
        found = ", ".join(sorted({clip.split for clip in clips.clips.values()}))
        raise InputError(f"--split {split}: no clip there; the source has {found}")
    return chosen


def _settings(renderer: Any, options: argparse.Namespace) -> dict[str, Any]:
    """What decides the result, for a later run to compare."""
    from asccl_jax.work import fingerprint

    edit = None if options.conditioning is None else os.fspath(options.conditioning)
    weights = fingerprint(renderer.params["generator"])
    told = {"source": os.fspath(options.source), "conditioning": edit, "detail": options.detail}
    return {**told, "weights": weights, "size": renderer.settings.image_size, "version": _VERSION}


def _facts_of_edit(folder: Path | None) -> list[Any]:
    """What changes when a picture of an edit does."""
    from asccl_jax.infer.rendering import STREAMS
    from asccl_jax.work import file_facts

    return [] if folder is None else file_facts(*(folder / name for name in STREAMS))


def _reader(clips: AlignedClips, clip: str, edit: Path | None) -> Callable[[int], AlignedFrame]:
    """Returns what reads a frame of a clip by its number, with its own conditioning or that of an edit."""
    from asccl_jax.infer.rendering import with_edit

    def read(number: int) -> AlignedFrame:
        frame = clips.read(clip, number)
        return frame if edit is None else with_edit(frame, edit, number)

    return read


if __name__ == "__main__":
    sys.exit(main())
