"""Holds the import rules of the architecture: data flows one way, heavy packages stay out of the core."""

import ast
import graphlib
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("asccl_jax", "data_prep", "DECA_torch_bridge", "configs")
HEAVY = {"torch", "cv2", "tensorflow", "face_alignment", "data_prep", "DECA_torch_bridge", "configs", "av", "numba"}

# Package or module prefix -> prefixes of the core that it may not import.
FORBIDDEN = {
    "asccl_jax.types": ["models", "losses", "tasks", "train", "data", "evals", "infer", "convert", "main"],
    "asccl_jax.sampling": ["models", "losses", "tasks", "train", "data", "evals", "convert", "main"],
    "asccl_jax.models": ["losses", "tasks", "train", "data", "evals", "convert", "main"],
    "asccl_jax.losses": ["models", "tasks", "train", "data", "evals", "convert", "main"],
    "asccl_jax.convert": ["losses", "tasks", "train", "data", "evals", "main"],
    "asccl_jax.data": ["models", "losses", "tasks", "train", "evals", "convert", "main"],
    "asccl_jax.image": ["models", "losses", "tasks", "train", "evals", "convert", "infer", "main"],
    "asccl_jax.infer": ["losses", "tasks", "train", "evals", "convert", "main"],
    "asccl_jax.tasks": ["train", "evals", "infer", "convert", "main"],
    "asccl_jax.train": ["evals", "infer", "convert", "main"],
    "asccl_jax.evals": ["train", "main"],
    "asccl_jax.bench": ["main"],
}


ASKS_THE_BRIDGE = {
    "data_prep.head_fit.assets_check": "is DECA's checkpoint sound",
    "data_prep.reconstruct.encoders": "--encoder deca",
    "data_prep.reconstruct.drawing": "DECA's wrinkles, and drawing on a GPU",
    "data_prep.video.compose_command": "--segmenter",
}
"""Modules of `data_prep` that import PyTorch's side within a function, and what for."""


ASKS_TORCH = {
    "data_prep.media.landmarks": "face-alignment, which users install themselves",
    "data_prep.head_fit.safe_pickle": "tensors in other projects' pickles",
    "data_prep.reconstruct.reconstruct_command": "is there a GPU for DECA or face-alignment",
}
"""Modules of `data_prep` that import PyTorch within a function, and what for."""


def modules(package: str) -> list[Path]:
    return sorted((ROOT / package).rglob("*.py"))


def imported(path: Path) -> set[str]:
    """Absolute names a file imports anywhere, also inside functions."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            names |= {node.module or ""} | {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def dotted(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts)


def lies_in(name: str, prefix: str) -> bool:
    return name == prefix or name.startswith(prefix + ".")


@pytest.mark.parametrize("path", modules("asccl_jax"), ids=dotted)
def test_core_imports_flow_one_way_and_nothing_heavy(path: Path):
    names = imported(path)
    heavy = {name for name in names if name.split(".")[0] in HEAVY}
    assert not heavy
    for prefix, banned in FORBIDDEN.items():
        if lies_in(dotted(path), prefix):
            wrong = {n for n in names for b in banned if lies_in(n, f"asccl_jax.{b}")}
            assert not wrong


@pytest.mark.parametrize("path", [*modules("data_prep"), *modules("DECA_torch_bridge")], ids=dotted)
def test_the_parts_never_import_training_or_configs(path: Path):
    banned = ["asccl_jax.train", "asccl_jax.tasks", "asccl_jax.main", "configs"]
    # The bridge builds on `data_prep`; the other way goes what a user asks for by an option, imported where it is used.
    if dotted(path).startswith("data_prep") and dotted(path) not in ASKS_THE_BRIDGE:
        banned.append("DECA_torch_bridge")
    if dotted(path).startswith("data_prep") and dotted(path) not in ASKS_TORCH:
        banned.append("torch")
    assert not {n for n in imported(path) for b in banned if lies_in(n, b)}


def test_no_module_needs_itself():
    """Follows the imports that run when a module is imported: a circle works or fails by which is imported first."""
    names = {dotted(path).removesuffix(".__init__"): path for package in PACKAGES for path in modules(package)}
    needs = {}
    for name, path in names.items():
        found = {
            f"{node.module}.{alias.name}" if f"{node.module}.{alias.name}" in names else node.module
            for node in ast.parse(path.read_text()).body
            if isinstance(node, ast.ImportFrom)
            for alias in node.names
        }
        needs[name] = {other for other in found if other in names and other != name}
    order = graphlib.TopologicalSorter(needs)
    order.prepare()  # raises a CycleError that names the circle


@pytest.mark.parametrize("package", ["asccl_jax", "data_prep", "DECA_torch_bridge"])
def test_a_file_name_stands_once_in_a_package(package: str):
    names = [path.name for path in modules(package) if not path.name.startswith("__")]
    assert sorted(names) == sorted(set(names))


def test_core_imports_with_torch_cv2_and_tensorflow_blocked():
    names = [dotted(path) for path in modules("asccl_jax") if path.name != "__main__.py"]
    program = (
        "import sys\n"
        "for name in ('torch', 'cv2', 'tensorflow', 'face_alignment', 'av', 'numba', 'apache_beam'):\n"
        "    sys.modules[name] = None\n"
        "import importlib\n"
        f"for name in {names!r}:\n"
        "    importlib.import_module(name)\n"
    )
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr


def test_what_works_on_videos_starts_without_jax():
    """JAX takes time of each start and memory of each worker process; what scores videos asks networks anyway."""
    names = [dotted(path) for path in modules("data_prep") if not lies_in(dotted(path), "data_prep.evaluate")]
    program = (
        "import importlib, sys\n"
        f"for name in {names!r}:\n"
        "    importlib.import_module(name)\n"
        "assert 'jax' not in sys.modules\n"
    )
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr


def test_every_file_says_its_one_idea_in_its_first_line():
    for package in PACKAGES:
        for path in modules(package):
            docstring = ast.get_docstring(ast.parse(path.read_text()))
            assert docstring, f"{path} has no docstring"
            assert path.stem not in {"utils", "helpers", "common", "misc"}
