"""`asccl video train-renderer`: from a video to a renderer; entries of the recipe pass, mistakes are named."""

import argparse
from pathlib import Path

import pytest

from asccl_jax.models.renderer import Renderer
from asccl_jax.weights import load_renderer, save_renderer
from data_prep.video import train_renderer
from data_prep.video.reconstruct_options import ReconstructOptions
from data_prep.video.train_renderer import main
from tests.data_prep.tiny_media import write_landmarks, write_video
from tests.data_prep.video.talking_clip import write_talking_clip
from tests.models.tiny_renderer import TINY_RENDERER, drawn_renderer


@pytest.fixture
def video(tmp_path):
    write_landmarks(tmp_path / "talk.npz", 16)
    return write_video(tmp_path / "talk.mp4", 16)


def stages(tmp_path, *entries, **given):
    chosen = {"video": tmp_path / "talk.mp4", "metric": None, "from_renderer": None} | given
    return train_renderer._stages(
        argparse.Namespace(**chosen),
        entries,
        ReconstructOptions(landmarks="precomputed"),
        recipe="configs/renderer.py:demo",
        work=tmp_path / "work",
    )


def test_words_of_the_user_come_last(tmp_path):
    reconstruct, train = stages(tmp_path, "--config.data.frames_per_sequence=30")
    assert reconstruct.output == tmp_path / "work" / "records" and reconstruct.words[3:5] == ("data", "reconstruct")
    assert train.words[-1] == "--config.data.frames_per_sequence=30"
    assert not train.inside  # what was trained is never removed


def test_fine_tuning_takes_the_sizes_of_what_it_starts_from(tmp_path):
    save_renderer(tmp_path / "many", Renderer(drawn_renderer(TINY_RENDERER), TINY_RENDERER))
    (_, train) = stages(tmp_path, from_renderer=tmp_path / "many")
    assert f"--config.init_from={tmp_path / 'many'}" in train.words
    assert {"--config.model.image_size=32", "--config.model.generator_width=4", "--config.epochs=15"} <= set(
        train.words
    )
    (tmp_path / "many" / "renderer.json").write_text("{}")
    with pytest.raises(Exception, match=r"renderer\.json cannot be read"):
        stages(tmp_path, from_renderer=tmp_path / "many")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--steps=3",), "unexpected argument '--steps=3'"),
        (("--config.steps", "3"), "unexpected argument '--config.steps'"),
        (("--config", "none.py"), "--config none.py: no such recipe"),
        (("--metric", "{folder}"), "--metric {folder}: no trained metric there; `bash launch/quickstart.sh`"),
        (("--from-renderer", "{folder}"), "no trained renderer there"),
        (("--workdir", "{folder}"), "--workdir {folder}: holds other files"),
    ],
)
def test_mistakes_are_named_before_any_work(video, tmp_path, capsys, words, said):
    told = ["--landmarks", "precomputed", "--landmark-table", "synthetic"]
    status = main([str(video), *told, *(word.format(folder=tmp_path) for word in words)])
    assert status == 2 and said.format(folder=tmp_path) in capsys.readouterr().err
    assert not Path("runs/talk").exists()


def test_a_renderer_of_another_video_or_metric_is_not_taken_for_one_of_this(video, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(train_renderer, "run_stages", lambda *_, **__: [])
    words = [
        str(video),
        "--landmarks",
        "precomputed",
        "--landmark-table",
        "synthetic",
        "--workdir",
        str(tmp_path / "w"),
    ]
    assert main(words) == 0
    (tmp_path / "w" / "renderer").mkdir()
    assert main(words) == main([*words, "--config.epochs=9"]) == 0  # the same, and more of the same
    write_landmarks(tmp_path / "talk.npz", 17)
    capsys.readouterr()
    assert main(words) == 2
    assert "the renderer there was trained on another video" in capsys.readouterr().err
    (tmp_path / "w" / "renderer").rmdir()
    assert main(words) == 0


@pytest.mark.slow
def test_a_video_becomes_a_renderer_once_and_the_next_command_is_told(tmp_path, capfd, monkeypatch):
    monkeypatch.setenv("XLA_FLAGS", "--xla_backend_optimization_level=0")
    video = write_talking_clip(tmp_path)
    words = [str(video), "--landmarks", "precomputed", "--landmark-table", "synthetic", "--device", "cpu"]
    words += ["--workers", "1", "--workdir", str(tmp_path / "run"), "--config", "configs/renderer.py:smoke"]
    words += ["--config.steps=2", "--config.report_groups=0"]
    assert main(words) == 0
    said = capfd.readouterr()
    renderer = tmp_path / "run" / "renderer"
    assert load_renderer(renderer).settings.image_size == 32
    assert f"asccl manipulate {video} --emotion happy --renderer {renderer}" in said.out
    assert "no --metric" in said.err
    assert main(words) == 0
    assert "train: done before" in capfd.readouterr().err
