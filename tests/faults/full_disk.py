"""A disk that takes no more: full while a checkpoint is written, and at a limit while a line is logged.

Full is a small file system in memory, filled to the last byte, where the machine lets this process mount one. Where it
does not, and while logging, the kernel refuses the process any longer file (`RLIMIT_FSIZE`, "File too large").
"""

import contextlib
import dataclasses
import os
import resource
import subprocess

from asccl_jax.metrics_file import METRICS_FILE
from tests.faults.fault import TrainingFault, require_clear_stop
from tests.faults.trial import require

DISK_BYTES = 64 << 20
ROOM_FOR_LINES = 24 << 10
"""Enough for what is logged between two checkpoints, far less than a checkpoint."""
_BLOCK = 64 << 10


@contextlib.contextmanager
def small_disk(folder):
    """Makes a folder a disk of its own, if that is permitted; yields whether it is."""
    folder.mkdir(parents=True, exist_ok=True)
    command = ["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "tmpfs", str(folder)]
    try:
        mounted = subprocess.run(command, capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        mounted = False
    try:
        yield mounted
    finally:
        if mounted:
            subprocess.run(["umount", "--lazy", str(folder)], check=False)


class FullWhileSaving(TrainingFault):
    name = "disk-full-in-save"
    what = "disk filled up to 24 KB; a save meets its end"

    def strike(self, run, attempt, moments):
        if os.path.ismount(run.disk):
            _fill(self._filling(run), spare=ROOM_FOR_LINES)
        else:
            _limit_files(attempt.number, (run.workdir / METRICS_FILE).stat().st_size + ROOM_FOR_LINES)

    def check_end(self, run, end):
        reason = "No space left on device" if os.path.ismount(run.disk) else "File too large"
        require_clear_stop(end, 1, "cannot write", reason, _what_is_safe(run))

    def mend(self, run):
        self._filling(run).unlink(missing_ok=True)

    @staticmethod
    def _filling(run):
        return run.disk / "filling"


class FullWhileLogging(TrainingFault):
    name = "disk-full-in-log"
    what = "no file may grow any more (`RLIMIT_FSIZE`); a line of scalars meets its end"

    def strike(self, run, attempt, moments):
        _limit_files(attempt.number, (run.workdir / METRICS_FILE).stat().st_size)

    def check_end(self, run, end):
        require_clear_stop(end, 1, "cannot write", "File too large", _what_is_safe(run))


class OneOfTwoIsFull(FullWhileLogging):
    name = "disk-full-in-one-of-two"
    what = "the one of two processes that logs may let no file grow any more (`RLIMIT_FSIZE`); both stop"
    processes = 2

    def strike(self, run, attempt, moments):
        (pid,) = attempt.processes("--process_id=0")
        _limit_files(pid, (run.workdir / METRICS_FILE).stat().st_size)

    def check_end(self, run, end):
        # The other one may say so as well, before `local_cluster.sh` ends it.
        own = dataclasses.replace(end, log="\n".join(line for line in end.errors if "has ended: " not in line))
        require_clear_stop(own, 1, "cannot write", "File too large", _what_is_safe(run))
        require("Traceback" not in end.log, f"a traceback besides the line of error:\n{end.log[-3000:]}")


def _what_is_safe(run):
    checkpoint = run.newest_checkpoint()
    return f"checkpoint {checkpoint} is whole" if checkpoint else "there is no checkpoint yet"


def _fill(path, *, spare):
    block = bytes(_BLOCK)
    with path.open("wb", buffering=0) as file:
        with contextlib.suppress(OSError):
            while file.write(block) == len(block):
                pass
        size = file.seek(0, os.SEEK_END)
        file.truncate(max(0, size - spare))


def _limit_files(pid, size):
    resource.prlimit(pid, resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))
