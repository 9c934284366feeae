"""One run at a time writes in a folder, and a killed one keeps nobody out."""

import contextlib
import importlib
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from asccl_jax.data import sole_writer as module
from asccl_jax.data.sole_writer import sole_writer
from asccl_jax.errors import InputError
from asccl_jax.saved_weights import WeightsFormat, save_weights

HOLD = """
import sys, time, os
from pathlib import Path
from asccl_jax.data.sole_writer import sole_writer
with sole_writer(Path(sys.argv[1]), "--output", shared="shared" in sys.argv):
    {work}
    print("held", flush=True)
    sys.stdin.read()
"""


@contextlib.contextmanager
def holder(folder, *words, work="pass"):
    """Another run that holds a folder until the block ends."""
    program = textwrap.dedent(HOLD.format(work=work))
    command = [sys.executable, "-c", program, str(folder), *words]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "held\n"
        try:
            yield process
        finally:
            process.kill()


def refused(folder):
    return pytest.raises(InputError, match=f"--output {folder}: another run works there; wait for it, or end it")


def test_a_second_run_is_told_and_a_killed_one_keeps_nobody_out(tmp_path):
    with holder(tmp_path) as process:
        with refused(tmp_path), sole_writer(tmp_path, "--output"):
            pass
        process.kill()
        process.wait()
        with sole_writer(tmp_path, "--output"):
            pass
    assert not list(tmp_path.iterdir())


def test_runs_that_share_a_folder_keep_out_who_wants_it_alone(tmp_path):
    with holder(tmp_path, "shared"):
        with sole_writer(tmp_path, "--output", shared=True):
            pass
        with refused(tmp_path), sole_writer(tmp_path, "--output"):
            pass


def test_a_worker_that_outlives_its_killed_run_does_not_hold_the_folder(tmp_path):
    # Killed only once the worker runs: until then it may not have let go of what it was forked with.
    work = """r, w = os.pipe()
    child = os.fork()
    if not child: os.write(w, b"."); time.sleep(60); os._exit(0)
    os.read(r, 1)
    print(child, flush=True)"""
    program = textwrap.dedent(HOLD.format(work=work))
    with subprocess.Popen(
        [sys.executable, "-c", program, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        worker = int(process.stdout.readline())
        assert process.stdout.readline() == "held\n"
        process.kill()
        process.wait()
        try:
            os.kill(worker, 0)  # still there
            with sole_writer(tmp_path, "--output"):
                pass
        finally:
            os.kill(worker, 9)


def test_a_child_that_is_handed_the_descriptor_holds_it_too(tmp_path):
    with sole_writer(tmp_path, "--output") as held:
        child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"], pass_fds=[held])
    try:
        with refused(tmp_path), sole_writer(tmp_path, "--output"):
            pass
    finally:
        child.kill()
        child.wait()


def test_a_folder_made_for_nothing_goes_again_and_a_file_is_none(tmp_path):
    with pytest.raises(ZeroDivisionError), sole_writer(tmp_path / "a" / "b", "--output"):
        assert (tmp_path / "a" / "b").is_dir()
        _ = 1 / 0
    assert not (tmp_path / "a" / "b").exists()
    with sole_writer(tmp_path / "kept", "--output"):
        (tmp_path / "kept" / "file").touch()
    assert (tmp_path / "kept" / "file").is_file()
    with pytest.raises(InputError, match="is a file, expected a folder"), sole_writer(tmp_path / "kept/file", "-o"):
        pass


def test_where_the_file_system_knows_no_holds_any_run_may_write(tmp_path, monkeypatch):
    def refuse(descriptor, how):
        raise OSError(9, "Bad file descriptor")

    monkeypatch.setattr(module.fcntl, "flock", refuse)
    with sole_writer(tmp_path, "--output"):
        pass


def test_two_saves_of_one_network_do_not_mix(tmp_path):
    layout = WeightsFormat("metric", 1, saver="save_metric")
    with holder(tmp_path / ".net.unfinished"), pytest.raises(InputError, match="another run works there"):
        save_weights(tmp_path / "net", layout, variables={}, settings={})


def _commands(output):
    """Commands that write a folder, with as little else as gets them there, and the option that names it."""
    none = str(output / "nothing")
    return {
        "prepare": ("data_prep.__main__", [none, "--layout", "mead", "--output", str(output)]),
        "synthesise": ("data_prep.synthetic.__main__", ["--preset", "smoke", "--output", str(output)]),
        "synthesise actors": ("data_prep.synthetic.__main__", ["actors", "--output", str(output)]),
        "synthesise tracks": ("data_prep.synthetic.__main__", ["tracks", "--output", str(output)]),
        "synthesise comparisons": ("data_prep.synthetic.__main__", ["comparisons", "--records", str(output)]),
        "import-tracks": ("DECA_torch_bridge.import_tracks", [none, "--output", str(output)]),
        "assets": ("DECA_torch_bridge.assets_check", ["write-builtin", str(output)]),
        "edit-conditioning": (
            "DECA_torch_bridge.edit_command",
            [none, "--twins", "--output", str(output)],
        ),
        "render": ("asccl_jax.infer.render_command", [none, "--checkpoint", none, "--output", str(output)]),
        "evaluate-metric": (
            "asccl_jax.evals.evaluate_metric",
            ["--checkpoint", none, "--records", none, "--output", str(output)],
        ),
        "evaluate-manipulator": (
            "asccl_jax.evals.evaluate_manipulator",
            ["--checkpoint", none, "--tracks", none, "--output", str(output)],
        ),
        "evaluate-renderer": (
            "asccl_jax.evals.evaluate_renderer",
            ["--checkpoint", none, "--records", none, "--output", str(output)],
        ),
        "evaluate": (
            "data_prep.evaluate.command",
            ["--real", none, "--fake", none, "--report", str(output)],
        ),
    }


@pytest.mark.parametrize("command", _commands(Path()))
def test_every_command_that_writes_a_folder_says_that_another_run_works_there(command, tmp_path, capsys):
    # In this very process: the system tells holders apart by how they opened the folder.
    name, words = _commands(tmp_path)[command]
    with sole_writer(tmp_path, "--output"):
        assert importlib.import_module(name).main(words) == 2
    assert f"{tmp_path}: another run works there; wait for it, or end it" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
