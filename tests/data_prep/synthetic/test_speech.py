"""Speech: deliveries say the same at the same canonical time, sound lasts as long as the video, seeds decide all."""

import numpy as np
import pytest

from data_prep.synthetic.people import sample_person
from data_prep.synthetic.speech import POSE_SPREAD_RAD, act, random_stance
from data_prep.synthetic.speech import deliver, make_sentence, speech_distance
from data_prep.synthetic.speech import SAMPLE_RATE, speak


@pytest.mark.parametrize("emotion", ["angry", "sad", "surprised"])
def test_deliveries_say_the_same_at_equal_canonical_times(emotion):
    sentence = make_sentence(7)
    neutral, emotional = deliver(sentence, "neutral"), deliver(sentence, emotion, seed=4)
    time = neutral.canonical_time(neutral.frame_times_s)
    np.testing.assert_allclose(time, neutral.frame_times_s, atol=1e-9)  # the neutral delivery is canonical
    own = np.linspace(0, emotional.bounds_s[-1], 400)
    canonical = emotional.canonical_time(own)
    assert (np.diff(canonical) > 0).all()
    np.testing.assert_allclose(emotional.canonical_time(emotional.bounds_s), sentence.bounds_s, atol=1e-9)
    np.testing.assert_array_equal(emotional.mouth(), sentence.mouth(emotional.canonical_time(emotional.frame_times_s)))
    assert np.abs(canonical - own * canonical[-1] / own[-1]).max() * 30 > 0.4, "more than a linear stretch"


def test_performance_carries_the_truth_of_its_delivery():
    sentence = make_sentence(3)
    delivery = deliver(sentence, "happy", seed=9)
    performance = act(delivery, seed=9)
    np.testing.assert_array_equal(performance.speech, delivery.mouth())
    np.testing.assert_allclose(performance.speech, sentence.mouth(performance.canonical_time_s), atol=1e-12)
    np.testing.assert_array_equal(performance.pose[:, 2, 0], performance.speech[:, 0])
    assert performance.intensity.min() > 0.5 and performance.intensity.max() < 1.2
    assert not act(deliver(sentence, "neutral"), seed=9).intensity.any()


def test_pose_blink_and_intensity_are_independent_of_speech_and_emotion():
    turns = [act(deliver(make_sentence(k), "sad", seed=k), seed=k).pose[:, 1] for k in range(80)]
    # 80 clips: a standard deviation is known to 8 %.
    np.testing.assert_allclose(np.concatenate(turns).std(axis=0), POSE_SPREAD_RAD, rtol=0.25)
    stances = np.array([random_stance(np.random.default_rng(k))[0] for k in range(400)])
    np.testing.assert_allclose(stances.std(axis=0), POSE_SPREAD_RAD, rtol=0.12)
    blinks = [act(deliver(make_sentence(k), "sad", seed=k), seed=k).blink.max() for k in range(40)]
    assert 0.1 < np.mean(np.array(blinks) > 0.5) < 0.95


@pytest.mark.parametrize("emotion", ["neutral", "angry"])
def test_sound_lasts_exactly_as_long_as_the_video(emotion):
    delivery = deliver(make_sentence(2), emotion, seed=1)
    sound = speak(sample_person(1), delivery)
    assert len(sound) == round(delivery.frame_count / delivery.fps * SAMPLE_RATE)
    assert np.isfinite(sound).all() and 0.2 < np.abs(sound).max() <= 1.0


def test_sound_is_loud_in_vowels_and_quiet_in_silence():
    sentence = make_sentence(5)
    delivery = deliver(sentence, "neutral")
    sound = speak(sample_person(0), delivery)
    loudness = {}
    for name, start, end in zip(sentence.sounds, delivery.bounds_s[:-1], delivery.bounds_s[1:], strict=True):
        inner = sound[int((start + 0.03) * SAMPLE_RATE) : int((end - 0.03) * SAMPLE_RATE)]
        loudness.setdefault(name in "aeiou", []).append(np.sqrt(np.mean(inner**2)) if name != "silence" else None)
        if name == "silence":
            loudness.setdefault("silence", []).append(np.sqrt(np.mean(inner**2)))
    assert np.mean(loudness[True]) > 10 * np.mean(loudness["silence"])


def test_seeds_decide_sentences_timing_and_sound():
    assert make_sentence(4).sounds == make_sentence(4).sounds != make_sentence(5).sounds
    assert make_sentence(4, seed=1).sounds != make_sentence(4).sounds
    one, two = deliver(make_sentence(4), "fear", seed=1), deliver(make_sentence(4), "fear", seed=2)
    assert not np.allclose(one.bounds_s, two.bounds_s)
    np.testing.assert_array_equal(speak(sample_person(2), one, seed=3), speak(sample_person(2), one, seed=3))


def test_speech_distance_is_in_units_of_the_spread_of_speech():
    tracks = np.concatenate([deliver(make_sentence(k), "neutral").mouth() for k in range(60)])
    spread = speech_distance(np.diag(tracks.std(axis=0)), np.zeros((4, 4)))
    np.testing.assert_allclose(2 * spread, 1, atol=0.15)  # one of four channels moved; SPEECH_SCALE is rounded
