"""The table and the command line of a soak."""

import json
import subprocess

import pytest

from tests.faults.__main__ import main
from tests.faults.harness import FAULTS
from tests.faults.report import Soak
from tests.faults.trial import Trial
from tests.launched import ROOT


def soak(trials, failures=()):
    return Soak(seed=7, date="2026-01-02 03:04 UTC", seconds=90.0, trials=trials, failures=list(failures), completed=1)


def test_a_row_says_how_often_what_was_lost_and_how_long_it_took(tmp_path):
    trials = [Trial("kill", lost, seconds, "") for lost, seconds in ((0, 4.0), (2, 6.0), (3, 20.0))]
    trials.append(Trial("corrupt-record", 0, 5.0, ""))
    result = soak(trials, [("kill", "a line differs"), ("hang-one-of-two", "it did not end")])
    head, _, kill, corrupt, hang = result.table().splitlines()
    assert head == "| fault | tried | lost | recovered in (median, worst) |"
    assert kill == f"| {FAULTS['kill'].what} | 4, **1 failed** | 2, at most 3 steps | 6 s, 20 s |"
    assert corrupt.endswith("| 1 | nothing | 5 s, 5 s |")
    assert hang.endswith("| 1, **1 failed** |  |  |")
    result.write(tmp_path)
    page = (tmp_path / "soak.md").read_text()
    assert "Seed 7" in page and "2026-01-02" in page and "a line differs" in page and "jax " in page
    content = json.loads((tmp_path / "soak.json").read_text())
    assert content["trials"][1] == {"fault": "kill", "lost": 2, "recovered_s": 6.0, "note": ""}
    assert content["seed"] == 7 and content["versions"]["jax"]


def test_scenarios_have_names_and_texts_of_their_own():
    assert len({kind.what for kind in FAULTS.values()}) == len(FAULTS)
    assert all("|" not in kind.what for kind in FAULTS.values())


@pytest.mark.parametrize(
    ("words", "message"),
    [(["--only", "flood"], "--only flood: expected one of kill, "), (["--minutes", "0"], "--minutes 0: expected more")],
)
def test_bad_arguments_are_one_clear_line_and_status_2(words, message, capsys):
    assert main(words) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and error.count("\n") == 1 and message in error


def test_the_script_explains_itself_without_installing_anything():
    result = subprocess.run(
        ["bash", "launch/soak.sh", "--help"], cwd=ROOT, env={"PATH": "/usr/bin:/bin"}, capture_output=True, text=True
    )
    assert (result.returncode, result.stderr) == (0, "")
    for word in ("Usage: bash launch/soak.sh", "--minutes", "--seed", "--only", "--output", "Exit status", "Example"):
        assert word in result.stdout
    assert "#" not in result.stdout
