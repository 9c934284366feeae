"""Steps that are done once: what was made by other words, of other files or after other steps is not taken for it."""

import subprocess

import pytest

from tests.launch.scripts import ROOT

STEPS = """
set -euo pipefail
source "$1"
once made one bash -c "echo one >>log" "$2" source.csv
once made two bash -c "echo two >>log; echo made >out.npz" recipe.py:demo --output out.npz
"""


def steps(folder, word="a"):
    words = ["bash", "-c", STEPS, "bash", str(ROOT / "launch/steps.sh"), word]
    return subprocess.run(words, cwd=folder, capture_output=True, text=True, check=False)


@pytest.fixture
def made(tmp_path):
    (tmp_path / "source.csv").write_text("clips")
    (tmp_path / "recipe.py").write_text("recipe")
    assert steps(tmp_path).returncode == 0
    return tmp_path


def test_steps_are_done_once(made):
    assert steps(made).returncode == 0
    assert (made / "log").read_text() == "one\ntwo\n"


@pytest.mark.parametrize(
    ("change", "word", "named"),
    [
        (lambda made: None, "b", "'one'"),
        (lambda made: (made / "source.csv").write_text("chips"), "a", "'one'"),
        (lambda made: (made / "recipe.py").write_text("recipes"), "a", "'two'"),
        (lambda made: (made / "made/.done/one").write_text(""), "a", "'one'"),  # of a version that noted nothing
    ],
)
def test_what_was_made_of_something_else_is_refused_in_one_line(made, change, word, named):
    change(made)
    result = steps(made, word)
    assert result.returncode == 2 and result.stderr.count("\n") == 1
    assert result.stderr.startswith("error: made: ") and named in result.stderr
    assert (made / "log").read_text() == "one\ntwo\n"


def test_a_step_after_one_that_was_done_again_is_refused(made):
    (made / "source.csv").write_text("chips")
    (made / "made/.done/one").unlink()
    result = steps(made)
    assert result.returncode == 2 and "'two'" in result.stderr
    assert (made / "log").read_text() == "one\ntwo\none\n"
