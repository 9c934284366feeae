"""The recipe rebuilds the reference's weights and inputs, and its check notices if it does not."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from tests.parity import recipe

GOLDENS = Path(__file__).resolve().parent.parent / "goldens"


def test_recipe_agrees_with_the_recorded_values():
    assert recipe.check(GOLDENS, ["metric"]) == []


@pytest.mark.parametrize(
    ("place", "fault"),
    [
        (("weights", 0, "entries", 0, "first3", 0), "metric.resnet50.conv1.weight starts"),
        (("weights", 0, "entries", 3, "sum_f64"), "prelu.weight starts"),
        (("weights", 0, "n_values"), "manifest metric has"),
        (("inputs", "uniform", 0, 0), "make_input draws other uniform numbers"),
        (("sample_indices(check,1000,5)", 4), "sample_indices gives"),
    ],
)
def test_check_notices_one_changed_value(tmp_path, place, fault):
    shutil.copytree(GOLDENS / "manifests", tmp_path / "manifests")
    recorded = json.loads((GOLDENS / "recipe_check.json").read_text())
    node = recorded
    for step in place[:-1]:
        node = node[step]
    node[place[-1]] += 1
    (tmp_path / "recipe_check.json").write_text(json.dumps(recorded))
    faults = recipe.check(tmp_path, ["metric"])
    assert len(faults) == 1
    assert fault in faults[0]


def test_kinds_have_their_distributions():
    def draw(kind, shape, **fields):
        return recipe.make_array({"key": "a", "shape": shape, "kind": kind, **fields}, 0)

    noise = draw("bias", [50, 50]) / np.float32(0.1)
    np.testing.assert_allclose(draw("norm_w", [50, 50]), 1 + 0.1 * noise, rtol=1e-6)
    np.testing.assert_allclose(draw("run_var", [50, 50]), 1 + 0.1 * np.abs(noise), rtol=1e-6)
    np.testing.assert_allclose(draw("prelu_w", [50, 50]), 0.25 + 0.05 * noise, rtol=1e-5)
    np.testing.assert_allclose(draw("linear_w", [50, 50]), noise * 0.2, rtol=1e-5)
    np.testing.assert_allclose(draw("conv_w", [50, 50], gain=0.25), noise * 0.05, rtol=1e-5)
    np.testing.assert_allclose(draw("lstm_w", [64, 4]), draw("bias", [64, 4]) * 10 / 4, rtol=1e-5)
    assert draw("bias", [3], alias_of="b")[0] != draw("bias", [3])[0]
    with pytest.raises(ValueError, match="unknown kind 'other'"):
        draw("other", [1])


def test_pairs_are_mostly_their_source():
    np.testing.assert_allclose(recipe.make_pair(np.float32([1.0]), np.float32([-1.0])), [0.4], rtol=1e-6)


def test_summary_takes_the_named_entries():
    array = np.arange(1000, dtype=np.float32).reshape(10, 100)
    norm, samples = recipe.summarise("check", array, 5)
    np.testing.assert_allclose(norm, np.sqrt(np.sum(np.arange(1000.0) ** 2)), rtol=1e-12)
    assert samples.tolist() == [123, 884, 645, 406, 167]
