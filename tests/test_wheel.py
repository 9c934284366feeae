"""What a wheel holds: recipes, templates, marks; recipes are found where there is no checkout."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from asccl_jax.paths import find_recipe

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("asccl_jax", "data_prep", "DECA_torch_bridge", "configs")
RECIPES = ("asccl", "manipulator", "renderer")

PARSING = """
import sys
sys.path[:] = [{installed!r}, *(place for place in sys.path if place not in ("", {root!r}))]
from asccl_jax.train import command_line
for name in {recipes}:
    command = command_line.parse(["--config", f"configs/{{name}}.py:smoke", "--config.seed=3"])
    print(command.recipe, command.config.seed)
"""


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """The folder that an installation fills, made of a copy: building leaves files behind."""
    source, target = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("target")
    for name in PACKAGES:
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("setup.py", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    words = [sys.executable, "setup.py", "--quiet", "build_py", "--build-lib", str(target)]
    done = subprocess.run(words, cwd=source, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return target


def test_all_files_of_the_packages_go_along(installed):
    kept = {path.relative_to(installed).as_posix() for path in installed.rglob("*") if path.is_file()}
    for name in PACKAGES:
        place = "asccl_jax/configs" if name == "configs" else name  # not beside packages of others
        for path in (ROOT / name).rglob("*"):
            if path.suffix in (".py", ".jinja", ".json", ".typed"):
                assert f"{place}/{path.relative_to(ROOT / name).as_posix()}" in kept
    assert {name.split("/")[0] for name in kept} == {"asccl_jax", "data_prep", "DECA_torch_bridge"}


def test_recipes_are_found_in_an_installation(installed, tmp_path):
    code = PARSING.format(installed=str(installed), root=str(ROOT), recipes=RECIPES)
    run = subprocess.run([sys.executable, "-I", "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    expected = [f"{installed / 'asccl_jax' / 'configs' / name}.py:smoke 3" for name in RECIPES]
    assert run.stdout.splitlines() == expected, run.stderr


def test_a_recipe_in_the_current_folder_counts_first(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert find_recipe("configs/renderer.py:demo") == f"{ROOT}/configs/renderer.py:demo"
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "renderer.py").touch()
    assert find_recipe("configs/renderer.py:demo") == "configs/renderer.py:demo"
    assert find_recipe("configs/none.py") is None
