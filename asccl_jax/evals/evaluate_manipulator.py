"""`asccl eval manipulator`: scores checkpoints of the manipulator against the exact truth of synthetic speakers."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from asccl_jax import process
from asccl_jax.data.manifest import evenly_spaced
from asccl_jax.errors import InputError, exit_on_input_error
from asccl_jax.head.head_model import HEAD_NAME
from asccl_jax.process import command_name
from asccl_jax.progress import ProgressBar
from asccl_jax.work import sole_writer

if TYPE_CHECKING:
    from asccl_jax.evals.manipulator_scores import Candidate

__all__ = ["main"]

_DESCRIPTION = """\
Edits held-out neutral clips to every emotion, by label and by reference, and compares them with the truth: emotion
reached, jaw correlation with the source, error of the mouth. Writes scores.json, table.md and report.html.
"""

_EXAMPLE = """\
examples:
  asccl head export --output head.npz
  asccl eval manipulator --checkpoint runs/manipulator --tracks tracks --head head.npz --output evaluation
  asccl eval manipulator --checkpoint runs/with_metric --name "with metric" --also "without=runs/without" \\
      --tracks tracks --output evaluation
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
    from asccl_jax.data.test_speakers import scored_on
    from asccl_jax.data.tracks import read_truth
    from asccl_jax.evals.manipulator_report import to_text, write_evaluation
    from asccl_jax.evals.manipulator_scores import evaluate
    from asccl_jax.head.head_model import load_head_model

    deliveries = evenly_spaced(read_truth(options.tracks), options.limit)
    candidates = _candidates(options)
    head_path = options.head or options.tracks / HEAD_NAME
    head = load_head_model(head_path) if options.head is not None or head_path.is_file() else None
    ways = len(candidates) * (1 if options.no_references else 2) + 1
    with ProgressBar(total=ways * len(deliveries), unit="clip") as bar:
        evaluation = evaluate(
            candidates,
            deliveries,
            head=head,
            seed=options.seed,
            references=not options.no_references,
            advance=bar.update,
        )
    told = scored_on("validation", {one.speaker for one in deliveries}, {one.name: one.source for one in candidates})
    page = write_evaluation(options.output, evaluation, told=told)
    sys.stdout.write(f"{to_text(evaluation)}\n{told}\npage: {page}\n")
    if head is None:
        sys.stdout.write("no head, so neither mouth errors nor faces: give --head, made by asccl head export\n")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=command_name(),
        description=_DESCRIPTION,
        epilog=_EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--checkpoint", type=Path, required=True, metavar="DIR", help="manipulator, or workdir of a run (its best)")
    add("--name", default="trained", help="heading of its row (default: trained)")
    add("--also", action="append", default=[], metavar="NAME=DIR", help="a further manipulator; repeatable")
    add(
        "--tracks", type=Path, required=True, metavar="DIR", help="made by asccl data synthesise tracks, with its truth"
    )
    add("--head", type=Path, metavar="FILE", help=f"head to measure and draw with (default: {HEAD_NAME} of --tracks)")
    add("--seed", type=int, default=0, metavar="N", help="of the noise that labels' styles are made from (default: 0)")
    add("--limit", type=int, metavar="N", help="most clips, evenly spaced (default: all)")
    add("--no-references", action="store_true", help="leave out edits after clips of other speakers")
    add("--output", type=Path, required=True, metavar="DIR", help="where scores.json, table.md and report.html go")
    return parser


def _check(options: argparse.Namespace) -> None:
    if options.limit is not None and options.limit < 1:
        raise InputError(f"--limit {options.limit}: expected at least 1")
    for entry in options.also:
        if not all(entry.partition("=")):
            raise InputError(f"--also {entry!r}: expected NAME=DIR")
    if options.head is not None and not options.head.is_file():
        raise InputError(f"--head {options.head}: no such file; make it with asccl head export")


def _candidates(options: argparse.Namespace) -> list[Candidate]:
    from asccl_jax.data.tracks import COEFFICIENTS
    from asccl_jax.evals.manipulator_scores import Candidate
    from asccl_jax.weights import load_manipulator

    asked = [(options.name, os.fspath(options.checkpoint))]
    asked += [(name, directory) for name, _, directory in (entry.partition("=") for entry in options.also)]
    found = [Candidate(name, load_manipulator(directory), directory) for name, directory in asked]
    for candidate in found:
        size = candidate.manipulator.settings.coefficients
        if size != COEFFICIENTS:
            raise InputError(f"manipulator {candidate.source}: edits {size} coefficients, tracks have {COEFFICIENTS}")
    return found


if __name__ == "__main__":
    sys.exit(main())
