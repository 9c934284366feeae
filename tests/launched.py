"""Training runs as processes of their own: started on a smoke recipe, watched, and read back exactly."""

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

from asccl_jax.metrics_file import read_metrics

ROOT = Path(__file__).parents[1]


PATIENCE_S = 1200
"""Seconds after which a run that does not do what it should is given up: one that hangs, not one on a busy
machine, where compiling alone has taken five minutes."""


QUICK = "--xla_backend_optimization_level=0 --xla_cpu_use_fusion_emitters=false"
"""Flags of XLA for a third of the time to compile, the same mathematics."""


class Launcher:
    """Starts `python -m asccl_jax.main` on a smoke recipe, its compilations kept in a folder.

    Args:
      cache: That folder; one serves all runs.
    """

    def __init__(self, cache):
        self._cache = cache
        self._processes = []
        self._environment = {
            **os.environ,
            "XLA_FLAGS": QUICK,
            "JAX_PLATFORMS": "cpu",
        }

    def __call__(self, recipe, workdir, *words, **settings):
        command = [sys.executable, "-m", "asccl_jax.main", f"--config={recipe}:smoke", f"--workdir={workdir}"]
        entries = {**settings, "compilation_cache_dir": self._cache, "report_groups": 0}
        command += [f"--config.{name}={value}" for name, value in entries.items()] + [*words]
        process = subprocess.Popen(
            command, cwd=ROOT, env=self._environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        self._processes.append(process)
        return process

    def end(self):
        """Kills what still runs: nothing that a failed test leaves may take the machine from the next one."""
        for process in self._processes:
            give_up(process)
        self._processes.clear()


def give_up(process):
    """Kills a process that may still run; returns what it wrote."""
    process.kill()
    return "".join(text or "" for text in process.communicate())


def finish(process, *, timeout=PATIENCE_S):
    """Returns exit status, stdout and stderr of a run."""
    try:
        output, errors = process.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        raise AssertionError(f"it did not end within {timeout} s:\n{give_up(process)}") from None
    return process.returncode, output, errors


def finish_all(processes, *, timeout=PATIENCE_S):
    """Returns how several runs ended that train together; where one does not end, none is left."""
    try:
        return [finish(process, timeout=timeout) for process in processes]
    finally:
        for process in processes:
            if process.returncode is None:
                give_up(process)


def losses(workdir):
    """All that a run logged but its speed, line by line, exactly."""
    lines = read_metrics(workdir / "metrics.jsonl")
    return [{name: value for name, value in line.items() if not name.startswith("speed/")} for line in lines]


def cut_off(workdir, copy, *, step):
    """Makes `copy` what `kill -9` leaves of a run whose newest checkpoint is of `step`, with lines of later steps."""
    shutil.copytree(workdir, copy)
    for path in (copy / "checkpoints").iterdir():
        if path.name.isdigit() and int(path.name) > step:
            shutil.rmtree(path)


def last_step(workdir):
    return max((line["step"] for line in read_metrics(workdir / "metrics.jsonl")), default=0)


def wait_for_step(process, workdir, step):
    deadline = time.monotonic() + PATIENCE_S
    while process.poll() is None and last_step(workdir) < step:
        assert time.monotonic() < deadline, f"no step {step} within {PATIENCE_S} s:\n{give_up(process)}"
        time.sleep(0.01)
    assert process.poll() is None, process.stderr.read()
