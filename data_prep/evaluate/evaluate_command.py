"""`asccl evaluate`: scores manipulated videos as the papers do, and in ways that do not depend on licensed networks."""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from asccl_jax import process
from asccl_jax.errors import InputError, exit_on_input_error, writing
from asccl_jax.process import command_name
from asccl_jax.progress import ProgressBar
from asccl_jax.work import sole_writer

if TYPE_CHECKING:
    from data_prep.evaluate.inputs import ClipSet

__all__ = ["main"]

_DESCRIPTION = """\
Scores manipulated videos against what they were made from and against real clips: Frechet distances, expression and
identity similarity, lip synchrony, lip landmarks, lag, emotion accuracy, jitter, PSNR and SSIM where the truth exists.
Writes evaluation.json, table.md and report.html. A network or landmark file that is not there costs its own metrics.
"""

_EPILOG = """\
clips are given as a folder with clips.csv or such a file (path,speaker,emotion,sentence and, if wanted, take, audio,
landmarks, source, driver, truth; paths relative to the file), as EMOTION/SPEAKER/CLIP.mp4 or
EMOTION/SPEAKER[/CLIP]/%06d.png, or as one video. The emotion of a manipulated clip is the one that was asked for. Its
source is the clip that its list names, else the --source clip of the same speaker and sentence; its truth is the clip
that its list names, else the --real clip of the same speaker, sentence and emotion, if it has as many frames.

examples:
  asccl evaluate --real MEAD_faces --fake out --source neutral_faces --report report
  asccl evaluate --real real.csv --fake fake.csv --source source.csv --report report --map cross \\
      --resnet-face nets/resnet-face --efficient-face nets/efficient-face --syncnet nets/syncnet
  networks come from `asccl convert resnet-face|efficient-face|arcface|syncnet FILE DIR`
"""

_NETWORKS = ("resnet-face", "efficient-face", "arcface", "syncnet")
_DEFAULT_LANDMARKS = ("precomputed",)


@exit_on_input_error
def main(arguments: Sequence[str] | None = None) -> int:
    """Evaluates what the command line names and returns the exit status: 0, or 2 for bad input.

    Args:
      arguments: Words after the command's name; None takes those of the process.

    Raises:
      InputError: Anything wrong with what the user gave.
    """
    options = _parser().parse_args(arguments)
    _check(options)
    # Before the first import of JAX: XLA reads its flags once.
    process.apply_xla_flags()
    with sole_writer(options.report, "--report"):
        return _evaluate(options)


def _evaluate(options: argparse.Namespace) -> int:
    import dataclasses

    from data_prep.evaluate.evaluation import evaluate
    from data_prep.evaluate.evaluation_run import EvaluationSettings
    from data_prep.evaluate.inputs import read_clips
    from data_prep.evaluate.landmark_sources import LandmarkFinder
    from data_prep.evaluate.score_cache import Fingerprints
    from data_prep.evaluate.shown_clips import shown_clips
    from data_prep.evaluate.video_features import load_networks
    from data_prep.evaluate.video_report import to_text, write_video_report
    from data_prep.media.landmarks import LandmarkSettings

    started = time.monotonic()
    real = read_clips(options.real, "--real", default_emotion="neutral")
    fake = read_clips(options.fake, "--fake")
    source = None if options.source is None else read_clips(options.source, "--source", default_emotion="neutral")
    networks = load_networks({name: getattr(options, name.replace("-", "_")) for name in _NETWORKS})
    finder = LandmarkFinder(
        options.landmarks,
        LandmarkSettings(directory=options.landmarks_dir, mediapipe_python=options.mediapipe_python),
        Fingerprints(),
    )
    settings = EvaluationSettings(
        setting=options.map,
        limit=options.limit,
        allow_lengths=options.allow_lengths,
        crop=options.crop,
        threads=options.threads,
    )
    _say_missing(networks.missing)
    _say_problems(real, fake, source)
    with ProgressBar(unit="step") as bar:
        evaluation, scored = evaluate(
            fake,
            real,
            source,
            networks,
            finder,
            work=options.report / "work",
            settings=settings,
            advance=bar.update,
            begin=lambda count: bar.reset(total=count),
        )
    finder.close()
    measured_s = time.monotonic() - started
    seen = _seen(options.trained_on, {clip.speaker for clip in evaluation.clips})
    evaluation = dataclasses.replace(
        evaluation, caveats=(*evaluation.caveats, *seen), shown=shown_clips(scored, most=options.show)
    )
    with writing(options.report):
        page = write_video_report(options.report, evaluation)
        seconds = {"measuring_s": round(measured_s, 1), "whole_s": round(time.monotonic() - started, 1)}
        (options.report / "timings.json").write_text(json.dumps(seconds, indent=1) + "\n", encoding="utf-8")
    told = "".join(f"NOTE: {remark}\n" for remark in seen)
    sys.stdout.write(f"{to_text(evaluation)}\n{told}page: {page}\n")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=command_name(),
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--real", type=Path, required=True, metavar="PATH", help="real clips of the same speakers, in the emotions")
    add("--fake", type=Path, required=True, metavar="PATH", help="manipulated clips, by the emotion asked for")
    add("--source", type=Path, metavar="PATH", help="what they were made from")
    add(
        "--trained-on",
        type=Path,
        action="append",
        default=[],
        metavar="DIR",
        help="run of a network that made --fake, or records that it was trained on: the page says if it had seen the"
        " speakers scored here; repeatable",
    )
    add("--report", type=Path, required=True, metavar="DIR", help="where everything goes; DIR/work keeps results")
    for name in _NETWORKS:
        add(f"--{name}", type=Path, metavar="DIR", help=f"network made by `asccl convert {name} FILE DIR`")
    add(
        "--landmarks",
        nargs="+",
        default=list(_DEFAULT_LANDMARKS),
        metavar="SOURCE",
        help="where landmarks come from, the first that has them: precomputed (npz beside a video), face-alignment,"
        " mediapipe, probe (reads mouths off generated faces; trained on the real clips with landmarks)"
        " (default: precomputed)",
    )
    add("--landmarks-dir", type=Path, metavar="DIR", help="folder of precomputed files (default: beside the videos)")
    add("--mediapipe-python", type=Path, metavar="FILE", help="Python of the environment that has MediaPipe")
    add("--map", choices=("intra", "cross"), help="check that the clips are those of the papers' driver map")
    add("--crop", action="store_true", help="show networks the face, cut out by its landmarks (whole scenes need it)")
    add("--allow-lengths", action="store_true", help="score the first frames that clip and source both have")
    add("--limit", type=int, metavar="N", help="most clips of each side (default: all)")
    add("--show", type=int, default=6, metavar="N", help="most clips on the page (default: 6)")
    add("--threads", type=int, default=_threads(), metavar="N", help=f"clips at a time (default: {_threads()})")
    return parser


def _threads() -> int:
    return min(2, len(os.sched_getaffinity(0)))


def _check(options: argparse.Namespace) -> None:
    for name, least in (("limit", 1), ("show", 0), ("threads", 1)):
        value = getattr(options, name)
        if value is not None and value < least:
            raise InputError(f"--{name} {value}: expected at least {least}")
    for folder in options.trained_on:
        if not folder.is_dir():
            raise InputError(f"--trained-on {folder}: no such folder; give a training run, or the records of one")


def _seen(folders: Sequence[Path], speakers: Collection[str]) -> list[str]:
    """What the folders tell of whether the clips were made by networks that had learnt these very speakers."""
    from asccl_jax.data.test_speakers import leak_remarks

    if not folders:
        return ["nobody knows whether what made the clips had learnt these speakers (--trained-on RUN)"]
    return leak_remarks({folder.name: folder for folder in folders}, speakers)


def _say_missing(missing: Mapping[str, str]) -> None:
    if missing:
        names = ", ".join(f"--{name}" for name in missing)
        sys.stderr.write(f"without {names}: their metrics are left out; how to get them stands at the end\n")


def _say_problems(*sets: ClipSet | None) -> None:
    for one in filter(None, sets):
        for problem in one.problems:
            sys.stderr.write(f"{one.option}: {problem.subject}: {problem.reason}\n")


if __name__ == "__main__":
    sys.exit(main())
