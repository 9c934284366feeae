"""Sound at the video's frames: where features are taken, and what counts as silence."""

import numpy as np

from data_prep.media.audio import SUBFRAMES, frame_features, loudness_db, mfcc
from data_prep.media.decode import SAMPLE_RATE, Sound


def tone(hertz, seconds, loud=0.5):
    return (loud * np.sin(2 * np.pi * hertz * np.arange(int(seconds * SAMPLE_RATE)) / SAMPLE_RATE)).astype(np.float32)


def test_a_full_scale_tone_is_three_decibels_below_full_scale():
    np.testing.assert_allclose(loudness_db(tone(1000, 0.5, loud=1.0)), 10 * np.log10(0.5), atol=0.05)


def test_mfcc_do_not_depend_on_loudness_but_for_the_first():
    rng = np.random.default_rng(0)
    samples = rng.standard_normal(8000).astype(np.float32) * 0.1
    loud, quiet = mfcc(samples), mfcc(samples * 0.1)
    np.testing.assert_allclose(
        loud[:, 1:], quiet[:, 1:], atol=1e-3
    )  # the floor under the logarithm moves them a little
    # Twenty decibels in each of 40 filters, through the orthonormal transform.
    np.testing.assert_allclose(loud[:, 0] - quiet[:, 0], 2 * np.log(10) * np.sqrt(40), rtol=1e-4)


def test_silence_is_told_from_tone_at_the_right_frames():
    samples = np.concatenate(
        [np.zeros(4800, np.float32), tone(440, 0.4), np.zeros(3200, np.float32)]
    )  # 0.3, 0.4, 0.2 s
    heard = frame_features(Sound(samples, 0.0), np.arange(27) / 30)
    spoken = np.flatnonzero(~heard.silent)
    # A window of 25 ms reaches the tone up to 12 ms early, one third of a frame.
    np.testing.assert_allclose(spoken[[0, -1]], [9 * SUBFRAMES, 21 * SUBFRAMES - 1], atol=1)
    assert (np.diff(spoken) == 1).all()


def test_a_later_start_of_the_sound_shifts_its_frames():
    samples = np.concatenate([np.zeros(4800, np.float32), tone(440, 0.4), np.zeros(4800, np.float32)])
    at_start = frame_features(Sound(samples, 0.0), np.arange(30) / 30)
    later = frame_features(Sound(samples, 0.1), np.arange(33) / 30)
    np.testing.assert_array_equal(np.flatnonzero(~later.silent), np.flatnonzero(~at_start.silent) + 3 * SUBFRAMES)
    np.testing.assert_allclose(later.features[3 * SUBFRAMES :], at_start.features, atol=1e-4)


def test_frames_of_uneven_length_are_heard_at_their_own_middles():
    rng = np.random.default_rng(1)
    samples = np.convolve(rng.standard_normal(24000), np.ones(8) / 8, "same").astype(np.float32)
    fine = frame_features(Sound(samples, 0.0), np.arange(300) / 200)
    starts = np.array([0, 1, 2, 6, 8, 10, 20])  # in frames of 1/40 s, that is fifteen fine thirds
    uneven = frame_features(Sound(samples, 0.0), starts / 40)
    lengths = np.append(np.diff(starts), 10)
    middles = (starts[:, None] + lengths[:, None] * np.array([1, 3, 5]) / 6).ravel() * 15 - 0.5
    low = np.floor(middles + 1e-9).astype(int)
    share = (middles - low)[:, None]
    expected = (1 - share) * fine.features[low] + share * fine.features[low + 1]
    # Both interpolate the same features 5 ms apart; between two of them at most once with a kink.
    np.testing.assert_allclose(uneven.features, expected, atol=0.05)


def test_the_last_bits_of_16_bit_sound_are_silence_and_a_whisper_is_not():
    noise = np.random.default_rng(0).standard_normal(16000).astype(np.float32)
    times_s = np.arange(10) / 30
    assert frame_features(Sound(noise / 2**15, 0.0), times_s).silent.all()
    # The first third of the first frame lies before the middle of the first window.
    assert not frame_features(Sound(noise * 1e-3, 0.0), times_s).silent[1:].any()


def test_a_silent_or_very_short_track_gives_silent_frames_and_finite_features():
    for samples in (np.zeros(16000, np.float32), np.zeros(10, np.float32)):
        heard = frame_features(Sound(samples, 0.0), np.arange(10) / 30)
        assert heard.silent.all()
        assert np.isfinite(heard.features).all()
