"""Outputs that cannot be written are one line before any work; caches lie where they can be written."""

import errno
import os
import tempfile
from pathlib import Path

import pytest

from asccl_jax import cache_folder as caches
from asccl_jax.cache_folder import cache_folder
from asccl_jax.cli import main
from asccl_jax.errors import InputError
from asccl_jax.outputs import require_writable_file, require_writable_folder

COMMANDS = {
    "prepare": ["{there}", "--layout", "mead", "--output", "{out}/r"],
    "reconstruct": ["{there}", "--output", "{out}/r"],
    "synthesise": ["--preset", "smoke", "--output", "{out}/h"],
    "synthesise actors": ["--output", "{out}/h"],
    "synthesise tracks": ["--output", "{out}/t"],
    "import-tracks": ["{there}", "--output", "{out}/t"],
    "manipulate-coefficients": ["{there}", "--checkpoint", "{there}", "--emotion", "sad", "--output", "{out}/c"],
    "render": ["{there}", "--checkpoint", "{there}", "--output", "{out}/f"],
    "evaluate": ["--real", "{there}", "--fake", "{there}", "--report", "{out}/e"],
    "evaluate-renderer": ["--checkpoint", "{there}", "--records", "{there}", "--output", "{out}/e"],
    "evaluate-manipulator": ["--checkpoint", "{there}", "--tracks", "{there}", "--output", "{out}/e"],
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
