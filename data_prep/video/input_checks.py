"""What is looked at before any work on a video: can it be read, is it one scene, is there room on the disk."""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import functools
import itertools
import json
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from jaxtyping import Float, Float32, Int64, UInt8

from asccl_jax.data.manifest import Manifest
from asccl_jax.errors import InputError, WriteError
from asccl_jax.progress import ProgressBar
from data_prep.media.decode import BrokenMediaError, read_frames
from data_prep.media.encode import MarkedVideoWriter, refusal_of_sound
from data_prep.media.video_files import open_video

__all__ = [
    "QUICKSTART",
    "SceneCuts",
    "VideoCheck",
    "check_disk",
    "check_sound",
    "check_video",
    "find_weights",
    "person_remark",
    "require_network",
    "require_video",
    "run_config",
]

# Scene cuts of a video: where a picture is unlike the last one, stays so, and its neighbours move far less.

_SIDE = 64
_LEAST_CHANGE = 8.0
"""Grey levels of 255, mean over the picture; talking heads change by 1 to 4 from frame to frame."""
_LEAST_UNLIKENESS = 0.03
"""One minus the correlation of the pictures: more light or less alone does not change it."""
_TIMES_THE_NEIGHBOURS = 4.0
_NEIGHBOURS = 8
"""Changes before, and as many after, that a cut must stand out from."""
_QUANTILE = 80
"""Of the neighbours: another cut among them does not hide this one, held frames do not make the others stand out."""
_FLASH = 2
"""Frames after which a picture that is as before was a flash and no cut."""


class SceneCuts:
    """Finds cuts in pictures given one by one; what it keeps of each is two numbers."""

    def __init__(self) -> None:
        self._last: collections.deque[Float32[np.ndarray, "s s 3"]] = collections.deque(maxlen=_FLASH + 1)
        self._changes: list[float] = []
        self._unlike: list[bool] = []

    def add(self, image: UInt8[np.ndarray, "h w 3"] | None) -> None:
        """Takes the next picture; None, of one that cannot be read, counts as no change."""
        if image is None:
            small = self._last[-1] if self._last else np.zeros((_SIDE, _SIDE, 3), np.float32)
        else:
            small = cv2.resize(image, (_SIDE, _SIDE), interpolation=cv2.INTER_AREA).astype(np.float32)
        if self._last:
            self._changes.append(float(np.abs(small - self._last[-1]).mean()))
            self._unlike.append(True)
        for back, before in enumerate(reversed(self._last), start=1):
            if not _unlike(before, small):  # then no cut lies between the two: what does was a flash
                self._unlike[-back:] = [False] * back
        self._last.append(small)

    def found(self) -> list[int]:
        """Returns the numbers of the frames that begin a new scene."""
        changes = np.array(self._changes)
        return [
            pair + 1
            for pair in np.flatnonzero(np.array(self._unlike, bool)).tolist()
            if changes[pair] >= _TIMES_THE_NEIGHBOURS * _usual(changes, pair)
        ]

    @classmethod
    def of(cls, images: Iterable[UInt8[np.ndarray, "h w 3"]]) -> list[int]:
        """Returns the cuts of some pictures."""
        cuts = cls()
        for image in images:
            cuts.add(image)
        return cuts.found()


def _unlike(a: Float32[np.ndarray, "s s 3"], b: Float32[np.ndarray, "s s 3"]) -> bool:
    if float(np.abs(a - b).mean()) < _LEAST_CHANGE:
        return False
    first, second = (image.mean(axis=-1).ravel() - image.mean() for image in (a, b))
    size = float(np.linalg.norm(first) * np.linalg.norm(second))
    return size == 0 or 1 - float(first @ second) / size >= _LEAST_UNLIKENESS


def _usual(changes: Float[np.ndarray, " n"], pair: int) -> float:
    nearby: Int64[np.ndarray, " m"] = np.arange(max(pair - _NEIGHBOURS, 0), min(pair + _NEIGHBOURS + 1, len(changes)))
    others = changes[nearby[nearby != pair]]
    return float(np.percentile(others, _QUANTILE)) if len(others) else 0.0


_SAMPLED = 8
"""Frames in which faces are counted."""
_SAMPLED_EVERY = 15
"""Frames between those in which faces are first counted; doubled as the video goes on, so that few are counted."""
_DETECTOR_SIDE = 480
_COMPARABLE = 0.4
"""Of the widest face: what is narrower is a picture on a wall, or nothing."""
_SHOWN_CUTS = 5
_BYTES_PER_FRAME = 350_000
"""Of the work folder at its fullest: records twice while they are assembled (250,000 measured, 330,000 with wrinkles),
later once, beside pictures of the edit (40,000) and drawn faces (up to 100,000)."""


@dataclasses.dataclass(frozen=True)
class VideoCheck:
    """What a video turned out to be.

    Attributes:
      frames: How many it has.
      unreadable: Frames that cannot be decoded.
      width: Upright, in pixels.
      height: Likewise.
      duration_s: From the first to the last frame.
      steady: Whether its frame rate is constant, to a tenth of a frame.
      cuts_s: Times at which another scene begins.
      several_faces: Share of sampled frames that show several faces of comparable size.
    """

    frames: int
    unreadable: int
    width: int
    height: int
    duration_s: float
    steady: bool
    cuts_s: tuple[float, ...]
    several_faces: float

    def remarks(self, video: Path) -> list[str]:
        """Returns lines that a person should read; none for a plain video."""
        said = []
        if self.several_faces > 0.5:
            said.append(
                f"{video}: several faces; only one is changed, the largest (with precomputed landmarks: the one they"
                " are of)"
            )
        if self.cuts_s:
            said.append(f"{video}: scenes begin at {_times(self.cuts_s)}; kept, as --keep-cuts says")
        if self.unreadable:
            said.append(f"{video}: {self.unreadable} of {self.frames} frames cannot be read")
        return said

    def to_json(self) -> dict[str, Any]:
        """Returns it as JSON can hold it."""
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> VideoCheck:
        """Returns what `to_json` gave."""
        return cls(**{**content, "cuts_s": tuple(content["cuts_s"])})


def require_video(path: Path, option: str) -> None:
    """Raises `InputError` unless a file is there.

    Args:
      path: The file.
      option: What the user calls it.
    """
    if path.is_dir():
        raise InputError(f"{option} {path}: is a folder, expected a video file")
    if not path.is_file():
        raise InputError(f"{option} {path}: no such file, expected a video")


def check_video(path: Path, option: str, *, keep_cuts: bool = False) -> VideoCheck:
    """Reads a video once, frame by frame, and returns what it is.

    Args:
      path: The file.
      option: What the user calls it, for messages.
      keep_cuts: Whether it may have several scenes.

    Raises:
      InputError: No video, not one frame, or several scenes.
    """
    require_video(path, option)
    try:
        found = _read(path)
    except BrokenMediaError as error:
        raise InputError(f"{option} {path}: {error}") from error
    if found.cuts_s and not keep_cuts:
        raise InputError(
            f"{option} {path}: {len(found.cuts_s) + 1} scenes, cut at {_times(found.cuts_s)}; a head is fitted to one"
            " scene of one person: cut the video there, or give --keep-cuts if these are no cuts"
        )
    return found


def check_disk(folder: Path, frames: int, option: str) -> None:
    """Raises `InputError` if the disk of a folder, which need not exist, has no room for the work on so many frames."""
    place = next(parent for parent in (folder.absolute(), *folder.absolute().parents) if parent.is_dir())
    needed, free = frames * _BYTES_PER_FRAME, shutil.disk_usage(place).free
    if needed > free:
        room = f"about {needed / 1e9:,.1f} GB, {free / 1e9:,.1f} GB are free"
        raise InputError(f"{option} {folder}: {frames:,} frames need {room}; name a folder on another disk")


def check_sound(video: Path, output: Path) -> None:
    """Raises `InputError` if a video cannot become an output: its last step is done on its first second, and forgotten.

    Sound, which is never encoded, is copied whole: FFmpeg may refuse any packet of it.

    Args:
      video: With the sound.
      output: Name of the video to be written.
    """
    try:
        _rehearse(video, output)
    except InputError as error:
        raise InputError(f"-o {output}: {error}") from error
    except WriteError as error:
        reason = refusal_of_sound(video, output) or str(error)
        remedy = f"encode its sound anew first: ffmpeg -i {video} -c:v copy -c:a aac NEW.mp4"
        with contextlib.suppress(InputError, WriteError):
            _rehearse(video, output.with_suffix(".mkv"))
            remedy = "name an output that ends in .mkv"
        raise InputError(f"-o {output}: cannot hold the sound of {video} as it is ({reason}); {remedy}") from error


def _rehearse(video: Path, output: Path) -> None:
    with (
        open_video(video) as source,
        MarkedVideoWriter(
            output,
            clock=source.clock,
            rate=source.rate,
            sound_of=video,
            origin_s=source.origin_s,
            aspect=source.aspect,
            rehearsal=True,
        ) as writer,
    ):
        for timed in itertools.takewhile(lambda timed: timed.time_s <= 1, source.pictures()):
            writer.write(timed.picture, pts=timed.pts, duration=timed.duration)


def _read(path: Path) -> VideoCheck:
    cuts, times, unreadable, size = SceneCuts(), [], 0, (0, 0)
    faces = _FaceCounts()
    for frame in ProgressBar(read_frames(path), unit="frame", leave=False):
        times.append(frame.time_s)
        cuts.add(frame.image)
        if frame.image is None:
            unreadable += 1
            continue
        if size not in ((0, 0), frame.image.shape[:2]):
            raise BrokenMediaError(f"frame {frame.index} has another size than those before; cut it there")
        size = frame.image.shape[:2]
        faces.see(frame.index, frame.image)
    steps = np.diff(times)
    return VideoCheck(
        frames=len(times),
        unreadable=unreadable,
        width=size[1],
        height=size[0],
        duration_s=round(times[-1], 3),
        steady=bool(not len(steps) or np.abs(steps - np.median(steps)).max() <= 0.1 * np.median(steps)),
        cuts_s=tuple(round(times[number], 2) for number in cuts.found()),
        several_faces=faces.share_of_several,
    )


class _FaceCounts:
    """Counts faces in few frames, evenly spaced however long the video turns out to be."""

    def __init__(self) -> None:
        self._counts: dict[int, int] = {}
        self._every = _SAMPLED_EVERY

    def see(self, number: int, image: UInt8[np.ndarray, "h w 3"]) -> None:
        """Counts in the frame if it is one of those."""
        if number % self._every:
            return
        self._counts[number] = _faces(image)
        if len(self._counts) > _SAMPLED:
            self._every *= 2
            self._counts = {place: count for place, count in self._counts.items() if place % self._every == 0}

    @property
    def share_of_several(self) -> float:
        """Share of the frames looked at with more than one face."""
        return sum(count > 1 for count in self._counts.values()) / max(len(self._counts), 1)


def _faces(image: UInt8[np.ndarray, "h w 3"]) -> int:
    """Frontal faces that are not much smaller than the largest."""
    scale = min(_DETECTOR_SIDE / max(image.shape[:2]), 1.0)
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    if scale < 1:
        grey = cv2.resize(grey, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    widths = [int(box[2]) for box in _detector().detectMultiScale(grey, 1.1, 6)]
    return sum(width >= _COMPARABLE * max(widths) for width in widths)


@functools.cache
def _detector() -> cv2.CascadeClassifier:
    return cv2.CascadeClassifier(str(Path(cv2.__file__).parent / "data" / "haarcascade_frontalface_default.xml"))


def _times(seconds: tuple[float, ...]) -> str:
    shown = ", ".join(f"{time:g} s" for time in seconds[:_SHOWN_CUTS])
    return shown + (f" and {len(seconds) - _SHOWN_CUTS} more" if len(seconds) > _SHOWN_CUTS else "")


# The networks that a run is given: whether they are there, and whom a renderer has learnt.

QUICKSTART = Path("runs/quickstart")
"""Where `launch/quickstart.sh` trains a manipulator and a renderer."""

_HOW_TO_GET = {
    "manipulator": (
        "`bash launch/quickstart.sh` trains a small one, `python -m asccl_jax.main --config configs/manipulator.py` a"
        " whole one (README, Change the expression); name it with --manipulator"
    ),
    "renderer": (
        "`asccl video train-renderer VIDEO` trains one for the person in a video, `bash launch/quickstart.sh` a small"
        " one for a synthetic person; name it with --renderer"
    ),
    "metric": "`bash launch/quickstart.sh` trains a small one; name it with --metric",
}


def find_weights(directory: Path, kind: str) -> Path | None:
    """Returns where the weights of a folder, or of a training run's, are (see `saved_weights`); None if nowhere."""
    folders = (directory, directory / "best", directory / "last")
    return next((folder for folder in folders if (folder / f"{kind}.json").is_file()), None)


def require_network(directory: Path, kind: str) -> Path:
    """Returns where the weights of a network are.

    Raises:
      InputError: There are none; the message says how to get some.
    """
    found = find_weights(directory, kind)
    if found is None:
        raise InputError(f"--{kind} {directory}: no trained {kind} there; {_HOW_TO_GET[kind]}")
    return found


def run_config(directory: Path) -> dict[str, Any]:
    """Returns the recipe of the training run that a network is of; nothing where it is not known."""
    for folder in (directory, directory.parent):
        try:
            found = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            continue
        if isinstance(found, dict):
            return found
    return {}


def person_remark(renderer: Path, speaker: str, video: Path) -> str:
    """Returns a warning if a renderer's run says that it has never seen a person; else nothing.

    Args:
      renderer: Folder of the renderer, or of its run.
      speaker: What the person is called.
      video: Where they are seen.
    """
    data = run_config(renderer).get("data", {})
    try:
        manifest = Manifest.from_json((Path(data["dir"]) / "manifest.json").read_text(encoding="utf-8"))
    except (InputError, OSError, KeyError, TypeError, ValueError):
        return ""
    chosen = set(data.get("speakers") or manifest.speakers("train"))
    sources = {Path(clip.source).name for clip in manifest.clips.values() if clip.speaker in chosen}
    if speaker in chosen or video.name in sources:
        return ""
    people = ", ".join(sorted(chosen)[:3]) + (", ..." if len(chosen) > 3 else "")
    return (
        f"--renderer {renderer} has learnt {people}, not {speaker}: expect the wrong skin; asccl video train-renderer"
        f" {video} trains one for this person (or, if it is the same one, say so: --speaker NAME)"
    )
