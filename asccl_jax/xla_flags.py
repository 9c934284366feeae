"""XLA flags this project needs, appended before JAX starts and only where the user has not chosen.

On CPU, jaxlib hands single convolutions to YNNPACK, whose weight gradients are two to four times slower than Eigen's;
one flag keeps them on Eigen. The flag is experimental, so it is tried in a child process first and the verdict is
cached per jaxlib version.
"""

from __future__ import annotations

import importlib.metadata
import logging
import os
import subprocess
import sys

from asccl_jax.cache_folder import cache_folder

__all__ = ["CPU_CONVOLUTION_FLAG", "apply", "is_applied"]

CPU_CONVOLUTION_FLAG = "--xla_cpu_experimental_ynn_fusion_type=-LIBRARY_FUSION_TYPE_INDIVIDUAL_CONVOLUTION"

_LOG = logging.getLogger(__name__)


def is_applied() -> bool:
    """Returns whether `XLA_FLAGS` holds a choice for the CPU convolution library, ours or the user's."""
    return CPU_CONVOLUTION_FLAG.split("=")[0] in os.environ.get("XLA_FLAGS", "")


def apply() -> bool:
    """Appends the CPU convolution flag to `XLA_FLAGS`; call it before anything imports JAX.

    Returns:
      Whether the flag is in force. False, with a warning, where JAX is already imported or this jaxlib refuses it.
    """
    if is_applied():
        return True
    if "jaxlib" in sys.modules:
        _LOG.warning("JAX was imported before asccl_jax.xla_flags.apply(): CPU convolutions may be slow")
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
