"""The place where processes leave word for each other: the key-value store of JAX's coordination service."""

from __future__ import annotations

import os
import socket
import sys
import threading
from typing import Any

import jax

# JAX offers no other way to the store; its version is held in launch/constraints.txt.
from jax._src.distributed import global_state

from asccl_jax.errors import InputError
from asccl_jax.train.faults import ends

__all__ = ["CoordinationStore", "join", "place"]

_FOLDER = "asccl/beats"


class CoordinationStore:
    """Values of this run's processes; process 0 keeps them, and they go with it. To be made once they have joined."""

    def __init__(self) -> None:
        self._client: Any = global_state.client

    def put(self, process: int, text: str) -> None:
        """Sets the value of a process."""
        self._client.key_value_set(f"{_FOLDER}/{process}", text, allow_overwrite=True)

    def all(self) -> dict[int, str]:
        """Returns the values of all processes that have set one."""
        pairs = self._client.key_value_dir_get(_FOLDER)
        return {int(key.rpartition("/")[2]): text for key, text in pairs}


def join(
    coordinator: str | None,
    num_processes: int | None,
    process_id: int | None,
    *,
    timeout_s: int,
    heartbeat_timeout_s: int,
) -> None:
    """Joins the other processes, or ends this one with status 75 where they do not come in time.

    JAX aborts the process where it cannot join, without a word that a person would understand; a timer of our own
    comes before. For the same reason JAX's limit for silence is twice ours: `heartbeat` tells who is lost, and JAX
    remains for the case that it cannot.

    Where the peers of a process that died have not noticed yet, JAX tells the one that comes again from its
    predecessor, aborts the others, and lets this one wait for them.

    Raises:
      InputError: JAX does not find out who the others are.
    """
    timer = threading.Timer(timeout_s, _give_up, (timeout_s,))
    timer.daemon = True
    timer.start()
    try:
        jax.distributed.initialize(
            coordinator,
            num_processes,
            process_id,
            initialization_timeout=timeout_s + 60,
            heartbeat_timeout_seconds=2 * heartbeat_timeout_s,
        )
    except jax.errors.JaxRuntimeError as error:
        _end(f"cannot join the other processes: {str(error).splitlines()[0]}")
    except (ValueError, RuntimeError) as error:
        raise InputError(
            f"--multihost: cannot join the other processes ({str(error).splitlines()[0]});"
            " give --coordinator HOST:PORT, --num_processes and --process_id"
        ) from error
    finally:
        timer.cancel()


def place() -> tuple[int, int]:
    """Returns this process's index and how many there are, without waking the devices."""
    return global_state.process_id, global_state.num_processes


def _give_up(timeout_s: int) -> None:
    address, process = global_state.coordinator_address, global_state.process_id
    if address is None:
        problem = "it could not find out who the others are"
    elif _answers(address):
        problem = f"process 0 answers at {address}, but not all of the others have come"
    else:
        problem = f"nobody answers at {address}, where process 0 should be"
    _end(f"process {process} could not join the others within {timeout_s} s (--join_timeout): {problem}; start all")


def _end(problem: str) -> None:
    sys.stderr.write(f"error: --multihost: {problem}; the same command tries again\n")
    # JAX's connect does not return, and its own end is an abort.
    sys.stderr.flush()
    os._exit(ends.TEMPORARY)


def _answers(address: str) -> bool:
    host, _, port = address.rpartition(":")
    try:
        with socket.create_connection((host.strip("[]"), int(port)), timeout=2):
            return True
    except (OSError, ValueError):
        return False
