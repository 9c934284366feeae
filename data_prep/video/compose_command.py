"""`asccl video compose`: a clip's video with its rendered faces in it, at its own times, with its own sound, marked."""

from __future__ import annotations

import argparse
import dataclasses
import sys
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int

from asccl_jax.data.manifest import Manifest, read_manifest
from asccl_jax.data.tracks import clip_file_name
from asccl_jax.errors import InputError, exit_on_input_error, require_torch
from asccl_jax.process import command_name
from asccl_jax.progress import ProgressBar
from asccl_jax.work import require_writable_file
from data_prep.media.encode import draw_label
from data_prep.media.video_files import (
    CONTAINERS,
    MarkedVideoWriter,
    SourceVideo,
    TimedPicture,
    is_same_file,
    open_video,
)
from data_prep.video.compose import BLENDS, RenderedFace, compose
from data_prep.video.face_masks import FaceMasks, MaskRule, outline_rule, read_face

__all__ = ["main"]

_RENDER_SETTINGS = "render.json"
"""What `asccl video render` leaves in its output, whose folders are named as clips."""

_NO_FACE = 1 | 8
"""Flags of frames that stay as they are: no face was found, the picture could not be read (`schema.RenderRecord`)."""

_TIME_TOLERANCE_S = 0.005
"""How far a frame's time may be from the reconstruction's; shorter than any frame is shown."""

_DESCRIPTION = """\
Lays the faces of `asccl video render` back into their video. Frames without a rendered face stay as they are; every
frame keeps its time, sound is copied bit for bit, and the file says that it is synthetic.
"""

_EXAMPLES = """\
examples:
  asccl data reconstruct ann.mp4 --output records
  asccl video render records --checkpoint runs/renderer --split train --output frames
  asccl video compose records --clip ann/unlabelled/ann --faces frames/ann/unlabelled/ann --video ann.mp4 \\
      --output out.mp4
"""


@dataclasses.dataclass(frozen=True, eq=False)
class ClipTrack:
    """What composing needs of a reconstruction's track.

    Attributes:
      frame_index: Number of each frame.
      time_s: Its presentation time.
      flags: See `schema.RenderRecord`.
      align: Matrices from pixels of the upright frame to those of the aligned picture.
      size: Height and width of the frames; 0, 0 if not known.
    """

    frame_index: Int[np.ndarray, " t"]
    time_s: Float[np.ndarray, " t"]
    flags: Int[np.ndarray, " t"]
    align: Float[np.ndarray, "t 2 3"]
    size: tuple[int, int]


@exit_on_input_error
def main(arguments: Sequence[str] | None = None) -> int:
    """Composes a video and returns the exit status.

    Args:
      arguments: Words of the command line; None takes those of the process.

    Raises:
      InputError: Something the user gave is wrong.
    """
    options = _parser().parse_args(arguments)
    _check_output(options)
    manifest = read_manifest(options.records)
    clip = _chosen_clip(options, manifest)
    track = _read_track(options.records, clip)
    faces = _find_faces(options.faces, clip, track)
    usable = {number: faces[number] for number in faces if not _flags(track, number) & _NO_FACE}
    rule = _mask_rule(options.segmenter)
    masks = FaceMasks(options.records, manifest, clip, usable, rule=rule)
    with open_video(options.video) as video:
        frames, composed = _write(options, video, track, usable, masks)
    left = f", {len(faces) - len(usable)} faces left out of frames in which none was found" * (faces != usable)
    sys.stdout.write(f"{options.output}: {frames} frames, {composed} of them with a rendered face{left}\n")
    return 0


def _write(
    options: argparse.Namespace,
    video: SourceVideo,
    track: ClipTrack,
    faces: Mapping[int, Path],
    masks: FaceMasks,
) -> tuple[int, int]:
    """Writes the video, one frame at a time, and returns how many frames it has, and how many were changed."""
    rows = {number: row for row, number in enumerate(track.frame_index.tolist())}
    frames = composed = 0
    writer = MarkedVideoWriter(
        options.output,
        clock=video.clock,
        rate=video.rate,
        sound_of=options.video,
        origin_s=video.origin_s,
        aspect=video.aspect,
        title=video.title,
        crf=options.crf,
    )
    with writer:
        for timed in ProgressBar(video.pictures(), total=len(rows), unit="frame"):
            row = rows.get(timed.index)
            if row is not None:
                _check_frame(options.video, track, row, timed)
            if row is not None and timed.index in faces:
                face = RenderedFace(read_face(faces[timed.index]), track.align[row], masks.mask(timed.index))
                compose(timed.picture, face, blend=options.blend)
                composed += 1
            if options.label:
                draw_label(timed.picture)
            writer.write(timed.picture, pts=timed.pts, duration=timed.duration)
            frames += 1
        _check_count(options, frames, last=max(rows))
    return frames, composed


def _check_count(options: argparse.Namespace, frames: int, *, last: int) -> None:
    """Refuses a video that ends before the track does."""
    if frames <= last:
        raise InputError(
            f"{options.video}: {frames} frames, but {options.records} holds frame {last} of the clip: not the video"
            " that was reconstructed"
        )


def _mask_rule(segmenter: Path | None) -> MaskRule:
    if segmenter is None:
        return outline_rule
    require_torch("--segmenter")
    from DECA_torch_bridge.segmenter import segmentation_rule

    return segmentation_rule(segmenter)


def _check_output(options: argparse.Namespace) -> None:
    output = options.output
    if output.suffix.lower() not in CONTAINERS:
        raise InputError(f"--output {output}: expected a name that ends in {', '.join(CONTAINERS)}")
    if is_same_file(output, options.video):
        raise InputError(f"--output {output}: is the source video itself; give another name")
    require_writable_file(output)
    if output.exists() and not options.overwrite:
        raise InputError(f"--output {output}: exists; give another name, or --overwrite")
    if not 0 <= options.crf <= 51:
        raise InputError(f"--crf {options.crf}: expected 0 (lossless) to 51")


def _chosen_clip(options: argparse.Namespace, manifest: Manifest) -> str:
    clip = options.clip
    if clip is None and len(manifest.clips) == 1:
        return next(iter(manifest.clips))
    if clip not in manifest.clips:
        shown = ", ".join(sorted(manifest.clips)[:3])
        raise InputError(
            f"--clip {clip or 'is missing'}: expected one of {options.records}, whose clips are as {shown}"
        )
    if not manifest.split(manifest.clips[clip].split).renders:
        raise InputError(f"{options.records} has no renders; make records that have them with `asccl data reconstruct`")
    return str(clip)


def _read_track(records: Path, clip: str) -> ClipTrack:
    path = records / "tracks" / f"{clip_file_name(clip)}.npz"
    try:
        with np.load(path, allow_pickle=False) as archive:
            height, width = archive["size"].tolist()
            track = ClipTrack(
                archive["frame_index"],
                archive["time_s"].astype(np.float64),
                archive["flags"].astype(np.int64),
                archive["align_transforms"].astype(np.float64),
                (height, width),
            )
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise InputError(
            f"{path}: no track of `asccl data reconstruct` ({error}); reconstruct the clip again"
        ) from error
    if not len({len(track.frame_index), len(track.time_s), len(track.flags), len(track.align)}) == 1:
        raise InputError(f"{path}: its fields are of different numbers of frames; reconstruct the clip again")
    return track


def _flags(track: ClipTrack, number: int) -> int:
    return int(track.flags[np.searchsorted(track.frame_index, number)])


def _find_faces(folder: Path, clip: str, track: ClipTrack) -> dict[int, Path]:
    """The rendered pictures by frame number, in the clip's folder or that in which `asccl video render` put it."""
    if not folder.is_dir():
        raise InputError(f"--faces {folder}: no such folder; render the clip with `asccl video render`")
    if (folder / clip).is_dir():
        folder = folder / clip
    rendered = folder.resolve()
    for parent in rendered.parents[: clip.count("/") + 1]:
        if (parent / _RENDER_SETTINGS).is_file() and (other := rendered.relative_to(parent).as_posix()) != clip:
            raise InputError(f"--faces {folder}: faces of clip {other!r}, expected those of {clip!r}")
    paths = {int(path.stem): path for path in sorted(folder.glob("*.png")) if path.stem.isdecimal()}
    if not paths:
        raise InputError(
            f"--faces {folder}: no picture named as 000001.png in it; render the clip with `asccl video render`"
        )
    strange = sorted(set(paths) - set(track.frame_index.tolist()))
    if strange:
        raise InputError(
            f"--faces {folder}: {len(strange)} pictures, as {paths[strange[0]].name}, are of no frame of clip {clip!r},"
            f" which has {track.frame_index[0]} to {track.frame_index[-1]}: faces of another clip?"
        )
    return paths


def _check_frame(path: Path, track: ClipTrack, row: int, timed: TimedPicture) -> None:
    """Refuses a video whose frames are not those of the track."""
    height, width = track.size
    found = timed.picture.size
    if height and found != (height + height % 2, width + width % 2):
        raise InputError(
            f"{path}: upright frames of {found[1]} x {found[0]} pixels, the clip was reconstructed from {width} x"
            f" {height}: not the video that was reconstructed"
        )
    wrong_s = abs(timed.time_s - track.time_s[row])
    if wrong_s > _TIME_TOLERANCE_S:
        raise InputError(
            f"{path}: frame {timed.index} is shown at {timed.time_s:.3f} s, that of the reconstruction at"
            f" {track.time_s[row]:.3f} s: not the video that was reconstructed"
        )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=command_name(),
        description=_DESCRIPTION,
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("records", type=Path, metavar="RECORDS", help="data set that `asccl data reconstruct` made of the video")
    add("--clip", metavar="ID", help="the clip (default: the only one)")
    add("--faces", type=Path, required=True, metavar="DIR", help="its rendered faces, %%06d.png, or render's OUTPUT")
    add("--video", type=Path, required=True, metavar="VIDEO", help="the video itself")
    add("--output", type=Path, required=True, metavar="OUT", help=f"new video ({', '.join(CONTAINERS)})")
    add("--blend", choices=BLENDS, default="pyramid", help="how a face joins its frame (pyramid)")
    add("--segmenter", type=Path, metavar="FILE", help="checkpoint of the published face segmentation, for the masks")
    add("--label", action="store_true", help="a small word in a corner says it is synthetic, too")
    add("--crf", type=int, default=16, metavar="N", help="quality of H.264 from 0, lossless, to 51 (16)")
    add("--overwrite", action="store_true", help="replace OUT")
    return parser


if __name__ == "__main__":
    sys.exit(main())
