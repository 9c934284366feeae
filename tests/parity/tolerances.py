"""How far each array may be from its golden, from the float32-float64 spread that the golden's README states."""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from tests.parity.metric import LEARNING_RATE, trajectory_steps

__all__ = ["FACTOR", "FLOOR", "RULES", "Bound", "Spreads", "exact_bound", "read_spreads", "rounding_bound"]

FACTOR = 10.0
FLOOR = 1e-6
_TRAJECTORY_AGREEMENT = 1e-4
_MANIPULATOR_LOSSES_AGREEMENT = 3e-3
_MANIPULATOR_RATE = 1e-4
_MANIPULATOR_UPDATES = {"generator": 2, "mapping_network": 1, "style_encoder": 1, "discriminator": 2}
"""How often a training step of the manipulator moves each network."""

_RENDERER_RATE = 2e-4

_SWITCH_EFFECT = 1e-2
_WEIGHT_JUMP = 0.28
_LARGEST_NCE = 2 / 0.07 + math.log(256)
_EXACT = 1e-9

RULES = f"""\
float32: allowed = {FACTOR:g} x the array's float32-float64 spread: the README's table, else its line for the other
arrays, else the stored float64 twin, else a float64 run of this code; at least {FLOOR:g} of the largest absolute value.
As that README calls out:
  (adam) parameter entries move by +-lr whatever the size of a gradient near zero: entries of traj/final_* and of the
         renderer's final/G and final/D may differ by 2 lr for every update; trajectories agree to
         {_TRAJECTORY_AGREEMENT:g}, the manipulator's losses to {_MANIPULATOR_LOSSES_AGREEMENT:g},
         which is taken as their least spread.
  (jump) a disparity at the weight's jump falls on either side. Where some do, counted against an exact run, their share
         of the weights times {_WEIGHT_JUMP} is added to bounds of weights, that times the largest possible PatchNCE to
         those of losses, and {_SWITCH_EFFECT:g} of the largest value to those of gradients.
  (jaw)  the correlation of two jaw tracks moves by what the generated one moves by, divided by its deviation: bounds of
         the manipulator's mouth and generator losses get twice that, for the two correlations in them.
Rectifiers, maxima and absolute values within rounding of their switch are put on the exact run's side for gradients
(tests/parity/switches.py), and no bound is widened for them; one that is further off stays and counts as an error.
float64: allowed = {_EXACT:g} of the largest absolute value.
  (last bits) updates of the renderer magnify the reference's rounding, above all Adam where a gradient is below its
         epsilon; where that is more, {FACTOR:g} x what changes in a second run from weights that are off by the
         reference's rounding in one layer (tests/parity/renderer_train.py)."""


@dataclasses.dataclass(frozen=True)
class Spreads:
    """Spread of a golden's arrays, as far as the README states it.

    Attributes:
      listed: Largest absolute difference by array.
      others: Bound on the difference of all other arrays, relative to their largest value; None if not stated.
    """

    listed: Mapping[str, float]
    others: float | None


@dataclasses.dataclass(frozen=True)
class Bound:
    """Allowed absolute error and the rule it comes from."""

    allowed: float
    rule: str


def read_spreads(readme: Path, name: str) -> Spreads:
    """Spreads of one golden; nothing listed where there is no README or no section."""
    if not readme.is_file():
        return Spreads({}, None)
    sections = re.split(r"^### ", readme.read_text(), flags=re.MULTILINE)
    section = next((text for text in sections if text.startswith(f"{name}.npz")), "")
    listed = {array: float(value) for array, value in re.findall(r"^\| `([^`]+)` \| (\S+) \|", section, re.MULTILINE)}
    others = re.search(r"^\| the other \d+ arrays \| *\| <= (\S+) \|", section, re.MULTILINE)
    return Spreads(listed, float(others[1]) if others else None)


def rounding_bound(
    name: str, golden: Mapping[str, np.ndarray], spreads: Spreads, weight_jumps: Mapping[str, np.ndarray]
) -> Bound:
    """Bound of a float32 array."""
    scale = float(np.nanmax(np.abs(golden[name])))
    twin = golden.get(f"f64/{name}")
    if name in spreads.listed:
        spread, rule = spreads.listed[name], "table"
    elif spreads.others is not None:
        spread, rule = spreads.others * scale, "others"
    else:
        spread, rule = (float(np.nanmax(np.abs(golden[name] - twin))), "twin") if twin is not None else (0.0, "floor")
    agreement = _MANIPULATOR_LOSSES_AGREEMENT if name == "traj/losses" else _TRAJECTORY_AGREEMENT
    if name.startswith("traj/") and spread < agreement * scale:
        spread, rule = agreement * scale, "adam"
    allowed = FACTOR * spread
    if allowed < FLOOR * scale:
        allowed, rule = FLOOR * scale, "floor"
    moved = _adam_effect(name, golden)
    if moved is not None:
        allowed, rule = moved, "adam"
    widenings = {"jump": _jump_effect(name, weight_jumps, scale), "jaw": _jaw_effect(name, golden, spreads)}
    rules = [rule, *(reason for reason, widening in widenings.items() if widening)]
    return Bound(allowed + sum(widenings.values()), " + ".join(rules))


def exact_bound(name: str, golden: Mapping[str, np.ndarray], spread: float = 0.0) -> Bound:
    """Bound of a float64 array; `spread` is what weights that differ in their last bits change."""
    allowed = _EXACT * float(np.nanmax(np.abs(golden[name])))
    return Bound(FACTOR * spread, "last bits") if allowed < FACTOR * spread else Bound(allowed, "exact")


def _adam_effect(name: str, golden: Mapping[str, np.ndarray]) -> float | None:
    """How far apart two trajectories may move a parameter; None for arrays of anything else."""
    if name == "traj/final_params/samples":
        return 2 * LEARNING_RATE * trajectory_steps(golden)
    if name in ("final/G/samples", "final/D/samples"):
        return 2 * _RENDERER_RATE * len(golden["losses"])
    network = name.removeprefix("traj/final_").removesuffix("/samples")
    if name != f"traj/final_{network}/samples" or network not in _MANIPULATOR_UPDATES:
        return None
    return 2 * _MANIPULATOR_RATE * _MANIPULATOR_UPDATES[network] * len(golden["traj/losses"])


def _jump_effect(name: str, weight_jumps: Mapping[str, np.ndarray], scale: float) -> float:
    """What disparities on the other side of the weight's jump may add to an array's error."""
    part = name.partition("/")[0]
    if part not in weight_jumps or not weight_jumps[part].any():
        return 0.0
    if "grad/" in name:
        return _SWITCH_EFFECT * scale
    change = _WEIGHT_JUMP * float(weight_jumps[part].sum())
    if "loss" in name:
        return change * _LARGEST_NCE
    return change if "weight" in name else 0.0


def _jaw_effect(name: str, golden: Mapping[str, np.ndarray], spreads: Spreads) -> float:
    """What the rounding of a generated jaw track may add to the error of its correlations."""
    match = re.fullmatch(r"g_(latent|reference)/(mouth|loss)", name)
    generated = f"eval/generator_{match[1]}" if match else ""
    if generated not in golden:
        return 0.0
    moved = spreads.listed.get(generated, FLOOR * float(np.abs(golden[generated]).max()))
    return 2 * moved / float(golden[generated][..., 0].std(axis=1).min())
