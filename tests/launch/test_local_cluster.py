"""Processes of one machine: their logs, the end of all when one fails, and signals that reach every one."""

import os
import re
import signal
import sys
import time

import pytest

from asccl_jax.metrics_file import read_metrics
from tests.launch.scripts import PATIENCE_S, ROOT, checkout, launch, start, wait_for


@pytest.fixture(scope="module")
def repository(tmp_path_factory):
    return checkout(tmp_path_factory.mktemp("repository"))


def begin(repository, logs, *flags, count=2, options=()):
    process = start(repository, "local_cluster", count, f"--log-dir={logs}", *options, "--", *flags)
    for index in range(count):
        wait_for(logs / f"host-{index}.log", "ready")
    return process


def test_each_process_is_told_its_place_and_logs_to_a_file_of_its_own(repository, tmp_path):
    status, output, errors = launch(repository, "local_cluster", 3, "--", "--end", "a b", LOGDIR=str(tmp_path / "logs"))
    assert status == 0, errors
    for index in range(3):
        log = (tmp_path / f"logs/host-{index}.log").read_text()
        told = re.search("^told: (.*)$", log, flags=re.MULTILINE).group(1)
        expected = r"<--end> <a b> <--multihost> <--coordinator=localhost:\d+> <--num_processes=3> <--process_id=%d>"
        assert re.fullmatch(expected % index, told)
        assert "platform: cpu" in log
    assert "--process_id=0>" in output  # process 0 is shown, the others are not
    assert "--process_id=1" not in output


def test_logs_of_a_second_attempt_follow_those_of_the_first(repository, tmp_path):
    for _ in range(2):
        assert launch(repository, "local_cluster", 1, f"--log-dir={tmp_path}", "--", "--end")[0] == 0
    assert (tmp_path / "host-0.log").read_text().count("told:") == 2


def test_one_that_fails_ends_all_and_its_status_is_the_launchers(repository, tmp_path):
    process = begin(repository, tmp_path, "--fail", tmp_path / "now", count=3)
    (tmp_path / "now").touch()
    _, errors = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 7
    assert "process 1 ended with status 7" in errors
    for index in (0, 2):
        assert "saved" in (tmp_path / f"host-{index}.log").read_text()


def test_those_that_do_not_end_are_killed_after_the_time_of_grace(repository, tmp_path):
    process = begin(repository, tmp_path, "--deaf", tmp_path / "now", options=("--grace=1",))
    (tmp_path / "now").touch()
    begun = time.monotonic()
    _, errors = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 7
    assert "still running after 1 s: killing processes 0" in errors
    assert time.monotonic() - begun > 1


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_reaches_all_and_waits_for_the_one_that_is_still_saving(repository, tmp_path, number):
    process = begin(repository, tmp_path)
    process.send_signal(number)
    _, errors = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 143, errors
    for index in (0, 1):  # process 0 takes longer
        assert "saved" in (tmp_path / f"host-{index}.log").read_text()
    assert "ending the others" not in errors


def test_a_reader_that_leaves_does_not_keep_a_signal_from_the_processes(repository, tmp_path):
    process = begin(repository, tmp_path)
    process.stdout.close()
    process.stderr.close()
    process.send_signal(signal.SIGHUP)
    assert process.wait(timeout=PATIENCE_S) == 143
    for index in (0, 1):
        assert "saved" in (tmp_path / f"host-{index}.log").read_text()


def test_a_process_that_is_killed_ends_the_others(repository, tmp_path):
    process = begin(repository, tmp_path, "--run")
    victim = re.search(r"^pid (\d+)$", (tmp_path / "host-1.log").read_text(), flags=re.MULTILINE).group(1)
    os.kill(int(victim), signal.SIGKILL)
    _, errors = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 128 + signal.SIGKILL, errors
    assert "process 1 ended with status 137" in errors


def test_a_second_signal_kills(repository, tmp_path):
    process = start(repository, "local_cluster", 1, f"--log-dir={tmp_path}", "--", "--deaf", "never")
    wait_for(tmp_path / "host-0.log", "ready")
    process.send_signal(signal.SIGTERM)
    time.sleep(0.3)
    assert process.poll() is None
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 128 + signal.SIGKILL


@pytest.mark.slow
def test_training_in_two_processes_stops_politely_and_goes_on(tmp_path):
    """Of training itself others know more; here signals reach both processes at once."""
    settings = {"ASCCL_TRAIN_PROGRAM": f"{sys.executable} -m tests.train.toy_training", "TOY_PAUSE_S": "0.05"}
    entries = {"checkpoint_every": 400, "evaluate_every": 400, "report_groups": 0, "compilation_cache_dir": ""}
    words = [2, f"--log-dir={tmp_path / 'logs'}", "--", f"--config={ROOT / 'configs/asccl.py'}:smoke"]
    words += [f"--workdir={tmp_path / 'run'}", *(f"--config.{name}={value}" for name, value in entries.items())]

    process = start(ROOT, "local_cluster", *words, "--config.steps=400", **settings)
    while process.poll() is None and len(read_metrics(tmp_path / "run/metrics.jsonl")) < 3:
        time.sleep(0.1)
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=600)
    assert process.returncode == 143, errors + (tmp_path / "logs/host-0.log").read_text()
    (stopped,) = re.findall(r"stopped by SIGTERM after step (\d+)", (tmp_path / "logs/host-0.log").read_text())

    more = f"--config.steps={int(stopped) + 1}"
    status, output, errors = launch(ROOT, "local_cluster", *words, more, timeout=600, **settings)
    assert status == 0, errors + output
    assert f"going on from checkpoint {stopped}" in output
    assert f"trained to step {int(stopped) + 1}" in output
    assert "Traceback" not in output
