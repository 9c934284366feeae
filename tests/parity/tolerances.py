"""How far each array may be from its golden: ten times what float32 makes of these very inputs."""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from tests.parity.metric import LEARNING_RATE, trajectory_steps

__all__ = ["FACTOR", "FLOOR", "RULES", "Bound", "Spreads", "exact_bound", "known_spreads", "rounding_bound"]

FACTOR = 10.0
FLOOR = 1e-6
_LISTED = 14
"""How many arrays a README lists, those of the largest spreads; all others share a line."""

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
float32: allowed = {FACTOR:g} x the spread between a float32 and a float64 run on these very inputs, at least
{FLOOR:g} of the largest absolute value. The spread is
  (table, others)     what the README beside the golden states, in its table or its line for the other arrays, if its
                      heading has this golden's cfg: rounding of one seed and size says nothing of another's;
  (twin, other twins) else how far the golden's own float32 arrays are from their float64 twins: the same table made of
                      them, the {_LISTED} largest by array, the others together;
  (float64 run)       where the reference has no float64 run (what a rasteriser draws, whole pictures), how far this
                      code's float32 run is from its float64 run. A wrong formula is wrong in both and stays to be seen.
As the public README calls out:
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
      rules: What the two are called.
    """

    listed: Mapping[str, float]
    others: float | None
    rules: tuple[str, str] = ("table", "others")


@dataclasses.dataclass(frozen=True)
class Bound:
    """Allowed absolute error and the rule it comes from."""

    allowed: float
    rule: str


def known_spreads(readme: Path, name: str, golden: Mapping[str, np.ndarray]) -> Spreads:
    """Spreads of one golden: of the README's section whose heading has its `cfg`, else of its float64 twins."""
    sections = re.split(r"^### ", readme.read_text() if readme.is_file() else "", flags=re.MULTILINE)
    heading = rf"{re.escape(name)}\.npz .*cfg = {re.escape(str(golden['cfg'].tolist()))}\)"
    section = next((text for text in sections if re.match(heading, text)), None)
    if section is None:
        return _of_twins(golden)
    listed = {array: float(value) for array, value in re.findall(r"^\| `([^`]+)` \| (\S+) \|", section, re.MULTILINE)}
    others = re.search(r"^\| the other \d+ arrays \| *\| <= (\S+) \|", section, re.MULTILINE)
    return Spreads(listed, float(others[1]) if others else None)


def _of_twins(golden: Mapping[str, np.ndarray]) -> Spreads:
    """The table that a README would have, of the arrays that have a twin; one alone may agree by luck."""
    spreads, relative = {}, {}
    for name, array in golden.items():
        twin = golden.get(f"f64/{name}")
        if twin is not None:
            spreads[name] = float(np.nanmax(np.abs(array - twin)))
            relative[name] = spreads[name] / max(float(np.nanmax(np.abs(twin))), np.finfo(np.float32).tiny)
    largest = sorted(relative, key=lambda name: relative[name], reverse=True)
    others = max((relative[name] for name in largest[_LISTED:]), default=None)
    return Spreads({name: spreads[name] for name in largest[:_LISTED]}, others, ("twin", "other twins"))


def rounding_bound(
    name: str,
    golden: Mapping[str, np.ndarray],
    spreads: Spreads,
    weight_jumps: Mapping[str, np.ndarray],
    *,
    own: float = 0.0,
) -> Bound:
    """Bound of a float32 array.

    Args:
      name: The array.
      golden: All arrays of the file.
      spreads: What is known of the reference's rounding.
      weight_jumps: See `Replayed`.
      own: Spread of a float64 run of this code; counts for arrays of which the reference's is not known.
    """
    scale = float(np.nanmax(np.abs(golden[name])))
    if name in spreads.listed:
        spread, rule = spreads.listed[name], spreads.rules[0]
    else:
        spread, rule = (0.0 if spreads.others is None else spreads.others * scale), spreads.rules[1]
        if own > spread and f"f64/{name}" not in golden:
            spread, rule = own, "float64 run"
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
