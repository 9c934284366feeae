"""A work folder goes as a whole, whenever its removal is cut off."""

import pytest

from data_prep.prepare import stage_workers
from data_prep.prepare.stage_workers import remove_work


def test_a_removal_that_is_cut_off_leaves_nothing_under_the_name_and_the_next_one_clears_up(tmp_path, monkeypatch):
    def make():
        (tmp_path / "work/clips").mkdir(parents=True)
        (tmp_path / "work/clips/a.json").write_text("{}")

    def cut_off(folder, **options):
        if not options:
            raise KeyboardInterrupt

    make()
    with monkeypatch.context() as patched:
        patched.setattr(stage_workers.shutil, "rmtree", cut_off)
        with pytest.raises(KeyboardInterrupt):
            remove_work(tmp_path / "work")
    assert not (tmp_path / "work").exists()
    assert list(tmp_path.iterdir())
    make()
    remove_work(tmp_path / "work")
    assert not list(tmp_path.iterdir())
