import json
from pathlib import Path

import pytest

from asccl_jax.evals.evaluate_manipulator import main
from asccl_jax.evals.manipulator_scores import COPY
from asccl_jax.head.head_model import save_head_model
from asccl_jax.models.manipulator import Manipulator
from asccl_jax.weights import save_manipulator
from tests.evals.test_manipulator_scores import SETTINGS
from tests.evals.tiny_deliveries import make_delivery, write_truth
from tests.head.heads import golden_head
from tests.models.tiny_manipulator import TINY_MANIPULATOR, drawn_manipulator


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two checkpoints, one of the wrong size, tracks of two speakers with their truth, and a head."""
    path = tmp_path_factory.mktemp("evaluation")
    for seed, name in enumerate(("with", "without")):
        save_manipulator(path / name / "best", Manipulator(drawn_manipulator(SETTINGS, seed), SETTINGS))
    save_manipulator(path / "small", Manipulator(drawn_manipulator(TINY_MANIPULATOR), TINY_MANIPULATOR))
    write_truth(path / "tracks", [make_delivery("a/neutral/1"), make_delivery("b/neutral/1", seed=1)])
    save_head_model(path / "head.npz", golden_head())
    return path


def test_figures_pictures_and_page_are_written_and_repeat_exactly(place: Path, tmp_path: Path, capsys):
    words = ["--checkpoint", str(place / "with"), "--name", "with metric", "--also", f"without={place / 'without'}"]
    words += ["--tracks", str(place / "tracks"), "--head", str(place / "head.npz")]
    contents = []
    for run in ("first", "second"):
        assert main([*words, "--output", str(tmp_path / run)]) == 0
        contents.append((tmp_path / run / "scores.json").read_text())
    assert contents[0] == contents[1]
    found = json.loads(contents[0])
    names = ["with metric", "without", "with metric, by reference", "without, by reference", COPY]
    assert [row["name"] for row in found["rows"]] == names
    assert found["rows"][0]["figures"] != found["rows"][1]["figures"]
    assert found["rows"][-1]["figures"]["hits"]["value"] == 0
    assert {file.name for file in (tmp_path / "first").glob("*.png")} == {
        f"{name}.png" for name in ("confusion", "by_emotion", "curves", "faces")
    }
    page = (tmp_path / "first" / "report.html").read_text()
    assert "without, by reference" in page and "bar MISSED" in page
    printed = capsys.readouterr().out
    assert "Mouth error of without:" in printed and str(tmp_path / "second" / "report.html") in printed


def test_without_a_head_neither_mouth_nor_faces_are_reported(place: Path, tmp_path: Path, capsys):
    words = ["--checkpoint", str(place / "with"), "--tracks", str(place / "tracks"), "--no-references", "--limit", "1"]
    assert main([*words, "--output", str(tmp_path)]) == 0
    found = json.loads((tmp_path / "scores.json").read_text())
    assert found["clips"] == 1 and found["head"] is None
    assert [row["name"] for row in found["rows"]] == ["trained", COPY]
    assert found["rows"][0]["figures"]["mouth_error_mm"] is None
    assert not (tmp_path / "faces.png").exists()
    assert "give --head" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--checkpoint", "absent"], "absent"),
        (["--checkpoint", "small"], "edits 5 coefficients, tracks have 51"),
        (["--tracks", "with"], "neither tracks.json"),
        (["--also", "nameless"], "NAME=DIR"),
        (["--also", "trained=without"], "another name"),
        (["--head", "nowhere.npz"], "--head nowhere.npz: no such file"),
        (["--limit", "0"], "--limit 0"),
    ],
)
def test_bad_input_is_one_clear_line(more, message, place, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(place)
    words = ["--checkpoint", "with", "--tracks", "tracks", "--output", str(tmp_path / "out"), *more]
    assert main(words) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and error.count("\n") == 1 and message in error
    assert not (tmp_path / "out").exists()
