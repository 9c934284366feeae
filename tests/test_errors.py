"""What a person sees of an error: one line and an exit status."""

import errno
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from asccl_jax.errors import InputError, WriteError, exit_on_input_error, writing

FULL = os.strerror(errno.ENOSPC)


@pytest.mark.parametrize(("error", "status"), [(InputError("no such thing"), 2), (WriteError("no room"), 1)])
def test_entry_points_say_one_line_and_end_with_a_status(capsys, error, status):
    @exit_on_input_error
    def main():
        raise error

    assert main() == status
    assert capsys.readouterr().err == f"error: {error}\n"


def test_other_errors_of_an_entry_point_are_bugs_and_stay_loud():
    with pytest.raises(ZeroDivisionError):
        exit_on_input_error(lambda: 1 // 0)()


@pytest.mark.parametrize(
    "error",
    [OSError(errno.ENOSPC, FULL), ValueError(f"RESOURCE_EXHAUSTED: Failed to write: {FULL} [os_error_code='28']")],
    ids=["system", "tensorstore"],
)
def test_the_systems_errors_are_named_with_the_place_that_was_written(error):
    with pytest.raises(WriteError, match=f"^cannot write runs/1: {FULL}$"), writing(Path("runs/1")):
        raise error


@pytest.mark.parametrize(
    "message",
    [
        "PERMISSION_DENIED: Error writing gs://bucket/1: Forbidden [source locations='a.cc:1']",
        "Error opening \"zarr\" driver: Error writing gs://bucket/1: Forbidden [tensorstore_spec='{}']",
    ],
)
def test_a_buckets_errors_are_named_as_well(message):
    expected = r"^cannot write runs/1: .*Error writing gs://bucket/1: Forbidden$"
    with pytest.raises(WriteError, match=expected), writing(Path("runs/1")):
        raise ValueError(message)


@pytest.mark.parametrize("message", ["bad value", "--workdir gs://bucket/1: no such bucket"])
def test_errors_that_are_not_the_systems_pass_through(message):
    with pytest.raises(InputError, match=message), writing(Path("runs/1")):
        raise InputError(message)


def test_a_reader_that_leaves_ends_an_entry_point_quietly():
    talk = """
import sys
from asccl_jax.errors import exit_on_input_error

@exit_on_input_error
def main():
    for _ in range(100000):
        print("word")
    return 0

sys.exit(main())
"""
    with subprocess.Popen([sys.executable, "-c", talk], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        process.stdout.readline()
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 128 + signal.SIGPIPE
