import json
from pathlib import Path

import pytest

from asccl_jax.evals import metric_scores
from asccl_jax.evals.evaluate_metric import main
from asccl_jax.weights import FrozenMetric
from tests.evals.conftest import SETTINGS
from tests.evals.toy_records import write_records


def options(workdir: Path, records: Path, *more: str) -> list[str]:
    return ["--checkpoint", str(workdir), "--records", str(records), "--draws", "1", *more]


def test_table_and_page_are_written_and_repeat_exactly(
    workdir: Path, records: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    contents = []
    for run in ("first", "second"):
        extra = ["--also", f"last={workdir / 'best'}", "--control", str(workdir / "initial"), "--limit", "2"]
        assert main(options(workdir, records, *extra, "--output", str(tmp_path / run))) == 0
        contents.append((tmp_path / run / "scores.json").read_text())
    assert contents[0] == contents[1]
    names = [row["name"] for row in json.loads(contents[0])["rows"]]
    assert names == ["trained", "last", "mis-paired", "untrained", "pixel difference"]
    printed = capsys.readouterr().out
    assert "Which row wins where" in printed and str(tmp_path / "second" / "report.html") in printed
    assert "mis-paired" in (tmp_path / "first" / "report.html").read_text()


def test_a_bare_metric_gets_an_untrained_twin(
    workdir: Path,
    records: Path,
    untrained: FrozenMetric,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):
    asked = []
    monkeypatch.setattr(metric_scores, "untrained_metric", lambda *args, **more: asked.append(args) or untrained)
    arguments = options(workdir / "best", records, "--split", "validation", "--limit", "2", "--output", str(tmp_path))
    assert main(arguments) == 0
    assert asked == [(SETTINGS, records)]
    assert "derived from aligned pairs" in capsys.readouterr().out
    rows = json.loads((tmp_path / "scores.json").read_text())["rows"]
    assert "seed 0" in next(row["source"] for row in rows if row["kind"] == "untrained")


def test_clips_are_compared_frame_by_frame(
    workdir: Path, records: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    keys = "P2/neutral/s0,P2/neutral/s1"
    arguments = ["--clip-query", "P2/neutral/s0", "--clip-keys", keys, "--output", str(tmp_path)]
    assert main(options(workdir, records, *arguments)) == 0
    losses = json.loads((tmp_path / "clips.json").read_text())
    itself, other = (loss for loss in losses if loss["row"] == "trained")
    assert itself["key_clip"] == "P2/neutral/s0" and itself["face"]["count"] == 20
    assert itself["mouth"]["value"] < other["mouth"]["value"]
    assert itself["below"]["P2/neutral/s1"] > 0.8
    pixels = [loss for loss in losses if loss["row"] == "pixel difference"]
    assert pixels[0]["face"]["value"] == 0 < pixels[1]["face"]["value"]
    assert "no evidence of learning" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("more", "names"),
    [
        (["--checkpoint", "absent", "--output", "out"], "absent"),
        (["--records", "nowhere", "--output", "out"], "nowhere"),
        (["--split", "test", "--output", "out"], "'test'"),
        (["--also", "nameless", "--output", "out"], "NAME=DIR"),
        (["--also", "trained=DIR", "--output", "out"], "DIR"),
        (["--name", "untrained", "--output", "out"], "another name"),
        (["--limit", "0", "--output", "out"], "--limit 0"),
        (["--clip-query", "P2/neutral/s0"], "--clip-keys"),
        (["--clip-query", "P2/neutral/s0", "--clip-keys", "P9/happy/s0"], "P9/happy/s0"),
        (["--clip-query", "P9/neutral/s0", "--clip-keys", "P2/happy/s0"], "P9/neutral/s0"),
        ([], "--output"),
    ],
)
def test_bad_input_is_one_clear_line(
    more: list[str],
    names: str,
    workdir: Path,
    records: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):
    monkeypatch.chdir(tmp_path)
    assert main(options(workdir, records, *more)) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and error.startswith("error: ") and names in error
    assert not (tmp_path / "out").exists()


def test_records_without_pairs_are_refused(workdir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    unpaired = write_records(tmp_path / "unpaired", with_pairs=False, with_comparisons=False)
    assert main(options(workdir, unpaired, "--output", str(tmp_path / "out"))) == 2
    assert "no aligned clip pairs" in capsys.readouterr().err


def test_help_shows_an_example(capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit, match="0"):
        main(["--help"])
    assert "asccl eval metric --checkpoint runs/demo" in capsys.readouterr().out
