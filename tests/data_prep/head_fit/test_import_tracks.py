"""Published coefficient files: what they hold comes through, whole speakers are held out, the rest is told."""

import os
import pickle

import numpy as np
import pytest
import torch

from asccl_jax.data.codes import CodeDict
from asccl_jax.data.schema import EMOTIONS
from asccl_jax.data.tracks import NO_LABEL, read_tracks
from asccl_jax.data.windows import CoefficientWindows
from asccl_jax.errors import InputError
from data_prep.head_fit.import_tracks import hold_out, import_tracks, read_actor_file, read_annotations
from data_prep.head_fit.published_codes import write_published_codes
from DECA_torch_bridge.__main__ import main

RNG = np.random.default_rng(0)
ACTORS = ("M005", "M007", "M023", "W023")


def _values(frames):
    return RNG.normal(size=(frames, 53)).astype(np.float32)


def _dump(path, content, protocol=2):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(pickle.dumps(content, protocol=protocol))


@pytest.fixture
def actors(tmp_path):
    """Files of four actors, and what is in them by clip id."""
    expected = {}
    for actor in ACTORS:
        clips = [(_values(12 + k), emotion) for k, emotion in enumerate(("angry", "neutral", "angry"))]
        _dump(tmp_path / "mead" / f"{actor}_deca.pkl", clips)
        names = (f"{actor}/angry/001", f"{actor}/neutral/001", f"{actor}/angry/002")
        expected |= {name: values for name, (values, _) in zip(names, clips, strict=True)}
    return tmp_path / "mead", expected


def _codes(numbers):
    count = len(numbers)
    return CodeDict(
        np.asarray(numbers),
        *(RNG.normal(size=(count, size)).astype(np.float32) for size in (100, 50, 6, 3)),
    )


def _write_video(folder, video, numbers, labels):
    codes = _codes(numbers)
    write_published_codes(folder / "DECA" / video, codes)
    names = "Neutral,Anger,Disgust,Fear,Happiness,Sadness,Surprise"
    (folder / f"{video}.txt").write_text("\r\n".join([names, *map(str, labels)]) + "\r\n")
    return codes


def test_actor_files_give_jaw_opening_and_expression_of_every_clip(actors, tmp_path):
    source, expected = actors
    tracks, problems = import_tracks(source, tmp_path / "tracks")
    assert not problems and set(tracks.clips) == set(expected)
    for track in read_tracks(tmp_path / "tracks"):
        values = expected[track.clip]
        np.testing.assert_array_equal(track.coefficients, values[:, [0, *range(3, 53)]])
        assert [track.speaker, track.emotion] == track.clip.split("/")[:2]
        assert track.split == ("validation" if track.speaker == "M023" else "train")


@pytest.mark.parametrize("protocol", [0, 2, 4, 5])
def test_actor_files_of_every_protocol_and_spelling_are_read(tmp_path, protocol):
    clips = [(_values(3), "anger"), [_values(2).astype(np.float64), np.int64(6)], (_values(1), "SAD")]
    _dump(tmp_path / "M005_deca.pkl", clips, protocol)
    found, problems = read_actor_file(tmp_path / "M005_deca.pkl")
    assert [clip.clip for clip in found] == ["M005/angry/001", "M005/surprised/001", "M005/sad/001"]
    assert not problems
    np.testing.assert_array_equal(found[1].codes.exp, clips[1][0][:, 3:].astype(np.float32))


def test_tensors_are_read_as_arrays(tmp_path):
    values = torch.from_numpy(_values(4))
    _dump(tmp_path / "M005_deca.pkl", [(values, "sad")])
    (clip,), _ = read_actor_file(tmp_path / "M005_deca.pkl")
    np.testing.assert_array_equal(clip.codes.pose[:, 3:], values[:, :3].numpy())


def test_clips_that_cannot_be_used_are_left_out_and_told(tmp_path, capsys):
    broken = _values(5)
    broken[2, 7] = np.nan
    clips = [(_values(12), "contempt"), (_values(12), "sad"), (_values(0), "sad"), (broken, "sad"), (_values(12), 9)]
    _dump(tmp_path / "M005_deca.pkl", clips)
    words = ["import-tracks", str(tmp_path / "M005_deca.pkl"), "--output", str(tmp_path / "tracks")]
    assert main(words) == 0
    output = capsys.readouterr()
    assert "1 clips, 0 of them held out, 12 frames; 4 clips left out" in output.out
    for text in ("entry 0: emotion 'contempt'", "entry 2: no frames", "not finite in frame 2", "emotion 9: expected"):
        assert text in output.err
    assert [track.clip for track in read_tracks(tmp_path / "tracks")] == ["M005/sad/001"]
    assert main(words) == 2  # in use
    assert "holds tracks already" in capsys.readouterr().err


class _Call:
    def __reduce__(self):
        return os.mkdir, ("made_by_a_pickle",)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"sad": 1}, "a dict of 1, expected a list of pairs"),
        ([], "a list of 0, expected a list of pairs"),
        ([(np.zeros((4, 51), np.float32), "sad")], r"entry 0: float32 array of shape \(4, 51\), expected"),
        ([(np.zeros((4, 53), np.float32), "sad", 1)], "entry 0: a tuple of 3, expected a pair"),
        ([(_Call(), "sad")], "refused, nothing was run"),
    ],
)
def test_other_layouts_are_refused_and_nothing_is_run(tmp_path, monkeypatch, content, message):
    monkeypatch.chdir(tmp_path)
    _dump(tmp_path / "M005_deca.pkl", content)
    with pytest.raises(InputError, match=message):
        import_tracks(tmp_path / "M005_deca.pkl", tmp_path / "tracks")
    assert not (tmp_path / "made_by_a_pickle").exists()


def test_aff_wild2_frames_take_their_labels_by_number(tmp_path):
    source = tmp_path / "affwild"
    labels = [4] * 6 + [-1] * 2 + [5] * 4 + [0] * 3
    first = _write_video(source, "video1_left", [0, 1, 2, 3, 5, 6, 7, 8, 9, 10, 11, 12], labels)
    _write_video(source, "v2", range(15), labels)
    _, problems = import_tracks(source, tmp_path / "tracks", validation=["v2"])
    assert not problems
    found = {track.speaker: track for track in read_tracks(tmp_path / "tracks")}
    track = found["video1_left"]
    assert track.clip == "video1_left/happy/video1_left"
    assert track.labels.tolist() == [4, 4, 4, 4, 4, NO_LABEL, NO_LABEL, 5, 5, 5, 5, 0]
    assert track.frame_index.tolist() == first.frame_index.tolist()
    np.testing.assert_array_equal(track.coefficients[:, 1:], first.exp)
    assert {name: track.split for name, track in found.items()} == {"video1_left": "train", "v2": "validation"}
    windows = CoefficientWindows([track], window=4)
    starts = track.frame_index[windows.starts].tolist()
    assert starts == [0, 8, 9] and [EMOTIONS[k] for k in windows.emotions] == ["happy", "sad", "sad"]


@pytest.mark.parametrize("place", ["DECA/{}", "{}/DECA", "{}"])
def test_aff_wild2_folders_are_found_wherever_code_dicts_lie(tmp_path, place):
    source = tmp_path / "affwild"
    write_published_codes(source / place.format("v1"), _codes(range(3)))
    (tmp_path / "labels").mkdir()
    (tmp_path / "labels" / "v1.txt").write_text("Neutral\n1\n1\n1\n")
    tracks, _ = import_tracks(source, tmp_path / "tracks", annotations=tmp_path / "labels")
    assert list(tracks.clips) == ["v1/angry/v1"]


def test_aff_wild2_videos_that_cannot_be_used_are_told(tmp_path):
    source = tmp_path / "affwild"
    _write_video(source, "good", range(3), [1, 1, 1])
    _write_video(source, "short", range(3), [1, 1])
    _write_video(source, "strange", range(3), [1, 7, 1])
    write_published_codes(source / "DECA" / "unlabelled", _codes(range(3)))
    tracks, problems = import_tracks(source, tmp_path / "tracks")
    assert list(tracks.clips) == ["good/angry/good"]
    assert [problem.subject for problem in problems] == ["short", "strange", "unlabelled"]
    assert "labels 2 frames" in problems[0].reason and "frame 2" in problems[0].reason
    assert "line 3: '7', expected a label -1..6" in problems[1].reason
    assert "no annotations" in problems[2].reason
    with pytest.raises(InputError, match="cannot be read"):
        read_annotations(source / "none.txt")


def test_sources_without_tracks_are_refused(tmp_path):
    with pytest.raises(InputError, match=r"expected ACTOR_deca\.pkl, a folder of such files"):
        import_tracks(tmp_path / "none", tmp_path / "tracks")
    with pytest.raises(InputError, match=r"neither ACTOR_deca\.pkl files nor code dicts"):
        import_tracks(tmp_path, tmp_path / "tracks")
    _dump(tmp_path / "M005_deca.pkl", [(_values(3), "contempt")])
    with pytest.raises(InputError, match=r"none of 1 clips can be used; first of all M005_deca\.pkl, entry 0: emotion"):
        import_tracks(tmp_path, tmp_path / "tracks")


def _clips(speakers, emotions=("sad", "happy"), takes=1):
    return [
        (f"{speaker}/{emotion}/{take}", speaker, emotion)
        for speaker in speakers
        for emotion in emotions
        for take in range(takes)
    ]


def _held(splits):
    return {clip for clip, split in splits.items() if split == "validation"}


def test_whole_speakers_are_held_out_in_an_order_that_only_their_names_decide():
    clips = _clips([f"p{k:02d}" for k in range(40)])
    splits = hold_out(clips)
    speakers = {clip.split("/")[0] for clip in _held(splits)}
    assert len(speakers) == 4 and len(_held(splits)) == 8
    assert hold_out(clips[::-1]) == splits
    larger = {clip.split("/")[0] for clip in _held(hold_out(clips, share=0.3))}
    assert len(larger) == 12 and speakers < larger
    assert len(_held(hold_out(_clips("ab"), share=0.01))) == 2  # one speaker at the least
    assert not _held(hold_out(clips, share=0))


def test_of_a_single_speaker_clips_of_every_emotion_are_held_out():
    clips = [*_clips("a", takes=20), ("a/fear/0", "a", "fear")]
    held = _held(hold_out(clips))
    assert sorted(clip.split("/")[1] for clip in held) == ["happy", "happy", "sad", "sad"]


def test_named_speakers_and_clips_are_held_out_and_others_refused():
    clips = _clips(ACTORS)
    assert _held(hold_out(clips)) == {"M023/sad/0", "M023/happy/0"}
    assert _held(hold_out(clips, validation=["W023", "M005/sad/0"])) == {"W023/sad/0", "W023/happy/0", "M005/sad/0"}
    with pytest.raises(InputError, match="--validation X1: neither a clip's id nor among the speakers M005, M007"):
        hold_out(clips, validation=["X1", "M005"])
    with pytest.raises(InputError, match="none is left to train on"):
        hold_out(clips, validation=ACTORS)
    with pytest.raises(InputError, match="--validation-share 1"):
        hold_out(clips, share=1.0)


def test_speakers_whom_the_papers_report_on_are_neither_trained_on_nor_selected_by():
    clips = _clips(("M003", "M005", "M023", "W029"))
    splits = hold_out(clips)
    assert {clip[:4] for clip, split in splits.items() if split == "test"} == {"M003", "W029"}
    assert {clip[:4] for clip, split in splits.items() if split == "validation"} == {"M023"}
    with pytest.raises(InputError, match="--validation M003: kept to report on"):
        hold_out(clips, validation=["M003", "M005"])
    named = hold_out(clips, validation=["M003"], test=["M005/sad/0"])
    assert [clip for clip, split in named.items() if split == "test"] == ["M005/sad/0"]
    assert "test" not in hold_out(clips, test=()).values()
    # Nobody else: somebody must train.
    assert set(hold_out(_clips(("M003", "W029"))).values()) == {"train", "validation"}
