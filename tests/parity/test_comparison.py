"""The parity report can fail: on a wrong value, on an array that nothing replays, on a gradient out of place."""

from pathlib import Path

import numpy as np
import pytest

from tests.parity.comparison import compare, skipped
from tests.parity.metric import Replayed
from tests.parity.tolerances import Spreads, known_spreads, rounding_bound

GOLDENS = Path(__file__).resolve().parent.parent / "goldens"
SPREADS = Spreads({}, 1e-7)
KEYS = np.array(["a", "b"])


def make_case():
    """A golden of every layout, and results that match it."""
    whole = np.arange(2.0 * 8 * 4 * 4, dtype=np.float32).reshape(2, 8, 4, 4)
    exact = whole.astype(np.float64)
    golden = {
        "cfg": np.array([0, 2, 64]),
        "eval/centres1": np.zeros((3, 2), np.int32),
        "traj/perm2_step0": np.zeros(3, np.int32),
        "eval/feat1": whole,
        "eval/feat1/shape": np.array(whole.shape),
        "eval/feat1/stats": np.array([exact.mean(), exact.std(), exact.max(), np.sqrt((exact**2).sum())]),
        "eval/feat1_strided": whole[:, ::4, ::2, ::2],
        "eval/feat1_chan_mean": whole.mean((2, 3)),
        "train/grad/keys": KEYS,
        "train/grad/l2": np.array([5.0, np.nan]),
        "train/grad/samples": np.array([[3.0, 3.0], [np.nan, np.nan]], np.float32),
        "f64/eval/feat1": exact,
    }
    gradient = np.array([3.0, 3.0, 4.0], np.float32)[[0]]
    results = Replayed({"eval/feat1": whole}, {"train/grad": {"a": gradient}})
    golden["train/grad/l2"][0] = 3.0
    return golden, results


def verdicts(golden, results, **keywords):
    return {line.name: line.passed for line in compare(golden, results, SPREADS, **keywords)}


def test_equal_arrays_pass_and_inputs_are_left_out_with_a_reason():
    golden, results = make_case()
    passed = verdicts(golden, results)
    assert all(passed.values())
    left_out = skipped(golden, exact=False)
    assert left_out.keys() | passed.keys() == golden.keys()
    assert left_out["cfg"] == left_out["eval/centres1"] == left_out["traj/perm2_step0"] == "input, replayed"
    assert left_out["f64/eval/feat1"] == "float64 twin: compared with --precision float64"


@pytest.mark.parametrize("name", ["eval/feat1", "eval/feat1/stats", "eval/feat1_strided", "eval/feat1_chan_mean"])
def test_one_entry_off_by_more_than_allowed_fails_that_array_alone(name):
    golden, results = make_case()
    golden[name] = golden[name].copy()
    golden[name].flat[0] += 1e-3 * np.abs(golden[name]).max()
    assert [array for array, passed in verdicts(golden, results).items() if not passed] == [name]


def test_an_array_that_nothing_replays_fails():
    golden, results = make_case()
    golden["eval/something"] = np.zeros(3, np.float32)
    line = next(line for line in compare(golden, results, SPREADS) if line.name == "eval/something")
    assert not line.passed
    assert line.note == "nothing replays this array"


def test_a_gradient_where_the_reference_has_none_fails_and_the_other_way_round():
    golden, results = make_case()
    results.collections["train/grad"]["b"] = np.ones(2, np.float32)
    assert not verdicts(golden, results)["train/grad/l2"]
    del results.collections["train/grad"]["a"], results.collections["train/grad"]["b"]
    assert not verdicts(golden, results)["train/grad/samples"]


def test_unknown_parameters_fail_the_keys():
    golden, results = make_case()
    results.collections["train/grad"]["c"] = np.ones(2, np.float32)
    assert not verdicts(golden, results)["train/grad/keys"]


def test_not_a_number_never_passes():
    golden, results = make_case()
    results.tensors["eval/feat1"] = np.full_like(results.tensors["eval/feat1"], np.nan)
    assert not verdicts(golden, results)["eval/feat1"]


def test_exact_run_compares_the_twins_at_a_billionth():
    golden, results = make_case()
    results.tensors["eval/feat1"] = golden["f64/eval/feat1"] * (1 + 1e-8)
    assert verdicts(golden, results, exact=True)["f64/eval/feat1"] is False
    results.tensors["eval/feat1"] = golden["f64/eval/feat1"] * (1 + 1e-10)
    assert verdicts(golden, results, exact=True)["f64/eval/feat1"] is True


def test_exact_run_may_be_off_by_what_the_last_bits_of_weights_change_and_no_more():
    golden, results = make_case()
    results.tensors["eval/feat1"] = golden["f64/eval/feat1"] * (1 + 1e-7)
    results.again = Replayed({"eval/feat1": results.tensors["eval/feat1"] * (1 + 2e-8)})
    line = next(line for line in compare(golden, results, SPREADS, exact=True) if line.name == "f64/eval/feat1")
    assert line.passed
    assert line.note == "last bits"
    results.again = Replayed({"eval/feat1": results.tensors["eval/feat1"] * (1 + 5e-9)})
    assert verdicts(golden, results, exact=True)["f64/eval/feat1"] is False


def test_exact_run_leaves_out_entries_of_unknown_choices_and_says_so():
    golden, results = make_case()
    whole = golden["f64/eval/feat1"]
    results.tensors["eval/feat1"] = whole.copy()
    results.tensors["eval/feat1"][0, 0, 0, 0] += 1
    results.unknown["eval/feat1"] = np.zeros(whole.shape, bool)
    assert verdicts(golden, results, exact=True)["f64/eval/feat1"] is False
    results.unknown["eval/feat1"][0, 0, 0, 0] = True
    line = next(line for line in compare(golden, results, SPREADS, exact=True) if line.name == "f64/eval/feat1")
    assert line.passed
    assert line.note == f"exact; 1 of {whole.size} entries are left to chance or rounding"


def test_what_is_float64_by_nature_is_compared_at_a_billionth_in_every_run():
    golden, results = make_case()
    golden["f64/points"] = np.array([1.0, 2.0])
    for exact in (False, True):
        for error, passed in ((1e-10, True), (1e-8, False)):
            results.tensors["f64/points"] = golden["f64/points"] * (1 + error)
            assert verdicts(golden, results, exact=exact)["f64/points"] is passed


def test_grey_levels_may_differ_by_as_much_as_is_said():
    golden, results = make_case()
    golden["picture"] = np.array([0, 255], np.uint8)
    results.tensors["picture"] = np.array([1, 254], np.uint8)
    assert not verdicts(golden, results)["picture"]
    results.grey_levels["picture"] = 1.0
    assert verdicts(golden, results)["picture"]
    results.tensors["picture"] = np.array([2, 255], np.uint8)
    assert not verdicts(golden, results)["picture"]
    results.tensors["picture"] = np.array([0], np.uint8)
    assert not verdicts(golden, results)["picture"]


def test_spreads_are_read_from_the_table_of_the_same_configuration():
    golden = {"cfg": np.array([0, 2, 64])}
    spreads = known_spreads(GOLDENS / "README.md", "metric_small", golden)
    assert spreads.others == 3.8e-07
    assert len(spreads.listed) == 14
    assert spreads.listed["train/grad/samples"] == 9.1e-08


@pytest.mark.parametrize(
    ("readme", "name", "seed"),
    [("README.md", "metric_small", 1), ("README.md", "metric_7", 0), ("absent.md", "metric_small", 0)],
)
def test_spreads_of_another_seed_are_those_of_the_goldens_own_twins(readme, name, seed):
    golden = {"cfg": np.array([seed, 2, 64]), "whole": np.ones(3, np.float32)}
    for number in range(20):
        golden[f"array{number}"] = np.float32([2.0, 1.0])
        golden[f"f64/array{number}"] = np.array([2.0 + number * 1e-6, 1.0])
    spreads = known_spreads(GOLDENS / readme, name, golden)
    assert sorted(spreads.listed) == sorted(f"array{number}" for number in range(6, 20))
    np.testing.assert_allclose([spreads.listed["array19"], spreads.others], [19e-6, 5e-6 / 2], rtol=1e-5)
    # One that agrees by luck has the bound of those that do not.
    assert rounding_bound("array0", golden, spreads, {}).rule == "other twins"
    np.testing.assert_allclose(rounding_bound("array0", golden, spreads, {}).allowed, 5e-5, rtol=1e-5)


def test_what_the_reference_has_no_float64_run_of_is_judged_by_one_of_this_code_if_need_be():
    golden, results = make_case()
    golden["picture"], asked = np.float32([1.0, 3.0]), []

    def line_of(error, own):
        results.tensors["picture"] = golden["picture"] + np.float32(error)
        exact = Replayed({"picture": results.tensors["picture"].astype(np.float64) + own})
        results.exact = lambda: asked.append(1) or exact
        return next(line for line in compare(golden, results, SPREADS) if line.name == "picture")

    assert (line_of(1e-6, 1e-4).note, asked) == ("others", [])
    for error, own, passed in ((5e-5, 1e-5, True), (5e-4, 1e-5, False)):
        line = line_of(error, own)
        assert (line.passed, line.note) == (passed, "float64 run")
    np.testing.assert_allclose(line.allowed, 1e-4, rtol=1e-3)
    # A wrong formula is wrong in the float64 run too.
    assert not line_of(5e-5, 0.0).passed
    # Where the reference's own twin is there, its spread is what counts.
    golden["f64/picture"] = golden["picture"].astype(np.float64)
    assert not line_of(5e-5, 1e-5).passed


@pytest.mark.parametrize(
    ("spreads", "allowed", "rule"),
    [
        (Spreads({"eval/loss": 1e-5}, 1e-7), 1e-4, "table"),
        (Spreads({}, 1e-6), 2e-5, "others"),
        (Spreads({}, 1e-6, ("twin", "other twins")), 2e-5, "other twins"),
        (Spreads({"eval/loss": 1e-9}, None), 2e-6, "floor"),
    ],
)
def test_bound_comes_from_the_first_spread_known(spreads, allowed, rule):
    golden = {"eval/loss": np.float64([2.0, 1.0]), "f64/eval/loss": np.array([2.0 - 3e-6, 1.0])}
    bound = rounding_bound("eval/loss", golden, spreads, {})
    np.testing.assert_allclose(bound.allowed, allowed, rtol=1e-6)
    assert bound.rule == rule


def test_trajectories_have_the_bounds_that_adam_needs():
    golden = {"traj/loss": np.ones(5, np.float32), "traj/final_params/samples": np.ones((2, 4), np.float32)}
    loss = rounding_bound("traj/loss", golden, SPREADS, {})
    params = rounding_bound("traj/final_params/samples", golden, SPREADS, {})
    # Ten times 1e-4; twice the learning rate of 1e-3 for each of five steps.
    assert (loss.rule, params.rule) == ("adam", "adam")
    np.testing.assert_allclose([loss.allowed, params.allowed], [1e-3, 1e-2], rtol=1e-6)


def test_weights_on_the_other_side_of_their_jump_widen_what_depends_on_them():
    golden = {name: np.ones(4, np.float32) for name in ("train/level_mean_weight", "train/pos", "train/grad/samples")}
    jumps = {"train": np.array([0.0, 1e-4, 0.0, 0.0])}
    bounds = {name: rounding_bound(name, golden, Spreads({}, 0.0), jumps) for name in golden}
    assert {name: bound.rule for name, bound in bounds.items()} == {
        "train/level_mean_weight": "floor + jump",
        "train/pos": "floor",
        "train/grad/samples": "floor + jump",
    }
    np.testing.assert_allclose(bounds["train/level_mean_weight"].allowed, 1e-6 + 0.28e-4, rtol=1e-6)
    without = rounding_bound("train/grad/samples", golden, Spreads({}, 0.0), {"train": np.zeros(4)})
    assert without.rule == "floor"


def test_weights_after_renderer_updates_may_differ_by_the_rate_in_either_direction():
    golden = {"losses": np.zeros((4, 10)), "final/G/samples": np.ones((2, 4), np.float32)}
    bound = rounding_bound("final/G/samples", golden, Spreads({"final/G/samples": 1e-3}, None), {})
    assert bound.allowed == pytest.approx(2 * 2e-4 * 4)
    assert bound.rule == "adam"
