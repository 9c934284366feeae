"""The benchmarks run at a tiny size and report every field a reader or a gate would look for."""

import contextlib
import importlib.util
import itertools
import json

import jax
import numpy as np
import pytest

from asccl_jax.bench import bridge_bench as bridge_bench
from asccl_jax.bench import manipulator_bench as manipulator_bench
from asccl_jax.bench import metric_bench as metric_bench
from asccl_jax.bench import renderer_bench as renderer_bench
from asccl_jax.bench.__main__ import main
from asccl_jax.bench.harness import StepOptions, Turn, Worker, forward_flops, start_worker, step_flops
from asccl_jax.bench.renderer_bench import generator_flops, renderer_step_flops
from asccl_jax.models.renderer import RendererGenerator, init_renderer
from asccl_jax.process import CPU_CONVOLUTION_FLAG
from asccl_jax.settings import MetricSettings, RendererSettings
from tests.tasks.traced_flops import traced_flops

TINY = (
    "metric",
    "--batch=1",
    "--size=33",
    "--stage-blocks=1,1,1,1",
    "--stage-widths=4,4,8,8",
    "--rounds=1",
    "--threads=1",
)
needs_torch = pytest.mark.skipif(importlib.util.find_spec("torch") is None, reason="PyTorch is not installed")


@pytest.fixture(autouse=True)
def quick_compilation(monkeypatch):
    """The workers' XLA does not spend its time on code that runs a few times."""
    flags = f"{CPU_CONVOLUTION_FLAG} --xla_backend_optimization_level=0 --xla_cpu_use_fusion_emitters=false"
    monkeypatch.setenv("XLA_FLAGS", flags)
    monkeypatch.setattr(metric_bench, "_TURN_S", 0.0)
    monkeypatch.setattr(manipulator_bench, "_TURN_S", 0.0)
    monkeypatch.setattr(renderer_bench, "_TURN_S", 0.0)


def run(tmp_path, *arguments):
    assert main([*arguments, "--json", str(tmp_path / "report.json")]) == 0
    return json.loads((tmp_path / "report.json").read_text())


def test_metric_bench_reports_speed_arithmetic_and_memory_also_where_torch_is_missing(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(metric_bench, "has_torch_side", lambda: False)
    report = run(tmp_path, *TINY, "--peak-tflops", "0.1")
    (row,) = report["rows"]
    assert row["framework"] == "jax"
    assert row["cpu_flag_in_force"] is True
    for field in ("wall_s", "cpu_s", "compile_s", "pairs_per_s", "peak_rss_bytes", "xla_temporary_bytes", "xla_flops"):
        assert row[field] > 0
    assert row["utilisation"] == pytest.approx(report["step_flops"] / row["cpu_s"] / 0.1e12)
    assert {"jax", "jaxlib"} <= row["versions"].keys()
    assert report["machine"]["threads"] == 1
    said = capsys.readouterr().out
    assert "compiled in" in said
    assert "warning" not in said
    assert "JAX ran alone: pip install 'asccl-jax[bench]'" in said


@pytest.mark.slow
@needs_torch
def test_metric_bench_with_torch_pairs_the_turns(tmp_path, capsys):
    report = run(tmp_path, *TINY, "--rounds", "3")
    jax_row, torch_row = report["rows"]
    assert (jax_row["framework"], torch_row["framework"]) == ("jax", "torch")
    assert len(jax_row["turns"]) == len(torch_row["turns"]) == 3
    (ratio,) = report["ratios"]
    expected = [t["cpu_s"] / j["cpu_s"] for t, j in zip(torch_row["turns"], jax_row["turns"], strict=True)]
    assert ratio["cpu_s"]["all"] == pytest.approx(expected)
    assert ratio["cpu_s"]["median"] == pytest.approx(np.median(expected))
    assert "torch / jax processor time" in capsys.readouterr().out


@pytest.mark.slow
def test_metric_bench_alone_says_when_the_flag_is_not_in_force(tmp_path, capsys):
    report = run(tmp_path, *TINY, "--no-torch", "--no-flag")
    (row,) = report["rows"]
    assert row["cpu_flag_in_force"] is False
    said = capsys.readouterr().out
    assert "warning: the CPU convolution flag is not in force" in said
    assert "ran alone" not in said


@pytest.mark.slow
@needs_torch
def test_manipulator_bench_compares_steps_and_ways_to_do_a_clip(tmp_path, capsys):
    size = ("--batch", "2", "--frames", "12", "--width", "8", "--rounds", "2", "--threads", "1")
    report = run(tmp_path, "manipulator", *size)
    jax_row, torch_row = report["rows"]
    assert (jax_row["framework"], torch_row["framework"]) == ("jax", "torch")
    turns = [row["parts"]["train"]["turns"] for row in (torch_row, jax_row)]
    expected = np.median([torch["cpu_s"] / jax["cpu_s"] for torch, jax in zip(*turns, strict=True)])
    assert report["ratios"]["train"]["cpu_s"] == pytest.approx(expected)
    assert {"train", "clip", "clip_in_jax"} == report["ratios"].keys()
    said = capsys.readouterr().out
    for words in ("training step, torch / jax", "in processor time", "target 6", "memory of torch", "steps"):
        assert words in said


@pytest.mark.slow
@needs_torch
def test_renderer_bench_compares_frames_clips_and_steps(tmp_path, capsys):
    size = ("--size", "32", "--width", "4", "--frames", "3", "--chunk", "2", "--rounds", "2", "--threads", "1")
    report = run(tmp_path, "renderer", *size, "--step")
    jax_row, torch_row = report["rows"]
    assert (jax_row["framework"], torch_row["framework"]) == ("jax", "torch")
    assert jax_row["parts"].keys() == {"forward", "backward", "video", "frame_by_frame", "step"}
    assert torch_row["parts"].keys() == report["ratios"].keys() == {"forward", "backward", "video", "step"}
    turns = [row["parts"]["backward"]["turns"] for row in (torch_row, jax_row)]
    expected = np.median([torch["cpu_s"] / jax["cpu_s"] for torch, jax in zip(*turns, strict=True)])
    assert report["ratios"]["backward"]["cpu_s"] == pytest.approx(expected)
    said = capsys.readouterr().out
    for words in ("generator forward + backward, torch / jax", "target 0.85", "memory of torch", "step compiled in"):
        assert words in said


def test_counted_arithmetic_of_the_generator_is_that_of_its_trace():
    settings = RendererSettings(generator_width=4, residual_blocks=3, roi_size=8, image_size=32)
    params = jax.eval_shape(lambda: init_renderer(settings, jax.random.key(0)))["generator"]
    inputs = [jax.ShapeDtypeStruct((1, 32, 32, channels), np.float32) for channels in (27, 6, 1)]
    generator = RendererGenerator(settings, conv_implementation="xla")
    traced = traced_flops(lambda params, *inputs: generator.apply({"params": params}, *inputs), params, *inputs)
    # Of a doubling the trace takes one kernel in four, as the zeros between pixels do not count: what is counted here.
    assert traced == generator_flops(settings)


def test_counted_arithmetic_of_the_published_renderer():
    assert generator_flops(RendererSettings()) == pytest.approx(171.8e9, rel=1e-3)
    assert renderer_step_flops(RendererSettings()) == pytest.approx(3.72e12, rel=2e-3)


def test_input_bench_reports_images_a_core(tmp_path, capsys):
    report = run(tmp_path, "input", "--size", "64", "--size", "96", "--images", "32", "--rounds", "2", "--batch", "4")
    assert [row["image_size"] for row in report["rows"]] == [64, 96]
    for row in report["rows"]:
        assert row["images_a_round"] == 32
        assert row["images_per_cpu_s"] == pytest.approx(32 / np.median(row["cpu_s"]))
        assert row["bytes_an_image"] > 500
    assert "images / processor s" in capsys.readouterr().out


@needs_torch
def test_bridge_bench_times_every_stage_it_is_asked_for(tmp_path, capsys):
    stages = ("fit", "raster", "write-codes", "render")
    report = run(tmp_path, "bridge", "--quick", *itertools.chain(*(("--stage", stage) for stage in stages)))
    assert tuple(row["stage"] for row in report["rows"]) == stages
    for row in report["rows"]:
        (turn,) = row["turns"]
        assert row["frames_per_s"] == pytest.approx(row["frames_a_step"] / turn["cpu_s"])
    assert report["rows"][0]["frames_a_step"] == 30
    assert report["head"] == "builtin"
    said = capsys.readouterr().out
    assert "frames / s / core" in said
    assert "too small to say anything of speed" in said


def test_bridge_bench_judges_by_the_target(monkeypatch, capsys, tmp_path):
    """At a tenth of a processor second a frame, pictures are too slow and the fit, 100 frames a step, is not."""

    class Steady(Worker):
        def __init__(self):
            self.description = {
                "frames_a_step": dict.fromkeys(bridge_bench.STAGES, 1) | {"fit": 100},
                "versions": {"torch": "2"},
                "platform": "cpu",
                "device": "x",
                "head": "builtin",
                "triangles": 3,
            }

        def turn(self, steps, *, part=None):
            return Turn(wall_s=0.2, cpu_s=0.1)

        def finish(self):
            return {"peak_rss_bytes": 1e9, "peak_device_bytes": None}

    monkeypatch.setattr(bridge_bench, "start_worker", lambda *_: contextlib.nullcontext(Steady()))
    monkeypatch.setattr(bridge_bench, "has_torch_side", lambda: True)
    run(tmp_path, "bridge")
    said = capsys.readouterr().out
    assert "NMFC + shape at 256 px: 10.0 frames/s/core, target 25: MISSED" in said
    assert "landmark fit: 1000.0 frames/s/core, target 20: reached" in said
    run(tmp_path, "bridge", "--size", "128")
    assert "NMFC + shape at" not in capsys.readouterr().out


def test_bridge_bench_without_torch_says_how_to_get_it(monkeypatch, capsys):
    monkeypatch.setattr(bridge_bench, "has_torch_side", lambda: False)
    assert main(["bridge"]) == 2
    assert "pip install 'asccl-jax[bridge]'" in capsys.readouterr().err


def test_bridge_bench_knows_the_stages_of_its_worker():
    module = pytest.importorskip("tests.twins.bridge_step")
    assert tuple(module.STAGES) == tuple(bridge_bench.STAGES)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["bridge", "--batch", "0"], "--batch=0: expected at least 1"),
        (["bridge", "--assets", "gone"], "--assets=gone: no such folder"),
        (["bridge", "--device", "cuda", "--stage", "fit"], "--stage: fit: no GPU form"),
        (["metric", "--batch", "0"], "--batch=0: expected at least 1"),
        (["manipulator", "--width", "0"], "--width=0: expected at least 1"),
        (["manipulator", "--frames", "9"], "--frames=9: expected at least a window, 10"),
        (["renderer", "--chunk", "0"], "--chunk=0: expected at least 1"),
        (["renderer", "--size", "20"], "image_size=20"),
        (["metric", "--depth", "12"], "depth=12"),
        (["metric", "--json", "gone/report.json"], "the folder gone does not exist"),
        (["input", "--rounds", "0"], "--rounds=0: expected at least 1"),
        (["input", "--records", "gone"], "gone"),
    ],
)
def test_mistakes_are_one_line_and_status_two(arguments, said, capsys):
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert error.count("\n") == 1
    assert said in error


def test_a_worker_that_dies_shows_its_last_words():
    options = StepOptions({"depth": 12}, batch_size=1, image_size=33, dtype="float32", threads=1)
    with (
        pytest.raises(RuntimeError, match=r"(?s)metric_step worker ended with status 1.*depth=12"),
        start_worker("asccl_jax.bench.metric_step", options),
    ):
        pass


def test_counted_arithmetic_matches_the_published_network():
    assert forward_flops(MetricSettings(depth=50), 224) == pytest.approx(50.4e9, rel=2e-3)
    assert step_flops(MetricSettings(depth=50), 224, 8) == pytest.approx(1.61e12, rel=5e-3)


def test_counted_arithmetic_of_one_block_by_hand():
    settings = MetricSettings(stage_blocks=(1, 1, 1, 1), stage_widths=(4, 4, 4, 4))
    sizes = [33, 17, 9, 5, 3]
    stem = 33 * 33 * 27 * 4
    stages = sum(big**2 * 9 * 16 + small**2 * 10 * 16 for big, small in itertools.pairwise(sizes))
    assert forward_flops(settings, 33) == 2 * (stem + stages)
