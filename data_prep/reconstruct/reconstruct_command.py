"""Command line of the reconstruction: `asccl data reconstruct INPUT --output DIR`."""

from __future__ import annotations

import argparse
import contextlib
import logging
import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from asccl_jax.data.manifest import read_manifest
from asccl_jax.errors import InputError, exit_on_input_error, require_torch
from asccl_jax.process import command_name
from asccl_jax.work import require_writable_folder, sole_writer
from data_prep.head_fit.landmark_tables import TABLE_NAMES
from data_prep.media.landmarks import BACKENDS, LandmarkSettings
from data_prep.media.layouts import named_speakers
from data_prep.prepare.prepare_settings import RunnerSettings
from data_prep.reconstruct.clip_inputs import detect_layout
from data_prep.reconstruct.reconstruct_report import summarise
from data_prep.reconstruct.reconstruct_settings import (
    ENCODERS,
    INPUT_LAYOUTS,
    OUTPUT_LAYOUTS,
    EncoderSettings,
    Reconstruction,
    TrackSettings,
)
from data_prep.reconstruct.reconstruction import reconstruct
from data_prep.reconstruct.work import available_cores

__all__ = ["main"]

_EXAMPLES = """examples:
  synthetic heads, of which the landmarks are known exactly:
    asccl data reconstruct heads/clips.csv --output codes --landmarks precomputed --landmark-table synthetic
  one video, landmarks by face-alignment:
    asccl data reconstruct talk.mp4 --output talk
  records of `asccl prepare`, which hold their landmarks already:
    asccl data reconstruct records/mead --output codes/mead --landmark-table face-alignment
  with the licensed files, DECA itself, in NED's folders:
    asccl data reconstruct talk.mp4 --output ned --encoder deca --assets DECA/data --layout-out folders

Labelled input (a list, MEAD, RAVDESS, records) gives each speaker a shape from the neutral clips. OUTPUT/codes holds a
code dict a clip, OUTPUT/tracks its landmarks, flags and alignment, OUTPUT/report/report.html what became of every clip.
An interrupted run goes on where it stopped when the same command is given again. With --shard I/N each of N machines
does its part into one output directory; the same command without --shard then finishes the data set.
Exit status: 0 done, 2 bad input, 130 interrupted."""


@exit_on_input_error
def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a reconstruction and returns the exit status.

    Args:
      arguments: Words of the command line; None takes those of the process.

    Raises:
      InputError: Something the user gave is wrong.
    """
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    options = _parser().parse_args(arguments)
    # Before the input is searched, which may take long.
    require_writable_folder(options.output)
    settings = _settings(options)
    try:
        with _held(settings):
            outcome = reconstruct(settings, progress=not options.quiet)
    except KeyboardInterrupt:
        sys.stderr.write("\ninterrupted; give the same command again to go on\n")
        return 130
    figures = summarise(outcome)
    clips, frames = figures["clips"], figures["frames"]
    what = f"{clips['kept']} of {clips['found']} clips, {frames['written']:,} frames"
    if settings.shard[1] > 1:
        part, parts = settings.shard
        sys.stdout.write(
            f"{options.output}: part {part} of {parts} is done ({what});"
            " when all are, the same command without --shard finishes the data set\n"
        )
    else:
        flagged = frames["written"] - frames["without_flags"]
        sys.stdout.write(
            f"{options.output}: {what} ({flagged:,} flagged)\nreport: {options.output / 'report' / 'report.html'}\n"
        )
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=command_name(),
        description="Turns videos into code dicts, NMFC and shape images: one result for each frame.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "input", type=Path, help="video, folder of videos, list (CSV), MEAD, RAVDESS, records, or NED folders"
    )
    parser.add_argument("--output", required=True, type=Path, help="directory to be made")
    parser.add_argument("--layout", choices=INPUT_LAYOUTS, default="auto", help="how the input is laid out (auto)")
    parser.add_argument(
        "--layout-out", choices=OUTPUT_LAYOUTS, default="records", help="records, or NED's folders (records)"
    )
    parser.add_argument(
        "--train-folders", action="store_true", help="folders as NED trains on them: 50 frames each, with mouths"
    )
    parser.add_argument("--name", default="", help="name of the data set (default: that of the input)")
    parser.add_argument("--quiet", action="store_true", help="no progress bar")

    codes = parser.add_argument_group("codes")
    codes.add_argument("--encoder", choices=ENCODERS, default="landmarks", help="what makes the codes (landmarks)")
    codes.add_argument("--assets", type=Path, help="folder of FLAME's and DECA's files (default: the built-in head)")
    codes.add_argument(
        "--landmark-table", choices=TABLE_NAMES, help="whose landmarks they are (default: the back end's)"
    )
    codes.add_argument("--smooth", type=float, default=0.0, help="Gaussian over time, in frames (0: none)")
    codes.add_argument(
        "--shape-per-frame", action="store_true", help="with --encoder deca, keep each frame's own shape, as published"
    )
    codes.add_argument(
        "--device",
        default="auto",
        help="PyTorch device (auto: a GPU where there is one and DECA or face-alignment runs)",
    )
    codes.add_argument("--batch", type=int, default=16, help="frames encoded or drawn at a time (16)")

    frames = parser.add_argument_group("frames and landmarks")
    frames.add_argument("--landmarks", choices=BACKENDS, default="face-alignment", help="back end (face-alignment)")
    frames.add_argument(
        "--landmarks-dir", type=Path, help="folder of precomputed npz files (default: beside the videos)"
    )
    frames.add_argument("--mediapipe-python", type=Path, help="Python of the environment that has MediaPipe 0.10.21")
    frames.add_argument("--image-fps", type=float, default=30.0, help="frame rate of folders of images (30)")
    frames.add_argument("--max-frames", type=int, help="cut clips off after this many frames")
    frames.add_argument("--speaker", default="", help="who the faces of unlabelled videos are (default: one each)")
    frames.add_argument("--emotion", default="", help="emotion of unlabelled videos; neutral ones give the shape")
    frames.add_argument("--mead-levels", default="3", help="MEAD intensities to take, as 3 or 1,2,3 (3)")
    frames.add_argument("--validation-speakers", default="", help="speakers held out to select by, as W021,M031")
    frames.add_argument(
        "--test-speakers",
        help="speakers kept to report on, as M003,W015, or none (default: those of the papers for mead and ravdess, or"
        " what the list marks)",
    )

    work = parser.add_argument_group("where it runs")
    work.add_argument("--shard", default="1/1", help="part of the clips to do here, as 2/8 (all)")
    work.add_argument("--workers", type=int, help="processes of the local runner (all cores; 1 with a GPU)")
    work.add_argument("--shard-size", type=float, default=512, help="size of a shard of renders in MB (512)")
    work.add_argument("--runner", default="local", help="Apache Beam runner, as FlinkRunner (default: this machine)")
    work.add_argument("--beam-options", default="", help="further options of Beam, in one quoted string")
    work.add_argument("--keep-work", action="store_true", help="keep OUTPUT/work, of no use once all is done")
    return parser


@contextlib.contextmanager
def _held(settings: Reconstruction) -> Iterator[None]:
    """Holds the output; parts of one reconstruction share it, but no two runs do the same part."""
    part, parts = settings.shard
    with contextlib.ExitStack() as held:
        held.enter_context(sole_writer(settings.output, "--output", shared=parts > 1))
        if parts > 1:
            place = settings.output / "work" / "parts" / f"{part}-of-{parts}"
            held.enter_context(sole_writer(place, f"--shard {part}/{parts}:"))
        yield


def _settings(options: argparse.Namespace) -> Reconstruction:
    layout = detect_layout(options.input) if options.layout == "auto" else options.layout
    device = _device(options, layout)
    workers = options.workers or (1 if device != "cpu" else available_cores())
    landmarks = LandmarkSettings(
        backend=options.landmarks,
        directory=options.landmarks_dir,
        mediapipe_python=options.mediapipe_python,
        device=options.device,
    )
    return Reconstruction(
        source=options.input,
        output=options.output,
        layout=layout,
        layout_out=options.layout_out,
        train_folders=options.train_folders,
        name=options.name,
        speaker=options.speaker,
        emotion=options.emotion,
        levels=tuple(_numbers(options.mead_levels, "--mead-levels", ",")),
        validation_speakers=named_speakers(options.validation_speakers),
        test_speakers=None if options.test_speakers is None else named_speakers(options.test_speakers),
        track=TrackSettings(landmarks=landmarks, image_fps=options.image_fps, max_frames=options.max_frames),
        encoder=EncoderSettings(
            encoder=options.encoder,
            assets=options.assets,
            table=options.landmark_table or _table(options, layout),
            smooth=options.smooth,
            freeze_shape=not options.shape_per_frame,
            device=device,
            batch=options.batch,
        ),
        shard=_part(options.shard),
        shard_bytes=int(options.shard_size * 1e6),
        runner=RunnerSettings(workers=workers, runner=options.runner, beam_options=options.beam_options),
        keep_work=options.keep_work,
    )


def _table(options: argparse.Namespace, layout: str) -> str:
    """The landmark table of whatever finds the landmarks."""
    backend = options.landmarks
    if layout == "records":
        clips = read_manifest(options.input).settings.get("clips", {})
        backend = clips.get("landmarks", "") if isinstance(clips, dict) else ""
    if backend in TABLE_NAMES:
        return str(backend)
    if options.encoder == "deca" or (layout == "folders" and options.landmarks == "precomputed"):
        return TABLE_NAMES[0]  # nothing is fitted with it
    raise InputError(
        f"--landmark-table: precomputed landmarks do not say which detector they come from; name one of"
        f" {', '.join(TABLE_NAMES)} (synthetic: those of the synthetic heads)"
    )


def _part(text: str) -> tuple[int, int]:
    match = re.fullmatch(r"(\d+)/(\d+)", text)
    if match is None:
        raise InputError(f"--shard {text}: expected I/N, as 2/8")
    return int(match[1]), int(match[2])


def _numbers(text: str, option: str, separator: str) -> list[int]:
    try:
        return [int(number) for number in text.split(separator)]
    except ValueError as error:
        raise InputError(f"{option} {text}: expected numbers, as 3 or 1,2,3") from error


def _device(options: argparse.Namespace, layout: str) -> str:
    """The device of all that PyTorch computes; the CPU where nothing needs it."""
    name = str(options.device)
    finds_landmarks = options.landmarks == "face-alignment" and layout != "records"
    if name == "cpu" or (name == "auto" and options.encoder != "deca" and not finds_landmarks):
        return "cpu"
    if name != "auto":
        require_torch(f"--device {name}")
    try:
        import torch
    except ImportError:  # what needs it says how to install it
        return "cpu"
    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.empty(0, device=name)
    except (RuntimeError, AssertionError) as error:
        raise InputError(f"--device {name}: {str(error).splitlines()[0]}") from error
    return name


if __name__ == "__main__":
    sys.exit(main())
