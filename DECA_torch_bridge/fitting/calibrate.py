"""Learns a detector's landmark table from neutral clips: `python -m DECA_torch_bridge.fitting.calibrate`.

Three speakers or more; what all of them have in common beside shape is the detector's.
Each round fits every speaker's shape to their neutral clips and moves the landmarks of the mean head by what remains,
averaged over speakers. The shape prior is weak here, so that what a smooth change of the head explains stays shape and
only what it does not becomes the detector's own definition. Offsets are symmetric in the midplane and have no depth,
which frontal clips cannot show.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float

from asccl_jax.errors import InputError
from DECA_torch_bridge.fitting.contour import CONTOUR
from DECA_torch_bridge.fitting.gauss_newton import FitSettings, Solution, fit
from DECA_torch_bridge.fitting.landmark_clips import read_landmarks
from DECA_torch_bridge.fitting.landmark_head import STATIC, LandmarkHead, build_landmark_head
from DECA_torch_bridge.fitting.landmark_tables import TABLE_NAMES, LandmarkTable, save_table
from DECA_torch_bridge.fitting.projection import SCALE, project
from DECA_torch_bridge.fitting.residuals import Measurements
from DECA_torch_bridge.head_assets import HeadAssets, builtin_assets

__all__ = ["MIRROR", "learn_table", "main"]

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
    parser = argparse.ArgumentParser(prog="python -m DECA_torch_bridge.fitting.calibrate", description=__doc__)
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
