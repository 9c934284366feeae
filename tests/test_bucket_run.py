"""The training command with a bucket for its run and its data: the toy through the real command line."""

import dataclasses

import fsspec
import pytest

from asccl_jax import main, process
from asccl_jax.buckets import open_remote
from asccl_jax.metrics_file import read_metrics
from asccl_jax.train import command_line, recipes, runtime
from asccl_jax.train.run.run_mirror import RunMirror
from tests.launched import ROOT
from tests.train.toy import experiment

pytestmark = pytest.mark.filterwarnings("ignore:the load_module:DeprecationWarning")

WORDS = (f"--config={ROOT / 'configs/asccl.py'}:smoke", "--config.report_groups=0")


def test_the_command_goes_on_in_the_bucket_and_names_it(bucket, tmp_path, monkeypatch, capsys):
    steps = iter((2, 4))
    monkeypatch.setattr(recipes, "build_experiment", lambda config: experiment(steps=next(steps)))
    # What is for a process of its own.
    monkeypatch.setattr(main, "_start_logging", lambda: None)
    monkeypatch.setattr(process, "apply", lambda: None)
    monkeypatch.setattr(process, "keep_freed_memory", lambda: None)
    monkeypatch.setattr(runtime, "use_compilation_cache", lambda directory: None)
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    address = f"{bucket}/command"
    for steps_done in (2, 4):
        assert main.main([*WORDS, f"--workdir={address}"]) == 0
        told = capsys.readouterr()
        assert f"trained to step {steps_done}" in told.out
        assert f"last:   {address}/last" in told.out
        assert str(tmp_path) not in told.out
    RunMirror(open_remote(address), tmp_path / "there").fetch()
    lines = read_metrics(tmp_path / "there/metrics.jsonl")
    assert [line["step"] for line in lines if "toy/loss" in line] == [1, 2, 3, 4]
    assert (tmp_path / "there/summary.json").is_file()
    assert not list(tmp_path.glob("asccl-run-*"))


def test_a_recipe_trains_on_fetched_data_and_notes_where_it_came_from(bucket, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    fsspec.filesystem("gcs").pipe({"emulated/records/manifest.json": b"{}"})
    read = []

    def build(config):
        read.append(config.data.dir)
        return dataclasses.replace(experiment(steps=2), config=config.to_dict())

    monkeypatch.setattr(recipes, "metric_experiment", build)
    config = command_line.parse([*WORDS, f"--config.data.dir={bucket}/records"]).config
    built = recipes.build_experiment(config)
    assert read == [str(tmp_path / "asccl-jax/data/emulated%2Frecords")]
    assert (tmp_path / "asccl-jax/data/emulated%2Frecords/manifest.json").read_bytes() == b"{}"
    assert built.config["data"]["dir"] == config.data.dir == f"{bucket}/records"
