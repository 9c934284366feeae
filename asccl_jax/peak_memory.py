"""The most memory a process has held at once, of the host and of its devices."""

from __future__ import annotations

import resource
import sys

__all__ = ["device_peak_bytes", "host_peak_bytes"]


def host_peak_bytes() -> int:
    """Returns the most memory this process has held at once."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def device_peak_bytes() -> int | None:
    """Returns the most memory that one of this process's devices has held, or None where the back end cannot tell."""
    import jax

    statistics = [device.memory_stats() or {} for device in jax.local_devices()]
    return max((peaks["peak_bytes_in_use"] for peaks in statistics if "peak_bytes_in_use" in peaks), default=None)
