"""Progress bars where nobody watches: few lines, no redraws."""

import pytest

from asccl_jax import progress
from asccl_jax.progress import ProgressBar


@pytest.fixture
def log(monkeypatch, capsys):
    """Returns what went to stderr, which is no terminal; every update is more than a pause after the last."""
    monkeypatch.setattr(progress, "SECONDS_BETWEEN_LINES", 1e-9)
    return lambda: capsys.readouterr().err


def test_a_log_holds_lines_and_no_redraws(log):
    assert list(ProgressBar(range(3), desc="faces", unit="face", miniters=1)) == [0, 1, 2]
    said = log()
    lines = said.splitlines()
    assert len(lines) == 4
    assert all(line.startswith("faces: ") for line in lines)
    assert "3/3" in lines[-1]
    assert "\r" not in said


def test_what_is_done_within_a_pause_says_nothing(log, monkeypatch):
    monkeypatch.setattr(progress, "SECONDS_BETWEEN_LINES", 60.0)
    with ProgressBar(total=3) as bar:
        bar.update(3)
    assert log() == ""


def test_a_bar_that_is_hidden_counts_nothing_aloud(log):
    assert list(ProgressBar(range(3), disable=True)) == [0, 1, 2]
    assert log() == ""
