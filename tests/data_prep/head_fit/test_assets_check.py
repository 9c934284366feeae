"""`asccl head`: the table of files, and its exit status."""

from __future__ import annotations

import os
import pickle
from pathlib import Path

import pytest

from data_prep.head_fit import flame_files
from data_prep.head_fit.assets_check import ASSET_FILES, check_assets, main
from tests.data_prep.head_fit.tiny_head import write_tiny_head


def test_complete_head_is_enough_for_landmarks_but_not_for_deca(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    directory = write_tiny_head(tmp_path / "head")
    assert main(["check", str(directory)]) == 0
    report = capsys.readouterr().out
    assert "All that is needed is there" in report
    assert main(["check", str(directory), "--encoder", "deca"]) == 1
    report = capsys.readouterr().out
    assert "1 file(s) stand in the way of the encoder `deca`" in report
    assert "https://github.com/yfeng95/DECA" in report


def test_every_file_has_its_row_with_purpose_origin_and_licence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tmp_path.joinpath("head").mkdir()
    assert main(["check", str(tmp_path / "head")]) == 1
    report = " ".join(capsys.readouterr().out.split())
    for file in ASSET_FILES:
        for part in (file.name, file.purpose, file.origin, file.licence):
            assert part in report
        assert "http" in file.origin
    assert {file.name for file in ASSET_FILES} == {*flame_files.READERS, "deca_model.tar"}


def test_hostile_file_is_unsound_named_and_not_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    directory = write_tiny_head(tmp_path / "head")
    marker = tmp_path / "marker"

    class _Hostile:
        def __reduce__(self) -> tuple[object, ...]:
            return os.system, (f"touch {marker}",)

    (directory / flame_files.MODEL).write_bytes(pickle.dumps({"v_template": _Hostile()}))
    (directory / "deca_model.tar").write_bytes(b"<html>not found</html>")
    assert main(["check", str(directory)]) == 1
    report = " ".join(capsys.readouterr().out.split())
    assert "refused, nothing was run: the pickle names posix.system" in report
    assert "deca_model.tar: damaged" in report
    assert not marker.exists()


def test_unsound_file_stands_in_the_way_even_when_it_is_not_needed(tmp_path: Path) -> None:
    directory = write_tiny_head(tmp_path / "head")
    (directory / flame_files.ALBEDO).write_bytes(b"cut")
    states = {state.file.name: state for state in check_assets(directory, encoder="landmarks")}
    assert not states[flame_files.ALBEDO].needed
    assert not states[flame_files.ALBEDO].acceptable
    assert states[flame_files.MODEL].acceptable
    assert states["deca_model.tar"].acceptable
    assert not states["deca_model.tar"].there


def test_absent_folder_is_one_line_and_status_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", str(tmp_path / "none")]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_built_in_head_is_written_and_sound(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["write-builtin", str(tmp_path / "head")]) == 0
    assert main(["check", str(tmp_path / "head")]) == 0
    assert main(["write-builtin", str(tmp_path / "head")]) == 2
    assert "already has" in capsys.readouterr().err
