"""Command line of the synthetic talking heads: `asccl data synthesise --output DIR`."""

from __future__ import annotations

import argparse
import dataclasses
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from asccl_jax.errors import InputError, exit_on_input_error
from asccl_jax.process import command_name
from asccl_jax.progress import ProgressBar
from asccl_jax.work import require_writable_file, sole_writer
from data_prep.synthetic.synthetic_clips import CLIPS_CSV, ClipSetSettings, plan_clips, write_clip_set

__all__ = ["PRESETS", "main"]

PRESETS = {
    "demo": ClipSetSettings(),
    "smoke": ClipSetSettings(
        size=96,
        identities=2,
        validation_identities=2,
        sentences=1,
        validation_sentences=1,
        emotions_per_sentence=1,
        syllables=(1, 1),
    ),
}
"""Named data sets: `demo` takes about a minute on two cores, `smoke` a few seconds."""

_EXAMPLES = """examples:
  the demo's data set, then its records, then its controlled comparisons:
    asccl data synthesise --output heads
    asccl prepare heads/clips.csv --layout list --landmarks precomputed --image-size 112 --output records
    asccl data synthesise comparisons --records records
  tracks of facial coefficients for the manipulator, with the exact result it should reach (seconds):
    asccl data synthesise tracks --output tracks
  two actors in all emotions, for the renderer, with what each held-out neutral clip is in every emotion
  (5,440 frames; a core draws 30 to 80 a second and reconstructs 20, a frame of the records takes 0.14 MB):
    asccl data synthesise actors --output actors
    asccl data reconstruct actors/clips.csv --layout list --landmarks precomputed --landmark-table synthetic \\
        --output actors_records
  a picture of the people:
    asccl data synthesise contact-sheet --output people.png

An interrupted run goes on where it stopped when the same command is given again."""


@exit_on_input_error
def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one of the commands and returns the exit status.

    Args:
      arguments: Words of the command line; None takes those of the process.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    commands = {"actors": _actors, "contact-sheet": _contact_sheet, "comparisons": _comparisons, "tracks": _tracks}
    try:
        if words and words[0] in commands:
            return commands[words[0]](words[1:])
        return _clips(words)
    except KeyboardInterrupt:
        sys.stderr.write("\ninterrupted; give the same command again to go on\n")
        return 130


def _clips(words: list[str]) -> int:
    parser = argparse.ArgumentParser(
        prog=f"{command_name()} [actors | contact-sheet | comparisons | tracks]",
        description="Writes videos of synthetic people who say the same sentences in several emotions.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--output", type=Path, required=True, help="directory of videos, landmarks, truth and list")
    parser.add_argument("--preset", choices=PRESETS, default="demo", help="what the options below default to (demo)")
    parser.add_argument("--seed", type=int, help="of people, sentences and performances (0)")
    parser.add_argument("--size", type=int, help="side of the video in pixels (192)")
    parser.add_argument("--identities", type=int, help="people to train on (10)")
    parser.add_argument("--validation-identities", type=int, help="people held out (3)")
    parser.add_argument("--sentences", type=int, help="sentences of each person to train on (4)")
    parser.add_argument("--validation-sentences", type=int, help="sentences of each person held out (2)")
    parser.add_argument("--emotions-per-sentence", type=int, help="emotional deliveries beside the neutral one (2)")
    parser.add_argument("--fps", type=int, help="frames a second (30)")
    _add_common(parser)
    options = parser.parse_args(words)
    given = {field.name: getattr(options, field.name, None) for field in dataclasses.fields(ClipSetSettings)}
    settings = dataclasses.replace(
        PRESETS[options.preset], **{name: value for name, value in given.items() if value is not None}
    )
    with sole_writer(options.output, "--output"):
        written = write_clip_set(settings, options.output, workers=options.workers)
        return _draw(written, len(plan_clips(settings)), options)


def _actors(words: list[str]) -> int:
    parser = argparse.ArgumentParser(
        prog=f"{command_name()} actors",
        description="Writes videos of few people in many emotions, and what each held-out neutral video is in every "
        "emotion, frame by frame.",
    )
    parser.add_argument("--output", type=Path, required=True, help="directory of videos, landmarks, truth and list")
    parser.add_argument("--seed", type=int, help="of people, sentences and performances (0)")
    parser.add_argument("--size", type=int, help="side of the video in pixels (192)")
    parser.add_argument("--actors", type=int, help="people (2)")
    parser.add_argument("--sentences", type=int, help="sentences of each person to train on (6)")
    parser.add_argument("--held-out-sentences", type=int, help="sentences of each person held out, in 7 emotions (1)")
    parser.add_argument("--emotions-per-sentence", type=int, help="emotional deliveries beside the neutral one (6)")
    parser.add_argument("--syllables", type=int, nargs=2, metavar=("LEAST", "MOST"), help="of a sentence (5 7)")
    parser.add_argument("--fps", type=int, help="frames a second (30)")
    _add_common(parser)
    options = parser.parse_args(words)
    from data_prep.synthetic.synthetic_clips import ActorSetSettings, plan_actors, write_actor_set

    names = [field.name for field in dataclasses.fields(ActorSetSettings)]
    given = {name: value for name in names if (value := getattr(options, name)) is not None}
    if "syllables" in given:
        given["syllables"] = tuple(given["syllables"])
    settings = ActorSetSettings(**given)
    with sole_writer(options.output, "--output"):
        written = write_actor_set(settings, options.output, workers=options.workers)
        return _draw(written, len(plan_actors(settings)), options)


def _draw(written: Iterator[int], clips: int, options: argparse.Namespace) -> int:
    """Runs a writer of clips, showing how far it is."""
    drawn = 0
    with ProgressBar(total=clips, unit="clip", desc="talking heads", disable=options.quiet) as bar:
        for frames in written:
            drawn += frames
            bar.update()
            bar.set_postfix(frames=drawn)
    sys.stdout.write(f"{options.output / CLIPS_CSV}: {clips} clips, {drawn:,} frames drawn now\n")
    return 0


def _contact_sheet(words: list[str]) -> int:
    parser = argparse.ArgumentParser(
        prog=f"{command_name()} contact-sheet",
        description="Draws people by emotions and emotions by mouth shapes.",
    )
    parser.add_argument("--output", type=Path, required=True, help="PNG file to write")
    parser.add_argument("--people", type=int, default=6, help="rows of people (6)")
    parser.add_argument("--first", type=int, default=0, help="seed of the first person (0)")
    parser.add_argument("--size", type=int, default=176, help="side of one picture in pixels (176)")
    options = parser.parse_args(words)
    from data_prep.synthetic.synthetic_clips import write_contact_sheet

    require_writable_file(options.output)
    write_contact_sheet(options.output, range(options.first, options.first + options.people), size=options.size)
    sys.stdout.write(f"{options.output}\n")
    return 0


def _comparisons(words: list[str]) -> int:
    parser = argparse.ArgumentParser(
        prog=f"{command_name()} comparisons",
        description="Adds controlled comparisons of the held-out people to records made from synthetic clips.",
    )
    parser.add_argument("--records", type=Path, required=True, help="data set that `asccl prepare` made")
    parser.add_argument("--groups", type=int, default=300, help="query frames, each with 8 keys (300)")
    parser.add_argument("--size", type=int, default=192, help="side of the training videos in pixels (192)")
    parser.add_argument("--seed", type=int, default=0, help="of all that is random (0)")
    _add_common(parser)
    options = parser.parse_args(words)
    from data_prep.synthetic.comparisons import ComparisonSettings, write_records

    settings = ComparisonSettings(groups=options.groups, size=options.size, seed=options.seed)
    if not options.records.is_dir():
        raise InputError(f"--records {options.records}: no such folder; make it with asccl prepare")
    with (
        sole_writer(options.records, "--records"),
        ProgressBar(total=settings.groups, unit="group", desc="comparisons", disable=options.quiet) as bar,
    ):
        manifest = write_records(options.records, settings, workers=options.workers, advance=bar.update)
    count = manifest.split("comparisons").records("comparisons")
    sys.stdout.write(f"{options.records}: {count:,} comparisons in {settings.groups} groups\n")
    return 0


def _tracks(words: list[str]) -> int:
    parser = argparse.ArgumentParser(
        prog=f"{command_name()} tracks",
        description="Writes code dicts of synthetic people, without pictures, and what each held-out neutral clip is "
        "in every emotion.",
    )
    parser.add_argument("--output", type=Path, required=True, help="directory of codes, truth and list")
    parser.add_argument("--seed", type=int, help="of people, sentences and performances (0)")
    parser.add_argument("--speakers", type=int, help="people to train on (24)")
    parser.add_argument("--validation-speakers", type=int, help="people held out (6)")
    parser.add_argument("--sentences", type=int, help="sentences of each person to train on, in 7 emotions (4)")
    parser.add_argument("--validation-sentences", type=int, help="sentences of each person held out (2)")
    parser.add_argument("--syllables", type=int, nargs=2, metavar=("LEAST", "MOST"), help="of a sentence (5 7)")
    parser.add_argument("--fps", type=int, help="frames a second (30)")
    parser.add_argument("--quiet", action="store_true", help="no progress bar")
    options = vars(parser.parse_args(words))
    from data_prep.synthetic.tracks import TrackSetSettings, plan_tracks, write_track_set

    names = [field.name for field in dataclasses.fields(TrackSetSettings)]
    given = {name: options[name] for name in names if options[name] is not None}
    if "syllables" in given:
        given["syllables"] = tuple(given["syllables"])
    settings, frames = TrackSetSettings(**given), 0
    plans = plan_tracks(settings)
    with (
        sole_writer(options["output"], "--output"),
        ProgressBar(total=len(plans), unit="clip", desc="tracks", disable=options["quiet"]) as bar,
    ):
        for count in write_track_set(settings, options["output"]):
            frames += count
            bar.update()
    sys.stdout.write(f"{options['output']}: {len(plans)} clips, {frames:,} frames\n")
    return 0


def _add_common(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--workers", type=int, default=_cores(), help="processes (all cores)")
    parser.add_argument("--quiet", action="store_true", help="no progress bar")


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


if __name__ == "__main__":
    sys.exit(main())
