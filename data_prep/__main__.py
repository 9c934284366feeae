"""Command line of the preparation: `asccl prepare INPUT --layout mead|ravdess|list --output DIR`."""

from __future__ import annotations

import argparse
import logging
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from asccl_jax.errors import InputError, exit_on_input_error
from asccl_jax.process import command_name
from asccl_jax.work import sole_writer
from data_prep.media.landmarks import BACKENDS, LandmarkSettings
from data_prep.media.layouts import LAYOUTS, named_speakers
from data_prep.prepare.alignment import AlignmentSettings
from data_prep.prepare.clip_records import ClipSettings
from data_prep.prepare.preparation import prepare
from data_prep.prepare.prepare_report import summarise
from data_prep.prepare.prepare_settings import Preparation, RunnerSettings

__all__ = ["main"]

_EXAMPLES = """examples:
  MEAD as downloaded, with face-alignment's landmarks, W021 held out and the papers' six speakers kept to report on:
    asccl prepare /data/MEAD --layout mead --output records/mead
  the pairs of the published list instead of one's own alignment:
    asccl prepare /data/MEAD --layout mead --output records/mead --pairs-from aligned_path36.json
  one's own videos, named in a CSV file with the columns path,speaker,emotion,sentence[,split][,take]:
    asccl prepare clips.csv --layout list --output records/own --landmarks precomputed
  RAVDESS on a Flink cluster whose workers see the output directory:
    asccl prepare /data/RAVDESS --layout ravdess --output /shared/ravdess \\
        --runner FlinkRunner --beam-options "--flink_master=host:8081 --environment_type=LOOPBACK"

An interrupted run goes on where it stopped when the same command is given again. OUTPUT/report/report.html tells what
became of every clip. Exit status: 0 done, 2 bad input, 130 interrupted."""


@exit_on_input_error
def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a preparation and returns the exit status.

    Args:
      arguments: Words of the command line; None takes those of the process.

    Raises:
      InputError: Something the user gave is wrong.
    """
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    options = _parser().parse_args(arguments)
    try:
        settings = _settings(options)
        with sole_writer(options.output, "--output"):
            outcome = prepare(settings, progress=not options.quiet)
    except KeyboardInterrupt:
        sys.stderr.write("\ninterrupted; give the same command again to go on\n")
        return 130
    figures = summarise(outcome)
    clips, frames, pairs = figures["clips"], figures["frames"], figures["pairs"]
    left_out = pairs["left_out_by_cost"]
    sys.stdout.write(
        f"{options.output}: {clips['kept']} of {clips['found']} clips, {frames['kept']:,} frames"
        f" ({frames['dropped']:,} dropped), {pairs['count']} pairs of clips, {pairs['aligned_frames']:,} of frames\n"
        + (
            f"{left_out} more pairs are left out: their cost stands out (--keep-costly keeps them)\n"
            if left_out
            else ""
        )
        + f"report: {outcome.settings.output / 'report' / 'report.html'}\n"
    )
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=command_name(),
        description="Turns videos of people saying the same sentences in several emotions into training records.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("input", type=Path, help="folder of the videos; for --layout list, a CSV file")
    parser.add_argument("--layout", required=True, choices=LAYOUTS, help="how the input is laid out")
    parser.add_argument("--output", required=True, type=Path, help="directory of the data set to make")
    parser.add_argument("--name", default="", help="name of the data set (default: that of the input)")
    parser.add_argument("--quiet", action="store_true", help="no progress bar")

    frames = parser.add_argument_group("frames")
    frames.add_argument("--image-size", type=int, default=224, help="side of the stored crops in pixels (224)")
    frames.add_argument(
        "--crop", choices=("corrected", "released"), default="corrected", help="face crop, see data_prep/media/crop.py"
    )
    frames.add_argument("--fps", type=float, help="resample clips to this frame rate (default: keep every frame)")
    frames.add_argument("--image-fps", type=float, default=30.0, help="frame rate of folders of images (30)")
    frames.add_argument("--max-frames", type=int, help="cut clips off after this many frames")
    frames.add_argument("--mead-levels", default="3", help="MEAD intensities to take, as 3 or 1,2,3 (3)")

    faces = parser.add_argument_group("landmarks")
    faces.add_argument("--landmarks", choices=BACKENDS, default="face-alignment", help="back end (face-alignment)")
    faces.add_argument(
        "--landmarks-dir", type=Path, help="folder of precomputed npz files (default: beside the videos)"
    )
    faces.add_argument("--mediapipe-python", type=Path, help="Python of the environment that has MediaPipe 0.10.21")
    faces.add_argument("--device", default="auto", help="PyTorch device of face-alignment (auto)")

    pairs = parser.add_argument_group("pairs and splits")
    pairs.add_argument("--transcripts", type=Path, help="CSV with the columns speaker,emotion,clip,sentence")
    pairs.add_argument("--pairs-from", type=Path, help="take the pairs of this JSON file (layout aligned_path36.json)")
    pairs.add_argument("--export-pairs", type=Path, help="write the aligned pairs in that layout")
    pairs.add_argument(
        "--max-cost", type=float, help="drop pairs aligned at a greater mean cost (0 to 2; default: none)"
    )
    pairs.add_argument(
        "--keep-costly", action="store_true", help="keep pairs that cost much more than the others (default: left out)"
    )
    pairs.add_argument("--band", type=float, default=0.25, help="reach of a path off the diagonal, 0 to 1 (0.25)")
    pairs.add_argument("--max-hold", type=int, default=2, help="stretch speech at most this plus 1 times (2)")
    pairs.add_argument("--validation-speakers", default="", help="speakers held out to select by, as W021,M031")
    pairs.add_argument(
        "--test-speakers",
        help="speakers kept to report on, as M003,W015, or none (default: those of the papers for mead and ravdess, or"
        " what the list marks)",
    )

    work = parser.add_argument_group("where it runs")
    work.add_argument("--workers", type=int, default=_cores(), help="processes of the local runner (all cores)")
    work.add_argument("--shard-size", type=float, default=128, help="size of a shard in MB (128)")
    work.add_argument("--runner", default="local", help="Apache Beam runner, as FlinkRunner (default: this machine)")
    work.add_argument("--beam-options", default="", help="further options of Beam, in one quoted string")
    work.add_argument("--keep-work", action="store_true", help="keep OUTPUT/work, of no use once all is done")
    return parser


def _settings(options: argparse.Namespace) -> Preparation:
    try:
        levels = tuple(int(level) for level in options.mead_levels.split(","))
    except ValueError as error:
        raise InputError(f"--mead-levels {options.mead_levels}: expected numbers, as 3 or 1,2,3") from error
    landmarks = LandmarkSettings(
        backend=options.landmarks,
        directory=options.landmarks_dir,
        mediapipe_python=options.mediapipe_python,
        device=options.device,
    )
    return Preparation(
        source=options.input,
        layout=options.layout,
        output=options.output,
        name=options.name,
        clips=ClipSettings(
            image_size=options.image_size,
            crop=options.crop,
            fps=options.fps,
            image_fps=options.image_fps,
            max_frames=options.max_frames,
            landmarks=landmarks,
        ),
        alignment=AlignmentSettings(band=options.band, max_hold=options.max_hold),
        max_cost=options.max_cost,
        keep_costly=options.keep_costly,
        levels=levels,
        transcripts=options.transcripts,
        pairs_from=options.pairs_from,
        pairs_to=options.export_pairs,
        validation_speakers=named_speakers(options.validation_speakers),
        test_speakers=None if options.test_speakers is None else named_speakers(options.test_speakers),
        shard_bytes=int(options.shard_size * 1e6),
        runner=RunnerSettings(workers=options.workers, runner=options.runner, beam_options=options.beam_options),
        keep_work=options.keep_work,
    )


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


if __name__ == "__main__":
    sys.exit(main())
