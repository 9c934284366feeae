"""Commands of README and docs are run as a reader would, at smoke size; the launch scripts are run by CI itself."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

from asccl_jax.convert.metric_entries import state_dict_from_flax
from asccl_jax.models.correlation import init_variables
from asccl_jax.settings import MetricSettings
from DECA_torch_bridge.state_dict import write_state_dict

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text()
# As one would read them: README first, then its pages in the order of its table.
PAGES = [
    README,
    *((ROOT / page).read_text() for page in re.findall(r"^\| \[.*?\]\((docs/.*?\.md)\)", README, re.MULTILINE)),
]
COMMANDS = list(
    dict.fromkeys(
        line
        for page in PAGES
        for block in re.findall(r"^```bash\n(.*?)^```", page, flags=re.MULTILINE | re.DOTALL)
        for line in block.splitlines()
    )
)
LAUNCHED_BY_CI = {"bash launch/quickstart.sh", "bash launch/demo_video.sh", "bash launch/test.sh"}
KNOWN_LANDMARKS = "--landmarks precomputed --landmark-table synthetic"

# What makes a command small: the reader's words, then what is put in their place.
SMALLER = {
    "--config configs/asccl.py ": "--config configs/asccl.py:smoke ",
    "--config configs/manipulator.py ": "--config configs/manipulator.py:smoke ",
    "--config configs/renderer.py ": "--config configs/renderer.py:smoke ",
    "eval metric ": "eval metric --limit 4 ",
    "eval renderer ": "eval renderer --limit 2 ",
    "eval manipulator ": "eval manipulator --limit 2 ",
    "synthesise actors": "synthesise actors --size 96 --actors 1 --sentences 1 --emotions-per-sentence 1",
    "synthesise tracks": "synthesise tracks --speakers 2 --validation-speakers 2 --sentences 1",
    "train-renderer talk.mp4": f"train-renderer talk.mp4 --config configs/renderer.py:smoke {KNOWN_LANDMARKS}",
    "manipulate talk.mp4": f"manipulate talk.mp4 {KNOWN_LANDMARKS}",
    "--real runs/demo_video/real --fake runs/demo_video/fake --source runs/demo_video/source": (
        "--real videos --fake videos --source videos --limit 2"
    ),
    "bench renderer": "bench renderer --size 32 --width 4 --frames 3 --chunk 2 --rounds 1",
    "bench manipulator": "bench manipulator --batch 2 --frames 20 --width 16 --rounds 1",
    "bench metric --batch 2": "bench metric --batch 2 --size 48 --depth 18 --rounds 1",
    "bench bridge": "bench bridge --quick",
    "bench input": "bench input --size 64 --images 64 --rounds 1",
    "--output records": "--image-size 64 --output records",
}


def smaller(command: str) -> str:
    for words, replacement in SMALLER.items():
        command = command.replace(words, replacement)
    return command


def in_the_order_of_what_they_need(commands: list[str]) -> list[str]:
    """Synthetic data first: the reader's own videos are stood in for by it. Last what takes trained networks."""
    made = [c for c in commands if "synthesise" in c or "heads/clips.csv" in c]
    last = [c for c in commands if "talk.mp4" in c]
    return made + [c for c in commands if c not in (*made, *last, *LAUNCHED_BY_CI)] + last


def test_ci_runs_the_commands_that_set_everything_up():
    assert set(COMMANDS) >= LAUNCHED_BY_CI
    gate = (ROOT / ".ci" / "run").read_text()
    assert all(command in gate for command in LAUNCHED_BY_CI)


def test_every_page_is_in_the_table_and_every_link_leads_somewhere():
    assert len(PAGES) == 1 + len(list((ROOT / "docs").glob("*.md")))
    for place in [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]:
        for link in re.findall(r"\]\(([^)#:]+)\)", place.read_text()):
            assert (place.parent / link).exists(), f"{place}: {link}"


def test_the_python_example_is_what_the_tests_run():
    example = re.search(r"^```python\n(.*?)^```", README, flags=re.MULTILINE | re.DOTALL).group(1)
    compile(example, "README.md", "exec")
    assert "asccl_loss(metric, generated, source, " in example


def write_backbone(path: Path) -> None:
    """Writes random weights under the names of ArcFace's backbone: no prefix, and a classifier nobody needs here."""
    settings = MetricSettings(depth=18)
    state_dict = state_dict_from_flax(init_variables(settings, jax.random.key(0)), settings)
    trunk = {name.removeprefix("resnet50."): array for name, array in state_dict.items() if "resnet50" in name}
    write_state_dict(path, {**trunk, "fc.weight": np.zeros((512, 25088), np.float32)})


@pytest.mark.slow
def test_every_command_works(tmp_path: Path):
    pytest.importorskip("torch", reason="the conversion commands need PyTorch")
    for name in ("configs", "data_prep", "asccl_jax", "DECA_torch_bridge"):
        (tmp_path / name).symlink_to(ROOT / name)
    environment = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "XLA_FLAGS": "",
    }

    def run(command: str) -> None:
        result = subprocess.run(
            smaller(command), shell=True, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
        )
        assert result.returncode == 0, f"{command}\n{result.stdout}\n{result.stderr}"

    for command in in_the_order_of_what_they_need(COMMANDS):
        if "videos/clips.csv" in command:
            (tmp_path / "heads").rename(tmp_path / "videos")
            shutil.move(tmp_path / "records", tmp_path / "records_of_heads")
        if "configs/asccl.py" in command:
            shutil.rmtree(tmp_path / "records")
            shutil.move(tmp_path / "records_of_heads", tmp_path / "records")
        if "backbone.pth" in command:
            write_backbone(tmp_path / "backbone.pth")
        if "train-renderer talk.mp4" in command:
            clip = min((tmp_path / "videos" / "clips").glob("*neutral*.mp4"))
            for suffix in (".mp4", ".npz"):
                shutil.copy(clip.with_suffix(suffix), tmp_path / f"talk{suffix}")
        run(command)

    example = re.search(r"^```python\n(.*?)^```", README, flags=re.MULTILINE | re.DOTALL).group(1)
    program = (
        "import jax, jax.numpy as jnp\n"
        "key, step = jax.random.key(0), 0\n"
        "generated = source = jnp.zeros((1, 64, 64, 3))\n"
        "landmarks = jnp.full((1, 68, 2), 50.0).at[:, 0].set(8.0)\n"
        f"{example}\nassert jnp.isfinite(loss)\n"
    )
    run(f"{sys.executable} - <<'PROGRAM'\n{program}PROGRAM")
