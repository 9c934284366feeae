"""Stages: done once, again from a changed setting on, gone on with after an interruption; failures in one line."""

import dataclasses
import io
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from asccl_jax.errors import InputError
from asccl_jax.work import file_facts
from data_prep.video import stage_runs
from data_prep.video.stage_runs import (
    ChildError,
    Stage,
    StageOutcome,
    Stopped,
    WorkFolder,
    ending_on_signals,
    outcome_table,
    run_child,
    run_stages,
)


def python(program, *words):
    return (sys.executable, "-I", "-c", program, *words)


APPEND = "import pathlib, sys; f = pathlib.Path(sys.argv[1]); f.write_text((f.read_text() if f.exists() else '') + 'x')"


def chain(folder, **depends):
    """Three stages, each of which adds an x to its own file."""
    settings = {"one": 0, "two": 0, "three": 0} | depends
    return [Stage(name, python(APPEND, str(folder / name)), folder / name, depend) for name, depend in settings.items()]


def run(work, stages, **options):
    with work.claimed() as held:
        return {outcome.name: outcome.skipped for outcome in run_stages(stages, work, held=[held], **options)}


@pytest.fixture
def work(tmp_path):
    return WorkFolder(tmp_path / "work")


def test_what_is_done_is_skipped_and_a_changed_setting_does_again_what_follows(work):
    assert run(work, chain(work.path)) == {"one": False, "two": False, "three": False}
    assert run(work, chain(work.path)) == {"one": True, "two": True, "three": True}
    assert run(work, chain(work.path, two=1)) == {"one": True, "two": False, "three": False}
    # Results of other settings were removed first: no file has two.
    assert [(work.path / name).read_text() for name in ("one", "two", "three")] == ["x", "x", "x"]
    (work.path / "three").unlink()
    assert run(work, chain(work.path, two=1)) == {"one": True, "two": True, "three": False}


def test_from_does_again_and_until_stops(work):
    assert run(work, chain(work.path), last="two") == {"one": False, "two": False}
    assert run(work, chain(work.path), first="two") == {"one": True, "two": False, "three": False}
    with pytest.raises(InputError, match="--from three: one, two not done"):
        run(work, chain(work.path, one=5), first="three")


def test_an_interrupted_stage_keeps_what_it_has_and_goes_on(work):
    fails = "import pathlib, sys; pathlib.Path(sys.argv[1]).write_text('half'); sys.exit(3)"
    stage = Stage("one", python(fails, str(work.path / "one")), work.path / "one", 0)
    with pytest.raises(ChildError):
        run(work, [stage])
    assert run(work, chain(work.path)[:1]) == {"one": False}
    assert (work.path / "one").read_text() == "halfx"


def test_outputs_elsewhere_are_never_removed(work, tmp_path):
    (tmp_path / "out").write_text("before ")
    stage = Stage("last", python(APPEND, str(tmp_path / "out")), tmp_path / "out", 0, inside=False)
    run(work, [stage])
    run(work, [dataclasses.replace(stage, depends=1)])
    assert (tmp_path / "out").read_text() == "before xx"


def test_a_failure_is_one_line_with_stage_reason_and_log(work):
    program = (
        "import sys; print('warning', file=sys.stderr); print('error: no such thing', file=sys.stderr); sys.exit(2)"
    )
    with pytest.raises(ChildError) as raised:
        run(work, [Stage("edit", python(program), work.path / "edited", 0)])
    assert str(raised.value) == f"stage edit: no such thing; log: {work.log('edit')}"
    assert raised.value.status == 2
    assert "warning\nerror: no such thing\n" in work.log("edit").read_text()


@pytest.mark.parametrize(
    ("program", "said"),
    [
        ("raise KeyError('depth')", "KeyError: 'depth' (exit status 1)"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", "ended by SIGKILL (out of memory?)"),
        ("import sys; sys.exit(4)", "no word (exit status 4)"),
    ],
)
def test_children_that_die_are_told_of(tmp_path, program, said):
    with pytest.raises(ChildError) as raised:
        run_child(python(program), tmp_path / "log")
    assert str(raised.value) == said


def test_progress_is_shown_and_only_its_end_is_logged_and_errors_are_left_to_the_caller(tmp_path):
    shown = io.BytesIO()
    program = (
        "import sys\n"
        "print('kept')\n"
        "sys.stderr.write('\\r 1/2\\r 2/2\\n')\n"
        "sys.stderr.write('error: ill\\n')\n"
        "sys.exit(2)"
    )
    with pytest.raises(ChildError, match="ill"):
        run_child(python(program), tmp_path / "log", shown=shown)
    assert shown.getvalue() == b"\r 1/2\r 2/2\n"
    log = (tmp_path / "log").read_text().splitlines()[-3:]
    assert sorted(log) == ["2/2", "error: ill", "kept"]


def test_a_child_sees_a_terminal_where_it_is_shown_on_one(tmp_path):
    ours, theirs = os.openpty()
    with os.fdopen(theirs, "wb", buffering=0) as terminal:
        run_child(python("import sys; sys.stderr.write(str(sys.stderr.isatty()))"), tmp_path / "log", shown=terminal)
        assert os.read(ours, 100) == b"True"
    os.close(ours)


def test_time_and_memory_are_those_of_the_child(tmp_path):
    small = run_child(python("pass"), tmp_path / "log")
    large = run_child(python("import time; b = bytearray(400 << 20); time.sleep(0.3)"), tmp_path / "log")
    assert large.seconds >= 0.3
    assert 380 < large.peak_mb < 600 or large.peak_mb == small.peak_mb  # a parent larger than that hides it


def test_two_runs_do_not_share_a_folder_and_a_child_left_behind_holds_it(work):
    with work.claimed(), pytest.raises(InputError, match="another run works there"), work.claimed():
        pass
    with work.claimed() as held:
        child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"], pass_fds=[held])
    with pytest.raises(InputError, match="another run works there"), work.claimed():
        pass
    child.kill()
    child.wait()
    with work.claimed():
        pass


def test_folders_with_other_files_are_refused(tmp_path):
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "a.jpg").touch()
    with pytest.raises(InputError, match=r"--work .*holds other files"):
        WorkFolder(tmp_path / "photos").check()
    with pytest.raises(InputError, match="is a file"):
        WorkFolder(tmp_path / "photos" / "a.jpg").check()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_child_and_its_children(tmp_path, number, monkeypatch):
    monkeypatch.setattr(stage_runs, "_PATIENCE_S", 5)
    pids = tmp_path / "pids"
    program = (
        "import os, pathlib, signal, subprocess, sys, time\n"
        "other = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'])\n"
        "pathlib.Path(sys.argv[1] + '_').write_text(f'{os.getpid()} {other.pid}')\n"
        "os.rename(sys.argv[1] + '_', sys.argv[1])\n"
        f"os.kill({os.getpid()}, {int(number)})\n"
        "time.sleep(600)\n"
    )
    started = time.monotonic()
    with pytest.raises(Stopped) as raised, ending_on_signals():
        run_child(python(program, str(pids)), tmp_path / "log")
    assert raised.value.number == number
    assert time.monotonic() - started < 300
    for pid in map(int, pids.read_text().split()):
        for _ in range(3000):
            if not running(pid):
                break
            time.sleep(0.02)
        assert not running(pid)


def running(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().split()[2] != "Z"  # nobody may be there to reap it
    except FileNotFoundError:
        return False


def test_facts_change_with_any_file_below(tmp_path):
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "a" / "b" / "weights").write_text("1")
    before = file_facts(tmp_path / "a", None)
    assert file_facts(tmp_path / "a", None) == before
    (tmp_path / "a" / "b" / "weights").write_text("12")
    assert file_facts(tmp_path / "a", None) != before
    json.dumps(before)


def test_the_table_says_what_was_done_before():
    table = outcome_table([StageOutcome("edit", 2.0, 300.0, False), StageOutcome("render", 60.0, 500.0, True)])
    assert [line.split() for line in table.splitlines()][1:] == [
        ["edit", "2.0", "s", "300", "MB"],
        ["render", "60.0", "s", "500", "MB", "(done", "before)"],
        ["all", "62.0", "s", "500", "MB"],
    ]
