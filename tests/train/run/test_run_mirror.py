"""Runs in a bucket: on from there as from a disk, metrics complete, networks whole whenever the sending is cut off."""

import json
import os
import shutil
import socket
import subprocess
import sys

import fsspec
import numpy as np
import pytest

from asccl_jax.buckets import RemoteFolder, open_remote
from asccl_jax.errors import InputError, WriteError
from asccl_jax.metrics_file import read_metrics
from asccl_jax.train.checkpoints.checkpoint import Checkpoints, newest_on_disk
from asccl_jax.train.loop import fit
from asccl_jax.train.run.run_mirror import RunMirror, mirrored_run
from asccl_jax.weights import WeightsFormat, load_weights, save_weights
from tests.launched import ROOT, finish_all
from tests.train.toy import experiment

PROGRAM = """
import dataclasses, os, sys
from asccl_jax.train import runtime
address, coordinator, index, steps = sys.argv[1:]
runtime.connect_processes(coordinator, 2, int(index), timeout_s=120, heartbeat_timeout_s=100)
from asccl_jax.train.loop import fit
from asccl_jax.train.run.run_mirror import mirrored_run
from tests.train.toy import ToyBatches, experiment
with mirrored_run(address) as mirror:
    run = dataclasses.replace(experiment(steps=int(steps), width=4), batches=ToyBatches(batch_size=4, width=4))
    print(fit(run, mirror.local, mirror=mirror).first_step, sorted(os.listdir(mirror.local)))
"""

NETWORK = WeightsFormat("toy", 1, saver="a test")


def train(address, **settings):
    with mirrored_run(address) as mirror:
        return fit(experiment(**settings), mirror.local, mirror=mirror)


def metrics(path):
    lines = read_metrics(path)
    return [{name: value for name, value in line.items() if not name.startswith("speed/")} for line in lines]


def fetch(address, directory):
    """Copies all but the checkpoints of a run to a folder."""
    mirror = RunMirror(open_remote(address), directory)
    mirror.fetch()
    return directory


def test_a_run_goes_on_from_the_bucket_alone_exactly_as_from_a_disk(bucket, tmp_path):
    fit(experiment(steps=4), tmp_path / "disk")
    train(f"{bucket}/halves", steps=2)
    result = train(f"{bucket}/halves", steps=4)
    there = fetch(f"{bucket}/halves", tmp_path / "there")
    assert (result.step, result.first_step) == (4, 2)
    assert metrics(there / "metrics.jsonl") == metrics(tmp_path / "disk/metrics.jsonl")  # the same program and inputs
    for name in ("initial/w.json", "best/w.json", "last/w.json"):
        assert (there / name).read_text() == (tmp_path / "disk" / name).read_text()
    # The second half was asked for by other settings, and a run notes which steps were made with which.
    expected = {path.name for path in (tmp_path / "disk").iterdir()} - {"checkpoints"} | {"config_history.json"}
    assert {path.name for path in there.iterdir()} == expected
    assert not list(there.glob(".*"))


def test_metrics_are_in_the_bucket_before_the_checkpoint_that_counts_on_them(bucket, monkeypatch):
    address, seen = f"{bucket}/order", []

    def save(self, step, *args, _save=Checkpoints.save, **options):
        lines = fsspec.filesystem("gcs").cat(f"{address}/metrics.jsonl").decode().splitlines()
        seen.append((step, json.loads(lines[-1])["step"]))
        _save(self, step, *args, **options)

    monkeypatch.setattr(Checkpoints, "save", save)
    train(address, steps=4, checkpoint_every=2)
    assert seen == [(2, 2), (4, 4)]


def test_a_save_that_did_not_end_is_not_taken_for_a_checkpoint(bucket):
    address = f"{bucket}/cut"
    train(address, steps=2)
    filesystem = fsspec.filesystem("gcs")
    filesystem.copy(f"{address}/checkpoints/2/", f"{address}/checkpoints/3/", recursive=True)
    filesystem.rm(f"{address}/checkpoints/3/commit_success.txt")
    assert newest_on_disk(open_remote(address).path / "checkpoints") == 2
    result = train(address, steps=4)
    assert result.first_step == 2
    assert newest_on_disk(open_remote(address).path / "checkpoints") == 4


def test_weights_are_read_from_a_bucket(bucket, tmp_path):
    save_weights(tmp_path / "best", NETWORK, variables={"w": np.arange(3.0)}, settings={"width": 3})
    mirror = RunMirror(open_remote(f"{bucket}/weights"), tmp_path)
    mirror.send()
    # A command's Path has lost one of the slashes.
    for path in (f"{bucket}/weights", f"{bucket}/weights/best", tmp_path.__class__(f"{bucket}/weights")):
        variables, _ = load_weights(
            path,
            NETWORK,
            read_settings=lambda settings: settings["width"],
            fresh_variables=lambda width: {"w": np.zeros(width)},
        )
        np.testing.assert_array_equal(variables["w"], np.arange(3.0))
    with pytest.raises(InputError, match=rf"^toy {bucket}/nothing: no such directory"):
        load_weights(f"{bucket}/nothing", NETWORK, read_settings=dict, fresh_variables=dict)
    with pytest.raises(InputError, match=r"weights are saved to a disk only"):
        save_weights(f"{bucket}/weights", NETWORK, variables={}, settings={})


class Cut(Exception):
    """As a kill."""


class CutFolder(RemoteFolder):
    """Is cut off at a certain file; each is whole or not there, as in a bucket."""

    left = None

    def _each(self, work, items):
        for item in items:
            if self.left == 0:
                raise Cut
            self.left = None if self.left is None else self.left - 1
            work(item)

    def send(self, directory, names):
        self._each(lambda name: super(CutFolder, self).send(directory, [name]), names)

    def copy(self, names):
        self._each(lambda name: super(CutFolder, self).copy({name: names[name]}), names)

    def remove(self, names):
        self._each(lambda name: super(CutFolder, self).remove([name]), names)


def test_wherever_the_sending_is_cut_off_a_whole_network_is_in_the_bucket(tmp_path):
    memory = fsspec.filesystem("memory")
    outcomes = []
    for value in (1, 2, 3):
        variables = {"w": np.full(3, float(value))}
        save_weights(tmp_path / f"network-{value}", NETWORK, variables=variables, settings={})
    for cut in range(100):
        memory.store.clear()
        local = tmp_path / str(cut)
        mirror = RunMirror(CutFolder("memory://bucket/run", memory), local)
        shutil.copytree(tmp_path / "network-1", local / "best")
        mirror.send()
        shutil.rmtree(local / "best")
        shutil.copytree(tmp_path / "network-2", local / "best", copy_function=shutil.copyfile)
        mirror.remote.left = cut
        try:
            mirror.send()
        except Cut:
            outcomes.append(load_what_is_there(tmp_path / f"read-{cut}"))
            # Another machine goes on, and replaces it in its turn.
            other = RunMirror(RemoteFolder("memory://bucket/run", memory), tmp_path / f"other-{cut}")
            other.fetch()
            shutil.rmtree(other.local / "best", ignore_errors=True)
            shutil.copytree(tmp_path / "network-3", other.local / "best", copy_function=shutil.copyfile)
            other.send()
            assert load_what_is_there(tmp_path / f"read-{cut}-3") == 3
            continue
        break
    assert load_what_is_there(tmp_path / "read-last") == 2
    assert len(outcomes) > 10
    assert outcomes == sorted(outcomes)  # the old one, then the new one, and nothing else
    assert set(outcomes) == {1, 2}


def load_what_is_there(directory):
    RunMirror(RemoteFolder("memory://bucket/run", fsspec.filesystem("memory")), directory).fetch()
    variables, _ = load_weights(
        directory, NETWORK, read_settings=dict, fresh_variables=lambda settings: {"w": np.zeros(3)}
    )
    assert len(set(variables["w"].tolist())) == 1
    return variables["w"][0]


def test_a_bucket_that_fails_while_training_ends_it_with_one_line(bucket, monkeypatch):
    address = f"{bucket}/failing"

    def denied(self, directory, names):
        if "last/w.json" in names:
            raise OSError("Forbidden: no right to write")
        return send(self, directory, names)

    send = RemoteFolder.send
    monkeypatch.setattr(RemoteFolder, "send", denied)
    expected = (
        rf"^training stopped: cannot write {address}: Forbidden: no right to write; (checkpoint 2 is whole|there is no"
        rf" checkpoint yet): see that {address} can be written and give the same command, which goes on from there$"
    )
    with pytest.raises(WriteError, match=expected):
        train(address, steps=4, checkpoint_every=2)


def two_processes(address, directory, *, steps):
    """Runs the program in two processes, each with a folder for temporary files that the other does not know."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        coordinator = f"localhost:{free.getsockname()[1]}"
    processes = []
    for index in ("0", "1"):
        (directory / index).mkdir(exist_ok=True)
        own = {"TMPDIR": str(directory / index), "PYTHONPATH": str(ROOT), "XLA_FLAGS": "", "JAX_PLATFORMS": "cpu"}
        words = [sys.executable, "-c", PROGRAM, address, coordinator, index, str(steps)]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        processes.append(subprocess.Popen(words, env={**os.environ, **own}, cwd=directory, **pipes))
    ends = finish_all(processes)
    assert [status for status, *_ in ends] == [0, 0], ends
    return [output.strip().rpartition("\n")[2] for _, output, _ in ends]


@pytest.mark.slow
def test_two_processes_without_a_common_disk_write_one_run_and_go_on_with_it(bucket, tmp_path):
    address = f"{bucket}/two"
    first = two_processes(address, tmp_path, steps=2)
    assert first[0].startswith("0 ['best', 'config.json', 'initial', 'last', 'metrics.jsonl'"), first
    assert "metrics.jsonl" not in first[1]  # the toy exports on every process; no other file is the second one's
    second = two_processes(address, tmp_path, steps=4)
    assert [line[0] for line in second] == ["2", "2"]
    lines = read_metrics(fetch(address, tmp_path / "there") / "metrics.jsonl")
    assert [line["step"] for line in lines if "toy/loss" in line] == [1, 2, 3, 4]
    # Each has written its part of the arrays.
    names = open_remote(f"{address}/checkpoints/4").files()
    for index in (0, 1):
        assert any(name.startswith(f"state/ocdbt.process_{index}/") for name in names), sorted(names)
    assert "commit_success.txt" in names
    # Nothing is left on the disks.
    assert [list((tmp_path / index).iterdir()) for index in "01"] == [[], []]
