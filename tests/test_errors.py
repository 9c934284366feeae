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


def test_the_home_folder_stands_for_a_tilde_in_the_words_of_every_entry_point(monkeypatch):
    monkeypatch.setenv("HOME", "/home/anna")
    seen = []

    @exit_on_input_error
    def main(words=None):
        seen.extend(sys.argv[1:] if words is None else words)
        return 0

    words = [
        "~/clips",
        "--output=~/rec",
        "--config.data.dir=~",
        "a~/b",
        "~tilde",
        "--text=~ten",
        "~no-such-person/x",
        "./~",
    ]
    main(words)
    monkeypatch.setattr(sys, "argv", ["asccl", "--workdir=~/run"])
    main()
    home = ["/home/anna/clips", "--output=/home/anna/rec", "--config.data.dir=/home/anna"]
    assert seen == [*home, *words[3:], "--workdir=/home/anna/run"]


@pytest.mark.parametrize("platform", ["cuda", "nonsense"])
def test_a_platform_that_is_not_there_is_one_line_for_every_entry_point(platform):
    use = (
        "import sys\nfrom asccl_jax.errors import exit_on_input_error\n"
        "@exit_on_input_error\ndef main():\n    import jax.numpy as jnp\n    return int(jnp.zeros(()))\n"
        "sys.exit(main())"
    )
    environment = {**os.environ, "JAX_PLATFORMS": platform}
    result = subprocess.run([sys.executable, "-c", use], env=environment, capture_output=True, text=True, check=False)
    assert result.returncode == 2
    assert result.stderr.startswith(f"error: JAX_PLATFORMS asks for {platform}, this jax has cpu")
    assert result.stderr.count("\n") == 1


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
