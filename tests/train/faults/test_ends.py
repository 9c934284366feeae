"""Exit statuses: which of them another start may cure, and what a person is told of them."""

import subprocess
import sys

import pytest

from asccl_jax.train.faults import ends
from tests.launched import ROOT


@pytest.mark.parametrize("status", [0, 1, 2, 128 + 1, 128 + 2, 128 + 13, 128 + 15])
def test_success_known_failures_and_polite_stops_are_final(status):
    assert not ends.is_worth_a_restart(status)


@pytest.mark.parametrize("status", [70, 75, 128 + 6, 128 + 9, 128 + 11])
def test_crashes_kills_and_lost_processes_are_worth_a_restart(status):
    assert ends.is_worth_a_restart(status)


def test_statuses_are_explained():
    assert ends.explain(ends.shell_status(-9)) == "was ended by SIGKILL (kill -9, or the system was out of memory)"
    assert "coordinator" in ends.explain(134)
    assert ends.explain(75).startswith("ended with status 75 (")
    assert ends.explain(3) == "ended with status 3"
    assert ends.explain(200) == "ended with status 200"


@pytest.mark.parametrize(
    ("words", "status", "said"),
    [
        ("raise RuntimeError('unforeseen')", 70, "RuntimeError: unforeseen"),
        ("ends.leave(75)", 75, ""),
        ("ends.leave(0)", 0, "bye"),
    ],
)
def test_a_failed_process_ends_at_once_and_an_unforeseen_error_has_a_status_of_its_own(words, status, said):
    program = (
        "import atexit, sys\nfrom asccl_jax.train.faults import ends\n"
        "atexit.register(lambda: print('bye'))\nsys.excepthook = ends.crash\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", program + words], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert result.returncode == status
    assert said in result.stdout + result.stderr
    assert ("bye" in result.stdout) == (status == 0)
