"""Recipes: every variant makes sense, `None` means what `compat` says, bad entries are named."""

import dataclasses
import importlib.util
import inspect
import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict

from asccl_jax.data.aligned_frames import RecordClips
from asccl_jax.data.pairs import FramePairs
from asccl_jax.data.tracks import codes_path, read_track_list, write_track_list
from asccl_jax.errors import InputError
from asccl_jax.settings import MetricSettings
from asccl_jax.train.experiment import Experiment
from asccl_jax.train.recipes import build_experiment, metric_settings, plain_config
from tests.data.tiny_tracks import codes, write_tracks
from tests.evals.talking_records import write_talking_records
from tests.train.tiny_records import write_tiny_records

RECIPE = Path(__file__).parents[2] / "configs/asccl.py"


def loaded(path):
    spec = importlib.util.spec_from_file_location(f"{path.stem}_recipe", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


recipe = loaded(RECIPE)


@pytest.fixture(scope="module")
def records(tmp_path_factory):
    return write_tiny_records(tmp_path_factory.mktemp("data") / "records")


def smoke(records, **changes):
    config = recipe.get_config("smoke")
    config.data.dir = str(records)
    config.update_from_flattened_dict(changes)
    return config


@pytest.mark.parametrize("variant", recipe.VARIANTS)
def test_every_variant_builds_an_experiment(records, variant):
    config = recipe.get_config(variant)
    config.data.dir = str(records)
    experiment = build_experiment(config)
    assert isinstance(experiment, Experiment)
    assert json.loads(json.dumps(experiment.config)) == experiment.config
    batch = next(experiment.batches)
    experiment.batches.close()
    assert batch.query_image.shape == (config.batch_size, 64, 64, 3)


def test_the_default_is_the_published_network_as_the_paper_has_it():
    assert metric_settings(recipe.get_config()) == MetricSettings.from_compat("paper")


def test_compat_decides_what_the_recipe_leaves_open_and_nothing_else():
    config = recipe.get_config()
    config.compat = "released"
    assert metric_settings(config) == MetricSettings.from_compat("released")
    config.model.border = "inside"
    assert metric_settings(config) == MetricSettings.from_compat("released", border="inside")


@pytest.mark.parametrize(("batch_size", "epochs"), [(8, 50), (64, 50), (16, 3)])
def test_the_same_epochs_are_trained_whatever_the_batch(records, batch_size, epochs):
    default = recipe.get_config()
    assert (default.epochs, default.steps) == (50, 0)
    experiment = build_experiment(smoke(records, **{"steps": 0, "epochs": epochs, "batch_size": batch_size}))
    experiment.batches.close()
    pairs = len(FramePairs(records, "train"))
    assert experiment.settings.steps == experiment.config["steps"] == epochs * pairs // batch_size


def test_group_size_zero_is_the_global_batch():
    config = recipe.get_config()
    config.model.bn_group_size = 0
    assert metric_settings(config).bn_group_size is None


def test_held_out_batches_are_fixed_and_count_every_chosen_pair_once(records):
    experiment = build_experiment(smoke(records, **{"evaluation.pairs": 11, "evaluation.batch_size": 8}))
    seen = [[batch.index[real].tolist() for batch, real in experiment.held_out()] for _ in range(2)]
    experiment.batches.close()
    assert seen[0] == seen[1]
    indices = [index for batch in seen[0] for index in batch]
    assert len(indices) == len(set(indices)) == 11
    assert (indices[0], indices[-1]) == (0, 23)  # evenly over all 24 held-out pairs


def test_automatic_precision_is_float32_on_a_cpu(records):
    experiment = build_experiment(smoke(records))
    experiment.batches.close()
    assert experiment.task.dtype == jnp.float32


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"task": "unknown"}, "config.task='unknown'"),
        ({"dtype": "half"}, "config.dtype='half'"),
        ({"evaluation.draws": 0}, "config.evaluation.draws=0"),
        ({"model.depth": 51, "model.stage_blocks": None}, "depth=51"),
        ({"batch_size": 0}, "config.batch_size=0"),
        ({"batch_size": 4096, "epochs": 1, "steps": 0}, "config.epochs=1 of .* frame pairs are no batch of 4096"),
    ],
)
def test_entries_that_make_no_sense_are_named(records, change, message):
    with pytest.raises(InputError, match=message):
        build_experiment(smoke(records, **change))


def of_task(task, directory, **changes):
    config = loaded(RECIPE.with_name(f"{task}.py")).get_config("smoke")
    config.data.dir = str(directory)
    config.update_from_flattened_dict(changes)
    return build_experiment(config)


def write_data(task, directory):
    """Data for a task's smoke recipe."""
    if task == "asccl":
        write_tiny_records(directory)
    elif task == "manipulator":
        names = ("A/neutral/1", "A/sad/1", "held/neutral/1", "held/sad/1")
        write_tracks(directory, {name: codes(range(40)) for name in names})
    else:
        clips = {"train": {"A/neutral/1": range(12), "A/sad/1": range(12)}}
        clips["validation"] = {"A/neutral/2": range(7), "A/happy/2": range(7)}
        write_talking_records(directory, clips)


@pytest.mark.parametrize("task", ["asccl", "manipulator", "renderer"])
def test_processes_share_each_batch_and_what_is_held_out(task, tmp_path, monkeypatch):
    write_data(task, tmp_path / "data")

    def seen_by(index, count):
        monkeypatch.setattr(jax, "process_index", lambda: index)
        monkeypatch.setattr(jax, "process_count", lambda: count)
        experiment = of_task(task, tmp_path / "data", batch_size=4)
        batches = [next(experiment.batches) for _ in range(3)]
        experiment.batches.close()
        return batches, list(experiment.held_out())

    joined = jax.tree.map(lambda *parts: np.concatenate(parts), seen_by(0, 2), seen_by(1, 2))
    jax.tree.map(np.testing.assert_array_equal, joined, seen_by(0, 1))


def read_all(experiment, batches=6):
    """Takes the first batches of training and all that is selected by, as a run does."""
    for _ in range(batches):
        next(experiment.batches)
    experiment.batches.close()
    for _ in experiment.held_out():
        pass


def test_the_metric_reads_no_test_clip(tmp_path):
    names = {"train": ("A", "B"), "validation": ("C",), "test": ("M003",)}
    records = write_tiny_records(tmp_path / "records", speakers=names)
    for shard in records.rglob("*-test.*"):
        shard.write_bytes(b"not to be opened")
    experiment = of_task("asccl", records)
    read_all(experiment)
    assert experiment.speakers == {"train": ["A", "B"], "validation": ["C"]}


def test_the_manipulator_reads_no_test_clip(tmp_path):
    names = ("A/neutral/1", "A/sad/1", "held/neutral/1", "held/sad/1", "M003/neutral/1")
    write_tracks(tmp_path, {name: codes(range(40)) for name in names})
    tracks = read_track_list(tmp_path)
    clips = {
        name: dataclasses.replace(entry, split="test") if "M003" in name else entry
        for name, entry in tracks.clips.items()
    }
    write_track_list(tmp_path, dataclasses.replace(tracks, clips=clips))
    codes_path(tmp_path, "M003/neutral/1").write_bytes(b"not to be opened")
    experiment = of_task("manipulator", tmp_path, batch_size=4)
    read_all(experiment)
    assert experiment.speakers == {"train": {"A"}, "validation": {"held"}}


@pytest.mark.parametrize("marked", [True, False], ids=["own validation", "a share of the training clips"])
def test_the_renderer_reads_no_test_clip(tmp_path, monkeypatch, marked):
    clips = {"train": {f"A/sad/{k}": range(8) for k in range(3)}, "test": {"M003/sad/1": range(8), "A/sad/9": range(8)}}
    if marked:
        clips["validation"] = {"A/happy/1": range(8)}
    records = write_talking_records(tmp_path / "records", clips)
    seen, load = set(), RecordClips._load

    def noted(self, clip, frame):
        seen.add(clip)
        return load(self, clip, frame)

    monkeypatch.setattr(RecordClips, "_load", noted)
    experiment = of_task("renderer", records)
    read_all(experiment)
    assert seen == {*clips["train"], *clips.get("validation", ())}
    assert experiment.speakers == {"train": {"A"}, "validation": {"A"}}


def test_a_config_becomes_plain_json():
    config = ConfigDict({"a": (1, 2), "b": {"c": None, "d": 1.5}})
    assert plain_config(config) == {"a": [1, 2], "b": {"c": None, "d": 1.5}}


def test_every_default_of_the_recipe_says_where_it_comes_from():
    lines = inspect.getsource(recipe.get_config).splitlines()
    settings = [line for line in lines if line.strip().startswith("config.model.")]
    assert len(settings) == len(recipe.get_config().model)
    assert all("  # " in line for line in settings)
