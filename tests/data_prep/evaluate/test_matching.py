"""Each manipulated clip finds its source and truth, by name or by what is said; doubt is a refusal."""

from data_prep.evaluate.inputs import read_clips
from data_prep.evaluate.matching import match_clips, one_spelling_of_speakers
from tests.data_prep.evaluate.tiny_clips import write_list


def sets(tmp_path, fake, source, real=(("r.mp4", "Ann", "happy", "s1"),)):
    found = []
    for name, rows in (("fake", fake), ("source", source), ("real", real)):
        write_list(tmp_path / name, *rows)
        for row in rows:
            (tmp_path / name / row[0]).touch()
        found.append(read_clips(tmp_path / name, f"--{name}"))
    return found


def test_a_source_is_found_by_speaker_and_sentence_the_neutral_one_first(tmp_path):
    fake, source, real = sets(
        tmp_path,
        [("a.mp4", "Ann", "happy", "s1"), ("b.mp4", "Ann", "sad", "s9")],
        [("n.mp4", "Ann", "neutral", "s1"), ("h.mp4", "Ann", "happy", "s1"), ("m.mp4", "Bob", "neutral", "s1")],
    )
    (first, second), problems = match_clips(fake, source, real)
    assert not problems
    assert (first.source.clip_id, first.truth.clip_id) == ("Ann/neutral/s1", "Ann/happy/s1")
    assert (second.source, second.truth) == (None, None)
    assert "no clip of Ann saying s9" in second.remark
    (first, _), _ = match_clips(fake, source, real, prefer="same")
    assert first.source.clip_id == "Ann/happy/s1"


def test_a_list_names_sources_by_id_path_or_file_name(tmp_path):
    rows = [("Ann/neutral/s2", "s1"), ("../source/m.mp4", "s2"), ("m.mp4", "s3"), ("nowhere", "s4")]
    fake, source, real = sets(
        tmp_path,
        [(f"{sentence}.mp4", "Ann", "happy", sentence, name) for name, sentence in rows],
        [("n.mp4", "Ann", "neutral", "s1"), ("m.mp4", "Ann", "neutral", "s2")],
    )
    matched, (problem,) = match_clips(fake, source, real)
    assert [one.source.clip_id for one in matched] == ["Ann/neutral/s2"] * 3
    assert problem.subject == "Ann/happy/s4"
    assert "'nowhere': neither a clip of --source" in problem.reason


def test_several_fitting_sources_ask_for_a_name(tmp_path):
    fake, source, real = sets(
        tmp_path,
        [("a.mp4", "Ann", "happy", "s1")],
        [("n.mp4", "Ann", "sad", "s1"), ("m.mp4", "Ann", "angry", "s1")],
    )
    matched, (problem,) = match_clips(fake, source, real)
    assert not matched
    assert "name one in a column `source`" in problem.reason


def test_without_sources_the_list_may_name_a_video(tmp_path):
    fake, source, real = sets(
        tmp_path, [("a.mp4", "Ann", "happy", "s1", "../source/n.mp4")], [("n.mp4", "X", "sad", "s")]
    )
    del source
    (one,), _ = match_clips(fake, None, real)
    assert one.source.video.resolve() == tmp_path / "source/n.mp4"


def test_a_single_source_video_serves_all(tmp_path):
    fake, _, real = sets(tmp_path, [("a.mp4", "Ann", "happy", "s1")], [("talk.mp4", "X", "sad", "s")])
    single = read_clips(tmp_path / "source/talk.mp4", "--source", default_emotion="neutral")
    (one,), _ = match_clips(fake, single, real)
    assert one.source.video == tmp_path / "source/talk.mp4"


def test_speakers_and_sentences_may_be_spelled_differently_on_each_side(tmp_path):
    fake, source, real = sets(
        tmp_path,
        [("a.mp4", "ANNA", "happy", "hello"), ("b.mp4", "anna", "sad", "x", "Anna/Neutral/Hello!")],
        [("n.mp4", "Anna", "neutral", "Hello.")],
    )
    fake, real, source = one_spelling_of_speakers(fake, real, source)
    matched, problems = match_clips(fake, source, real)
    assert not problems and [one.source.video.name for one in matched] == ["n.mp4", "n.mp4"]
