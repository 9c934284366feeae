"""With PyTorch blocked every command can be imported, and heads are fitted, edited and drawn."""

import subprocess
import sys

from tests.data_prep.reconstruct.tiny_clips import write_clip, write_list

PROGRAM = """
import importlib
import sys
from pathlib import Path

sys.modules["torch"] = None
from asccl_jax.cli import COMMANDS
from DECA_torch_bridge.__main__ import main

for command in COMMANDS.values():
    importlib.import_module(command.module)

table, output = map(Path, sys.argv[1:])
common = ["--landmarks", "precomputed", "--landmark-table", "synthetic", "--workers", "1", "--quiet"]
assert main(["precompute", str(table), "--output", str(output / "records"), *common]) == 0
assert main(["precompute", str(table), "--output", str(output / "on-gpu"), *common, "--device", "cuda"]) == 2
chosen = ["--clip", "Ann/neutral/s1", "--expression-of", "Ann/neutral/s1"]
assert main(["edit", str(output / "records"), *chosen, "--output", str(output / "edited")]) == 0
(codes,) = (output / "records" / "codes").glob("*.npz")
assert main(["render", str(codes), "--output", str(output / "drawn")]) == 0
"""


def test_the_main_path_needs_no_torch(tmp_path):
    write_clip(tmp_path / "calm", frames=2, open_mouth=False)
    table = write_list(tmp_path / "clips.csv", [("calm", "Ann", "neutral", "s1")])
    command = [sys.executable, "-c", PROGRAM, str(table), str(tmp_path)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert "--device cuda needs PyTorch" in result.stderr
    drawn, edited = (sorted(path.name for path in (tmp_path / name / "nmfc").iterdir()) for name in ("drawn", "edited"))
    assert drawn == edited == ["000000.png", "000001.png"]
