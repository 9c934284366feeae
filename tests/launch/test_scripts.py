"""Every launcher explains itself, says what it would do, refuses nonsense, and names a tool that is missing."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from tests.launch.scripts import LAUNCHERS, ROOT, checkout, launch, tools

NAMES = {"kubernetes": ("run", "--image=i"), "local_cluster": ("2",), "tpu_vm": ("pod", "--zone=z")}
FLAGS = ("--config", "configs/asccl.py:demo", "--config.model.stage_widths=(8, 16)", '--workdir=it\'s $HOME & "more"')


@pytest.fixture(scope="module")
def repository(tmp_path_factory):
    return checkout(tmp_path_factory.mktemp("repository"))


@pytest.mark.parametrize("script", [*LAUNCHERS, "on_tpu_worker"])
def test_help_tells_usage_and_options(repository, script):
    status, output, errors = launch(repository, script, "--help")
    assert (status, errors) == (0, "")
    assert f"Usage: bash launch/{script}.sh" in output
    assert "#" not in output
    assert "Exit status" in output or script == "on_tpu_worker"
    assert "Example" in output or script == "on_tpu_worker"
    choices = (ROOT / f"launch/{script}.sh").read_text().partition('case "$1" in')[2].partition("esac")[0]
    for line in choices.splitlines():
        for option in re.findall(r"(?<=[ ])--[a-z-]{3,}(?= \||\)| \\)", line if line.lstrip().startswith("--") else ""):
            assert option == "--help" or option in output, f"{script} --help does not know {option}"


@pytest.mark.parametrize("script", LAUNCHERS)
def test_dry_run_prints_the_flags_as_they_are_and_does_nothing(repository, script, tmp_path):
    before = sorted(repository.rglob("*"))
    no_tools = tools(tmp_path / "bin")
    words = (*NAMES.get(script, ()), "--dry-run", "--log-dir", tmp_path / "logs", "--", *FLAGS)
    status, output, errors = launch(repository, script, *words, path=no_tools)
    assert (status, errors) == (0, "")
    assert sorted(repository.rglob("*")) == before
    assert not (tmp_path / "logs").exists()
    assert "training.sh" in output or script == "tpu_vm"
    if script == "kubernetes":
        return  # its flags are YAML, below
    lines = [line for line in output.splitlines() if "configs/asccl.py:demo" in line]
    for line in lines:
        found = shlex.split(line, comments=True)
        if script == "tpu_vm":
            found = shlex.split(found[found.index("--command") + 1])
        first = found.index("--config")
        assert tuple(found[first : first + len(FLAGS)]) == FLAGS
        assert script == "multi_gpu" or "--multihost" in found
    assert len(lines) == (2 if script == "local_cluster" else 1)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("local_cluster", "how many processes"),
        ("local_cluster none", "N none: expected a whole number above 0"),
        ("local_cluster 0", "N 0"),
        ("local_cluster 2 3", "unexpected word 3"),
        ("local_cluster 2 --config=x", "unknown option --config; see --help (flags of the training go after --)"),
        ("local_cluster 2 --devices", "--devices needs a value"),
        ("local_cluster 2 --devices --dry-run", "--devices needs a value"),
        ("local_cluster 2 --grace=soon", "--grace soon"),
        ("multi_gpu --gpus=first", "--gpus first: expected numbers with commas"),
        ("multi_gpu 8", "unknown option 8"),
        ("slurm --nodes=0", "--nodes 0"),
        ("slurm --gpus-per-node=-1", "--gpus-per-node -1"),
        ("slurm --time=long", "--time long"),
        ("slurm --sbatch", "--sbatch needs an option|--sbatch : expected an option"),
        ("slurm --sbatch gpu", "--sbatch gpu: expected an option"),
        ("slurm --name=My_Job", "--name My_Job"),
        ("slurm --log-dir=/a%b", "--log-dir /a%b"),
        ("kubernetes", "what to call it"),
        ("kubernetes run", "--image is missing"),
        ("kubernetes Run --image=i", "NAME Run: expected at most 40 lower-case"),
        ("kubernetes run --image=a;b", "--image a;b"),
        ("kubernetes run --image=i --tpu=tpu-v5p-slice", "needs --topology"),
        ("kubernetes run --image=i --topology=4x4", "give --tpu"),
        ("kubernetes run --image=i --tpu=tpu-v5p-slice --topology=4by4", "--topology 4by4"),
        ("kubernetes run --image=i --tpu=tpu-v5p-slice --topology=3x3", "has 9 chips: not a multiple of 4"),
        ("kubernetes run --image=i --tpu=tpu-v5p-slice --topology=4x4 --hosts=2", "a TPU's hosts follow"),
        ("tpu_vm --zone=z", "which TPU"),
        ("tpu_vm pod", "--zone is missing"),
        ("tpu_vm pod --zone=z --create=v9-8", "give --runtime VERSION too"),
        ("on_tpu_worker dance", "expected setup, train or stop"),
    ],
)
def test_bad_arguments_are_one_clear_line_and_status_2(repository, line, message):
    script, *words = line.split()
    status, output, errors = launch(repository, script, *words)
    assert (status, output) == (2, "")
    assert len(errors.splitlines()) == 1
    assert errors.startswith("error: ")
    assert any(part in errors for part in message.split("|")), errors


@pytest.mark.parametrize(
    ("script", "tool"),
    [("kubernetes", "kubectl"), ("multi_gpu", "nvidia-smi"), ("slurm", "sbatch"), ("tpu_vm", "gcloud")],
)
def test_a_missing_tool_is_named_with_what_to_do(repository, script, tool, tmp_path):
    status, output, errors = launch(repository, script, *NAMES.get(script, ()), path=tools(tmp_path / "bin"))
    assert (status, output) == (2, "")
    assert errors.startswith(f"error: {tool} is not installed or not in PATH: ")
    assert len(errors.splitlines()) == 1


@pytest.mark.parametrize("script", ["kubernetes", "local_cluster", "multi_gpu", "on_tpu_worker", "slurm", "tpu_vm"])
def test_scripts_stop_at_the_first_error(script):
    lines = (ROOT / f"launch/{script}.sh").read_text().splitlines()
    code = [line for line in lines if line and not line.startswith("#")]
    assert code[0] == "set -euo pipefail"


@pytest.mark.slow
def test_shellcheck_has_nothing_to_say():
    scripts = sorted(map(str, (ROOT / "launch").glob("*.sh")))
    # The package of the development extra puts the program beside the interpreter.
    program = Path(sys.executable).with_name("shellcheck")
    result = subprocess.run([program, *scripts], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout
