"""Where clips are found in each layout; the files here are empty, only their names count."""

import os
from pathlib import Path

import pytest

from asccl_jax.errors import InputError
from data_prep.media.clips import Clip, emotion_name, one_spelling, reject_duplicates, sentence_key
from data_prep.media.layouts import apply_transcripts, assign_splits, find_clips
from tests.data_prep.tiny_media import write_table


def touch(root, *names):
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def ids(clips):
    return [clip.clip_id for clip in clips]


def reasons(problems):
    return {problem.subject.rsplit("/", 1)[-1]: problem.reason for problem in problems}


def test_mead_as_downloaded(tmp_path):
    touch(
        tmp_path,
        "M003/video/front/neutral/level_1/001.mp4",
        "M003/video/front/happy/level_1/001.mp4",
        "M003/video/front/happy/level_3/001.mp4",
        "M003/video/front/happy/level_3/017.mp4",
        "M003/video/front/happy/level_3/018.txt",
        "M003/video/front/happy/level_3/._019.mp4",
        "M003/video/front/contempt/level_3/001.mp4",
        "M003/audio/happy/level_3/001.m4a",
        "M003/video/left_30/happy/level_3/001.mp4",
        "W017/video/top/happy/level_3/001.mp4",
    )
    clips, problems = find_clips(tmp_path, "mead")
    assert ids(clips) == ["M003/happy/001", "M003/happy/017", "M003/neutral/001"]
    assert [clip.sentence for clip in clips] == ["001", "happy-017", "001"]
    assert clips[0].audio == tmp_path / "M003/audio/happy/level_3/001.m4a"
    assert clips[1].audio is None
    assert set(reasons(problems)) == {"018.txt", "001.mp4", "W017"}
    assert "wrong extension '.txt'" in reasons(problems)["018.txt"]
    assert "'contempt' is not one of" in reasons(problems)["001.mp4"]


def test_mead_levels_become_takes_where_several_are_wanted(tmp_path):
    touch(tmp_path, *(f"M003/video/front/{name}/001.mp4" for name in ("neutral/level_1", "sad/level_1", "sad/level_3")))
    clips, _ = find_clips(tmp_path, "mead", levels=(1, 3))
    assert ids(clips) == ["M003/neutral/001", "M003/sad/001/level_1", "M003/sad/001/level_3"]


def test_mead_as_frames_of_the_released_code(tmp_path):
    touch(
        tmp_path,
        "M003/img/neutral/001/000001.png",
        "M003/img/disgusted/028/000001.png",
        "M003/align_img/neutral/001/000000.jpg",
        "M003/audio/neutral/001.m4a",
        "M003/audio/disgusted/level_3/028.wav",
        "W021/align_img/sad/002/000000.jpg",
    )
    clips, problems = find_clips(tmp_path, "mead")
    assert ids(clips) == ["M003/disgusted/028", "M003/neutral/001", "W021/sad/002"]
    assert [clip.video.relative_to(tmp_path).parts[1] for clip in clips] == ["img", "img", "align_img"]
    assert clips[0].audio == tmp_path / "M003/audio/disgusted/level_3/028.wav"
    assert clips[1].audio == tmp_path / "M003/audio/neutral/001.m4a"
    assert problems == []


def test_a_single_mead_speaker_can_be_given(tmp_path):
    touch(tmp_path, "M003/video/front/sad/level_3/001.mp4")
    assert ids(find_clips(tmp_path / "M003", "mead")[0]) == ["M003/sad/001"]


def test_ravdess(tmp_path):
    touch(
        tmp_path,
        "Actor_05/01-01-03-02-01-02-05.mp4",
        "Actor_05/02-01-03-02-01-02-05.mp4",  # the same without sound
        "Actor_05/02-01-01-01-02-01-05.mp4",
        "Actor_05/03-01-01-01-02-01-05.wav",
        "Actor_05/01-02-04-01-02-01-05.mp4",  # song
        "Actor_05/01-01-02-01-01-01-05.mp4",  # calm
        "Actor_05/notes.mp4",
        "Actor_01/videos/happy_02_02.mp4",
        "Actor_01/audios/happy_02_02.wav",
    )
    clips, problems = find_clips(tmp_path, "ravdess")
    assert ids(clips) == [
        "Actor_01/happy/02/02",
        "Actor_05/happy/01/02-02",
        "Actor_05/neutral/02/01-01",
        "Actor_05/sad/song-02/01-01",
    ]
    by_id = {clip.clip_id: clip for clip in clips}
    assert by_id["Actor_05/neutral/02/01-01"].audio == tmp_path / "Actor_05/03-01-01-01-02-01-05.wav"
    assert by_id["Actor_05/happy/01/02-02"].audio is None
    assert by_id["Actor_01/happy/02/02"].audio == tmp_path / "Actor_01/audios/happy_02_02.wav"
    assert set(reasons(problems)) == {"01-01-02-01-01-01-05.mp4", "notes.mp4"}


def test_paths_of_a_table_may_begin_at_the_home_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    touch(tmp_path, "home/talk.mp4", "home/talk.wav")
    table = tmp_path / "clips.csv"
    table.write_text("path,speaker,emotion,sentence,audio\n~/talk.mp4,anna,happy,hello,~/talk.wav\n")
    (clip,), problems = find_clips(table, "list")
    assert (clip.video, clip.audio) == (tmp_path / "home/talk.mp4", tmp_path / "home/talk.wav")
    assert problems == []


def test_listed_clips_and_rows_that_cannot_be_used(tmp_path):
    touch(tmp_path, "a.mp4", "sub/b.mov", "a.npz")
    table = write_table(
        tmp_path / "clips.csv",
        [
            ("a.mp4", "Ann", "Neutral", "039", "train", ""),
            ("sub/b.mov", "Ann", "happiness", "That is HER dog.", "validation", "2"),
            ("a.mp4", "Ann", "neutral", "039", "", ""),
            ("gone.mp4", "Ann", "sad", "039", "", ""),
            ("a.mp4", "Ann", "bored", "039", "", ""),
            ("a.mp4", "", "sad", "039", "", ""),
            ("a.mp4", "A/B", "sad", "039", "", ""),
        ],
    )
    clips, problems = find_clips(table, "list")
    assert ids(clips) == ["Ann/happy/that-is-her-dog/2", "Ann/neutral/039"]
    assert [clip.split for clip in clips] == ["validation", "train"]
    assert [clip.name for clip in clips] == ["that-is-her-dog-2", "039"]
    found = [problem.reason for problem in problems]
    assert found[0] == "no such file"
    assert "'bored' is not one of" in found[1]
    assert found[2] == "line 7: no speaker"
    assert "must not contain '/'" in found[3]
    assert found[4].startswith("duplicate clip id, first seen at")


@pytest.mark.parametrize(
    ("layout", "names", "message"),
    [
        ("mead", ["notes.txt"], "is this MEAD"),
        ("ravdess", ["notes.txt"], "no clip of layout 'ravdess'"),
        ("mead", ["M003/video/front/bored/level_3/001.mp4"], "bored"),
    ],
)
def test_a_folder_of_no_clips_is_refused(tmp_path, layout, names, message):
    touch(tmp_path, *names)
    with pytest.raises(InputError, match=message):
        find_clips(tmp_path, layout)


def test_wrong_inputs_are_named(tmp_path):
    (tmp_path / "short.csv").write_text("path,speaker\na.mp4,Ann\n")
    (tmp_path / "split.csv").write_text("path,speaker,emotion,sentence,split\na.mp4,Ann,sad,1,exam\n")
    for source, layout, message in [
        (tmp_path / "gone", "mead", "does not exist"),
        (tmp_path, "list", "expects a CSV file"),
        (tmp_path / "short.csv", "mead", "expects a folder"),
        (tmp_path / "short.csv", "list", "no column emotion, sentence"),
        (tmp_path / "split.csv", "list", "line 2: split 'exam'"),
        (tmp_path, "imagenet", "expected one of mead, ravdess, list"),
    ]:
        with pytest.raises(InputError, match=message):
            find_clips(source, layout)


def clip(speaker, emotion, name):
    return Clip(
        clip_id=f"{speaker}/{emotion}/{name}", speaker=speaker, emotion=emotion, sentence=name, name=name, video=None
    )


def test_transcripts_match_clips_by_what_is_said(tmp_path):
    clips = [clip("M003", "neutral", "001"), clip("M003", "disgusted", "028"), clip("W021", "disgusted", "028")]
    table = write_table(
        tmp_path / "said.csv",
        [
            ("", "neutral", "001", "She had your dark suit."),
            ("M003", "disgust", "028", "she had your DARK suit"),
            ("", "", "028", "Don't ask me."),
            ("", "contempt", "001", "No matter."),
        ],
        columns=("speaker", "emotion", "clip", "sentence"),
    )
    said = [clip.sentence for clip in apply_transcripts(clips, table)]
    assert said == ["she-had-your-dark-suit", "she-had-your-dark-suit", "don-t-ask-me"]


def test_transcripts_of_other_clips_are_refused(tmp_path):
    table = write_table(
        tmp_path / "said.csv", [("", "", "77", "x")], columns=("speaker", "emotion", "clip", "sentence")
    )
    with pytest.raises(InputError, match="no row matches a clip"):
        apply_transcripts([clip("M003", "neutral", "001")], table)


def test_duplicates_are_dropped_and_file_names_stay_apart():
    first, second = clip("A", "sad", "1"), clip("A", "sad", "1")
    kept, problems = reject_duplicates([first, second, clip("A_sad", "sad", "1")])
    assert kept == [first, clip("A_sad", "sad", "1")]
    assert len(problems) == 1
    names = {clip("A", "sad", "b/c").file_name, clip("A", "sad", "b_c").file_name, clip("a", "sad", "b_c").file_name}
    assert len({name.casefold() for name in names}) == 3
    assert all("/" not in name for name in names)


def test_emotions_and_sentences_have_many_spellings():
    assert [emotion_name(name) for name in ("Anger", "fearful", " surprise")] == ["angry", "fear", "surprised"]
    assert sentence_key("M-01_a") == "m-01_a"
    assert sentence_key("Hello, World!") == sentence_key("hello world")


HEADINGS = "path,speaker,emotion,sentence,split"
ROWS = ["n.mp4,Anna,neutral,hello,train", "e.mp4,Anna, HAPPY ,hello,train"]
PLAIN = "\n".join([HEADINGS, *ROWS, ""])


@pytest.mark.parametrize(
    "content",
    [
        PLAIN.replace(",", ";").encode(),
        PLAIN.replace(",", "\t").encode(),
        PLAIN.replace(",", "\t").replace("\n", "\r\n").encode("utf-16"),
        b"\xef\xbb\xbf" + PLAIN.replace("\n", "\r\n").encode(),
        PLAIN.replace(HEADINGS, "Path, SPEAKER ,Emotion,Sentence,Split").replace(",train", ",Train").encode(),
        ("sep=;\n" + PLAIN.replace(",", ";")).encode(),
        PLAIN.replace("\n", "\n\n,,,,\n").encode(),
        PLAIN.replace("n.mp4", '"n.mp4"').replace("hello", '" hello "').encode(),
        PLAIN.replace("n.mp4", ".\\N.MP4").encode(),
    ],
)
def test_tables_of_spreadsheets_are_read_as_the_plain_one(tmp_path, content):
    touch(tmp_path, "n.mp4", "e.mp4")
    (tmp_path / "clips.csv").write_bytes(content)
    clips, problems = find_clips(tmp_path / "clips.csv", "list")
    assert ids(clips) == ["Anna/happy/hello", "Anna/neutral/hello"] and not problems
    assert [clip.video for clip in clips] == [tmp_path / "e.mp4", tmp_path / "n.mp4"]
    assert {clip.split for clip in clips} == {"train"}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (f"{HEADINGS}\n{ROWS[0]}\ne.mp4,Anna,happy,Hello, dear,train\n", "line 3: 6 cells, but 5 columns"),
        (f"{HEADINGS},Path\n{ROWS[0]}\n", "two columns 'path'"),
        (f'{HEADINGS}\nn.mp4,Anna,neutral,"hello,train\n{ROWS[1]}\n', "line 2: a double quote opens a cell"),
        (f"{HEADINGS}\nn.mp4,Jos\udce9,neutral,hello,train\n", "line 2: its speaker is not UTF-8"),
        ("path,speaker\n", "no column emotion, sentence in its first line.* it has path, speaker"),
    ],
)
def test_a_table_that_cannot_be_meant_says_where(tmp_path, content, message):
    touch(tmp_path, "n.mp4", "e.mp4")
    (tmp_path / "clips.csv").write_bytes(content.encode(errors="surrogateescape"))
    with pytest.raises(InputError, match=message):
        find_clips(tmp_path / "clips.csv", "list")


def test_a_table_may_name_files_by_bytes_or_by_another_form_of_their_accents(tmp_path):
    touch(tmp_path, os.fsdecode(b"caf\xe9.mp4"), "e\u0301te.mp4")
    rows = f"{HEADINGS}\ncaf\udce9.mp4,A,neutral,1,\n\u00e9te.mp4,A,sad,1,\n"
    (tmp_path / "clips.csv").write_bytes(rows.encode(errors="surrogateescape"))
    clips, problems = find_clips(tmp_path / "clips.csv", "list")
    assert not problems and [clip.video.exists() for clip in clips] == [True, True]


def test_mead_from_a_windows_disk_with_landmarks_beside_the_videos(tmp_path):
    folder = "M003/Video/front"
    touch(
        tmp_path,
        *(f"{folder}/neutral/level_1/{name}" for name in ("001.MP4", "001.npz", "._001.MP4", "Thumbs.db", ".DS_Store")),
        *(f"{folder}/Angry/LEVEL_3/{name}" for name in ("001.mp4", "desktop.ini")),
        "M003/Audio/angry/Level_3/001.M4A",
        "__MACOSX/M003/._x",
    )
    clips, problems = find_clips(tmp_path, "mead")
    assert ids(clips) == ["M003/angry/001", "M003/neutral/001"] and not problems
    assert clips[0].audio == tmp_path / "M003/Audio/angry/Level_3/001.M4A"


def test_ravdess_in_capitals_and_behind_a_link(tmp_path):
    touch(tmp_path / "disk", "01-01-03-01-02-01-01.MP4", "03-01-03-01-02-01-01.WAV", "._01-01-03-01-02-01-01.MP4")
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "Actor_01").symlink_to(tmp_path / "disk")
    (tmp_path / "disk" / "round").symlink_to(tmp_path / "set")
    clips, problems = find_clips(tmp_path / "set", "ravdess")
    assert ids(clips) == ["Actor_01/happy/02/01-01"] and not problems


def test_transcripts_find_the_clips_whose_zeros_a_spreadsheet_took(tmp_path):
    touch(tmp_path, "M003/video/front/neutral/level_1/007.mp4")
    clips, _ = find_clips(tmp_path, "mead")
    (tmp_path / "words.csv").write_text("Speaker;Emotion;Clip;Sentence\n;;7;dogs\n")
    assert [clip.sentence for clip in apply_transcripts(clips, tmp_path / "words.csv")] == ["dogs"]


@pytest.mark.parametrize(
    "spellings",
    [
        ("Hello.", "hello", " HELLO ", "hello!", "«Hello»", "\u201chello\u201d", "Hello...", "-hello-"),
        ("O\u00f9", "Ou\u0300", "o\u00f9 ?", "OU\u0300!"),
        ("Don't go", "don\u2019t  go.", "DON'T\tGO", "don't\u00a0go"),
        ("Stra\u00dfe", "STRASSE"),
        ("\u0130stanbul", "i\u0307stanbul"),
        ("\uc548\ub155", "\u110b\u1161\u11ab\u1102\u1167\u11bc."),
    ],
)
def test_one_sentence_has_one_key_however_it_is_spelled(spellings):
    assert len({sentence_key(text) for text in spellings}) == 1
    assert sentence_key(sentence_key(spellings[0])) == sentence_key(spellings[0])


@pytest.mark.parametrize(
    "sentences",
    [
        ("001", "002", "1", "disgusted-001", "1.5", "15"),
        ("2 + 2", "2 - 2", "22"),
        # Marks are vowels here, no punctuation: ka, ki, ku.
        ("\u0915\u093e", "\u0915\u0940", "\u0915\u0942"),
        ("\u0e01\u0e34\u0e19 \u0e02\u0e49\u0e32\u0e27", "\u0e01\u0e34\u0e19 \u0e02\u0e32\u0e27"),
        ("schon", "sch\u00f6n"),
        ("?", "!"),
        ("10 $", "10 \u20ac"),
    ],
)
def test_different_sentences_do_not_become_one(sentences):
    assert len({sentence_key(text) for text in sentences}) == len(sentences)
    assert all(sentence_key(text) and "/" not in sentence_key(text) for text in (*sentences, "/"))


def test_a_list_pairs_what_differs_in_spelling_only(tmp_path):
    touch(tmp_path, "a.mp4", "b.mp4", "c.mp4")
    rows = [
        ("a.mp4", "Zo\u00eb", "neutral", "Hello."),
        ("b.mp4", "ZOE\u0308", "Happy ", "hello"),
        ("c.mp4", "zo\u00eb", "sad", "O\u00f9"),
    ]
    write_table(tmp_path / "clips.csv", rows)
    clips, problems = find_clips(tmp_path / "clips.csv", "list")
    assert len({(clip.speaker, clip.sentence) for clip in clips if clip.emotion != "sad"}) == 1
    assert {clip.speaker for clip in clips} == {"ZO\u00cb"}
    assert all(clip.clip_id.startswith("ZO\u00cb/") for clip in clips)
    assert [(one.subject, one.outcome) for one in problems] == [("Zo\u00eb", "kept"), ("zo\u00eb", "kept")]
    assert "differs in spelling only" in problems[0].reason


def test_spellings_are_chosen_alike_in_any_order():
    assert one_spelling(["anna", "Anna", "Bob"]) == one_spelling(["Bob", "Anna", "anna"])


def clips(*speakers, split=None):
    return [
        Clip(clip_id=f"{s}/sad/1", speaker=s, emotion="sad", sentence="1", name="1", video=Path("a"), split=split)
        for s in speakers
    ]


def of_split(wanted, *arguments, **options):
    return sorted(
        name[: name.index("/")] for name, split in assign_splits(*arguments, **options).items() if split == wanted
    )


def held_out(*arguments, **options):
    return of_split("validation", *arguments, **options)


@pytest.mark.parametrize(("count", "expected"), [(2, 1), (9, 1), (20, 2), (39, 3)])
def test_the_last_tenth_of_the_speakers_is_held_out(count, expected):
    names = [f"S{number:02d}" for number in range(count)]
    assert held_out(clips(*names)) == names[count - expected :]


def test_mead_holds_out_the_published_speaker_where_it_is_there():
    assert held_out(clips("M005", "W021", "W040"), layout="mead") == ["W021"]
    assert held_out(clips("M005", "W022"), layout="mead") == ["W022"]
    assert held_out(clips("W021", "W022", "W023"), layout="list") == ["W023"]


def test_a_single_speaker_trains():
    assert held_out(clips("W021"), layout="mead") == []


def test_the_input_and_the_user_overrule_the_default():
    listed = [*clips("A", split="validation"), *clips("B", "C")]
    assert held_out(listed) == ["A"]
    assert held_out(listed, validation_speakers=("B", "C")) == ["B", "C"]


def test_unknown_speakers_and_none_left_are_refused():
    with pytest.raises(InputError, match="X: not among A, B"):
        assign_splits(clips("A", "B"), validation_speakers=("A", "X"))
    with pytest.raises(InputError, match="none is left to train on"):
        assign_splits(clips("A", "B"), validation_speakers=("A", "B"))


MEAD = [f"M{n:03d}" for n in (3, 5, 7, 9, 11, 12, 30, 31)] + [f"W{n:03d}" for n in (9, 15, 21, 29)]
RAVDESS = [f"Actor_{number:02d}" for number in range(1, 25)]


@pytest.mark.parametrize(
    ("layout", "speakers", "test", "validation"),
    [
        ("mead", MEAD, ["M003", "M009", "M012", "M030", "W015", "W029"], ["W021"]),
        ("ravdess", RAVDESS, RAVDESS[:6], RAVDESS[22:]),
        # Some of them, and somebody else.
        ("mead", ["M003", "M005", "M007"], ["M003"], ["M007"]),
        ("ravdess", ["Actor_01", "Actor_09"], ["Actor_01"], []),
        # Nobody else: somebody must train.
        ("mead", ["M003", "W029"], [], ["W029"]),
        ("mead", ["M003"], [], []),
        # The names mean nothing in data of other layouts.
        ("list", ["M003", "M005"], [], ["M005"]),
    ],
)
def test_speakers_whom_the_papers_report_on_are_in_neither_training_nor_validation(layout, speakers, test, validation):
    entries = clips(*speakers)
    assert of_split("test", entries, layout=layout) == test
    assert held_out(entries, layout=layout) == validation
    assert of_split("train", entries, layout=layout) == sorted({*speakers} - {*test} - {*validation})


def test_nothing_is_selected_by_a_test_speaker_unless_others_are_named():
    entries = clips(*MEAD)
    with pytest.raises(InputError, match=r"--validation-speakers M003, W015: test speakers.*--test-speakers"):
        assign_splits(entries, layout="mead", validation_speakers=("W015", "M003", "M005"))
    chosen = {"layout": "mead", "validation_speakers": ("M003",), "test_speakers": ("M005", "M007")}
    assert of_split("test", entries, **chosen) == ["M005", "M007"] and held_out(entries, **chosen) == ["M003"]
    nobody = {"layout": "mead", "validation_speakers": ("M003",), "test_speakers": ()}
    assert of_split("test", entries, **nobody) == [] and held_out(entries, **nobody) == ["M003"]
    with pytest.raises(InputError, match="--test-speakers X: not among"):
        assign_splits(entries, layout="mead", test_speakers=("X",))
    with pytest.raises(InputError, match="none is left to train on"):
        assign_splits(clips("A", "B"), test_speakers=("A", "B"))
    with pytest.raises(InputError, match="none is left to train on"):
        assign_splits(clips("A", "B"), test_speakers=("A",), validation_speakers=("B",))


def test_a_list_may_mark_clips_to_report_on():
    listed = [*clips("A", split="test"), *clips("B", "C")]
    assert of_split("test", listed) == ["A"] and held_out(listed) == ["C"]
    assert of_split("test", listed, validation_speakers=("B",)) == ["A"]
    with pytest.raises(InputError, match="none is left to train on"):
        assign_splits(clips("A", split="test"))
    assert of_split("train", listed, test_speakers=("B",)) == ["A"]
