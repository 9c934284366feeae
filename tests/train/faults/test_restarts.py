"""Restarts: after which ends, how often, from where, and what signals do to parent and child."""

import os
import signal
import subprocess
import sys
import time
import types
from pathlib import Path

import pytest

from asccl_jax.train.faults import restarts
from asccl_jax.train.faults.signals import StopSignals
from tests.launched import ROOT

# The parent under test. Its child counts its own starts in a file and does what its first word says for that start.
PARENT = """
import logging, pathlib, sys
from asccl_jax.train.faults.restarts import RestartSettings, supervise
folder, most, together, *acts = sys.argv[1:]
logging.basicConfig(level=logging.INFO, format="%(message)s")
def newest():
    steps = [int(path.name) for path in pathlib.Path(folder).glob("[0-9]*")]
    return max(steps, default=None)
settings = RestartSettings(most=int(most), first_pause_s=0.05, together=together == "together")
child = [sys.executable, "-c", pathlib.Path(folder, "child.py").read_text(), folder, *acts]
status = supervise(child, settings, newest)
assert "jax" not in sys.modules
sys.exit(status)
"""
CHILD = """
import os, pathlib, signal, sys, time
folder = pathlib.Path(sys.argv[1])
start = len(list(folder.glob("start*"))) + 1
act, _, step = sys.argv[1 + min(start, len(sys.argv) - 2)].partition("@")
if step:
    (folder / step).touch()
def note(name, text=""):
    (folder / "new").write_text(text)
    (folder / "new").rename(folder / name)
if act.startswith("kill"):
    note(f"start{start}", os.environ["ASCCL_ATTEMPT"])
    os.kill(os.getpid(), int(act[4:]))
if act.startswith("end"):
    note(f"start{start}", os.environ["ASCCL_ATTEMPT"])
    sys.exit(int(act[3:]))
heard = []
def hear(number, frame):
    heard.append(number)
    note("heard", " ".join(map(str, heard)))
for number in (signal.SIGTERM, signal.SIGINT):
    signal.signal(number, hear)
note(f"start{start}", f"{os.getpid()} {os.getppid()}")
if act == "stop":
    while not heard:
        time.sleep(0.01)
    time.sleep(0.3)
    sys.exit(128 + heard[0])
time.sleep(60)
"""


@pytest.fixture
def start(tmp_path):
    (tmp_path / "child.py").write_text(CHILD)

    def begin(*acts, most=3, together=""):
        return subprocess.Popen(
            [sys.executable, "-c", PARENT, str(tmp_path), str(most), together, *acts],
            cwd=ROOT,
            stderr=subprocess.PIPE,
            text=True,
        )

    return begin


def end(process):
    _, errors = process.communicate(timeout=300)
    return process.returncode, errors


def starts(folder):
    return len(list(folder.glob("start*")))


def wait_for(path):
    deadline = time.monotonic() + 300
    while not path.exists():
        assert time.monotonic() < deadline, path
        time.sleep(0.01)
    return path.read_text()


def gone(process_id):
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        try:
            state = Path(f"/proc/{process_id}/stat").read_text().rpartition(")")[2].split()[0]
        except FileNotFoundError:
            return True
        if state == "Z":
            return True
        time.sleep(0.02)
    return False


def test_after_kills_crashes_and_lost_processes_it_starts_again_and_says_from_where(start, tmp_path):
    status, errors = end(start("kill9", "end75@40", "kill6@50", "end0"))
    assert status == 0
    assert [(tmp_path / f"start{number}").read_text() for number in range(1, starts(tmp_path) + 1)] == list("1234")
    first, second, third = errors.splitlines()
    assert first == (
        "attempt 1 of 4 was ended by SIGKILL (kill -9, or the system was out of memory); starting again in 0.05 s,"
        " from the beginning, there is no checkpoint"
    )
    assert second.startswith("attempt 2 of 4 ended with status 75 (")
    assert second.endswith("from checkpoint 40")
    assert "SIGABRT" in third
    assert third.endswith("from checkpoint 50")


@pytest.mark.parametrize("act", ["end0", "end1", "end2", "end130", "end143", "kill15"])
def test_success_failure_bad_input_and_polite_stops_are_final(start, tmp_path, act):
    status, errors = end(start(act))
    assert status == (128 + 15 if act == "kill15" else int(act[3:]))
    assert starts(tmp_path) == 1
    assert errors == ""


def test_it_gives_up_after_as_many_restarts_as_it_was_given(start, tmp_path):
    status, errors = end(start("kill9@1", "kill9@2", "kill9@3", most=2))
    assert status == 128 + 9
    assert starts(tmp_path) == 3
    assert errors.splitlines()[-1].endswith("giving up after 2 restarts (--max_restarts)")


def test_a_crash_that_repeats_without_progress_is_given_up_early(start, tmp_path):
    status, errors = end(start("end70", "end70@5", "end70", "kill11", "end70", most=20))
    assert status == 70
    assert starts(tmp_path) == 5  # the second attempt got on, three after it did not
    last = errors.splitlines()[-1]
    assert last.startswith("attempt 5 of 21 ended with status 70")
    assert "giving up: no new checkpoint in 3 attempts" in last


def test_waiting_for_lost_processes_is_no_crash_that_repeats(start, tmp_path):
    assert end(start("end75", "end75", "end75", "end75", "end0", most=9, together="together"))[0] == 0
    assert starts(tmp_path) == 5
    for path in tmp_path.glob("start*"):
        path.unlink()
    assert end(start("end75", "end75", "end75", "end75", "end0", most=9))[0] == 75
    assert starts(tmp_path) == 3


def test_pauses_grow_until_there_is_progress(start):
    _, errors = end(start("end75", "end75", "end75@1", "end75", "end0", most=9, together="together"))
    pauses = [line.partition("again in ")[2].partition(" s")[0] for line in errors.splitlines()]
    assert pauses == ["0.05", "0.1", "0.05", "0.1"]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_reaches_the_child_once_and_no_attempt_follows(start, tmp_path, number):
    process = start("stop")
    wait_for(tmp_path / "start1")
    process.send_signal(number)
    process.send_signal(number)  # at once: a scheduler that signals twice means one stop
    status, errors = end(process)
    assert status == 128 + number
    assert (tmp_path / "heard").read_text() == str(int(number))
    assert errors == ""


def test_a_handler_in_the_middle_of_another_is_no_second_signal(monkeypatch):
    sent = []
    child = restarts._Child()
    child._process = types.SimpleNamespace(send_signal=sent.append)

    def interrupted():
        if not child._heard and sent == []:
            monkeypatch.setattr(restarts.time, "monotonic", lambda: 5.0)
            child._on_signal(signal.SIGTERM, None)
        return 4.9

    monkeypatch.setattr(restarts.time, "monotonic", interrupted)
    child._on_signal(signal.SIGTERM, None)
    assert sent == [signal.SIGTERM]
    monkeypatch.setattr(restarts.time, "monotonic", lambda: 6.5)
    child._on_signal(signal.SIGTERM, None)
    assert sent == [signal.SIGTERM, signal.SIGKILL]


def test_a_second_signal_kills_the_child(start, tmp_path):
    process = start("deaf")
    child = int(wait_for(tmp_path / "start1").split()[0])
    process.send_signal(signal.SIGTERM)
    wait_for(tmp_path / "heard")
    time.sleep(1.1)
    assert process.poll() is None
    process.send_signal(signal.SIGTERM)
    assert end(process)[0] == 128 + signal.SIGKILL
    assert gone(child)


def test_ctrl_c_at_a_terminal_is_not_heard_twice(start, tmp_path):
    process = start("stop")
    child, parent = map(int, wait_for(tmp_path / "start1").split())
    assert parent == process.pid
    assert os.getpgid(child) == child  # out of the group that the terminal interrupts
    process.send_signal(signal.SIGINT)
    assert end(process)[0] == 128 + signal.SIGINT


def test_a_signal_in_a_pause_ends_it(start, tmp_path):
    program = PARENT.replace("first_pause_s=0.05", "first_pause_s=50")
    process = subprocess.Popen(
        [sys.executable, "-c", program, str(tmp_path), "3", "", "kill9"], cwd=ROOT, stderr=subprocess.PIPE, text=True
    )
    assert "starting again in 50 s" in process.stderr.readline()
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=300) == 128 + signal.SIGTERM
    process.stderr.close()


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a child of its parent's death")
def test_a_parent_that_is_killed_leaves_no_child_behind(start, tmp_path):
    process = start("stop")
    child = int(wait_for(tmp_path / "start1").split()[0])
    process.kill()
    end(process)
    assert gone(child)


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
