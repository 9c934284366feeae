"""Several processes that each hold a part of the state: they score, export, save and go on like one that has all."""

import json
import os
import socket
import subprocess
import sys

import numpy as np
import pytest

from asccl_jax.metrics_file import read_metrics
from asccl_jax.train import sharding
from asccl_jax.train.loop import fit
from tests.launched import ROOT, finish_all
from tests.train.toy import experiment

WIDTH = 8
PROGRAM = f"""\
import dataclasses, sys
from pathlib import Path
import jax
from asccl_jax.train import runtime, sharding
from asccl_jax.train.loop import fit
from tests.train.toy import experiment

index, count = int(sys.argv[2]), int(sys.argv[4])
runtime.connect_processes(sys.argv[1], count, index, timeout_s=300, heartbeat_timeout_s=300)
sharding.SMALLEST_SPLIT = 8
made = experiment(steps=4, width={WIDTH}, fsdp=count)
own = slice(8 // count * index, 8 // count * (index + 1))
share = lambda rows: jax.tree.map(lambda values: values[own], rows)

class Shares(type(made.batches)):
    def __next__(self):
        return share(super().__next__())

whole = made.held_out
mine = dataclasses.replace(
    made,
    batches=Shares(width={WIDTH}),
    held_out=lambda: map(share, whole()),
    pictures=lambda state: print("drawn from", len(jax.device_get(state.params)["w"])) or {{}},
)
fit(mine, Path(sys.argv[3]))
runtime.wait_for_all()
"""


def weights(workdir, name):
    return json.loads((workdir / name / "w.json").read_text())["w"]


def scores(workdir):
    lines = read_metrics(workdir / "metrics.jsonl")
    return [[value for name, value in line.items() if not name.startswith("speed/")] for line in lines]


def start(count, workdir):
    with socket.socket() as free:
        free.bind(("localhost", 0))
        address = f"localhost:{free.getsockname()[1]}"
    environment = {**os.environ, "JAX_PLATFORMS": "cpu", "XLA_FLAGS": ""}  # one device a process
    return [
        subprocess.Popen(
            [sys.executable, "-c", PROGRAM, address, str(index), str(workdir), str(count)],
            cwd=ROOT,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for index in range(count)
    ]


@pytest.mark.parametrize("count", [2, pytest.param(4, marks=pytest.mark.slow)])
def test_processes_with_a_part_of_the_state_each_do_what_one_does_and_one_goes_on_from_them(
    tmp_path, monkeypatch, count
):
    several, alone = tmp_path / "several", tmp_path / "alone"
    processes = start(count, several)
    fit(experiment(steps=6, width=WIDTH), alone)
    ends = finish_all(processes, timeout=600)
    assert {status for status, *_ in ends} == {0}, [errors[-2000:] for *_, errors in ends]
    # Only the first draws, of all weights, at each of two evaluations.
    assert [output.count(f"drawn from {WIDTH}") for _, output, _ in ends] == [2, *[0] * (count - 1)]

    monkeypatch.setattr(sharding, "SMALLEST_SPLIT", 8)
    assert fit(experiment(steps=6, width=WIDTH, fsdp=8), several).step == 6
    for found, expected in zip(scores(several), scores(alone), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-5)  # float32 sums of eight rows in another order
    for name in ("initial", "best", "last"):
        np.testing.assert_allclose(weights(several, name), weights(alone, name), rtol=1e-5)
