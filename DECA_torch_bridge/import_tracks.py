"""Published coefficient files as tracks of the manipulator: `asccl import-tracks`."""

from __future__ import annotations

import argparse
import dataclasses
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

from asccl_jax.data.hold_outs import TEST_SPEAKERS
from asccl_jax.data.tracks import LIST_NAME, TrackEntry, TrackList, codes_path, write_track_list
from asccl_jax.errors import InputError, exit_on_input_error
from asccl_jax.paths import name_hash, readable
from asccl_jax.work import sole_writer
from data_prep.media.clips import Problem
from DECA_torch_bridge.track_layouts import ImportedClip, find_clips

__all__ = ["hold_out", "import_tracks", "main"]

MEAD_VALIDATION_SPEAKER = "M023"
"""The speaker whom the published manipulator holds out."""


def hold_out(
    clips: Sequence[tuple[str, str, str]],
    *,
    validation: Sequence[str] = (),
    share: float = 0.1,
    test: Sequence[str] | None = None,
) -> dict[str, str]:
    """Returns the split, "train", "validation" or "test", of each clip by its id.

    Nothing trains on "test" or selects by it: named speakers and clips, else MEAD's test speakers, unless nobody else
    is there. Of the rest, named speakers and clips are held out for validation. Else MEAD holds out M023, as published.
    Else a share of the speakers, at least one, in an order that depends on nothing but their names; of a single
    speaker, that share of the clips of each emotion that has several.

    Args:
      clips: Id, speaker and emotion of each.
      validation: Names of speakers or ids of clips to hold out.
      share: How much else.
      test: Names of speakers or ids of clips to report on; None takes MEAD's.

    Raises:
      InputError: A name is not there, a share makes no sense, or nothing is left to train on.
    """
    if not 0 <= share < 1:
        raise InputError(f"--validation-share {share}: expected at least 0 and less than 1")
    everybody = sorted({speaker for _, speaker, _ in clips})
    for option, named in (("--validation", validation), ("--test", test or ())):
        if unknown := sorted(set(named) - set(everybody) - {clip for clip, _, _ in clips}):
            shown = ", ".join(everybody[:8]) + (", ..." if len(everybody) > 8 else "")
            raise InputError(f"{option} {', '.join(unknown)}: neither a clip's id nor among the speakers {shown}")
    reported = set(test if test is not None else TEST_SPEAKERS["mead"] if _others(everybody) else ())
    splits = {clip: "test" for clip, speaker, _ in clips if {clip, speaker} & reported}
    clips = [entry for entry in clips if entry[0] not in splits]
    if both := sorted(set(validation) - {name for clip, speaker, _ in clips for name in (clip, speaker)}):
        raise InputError(
            f"--validation {', '.join(both)}: kept to report on, so nothing may be selected by it; name others, or"
            " --test NAME ... to report on"
        )
    speakers = sorted({speaker for _, speaker, _ in clips})
    held_out = set(validation)
    if not held_out and MEAD_VALIDATION_SPEAKER in speakers and len(speakers) > 1 and share:
        held_out = {MEAD_VALIDATION_SPEAKER}
    elif not held_out and len(speakers) > 1:
        held_out = set(_picked(speakers, share))
    elif not held_out:
        for emotion in {emotion for _, _, emotion in clips}:
            held_out |= set(_picked([clip for clip, _, found in clips if found == emotion], share))
    splits |= {clip: "validation" if {clip, speaker} & held_out else "train" for clip, speaker, _ in clips}
    if "train" not in splits.values():
        raise InputError("--validation and --test name every clip: none is left to train on")
    return splits


def import_tracks(
    source: Path,
    output: Path,
    *,
    annotations: Path | None = None,
    validation: Sequence[str] = (),
    share: float = 0.1,
    test: Sequence[str] | None = None,
) -> tuple[TrackList, list[Problem]]:
    """Writes a directory of tracks of published files; returns its list and what was left out.

    Args:
      source: An `ACTOR_deca.pkl`, a folder of them, or an Aff-Wild2 folder.
      output: New directory.
      annotations: Folder of Aff-Wild2's `VIDEO.txt`; None looks beside the code dicts.
      validation: Speakers or clips to hold out.
      share: How much to hold out, where nobody is named.
      test: Speakers or clips to report on; None takes MEAD's test speakers.

    Raises:
      InputError: The source holds neither layout or no usable clip, or the output is in use.
    """
    if (output / LIST_NAME).exists():
        raise InputError(f"{output} holds tracks already: choose another --output or delete it")
    found, kind = find_clips(source, annotations)
    (output / "codes").mkdir(parents=True, exist_ok=True)
    problems: list[Problem] = []
    clips: list[tuple[ImportedClip, int]] = []
    for item in found:
        if isinstance(item, Problem):
            problems.append(item)
            continue
        item.codes.save(codes_path(output, item.clip))
        # Of what is on the disk the frames alone are kept in memory.
        clips.append((dataclasses.replace(item, codes=item.codes[:0]), len(item.codes)))
    if not clips:
        reason = f"; first of all {problems[0].subject}: {problems[0].reason}" if problems else ""
        raise InputError(f"{source}: none of {len(problems)} clips can be used{reason}")
    named = [(item.clip, item.speaker, item.emotion) for item, _ in clips]
    splits = hold_out(named, validation=validation, share=share, test=test)
    entries = {
        item.clip: TrackEntry(item.speaker, item.emotion, item.sentence, splits[item.clip], frames, item.frame_emotions)
        for item, frames in clips
    }
    settings = {
        "layout": kind,
        "validation": list(validation),
        "validation_share": share,
        "test": None if test is None else list(test),
        "left_out": [[problem.subject, problem.reason] for problem in problems],
    }
    tracks = TrackList(readable(source.resolve().name), entries, settings)
    write_track_list(output, tracks)
    return tracks, problems


@exit_on_input_error
def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command and returns the exit status.

    Args:
      arguments: Words of the command line; None takes those of the process.
    """
    parser = argparse.ArgumentParser(
        prog="asccl import-tracks",
        description="Turns published coefficient files into tracks to train the manipulator on.",
    )
    parser.add_argument("source", type=Path, help="ACTOR_deca.pkl, a folder of them, or an Aff-Wild2 folder")
    parser.add_argument("--output", type=Path, required=True, help="new directory of tracks")
    parser.add_argument("--annotations", type=Path, help="folder of Aff-Wild2's VIDEO.txt (beside the code dicts)")
    parser.add_argument("--validation", nargs="+", default=(), metavar="NAME", help="speakers or clips to hold out")
    parser.add_argument(
        "--validation-share", type=float, default=0.1, help="of the speakers, where none is named (0.1)"
    )
    parser.add_argument(
        "--test", nargs="*", metavar="NAME", help="speakers or clips to report on (default: MEAD's test speakers)"
    )
    options = parser.parse_args(arguments)
    with sole_writer(options.output, "--output"):
        tracks, problems = import_tracks(
            options.source,
            options.output,
            annotations=options.annotations,
            validation=options.validation,
            share=options.validation_share,
            test=options.test,
        )
    for problem in problems:
        sys.stderr.write(f"left out: {problem.subject}: {problem.reason}\n")
    held_out = sum(entry.split != "train" for entry in tracks.clips.values())
    frames = sum(entry.frames for entry in tracks.clips.values())
    sys.stdout.write(
        f"{options.output}: {len(tracks.clips)} clips, {held_out} of them held out, {frames:,} frames; "
        f"{len(problems)} clips left out\n"
    )
    return 0


def _others(speakers: Iterable[str]) -> bool:
    return bool(set(speakers) - set(TEST_SPEAKERS["mead"]))


def _picked(names: Iterable[str], share: float) -> list[str]:
    """A share of names, at least one and never all, by an order of their own that further names do not change."""
    ranked = sorted(names, key=name_hash)
    if not share or len(ranked) < 2:
        return []
    return ranked[: min(max(1, round(share * len(ranked))), len(ranked) - 1)]


if __name__ == "__main__":
    sys.exit(main())
