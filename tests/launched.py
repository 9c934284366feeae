"""Training runs as processes of their own: started on a smoke recipe, watched, and read back exactly."""

import os
import subprocess
import sys
import time
from pathlib import Path

from asccl_jax.metrics_file import read_metrics

ROOT = Path(__file__).parents[1]


def launcher(cache):
    """Returns what starts `python -m asccl_jax.main` on a smoke recipe, its compilations kept in a folder."""
    environment = {
        **{name: value for name, value in os.environ.items() if name != "XLA_FLAGS"},
        # Half the time to compile, the same mathematics.
        "XLA_FLAGS": "--xla_backend_optimization_level=0",
        "JAX_PLATFORMS": "cpu",
    }

    def start_process(recipe, workdir, *words, **settings):
        command = [sys.executable, "-m", "asccl_jax.main", f"--config={recipe}:smoke", f"--workdir={workdir}"]
        entries = {**settings, "compilation_cache_dir": cache, "report_groups": 0}
        command += [f"--config.{name}={value}" for name, value in entries.items()] + [*words]
        return subprocess.Popen(
            command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )

    return start_process


def finish(process, *, timeout=300):
    """Returns exit status, stdout and stderr of a run."""
    output, errors = process.communicate(timeout=timeout)
    return process.returncode, output, errors


def losses(workdir):
    """All that a run logged but its speed, line by line, exactly."""
    lines = read_metrics(workdir / "metrics.jsonl")
    return [{name: value for name, value in line.items() if not name.startswith("speed/")} for line in lines]


def last_step(workdir):
    return max((line["step"] for line in read_metrics(workdir / "metrics.jsonl")), default=0)


def wait_for_step(process, workdir, step):
    while process.poll() is None and last_step(workdir) < step:
        time.sleep(0.01)
    assert process.poll() is None, process.stderr.read()
