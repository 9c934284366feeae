"""A run that is killed and goes on with other processes and devices sees the examples of one that nobody disturbed."""

import collections
import json
import os
import random
import signal
import socket
import subprocess
import sys
import time

import numpy as np
import pytest

from tests.launched import ROOT, give_up
from tests.train import elastic_run

STEPS = 60


@pytest.fixture
def start():
    """Starts processes that train together; what a failed test leaves of them is killed."""
    started = []
    yield lambda *paths, **counts: started.extend(begun := _start(*paths, **counts)) or begun
    for process in started:
        if process.poll() is None:
            give_up(process)


def _start(workdir, ids, *, processes, devices):
    environment = {
        **os.environ,
        "JAX_PLATFORMS": "cpu",
        # The second as `runtime.connect_processes` has it: collectives of processes must begin in one order.
        "XLA_FLAGS": (
            f"--xla_force_host_platform_device_count={devices} --xla_cpu_enable_concurrency_optimized_scheduler=false"
        ),
    }
    with socket.socket() as free:
        free.bind(("localhost", 0))
        coordinator = f"localhost:{free.getsockname()[1]}"
    started = []
    for index in range(processes):
        command = [sys.executable, "-m", "tests.train.elastic_run", str(workdir), f"{ids}.{index}", str(STEPS)]
        command += [coordinator, str(processes), str(index)] if processes > 1 else []
        started.append(
            subprocess.Popen(
                command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
            )
        )
    return started


def noted(directory):
    """All notes that processes left: number of the batch, how many shared it, which of them, examples."""
    lines = [line for path in directory.glob("ids.*") for line in path.read_text().splitlines(keepends=True)]
    return [json.loads(line) for line in lines if line.endswith("\n")]  # the last of a killed process may be cut off


def kill_at(processes, directory, number):
    """Kills all processes a moment after one of them has drawn a batch."""
    running = True
    while running and max((note[0] for note in noted(directory)), default=0) < number:
        time.sleep(0.02)
        running = all(process.poll() is None for process in processes)
    time.sleep(random.uniform(0, 0.1))
    for process in processes:
        process.send_signal(signal.SIGKILL)
    outputs = [process.communicate()[0] for process in processes]
    assert [process.returncode for process in processes] == [-signal.SIGKILL] * len(processes), outputs


@pytest.mark.slow
def test_examples_and_weights_are_those_of_an_undisturbed_run_whatever_processes_came_and_went(start, tmp_path):
    undisturbed, disturbed = tmp_path / "undisturbed", tmp_path / "disturbed"
    for directory in (undisturbed, disturbed):
        directory.mkdir()
    elastic_run.run(undisturbed / "run", undisturbed / "ids.0", STEPS)
    expected = {number: examples for number, _, _, examples in noted(undisturbed)}
    assert sorted(expected) == list(range(1, STEPS + 1))

    first, second = random.randint(7, 15), random.randint(22, 35)
    workdir = disturbed / "run"
    kill_at(start(workdir, disturbed / "ids.two", processes=2, devices=1), disturbed, first)
    kill_at(start(workdir, disturbed / "ids.one", processes=1, devices=4), disturbed, second)
    (last,) = start(workdir, disturbed / "ids.alone", processes=1, devices=2)
    output = last.communicate(timeout=300)[0]
    assert last.returncode == 0, output

    shared = collections.defaultdict(dict)
    for number, count, index, examples in noted(disturbed):
        # Steps that were lost are done again, with the same examples.
        assert shared[number, count].setdefault(index, examples) == examples
    whole = {place: [example for index in sorted(parts) for example in parts[index]] for place, parts in shared.items()}
    complete = {place: examples for place, examples in whole.items() if len(shared[place]) == place[1]}
    assert all(examples == expected[number] for (number, _), examples in complete.items())
    assert {number for number, _ in complete} == set(expected)
    assert {count for _, count in complete} == {1, 2}

    found, wanted = (json.loads((run / "run/last/w.json").read_text()) for run in (disturbed, undisturbed))
    assert found["step"] == wanted["step"] == STEPS
    # Sums over eight rows in another order: float32 differs by some 1e-7 a step.
    np.testing.assert_allclose(found["w"], wanted["w"], rtol=1e-4)
