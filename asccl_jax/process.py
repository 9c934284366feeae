"""What holds for a whole process: the name of its command, XLA's flags, the allocator's thresholds, its peak memory."""

from __future__ import annotations

import contextlib
import contextvars
import ctypes
import importlib.metadata
import logging
import os
import resource
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from asccl_jax.paths import cache_folder

__all__ = [
    "CPU_CONVOLUTION_FLAG",
    "apply_xla_flags",
    "called_as",
    "command_name",
    "device_peak_bytes",
    "has_xla_flags",
    "host_peak_bytes",
    "keep_freed_memory",
]

# The command as its user typed it, for the usage lines of parsers: modules run by themselves and behind other commands.

_CALLED_AS: contextvars.ContextVar[str] = contextvars.ContextVar("called_as")


def command_name() -> str:
    """Returns the command as it was typed: `asccl eval metric`, or `python -m data_prep` where a module was run."""
    name = _CALLED_AS.get(None)
    if name is not None:
        return name
    spec = getattr(sys.modules["__main__"], "__spec__", None)
    return Path(sys.argv[0]).name if spec is None else f"python -m {spec.name.removesuffix('.__main__')}"


@contextlib.contextmanager
def called_as(*words: str) -> Iterator[None]:
    """Lets `command_name` return the present name and these words within the block: for a command that runs another."""
    before = _CALLED_AS.set(" ".join([command_name(), *words]))
    try:
        yield
    finally:
        _CALLED_AS.reset(before)


# On CPU, jaxlib hands single convolutions to YNNPACK, whose weight gradients are two to four times slower than Eigen's;
# one flag keeps them on Eigen. The flag is experimental, so it is tried in a child process first and the verdict is
# cached per jaxlib version.

CPU_CONVOLUTION_FLAG = "--xla_cpu_experimental_ynn_fusion_type=-LIBRARY_FUSION_TYPE_INDIVIDUAL_CONVOLUTION"

_LOG = logging.getLogger(__name__)


def has_xla_flags() -> bool:
    """Returns whether `XLA_FLAGS` holds a choice for the CPU convolution library, ours or the user's."""
    return CPU_CONVOLUTION_FLAG.split("=")[0] in os.environ.get("XLA_FLAGS", "")


def apply_xla_flags() -> bool:
    """Appends the CPU convolution flag to `XLA_FLAGS`; call it before anything imports JAX.

    Returns:
      Whether the flag is in force. False, with a warning, where JAX is already imported or this jaxlib refuses it.
    """
    if has_xla_flags():
        return True
    if "jaxlib" in sys.modules:
        _LOG.warning("JAX was imported before asccl_jax.process.apply_xla_flags(): CPU convolutions may be slow")
        return False
    if not _jaxlib_accepts_flag():
        _LOG.warning("this jaxlib refuses %s: CPU convolutions may be slow", CPU_CONVOLUTION_FLAG)
        return False
    os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {CPU_CONVOLUTION_FLAG}".strip()
    return True


def _jaxlib_accepts_flag() -> bool:
    version = importlib.metadata.version("jaxlib")
    cache = cache_folder()
    verdict = None if cache is None else cache / f"cpu-convolution-flag-{version}"
    if verdict is not None and verdict.is_file():
        return verdict.read_text().strip() == "accepted"
    # An unknown flag aborts the process, so a child has to try it.
    environment = {**os.environ, "XLA_FLAGS": CPU_CONVOLUTION_FLAG, "JAX_PLATFORMS": "cpu"}
    probe = subprocess.run(
        [sys.executable, "-c", "import jax; jax.devices()"], env=environment, capture_output=True, check=False
    )
    accepted = probe.returncode == 0
    try:
        if verdict is not None:
            verdict.write_text("accepted" if accepted else "refused")
    except OSError as error:
        _LOG.info("cannot cache the flag probe at %s: %s", verdict, error)
    return accepted


# Freed memory of the host, kept for the next step instead of being handed back to the system.
#
# XLA's CPU back end takes one large buffer for the temporaries of a step and frees it at the end. glibc gives such a
# buffer back to the kernel, which has to find and clear every page of it again in the next step: about a seventh of the
# processor time of a training step at 224 pixels.

# Names and numbers of <malloc.h>.
_M_TRIM_THRESHOLD, _M_MMAP_MAX, _M_ARENA_MAX = -1, -4, -8


def keep_freed_memory() -> bool:
    """Tells glibc's allocator to keep freed memory, for processes that do the same large step over and over.

    Call it first thing, before libraries start threads: memory of threads that already have an arena of their own is
    still given back. The process then holds on to the most it has ever needed.

    Returns:
      Whether the allocator took it; False on systems without glibc, where nothing changes.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):  # musl, macOS, Windows
        return False
    # Large blocks from the heap rather than from the kernel, the heap never shrinks, and threads share it: a thread's
    # own arena cannot hold a large block.
    return all([mallopt(_M_MMAP_MAX, 0), mallopt(_M_TRIM_THRESHOLD, -1), mallopt(_M_ARENA_MAX, 1)])


# The most memory a process has held at once, of the host and of its devices.


def host_peak_bytes() -> int:
    """Returns the most memory this process has held at once."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def device_peak_bytes() -> int | None:
    """Returns the most memory that one of this process's devices has held, or None where the back end cannot tell."""
    import jax

    statistics = [device.memory_stats() or {} for device in jax.local_devices()]
    return max((peaks["peak_bytes_in_use"] for peaks in statistics if "peak_bytes_in_use" in peaks), default=None)
