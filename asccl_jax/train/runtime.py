"""Starting JAX for training: processes, compilation cache, and a loud word where a slow path would be taken."""

from __future__ import annotations

import hashlib
import logging
import os
import socket
import sys
from collections.abc import Callable
from pathlib import Path

import jax
import numpy as np
from jax.experimental import multihost_utils
from jaxtyping import Float

from asccl_jax import process
from asccl_jax.errors import InputError
from asccl_jax.paths import cache_folder
from asccl_jax.train.faults import coordination
from asccl_jax.train.faults.heartbeat import Heartbeat, Limits

__all__ = [
    "connect_processes",
    "describe_devices",
    "gather_rows",
    "require_ordered_collectives",
    "use_compilation_cache",
    "wait_for_all",
    "watchdog",
]

_LOG = logging.getLogger(__name__)
_ORDERED_COLLECTIVES = "--xla_cpu_enable_concurrency_optimized_scheduler=false"


def connect_processes(
    coordinator: str | None,
    num_processes: int | None,
    process_id: int | None,
    *,
    timeout_s: int,
    heartbeat_timeout_s: int,
) -> None:
    """Joins the other processes; JAX finds what is None on Cloud TPU, Slurm, Open MPI and Kubernetes.

    Args:
      coordinator: Address of process 0 as host:port, or None.
      num_processes: Number of processes, or None.
      process_id: Index of this one, or None.
      timeout_s: Seconds to wait for the others; then this process ends with status 75.
      heartbeat_timeout_s: Seconds of silence after which a process counts as lost.

    Raises:
      InputError: JAX cannot find out who the others are.
    """
    if os.environ.get("JAX_PLATFORMS") == "cpu":
        # Collectives between CPU processes travel through gloo, which takes messages as they come; with the scheduler
        # that spreads independent operations, two processes start them in different orders and the run aborts.
        os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {_ORDERED_COLLECTIVES}"
    coordination.join(
        coordinator, num_processes, process_id, timeout_s=timeout_s, heartbeat_timeout_s=heartbeat_timeout_s
    )


def require_ordered_collectives() -> None:
    """Refuses a run of several processes on CPUs that JAX took to without being told.

    Raises:
      InputError: So it is.
    """
    if jax.default_backend() == "cpu" and _ORDERED_COLLECTIVES not in os.environ.get("XLA_FLAGS", ""):
        raise InputError("--multihost on CPUs: set JAX_PLATFORMS=cpu, so that the processes can be kept in step")


def watchdog(*, stall_s: int, lost_s: int, newest: Callable[[], int | None]) -> Heartbeat:
    """Returns what watches over this process and those it has joined.

    Args:
      stall_s: Seconds without anything moving after which a process ends; 0: never.
      lost_s: Seconds of silence after which another process counts as lost.
      newest: Returns the step of the newest checkpoint.
    """
    process, processes = coordination.place()
    # Thousands of processes that all read all beats would keep process 0 busy.
    beat_s = min(max(2.0, processes / 64), lost_s / 5)
    return Heartbeat(
        Limits(stall_s=float(stall_s), lost_s=float(lost_s), warning_s=min(30.0, lost_s / 2), beat_s=beat_s),
        process=process,
        processes=processes,
        host=socket.gethostname(),
        store=coordination.CoordinationStore() if processes > 1 else None,
        newest=newest,
    )


def use_compilation_cache(directory: str | None) -> None:
    """Keeps compiled programs on disk, so that a second start takes seconds.

    Args:
      directory: Where; None takes a folder of the user's cache, one for each version of jaxlib and kind of processor,
        as programs compiled for the CPU may not run on another; "" keeps none.
    """
    if directory == "":
        return
    if directory is None:
        cache = cache_folder()
        if cache is None:
            return
        directory = str(cache / f"compiled-{jax.__version__}-{_processor()}")
    jax.config.update("jax_compilation_cache_dir", directory)
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 1.0)


def describe_devices() -> str:
    """Returns what the run computes on, and warns where it would be slower than it need be."""
    devices = jax.devices()
    if devices[0].platform == "cpu":
        if not process.has_xla_flags():
            _LOG.warning(
                "SLOW: %s is not in XLA_FLAGS, convolution gradients on this CPU take two to four times as long;"
                " start with `python -m asccl_jax.main`, which sets it before JAX starts",
                process.CPU_CONVOLUTION_FLAG,
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


def gather_rows(row: Float[np.ndarray, " n"]) -> Float[np.ndarray, "p n"]:
    """Returns the rows of all processes in their order, in single precision; alone, the one given.

    All processes must call it together, with no other program of several processes in flight.
    """
    if jax.process_count() == 1:
        return row[None]
    return np.asarray(multihost_utils.process_allgather(row.astype(np.float32)))


def _processor() -> str:
    """Returns a short name of the instruction set, equal for machines that can share compiled programs."""
    described = Path("/proc/cpuinfo")
    lines = described.read_text().splitlines() if described.is_file() else []
    features = next((line for line in lines if line.startswith(("flags", "Features"))), sys.platform)
    return hashlib.sha256(f"{os.uname().machine} {features}".encode()).hexdigest()[:8]
