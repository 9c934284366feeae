"""The `asccl` command and what the package offers: every tool is there, old names work, mistakes are one line."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

import asccl_jax
from asccl_jax.cli import COMMANDS, GROUPS, main

ROOT = Path(__file__).parents[1]
PACKAGES = ("asccl_jax", "data_prep", "DECA_torch_bridge", "configs")
EVERYDAY = ["manipulate", "prepare", "train", "evaluate", "convert", "bench"]
RENAMED = {
    "synthesise": "data synthesise",
    "inspect": "data inspect",
    "reconstruct": "data reconstruct",
    "import-tracks": "data import-tracks",
    "edit-conditioning": "data edit-conditioning",
    "compose": "video compose",
    "train-renderer": "video train-renderer",
    "manipulate-coefficients": "video manipulate-coefficients",
    "render": "video render",
    "evaluate-metric": "eval metric",
    "evaluate-manipulator": "eval manipulator",
    "evaluate-renderer": "eval renderer",
    "checkpoint ls": "weights ls",
    "checkpoint show": "weights show",
    "checkpoint export": "weights export",
    "assets check": "head check",
    "assets write-builtin": "head write-builtin",
    "assets export": "head export",
}


@pytest.fixture
def installed(monkeypatch):
    """The process is the script `asccl` of an installation, not a module that was run."""
    monkeypatch.setattr(sys, "argv", ["/usr/bin/asccl"])
    monkeypatch.setattr(sys.modules["__main__"], "__spec__", None)


def explained(capsys, *words):
    """What a command shows when it is asked for help: on stdout, and on stderr."""
    with pytest.raises(SystemExit) as end:
        main([*words, "--help"])
    assert end.value.code == 0
    return capsys.readouterr()


def test_help_names_everyday_commands_first_then_the_groups(capsys, installed):
    assert main(["--help"]) == 0
    shown = capsys.readouterr().out
    assert shown.startswith("usage: asccl COMMAND")
    assert re.findall(r"^  ([a-z-]+)  ", shown, flags=re.MULTILINE) == [*EVERYDAY, *GROUPS]
    assert all(command.summary in shown for command in COMMANDS.values() if command.everyday)
    assert max(map(len, shown.splitlines())) <= 120
    assert main([]) == 0 and capsys.readouterr().out == shown


@pytest.mark.parametrize("group", GROUPS)
def test_help_of_a_group_names_its_commands(group, capsys, installed):
    assert main([group, "--help"]) == 0
    shown = capsys.readouterr().out
    assert shown.startswith(f"usage: asccl {group} COMMAND")
    lines = {line.split()[0]: line for line in shown.splitlines() if line.startswith("  ")}
    commands = {name.split()[1]: command for name, command in COMMANDS.items() if name.split()[0] == group}
    assert list(lines) == list(commands)
    assert all(command.summary in lines[verb] for verb, command in commands.items())
    assert main([group]) == 0 and capsys.readouterr().out == shown


def test_every_command_but_two_has_one_place_in_a_group():
    assert {name for name in COMMANDS if name.split()[0] not in GROUPS} == {"train", "bench"}
    assert {command.old: name for name, command in COMMANDS.items() if command.old} == RENAMED
    assert [command.everyday for command in COMMANDS.values() if command.everyday] == EVERYDAY


@pytest.mark.parametrize("words", ["prepair", "data prepair", "weights --json", "assets-check"])
def test_an_unknown_command_is_one_line_and_status_2(words, capsys):
    assert main(words.split()) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"error: unknown command {words!r}: expected one of ")
    assert error.count("\n") == 1


@pytest.mark.parametrize("old", ["inspect", "evaluate-metric", "checkpoint ls", "render"])
def test_an_old_name_works_and_one_line_names_the_new_one(old, capsys, installed):
    new = explained(capsys, *RENAMED[old].split())
    assert new.out.startswith(f"usage: asccl {RENAMED[old]} [-h]") and new.err == ""
    was = explained(capsys, *old.split())
    assert was.out.startswith(f"usage: asccl {old} [-h]")
    assert was.out.split("options:")[1] == new.out.split("options:")[1]
    assert was.err.startswith(f"asccl {old.split()[0]} is now asccl {RENAMED[old]};") and was.err.count("\n") == 1


def test_a_command_under_its_old_name_takes_words_and_ends_as_before(tmp_path, capsys, installed):
    shown = []
    for words in (["checkpoint", "ls"], ["weights", "ls"], ["inspect"], ["data", "inspect"]):
        assert main([*words, str(tmp_path / "none")]) == 2
        shown.append(capsys.readouterr().err.splitlines())
    old, new, old_data, new_data = shown
    assert new == old[1:] and new_data == old_data[1:] and new[0].startswith("error: ")
    with pytest.raises(SystemExit) as end:
        main(["checkpoint"])
    assert end.value.code == 2
    note, usage, _ = capsys.readouterr().err.splitlines()
    assert note.startswith("asccl checkpoint is now asccl weights;") and usage.startswith(
        "usage: asccl checkpoint [-h]"
    )


def test_texts_and_scripts_call_commands_by_their_present_names():
    places = [ROOT / "README.md", *(ROOT / "docs").glob("*.md"), ROOT / ".ci" / "run", *(ROOT / "launch").glob("*.*")]
    places += [path for name in PACKAGES for path in (ROOT / name).rglob("*.py")]
    old = re.compile(rf"\basccl ({'|'.join(name.split()[0] for name in RENAMED)})(?![\w-])")
    texts = {path: path.read_text() for path in places if path.suffix != ".png"}
    assert not {f"{path}: {found[0]}" for path, text in texts.items() for found in old.finditer(text)}
    assert old.search("asccl render x") and not old.search("asccl renderer")


def test_everyday_names_are_not_old(capsys, installed):
    assert main(["train", "--help"]) == 0
    shown = capsys.readouterr()
    assert shown.out.startswith("usage: asccl train --config ") and shown.err == ""
    assert explained(capsys, "bench").out.startswith("usage: asccl bench [-h]")


@pytest.mark.parametrize(
    ("module", "typed"),
    [
        (["asccl_jax.data"], "python -m asccl_jax.data"),
        (["asccl_jax.cli", "eval", "metric"], "python -m asccl_jax.cli eval metric"),
    ],
)
def test_a_module_that_is_run_shows_itself(module, typed):
    words = [sys.executable, "-m", *module, "--help"]
    result = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=True)
    assert " ".join(result.stdout.split()).startswith(f"usage: {typed} [-h]")


def test_a_missing_optional_package_names_what_to_install():
    program = "import sys; sys.modules['av'] = None; from asccl_jax.cli import main; sys.exit(main(sys.argv[1:]))"
    result = subprocess.run(
        [sys.executable, "-c", program, "prepare", "--help"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 2
    assert "asccl prepare needs the Python package 'av'" in result.stderr
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


def test_the_package_offers_what_users_need_and_imports_jax_when_it_is_asked_for():
    program = (
        "import sys, asccl_jax\n"
        "assert not {'jax', 'jaxlib', 'flax', 'numpy'} & set(sys.modules), 'imported at once'\n"
        "assert set(asccl_jax.__all__) <= set(dir(asccl_jax)) and asccl_jax.__version__\n"
        "assert not {'jax', 'flax'} & set(sys.modules), 'imported by dir()'\n"
        "from asccl_jax import *\n"
        "assert 'jax' in sys.modules\n"
        "print(asccl_loss.__module__, load_metric.__name__, load_manipulator.__name__, load_renderer.__name__)\n"
    )
    result = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert result.stdout == "asccl_jax.losses.supervision load_metric load_manipulator load_renderer\n"


def test_the_package_has_nothing_that_it_does_not_offer():
    with pytest.raises(AttributeError, match="module 'asccl_jax' has no attribute 'load_metrics'"):
        _ = asccl_jax.load_metrics


@pytest.mark.slow
@pytest.mark.parametrize("name", [*COMMANDS, *EVERYDAY])
def test_every_command_explains_itself(name: str):
    result = subprocess.run(
        [sys.executable, "-m", "asccl_jax.cli", *name.split(), "--help"], capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
    assert "is now" not in result.stderr
    assert " ".join(result.stdout.split()).startswith(f"usage: python -m asccl_jax.cli {name} ")
