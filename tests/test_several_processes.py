"""Several processes that train together: one is killed, stopped, hung, interrupted or never comes."""

import os
import random
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from asccl_jax.metrics_file import read_metrics, read_summary
from tests.launched import ROOT, finish, finish_all, give_up, last_step, losses, wait_for_step

pytestmark = pytest.mark.slow

STEPS = 60
# A process tells of its place now and then, and saves in the background: what is known of it may be some steps old.
PLACE = r"(?:step \d+|no step yet)"
SAFE = r"(?:checkpoint \d+ is whole|there is no checkpoint yet)"


class Pair:
    """Two processes of one run of the toy task."""

    def __init__(self, workdir, *words, **settings):
        with socket.socket() as free:
            free.bind(("localhost", 0))
            address = f"localhost:{free.getsockname()[1]}"
        self.workdir = workdir
        self.words = [f"--config={ROOT / 'configs/asccl.py'}:smoke", f"--workdir={workdir}", "--multihost"]
        self.words += [f"--coordinator={address}", "--num_processes=2", "--config.compilation_cache_dir="]
        entries = {"steps": STEPS, "evaluate_every": 30, "checkpoint_every": 5, "report_groups": 0}
        self.words += [f"--config.{name}={value}" for name, value in entries.items()] + [*words]
        self.settings = {"TOY_PAUSE_S": "0.1", **settings}
        self.processes = []

    def start(self, index):
        kept = {name: value for name, value in os.environ.items() if name != "XLA_FLAGS"}
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.train.toy_training", *self.words, f"--process_id={index}"],
            cwd=ROOT,
            env={**kept, "JAX_PLATFORMS": "cpu", **self.settings},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.processes.append(process)
        return process

    def finish(self):
        return finish_all(self.processes)


@pytest.fixture
def pair(tmp_path):
    pairs = []

    def begin(name, *words, indices=(0, 1), **settings):
        pairs.append(Pair(tmp_path / name, *words, **settings))
        for index in indices:
            pairs[-1].start(index)
        return pairs[-1]

    yield begin
    for process in (process for pair in pairs for process in pair.processes):
        if process.poll() is None:
            give_up(process)  # a supervised one takes its child with it


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    run = Pair(tmp_path_factory.mktemp("run") / "undisturbed", TOY_PAUSE_S="0")
    for index in (0, 1):
        run.start(index)
    assert [status for status, *_ in run.finish()] == [0, 0]
    return run.workdir


def child_of(process):
    (child,) = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    return int(child)


def same_as(workdir, undisturbed):
    assert losses(workdir) == losses(undisturbed)
    return (workdir / "last/w.json").read_text() == (undisturbed / "last/w.json").read_text()


@pytest.mark.parametrize("victim", [0, 1])
def test_after_kill_9_of_one_process_both_go_on_by_themselves_to_the_same_end(pair, undisturbed, victim):
    run = pair("disturbed", "--max-restarts=2", "--heartbeat_timeout=20", "--join_timeout=100")
    moments = random.Random()
    wait_for_step(run.processes[0], run.workdir, moments.randint(3, 40))
    time.sleep(moments.uniform(0, 0.1))
    os.kill(child_of(run.processes[victim]), signal.SIGKILL)
    (status, _, errors), (other_status, _, other_errors) = run.finish()
    assert (status, other_status) == (0, 0), errors + other_errors
    assert same_as(run.workdir, undisturbed)
    restarts = [re.findall(r"attempt \d of 3 .*starting again in .*", text) for text in (errors, other_errors)]
    assert "was ended by SIGKILL" in restarts[victim][0]
    assert len(restarts[1 - victim]) == 1, restarts
    # Of process 0 JAX notices the death by itself, and aborts.
    assert victim == 0 or re.search(rf"error: training stopped: .*process 1 .*; {SAFE}", errors)


def test_a_process_that_is_back_before_its_death_was_noticed_finds_the_others_again(pair, undisturbed, tmp_path):
    hung = tmp_path / "hung"
    run = pair("run", "--max_restarts=1", "--heartbeat_timeout=300", TOY_HANG=f"0:12:{hung}")
    wait_for_step(run.processes[0], run.workdir, 10)
    while not hung.exists():
        time.sleep(0.05)
    os.kill(child_of(run.processes[1]), signal.SIGKILL)  # process 0, outside of any collective, sees nothing of it
    (status, _, errors), (other_status, _, other_errors) = run.finish()
    assert (status, other_status) == (0, 0), errors + other_errors
    assert re.search(r"attempt 1 of 2 was ended by SIGABRT \(it aborted itself: JAX does where", errors)
    # The last save before the hang may not have ended when the process was killed.
    assert len(re.findall(r"starting again in 1 s, from checkpoint (?:5|10)\b", other_errors)) == 1
    assert same_as(run.workdir, undisturbed)


def test_a_process_that_is_stopped_is_named_by_the_other_which_ends_with_75_and_does_not_stay(pair):
    run = pair("run", "--heartbeat_timeout=10")
    wait_for_step(run.processes[0], run.workdir, 7)
    run.processes[1].send_signal(signal.SIGSTOP)
    stopped_at = time.monotonic()
    status, _, errors = finish(run.processes[0])
    assert status == 75, errors
    assert time.monotonic() - stopped_at > 9  # the limit, but for a beat; how much later is up to the machine
    assert re.search(rf"process 1 \(host .+\) has not been heard of for 5 s; last at {PLACE}", errors)
    lines = [line for line in errors.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1
    assert re.search(rf"lost process 1 \(host .*\), last at {PLACE} .*; {SAFE}; the same", lines[0])
    assert "Traceback" not in errors
    run.processes[1].send_signal(signal.SIGCONT)
    assert finish(run.processes[1])[0] in (75, -signal.SIGABRT)


def test_a_loader_that_hangs_is_named_and_both_processes_start_again(pair, undisturbed, tmp_path):
    words = ("--max_restarts=1", "--stall_timeout=30", "--join_timeout=100")
    run = pair("run", *words, TOY_HANG=f"1:12:{tmp_path / 'hung'}")
    (status, _, errors), (other_status, _, other_errors) = run.finish()
    assert (status, other_status) == (0, 0), errors + other_errors
    told = r"nothing moved for 30 s: waiting for process 1 \(host .+\), at step 11 \(waiting for input\)"
    assert re.search(told, errors + other_errors), errors + other_errors
    for text in (errors, other_errors):
        assert "attempt 1 of 2 ended with status 75" in text
        assert "starting again in 1 s, from checkpoint 10" in text
    assert same_as(run.workdir, undisturbed)


@pytest.mark.parametrize(
    ("index", "said"),
    [
        (
            1,
            "process 1 could not join the others within 5 s .*nobody answers at localhost:.*, where process 0 should",
        ),
        (0, "process 0 could not join the others within 5 s .*process 0 answers at .*, but not all of the others"),
    ],
)
def test_processes_that_do_not_come_are_one_line_and_status_75(pair, index, said):
    run = pair("run", "--join_timeout=5", indices=(index,))
    ((status, _, errors),) = run.finish()
    assert status == 75
    (line,) = [line for line in errors.splitlines() if line.startswith("error: ")]
    assert re.search(said, line)


def assert_both_told_of_themselves(workdir):
    """Each has a row in the summary and a profile, and lines of scalars name the one that waits longest for input."""
    figures = read_summary(workdir)["processes"]
    assert [row["process"] for row in figures] == [0, 1]
    assert {row["host"] for row in figures} == {socket.gethostname()}
    assert all(row["step_s"] > row["input_wait_s"] > 0 for row in figures)
    # The first line comes before any step without compilation has ended.
    lines = [line for line in read_metrics(workdir / "metrics.jsonl") if "speed/step_s" in line]
    assert [line["step"] for line in lines] == list(range(lines[0]["step"], last_step(workdir) + 1))
    for line in lines:
        assert line["speed/slowest_process"] in (0, 1)
        # The slowest is gathered in single precision.
        assert line["speed/slowest_step_input_wait_s"] > 0.999 * line["speed/input_wait_s"]
    for index in (0, 1):
        assert list((workdir / f"profile/process{index}").rglob("*.xplane.pb")), index


def test_ctrl_c_to_one_process_stops_both_politely_with_the_figures_of_both(pair):
    run = pair("run", "--profile=1")
    wait_for_step(run.processes[0], run.workdir, 4)
    run.processes[1].send_signal(signal.SIGINT)
    ends = run.finish()
    assert [status for status, *_ in ends] == [128 + signal.SIGTERM] * 2, ends
    assert "SIGINT received: finishing this step and saving" in ends[1][2]
    assert "Traceback" not in ends[0][2] + ends[1][2]
    saved = max(int(path.name) for path in (run.workdir / "checkpoints").iterdir() if path.name.isdigit())
    assert f"stopped by SIGTERM after step {saved}, all saved" in ends[0][2]
    assert_both_told_of_themselves(run.workdir)


def test_a_supervised_pair_stops_politely_and_does_not_start_again(pair):
    run = pair("run", "--max_restarts=3")
    wait_for_step(run.processes[0], run.workdir, 4)
    for process in run.processes:
        process.send_signal(signal.SIGTERM)
    ends = run.finish()
    assert [status for status, *_ in ends] == [128 + signal.SIGTERM] * 2, ends
    assert "starting again" not in ends[0][2] + ends[1][2]
