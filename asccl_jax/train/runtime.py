"""Starting JAX for training: processes, compilation cache, and a loud word where a slow path would be taken."""

from __future__ import annotations

import hashlib
import logging
import os
import sys
from pathlib import Path

import jax
from jax.experimental import multihost_utils

from asccl_jax import xla_flags
from asccl_jax.errors import InputError

__all__ = ["connect_processes", "describe_devices", "use_compilation_cache", "wait_for_all"]

_LOG = logging.getLogger(__name__)
_ORDERED_COLLECTIVES = "--xla_cpu_enable_concurrency_optimized_scheduler=false"


def connect_processes(coordinator: str | None, num_processes: int | None, process_id: int | None) -> None:
    """Joins the other processes; JAX finds what is None on Cloud TPU, Slurm, Open MPI and Kubernetes.

    Raises:
      InputError: JAX cannot find out or cannot reach the coordinator, or it took to CPUs without being told.
    """
    if os.environ.get("JAX_PLATFORMS") == "cpu":
        # Collectives between CPU processes travel through gloo, which takes messages as they come; with the scheduler
        # that spreads independent operations, two processes start them in different orders and the run aborts.
        os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {_ORDERED_COLLECTIVES}"
    try:
        jax.distributed.initialize(coordinator, num_processes, process_id)
    except (ValueError, RuntimeError) as error:
        raise InputError(
            f"--multihost: cannot join the other processes ({str(error).splitlines()[0]});"
            " give --coordinator HOST:PORT, --num_processes and --process_id"
        ) from error
    if jax.default_backend() == "cpu" and _ORDERED_COLLECTIVES not in os.environ.get("XLA_FLAGS", ""):
        raise InputError("--multihost on CPUs: set JAX_PLATFORMS=cpu, so that the processes can be kept in step")


def use_compilation_cache(directory: str | None) -> None:
    """Keeps compiled programs on disk, so that a second start takes seconds.

    Args:
      directory: Where; None takes a folder of the user's cache, one for each version of jaxlib and kind of processor,
        as programs compiled for the CPU may not run on another; "" keeps none.
    """
    if directory == "":
        return
    if directory is None:
        home = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache"))
        directory = str(home / "asccl-jax" / f"compiled-{jax.__version__}-{_processor()}")
    jax.config.update("jax_compilation_cache_dir", directory)
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 1.0)


def describe_devices() -> str:
    """Returns what the run computes on, and warns where it would be slower than it need be."""
    devices = jax.devices()
    if devices[0].platform == "cpu":
        if not xla_flags.is_applied():
            _LOG.warning(
                "SLOW: %s is not in XLA_FLAGS, convolution gradients on this CPU take two to four times as long;"
                " start with `python -m asccl_jax.main`, which sets it before JAX starts",
                xla_flags.CPU_CONVOLUTION_FLAG,
            )
        if Path("/dev/nvidia0").exists():
            _LOG.warning(
                "SLOW: this machine has an NVIDIA GPU, but JAX sees only the CPU; install asccl-jax[cuda]"
                " (or unset JAX_PLATFORMS)"
            )
    processes = f" of {jax.process_count()} processes" if jax.process_count() > 1 else ""
    return f"{len(devices)} x {devices[0].device_kind} ({devices[0].platform}){processes}"


def wait_for_all() -> None:
    """Returns once every process has come here; alone, at once."""
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices("asccl_jax.train.finished")


def _processor() -> str:
    """Returns a short name of the instruction set, equal for machines that can share compiled programs."""
    described = Path("/proc/cpuinfo")
    lines = described.read_text().splitlines() if described.is_file() else []
    features = next((line for line in lines if line.startswith(("flags", "Features"))), sys.platform)
    return hashlib.sha256(f"{os.uname().machine} {features}".encode()).hexdigest()[:8]
