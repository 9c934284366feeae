"""Whom a run has learnt, as its folder tells, and what is said of figures on them."""

import json
from pathlib import Path

import pytest

from asccl_jax.data.test_speakers import (
    SPEAKERS_FILE,
    leak_remarks,
    learnt_speakers,
    reported_split,
    scored_on,
    write_speakers,
)
from tests.data.tiny_dataset import write_tiny_dataset


def run(folder: Path, *trained: str, selected=("V",), **config) -> Path:
    (folder / "best").mkdir(parents=True)
    write_speakers(folder, {"train": trained, "validation": selected}, config)
    return folder


def test_reports_are_on_the_test_split_where_there_is_one():
    assert reported_split(["test", "train", "validation"]) == "test"
    assert reported_split({"train", "validation"}) == "validation"


def test_a_run_and_its_networks_tell_whom_they_have_learnt(tmp_path):
    folder = run(tmp_path / "run", "B", "A")
    expected = {"train": {"A", "B"}, "validation": {"V"}}
    assert learnt_speakers(folder) == learnt_speakers(folder / "best") == expected
    assert json.loads((folder / SPEAKERS_FILE).read_text())["train"] == ["A", "B"]


@pytest.mark.parametrize(
    "entry",
    [{"init_from": "{}"}, {"metric": {"path": "{}/best"}}, {"mesh": {"metric": "{}"}}],
    ids=["init_from", "metric.path", "mesh.metric"],
)
def test_what_a_network_started_from_counts_as_learnt(tmp_path, entry):
    first = run(tmp_path / "first", "A")
    config = json.loads(json.dumps(entry).replace("{}", str(first)))
    assert learnt_speakers(run(tmp_path / "second", "B", **config)) == {"train": {"A", "B"}, "validation": {"V"}}


def test_a_run_that_goes_on_with_other_people_has_learnt_both(tmp_path):
    write_speakers(tmp_path, {"train": {"A"}, "validation": {"V"}}, {})
    write_speakers(tmp_path, {"train": {"B"}, "validation": {"V"}}, {}, goes_on=True)
    assert learnt_speakers(tmp_path) == {"train": {"A", "B"}, "validation": {"V"}}
    write_speakers(tmp_path, {"train": {"B"}, "validation": {"V"}}, {})
    assert learnt_speakers(tmp_path) == {"train": {"B"}, "validation": {"V"}}


def test_an_older_run_is_known_by_its_data_as_long_as_they_are_there(tmp_path):
    write_tiny_dataset(tmp_path / "records")
    (tmp_path / "old" / "best").mkdir(parents=True)
    config = {"data": {"dir": str(tmp_path / "records"), "speakers": []}}
    (tmp_path / "old" / "config.json").write_text(json.dumps(config))
    expected = {"train": {"A", "B"}, "validation": {"Zoë 李"}}
    assert learnt_speakers(tmp_path / "old" / "best") == learnt_speakers(tmp_path / "records") == expected
    (tmp_path / "records" / "manifest.json").unlink()
    assert learnt_speakers(tmp_path / "old") is None
    assert learnt_speakers(tmp_path / "nowhere") is None and learnt_speakers("gs://bucket/run") is None


def test_what_is_said_of_figures_on_people_whom_a_network_has_learnt(tmp_path):
    folder = run(tmp_path / "run", "M003", "B", "W015", selected=["V"])
    assert leak_remarks({"ours": folder}, ["M003"]) == [
        f"ours ({folder}) was trained on M003, whose clips are scored here",
        f"ours ({folder}) was trained on W015, whom the papers report on",
    ]
    clean = run(tmp_path / "clean", "B")
    assert leak_remarks({"ours": clean}, ["V", "M003"]) == [
        f"ours ({clean}) was selected by V, whose clips are scored here"
    ]
    assert leak_remarks({"ours": clean}, ["M003"]) == []
    assert leak_remarks({"ours": tmp_path}, ["M003"])[0].startswith(f"nobody knows whom ours ({tmp_path}) was trained")
    assert scored_on("test", ["W015", "M003", "M003"], {"ours": clean}) == "Split test, speakers M003, W015."
    assert "NOTE: ours" in scored_on("test", ["B"], {"ours": clean})
