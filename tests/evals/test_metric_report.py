import json
import re
from pathlib import Path

import pytest

from asccl_jax.errors import InputError
from asccl_jax.evals.metric_report import write_training_report
from tests.evals.toy_records import write_records

PICTURES = ("learning_curves", "similarity", "picks", "weights", "examples", "ordering", "ratios")


def test_training_report_holds_all_its_pictures_and_needs_no_network(workdir: Path, records: Path):
    page = write_training_report(workdir, records, seconds=90.0, limit=4, draws=1)
    assert page == workdir / "report" / "report.html"
    html = page.read_text()
    for name in PICTURES:
        assert (page.parent / f"{name}.png").read_bytes().startswith(b"\x89PNG")
    assert html.count("data:image/png;base64,") == len(PICTURES)
    assert not re.search(r'(src|href)="(?!data:)', html) and "<script" not in html
    for phrase in ("training report", "8 steps", "1.5 minutes", "2 + 2 speakers", "asccl eval metric", "best"):
        assert phrase in html
    scores = json.loads((page.parent / "scores.json").read_text())
    assert [row["name"] for row in scores["rows"]] == ["trained", "untrained", "pixel difference"]
    assert (page.parent / "table.md").read_text().startswith("# Metric evaluation")


def test_report_of_short_clips_without_any_mismatch_is_still_written(workdir: Path, tmp_path: Path):
    short = write_records(tmp_path / "short", with_comparisons=False, frames=5)
    html = write_training_report(workdir, short, limit=4, draws=1).read_text()
    assert "nothing to compare" in html and "What it tells apart" not in html


def test_missing_start_is_named(workdir: Path, records: Path, tmp_path: Path):
    (tmp_path / "best").symlink_to(workdir / "best")
    with pytest.raises(InputError, match="initial"):
        write_training_report(tmp_path, records, limit=2, draws=1)
