"""The dress rehearsal: its size, its videos, what it measures, what it does not do again; the whole of it, small."""

import json

import pytest

from data_prep.media.layouts import apply_transcripts, find_clips
from tests import rehearsal
from tests.launched import QUICK
from tests.rehearsal import Rehearsal, main


def small(folder):
    return Rehearsal(folder, clips=28, frames=4, workers=1)


@pytest.mark.parametrize(
    ("wanted", "speakers", "sentences"), [(7560, 36, 30), (1890, 9, 30), (210, 2, 15), (28, 2, 2), (14, 2, 1)]
)
def test_there_are_as_many_clips_as_asked_for(tmp_path, wanted, speakers, sentences):
    made = Rehearsal(tmp_path, clips=wanted, frames=4, workers=1)
    assert (len(made.speakers), len(made.sentences), made.clips) == (speakers, sentences, wanted)


def test_videos_are_laid_out_as_meads_and_every_sentence_is_said_in_every_emotion(tmp_path):
    made = small(tmp_path)
    for _ in range(2):  # what is there stays
        rehearsal.CHILDREN["videos"](made)
    clips, problems = find_clips(made.videos, "mead")
    clips = apply_transcripts(clips, tmp_path / "transcripts.csv")
    assert problems == [] and len(clips) == made.clips
    assert len({(clip.speaker, clip.sentence) for clip in clips}) == 4
    assert all(clip.audio is not None for clip in clips)
    assert {clip.clip_id for clip in clips} == {
        str(path.relative_to(made.landmarks).with_suffix("")) for path in made.landmarks.rglob("*.npz")
    }


def test_a_command_is_watched_until_something_holds_and_killed_once_another_does(tmp_path):
    (tmp_path / "out").mkdir()
    code = f"kept = bytearray(50_000_000); open('{tmp_path}/out/a', 'w').close(); import time; time.sleep(100)"
    words = ["timeit", "-n1", "-r1", code]
    made = small(tmp_path)
    figures = made._watch("part", words, tmp_path / "out", until=(tmp_path / "out" / "a").exists)
    assert 0 < figures.seconds < 60 and figures.peak_mb > 50 and (figures.files, figures.folder_mb) == (1, 0.0)


def test_what_was_done_is_not_done_again_and_what_follows_is(tmp_path, monkeypatch):
    done = []
    figures = rehearsal.Figures("part", 1.0, 2.0, 3.0, 4.0, 5, 6.0)

    def stages(made):
        return {name: lambda name=name: iter([done.append(name) or figures]) for name in ("videos", "prepare")}

    monkeypatch.setattr(Rehearsal, "stages", stages)
    for clips in (28, 28, 14):
        found = rehearsal._rehearse(Rehearsal(tmp_path, clips=clips, frames=4, workers=1))
        assert found == [figures, figures]
    assert done == ["videos", "prepare"] * 2


@pytest.mark.parametrize("words", [["--clips", "3"], ["--clips", "9000"], ["--frames", "1"], ["--workers", "0"]])
def test_nonsense_is_refused(words, tmp_path, capsys):
    assert main([*words, "--output", str(tmp_path)]) == 2
    assert capsys.readouterr().err.startswith(f"error: {words[0]} {words[1]}: expected at ")


@pytest.mark.slow
def test_the_whole_rehearsal_small(compiled, tmp_path, monkeypatch):
    monkeypatch.setenv("XLA_FLAGS", QUICK)
    (tmp_path / "compiled").symlink_to(compiled)  # other tests train the same network
    assert main(["--clips", "14", "--frames", "8", "--workers", "1", "--output", str(tmp_path)]) == 0
    report = json.loads((tmp_path / "rehearsal.json").read_text())
    assert (report["clips"], report["frames"], report["clip pairs"]) == (14, 14 * 8, 12)
    stages = {row["part"]: row for row in report["stages"]}
    assert set(stages) >= {"open", "shuffle", "train, to the first step", "train, gone on after kill -9", "tracks"}
    assert all(row["seconds"] > 0 for row in stages.values())
