"""Weights, inputs and sampled entries of the goldens, rebuilt from keys and seeds with NumPy alone."""

from __future__ import annotations

import json
import math
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

__all__ = ["check", "make_input", "make_pair", "make_weights", "read_manifest", "sample_indices", "summarise"]


def read_manifest(directory: Path, name: str) -> list[dict[str, Any]]:
    """Entries of a manifest, in state-dict order."""
    return json.loads((directory / "manifests" / f"{name}.json").read_text())


def make_weights(manifest: Sequence[Mapping[str, Any]], seed: int, *, prefix: str = "") -> dict[str, np.ndarray]:
    """State dict of a manifest; `prefix` is cut from the keys, but drawn with."""
    return {
        entry["key"].removeprefix(prefix): make_array(entry, seed) for entry in manifest if entry["kind"] != "fixed"
    }


def make_array(entry: Mapping[str, Any], seed: int) -> np.ndarray:
    shape, kind = tuple(entry["shape"]), entry["kind"]
    if kind == "counter":
        return np.zeros(shape, np.int64)
    key = entry.get("alias_of", entry["key"])
    noise = np.asarray(_generator(seed, key).standard_normal(shape, dtype=np.float32), np.float32)
    gain = float(entry.get("gain", 1.0))
    # Scales are computed in float64 and rounded once; the rest is float32.
    if kind in ("conv_w", "linear_w"):
        return noise * np.float32(gain * math.sqrt(2 / math.prod(shape[1:])))
    if kind == "convT_w":
        return noise * np.float32(gain * math.sqrt(2 / (shape[0] * math.prod(shape[2:]) / 4)))
    if kind == "lstm_w":
        return noise * np.float32(1 / math.sqrt(entry.get("hidden", shape[0] // 4)))
    tenth = np.float32(0.1)
    if kind in ("bias", "norm_b", "run_mean"):
        return noise * tenth
    if kind == "norm_w":
        return np.float32(1) + tenth * noise
    if kind == "run_var":
        return np.float32(1) + tenth * np.abs(noise)
    if kind == "prelu_w":
        return np.float32(0.25) + np.float32(0.05) * noise
    raise ValueError(f"manifest entry {key}: unknown kind {kind!r}")


def make_input(
    name: str, shape: Sequence[int], seed: int, distribution: str = "normal", low: float = -1, high: float = 1
) -> np.ndarray:
    generator = _generator(seed, f"input:{name}")
    if distribution == "normal":
        return generator.standard_normal(tuple(shape), dtype=np.float32)
    if distribution == "uniform":
        return generator.random(tuple(shape), dtype=np.float32) * np.float32(high - low) + np.float32(low)
    if distribution == "int":
        return generator.integers(int(low), int(high), size=tuple(shape))
    if distribution == "mask":
        return (generator.random(tuple(shape), dtype=np.float32) > 0.3).astype(np.float32)
    if distribution == "disc":
        return np.ascontiguousarray(np.broadcast_to(_disc(*shape[-2:]), tuple(shape)))
    raise ValueError(f"unknown distribution {distribution!r}")


def _disc(height: int, width: int) -> np.ndarray:
    """An ellipse of ones in the middle of zeros."""
    rows = (np.arange(height) + 0.5 - height / 2) / (0.40 * height)
    columns = (np.arange(width) + 0.5 - width / 2) / (0.33 * width)
    return (rows[:, None] ** 2 + columns[None] ** 2 <= 1).astype(np.float32)


def make_pair(source: np.ndarray, noise: np.ndarray) -> np.ndarray:
    """The second image of a pair: mostly the first."""
    return np.float32(0.7) * source + np.float32(0.3) * noise


def sample_indices(name: str, size: int, count: int) -> np.ndarray:
    """Flat indices of the entries that are stored of an array too large to be stored whole."""
    start = zlib.crc32(name.encode())
    return np.array([(start + step * 2654435761) % size for step in range(count)], np.int64)


def summarise(name: str, array: np.ndarray, count: int) -> tuple[float, np.ndarray]:
    """L2 norm in float64, and `count` sampled entries."""
    flat = np.asarray(array).reshape(-1)
    return float(np.linalg.norm(flat.astype(np.float64))), flat[sample_indices(name, flat.size, count)]


def check(directory: Path, manifests: Sequence[str]) -> list[str]:
    """Differences between this recipe and `recipe_check.json`, as phrases; none if they agree exactly."""
    recorded = json.loads((directory / "recipe_check.json").read_text())
    faults = []
    drawn = sample_indices("check", 1000, 5).tolist()
    if drawn != recorded["sample_indices(check,1000,5)"]:
        faults.append(f"sample_indices gives {drawn}")
    for distribution in ("normal", "uniform"):
        if make_input("check", (2, 3), 0, distribution).tolist() != recorded["inputs"][distribution]:
            faults.append(f"make_input draws other {distribution} numbers")
    for record in recorded["weights"]:
        if record["manifest"] in manifests:
            faults += _check_manifest(record, read_manifest(directory, record["manifest"]))
    return faults


def _check_manifest(record: Mapping[str, Any], manifest: Sequence[Mapping[str, Any]]) -> list[str]:
    entries = {entry["key"]: entry for entry in manifest}
    counted = [entry for entry in manifest if entry["kind"] != "counter" and "alias_of" not in entry]
    values = sum(math.prod(entry["shape"]) for entry in counted)
    faults = []
    if (len(entries), values) != (record["n_entries"], record["n_values"]):
        faults.append(f"manifest {record['manifest']} has {len(entries)} entries, {values} values")
    for expected in record["entries"]:
        array = make_array(entries[expected["key"]], record["seed"])
        first = [float(value) for value in array.reshape(-1)[:3]]
        total = float(np.sum(array, dtype=np.float64))
        # The sum's order may differ between NumPy versions, the values may not.
        same_sum = math.isclose(total, expected["sum_f64"], rel_tol=1e-12, abs_tol=1e-9)
        if first != expected["first3"] or list(array.shape) != expected["shape"] or not same_sum:
            faults.append(f"{expected['key']} starts {first}")
    return faults


def _generator(seed: int, text: str) -> np.random.Generator:
    return np.random.default_rng([int(seed), zlib.crc32(text.encode())])
