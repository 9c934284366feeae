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
_SWITCH_EFFECT = 1e-2
_WEIGHT_JUMP = 0.28
_LARGEST_NCE = 2 / 0.07 + math.log(256)
_EXACT = 1e-9

RULES = f"""\
float32: allowed = {FACTOR:g} x the array's float32-float64 spread: the README's table, else its line for the other
arrays, else the stored float64 twin; at least {FLOOR:g} of the largest absolute value. As that README calls out:
  (adam) parameter entries move by +-lr whatever the size of a gradient near zero: entries of traj/final_params may
         differ by 2 lr steps; trajectories agree to {_TRAJECTORY_AGREEMENT:g}, which is taken as their least spread.
  (jump) a disparity at the weight's jump falls on either side. Where some do, counted against an exact run, their share
         of the weights times {_WEIGHT_JUMP} is added to bounds of weights, that times the largest possible PatchNCE to
         those of losses, and {_SWITCH_EFFECT:g} of the largest value to those of gradients.
Rectifiers at zero are put on the exact run's side instead (tests/parity/switches.py): no bound is widened for them.
float64: allowed = {_EXACT:g} of the largest absolute value."""


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
    if name.startswith("traj/") and spread < _TRAJECTORY_AGREEMENT * scale:
        spread, rule = _TRAJECTORY_AGREEMENT * scale, "adam"
    allowed = FACTOR * spread
    if allowed < FLOOR * scale:
        allowed, rule = FLOOR * scale, "floor"
    if name == "traj/final_params/samples":
        allowed, rule = 2 * LEARNING_RATE * trajectory_steps(golden), "adam"
    widening = _jump_effect(name, weight_jumps, scale)
    return Bound(allowed + widening, f"{rule} + jump" if widening else rule)


def exact_bound(name: str, golden: Mapping[str, np.ndarray]) -> Bound:
    """Bound of a float64 array."""
    return Bound(_EXACT * float(np.nanmax(np.abs(golden[name]))), "exact")


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
