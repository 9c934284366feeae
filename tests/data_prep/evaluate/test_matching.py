"""Each manipulated clip finds its source and truth, by name or by what is said; doubt is a refusal."""

import numpy as np
import pytest

from data_prep.evaluate.inputs import read_clips
from data_prep.evaluate.matching import (
    ClipClock,
    alike,
    match_clips,
    nearest_rows,
    one_spelling_of_speakers,
    sound_shift,
)
from data_prep.evaluate.scored_clips import _lag, beside
from data_prep.media.decode import SAMPLE_RATE, Sound
from tests.data_prep.evaluate.tiny_clips import course, face, write_list


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


SPEECH = np.random.default_rng(0).normal(size=SAMPLE_RATE).astype(np.float32) * np.float32(0.1)


class Seen:
    """What the lag is read off: landmarks and times."""

    def __init__(self, times_s, openings):
        self.clock = ClipClock(np.asarray(times_s, np.float64))
        self.landmarks = np.stack([face(opening) for opening in openings])
        self.frames = len(self.landmarks)


def at_rate(fps, frames):
    return np.arange(frames) / fps


def lag_ms(fake, shift_s=0.0):
    source = Seen(at_rate(30, 40), course(40))
    return _lag(source, fake, shift_s)[0]["lag_ms"]


@pytest.mark.parametrize("late_s", [0.2, 0.0, -0.35])
def test_the_same_sound_is_found_wherever_it_lies(late_s):
    padded = np.r_[np.zeros(round(max(late_s, 0) * SAMPLE_RATE), np.float32), SPEECH]
    inside = sound_shift(Sound(SPEECH, 0.0), Sound(padded[round(max(-late_s, 0) * SAMPLE_RATE) :], 0.0))
    told = sound_shift(Sound(SPEECH, 0.0), Sound(SPEECH, late_s))
    assert inside == pytest.approx(late_s, abs=1e-4) and told == pytest.approx(late_s, abs=1e-4)


def test_other_sounds_and_silence_have_no_shift():
    other = np.random.default_rng(1).normal(size=SAMPLE_RATE).astype(np.float32)
    assert sound_shift(Sound(SPEECH, 0.0), Sound(other, 0.0)) is None
    assert sound_shift(Sound(SPEECH, 0.0), Sound(np.zeros(SAMPLE_RATE, np.float32), 0.0)) is None


def test_only_the_loudest_minute_is_compared_and_still_says_where_all_of_it_lies():
    long = np.concatenate([np.zeros(20 * SAMPLE_RATE, np.float32), *[SPEECH * gain for gain in np.linspace(1, 2, 70)]])
    noise = np.random.default_rng(2).normal(size=len(long)).astype(np.float32) * np.float32(0.05)
    assert sound_shift(Sound(long + noise, 0.0), Sound(long, 0.25)) == pytest.approx(0.25, abs=1e-4)


def test_frames_of_another_rate_lie_beside_those_of_their_time():
    pairs = beside(ClipClock(at_rate(25, 50)), ClipClock(at_rate(30, 60)), 0.0)
    assert len(pairs.rows) == 50 and np.abs(pairs.rows / 25 - pairs.source_rows / 30).max() <= 1 / 60 + 1e-9
    late = beside(ClipClock(at_rate(30, 60)), ClipClock(at_rate(30, 60)), -0.2)
    np.testing.assert_array_equal(late.source_rows - late.rows, np.full(54, 6))
    # A codec's twenty milliseconds are no frame.
    np.testing.assert_array_equal(
        beside(ClipClock(at_rate(30, 60)), ClipClock(at_rate(30, 60)), 0.02).source_rows, range(60)
    )


def test_dropped_and_doubled_frames_do_not_move_the_others():
    times = np.delete(at_rate(30, 40), [5, 6, 20])
    pairs = beside(ClipClock(times), ClipClock(at_rate(30, 40)), 0.0)
    np.testing.assert_array_equal(pairs.source_rows, np.delete(np.arange(40), [5, 6, 20]))
    assert lag_ms(Seen(times, np.delete(course(40), [5, 6, 20]))) == 0
    doubled = nearest_rows(ClipClock(at_rate(30, 40)), at_rate(60, 80))
    assert np.bincount(doubled).max() == 2 and doubled[-1] == 39


def test_a_lag_counts_the_shift_of_the_sound():
    exact = Seen(at_rate(30, 40), course(40))
    assert lag_ms(exact) == 0
    assert lag_ms(exact, -0.2) == 200  # the picture is late
    assert lag_ms(exact, 0.2) == -200
    late = Seen(at_rate(30, 40), course(40, 3))
    assert (lag_ms(late), lag_ms(late, 0.1)) == (100, 0)  # both are late


def test_a_slower_pace_is_a_lag_and_the_same_speech_at_another_rate_is_none():
    slow = Seen(at_rate(25, 40), course(40))
    assert lag_ms(slow) == pytest.approx(1000 * np.mean(at_rate(25, 40) - at_rate(30, 40)), abs=0.1)
    rows = nearest_rows(ClipClock(at_rate(30, 40)), at_rate(25, 33))
    assert lag_ms(Seen(at_rate(25, 33), course(40)[rows])) == 0
    assert not alike(slow.clock, ClipClock(at_rate(30, 40)))
    uneven = at_rate(30, 40) + 0.004 * np.sin(np.arange(40)) * (np.arange(40) > 0)
    assert alike(ClipClock(uneven), ClipClock(at_rate(30, 40)))
