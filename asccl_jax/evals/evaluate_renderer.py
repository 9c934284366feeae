"""`asccl eval renderer`: scores renderers on held-out clips and on manipulated ones whose exact truth is known."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from asccl_jax import process
from asccl_jax.errors import InputError, exit_on_input_error
from asccl_jax.process import command_name
from asccl_jax.progress import ProgressBar
from asccl_jax.work import sole_writer

if TYPE_CHECKING:
    from asccl_jax.evals.renderer_evaluation import Candidate

__all__ = ["main"]

_DESCRIPTION = """\
Draws held-out clips from their own conditioning and, with --edits, held-out neutral clips with the expression of the
same performance in an emotion, and compares both with the true frames: PSNR, SSIM, mouth error, landmark distance.
Writes scores.json, table.md and report.html.
"""

_EXAMPLE = """\
examples:
  asccl eval renderer --checkpoint runs/renderer --records RECORDS --output evaluation
  asccl data edit-conditioning RECORDS --twins --output EDITS
  asccl eval renderer --checkpoint runs/with_metric --name "with metric" --also "without=runs/without" \\
      --records RECORDS --edits EDITS --output evaluation
"""


@exit_on_input_error
def main(arguments: Sequence[str] | None = None) -> int:
    """Evaluates what the command line asks for and returns the exit status: 0, or 2 for bad input.

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
        return _evaluate(options)


def _evaluate(options: argparse.Namespace) -> int:
    from asccl_jax.data.aligned_frames import open_clips
    from asccl_jax.data.test_speakers import reported_split, scored_on
    from asccl_jax.evals.renderer_evaluation import evaluate, fitted_probe
    from asccl_jax.evals.renderer_report import to_text, write_evaluation
    from asccl_jax.evals.renderer_scores import RenderRecords

    candidates = _candidates(options)
    size = candidates[0].renderer.settings.image_size
    clips = open_clips(options.records, image_size=size, detail=options.detail, cache_bytes=1 << 28)
    split = options.split or reported_split({clip.split for clip in clips.clips.values()})
    records, probe = None, None
    if options.edits is not None:
        records = RenderRecords(options.records)
        probe = fitted_probe(options.probes or options.output, clips, records)
    with ProgressBar(unit="clip") as bar:
        evaluation = evaluate(
            candidates,
            clips,
            records=records,
            edits=options.edits,
            probe=probe,
            split=split,
            limit=options.limit,
            advance=bar.update,
        )
    told = scored_on(
        split,
        {clip.speaker for clip in clips.clips.values() if clip.split == split},
        {one.name: one.source for one in candidates},
    )
    page = write_evaluation(options.output, evaluation, told=told)
    sys.stdout.write(f"{to_text(evaluation)}\n{told}\npage: {page}\n")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=command_name(),
        description=_DESCRIPTION,
        epilog=_EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--checkpoint", type=Path, required=True, metavar="DIR", help="renderer, or workdir of a run (its best)")
    add("--name", default="trained", help="heading of its row (default: trained)")
    add("--also", action="append", default=[], metavar="NAME=DIR", help="a further renderer; repeatable")
    add(
        "--records",
        type=Path,
        required=True,
        metavar="DIR",
        help="records of asccl data reconstruct, or subjects' folders",
    )
    add("--edits", type=Path, metavar="DIR", help="made by `asccl data edit-conditioning RECORDS --twins`")
    add("--detail", action="store_true", help="the renderers were trained on surfaces with wrinkles")
    add("--split", help="which clips (default: test if there are any, else validation)")
    add("--limit", type=int, metavar="N", help="most clips drawn from their own conditioning (default: all)")
    add("--probes", type=Path, metavar="DIR", help="where the landmark probe is kept (default: --output)")
    add("--output", type=Path, required=True, metavar="DIR", help="where scores.json, table.md and report.html go")
    return parser


def _check(options: argparse.Namespace) -> None:
    if options.limit is not None and options.limit < 1:
        raise InputError(f"--limit {options.limit}: expected at least 1")
    for entry in options.also:
        if not all(entry.partition("=")):
            raise InputError(f"--also {entry!r}: expected NAME=DIR")
    if options.edits is not None and not options.edits.is_dir():
        raise InputError(
            f"--edits {options.edits}: no such folder; make it with `asccl data edit-conditioning RECORDS --twins`"
        )


def _candidates(options: argparse.Namespace) -> list[Candidate]:
    from asccl_jax.evals.renderer_evaluation import Candidate
    from asccl_jax.weights import load_renderer

    asked = [(options.name, os.fspath(options.checkpoint))]
    asked += [(name, directory) for name, _, directory in (entry.partition("=") for entry in options.also)]
    return [Candidate(name, load_renderer(directory), directory) for name, directory in asked]


if __name__ == "__main__":
    sys.exit(main())
