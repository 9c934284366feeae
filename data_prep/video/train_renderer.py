"""`asccl video train-renderer`: a video in, a renderer that has learnt the person in it out."""

from __future__ import annotations

import argparse
import json
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from asccl_jax.errors import InputError, exit_on_input_error
from asccl_jax.paths import as_argument, find_recipe, id_part
from asccl_jax.process import command_name
from asccl_jax.work import file_facts, require_writable_folder
from data_prep.video.input_checks import VideoCheck, check_disk, check_video, require_network, require_video
from data_prep.video.reconstruct_options import ReconstructOptions, add_reconstruct_options, reconstruct_options
from data_prep.video.stage_runs import (
    Stage,
    WorkFolder,
    digest,
    exit_status,
    outcome_table,
    python_words,
    run_stages,
    say,
)

__all__ = ["main"]

_DESCRIPTION = """\
Trains a renderer for the person in a video, for `asccl manipulate`. Frames are prepared and learnt in one go; the last
tenth, at least one sequence, is held out to score it by.
"""

_EXAMPLES = """\
examples:
  asccl video train-renderer talk.mp4                                           the published network; needs a GPU
  asccl video train-renderer talk.mp4 --config configs/renderer.py:demo         64 px, ten minutes on two CPU cores
  asccl video train-renderer talk.mp4 --from-renderer runs/many --metric runs/asccl --workdir runs/ann
  asccl video train-renderer talk.mp4 --config configs/renderer.py:demo --config.steps=900

Any entry of the recipe is an option, as of `asccl train`. Interrupted, the same command goes on.
Exit status: 0 done, 1 a stage failed, 2 bad input, 130 or 143 stopped by Ctrl-C or SIGTERM.
"""

_RECIPE = "configs/renderer.py"
_OF_RECIPE = "--config."
_MODEL = (
    *("image_size", "generator_width", "downsamplings", "residual_blocks", "roi_size", "mouth", "eyes"),
    *("discriminator_width", "discriminator_scales", "discriminator_layers"),
)
"""Fields of a renderer that a recipe gives."""
_FINE_TUNING_EPOCHS = 15


@exit_on_input_error
def main(arguments: Sequence[str] | None = None) -> int:
    """Trains a renderer and returns the exit status.

    Args:
      arguments: Words after the command's name; None takes those of the process.

    Raises:
      InputError: Anything wrong with what the user gave.
    """
    options, others = _parser().parse_known_args(arguments)
    unknown = [word for word in others if not word.startswith(_OF_RECIPE) or "=" not in word]
    if unknown:
        raise InputError(
            f"unexpected argument {unknown[0]!r}; see --help (entries of the recipe are --config.KEY=VALUE)"
        )
    return exit_status(lambda: _run(options, others))


def _run(options: argparse.Namespace, entries: Sequence[str]) -> int:
    video, reading = options.video, reconstruct_options(options)
    require_video(video, "VIDEO")
    reading.check(video)
    for directory, kind in ((options.from_renderer, "renderer"), (options.metric, "metric")):
        if directory is not None:
            require_network(directory, kind)
    recipe = _recipe(options.config)
    work = WorkFolder(
        (options.workdir or Path("runs") / id_part(reading.speaker or video.stem)).absolute(), "--workdir"
    )
    work.check()
    require_writable_folder(work.path, work.option)
    check = _checked(video, work, options)
    for remark in check.remarks(video):
        say(f"note: {remark}")
    if options.metric is None:
        say("note: no --metric: training without the supervision that the paper adds")
    stages = _stages(options, entries, reading, recipe=recipe, work=work.path)
    trained_on = {"key": digest(reading.depends(video), file_facts(options.metric, options.from_renderer))}
    with work.claimed() as held:
        if stages[-1].output.exists() and work.note("trained_on") not in ({}, trained_on):
            raise InputError(
                f"{work.option} {work.path}: the renderer there was trained on another video, or with other landmarks,"
                f" head, metric or renderer to start from; give another folder, or remove {stages[-1].output}"
            )
        work.write_note("trained_on", trained_on)
        work.write_note("input", {"key": _input_key(options), **check.to_json()})
        outcomes = run_stages(stages, work, shown=sys.stderr.buffer, say=say, held=[held])
    renderer = stages[-1].output
    sys.stdout.write(outcome_table(outcomes))
    report = renderer / "report" / "report.html"
    sys.stdout.write(f"renderer: {renderer}\n" + (f"report:   {report}\n" if report.is_file() else ""))
    sys.stdout.write(f"next:     {_next(options, renderer)}\n")
    return 0


def _stages(
    options: argparse.Namespace,
    entries: Sequence[str],
    reading: ReconstructOptions,
    *,
    recipe: str,
    work: Path,
) -> list[Stage]:
    records, run = work / "records", work / "renderer"
    words = [f"--config={recipe}", f"--workdir={run}", f"--config.data.dir={records}"]
    if options.metric is not None:
        words.append(f"--config.metric.path={options.metric}")
    if options.from_renderer is not None:
        words += _start_from(options.from_renderer)
    words += entries  # the last word counts
    depends = [words, file_facts(options.metric, options.from_renderer)]
    return [
        Stage("reconstruct", tuple(reading.words(options.video, records)), records, reading.depends(options.video)),
        # A run that is there goes on, or says what hinders it: training is never thrown away.
        Stage("train", tuple(python_words("asccl_jax.main", *words)), run, depends, inside=False),
    ]


def _start_from(directory: Path) -> list[str]:
    """Entries of the recipe with which it goes on from a renderer: its weights, and networks of its sizes."""
    found = require_network(directory, "renderer")
    try:
        settings = json.loads((found / "renderer.json").read_text(encoding="utf-8"))["settings"]
        sizes = [f"--config.model.{name}={settings[name]}" for name in _MODEL]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"--from-renderer {directory}: its renderer.json cannot be read ({error})") from error
    return [f"--config.init_from={directory}", f"--config.epochs={_FINE_TUNING_EPOCHS}", *sizes]


def _recipe(words: str) -> str:
    """Returns the recipe as training finds it."""
    found = find_recipe(words)
    if found is None:
        raise InputError(f"--config {words}: no such recipe; expected {_RECIPE}, or {_RECIPE}:demo to try")
    return found


def _checked(video: Path, work: WorkFolder, options: argparse.Namespace) -> VideoCheck:
    note = work.note("input")
    if note.pop("key", None) == _input_key(options):
        return VideoCheck.from_json(note)
    say("looking at the input ...")
    check = check_video(video, "VIDEO", keep_cuts=options.keep_cuts)
    reconstruct_options(options).check_landmarks(video, check.frames)
    check_disk(work.path, check.frames, work.option)
    return check


def _input_key(options: argparse.Namespace) -> str:
    return digest(file_facts(options.video), options.keep_cuts)


def _next(options: argparse.Namespace, renderer: Path) -> str:
    """The command that makes use of the renderer."""
    words = ["asccl", "manipulate", as_argument(options.video), "--emotion", "happy", "--renderer", str(renderer)]
    for name in ("speaker", "landmark_table", "landmarks_dir", "mediapipe_python", "assets"):
        if getattr(options, name):
            words += [f"--{name.replace('_', '-')}", str(getattr(options, name))]
    for name, usual in (("landmarks", "face-alignment"), ("encoder", "landmarks")):
        if getattr(options, name) != usual:
            words += [f"--{name}", getattr(options, name)]
    return shlex.join([*words, "-o", as_argument(Path(f"{options.video.stem}_happy.mp4"))])


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=command_name(),
        description=_DESCRIPTION,
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = parser.add_argument
    add(
        "video", type=Path, metavar="VIDEO", help="one scene of one person; a minute or more is better than ten seconds"
    )
    add(
        "--from-renderer",
        type=Path,
        metavar="DIR",
        help="renderer of many people to start from (default: from nothing)",
    )
    add("--metric", type=Path, metavar="DIR", help="trained metric that supervises the frames (default: none)")
    add("--workdir", type=Path, metavar="DIR", help="folder for records and renderer (default: runs/NAME)")
    add("--config", default=_RECIPE, metavar="FILE[:VARIANT]", help=f"recipe (default: {_RECIPE})")
    add("--keep-cuts", action="store_true", help="take a video that seems to have several scenes")
    add_reconstruct_options(parser)
    return parser


if __name__ == "__main__":
    sys.exit(main())
