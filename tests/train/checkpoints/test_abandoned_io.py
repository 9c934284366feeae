"""Answers that come too late are kept quiet, and nothing else is."""

import sys
import types

import pytest

from asccl_jax.train.checkpoints.abandoned_io import abandoned_io_unheard


def given_up():
    error = Exception("Encountered error while reading array index")
    error.__cause__ = GeneratorExit()
    return error


@pytest.fixture
def heard(monkeypatch):
    """What reaches the hook that was there before."""
    errors = []
    monkeypatch.setattr(sys, "unraisablehook", lambda unraisable: errors.append(unraisable.exc_value))
    return errors


def say(*errors):
    for error in errors:
        sys.unraisablehook(types.SimpleNamespace(exc_value=error))


def test_after_a_failed_read_only_other_errors_are_heard(heard):
    others = [RuntimeError("another"), Exception("bare"), ValueError("x"), None]
    with pytest.raises(ValueError, match="damaged"), abandoned_io_unheard():
        raise ValueError("damaged")
    say(RuntimeError("Event loop is closed"), given_up(), *others)
    assert heard == others


def test_after_a_read_that_went_well_everything_is_heard_again(heard):
    with abandoned_io_unheard():
        say(RuntimeError("Event loop is closed"))
    late = RuntimeError("Event loop is closed")
    say(late)
    assert heard == [late]
