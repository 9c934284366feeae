"""Telling the errors of a collective whose other side is gone from all other errors."""

from __future__ import annotations

import re

from asccl_jax.errors import InputError, WriteError

__all__ = ["is_lost_peer"]

# Gloo (CPU), NCCL (GPU), the coordination service and Orbax's barriers upon it, as their messages begin or go on.
_SIGNS = re.compile(
    r"gloo .*failed|\bnccl|coordination ?service|barrier (failed|timed out|has failed)|heartbeat|socket closed"
    r"|connection (reset|refused|closed)|(UNAVAILABLE|DEADLINE_EXCEEDED|ABORTED): ",
    re.IGNORECASE,
)


def is_lost_peer(error: BaseException | None) -> bool:
    """Returns whether an error, or what caused it, says that another process cannot be reached.

    JAX raises them as `ValueError` and as `JaxRuntimeError`, which other troubles share; only the message tells.
    """
    while error is not None:
        known = isinstance(error, (InputError, WriteError))
        if isinstance(error, (ValueError, RuntimeError)) and not known and _SIGNS.search(str(error)):
            return True
        error = error.__cause__
    return False
