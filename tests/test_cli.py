"""The `asccl` command: every tool is there, mistakes are one line."""

import subprocess
import sys
from pathlib import Path

import pytest

from asccl_jax.cli import COMMANDS, main

ROOT = Path(__file__).parents[1]


def test_help_names_every_command(capsys):
    assert main(["--help"]) == 0
    shown = capsys.readouterr().out
    assert all(name in shown and command.summary in shown for name, command in COMMANDS.items())


def test_an_unknown_command_is_one_line_and_status_2(capsys):
    assert main(["prepair"]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: unknown command 'prepair'")
    assert error.count("\n") == 1


def test_a_missing_optional_package_names_what_to_install():
    program = "import sys; sys.modules['av'] = None; from asccl_jax.cli import main; sys.exit(main(sys.argv[1:]))"
    result = subprocess.run(
        [sys.executable, "-c", program, "prepare", "--help"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 2
    assert "asccl-jax[prep]" in result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize(("outcome", "status"), [("1 / 0", 70), ("75", 75), ("0", 0)])
def test_train_ends_with_the_statuses_of_its_module(outcome, status):
    program = (
        "import sys; from asccl_jax import cli, main\n"
        f"main._train = lambda command: {outcome}\n"
        "sys.argv[1:] = ['train', '--config', 'configs/asccl.py:smoke']\nsys.exit(cli.main())"
    )
    result = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == status, result.stderr


@pytest.mark.slow
@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_explains_itself(name: str):
    result = subprocess.run(
        [sys.executable, "-m", "asccl_jax.cli", name, "--help"], capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout.lower().startswith("usage")
