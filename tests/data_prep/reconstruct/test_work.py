"""Frames are counted where a bar is wanted, and only counted."""

import io
import sys

import pytest

from data_prep.reconstruct.work import counted, counting_frames


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.mark.parametrize("wanted", [True, False])
def test_frames_are_counted_on_a_terminal_if_that_is_wanted(monkeypatch, wanted):
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    with counting_frames(wanted):
        assert list(counted(range(3), "faces", total=3)) == [0, 1, 2]
    assert ("faces" in terminal.getvalue()) is wanted
    before = terminal.getvalue()
    assert list(counted(range(3), "faces")) == [0, 1, 2]
    assert terminal.getvalue() == before
