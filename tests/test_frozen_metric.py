"""A metric on disk: whole or not at all, and every fault named."""

import json
from pathlib import Path

import jax
import numpy as np
import pytest

from asccl_jax import saved_weights
from asccl_jax.errors import InputError
from asccl_jax.frozen_metric import FrozenMetric, load_metric, save_metric
from asccl_jax.models.correlation import init_variables
from asccl_jax.settings import MetricSettings

SETTINGS = MetricSettings.from_compat(
    "released", stage_blocks=(1, 1, 1, 1), stage_widths=(4, 4, 8, 8), image_size=40, bn_group_size=None
)


@pytest.fixture(scope="module")
def metric():
    return FrozenMetric(variables=init_variables(SETTINGS, jax.random.key(0)), settings=SETTINGS)


def edit_description(directory, **fields):
    file = directory / "metric.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | fields))


def test_round_trip_is_exact(metric, tmp_path):
    save_metric(tmp_path / "metric", metric)
    loaded = load_metric(tmp_path / "metric")
    assert loaded.settings == SETTINGS
    assert jax.tree.structure(loaded.variables) == jax.tree.structure(metric.variables)
    jax.tree.map(np.testing.assert_array_equal, loaded.variables, metric.variables)
    assert all(isinstance(leaf, np.ndarray) for leaf in jax.tree.leaves(loaded.variables))


def test_saving_again_replaces_and_leaves_nothing_behind(metric, tmp_path):
    save_metric(tmp_path / "metric", metric)
    doubled = metric.replace(variables=jax.tree.map(lambda leaf: 2 * leaf, metric.variables))
    save_metric(tmp_path / "metric", doubled)
    jax.tree.map(np.testing.assert_array_equal, load_metric(tmp_path / "metric").variables, doubled.variables)
    assert [entry.name for entry in tmp_path.iterdir()] == ["metric"]


def test_a_save_that_dies_leaves_the_old_metric(metric, tmp_path, monkeypatch):
    save_metric(tmp_path / "metric", metric)
    monkeypatch.setattr(saved_weights.json, "dumps", lambda *_, **__: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        save_metric(tmp_path / "metric", metric.replace(variables=jax.tree.map(lambda x: 2 * x, metric.variables)))
    monkeypatch.undo()
    jax.tree.map(np.testing.assert_array_equal, load_metric(tmp_path / "metric").variables, metric.variables)
    save_metric(tmp_path / "metric", metric)
    assert [entry.name for entry in tmp_path.iterdir()] == ["metric"]


@pytest.mark.parametrize("rename", [0, 1])
def test_a_kill_before_either_rename_leaves_the_old_metric_where_load_finds_it(metric, tmp_path, monkeypatch, rename):
    class Killed(BaseException):
        pass

    def doubled(times):
        return metric.replace(variables=jax.tree.map(lambda leaf: 2**times * leaf, metric.variables))

    def assert_loads(found, expected):
        jax.tree.map(np.testing.assert_array_equal, load_metric(found).variables, expected.variables)

    best = tmp_path / "best"
    save_metric(best, metric)
    done, real_rename = [], Path.rename

    def kill_at(path, target):
        if best in (path, target):
            if len(done) == rename:
                raise Killed
            done.append(target)
        return real_rename(path, target)

    with monkeypatch.context() as patched, pytest.raises(Killed):
        patched.setattr(Path, "rename", kill_at)
        save_metric(best, doubled(1))
    for name in (tmp_path, best):  # as `load_metric(workdir)` and `load_metric(workdir / "best")`
        assert_loads(name, metric)
    # A save that dies before its own renames must not lose what the one before left.
    with monkeypatch.context() as patched, pytest.raises(ZeroDivisionError):
        patched.setattr(saved_weights.json, "dumps", lambda *_, **__: 1 / 0)
        save_metric(best, doubled(2))
    assert_loads(best, metric)
    save_metric(best, doubled(3))
    assert_loads(best, doubled(3))
    assert [entry.name for entry in tmp_path.iterdir()] == ["best"]


def test_the_rest_of_a_removed_metric_is_never_loaded(metric, tmp_path, monkeypatch):
    save_metric(tmp_path / "best", metric)
    with monkeypatch.context() as patched:
        patched.setattr(saved_weights.shutil, "rmtree", lambda *_, **__: None)  # as a kill during the removal
        save_metric(tmp_path / "best", metric)
    (tmp_path / "best").rename(tmp_path / "elsewhere")
    assert len(list(tmp_path.iterdir())) == 2
    with pytest.raises(InputError, match=r"no metric\.json there"):
        load_metric(tmp_path)


def test_a_training_folder_gives_its_best_and_else_its_last(metric, tmp_path):
    save_metric(tmp_path / "last", metric)
    np.testing.assert_array_equal(
        jax.tree.leaves(load_metric(tmp_path).variables)[-1], jax.tree.leaves(metric.variables)[-1]
    )
    best = metric.replace(variables=jax.tree.map(lambda leaf: leaf + 1, metric.variables))
    save_metric(tmp_path / "best", best)
    jax.tree.map(np.testing.assert_array_equal, load_metric(tmp_path).variables, best.variables)


def test_another_network_is_refused_with_every_difference(metric, tmp_path):
    save_metric(tmp_path, metric)
    other = SETTINGS.to_dict() | {"stage_blocks": [1, 2, 1, 1], "stage_widths": [4, 4, 8, 16]}
    edit_description(tmp_path, settings=other)
    with pytest.raises(InputError) as error:
        load_metric(tmp_path)
    message = str(error.value)
    assert "\n" not in message
    assert "params/trunk/stage2/block1/conv1/kernel is missing" in message
    assert "params/heads/stage4/hidden/kernel has shape (8, 8), expected (16, 16)" in message


def test_faults_of_the_folder_are_named(metric, tmp_path):
    with pytest.raises(InputError, match="nowhere: no such directory"):
        load_metric(tmp_path / "nowhere")
    with pytest.raises(InputError, match=r"no metric\.json there, nor in its best/ or last/"):
        load_metric(tmp_path)
    save_metric(tmp_path / "m", metric)
    edit_description(tmp_path / "m", format_version=99)
    with pytest.raises(InputError, match="format version 99, expected 1"):
        load_metric(tmp_path / "m")
    edit_description(tmp_path / "m", format_version=1, settings={"depht": 50})
    with pytest.raises(InputError, match="unknown metric settings depht"):
        load_metric(tmp_path / "m")
    (tmp_path / "m" / "metric.json").write_text("{")
    with pytest.raises(InputError, match="not valid JSON"):
        load_metric(tmp_path / "m")
    (tmp_path / "m" / "metric.json").unlink()
    save_metric(tmp_path / "m", metric)
    (tmp_path / "m" / "variables").rename(tmp_path / "m" / "moved")
    with pytest.raises(InputError, match="variables/ is missing"):
        load_metric(tmp_path / "m")
