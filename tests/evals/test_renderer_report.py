"""The page that ends a renderer's training: all that was logged and drawn, and held-out frames before and after."""

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from asccl_jax.errors import InputError
from asccl_jax.evals.renderer_report import learning_curves, write_training_report
from asccl_jax.metrics_file import picture_files
from asccl_jax.models.renderer import Renderer
from asccl_jax.weights import save_renderer
from tests.evals.talking_records import write_talking_records
from tests.models.tiny_renderer import TINY_RENDERER, drawn_renderer

TERMS = ("loss", "l1", "metric", "discriminator", "real", "fake", "adversarial", "mouth_real", "mouth_adversarial")


@pytest.fixture(scope="module")
def records(tmp_path_factory: pytest.TempPathFactory) -> Path:
    clips = {"train": {"A/sad/1": range(8), "A/neutral/1": range(8)}, "validation": {"A/happy/2": range(7)}}
    return write_talking_records(tmp_path_factory.mktemp("data") / "records", clips)


@pytest.fixture(scope="module")
def workdir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a finished training run leaves behind."""
    path = tmp_path_factory.mktemp("run")
    for seed, name in enumerate(("best", "initial")):
        save_renderer(path / name, Renderer(drawn_renderer(TINY_RENDERER, seed), TINY_RENDERER))
    data = {"detail": False, "region": "face", "speakers": [], "frames_per_sequence": 50, "length": 4}
    config = {"model": TINY_RENDERER.to_dict(), "data": data, "adversarial": {"mode": "ls"}, "metric": {"path": ""}}
    (path / "config.json").write_text(json.dumps({**config, "chunk": 4, "batch_size": 1, "seed": 0}))
    lines = [{"step": step, **{f"renderer/{name}": 1.0 / step for name in TERMS}} for step in range(1, 21)]
    scores = {0: 0.9, 2: 0.4, 4: 0.3, 10: 0.2, 20: 0.25}
    lines += [{"step": step, "eval/score": score, "eval/l1": score} for step, score in scores.items()]
    (path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (path / "pictures").mkdir()
    for step in (2, 4, 10, 20):
        Image.fromarray(np.full((66, 134, 3), 10 * step, np.uint8)).save(path / f"pictures/held_out-{step:06d}.png")
    return path


def test_the_page_holds_all_its_pictures_and_needs_no_network(workdir: Path, records: Path):
    page = write_training_report(workdir, records, seconds=90.0, limit=12)
    assert page == workdir / "report" / "report.html"
    html = page.read_text()
    for name in ("learning_curves", "drawn", "clip_0"):
        assert (page.parent / f"{name}.png").read_bytes().startswith(b"\x89PNG")
    assert html.count("data:image/png;base64,") == 3
    assert not re.search(r'(src|href)="(?!data:)', html) and "<script" not in html
    for words in ("best/, of step 10, on 1 held-out sequence", "20 steps", "1.5 minutes", "2 + 1 sequences", "0.5 for"):
        assert words in html, words
    assert "No metric was given" in html and "it was trained on" not in html
    scores = json.loads((page.parent / "scores.json").read_text())
    trained, before = (row["own"] for row in scores["rows"][:2])
    assert [clip["clip"] for clip in trained["clips"]] == ["A/happy/2"]
    assert trained["figures"]["psnr"]["value"] != before["figures"]["psnr"]["value"]
    assert f"{trained['figures']['psnr']['value']:.1f} dB" in html
    assert (page.parent / "table.md").read_text().startswith("# Renderer evaluation")


def test_what_was_trained_on_is_said_where_there_is_nothing_else(workdir: Path, tmp_path: Path):
    run = shutil.copytree(workdir, tmp_path / "run")
    shutil.rmtree(run / "initial")
    shutil.copytree(run / "best", run / "initial")
    records = write_talking_records(tmp_path / "records", {"train": {"A/sad/1": range(7)}})
    html = write_training_report(run, records).read_text()
    assert "it was trained on" in html and "1 + 1 sequences" in html
    assert "NOT clearly more: 0.0 dB, no intervals (1 clip" in html


def test_only_as_many_sequences_as_asked_for_are_drawn(workdir: Path, tmp_path: Path):
    validation = {f"A/happy/{number}": range(6) for number in range(4)}
    records = write_talking_records(tmp_path / "records", {"train": {"A/sad/1": range(6)}, "validation": validation})
    page = write_training_report(workdir, records, limit=2)
    clips = json.loads((page.parent / "scores.json").read_text())["rows"][0]["own"]["clips"]
    assert [clip["clip"] for clip in clips] == ["A/happy/0", "A/happy/3"]


def test_missing_start_is_named(workdir: Path, records: Path, tmp_path: Path):
    shutil.copytree(workdir, tmp_path / "run", ignore=shutil.ignore_patterns("initial"))
    with pytest.raises(InputError, match="initial"):
        write_training_report(tmp_path / "run", records)


def test_every_term_that_was_logged_has_its_curve_and_no_panel_is_empty():
    names = {f"renderer/{name}" for name in (*TERMS, "eyes_fake")} | {"eval/l1", "eval/mouth_l1", "eval/psnr"}
    figure = learning_curves([{"step": step, **dict.fromkeys(names, 0.5)} for step in (1, 2, 3)], best_step=2)
    panels = [axes for axes in figure.axes if axes.get_visible()]
    assert all(axes.lines for axes in panels)
    thick = [line.get_label() for axes in panels for line in axes.lines if not line.get_label().startswith("_")]
    assert sorted(thick) == sorted(name.partition("/")[2].replace("_", " ") for name in names)


def test_pictures_are_found_in_the_order_of_their_steps(tmp_path: Path):
    assert picture_files(tmp_path, "held_out") == {}
    (tmp_path / "pictures").mkdir()
    for name in ("held_out-1000000", "held_out-000300", "held_out-x", "other-000100"):
        (tmp_path / f"pictures/{name}.png").touch()
    assert list(picture_files(tmp_path, "held_out")) == [300, 1_000_000]
