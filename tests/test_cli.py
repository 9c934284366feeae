"""The `asccl` command: every tool is there, mistakes are one line."""

import subprocess
import sys

import pytest

from asccl_jax.cli import COMMANDS, main


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


@pytest.mark.slow
@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_explains_itself(name: str):
    result = subprocess.run(
        [sys.executable, "-m", "asccl_jax.cli", name, "--help"], capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout.lower().startswith("usage")
