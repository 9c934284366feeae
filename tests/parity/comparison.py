"""Compares what was replayed with what a golden holds, array by array, and misses none silently."""

from __future__ import annotations

import dataclasses
import functools
import re
from collections.abc import Container, Iterator, Mapping

import numpy as np

from tests.parity import recipe
from tests.parity.metric import Replayed
from tests.parity.tolerances import Bound, Spreads, exact_bound, rounding_bound

__all__ = ["Line", "compare", "skipped"]

_INPUTS = re.compile(r"(cfg|.*/centres\d(_step\d+)?|.*/perm\d(_step\d+)?)$")
_EXACT_SUFFIXES = ("/keys", "/shape")


@dataclasses.dataclass(frozen=True)
class Line:
    """Verdict on one array; `error` is None where nothing could be compared."""

    name: str
    error: float | None
    allowed: float
    note: str

    @property
    def passed(self) -> bool:
        return self.error is not None and self.error <= self.allowed


def skipped(golden: Mapping[str, np.ndarray], *, exact: bool, by_nature: Container[str] = ()) -> dict[str, str]:
    """Arrays that a run does not compare, and why.

    Args:
      golden: Arrays of the file.
      exact: Whether the run computes in float64.
      by_nature: Names, `f64/` included, of arrays that every run computes in float64.
    """
    reasons = {name: "input, replayed" for name in golden if _INPUTS.match(name)}
    for name in golden.keys() - reasons.keys():
        if name.startswith("f64/"):
            if not exact and name not in by_nature:
                reasons[name] = "float64 twin: compared with --precision float64"
        elif exact and not name.endswith(_EXACT_SUFFIXES):
            twin = f"f64/{name}" in golden
            reasons[name] = "float32: its float64 twin is compared" if twin else "float32 without a float64 twin"
    return reasons


def compare(
    golden: Mapping[str, np.ndarray], results: Replayed, spreads: Spreads, *, exact: bool = False
) -> Iterator[Line]:
    """Verdicts on every array that is not skipped, in the order of the file.

    A float64 run of this code is made once, and only if an array is not as near as the reference's spreads ask for.
    """
    left_out = skipped(golden, exact=exact, by_nature=results.tensors)
    exactly = functools.cache(results.exact or Replayed)
    for stored in golden:
        if stored in left_out:
            continue
        name = stored if stored in results.tensors else stored.removeprefix("f64/")
        found = _find(name, golden[stored], golden, results)
        if found is None:
            yield Line(stored, None, 0.0, "nothing replays this array")
        elif stored in results.grey_levels and found.shape == golden[stored].shape:
            error = np.abs(found.astype(np.float64) - golden[stored]).max()
            yield Line(stored, float(error), results.grey_levels[stored], "grey levels")
        elif golden[stored].dtype.kind not in "f":
            same = np.array_equal(found, golden[stored])
            yield Line(stored, 0.0 if same else np.inf, 0.0, "exact")
        elif found.shape != golden[stored].shape or (np.isnan(found) != np.isnan(golden[stored])).any():
            yield Line(stored, np.inf, 0.0, f"shape {found.shape} or its NaN differ, expected {golden[stored].shape}")
        elif stored.startswith("f64/") or exact:
            yield _judge_exact(stored, name, found, golden, results)
        else:
            known = (stored, golden, spreads, results.weight_jumps)
            line = _judge(stored, found, golden, rounding_bound(*known))
            if not line.passed and (again := _find(name, golden[stored], golden, exactly())) is not None:
                own = float(np.nanmax(np.abs(found - again)))
                line = _judge(stored, found, golden, rounding_bound(*known, own=own))
            yield line


def _judge_exact(
    stored: str, name: str, found: np.ndarray, golden: Mapping[str, np.ndarray], results: Replayed
) -> Line:
    again = results.again and _find(name, golden[stored], golden, results.again)
    unknown = results.unknown.get(name, np.zeros(found.shape, bool))
    spread = 0.0 if again is None else float(np.nanmax(np.where(unknown, 0.0, np.abs(found - again))))
    line = _judge(stored, np.where(unknown, golden[stored], found), golden, exact_bound(stored, golden, spread))
    left_out = f"; {unknown.sum()} of {unknown.size} entries are left to chance or rounding" if unknown.any() else ""
    return dataclasses.replace(line, note=line.note + left_out)


def _judge(stored: str, found: np.ndarray, golden: Mapping[str, np.ndarray], bound: Bound) -> Line:
    differences = np.abs(found.astype(np.float64) - golden[stored])
    note = bound.rule
    keys = golden.get(f"{stored.removeprefix('f64/').rpartition('/')[0]}/keys")
    if keys is not None:
        by_key = differences.reshape(len(keys), -1)
        worst = int(np.nanargmax(np.nanmax(np.where(np.isnan(by_key), -1, by_key), axis=1)))
        note += f"; worst {keys[worst]}"
    return Line(stored, float(np.nanmax(differences)), bound.allowed, note)


def _find(name: str, stored: np.ndarray, golden: Mapping[str, np.ndarray], results: Replayed) -> np.ndarray | None:
    """The replayed counterpart of a stored array: the array itself, or its part or summary that the name asks for."""
    if name in results.tensors:
        return results.tensors[name]
    base, _, part = name.rpartition("/")
    if base in results.collections:
        return _of_collection(part, stored, golden[f"{base}/keys"], results.collections[base])
    for suffix, view in (("_chan_mean", _channel_means), ("_strided", _strided)):
        whole = results.tensors.get(name.removesuffix(suffix)) if name.endswith(suffix) else None
        if whole is not None:
            return view(whole, stored.shape)
    if base not in results.tensors:
        return None
    whole = results.tensors[base]
    if part == "samples":
        return whole.reshape(-1)[recipe.sample_indices(base, whole.size, stored.size)]
    if part == "shape":
        return np.array(whole.shape)
    return _statistics(whole) if part == "stats" else None


def _of_collection(
    part: str, stored: np.ndarray, keys: np.ndarray, arrays: Mapping[str, np.ndarray]
) -> np.ndarray | None:
    if part == "keys":
        unknown = arrays.keys() - set(keys.tolist())
        return np.array([]) if unknown else stored
    count = stored.shape[1] if part == "samples" else 1
    absent = (np.nan, np.full(count, np.nan))
    summaries = [recipe.summarise(key, arrays[key], count) if key in arrays else absent for key in keys.tolist()]
    if part == "l2":
        return np.array([norm for norm, _ in summaries])
    return np.stack([samples for _, samples in summaries]) if part == "samples" else None


def _channel_means(whole: np.ndarray, _: tuple[int, ...]) -> np.ndarray:
    # In float64: NumPy sums a transposed float32 array one by one, which loses more than the network does.
    return whole.mean(axis=(2, 3), dtype=np.float64)


def _strided(whole: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    steps = (-(-side // kept) for side, kept in zip(whole.shape, shape, strict=True))
    return whole[tuple(slice(None, None, step) for step in steps)]


def _statistics(whole: np.ndarray) -> np.ndarray:
    exact = whole.astype(np.float64)
    return np.array([exact.mean(), exact.std(), np.abs(exact).max(), np.linalg.norm(exact)])
