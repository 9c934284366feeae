"""What an update sends between devices, counted from the compiled program."""

import json

import jax
import jax.numpy as jnp
import pytest

from asccl_jax.bench.__main__ import main
from asccl_jax.bench.collectives import Tally, count_collectives
from asccl_jax.models.convolution import FEW_FEATURES, WIDE_MAP, convolve
from asccl_jax.train.sharding import data_mesh, replicated, split_over_data
from tests.launched import ROOT

PROGRAM = """\
HloModule jit_update, entry_computation_layout={(f32[4]{0})->f32[4]{0}}

%add (x: f32[], y: f32[]) -> f32[] {
  ROOT %sum = f32[] add(%x, %y)
}

%inner (p: f32[2]) -> f32[2] {
  ROOT %swap = f32[2]{0} collective-permute(%p), source_target_pairs={{0,1},{1,0}}
}

%turn (carry: (s32[], f32[4])) -> (s32[], f32[4]) {
  %grads = (f32[4]{0}, bf16[2,3]{1,0}) all-reduce(%a, %b), channel_id=1, to_apply=%add
  %called = f32[2]{0} fusion(%a), kind=kLoop, calls=%inner
}

%goes_on (carry: (s32[], f32[4])) -> pred[] {
  ROOT %less = pred[] compare(%i, %n), direction=LT
}

%either (p: f32[4]) -> f32[4] {
  ROOT %spread = f32[1]{0} reduce-scatter(%p), dimensions={0}, to_apply=%add
}

ENTRY %main (x: f32[4]) -> f32[4] {
  %gather = (f32[4]{0}, f32[8]{0}) all-gather-start(%x), dimensions={0}
  %whole = f32[8]{0} all-gather-done(%gather)
  %loop = (s32[], f32[4]) while(%t), condition=%goes_on, body=%turn, backend_config={"known_trip_count":{"n":"3"}}
  %some = f32[4]{0} conditional(%i, %x, %x), branch_computations={%either, %either}
  ROOT %flags = pred[16]{0} all-to-all(%f), dimensions={0}
}
"""


def test_loops_branches_calls_tuples_and_asynchronous_starts_are_counted_as_they_run():
    assert count_collectives(PROGRAM) == {
        "all-reduce": Tally(3, 3 * (16 + 12)),
        "all-gather": Tally(1, 32),
        "reduce-scatter": Tally(2, 8),
        "all-to-all": Tally(1, 16),
        "collective-permute": Tally(3, 3 * 8),
    }


def test_the_gradient_of_a_wide_convolution_which_takes_row_by_row_is_added_up_once():
    mesh = data_mesh(8)
    image = jax.ShapeDtypeStruct((8, WIDE_MAP, WIDE_MAP, 3), jnp.float32)
    kernel = jax.ShapeDtypeStruct((3, 3, 3, 2 * FEW_FEATURES), jnp.float32)

    def total(kernel, image):
        return jnp.square(convolve(image, kernel, implementation="phase")).sum()

    shardings = replicated(mesh), split_over_data(mesh)
    program = jax.jit(jax.grad(total), in_shardings=shardings).lower(kernel, image).compile().as_text()
    assert " while(" in program
    assert count_collectives(program)["all-reduce"].count == 1


@pytest.mark.slow
def test_the_command_prints_what_a_recipe_sends(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("XLA_FLAGS", "--xla_backend_optimization_level=0")  # collectives are none of its affairs
    config = f"--config={ROOT / 'configs/manipulator.py'}:smoke"
    words = ["collectives", config, "--devices=2", "--rows=2", "--set", "model.lstm_layers=1"]
    assert main([*words, "--accumulation", "2", "--json", str(tmp_path / "report.json")]) == 0
    (row,) = json.loads((tmp_path / "report.json").read_text())["rows"]
    assert (row["task"], row["fsdp"], row["accumulation"]) == ("manipulator", 1, 2)
    # Two passes of each of four updates reduce their gradients.
    assert row["collectives"]["all-reduce"]["count"] >= 8
    assert row["argument_bytes"] > 0
    assert "all-reduce" in capsys.readouterr().out


@pytest.mark.slow
def test_mistakes_of_the_child_are_one_line_and_status_2(capsys):
    config = f"--config={ROOT / 'configs/manipulator.py'}:smoke"
    for words, said in (
        (["--config=nowhere.py"], "nowhere.py"),
        ([config, "--groups", "8"], "--groups=8: only the metric has BatchNorm"),
        ([config, "--fsdp", "3"], "config.fsdp=3 does not divide 4 devices"),
        ([config, "--rows=0"], "--rows=0: expected at least"),
    ):
        assert main(["collectives", *words]) == 2
        (line,) = (line for line in capsys.readouterr().err.splitlines() if line.startswith("error: "))
        assert said in line
