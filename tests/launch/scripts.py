"""Launch scripts in a folder of their own, with stand-ins for training and for the tools of clusters."""

import contextlib
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

ROOT = Path(__file__).parents[2]
PATIENCE_S = 300
"""Seconds after which a script that does not do what it should is given up: many times what a busy machine needs."""

LAUNCHERS = ("kubernetes", "local_cluster", "multi_gpu", "slurm", "tpu_vm")
CODE = ("asccl_jax", "configs", "data_prep", "DECA_torch_bridge", "LICENSE", "README.md", "pyproject.toml")
TOOLS = (
    "basename",
    "bash",
    "cat",
    "cp",
    "date",
    "dirname",
    "env",
    "grep",
    "gzip",
    "hostname",
    "ln",
    "mkdir",
    "mv",
    "rm",
)
TOOLS += ("sed", "setsid", "sleep", "tail", "tar", "tee", "touch")

# In place of training: what it does is its first flag, and what it was told goes to its log.
TRAINING = """
printf 'told:'; printf ' <%s>' "$@"; echo
echo "platform: ${JAX_PLATFORMS:-none}"
id=0
for word in "$@"; do case "$word" in --process_id=*) id="${word#*=}" ;; esac; done
trap 'echo saving; sleep "0.$((5 * (1 - id)))"; echo saved; exit 143' TERM
case "$1" in
  --end) echo done; exit 0 ;;
  --fail) echo ready; until [ "$id" = 1 ] && [ -e "$2" ]; do sleep 0.05; done; exit 7 ;;
  --deaf) trap '' TERM; echo ready; until [ "$id" = 1 ] && [ -e "$2" ]; do sleep 0.05; done; exit 7 ;;
  --status=*) exit "${1#*=}" ;;
  *) echo "pid $$"; echo ready; while :; do sleep 0.05; done ;;
esac
"""


def checkout(directory):
    """Makes a repository that has the launch scripts and little else; returns it."""
    shutil.copytree(ROOT / "launch", directory / "launch", ignore=shutil.ignore_patterns("*.png"))
    for name in CODE:
        if "." in name or name.isupper():
            (directory / name).write_text(name)
        else:
            (directory / name).mkdir()
            (directory / name / "module.py").write_text("")
    write_program(directory / "training.sh", TRAINING)
    return directory


def write_program(path, text):
    # "x" makes a new file: text never goes through a link to a tool of the machine.
    with path.open("x") as file:
        file.write(f"#!/usr/bin/env bash\n{text}")
    path.chmod(0o755)
    return path


def tools(directory, **programs):
    """Makes a folder with the usual tools and some stand-ins, to be the whole PATH."""
    directory.mkdir()
    for name in set(TOOLS) - set(programs):
        (directory / name).symlink_to(shutil.which(name))
    for name, text in programs.items():
        write_program(directory / name, text)
    return directory


def environment(repository, *, path=None, **more):
    kept = {name: value for name, value in os.environ.items() if name not in ("LOGDIR", "JAX_PLATFORMS", "XLA_FLAGS")}
    kept["ASCCL_TRAIN_PROGRAM"] = f"bash {repository / 'training.sh'}"
    if path is not None:
        kept["PATH"] = str(path)
    return {**kept, **more}


def start(repository, script, *words, **settings):
    # Bash cannot trap what was ignored when it began, as SIGHUP is under `nohup`; a handler is not handed down.
    before = signal.signal(signal.SIGHUP, lambda *_: None)
    try:
        return subprocess.Popen(
            [shutil.which("bash"), f"launch/{script}.sh", *map(str, words)],
            cwd=repository,
            env=environment(repository, **settings),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
    finally:
        signal.signal(signal.SIGHUP, before)


def launch(repository, script, *words, timeout=PATIENCE_S, **settings):
    """Returns exit status, stdout and stderr of a launcher."""
    process = start(repository, script, *words, **settings)
    try:
        output, errors = process.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        output, errors = process.communicate()
        raise AssertionError(f"{script} did not end:\n{output}\n{errors}") from None
    assert ended(process.pid), f"{script} left processes behind"
    return process.returncode, output, errors


def ended(group, *, seconds=60):
    """Whether all processes of a group end; what does not is killed."""
    deadline = time.monotonic() + seconds
    with contextlib.suppress(ProcessLookupError):
        while time.monotonic() < deadline:
            os.killpg(group, 0)
            time.sleep(0.02)
        os.killpg(group, signal.SIGKILL)
        return False
    return True


def wait_for(path, text, *, seconds=PATIENCE_S):
    deadline = time.monotonic() + seconds
    while text not in (path.read_text() if path.exists() else ""):
        assert time.monotonic() < deadline, f"{path} has no {text!r}: {path.read_text() if path.exists() else 'absent'}"
        time.sleep(0.02)
