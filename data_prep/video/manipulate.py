"""`asccl manipulate`: a video in, the same video with another emotion out."""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from asccl_jax.data.aligned_frames import UNTRUSTED
from asccl_jax.data.schema import EMOTIONS
from asccl_jax.data.tracks import clip_file_name, codes_path
from asccl_jax.errors import InputError, exit_on_input_error, writing
from asccl_jax.paths import id_part
from asccl_jax.process import command_name
from asccl_jax.work import file_facts, require_writable_file, require_writable_folder, write_atomically
from data_prep.media.video_files import CONTAINERS, is_same_file
from data_prep.video.input_checks import (
    QUICKSTART,
    VideoCheck,
    check_disk,
    check_sound,
    check_video,
    find_weights,
    person_remark,
    require_network,
    require_video,
    run_config,
)
from data_prep.video.reconstruct_options import ReconstructOptions, add_reconstruct_options, reconstruct_options
from data_prep.video.stage_runs import (
    Stage,
    StageOutcome,
    WorkFolder,
    digest,
    exit_status,
    outcome_table,
    python_words,
    run_stages,
    say,
)

__all__ = ["STAGES", "Manipulation", "main"]

# The stages of `asccl manipulate`, from a video to the same video with another expression.

STAGES = ("reconstruct", "reference", "edit", "conditioning", "render", "compose")
"""Names in order; "reference" is there only where one is given."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Manipulation:
    """One run of the pipeline.

    Attributes:
      video: What is changed.
      output: The video to write.
      work: Folder of the intermediate files, as an absolute path.
      emotions: Emotions told by label, one after the other; or none.
      reference: Video whose expression is taken, or None.
      intensity: Of the emotion, 0 to 1.5.
      transition: How several emotions follow each other.
      seed: Which variety of the emotion.
      manipulator: Folder of the manipulator.
      renderer: Folder of the renderer.
      detail: Whether the renderer was trained on surfaces with wrinkles.
      reading: How the video is reconstructed.
      reading_reference: How the reference is.
      segmenter: Face segmentation file, or None.
      blend: How faces are put into the frames.
      label: Whether a visible label is drawn.
      crf: Quality of the encoder, or None for its default.
    """

    video: Path
    output: Path
    work: Path
    emotions: tuple[str, ...] = ()
    reference: Path | None = None
    intensity: float = 1.0
    transition: str = "steps"
    seed: int = 0
    manipulator: Path
    renderer: Path
    detail: bool = False
    reading: ReconstructOptions
    reading_reference: ReconstructOptions
    segmenter: Path | None = None
    blend: str = "pyramid"
    label: bool = False
    crf: int | None = None

    @property
    def clip(self) -> str:
        """The video's id in its records."""
        return self.reading.clip(self.video)

    @property
    def records(self) -> Path:
        """What the video is reconstructed into."""
        return self.work / "records"

    @property
    def track(self) -> Path:
        """Landmarks, alignment and flags of the video's frames."""
        return self.records / "tracks" / f"{clip_file_name(self.clip)}.npz"

    def stages(self) -> list[Stage]:
        """Returns the stages in order."""
        found = [self._reconstruct(), self._edit(), self._conditioning(), self._render(), self._compose()]
        if self.reference is not None:
            found.insert(1, self._reconstruct_reference(self.reference))
        return found

    def _reconstruct(self) -> Stage:
        words = self.reading.words(self.video, self.records)
        return Stage("reconstruct", tuple(words), self.records, self.reading.depends(self.video))

    def _reconstruct_reference(self, video: Path) -> Stage:
        output = self.work / "reference"
        words = self.reading_reference.words(video, output)
        return Stage("reference", tuple(words), output, self.reading_reference.depends(video))

    def _edit(self) -> Stage:
        output = self.work / "edited.npz"
        command = ["video", "manipulate-coefficients", str(codes_path(self.records, self.clip))]
        command += [f"--checkpoint={self.manipulator}", f"--intensity={self.intensity}", f"--seed={self.seed}"]
        command += [f"--transition={self.transition}", f"--output={output}"]
        if self.reference is None:
            command += ["--emotion", *self.emotions]
        else:
            shown = codes_path(self.work / "reference", self.reading_reference.clip(self.reference))
            command.append(f"--reference={shown}")
        told = [self.emotions, self.intensity, self.transition, self.seed]
        return _stage("edit", command, output, [told, file_facts(find_weights(self.manipulator, "manipulator"))])

    def _conditioning(self) -> Stage:
        output = self.work / "conditioning"
        command = ["data", "edit-conditioning", str(self.records), f"--clip={self.clip}"]
        command += [f"--codes={self.work / 'edited.npz'}", f"--output={output}"]
        if self.reading.assets is not None:
            command.append(f"--assets={self.reading.assets}")
        if self.detail:
            command.append("--detail")
        return _stage("conditioning", command, output, [self.detail])

    def _render(self) -> Stage:
        output = self.work / "faces"
        command = ["video", "render", str(self.records), f"--checkpoint={self.renderer}", f"--clip={self.clip}"]
        command += [f"--conditioning={self.work / 'conditioning'}", f"--output={output}"]
        if self.detail:
            command.append("--detail")
        return _stage("render", command, output, [self.detail, file_facts(find_weights(self.renderer, "renderer"))])

    def _compose(self) -> Stage:
        command = [
            "video",
            "compose",
            str(self.records),
            f"--clip={self.clip}",
            f"--faces={self.work / 'faces' / self.clip}",
        ]
        command += [f"--video={self.video}", f"--output={self.output}", f"--blend={self.blend}", "--overwrite"]
        if self.segmenter is not None:
            command.append(f"--segmenter={self.segmenter}")
        if self.label:
            command.append("--label")
        if self.crf is not None:
            command.append(f"--crf={self.crf}")
        depends = [str(self.output.absolute()), self.blend, self.label, self.crf, file_facts(self.segmenter)]
        return _stage("compose", command, self.output, depends, inside=False)


def _stage(name: str, command: list[str], output: Path, depends: object, *, inside: bool = True) -> Stage:
    return Stage(name, tuple(python_words("asccl_jax.cli", *command)), output, depends, inside)


_DESCRIPTION = """\
Gives the face in a video another emotion, told by label or shown by another video; what it says, its pose, all around
it and the sound stay. As many frames come out as went in, at the same times; frames without a face stay as they are.
"""

_EXAMPLES = """\
examples:
  asccl manipulate talk.mp4 --emotion happy -o happy.mp4
  asccl manipulate talk.mp4 --emotion sad angry --transition linear --renderer runs/ann/renderer -o change.mp4
  asccl manipulate talk.mp4 --reference actor.mp4 --intensity 1.2 -o like_actor.mp4

The stages (reconstruct, reference, edit, conditioning, render, compose) are commands of their own that work in one
folder. Interrupted, the same command goes on: conditioning and render where they were, the others with their last step
(of reconstruct: landmarks, shape, pictures). The folder, 4 to 6 GB for ten minutes, goes when all is done; with --keep
it stays, and another setting does again only what depends on it.
Exit status: 0 done, 1 a stage failed, 2 bad input, 130 or 143 stopped by Ctrl-C or SIGTERM.
"""


@exit_on_input_error
def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the pipeline and returns the exit status.

    Args:
      arguments: Words after the command's name; None takes those of the process.

    Raises:
      InputError: Anything wrong with what the user gave.
    """
    options = _parser().parse_args(arguments)
    return exit_status(lambda: _run(options))


def _run(options: argparse.Namespace) -> int:
    run, work = _manipulation(options), WorkFolder(_work(options))
    _check_stages(run, options)
    _check_output(run, work, options)
    check = _checked(run, work, options)
    for remark in (*check.remarks(run.video), person_remark(run.renderer, _speaker(run), run.video)):
        if remark:
            say(f"note: {remark}")
    with work.claimed() as held:
        work.write_note("input", {"key": _input_key(run, options), **check.to_json()})
        work.write_note("output", {"path": str(run.output.absolute())})
        outcomes = run_stages(
            run.stages(),
            work,
            first=options.first,
            last=options.until,
            shown=sys.stderr.buffer,
            say=say,
            after=lambda stage: _after(stage, run),
            held=[held],
        )
        _write_times(run, check, outcomes)
        if options.until is None and not options.keep and options.work is None:
            work.remove()
    sys.stdout.write(outcome_table(outcomes) + _result(run, check, options))
    return 0


def _result(run: Manipulation, check: VideoCheck, options: argparse.Namespace) -> str:
    if options.until not in (None, "compose"):
        return f"stopped after {options.until}, as asked; all so far is in {run.work}\n"
    return f"{run.output}: {check.frames:,} frames, {check.duration_s:.1f} s\n"


def _after(stage: Stage, run: Manipulation) -> None:
    """Says which frames stay as they are."""
    if stage.name != "reconstruct":
        return
    with np.load(run.track, allow_pickle=False) as track:
        left_out = int(((track["flags"] & UNTRUSTED) > 0).sum())
        count = len(track["flags"])
    if left_out:
        say(f"note: {left_out:,} of {count:,} frames show no face that can be trusted; they stay as they are")


def _checked(run: Manipulation, work: WorkFolder, options: argparse.Namespace) -> VideoCheck:
    """Looks at the input, or remembers what it was found to be."""
    note, key = work.note("input"), _input_key(run, options)
    if note.pop("key", None) == key:
        return VideoCheck.from_json(note)
    say("looking at the input ...")
    check = check_video(run.video, "VIDEO", keep_cuts=options.keep_cuts)
    run.reading.check_landmarks(run.video, check.frames)
    check_sound(run.video, run.output)
    frames = check.frames
    if run.reference is not None:
        other = check_video(run.reference, "--reference", keep_cuts=True)
        run.reading_reference.check_landmarks(run.reference, other.frames)
        frames += other.frames
    check_disk(run.work, frames, "--work")
    return check


def _input_key(run: Manipulation, options: argparse.Namespace) -> str:
    return digest(file_facts(run.video, run.reference), options.keep_cuts)


def _write_times(run: Manipulation, check: VideoCheck, outcomes: Sequence[StageOutcome]) -> None:
    path = run.work.with_name(f"{run.work.name}.json")
    content = {
        "video": str(run.video),
        "output": str(run.output),
        "input": check.to_json(),
        "stages": [dataclasses.asdict(outcome) for outcome in outcomes],
    }
    with writing(path):
        write_atomically(path, json.dumps(content, indent=1) + "\n")


def _speaker(run: Manipulation) -> str:
    return id_part(run.reading.speaker or run.video.stem)


def _work(options: argparse.Namespace) -> Path:
    chosen: Path = options.work or options.output.with_suffix(".work")
    return chosen.absolute()


def _manipulation(options: argparse.Namespace) -> Manipulation:
    """Returns the run that is asked for; everything that can be checked without reading a video is."""
    require_video(options.video, "VIDEO")
    if not 0 <= options.intensity <= 1.5:
        raise InputError(f"--intensity {options.intensity:g}: expected 0 (no change of emotion) to 1.5")
    require_network(options.manipulator, "manipulator")
    require_network(options.renderer, "renderer")
    if options.segmenter is not None and not options.segmenter.is_file():
        raise InputError(f"--segmenter {options.segmenter}: no such file")
    reading = reconstruct_options(options)
    reading.check(options.video)
    reading_reference = dataclasses.replace(
        reading,
        speaker="",
        shown_emotion="",
        landmarks_dir=options.reference_landmarks_dir or options.landmarks_dir,
    )
    if options.reference is not None:
        require_video(options.reference, "--reference")
        reading_reference.check(options.reference)
    return Manipulation(
        video=options.video,
        output=options.output,
        work=_work(options),
        emotions=tuple(options.emotion or ()),
        reference=options.reference,
        intensity=options.intensity,
        transition=options.transition,
        seed=options.seed,
        manipulator=options.manipulator,
        renderer=options.renderer,
        detail=bool(run_config(options.renderer).get("data", {}).get("detail")),
        reading=reading,
        reading_reference=reading_reference,
        segmenter=options.segmenter,
        blend=options.blend,
        label=options.label,
        crf=options.crf,
    )


def _check_stages(run: Manipulation, options: argparse.Namespace) -> None:
    names = [stage.name for stage in run.stages()]
    for option, name in (("--from", options.first), ("--until", options.until)):
        if name is not None and name not in names:
            raise InputError(f"{option} {name}: there is no such stage without --reference")
    if None not in (options.first, options.until) and names.index(options.first) > names.index(options.until):
        raise InputError(f"--from {options.first} --until {options.until}: the stages are {', '.join(names)}")


def _check_output(run: Manipulation, work: WorkFolder, options: argparse.Namespace) -> None:
    work.check()
    if run.output.is_dir() or run.output.suffix.lower() not in CONTAINERS:
        raise InputError(f"-o {run.output}: expected the name of a video to write, ending in {', '.join(CONTAINERS)}")
    if any(is_same_file(run.output, video) for video in (run.video, run.reference) if video is not None):
        raise InputError(f"-o {run.output}: is an input; give another name")
    own = work.note("output").get("path") == str(run.output.absolute())
    if run.output.exists() and not own and not options.overwrite:
        raise InputError(f"-o {run.output}: is there already; give another name, or --overwrite")
    require_writable_file(run.output, "-o")
    require_writable_folder(run.work, work.option)
    with writing(run.output.parent):
        run.output.parent.mkdir(parents=True, exist_ok=True)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=command_name(),
        description=_DESCRIPTION,
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("video", type=Path, metavar="VIDEO", help="one scene of one person, with or without sound")
    wanted = parser.add_mutually_exclusive_group(required=True)
    wanted.add_argument("--emotion", nargs="+", choices=EMOTIONS, metavar="E", help=f"some of {', '.join(EMOTIONS)}")
    wanted.add_argument("--reference", type=Path, metavar="VIDEO", help="video whose expression is taken")
    add("--intensity", type=float, default=1.0, metavar="X", help="0 (none) to 1.5 (exaggerated); default: 1")
    add("--transition", choices=("steps", "linear"), default="steps", help="how several emotions follow each other")
    add("--seed", type=int, default=0, metavar="N", help="another seed is another variety of the emotion (default: 0)")
    place = f"DIR (default: {QUICKSTART}, of launch/quickstart.sh)"
    add("--manipulator", type=Path, default=QUICKSTART / "manipulator", metavar="DIR", help=f"manipulator, {place}")
    add("--renderer", type=Path, default=QUICKSTART / "renderer", metavar="DIR", help=f"the face's renderer, {place}")
    add("-o", "--output", type=Path, required=True, metavar="OUT", help="video to write, as out.mp4")
    add("--overwrite", action="store_true", help="replace OUT though it was not written by this run")
    add("--keep-cuts", action="store_true", help="take a video that seems to have several scenes")
    _add_stages(parser)
    _add_composing(parser)
    add_reconstruct_options(parser)
    add("--reference-landmarks-dir", type=Path, metavar="DIR", help="the same for the video of --reference")
    return parser


def _add_stages(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument_group("stages").add_argument
    add("--work", type=Path, metavar="DIR", help="folder of the stages' files, kept (default: OUT.work, removed)")
    add("--keep", action="store_true", help="keep OUT.work")
    add("--from", dest="first", choices=STAGES, metavar="STAGE", help=f"do again from here: {', '.join(STAGES)}")
    add("--until", choices=STAGES, metavar="STAGE", help="stop after this one, and keep the work")


def _add_composing(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument_group("putting the face back (passed on to asccl video compose)").add_argument
    add("--blend", choices=("pyramid", "copy"), default="pyramid", help="how the edges are blended (pyramid)")
    add("--segmenter", type=Path, metavar="FILE", help="face segmentation network (default: the head model's outline)")
    add("--label", action="store_true", help="draw a visible label that says the video is synthetic")
    add("--crf", type=int, metavar="N", help="quality of the encoder, less is better")


if __name__ == "__main__":
    sys.exit(main())
