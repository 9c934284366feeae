"""A metric on disk: whole or not at all, and every fault named."""

import dataclasses
import json
from pathlib import Path

import jax
import numpy as np
import pytest

from asccl_jax import weights
from asccl_jax.errors import InputError
from asccl_jax.models.correlation import init_variables
from asccl_jax.models.manipulator import Manipulator
from asccl_jax.settings import MetricSettings
from asccl_jax.weights import (
    FACE_NETWORK_FILES,
    FrozenMetric,
    Renderer,
    load_face_network,
    load_manipulator,
    load_metric,
    load_renderer,
    missing_face_network,
    save_face_network,
    save_manipulator,
    save_metric,
    save_renderer,
)
from tests.models.tiny_face_networks import TINY_FACE_NETWORKS, drawn_network
from tests.models.tiny_manipulator import TINY_MANIPULATOR, drawn_manipulator
from tests.models.tiny_renderer import TINY_RENDERER, drawn_renderer

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
    monkeypatch.setattr(weights.json, "dumps", lambda *_, **__: 1 / 0)
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
        patched.setattr(weights.json, "dumps", lambda *_, **__: 1 / 0)
        save_metric(best, doubled(2))
    assert_loads(best, metric)
    save_metric(best, doubled(3))
    assert_loads(best, doubled(3))
    assert [entry.name for entry in tmp_path.iterdir()] == ["best"]


def test_the_rest_of_a_removed_metric_is_never_loaded(metric, tmp_path, monkeypatch):
    save_metric(tmp_path / "best", metric)
    with monkeypatch.context() as patched:
        patched.setattr(weights.shutil, "rmtree", lambda *_, **__: None)  # as a kill during the removal
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


@pytest.mark.parametrize("name", TINY_FACE_NETWORKS)
def test_a_network_comes_back_as_it_was(tmp_path, name):
    network = drawn_network(name)
    save_face_network(tmp_path / "net", network)
    loaded = load_face_network(tmp_path / "net", name)
    assert (loaded.name, loaded.file_hash, loaded.settings) == (name, network.file_hash, network.settings)
    assert loaded.module == network.module
    assert hash(loaded.module) == hash(network.module)
    jax.tree.map(np.testing.assert_array_equal, loaded.variables, network.variables)
    assert all(isinstance(leaf, jax.Array) for leaf in jax.tree.leaves(loaded.variables))


def test_another_network_or_settings_that_do_not_fit_are_named(tmp_path):
    save_face_network(tmp_path / "net", drawn_network("resnet-face"))
    with pytest.raises(InputError, match=r"no syncnet\.json there.*`asccl convert syncnet`"):
        load_face_network(tmp_path / "net", "syncnet")
    file = tmp_path / "net" / "resnet-face.json"
    description = json.loads(file.read_text())
    description["settings"]["network"]["widths"] = [4, 6, 8, 11]
    file.write_text(json.dumps(description))
    with pytest.raises(
        InputError, match=r"do not fit its settings: .*map_norm/mean has shape \(10,\), expected \(11,\)"
    ):
        load_face_network(tmp_path / "net", "resnet-face")
    description["settings"]["network"]["widths"] = "wide"
    file.write_text(json.dumps(description))
    with pytest.raises(InputError, match="widths='wide': expected positive integers"):
        load_face_network(tmp_path / "net", "resnet-face")
    del description["settings"]["network"]
    file.write_text(json.dumps(description))
    with pytest.raises(InputError, match="convert it again"):
        load_face_network(tmp_path / "net", "resnet-face")


@pytest.mark.parametrize("name", FACE_NETWORK_FILES)
def test_who_has_no_file_is_told_where_it_is_and_what_to_do(name):
    said = missing_face_network(name)
    file, origin, purpose = FACE_NETWORK_FILES[name]
    assert f"`asccl convert {name} {file} {name}`" in said
    assert origin in said
    assert purpose in said


@pytest.fixture(scope="module")
def manipulator():
    return Manipulator(drawn_manipulator(TINY_MANIPULATOR), TINY_MANIPULATOR)


def test_round_trip_is_exact_and_stays_on_the_host(manipulator, tmp_path):
    save_manipulator(tmp_path / "saved", manipulator)
    loaded = load_manipulator(tmp_path / "saved")
    assert loaded.settings == TINY_MANIPULATOR
    assert jax.tree.structure(loaded.variables) == jax.tree.structure(manipulator.variables)
    jax.tree.map(np.testing.assert_array_equal, loaded.variables, manipulator.variables)
    assert all(isinstance(leaf, np.ndarray) for leaf in jax.tree.leaves(loaded.variables))


def test_a_manipulators_training_folder_gives_its_best_and_else_its_last(manipulator, tmp_path):
    def first(found):
        return jax.tree.leaves(load_manipulator(found).variables)[0]

    save_manipulator(tmp_path / "last", manipulator)
    np.testing.assert_array_equal(first(tmp_path), jax.tree.leaves(manipulator.variables)[0])
    doubled = manipulator.replace(variables=jax.tree.map(lambda leaf: 2 * leaf, manipulator.variables))
    save_manipulator(tmp_path / "best", doubled)
    np.testing.assert_array_equal(first(tmp_path), jax.tree.leaves(doubled.variables)[0])


def test_a_manipulator_is_no_metric_and_faults_are_named(manipulator, tmp_path):
    save_manipulator(tmp_path / "m", manipulator)
    with pytest.raises(InputError, match=r"metric .*m: no metric\.json there"):
        load_metric(tmp_path / "m")
    with pytest.raises(InputError, match=r"nowhere: no such directory; give one that save_manipulator or training"):
        load_manipulator(tmp_path / "nowhere")
    description = tmp_path / "m" / "manipulator.json"
    description.write_text(description.read_text().replace('"style_size": 3', '"style_size": 5'))
    with pytest.raises(InputError) as error:
        load_manipulator(tmp_path / "m")
    message = str(error.value)
    assert "\n" not in message
    assert "style_encoder/seq2/linear2/bias has shape (3,), expected (5,)" in message
    assert "mapping_network/unshared1/kernel has shape (7, 8, 3), expected (7, 8, 5)" in message


def test_a_renderers_round_trip_is_exact_and_stays_on_the_host(tmp_path):
    renderer = Renderer(drawn_renderer(TINY_RENDERER), TINY_RENDERER)
    save_renderer(tmp_path / "run" / "best", renderer)
    loaded = load_renderer(tmp_path / "run")
    assert loaded.settings == TINY_RENDERER
    assert set(loaded.params) == {"generator", "discriminator", "mouth_discriminator"}
    jax.tree.map(np.testing.assert_array_equal, loaded.params, renderer.params)
    assert all(isinstance(leaf, np.ndarray) for leaf in jax.tree.leaves(loaded.params))


def test_weights_of_other_settings_are_named(tmp_path):
    wider = dataclasses.replace(TINY_RENDERER, generator_width=6, eyes=True)
    save_renderer(tmp_path / "renderer", Renderer(drawn_renderer(TINY_RENDERER), wider))
    with pytest.raises(InputError, match=r"eyes_discriminator/scale0/layer0/bias is missing") as caught:
        load_renderer(tmp_path / "renderer")
    assert "generator/decoder/last/kernel has shape (7, 7, 4, 3), expected (7, 7, 6, 3)" in str(caught.value)
