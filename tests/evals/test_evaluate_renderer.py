"""`asccl eval renderer`: what it writes, that it repeats, and what it refuses."""

import dataclasses
import functools
import json
import shutil
import weakref

import numpy as np
import pytest

from asccl_jax.data.aligned_frames import AlignedClips, AlignedFrame, RenderedClip
from asccl_jax.data.test_speakers import write_speakers
from asccl_jax.evals import renderer_evaluation
from asccl_jax.evals.evaluate_renderer import main
from asccl_jax.evals.landmark_probe import train_probe
from asccl_jax.evals.renderer_evaluation import COPY, Candidate
from asccl_jax.models.renderer import Renderer
from asccl_jax.weights import save_renderer
from tests.evals.talking_records import CLIPS, LOWER, write_edit, write_talking_records
from tests.models.tiny_renderer import TINY_RENDERER, drawn_renderer


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Records, an edit of the held-out clip, two renderers of one size and one of another."""
    path = tmp_path_factory.mktemp("evaluation")
    write_talking_records(path / "records")
    write_edit(path / "edits" / "A" / "happy" / "2")
    for seed, name in enumerate(("with", "without")):
        save_renderer(path / name / "best", Renderer(drawn_renderer(TINY_RENDERER, seed), TINY_RENDERER))
    larger = dataclasses.replace(TINY_RENDERER, image_size=40)
    save_renderer(path / "larger", Renderer(drawn_renderer(larger), larger))
    return path


@pytest.fixture(autouse=True)
def short_training(monkeypatch):
    monkeypatch.setattr(renderer_evaluation, "train_probe", functools.partial(train_probe, steps=20))


def words(place, *more):
    return ["--checkpoint", str(place / "with"), "--records", str(place / "records"), *more]


@pytest.mark.slow
def test_figures_pictures_and_page_are_written_and_repeat_exactly(place, tmp_path, capsys):
    asked = words(place, "--name", "with metric", "--also", f"without={place / 'without'}")
    asked += ["--edits", str(place / "edits")]
    contents = []
    for run in ("first", "second"):
        assert main([*asked, "--output", str(tmp_path / run)]) == 0
        contents.append((tmp_path / run / "scores.json").read_text())
    assert contents[0] == contents[1]
    found = json.loads(contents[0])
    assert [row["name"] for row in found["rows"]] == ["with metric", "without", COPY]
    assert [len(row.get("own", {}).get("clips", ())) for row in found["rows"]] == [2, 2, 0]
    assert [row["driven"]["clips"][0]["clip"] for row in found["rows"]] == ["A/happy/2"] * 3
    assert found["rows"][0]["driven"]["figures"] != found["rows"][1]["driven"]["figures"]
    assert found["probe_error_px"] > 0
    assert all(row["own"]["figures"]["background"]["value"] == 0 for row in found["rows"][:2])
    assert {file.name for file in (tmp_path / "first").glob("*.png")} == {"own_0.png", "own_1.png", "driven_0.png"}
    page = (tmp_path / "first" / "report.html").read_text()
    assert "A/neutral/2 as happy" in page and "copy of source" in page
    printed = capsys.readouterr().out
    assert "mouth error" in printed and str(tmp_path / "second" / "report.html") in printed


def test_the_copy_of_the_source_is_off_by_what_the_mouth_moved(place, tmp_path):
    """The copy does not depend on the renderer: its error is that of a dark ellipse, 50 x 16, moved by 6 pixels."""
    assert main([*words(place, "--edits", str(place / "edits")), "--output", str(tmp_path)]) == 0
    copy = json.loads((tmp_path / "scores.json").read_text())["rows"][-1]
    # 140 levels of red, 140 of green, 120 of blue on two slivers of 6 x 50 pixels each, within a square of 72.
    expected = (140 + 140 + 120) / 3 * 2 * LOWER * 50 / 72**2
    assert copy["driven"]["figures"]["mouth"]["value"] == pytest.approx(expected, rel=0.25)


def test_figures_are_of_the_test_split_where_there_is_one_and_say_who_was_trained_on(place, tmp_path, capsys):
    clips = {**CLIPS, "test": {"M003/neutral/3": range(3)}}
    records = write_talking_records(tmp_path / "records", clips)
    shutil.copytree(place / "with", tmp_path / "run")
    asked = ["--checkpoint", str(tmp_path / "run"), "--records", str(records)]
    for split, scored, told in (
        ((), ["M003/neutral/3"], "Split test, speaker M003. NOTE: nobody knows whom trained"),
        (("--split", "validation"), ["A/neutral/2", "A/happy/2"], "Split validation, speaker A. NOTE: trained ("),
    ):
        output = tmp_path / f"evaluation{len(split)}"
        assert main([*asked, *split, "--output", str(output)]) == 0
        clips = json.loads((output / "scores.json").read_text())["rows"][0]["own"]["clips"]
        assert sorted(clip["clip"] for clip in clips) == sorted(scored)
        assert told in capsys.readouterr().out
        assert told in (output / "report.html").read_text()
        write_speakers(tmp_path / "run", {"train": {"A"}, "validation": {"A"}}, {})


def test_without_edits_only_own_clips_are_scored(place, tmp_path):
    assert main([*words(place, "--limit", "1"), "--output", str(tmp_path)]) == 0
    found = json.loads((tmp_path / "scores.json").read_text())
    assert found["probe_error_px"] is None and len(found["rows"][0]["own"]["clips"]) == 1
    assert not any("driven" in row for row in found["rows"])
    assert not list(tmp_path.glob("landmark_probe*")) and not list(tmp_path.glob("driven*"))


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (("--limit", "0"), "--limit 0"),
        (("--also", "name"), "expected NAME=DIR"),
        (("--edits", "nowhere"), "no such folder"),
        (("--split", "test"), "no clip with usable frames"),
        (("--also", "trained={place}/without"), "each needs another name"),
        (("--also", "larger={place}/larger"), "expected 32 as of the first"),
        (("--edits", "{place}/with"), "edit-conditioning RECORDS --twins"),
    ],
)
def test_bad_input_is_named(place, tmp_path, capsys, more, said):
    given = [word.format(place=place) for word in more]
    assert main([*words(place, *given), "--output", str(tmp_path)]) == 2
    assert said in capsys.readouterr().err


def test_scoring_a_long_clip_holds_a_few_frames_of_it():
    alive: weakref.WeakSet[AlignedFrame] = weakref.WeakSet()
    most = []

    class LongClips(AlignedClips):
        def facts(self, clip):
            return []

        def _load(self, clip, frame):
            picture = np.full((32, 32, 3), 40 + frame % 100, np.uint8)
            mask = np.full((32, 32, 1), 255, np.uint8)
            middle, box = np.array([16, 20], np.int32), np.array([4, 4, 28, 28], np.float32)
            loaded = AlignedFrame(
                picture, picture, picture, picture, mask, middle, box, np.zeros((14, 2), np.int64), 32
            )
            alive.add(loaded)
            most.append(len(alive))
            return loaded

    clip = RenderedClip("A/neutral/1", "A", "neutral", "1", "validation", 30.0, ((0, 199),))
    candidates = [
        Candidate(name, Renderer(drawn_renderer(TINY_RENDERER, seed), TINY_RENDERER), "")
        for seed, name in enumerate("ab")
    ]
    scores, pictures = renderer_evaluation._score_own(candidates, LongClips(32, cache_bytes=0), clip)
    assert set(scores) == {"a", "b"} and len(pictures.rows) == 5
    assert max(most) < 20
