"""`asccl eval metric`: scores checkpoints of the metric against baselines on the comparisons of a data set."""

from __future__ import annotations

import argparse
import dataclasses
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
    from asccl_jax.evals.metric_evaluation import Candidate

__all__ = ["main"]

_DESCRIPTION = """\
Scores a trained metric on frames of known difference and prints one table with its baselines: the same network
untrained, and plain pixel differences. Data sets with controlled comparisons (synthetic heads) are used as they are;
for recordings, comparisons are derived from the aligned pairs. Writes scores.json, table.md and report.html.
"""

_EXAMPLE = """\
examples:
  asccl eval metric --checkpoint runs/demo --records records --output evaluation
  asccl eval metric --checkpoint runs/demo --also seed1=runs/seed1 --control runs/mispaired \\
      --records records --limit 120 --output evaluation
  asccl eval metric --checkpoint runs/demo --records real --clip-query W015/neutral/039 \\
      --clip-keys W015/happy/039/ours,W015/happy/039/ned
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
    if options.clip_query is not None:
        return _compare_clips(options)
    with sole_writer(options.output, "--output"):
        return _evaluate(options)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=command_name(),
        description=_DESCRIPTION,
        epilog=_EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--checkpoint", type=Path, required=True, metavar="DIR", help="metric, or workdir of a training run (its best)")
    add("--name", default="trained", help="heading of its row (default: trained)")
    add("--also", action="append", default=[], metavar="NAME=DIR", help="a further metric; may be given repeatedly")
    add("--control", type=Path, metavar="DIR", help="a metric trained on mis-paired frames, which must do worse")
    add("--records", type=Path, required=True, metavar="DIR", help="data set made by asccl prepare")
    add(
        "--split",
        help="split to use (default: comparisons if there is one, else test if there is one, else validation)",
    )
    add("--limit", type=int, metavar="N", help="most queries, evenly spaced (default: all; of derived ones 200)")
    add("--draws", type=int, default=8, metavar="N", help="fixed draws of locations to average (default: 8)")
    add("--output", type=Path, metavar="DIR", help="where scores.json, table.md and report.html go")
    add("--clip-query", metavar="CLIP", help="compare this clip frame by frame, instead of the table")
    add("--clip-keys", metavar="CLIP,CLIP", help="with the clips of these ids")
    return parser


def _check(options: argparse.Namespace) -> None:
    for name in ("limit", "draws"):
        value = getattr(options, name)
        if value is not None and value < 1:
            raise InputError(f"--{name} {value}: expected at least 1")
    if (options.clip_query is None) != (options.clip_keys is None):
        raise InputError("--clip-query and --clip-keys belong together: give both")
    if options.clip_query is None and options.output is None:
        raise InputError("--output DIR is missing: say where the table and the page go")
    for entry in options.also:
        if not all(entry.partition("=")):
            raise InputError(f"--also {entry!r}: expected NAME=DIR")


def _evaluate(options: argparse.Namespace) -> int:
    from asccl_jax.data.frames import FrameStore
    from asccl_jax.data.test_speakers import scored_on
    from asccl_jax.evals.metric_comparisons import load_comparisons
    from asccl_jax.evals.metric_evaluation import evaluate, work_units
    from asccl_jax.evals.metric_report import write_evaluation
    from asccl_jax.evals.metric_text import text

    comparisons = load_comparisons(options.records, split=options.split, limit=options.limit)
    candidates = _candidates(options, comparisons.split)
    frames = FrameStore(options.records, comparisons.split)
    with ProgressBar(total=work_units(candidates, comparisons), unit="image") as bar:
        evaluation = evaluate(candidates, frames, comparisons, draws=options.draws, advance=bar.update)
    told = scored_on(
        comparisons.split,
        {frames.index.clips[record.query_clip].speaker for record in comparisons.records},
        {one.name: one.source for one in candidates if one.kind != "untrained"},
    )
    page = write_evaluation(options.output, evaluation, told=told)
    sys.stdout.write(f"{text(evaluation.table)}\n{told}\npage: {page}\n")
    return 0


def _compare_clips(options: argparse.Namespace) -> int:
    from asccl_jax.data.frames import FrameStore
    from asccl_jax.evals.metric_evaluation import clip_comparisons, clip_grid, clip_losses
    from asccl_jax.evals.metric_scores import count_images
    from asccl_jax.evals.metric_text import align
    from asccl_jax.evals.report import json_text

    split = options.split or _split_of_clip(options.records, options.clip_query)
    frames = FrameStore(options.records, split)
    comparisons = clip_comparisons(frames, options.clip_query, options.clip_keys.split(","))
    candidates = _candidates(options, split)
    with ProgressBar(total=len(candidates) * count_images(comparisons), unit="image") as bar:
        losses = clip_losses(candidates, frames, comparisons, draws=options.draws, advance=bar.update)
    grid = clip_grid(options.clip_query, losses)
    sys.stdout.write(f"{grid.title}\n{grid.note}\n\n{align(grid.headings, grid.rows)}\n")
    if options.output is not None:
        options.output.mkdir(parents=True, exist_ok=True)
        content = json_text([dataclasses.asdict(loss) for loss in losses])
        (options.output / "clips.json").write_text(content, encoding="utf-8")
    return 0


def _split_of_clip(records: Path, clip: str) -> str:
    from asccl_jax.data.manifest import read_manifest

    manifest = read_manifest(records)
    if clip not in manifest.clips:
        known = ", ".join(sorted(manifest.clips)[:8])
        raise InputError(f"--clip-query {clip!r}: {records} has no such clip; it has {known}, ...")
    return manifest.clips[clip].split


def _candidates(options: argparse.Namespace, split: str) -> list[Candidate]:
    """The metrics of the command line, and the untrained network last."""
    from asccl_jax.evals.metric_evaluation import Candidate
    from asccl_jax.evals.metric_scores import untrained_metric
    from asccl_jax.weights import load_metric

    trained = load_metric(options.checkpoint)
    found = [Candidate(options.name, "trained", trained, os.fspath(options.checkpoint))]
    for entry in options.also:
        name, _, directory = entry.partition("=")
        found.append(Candidate(name, "other", load_metric(directory), directory))
    if options.control is not None:
        found.append(Candidate("mis-paired", "control", load_metric(options.control), os.fspath(options.control)))
    initial = options.checkpoint / "initial"
    if initial.is_dir():
        untrained, source = load_metric(initial), os.fspath(initial)
    else:
        untrained = untrained_metric(trained.settings, options.records, split=split)
        source = "random weights of seed 0, statistics of 40 passes"
    return [*found, Candidate("untrained", "untrained", untrained, source)]


if __name__ == "__main__":
    sys.exit(main())
