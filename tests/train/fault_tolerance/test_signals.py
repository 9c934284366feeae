"""Signals that ask training to stop: the first counts, what is silenced stays so, a parent decides on the second."""

import os
import signal

import pytest

from asccl_jax.train.fault_tolerance.signals import StopSignals


@pytest.fixture(autouse=True)
def handlers():
    kept = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    yield
    for number, handler in kept.items():
        signal.signal(number, handler)


def test_the_first_signal_is_noted_and_the_second_is_the_systems_affair():
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    with StopSignals() as stop:
        assert stop.requested(1) is None
        os.kill(os.getpid(), signal.SIGTERM)
        assert stop.requested(2) == signal.SIGTERM
        assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


def test_under_a_parent_a_signal_that_comes_twice_is_one_stop(monkeypatch):
    monkeypatch.setenv("ASCCL_ATTEMPT", "1")
    with StopSignals() as stop:
        os.kill(os.getpid(), signal.SIGTERM)  # from the scheduler
        os.kill(os.getpid(), signal.SIGTERM)  # from the parent, which heard it as well
        assert stop.requested(1) == signal.SIGTERM


def test_what_a_shell_silenced_for_a_process_in_its_background_stays_silent():
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with StopSignals() as stop:
        os.kill(os.getpid(), signal.SIGINT)
        assert stop.requested(1) is None
    assert signal.getsignal(signal.SIGINT) == signal.SIG_IGN
