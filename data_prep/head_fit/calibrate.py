"""Learns a detector's landmark table from neutral clips: `python -m data_prep.head_fit.calibrate`.

Three speakers or more; what all of them have in common beside shape is the detector's.
Each round fits every speaker's shape to their neutral clips and moves the landmarks of the mean head by what remains,
averaged over speakers. The shape prior is weak here, so that what a smooth change of the head explains stays shape and
only what it does not becomes the detector's own definition. Offsets are symmetric in the midplane and have no depth,
which frontal clips cannot show.
"""

from __future__ import annotations

import argparse
import dataclasses
import re
import sys
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float

from asccl_jax.data.schema import EMOTIONS
from asccl_jax.errors import InputError
from asccl_jax.process import command_name
from data_prep.head_fit.gauss_newton import FitSettings, Measurements, Solution, fit
from data_prep.head_fit.head_assets import HeadAssets, builtin_assets
from data_prep.head_fit.landmark_tables import TABLE_NAMES, LandmarkTable, save_table
from data_prep.head_fit.projection import CONTOUR, SCALE, STATIC, LandmarkHead, build_landmark_head, project

__all__ = ["MIRROR", "LandmarkClip", "learn_table", "main", "read_clips", "read_landmarks"]

# Landmarks of real clips on disk: one npz per clip, named SPEAKER_sSENTENCE_EMOTION_src or ..._to_EMOTION_METHOD.

_KEYS = ("landmarks68", "lm68")
_NAME = re.compile(
    r"(?P<speaker>[^_]+)_s(?P<sentence>\w+?)_(?P<emotion>[a-z]+)(_to_(?P<target>[a-z]+))?_(?P<maker>\w+)"
)


@dataclasses.dataclass(frozen=True, eq=False)
class LandmarkClip:
    """A clip's landmarks and what its name says.

    Attributes:
      name: File name without ending.
      speaker: Who.
      emotion: What is seen: for an edited clip the emotion it was edited to.
      source: Whether it is real footage; else the output of a method.
      maker: "src" or the method.
      landmarks: Pixels; NaN without a face.
    """

    name: str
    speaker: str
    emotion: str
    source: bool
    maker: str
    landmarks: Float[np.ndarray, "t 68 2"]


def read_landmarks(path: Path) -> Float[np.ndarray, "t 68 2"]:
    """Returns the landmarks of an npz file, key `landmarks68` or `lm68`.

    Raises:
      InputError: No such file, or no landmarks in it.
    """
    try:
        with np.load(path, allow_pickle=False) as archive:
            key = next((key for key in _KEYS if key in archive), None)
            if key is None:
                raise ValueError(f"no array {' or '.join(_KEYS)}")
            landmarks = archive[key].astype(np.float64)
    except (OSError, ValueError, zipfile.BadZipFile) as error:
        raise InputError(f"landmark file {path}: {error}") from error
    if landmarks.ndim != 3 or landmarks.shape[1:] != (68, 2):
        raise InputError(f"landmark file {path}: shape {landmarks.shape}, expected (frames, 68, 2)")
    return landmarks


def read_clips(directory: Path) -> list[LandmarkClip]:
    """Returns the clips of a folder of npz files, or of its folder `landmarks68`, by name.

    Raises:
      InputError: No such files, or names that do not say speaker and emotion.
    """
    folder = directory / "landmarks68" if (directory / "landmarks68").is_dir() else directory
    paths = sorted(folder.glob("*.npz"))
    if not paths:
        raise InputError(f"{directory}: no landmark files (*.npz, or landmarks68/*.npz)")
    clips = []
    for path in paths:
        match = _NAME.fullmatch(path.stem)
        emotion = match and (match["target"] or match["emotion"])
        if match is None or emotion not in EMOTIONS:
            raise InputError(f"{path.name}: expected SPEAKER_sSENTENCE_EMOTION_src or ..._to_EMOTION_METHOD")
        source = match["target"] is None
        clips.append(
            LandmarkClip(path.stem, match["speaker"], str(emotion), source, match["maker"], read_landmarks(path))
        )
    return clips


_ROUNDS = 2
_SHAPE_PER_FRAME = 0.1
_OUTLIER = 3.0  # standard deviations of a landmark


def _mirror() -> tuple[int, ...]:
    """Which of the 68 landmarks is each one's mirror image."""
    pairs = [(i, 16 - i) for i in range(8)] + [(17 + i, 26 - i) for i in range(5)] + [(31, 35), (32, 34)]
    pairs += [(36, 45), (37, 44), (38, 43), (39, 42), (40, 47), (41, 46)]
    pairs += [(48, 54), (49, 53), (50, 52), (55, 59), (56, 58), (60, 64), (61, 63), (65, 67)]
    partner = list(range(68))
    for a, b in pairs:
        partner[a], partner[b] = b, a
    return tuple(partner)


MIRROR = _mirror()


def learn_table(
    detector: str, speakers: Mapping[str, Sequence[Float[np.ndarray, "_ 68 2"]]], assets: HeadAssets, *, made: str = ""
) -> LandmarkTable:
    """Returns the table that makes residuals zero in the mean over speakers.

    Args:
      detector: Name of the table.
      speakers: Landmarks in pixels of each speaker's neutral clips.
      assets: The head to calibrate for.
      made: How, for a reader of the table.
    """
    table = LandmarkTable.zero(detector, made=made)
    settings = FitSettings()
    priors = dataclasses.replace(settings.priors, shape_per_frame=_SHAPE_PER_FRAME)
    for _ in range(_ROUNDS):
        head = build_landmark_head(assets, table)
        shifts, insets = [], []
        for clips in speakers.values():
            measured = Measurements.of(list(clips))
            everywhere = np.ones(len(measured.landmarks), bool)
            found = fit(head, measured, settings=dataclasses.replace(settings, priors=priors), neutral=everywhere)
            shift, inset = _remainder(head, found, measured)
            shifts.append(shift)
            insets.append(inset)
        table = dataclasses.replace(
            table,
            offsets_m=table.offsets_m + _symmetric(np.mean(shifts, axis=0)),
            insets_m=table.insets_m + 0.5 * (np.mean(insets, axis=0) + np.mean(insets, axis=0)[::-1]),
        )
    return table


def _remainder(
    head: LandmarkHead, found: Solution, measured: Measurements
) -> tuple[Float[np.ndarray, "51 3"], Float[np.ndarray, "17"]]:
    """Shift of each fixed landmark in the head, and inset of each of the outline's, that residuals ask for."""
    free = dataclasses.replace(
        head,
        points=head.points + head.identity @ found.shape,
        identity=np.broadcast_to(np.eye(3)[:, :2], (len(head.points), 3, 2)),
        joints=head.joints + head.joint_identity @ found.shape,
        joint_identity=np.zeros((2, 3, 2)),
    )
    projection, slopes = project(free, found.states, np.zeros(2), measured.normals, derivatives=True)
    assert slopes is not None
    assert slopes.identity is not None
    residual = measured.landmarks - projection.points
    size = np.linalg.norm(residual, axis=-1) / (_OUTLIER * measured.sigma_px)
    trust = measured.found / (1 + size**2)
    inset = -(residual[:, :CONTOUR] * measured.normals).sum(-1) / np.exp(found.states[:, SCALE])[:, None]
    weighted = trust[:, CONTOUR:, None, None] * slopes.identity[:, CONTOUR:]
    normal = np.einsum("tkca,tkcb->kab", weighted, slopes.identity[:, CONTOUR:])
    right = np.einsum("tkca,tkc->ka", weighted, residual[:, CONTOUR:])
    shift = np.zeros((STATIC, 3))
    shift[:, :2] = np.linalg.solve(normal, right[..., None])[..., 0]
    trust = trust[:, :CONTOUR]
    return shift, (trust * inset).sum(0) / trust.sum(0)


def _symmetric(shift: Float[np.ndarray, "51 3"]) -> Float[np.ndarray, "51 3"]:
    partner = np.array(MIRROR[CONTOUR:]) - CONTOUR
    return 0.5 * (shift + shift[partner] * (-1, 1, 1))


def main(arguments: list[str] | None = None) -> int:
    """Learns a table and writes it; returns the exit status."""
    parser = argparse.ArgumentParser(prog=command_name(), description=__doc__)
    parser.add_argument("--detector", required=True, choices=TABLE_NAMES)
    parser.add_argument(
        "--clip", action="append", required=True, metavar="SPEAKER=NPZ", help="neutral clip's landmarks; repeatable"
    )
    parser.add_argument("--output", type=Path, required=True, help="JSON file to write")
    options = parser.parse_args(arguments)
    try:
        speakers: dict[str, list[np.ndarray]] = {}
        for clip in options.clip:
            speaker, _, path = clip.partition("=")
            if not path:
                raise InputError(f"--clip {clip}: expected SPEAKER=NPZ")
            speakers.setdefault(speaker, []).append(read_landmarks(Path(path)))
        frames = sum(len(clip) for clips in speakers.values() for clip in clips)
        made = (
            f"calibrate, {_ROUNDS} rounds, built-in head, {len(options.clip)} neutral clips ({frames} frames) of "
            f"{', '.join(sorted(speakers))}"
        )
        save_table(learn_table(options.detector, speakers, builtin_assets(), made=made), options.output)
    except InputError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    sys.stdout.write(f"{options.output}: {made}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
