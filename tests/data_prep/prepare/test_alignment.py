"""Audio alignment: the shortest path against plain DTW, its limits, and its error on voices of known timing."""

import numpy as np
import pytest

from asccl_jax.data.schema import EMOTIONS
from data_prep.media.audio import SUBFRAMES, SpeechFeatures, frame_features
from data_prep.media.decode import Sound
from data_prep.prepare.alignment import AlignmentSettings, UnalignableError, align_speech, cosine_costs, shortest_path
from data_prep.synthetic.people import sample_person
from data_prep.synthetic.speech import deliver, make_sentence, speak
from tests.data_prep.tiny_media import voice

RNG = np.random.default_rng(3)


def naive_dtw(costs, gap_penalty):
    rows, columns = costs.shape
    total = np.full((rows, columns), np.inf)
    total[0, 0] = costs[0, 0]
    for i in range(rows):
        for j in range(columns):
            before = []
            if i and j:
                before.append(total[i - 1, j - 1])
            if i:
                before.append(total[i - 1, j] + gap_penalty)
            if j:
                before.append(total[i, j - 1] + gap_penalty)
            if before:
                total[i, j] = costs[i, j] + min(before)
    return total[-1, -1]


def price(path, costs, gap_penalty):
    steps = np.diff(path, axis=0)
    return costs[path[:, 0], path[:, 1]].sum() + gap_penalty * (steps.sum(axis=1) == 1).sum()


def longest_run(path, step):
    longest = run = 0
    for taken in np.diff(path, axis=0).tolist():
        run = run + 1 if taken == list(step) else 0
        longest = max(longest, run)
    return longest


@pytest.mark.parametrize(("rows", "columns"), [(1, 1), (1, 6), (7, 1), (9, 9), (12, 23), (30, 17)])
@pytest.mark.parametrize("gap_penalty", [0.0, 0.1])
def test_without_limits_the_path_is_that_of_plain_dtw(rows, columns, gap_penalty):
    costs = RNG.uniform(0, 1, (rows, columns))
    path, cost = shortest_path(costs, gap_penalty=gap_penalty)
    assert cost == pytest.approx(naive_dtw(costs, gap_penalty), rel=1e-12)
    assert cost == pytest.approx(price(path, costs, gap_penalty), rel=1e-12)
    assert path[0].tolist() == [0, 0]
    assert path[-1].tolist() == [rows - 1, columns - 1]
    assert {tuple(step) for step in np.diff(path, axis=0).tolist()} <= {(0, 1), (1, 0), (1, 1)}


def test_equal_costs_prefer_the_diagonal():
    path, _ = shortest_path(np.zeros((5, 5)))
    assert path.tolist() == [[i, i] for i in range(5)]


def all_paths(rows, columns):
    if (rows, columns) == (1, 1):
        return [[(0, 0)]]
    shorter = [(rows - 1, columns - 1), (rows - 1, columns), (rows, columns - 1)]
    return [[*path, (rows - 1, columns - 1)] for r, c in shorter if r and c for path in all_paths(r, c)]


@pytest.mark.parametrize("max_hold", [1, 2, 3])
def test_the_limited_path_is_the_cheapest_of_all_that_obey(max_hold):
    costs = RNG.uniform(0, 1, (5, 7))
    allowed = [
        price(np.array(path), costs, 0.05)
        for path in all_paths(5, 7)
        if max(longest_run(np.array(path), step) for step in ((1, 0), (0, 1))) <= max_hold
    ]
    path, cost = shortest_path(costs, max_hold=max_hold, gap_penalty=0.05)
    assert cost == pytest.approx(min(allowed), rel=1e-12)
    assert max(longest_run(path, step) for step in ((1, 0), (0, 1))) <= max_hold


def test_the_band_holds_where_the_costs_pull_out_of_it():
    rows, columns = 60, 90
    costs = np.ones((rows, columns))
    costs[:, 0], costs[-1, :] = 0, 0  # free along two sides of the square
    free, _ = shortest_path(costs)
    banded, _ = shortest_path(costs, band=6)

    def reach(path):
        return np.abs(path[:, 0] * (columns - 1) / (rows - 1) - path[:, 1]).max()

    assert reach(free) > 80
    assert reach(banded) <= 6


def test_the_limit_on_held_frames_stretches_at_most_so_far():
    costs = RNG.uniform(0, 1, (10, 28))
    path, _ = shortest_path(costs, max_hold=2)  # 9 diagonal steps and 18 others: the only way is two in a row
    assert longest_run(path, (0, 1)) == 2
    with pytest.raises(UnalignableError, match="no path"):
        shortest_path(RNG.uniform(0, 1, (10, 31)), max_hold=2)


def test_cosine_costs_are_those_of_the_formula():
    query, key = RNG.standard_normal((4, 5)), RNG.standard_normal((6, 5))
    expected = [[1 - q @ k / np.linalg.norm(q) / np.linalg.norm(k) for k in key] for q in query]
    np.testing.assert_allclose(cosine_costs(query, key), expected, rtol=1e-6)


def heard(samples, frames, fps=30):
    return frame_features(Sound(samples, 0.0), np.arange(frames) / fps)


def alignment_error(query_moments, key_moments, query, key, fps=30):
    """Mean distance in the sentence's own time between paired frames, in frames."""
    return np.abs(query_moments[query] - key_moments[key]).mean() * fps


def stretched_error(query_moments, key_moments):
    """Error of pairing frames along the straight line."""
    line = np.linspace(0, [len(query_moments) - 1, len(key_moments) - 1], max(len(query_moments), len(key_moments)))
    return alignment_error(query_moments, key_moments, *line.round().astype(int).T)


def test_humming_of_known_timing_aligns_within_three_tenths_of_a_frame():
    errors, stretched = [], []
    for sentence in range(6):
        for pitch_hz, key_pitch_hz in ((110, 130), (210, 190)):
            samples, moments = voice(sentence, pitch_hz=pitch_hz)
            key_samples, key_moments = voice(sentence, tempo=sentence + 50, pitch_hz=key_pitch_hz)
            path = align_speech(heard(samples, len(moments)), heard(key_samples, len(key_moments)))
            errors.append(alignment_error(moments, key_moments, path.query, path.key))
            stretched.append(stretched_error(moments, key_moments))
    assert np.mean(errors) <= 0.3
    assert np.mean(errors) < 0.5 * np.mean(stretched)


def test_synthetic_speech_aligns_within_three_tenths_of_a_frame_and_better_than_stretching():
    errors, stretched, covered = [], [], []
    people = [sample_person(seed) for seed in range(4)]
    for number in range(4):
        sentence, person = make_sentence(number), people[number % 4]
        neutral = deliver(sentence, "neutral")
        query = heard(speak(person, neutral), neutral.frame_count)
        query_moments = neutral.canonical_time(neutral.frame_times_s)
        for seed, emotion in enumerate(EMOTIONS[1:]):
            delivery = deliver(sentence, emotion, seed=seed)
            path = align_speech(query, heard(speak(person, delivery, seed=seed), delivery.frame_count))
            key_moments = delivery.canonical_time(delivery.frame_times_s)
            errors.append(alignment_error(query_moments, key_moments, path.query, path.key))
            stretched.append(stretched_error(query_moments, key_moments))
            covered.append(len(path.query) / min(neutral.frame_count, delivery.frame_count))
    # Whole frames alone cost 0.23 here: pairing the frames nearest in the true time.
    assert np.mean(errors) <= 0.3
    assert np.mean(errors) < 0.5 * np.mean(stretched)
    assert np.mean(np.array(errors) < stretched) >= 0.95
    assert np.mean(covered) >= 0.9  # not by leaving out what is hard


def silent_and_spoken(parts):
    """Features that tell each third of a spoken frame apart; negative lengths, in frames, are silence."""
    silent = np.concatenate([np.full(abs(length) * SUBFRAMES, length < 0) for length in parts])
    spoken = np.cumsum(~silent) / SUBFRAMES
    features = np.stack([np.cos(0.5 * spoken), np.sin(0.5 * spoken), np.cos(0.21 * spoken), np.sin(0.21 * spoken)], 1)
    return SpeechFeatures(features=features.astype(np.float32), silent=silent)


def test_silences_of_other_lengths_move_no_speech_and_are_left_out():
    query, key = silent_and_spoken([-3, 20, -2, 15, -5]), silent_and_spoken([-40, 20, -60, 15, -30])
    path = align_speech(query, key)
    # Speech meets speech, frame by frame: the first part starts at 3 and 40, the second at 25 and 120.
    pairs = set(zip(path.query.tolist(), path.key.tolist(), strict=True))
    assert {(3 + i, 40 + i) for i in range(20)} | {(25 + i, 120 + i) for i in range(15)} <= pairs
    # Of the long silences only their edges are paired, and no frame twice.
    assert len(path.key) <= 35 + 3 * 4
    assert min(np.diff(path.query).min(), np.diff(path.key).min()) >= 1


def test_silence_before_and_after_speech_is_cut_to_the_same_length():
    query, key = silent_and_spoken([-1, 20, -30]), silent_and_spoken([-25, 20, -2])
    path = align_speech(query, key)
    np.testing.assert_array_equal(path.query, np.arange(23))
    np.testing.assert_array_equal(path.key, 24 + np.arange(23))


def slowed(features, factor):
    """The same speech, each place lasting `factor` times as long."""
    places = (np.arange(int(len(features.silent) * factor)) / factor).astype(int)
    places = places[: len(places) // SUBFRAMES * SUBFRAMES]
    return SpeechFeatures(features=features.features[places], silent=features.silent[places])


@pytest.mark.parametrize("factor", [1.5, 2.0])
def test_slower_speech_gives_each_frame_its_nearest_and_none_twice(factor):
    query = silent_and_spoken([40])
    path = align_speech(query, slowed(query, factor))
    np.testing.assert_array_equal(path.query, np.arange(40))
    middles = (np.arange(40) + 0.5) * factor - 0.5
    assert np.abs(path.key - middles).max() <= 0.5 + 1 / SUBFRAMES
    back = align_speech(slowed(query, factor), query)
    np.testing.assert_array_equal(back.query, path.key)
    np.testing.assert_array_equal(back.key, path.query)


def test_a_silent_clip_and_unlike_lengths_are_refused_by_name():
    spoken = silent_and_spoken([30])
    with pytest.raises(UnalignableError, match="silent sound track"):
        align_speech(spoken, silent_and_spoken([-30]))
    with pytest.raises(UnalignableError, match="30 and 100 frames: too unlike in length"):
        align_speech(spoken, silent_and_spoken([100]))


def test_other_words_cost_more_than_the_same():
    def features(sentence, tempo):
        samples, moments = voice(sentence, tempo=tempo)
        return heard(samples, len(moments))

    same = [align_speech(features(s, None), features(s, 90 + s)).cost for s in range(3)]
    other = [align_speech(features(s, None), features(s + 10, 90 + s), AlignmentSettings()).cost for s in range(3)]
    assert max(same) < 0.5 * min(other)
