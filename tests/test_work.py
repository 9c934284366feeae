"""A folder that is filled bit by bit: seen whole or not at all, gone on with under the same settings only."""

import contextlib
import errno
import importlib
import os
import subprocess
import sys
import tempfile
import textwrap
from pathlib import Path

import pytest

from asccl_jax import paths as caches
from asccl_jax import work as module
from asccl_jax.cli import main
from asccl_jax.errors import InputError
from asccl_jax.paths import cache_folder
from asccl_jax.weights import WeightsFormat, save_weights
from asccl_jax.work import (
    file_facts,
    growing_folder,
    is_made,
    making,
    require_writable_file,
    require_writable_folder,
    sole_writer,
)


def fill(path, settings, *, fails=False, name="b"):
    with growing_folder(path, settings) as folder:
        found = sorted(file.name for file in folder.iterdir() if not file.name.startswith("."))
        (folder / name).write_text(name)
        if fails:
            raise KeyboardInterrupt
    return found


def test_what_was_interrupted_is_kept_for_the_same_settings_and_shown_when_whole(tmp_path):
    path = tmp_path / "faces"
    with pytest.raises(KeyboardInterrupt):
        fill(path, {"clip": 1}, fails=True, name="a")
    assert not path.exists()
    assert fill(path, {"clip": 1}) == ["a"]
    assert sorted(file.name for file in path.iterdir()) == ["a", "b"]
    assert sorted(file.name for file in tmp_path.iterdir()) == [".faces.made", "faces"]


def test_other_settings_begin_with_an_empty_folder_and_replace_a_finished_one(tmp_path):
    path = tmp_path / "faces"
    fill(path, {"clip": 1}, name="old")
    with pytest.raises(KeyboardInterrupt):
        fill(path, {"clip": 1}, fails=True, name="a")
    assert [file.name for file in path.iterdir()] == ["old"]
    assert fill(path, {"clip": 2}) == []
    assert [file.name for file in path.iterdir()] == ["b"]


def test_a_result_is_made_with_these_settings_and_no_others(tmp_path):
    path = tmp_path / "faces"
    assert not is_made(path, {"clip": 1})
    fill(path, {"clip": 1, "weights": [2, 3]})
    assert is_made(path, {"weights": [2, 3], "clip": 1}) and not is_made(path, {"clip": 1})
    fill(path, {"clip": 2})
    assert is_made(path, {"clip": 2}) and not is_made(path, {"clip": 1, "weights": [2, 3]})
    path.rename(tmp_path / "other")
    assert not is_made(path, {"clip": 2}) and not is_made(tmp_path / "other", {"clip": 2})


def test_a_result_whose_making_was_interrupted_is_not_made(tmp_path):
    path = tmp_path / "codes.npz"
    with making(path, {"clip": 1}):
        path.write_text("one")
    assert is_made(path, {"clip": 1})
    with pytest.raises(KeyboardInterrupt), making(path, {"clip": 2}):
        path.write_text("two")
        raise KeyboardInterrupt
    assert not is_made(path, {"clip": 1}) and not is_made(path, {"clip": 2})


@pytest.mark.parametrize(
    "change",
    [
        lambda folder: (folder / "deep" / "er" / "a").write_text("longer"),
        lambda folder: os.utime(folder / "deep" / "er" / "a", ns=(1, 1)),
        lambda folder: (folder / "b").write_text(""),
        lambda folder: (folder / "deep" / "er" / "a").rename(folder / "deep" / "a"),
        lambda folder: (folder / "deep" / "er" / "a").unlink(),
    ],
)
def test_facts_of_a_folder_are_of_all_that_lies_in_it_however_deep(tmp_path, change):
    (tmp_path / "deep" / "er").mkdir(parents=True)
    (tmp_path / "deep" / "er" / "a").write_text("short")
    before = file_facts(tmp_path, None)
    assert file_facts(tmp_path, None) == before
    change(tmp_path)
    assert file_facts(tmp_path, None) != before


HOLD = """
import sys, time, os
from pathlib import Path
from asccl_jax.work import sole_writer
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
        "import-tracks": ("data_prep.head_fit.import_tracks", [none, "--output", str(output)]),
        "assets": ("data_prep.head_fit.assets_check", ["write-builtin", str(output)]),
        "edit-conditioning": (
            "data_prep.reconstruct.edit_command",
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
            "data_prep.evaluate.evaluate_command",
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


COMMANDS = {
    "prepare": ["{there}", "--layout", "mead", "--output", "{out}/r"],
    "data reconstruct": ["{there}", "--output", "{out}/r"],
    "data synthesise": ["--preset", "smoke", "--output", "{out}/h"],
    "data synthesise actors": ["--output", "{out}/h"],
    "data synthesise tracks": ["--output", "{out}/t"],
    "data import-tracks": ["{there}", "--output", "{out}/t"],
    "video manipulate-coefficients": ["{there}", "--checkpoint", "{there}", "--emotion", "sad", "--output", "{out}/c"],
    "video render": ["{there}", "--checkpoint", "{there}", "--output", "{out}/f"],
    "evaluate": ["--real", "{there}", "--fake", "{there}", "--report", "{out}/e"],
    "eval renderer": ["--checkpoint", "{there}", "--records", "{there}", "--output", "{out}/e"],
    "eval manipulator": ["--checkpoint", "{there}", "--tracks", "{there}", "--output", "{out}/e"],
    "convert metric": ["{there}/a.pth", "{out}/m"],
}


@pytest.fixture
def read_only(monkeypatch, tmp_path):
    """A folder in which the system lets nobody write, for the superuser as well."""
    folder = tmp_path / "ro"
    folder.mkdir()
    probe = tempfile.TemporaryFile

    def refuse(*words, dir=None, **options):
        if dir is not None and Path(dir).is_relative_to(folder):
            raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(dir))
        return probe(*words, dir=dir, **options)

    monkeypatch.setattr(tempfile, "TemporaryFile", refuse)
    return folder


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_says_in_one_line_that_its_output_cannot_be_written(command, read_only, tmp_path, capsys):
    words = [word.format(there=tmp_path, out=read_only) for word in COMMANDS[command]]
    assert main([*command.split(), *words]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and str(read_only) in error
    assert "cannot be written (Read-only file system)" in error


def test_files_and_folders_are_not_taken_for_each_other(tmp_path):
    (tmp_path / "file").touch()
    require_writable_folder(tmp_path / "new" / "deep")
    require_writable_file(tmp_path / "new" / "out.mp4")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
    for check, path, reason in (
        (require_writable_folder, "file", "is a file, expected a folder"),
        (require_writable_folder, "file/in", "Not a directory"),
        (require_writable_file, "", "is a folder, expected the name of a file"),
        (require_writable_file, "x" * 300, "File name too long"),
    ):
        with pytest.raises(InputError, match=f"^-o .*{reason}"):
            check(tmp_path / path, "-o")


def test_caches_of_a_user_without_a_home_lie_in_a_folder_that_is_only_theirs(monkeypatch, tmp_path):
    def homeless():
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(Path, "home", homeless)
    monkeypatch.setattr(tempfile, "gettempdir", lambda: str(tmp_path))
    assert cache_folder() == tmp_path / f"asccl-jax-{os.getuid()}"
    (tmp_path / f"asccl-jax-{os.getuid()}").chmod(0o777)
    assert cache_folder() is None  # others may have put something there
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "mine"))
    assert cache_folder() == tmp_path / "mine" / "asccl-jax"
    monkeypatch.setattr(caches, "_made", lambda path: None)
    assert cache_folder() is None
