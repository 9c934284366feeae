"""Frames that pass by in segments give what whole clips give, at either rate."""

import numpy as np
import pytest

from data_prep.evaluate import lip_sync_scores as tested
from data_prep.evaluate.inputs import read_clips
from data_prep.evaluate.landmark_sources import LandmarkFinder
from data_prep.evaluate.lip_sync import (
    aligned_face_crops,
    face_boxes,
    lip_sync_of_clip,
    nearest_frames,
    sound_columns,
    syncnet_crops,
)
from data_prep.evaluate.score_cache import Fingerprints, ScoreCache
from data_prep.evaluate.video_features import read_features
from data_prep.media.decode import SAMPLE_RATE, Sound, read_frames, read_sound
from data_prep.media.landmarks import LandmarkSettings
from tests.data_prep.evaluate.tiny_clips import brightness_networks, write_clip

FRAMES = 40


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    folder = tmp_path_factory.mktemp("clip")
    write_clip(folder, "talk_happy", frames=FRAMES)
    given = read_clips(folder, "--fake").clips[0].clip
    finder = LandmarkFinder(["precomputed"], LandmarkSettings(folder), Fingerprints())
    cache = ScoreCache(folder / "work")
    return given, read_features(given, "key", finder.choose(given), (), cache, crop=False), cache


@pytest.mark.parametrize("protocol", tested.PROTOCOLS, ids=lambda one: one.name)
def test_segments_give_what_the_whole_clip_gives(clip, protocol, monkeypatch):
    given, features, cache = clip
    monkeypatch.setattr(tested, "_SEGMENT_FRAMES", 7)
    sound = read_sound(given.video)
    network = brightness_networks().sync
    values, lacking = tested.lip_sync_scores(given.video, features, sound, f"s{protocol.name}", network, cache)
    assert not lacking
    images = [frame.image for frame in read_frames(given.video)]
    rows = nearest_frames(features.times_s, protocol.rate_fps)
    if protocol.name == "25fps":
        whole = syncnet_crops([images[row] for row in rows], face_boxes(features.landmarks)[rows])
    else:
        whole = aligned_face_crops([images[row] for row in rows])
    shift = round(sound.start_s * SAMPLE_RATE)
    samples = np.pad(sound.samples, (max(shift, 0), 0))[max(-shift, 0) :]
    expected = lip_sync_of_clip(whole, sound_columns(samples, protocol), network.lips, network.sound)
    found = values[f"lse_d_{protocol.name}"], values[f"lse_c_{protocol.name}"]
    # The same numbers, but for the order of sums in float64.
    np.testing.assert_allclose(found, (expected.lse_d, expected.lse_c), rtol=1e-9, atol=1e-9)


def test_too_short_a_sound_is_a_reason_not_an_error(clip):
    given, features, cache = clip
    sound = Sound(np.zeros(1000, np.float32), 0.0)
    values, lacking = tested.lip_sync_scores(given.video, features, sound, "short", brightness_networks().sync, cache)
    assert not values
    assert all("lip synchrony needs" in reason for reason in lacking.values())
