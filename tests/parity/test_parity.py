"""The published network's numbers, replayed: the golden that the tests carry, in float32 and exactly in float64."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.parity.__main__ import main

GOLDENS = Path(__file__).resolve().parent.parent / "goldens"


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["float32", "float64"])
@pytest.mark.parametrize("name", ["metric_small", "manipulator", "renderer_parts", "renderer_default_256"])
def test_goldens_of_networks_losses_gradients_and_training_steps_are_met(name, precision):
    # As a user runs it: without the session's run-time type checks, which refuse the host arrays of a traced class.
    words = ["--goldens", str(GOLDENS), "--only", name, "--precision", precision]
    environment = {name: value for name, value in os.environ.items() if name not in ("XLA_FLAGS", "JAX_ENABLE_X64")}
    result = subprocess.run(
        [sys.executable, "-m", "tests.parity", *words],
        env=environment,
        cwd=GOLDENS.parent.parent,
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    assert "FAILS" not in result.stdout
    assert "all arrays pass" in result.stdout


@pytest.mark.parametrize("precision", ["float32", "float64"])
def test_goldens_of_heads_and_encoders_are_met_in_one_run(precision, capsys):
    words = ["--goldens", str(GOLDENS), "--only", "flame_deca_one", "--only", "deca_encoders", "--precision", precision]
    assert main(words) == 0
    report = capsys.readouterr().out
    assert "FAILS" not in report
    assert report.index("\nflame_deca_one  (seed 4,") < report.index("\ndeca_encoders  (seed 6,")
    assert report.index("flame_deca_one, PyTorch bridge: ") < report.index("flame_deca_one, JAX geometry: ")
    assert "all arrays pass" in report


def test_golden_of_the_manipulators_test_programme_is_met(capsys):
    assert main(["--goldens", str(GOLDENS), "--only", "manipulator_inference"]) == 0
    assert "FAILS" not in capsys.readouterr().out


def test_golden_of_post_processing_is_met(capsys):
    assert main(["--goldens", str(GOLDENS), "--only", "postprocess_small"]) == 0
    report = capsys.readouterr().out
    assert "FAILS" not in report
    # Aligned points are float64 by nature: compared in this run too, with the rest.
    assert "f64/align/points_transformed " in report
    assert "float64 twin" not in report.partition("postprocess_small")[2]


def test_a_golden_that_is_not_met_fails_the_run(tmp_path, capsys):
    for name in ("recipe_check.json", "README.md", "manifests"):
        (tmp_path / name).symlink_to(GOLDENS / name)
    with np.load(GOLDENS / "flame_deca_one.npz") as file:
        arrays = dict(file)
    arrays["raster/pix_to_face"][0, 32, 32] += 1
    np.savez(tmp_path / "flame_deca_one.npz", **arrays)
    assert main(["--goldens", str(tmp_path)]) == 1
    report = capsys.readouterr().out
    assert [line.split()[0] for line in report.splitlines() if "FAILS" in line] == 2 * ["raster/pix_to_face"]
    assert "2 arrays fall short" in report


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--goldens", "nowhere"], "--goldens nowhere: no such directory"),
        (
            ["--goldens", str(GOLDENS), "--only", "metric_big"],
            "--only metric_big: expected one of deca_encoders, flame_deca_one, manipulator,"
            " manipulator_inference, metric_small, postprocess_small, renderer_default_256, renderer_parts,"
            " renderer_train",
        ),
    ],
)
def test_bad_arguments_exit_with_one_line(arguments, message, capsys):
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_a_directory_without_goldens_is_refused(tmp_path, capsys):
    np.savez(tmp_path / "renderer.npz", a=np.zeros(1))
    assert main(["--goldens", str(tmp_path)]) == 2
    assert "found renderer" in capsys.readouterr().err


def test_a_changed_recipe_stops_the_run(tmp_path, capsys):
    for name in ("metric_small.npz", "recipe_check.json"):
        (tmp_path / name).write_bytes((GOLDENS / name).read_bytes())
    (tmp_path / "manifests").mkdir()
    manifest = (GOLDENS / "manifests" / "metric.json").read_text()
    (tmp_path / "manifests" / "metric.json").write_text(manifest.replace('"prelu_w"', '"norm_w"'))
    assert main(["--goldens", str(tmp_path)]) == 2
    assert "the recipe differs from recipe_check.json" in capsys.readouterr().err
