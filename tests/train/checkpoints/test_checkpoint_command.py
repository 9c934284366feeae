"""`asccl weights`: what it lists, describes and exports, and that it changes nothing."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from asccl_jax.settings import MetricSettings
from asccl_jax.train.checkpoints.checkpoint import Checkpoints
from asccl_jax.train.checkpoints.checkpoint_command import main
from asccl_jax.types import TrainState
from asccl_jax.weights import FrozenMetric, load_metric, save_metric
from tests.tasks.drawn import drawn_variables

ROOT = Path(__file__).parents[3]
SETTINGS = MetricSettings(stage_blocks=(1, 1, 1, 1), stage_widths=(8, 16, 24, 32), image_size=64)
SCORES = {2: 0.25, 4: 0.5}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """The folder of a run with checkpoints 2, 4 and 5 of a metric, and its weights."""
    workdir = tmp_path_factory.mktemp("made") / "run"
    variables = drawn_variables(SETTINGS)
    for name in ("best", "last"):
        save_metric(workdir / name, FrozenMetric(variables=variables, settings=SETTINGS))
    params = {**variables["params"], "half": jnp.arange(6, dtype=jnp.bfloat16).reshape(2, 3)}
    momenta = {"mu": jax.tree.map(jnp.ones_like, params)}
    state = TrainState(jnp.asarray(4), params, variables["batch_stats"], (momenta,), jax.random.key(0))
    checkpoints = Checkpoints(workdir / "checkpoints", keep=3)
    for step in (2, 4, 5):
        checkpoints.save(
            step,
            state,
            data={"next_index": step},
            config={"task": "metric", "keep_every": 4, "model": {"depth": 18, "name": ""}},
            progress={"best_step": 2, "best_score": 0.25, "score": SCORES.get(step)},
        )
    checkpoints.close()
    return workdir


@pytest.fixture
def workdir(made, tmp_path):
    """A copy to damage."""
    return shutil.copytree(made, tmp_path / "run")


@pytest.fixture
def call(capsys, monkeypatch):
    """Calls the command; returns exit status, stdout and stderr."""
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")  # which the command sets, and this takes back

    def run(*words):
        status = main([str(word) for word in words])
        return status, *capsys.readouterr()

    return run


def tensors(file):
    """Arrays and metadata of a safetensors file, read by hand: a length, a header of JSON, the bytes."""
    content = file.read_bytes()
    end = 8 + int.from_bytes(content[:8], "little")
    header = json.loads(content[8:end])
    metadata = header.pop("__metadata__")
    types = {"F32": np.float32, "I32": np.int32, "BF16": jnp.bfloat16}
    arrays = {
        name: np.frombuffer(content[end:], np.uint8)[slice(*entry["data_offsets"])]
        .view(types[entry["dtype"]])
        .reshape(entry["shape"])
        for name, entry in header.items()
    }
    return arrays, metadata


def test_ls_marks_what_stays_and_names_what_is_wrong(call, workdir):
    (workdir / "checkpoints/6.orbax-checkpoint-tmp").mkdir()
    (workdir / "checkpoints/model.pt").write_text("")
    shutil.copytree(workdir / "checkpoints/5", workdir / "checkpoints/6")
    shutil.rmtree(workdir / "checkpoints/6/data")
    status, shown, _ = call("ls", workdir)
    assert status == 0
    lines = {line.split()[0]: line for line in shown.splitlines() if line}
    assert list(lines)[:7] == ["CHECKPOINT", "2", "4", "5", "6", "6.orbax-checkpoint-tmp", "model.pt"]
    assert lines["2"].endswith("0.25  best")
    assert lines["4"].endswith("0.5  kept for good")
    assert lines["5"].endswith("newest")
    assert lines["6"].endswith("damaged: data missing")
    assert lines["6.orbax-checkpoint-tmp"].endswith("partial: a save that did not end")
    assert lines["model.pt"].endswith("foreign: not a checkpoint of this program")
    assert lines["best/"].endswith("metric")
    assert "initial/" not in lines


def test_ls_as_json_has_the_same_for_programs_and_takes_the_folder_of_checkpoints_too(call, made):
    status, shown, _ = call("ls", made / "checkpoints", "--json")
    found = json.loads(shown)
    assert status == 0
    assert [(row["step"], row["score"], row["marks"]) for row in found["checkpoints"]] == [
        (2, 0.25, ["best"]),
        (4, 0.5, ["kept for good"]),
        (5, None, ["newest"]),
    ]
    assert [(row["name"], row["kind"]) for row in found["weights"]] == [("best", "metric"), ("last", "metric")]
    sizes = sum(path.stat().st_size for path in (made / "checkpoints/2").rglob("*") if path.is_file())
    assert found["checkpoints"][0]["bytes"] == sizes


def test_show_tells_of_a_checkpoint_all_but_its_values(call, made):
    status, shown, _ = call("show", made, "--step", 4, "--shapes")
    assert status == 0
    for expected in ("kind:      metric", "step:      4", "score:     0.5", "best:      step 2, score 0.25"):
        assert expected in shown
    assert "data:      next_index 4" in shown
    assert '  model:\n    depth: 18\n    name: ""\n' in shown
    lines = {line.split()[0]: line.split() for line in shown.splitlines() if line}
    assert lines["params.half"][-1] == "bfloat16"
    assert (
        lines["params.trunk"][1]
        == f"{sum(a.size for a in jax.tree.leaves(drawn_variables(SETTINGS)['params']['trunk'])):,}"
    )
    assert "opt_state.0.mu.half" in lines
    assert "(2, 3)" in shown


@pytest.mark.parametrize("place", ["", "checkpoints", "checkpoints/5"])
def test_show_of_a_run_is_of_its_newest_checkpoint(call, made, place):
    status, shown, _ = call("show", made / place, "--json")
    found = json.loads(shown)
    assert (status, found["step"], found["data"], found["config"]["task"]) == (0, 5, {"next_index": 5}, "metric")
    (whole,) = [group for group in found["groups"] if group["name"] == "all"]
    assert whole["numbers"] == sum(group["numbers"] for group in found["groups"]) - whole["numbers"]
    assert "arrays" not in found


def test_paths_may_be_relative(call, made, tmp_path, monkeypatch):
    monkeypatch.chdir(made.parent)
    for words in (("ls", "run"), ("show", "run"), ("show", "run/best"), ("export", "run", tmp_path / "a.safetensors")):
        status, _, errors = call(*words)
        assert status == 0, errors


def test_show_of_weights_tells_kind_and_settings(call, made):
    status, shown, _ = call("show", made / "best", "--json", "--shapes")
    found = json.loads(shown)
    assert (status, found["kind"], found["settings"]) == (0, "metric", json.loads(json.dumps(SETTINGS.to_dict())))
    assert {array["name"] for array in found["arrays"]} >= {"params.trunk.stem.conv.kernel"}


def test_exported_weights_are_those_of_the_network_bit_for_bit(call, made, tmp_path):
    status, shown, _ = call("export", made / "best", tmp_path / "new/metric.safetensors")
    assert status == 0
    arrays, metadata = tensors(tmp_path / "new/metric.safetensors")
    expected = jax.tree_util.tree_leaves_with_path(load_metric(made / "best").variables)
    assert len(arrays) == len(expected)
    for path, leaf in expected:
        np.testing.assert_array_equal(arrays[jax.tree_util.keystr(path, simple=True, separator=".")], leaf)
    assert metadata["kind"] == "metric"
    assert json.loads(metadata["settings"]) == json.loads(json.dumps(SETTINGS.to_dict()))
    assert "step" not in metadata
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["metric.safetensors"]
    assert f"{len(arrays)} arrays" in shown


def test_a_checkpoint_is_exported_without_or_with_the_optimisers_state(call, made, tmp_path):
    out = tmp_path / "checkpoint.safetensors"
    out.write_text("what was there is replaced")
    assert call("export", made, out, "--step", 4)[0] == 0
    arrays, metadata = tensors(out)
    assert {name.split(".")[0] for name in arrays} == {"params", "batch_stats"}
    np.testing.assert_array_equal(arrays["params.half"], np.arange(6).reshape(2, 3).astype(jnp.bfloat16))
    assert (metadata["kind"], metadata["step"]) == ("metric", "4")
    assert json.loads(metadata["config"])["model"]["depth"] == 18
    assert json.loads(metadata["settings"])["image_size"] == 64
    assert call("export", made, out, "--step", 4, "--optimizer")[0] == 0
    more, _ = tensors(out)
    assert {name.split(".")[0] for name in more} == {"params", "batch_stats", "opt_state"}
    np.testing.assert_array_equal(more["opt_state.0.mu.half"], np.ones((2, 3)))


def test_other_programs_read_the_file(call, made, tmp_path):
    torch = pytest.importorskip("torch")
    from safetensors.torch import load_file

    call("export", made, tmp_path / "a.safetensors", "--step", 4)
    half = load_file(tmp_path / "a.safetensors")["params.half"]
    assert half.dtype == torch.bfloat16
    assert half.tolist() == [[0, 1, 2], [3, 4, 5]]


def test_nothing_in_the_folder_is_changed(call, workdir, tmp_path):
    (workdir / "checkpoints/6.orbax-checkpoint-tmp").mkdir()

    def contents():
        return {path: (path.stat().st_mtime_ns, path.stat().st_size) for path in [workdir, *workdir.rglob("*")]}

    before = contents()
    for words in (("ls", workdir), ("show", workdir, "--shapes"), ("export", workdir, tmp_path / "a.safetensors")):
        assert call(*words)[0] == 0
    assert contents() == before


def cut_short(workdir):
    # All files of values: how arrays are shared out among them depends on the order in which threads wrote, and one
    # may hold nothing but the optimiser's state, which an export does not read.
    files = [path for path in (workdir / "checkpoints/5/state").rglob("d/*") if path.is_file()]
    assert files
    for path in files:
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def foreign(workdir):
    (workdir / "checkpoints/9/default").mkdir(parents=True)


MISTAKES = [
    (("ls", "{}/nowhere"), None, "nowhere: no such folder"),
    (("ls", "{}/best"), None, "no checkpoints/ there; give the --workdir"),
    (("show", "{}/nowhere"), None, "nowhere: no such folder"),
    (("show", "{}", "--step", "3"), None, "--step 3: no such checkpoint .*; there are 2, 4, 5"),
    (("show", "{}/best", "--step", "3"), None, "leave --step out"),
    (("show", "{}/checkpoints/9"), foreign, "is foreign .it holds default"),
    (("show", "{}", "--step", "9"), foreign, "is foreign .it holds default"),
    (("show", "{}/checkpoints/5"), lambda run: shutil.rmtree(run / "checkpoints/5/data"), "is damaged .data missing"),
    (("show", "{}/best"), lambda run: (run / "best/metric.json").write_text("{"), "metric.json: not valid JSON"),
    (("export", "{}", "{}/a.safetensors"), cut_short, "5/state is damaged ."),
    (("export", "{}", "{}/a.npz"), None, "a.npz: expected a name that ends in .safetensors"),
    (("export", "{}/best", "{}/a.safetensors", "--optimizer"), None, "--optimizer: .*best holds weights alone"),
]


@pytest.mark.parametrize(("words", "harm", "message"), MISTAKES, ids=[message for *_, message in MISTAKES])
def test_a_mistake_is_one_line_and_status_2(call, workdir, words, harm, message):
    if harm is not None:
        harm(workdir)
    status, shown, errors = call(*(word.format(workdir) for word in words))
    assert (status, shown) == (2, "")
    assert errors.count("\n") == 1
    assert errors.startswith("error: ")
    assert re.search(message, errors), errors
    assert not (workdir / "a.safetensors").exists()


def test_it_asks_for_no_device_but_the_cpu_and_help_needs_no_jax(made):
    program = (
        "import sys; from asccl_jax.train.checkpoints.checkpoint_command import main\n"
        "try: main(['--help'])\n"
        "except SystemExit: pass\n"
        "assert 'jax' not in sys.modules and 'orbax' not in sys.modules\n"
        f"assert main(['show', {str(made)!r}]) == 0\n"
        "import jax; assert {device.platform for device in jax.devices()} == {'cpu'}\n"
    )
    environment = {name: value for name, value in os.environ.items() if name not in ("JAX_PLATFORMS", "XLA_FLAGS")}
    result = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
    assert result.stderr == ""
