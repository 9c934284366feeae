"""The checks themselves: they see a loss, an array, a file or an end that is not as it should be."""

import json
import os
import shutil
import subprocess
import sys
import time

import jax
import jax.numpy as jnp
import pytest

from asccl_jax.train.checkpoints.checkpoint import Checkpoints
from asccl_jax.types import TrainState
from tests.faults.checkpoints import newest_step
from tests.faults.fault import require_clear_stop, require_killed
from tests.faults.full_disk import _fill, small_disk
from tests.faults.preparation import digests
from tests.faults.processes import Attempt, End
from tests.faults.tolerance import differing_scalars
from tests.faults.training import TrainingRun
from tests.faults.trial import FaultError
from tests.launched import ROOT


def write_run(folder, *, loss=1.0, weight=1.0):
    """A run of two logged steps and a checkpoint, with nothing to train it on."""
    run = object.__new__(TrainingRun)
    run.workdir, run.steps = folder, 2
    folder.mkdir()
    lines = [{"step": 1, "loss": 2.0, "speed/x": 3.0}, {"step": 2, "loss": loss, "speed/x": 4.0}]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    state = TrainState(jnp.full((), 2, jnp.int32), {"w": jnp.full((2,), weight)}, {}, (), jax.random.key(0))
    checkpoints = Checkpoints(folder / "checkpoints", keep=2)
    checkpoints.save(2, state, data={}, config={}, progress={})
    checkpoints.close()
    return run


def test_equal_runs_pass_and_one_bit_of_a_loss_or_an_array_does_not(tmp_path):
    good = write_run(tmp_path / "good")
    write_run(tmp_path / "same").compare(good)
    with pytest.raises(FaultError, match=r"a line differs:\n.*1.0000000000000002"):
        write_run(tmp_path / "loss", loss=1 + 2**-52).compare(good)
    with pytest.raises(FaultError, match=r"checkpoint 2 differs from the undisturbed run's in params\.w"):
        write_run(tmp_path / "weight", weight=1 + 2**-23).compare(good)


def test_the_newest_checkpoint_is_the_last_complete_one(tmp_path):
    assert newest_step(tmp_path) == 0
    checkpoints = write_run(tmp_path / "run").workdir / "checkpoints"
    (checkpoints / "3.orbax-checkpoint-tmp").mkdir()
    assert newest_step(checkpoints) == 2


def test_scalars_of_another_number_of_processes_may_be_a_little_off_and_no_more():
    expected = [{"step": 1, "loss": 1.0, "eval/nce": 1.0, "eval/top1": 0.5}]
    near = [{"step": 1, "loss": 1.0005, "eval/nce": 1.004, "eval/top1": 0.51}]
    assert differing_scalars(near, expected) == []
    for name, value in {"loss": 1.005, "eval/nce": 1.02, "eval/top1": 0.6, "loss ": 1}.items():
        assert len(differing_scalars([{**near[0], name: value}], expected)) == 1


@pytest.mark.parametrize(
    ("status", "log"),
    [
        (0, "error: cannot write x\n"),
        (1, ""),
        (1, "error: cannot write x\nerror: and more\n"),
        (1, "error: something else\n"),
        (1, "Traceback (most recent call last):\nerror: cannot write x\n"),
    ],
    ids=["status", "no line", "two lines", "another line", "traceback"],
)
def test_an_end_is_clear_only_with_its_status_and_one_line_that_says_it(status, log):
    require_clear_stop(End(1, "12:00:00 step 3\nerror: cannot write x\n"), 1, "cannot write")
    with pytest.raises(FaultError):
        require_clear_stop(End(status, log), 1, "cannot write")


def test_only_sigkill_passes_for_sigkill():
    require_killed(End(-9, ""), processes=1)
    require_killed(End(137, ""), processes=2)
    for end, processes in ((End(0, ""), 1), (End(-15, ""), 1), (End(1, ""), 2)):
        with pytest.raises(FaultError):
            require_killed(end, processes=processes)


def test_every_byte_of_every_file_counts(tmp_path):
    (tmp_path / "a/b").mkdir(parents=True)
    (tmp_path / "a/b/c").write_text("1")
    before = digests(tmp_path)
    shutil.copytree(tmp_path / "a", tmp_path / "d")
    assert digests(tmp_path).keys() - before.keys() == {"d/b/c"}
    (tmp_path / "a/b/c").write_text("2")
    assert digests(tmp_path)["a/b/c"] != before["a/b/c"]


# A process whose child has a group of its own, as a supervised training has.
PARENT = """
import subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)", "a child"], process_group=0)
print(child.pid, flush=True)
time.sleep(600)
"""


def test_nothing_is_left_of_an_attempt_that_is_ended(tmp_path):
    attempt = Attempt([sys.executable, "-c", PARENT, "a parent"], tmp_path / "logs", environment=dict(os.environ))
    attempt.wait_until(lambda: attempt.log().strip(), "the child's number")
    child = int(attempt.log())
    attempt.wait_until(lambda: attempt.processes("a child") == [child], "the child")
    assert attempt.processes("a parent") == [attempt.number]
    attempt.end()
    assert attempt.processes("a child") == []
    with pytest.raises(FaultError, match=r"ended with status -9 before nothing"):
        attempt.wait_until(lambda: False, "nothing")


def test_a_small_disk_is_filled_to_the_spare_bytes_and_gone_afterwards(tmp_path):
    with small_disk(tmp_path / "disk") as mounted:
        if not mounted:
            pytest.skip("this process may not mount a file system")
        assert os.path.ismount(tmp_path / "disk")
        _fill(tmp_path / "disk/filling", spare=8192)
        free = os.statvfs(tmp_path / "disk")
        assert 4096 <= free.f_bavail * free.f_bsize <= 16384  # whole pages
        with pytest.raises(OSError, match="No space left"):
            (tmp_path / "disk/more").write_bytes(bytes(65536))
    assert not os.path.ismount(tmp_path / "disk")


@pytest.mark.parametrize(("process", "off_s"), [("0", 0), ("1", 3600)])
def test_a_clock_is_off_in_all_processes_but_the_first(process, off_s, tmp_path):
    (tmp_path / "clock.py").write_text("import sys, time; print(sys.argv[1], time.time(), time.time_ns())")
    command = [sys.executable, "-m", "tests.faults.skewed_clock", "3600", "clock", f"--process_id={process}"]
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}:{tmp_path}"}
    begin_s = time.time()
    result = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    word, seconds, nanoseconds = result.stdout.split()
    assert word == f"--process_id={process}"
    for told_s in (float(seconds), int(nanoseconds) / 1e9):
        assert off_s <= told_s - begin_s < off_s + 300
