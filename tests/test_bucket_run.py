"""The training command with a bucket for its run and its data: the toy through the real command line."""

import dataclasses
import os
import random
import signal
import subprocess
import sys
import time

import fsspec
import pytest

from asccl_jax import main, process
from asccl_jax.buckets import open_remote
from asccl_jax.metrics_file import read_metrics
from asccl_jax.train import command_line, recipes, runtime
from asccl_jax.train.checkpoints.checkpoint import newest_on_disk
from asccl_jax.train.run.run_mirror import RunMirror
from tests.launched import PATIENCE_S, ROOT, finish, give_up, losses
from tests.train.toy import experiment

pytestmark = pytest.mark.filterwarnings("ignore:the load_module:DeprecationWarning")

WORDS = (f"--config={ROOT / 'configs/asccl.py'}:smoke", "--config.report_groups=0")


def test_the_command_goes_on_in_the_bucket_and_names_it(bucket, tmp_path, monkeypatch, capsys):
    steps = iter((2, 4))
    monkeypatch.setattr(recipes, "build_experiment", lambda config: experiment(steps=next(steps)))
    # What is for a process of its own.
    monkeypatch.setattr(main, "_start_logging", lambda: None)
    monkeypatch.setattr(process, "apply_xla_flags", lambda: None)
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


@pytest.mark.slow
def test_after_kill_9_the_same_command_goes_on_from_the_bucket_to_the_same_numbers(bucket, tmp_path):
    words = [*WORDS, "--config.steps=20", "--config.evaluate_every=10", "--config.checkpoint_every=4"]
    words += ["--config.compilation_cache_dir="]

    def start(address, pause_s):
        command = [sys.executable, "-m", "tests.train.toy_training", *words, f"--workdir={address}"]
        environment = {**os.environ, "TOY_PAUSE_S": str(pause_s), "TMPDIR": str(tmp_path)}
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        return subprocess.Popen(command, cwd=ROOT, env=environment, **pipes)

    def saved(address):
        return newest_on_disk(RunMirror(open_remote(address), tmp_path).checkpoints) or 0

    undisturbed, disturbed = f"{bucket}/undisturbed", f"{bucket}/disturbed"
    status, _, errors = finish(start(undisturbed, 0))
    assert status == 0, errors
    process = start(disturbed, 0.3)
    deadline = time.monotonic() + PATIENCE_S
    while saved(disturbed) < 4 and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.1)
    time.sleep(random.uniform(0, 1.5))
    errors = give_up(process)
    assert process.returncode == -signal.SIGKILL, errors
    assert 4 <= (checkpoint := saved(disturbed)) < 20
    status, _, errors = finish(start(disturbed, 0))
    assert status == 0, errors
    assert f"going on from checkpoint {checkpoint} in {disturbed}" in errors
    for name, address in (("disturbed", disturbed), ("undisturbed", undisturbed)):
        RunMirror(open_remote(address), tmp_path / name).fetch()
    assert losses(tmp_path / "disturbed") == losses(tmp_path / "undisturbed")
    last = [(tmp_path / name / "last/w.json").read_text() for name in ("disturbed", "undisturbed")]
    assert last[0] == last[1]
