"""Code dicts of synthetic tracks put the built-in head, as the bridge poses it, where the synthetic speaker is."""

import numpy as np
import torch
from asccl_jax.data.codes import CodeDict
from asccl_jax.data.tracks import codes_path
from data_prep.synthetic.head import build_head
from data_prep.synthetic.speech import act
from data_prep.synthetic.speech import deliver, make_sentence
from data_prep.synthetic.tracks import TrackSetSettings, plan_tracks, write_track_set
from DECA_torch_bridge.flame import to_image_space
from DECA_torch_bridge.flame import Flame
from data_prep.head_fit.head_assets import builtin_assets
import dataclasses
import pytest
from threadpoolctl import threadpool_limits
from asccl_jax.data.schema import EMOTIONS
from asccl_jax.data.tracks import TYPICAL_INTENSITY, read_tracks, read_truth
from asccl_jax.errors import InputError
from data_prep.synthetic import tracks as synthetic_tracks
from data_prep.synthetic.__main__ import main
from data_prep.synthetic.action_units import ACTION_UNITS, EMOTION_UNITS
from data_prep.synthetic.speech import INTENSITY, act, compose

def test_the_bridge_poses_the_head_as_it_was_acted(tmp_path):
    settings = TrackSetSettings(speakers=1, validation_speakers=0, sentences=1, syllables=(1, 1))
    list(write_track_set(settings, tmp_path))
    plan = plan_tracks(settings)[4]
    codes = CodeDict.load(codes_path(tmp_path, plan.clip))
    sentence = make_sentence(plan.sentence, seed=0, syllables=(1, 1))
    performance = act(deliver(sentence, plan.emotion, seed=plan.seed), seed=plan.seed)

    head, frames = build_head(), [0, 8, len(codes) - 1]
    flame = Flame(builtin_assets())
    fields = (torch.from_numpy(getattr(codes[frames], name)) for name in ("shape", "exp", "pose"))
    found = to_image_space(flame(*fields).vertices, torch.from_numpy(codes.cam[frames])).numpy()
    skin = head.weights[:, [0, 3, 4]].sum(axis=1) == 0  # neither the neck's foot nor the eyes
    assert skin.sum() > 5000
    scale = codes.cam[0, 0]
    acted = [
        head.posed(codes.shape[0], performance.expression[frame], performance.pose[frame])[skin, :2] * (scale, -scale)
        for frame in frames
    ]
    fixed = (found[0, skin, :2] - acted[0]).mean(axis=0)  # where the camera stands
    for row, expected in enumerate(acted):
        # -1..1 across the crop: 1e-5 is a thousandth of a pixel.
        np.testing.assert_allclose(found[row, skin, :2], expected + fixed, rtol=0, atol=1e-5)
    turn = performance.pose[frames, 1]
    assert np.abs(turn[-1] - turn[0]).max() > 5e-3  # it did turn


def test_the_face_at_rest_fills_the_crop_as_deca_frames_it(tmp_path):
    settings = TrackSetSettings(speakers=1, validation_speakers=0, sentences=1, syllables=(1, 1))
    list(write_track_set(settings, tmp_path))
    codes = CodeDict.load(codes_path(tmp_path, plan_tracks(settings)[0].clip))[:1]
    output = Flame(builtin_assets())(torch.from_numpy(codes.shape), torch.zeros(1, 50), torch.zeros(1, 6))
    landmarks = to_image_space(output.landmarks2d, torch.from_numpy(codes.cam))[0, :, :2].numpy()
    low, high = landmarks.min(axis=0), landmarks.max(axis=0)
    # DECA: the crop, 2 wide, is 1.1 x 1.25 times the mean side of the landmarks' box, which is in its middle.
    assert 0.9 < (high - low).mean() * 1.1 * 1.25 / 2 < 1.1
    assert np.abs(low + high).max() / 2 < 0.1


TINY = TrackSetSettings(
    speakers=2, validation_speakers=1, sentences=1, validation_sentences=2, syllables=(1, 2), seed=3
)


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    directory = tmp_path_factory.mktemp("synthetic") / "tracks"
    words = ["tracks", "--output", str(directory), "--seed", "3", "--speakers", "2", "--validation-speakers", "1"]
    words += ["--sentences", "1", "--validation-sentences", "2", "--syllables", "1", "2", "--quiet"]
    assert main(words) == 0
    return directory


def test_every_speaker_says_sentences_of_their_own_in_all_emotions():
    plans = plan_tracks(TrackSetSettings())
    assert len(plans) == (24 * 4 + 6 * 2) * 7
    assert len({plan.clip for plan in plans}) == len({plan.seed for plan in plans}) == len(plans)
    for sentence in {plan.sentence for plan in plans}:
        said = [plan for plan in plans if plan.sentence == sentence]
        assert len({plan.speaker for plan in said}) == 1
        assert tuple(plan.emotion for plan in said) == EMOTIONS
    speakers = {split: {plan.speaker for plan in plans if plan.split == split} for split in ("train", "validation")}
    assert [len(names) for names in speakers.values()] == [24, 6]
    assert not speakers["train"] & speakers["validation"]
    others = plan_tracks(TrackSetSettings(seed=1))
    assert not {plan.speaker for plan in plans} & {plan.speaker for plan in others}
    assert not {plan.seed for plan in plans} & {plan.seed for plan in others}


def test_tracks_are_what_was_acted(directory):
    tracks = {track.clip: track for track in read_tracks(directory)}
    plans = plan_tracks(TINY)
    assert set(tracks) == {plan.clip for plan in plans}
    for plan in plans:
        track = tracks[plan.clip]
        sentence = make_sentence(plan.sentence, seed=3, syllables=(1, 2))
        performance = act(deliver(sentence, plan.emotion, seed=plan.seed), seed=plan.seed)
        np.testing.assert_array_equal(track.coefficients[:, 1:], performance.expression)
        np.testing.assert_array_equal(track.coefficients[:, 0], performance.speech[:, 0].astype(np.float32))
        assert (track.split, track.speaker, track.emotion) == (plan.split, plan.speaker, plan.emotion)
        assert set(track.labels.tolist()) == {EMOTIONS.index(plan.emotion)}


def test_truth_differs_from_its_source_in_the_units_of_the_emotion_alone(directory):
    deliveries = read_truth(directory, intensity=1.0)
    assert len(deliveries) == TINY.validation_sentences
    for delivery in deliveries:
        assert delivery.source[:, 0].max() > 0.02  # the mouth does open
        for emotion, truth in delivery.truth.items():
            changed = set(np.flatnonzero(np.abs(truth - delivery.source).max(axis=0) > 1e-6) - 1)
            assert changed == {ACTION_UNITS.index(name) for name in EMOTION_UNITS[emotion]}
        constant = delivery.truth["happy"] - delivery.source
        # Speech keeps the mouth's corners: what an emotion adds is the same in every frame.
        np.testing.assert_allclose(constant[:, 1 + ACTION_UNITS.index("smile")], 1.05, rtol=0, atol=1e-6)


@pytest.mark.parametrize("intensity", [0.0, 0.6, 1.1])
def test_truth_of_any_intensity_is_what_would_be_acted(directory, intensity):
    plans = {plan.clip: plan for plan in plan_tracks(TINY)}
    for delivery in read_truth(directory, intensity=intensity):
        plan = plans[delivery.clip]
        sentence = make_sentence(plan.sentence, seed=3, syllables=(1, 2))
        done = act(deliver(sentence, "neutral", seed=plan.seed), seed=plan.seed)
        for emotion in EMOTIONS[1:]:
            expression, _ = compose(emotion, done.speech, intensity, done.blink, done.pose[:, 1])
            # Coefficients up to 1.4, rounded to float32 a few times.
            np.testing.assert_allclose(delivery.truth[emotion][:, 1:], expression, rtol=0, atol=5e-7)


def test_a_face_fills_the_crop_of_its_code_dict(directory):
    for delivery in read_truth(directory):
        scale, x, y = delivery.codes.cam.T
        assert ((scale > 8) & (scale < 14)).all()
        assert np.abs(x).max() < 0.02 and np.abs(y).max() < 0.06  # metres
        assert delivery.codes.shape.shape[1] == 100 and not np.ptp(delivery.codes.shape, axis=0).any()
        assert np.ptp(delivery.codes.pose[:, :3], axis=0).min() > 1e-4


def test_equal_settings_give_equal_files_on_any_number_of_threads(directory, tmp_path):
    synthetic_tracks._sitter.cache_clear()
    with threadpool_limits(4):
        frames = sum(write_track_set(TINY, tmp_path / "again"))
    files = sorted(path.relative_to(directory) for path in directory.rglob("*") if path.is_file())
    assert frames == sum(len(track) for track in read_tracks(directory))
    assert len(files) == len(plan_tracks(TINY)) + 2 * 6 + 1
    assert files == sorted(path.relative_to(tmp_path / "again") for path in (tmp_path / "again").rglob("*.*"))
    for file in files:
        assert (directory / file).read_bytes() == (tmp_path / "again" / file).read_bytes(), file


def test_other_settings_are_refused_in_a_used_directory(directory, capsys):
    with pytest.raises(InputError, match=r"other settings \(sentences\)"):
        list(write_track_set(dataclasses.replace(TINY, sentences=2), directory))
    assert main(["tracks", "--output", str(directory), "--quiet", "--speakers", "0"]) == 2
    assert "speakers 0: expected at least 1" in capsys.readouterr().err
    with pytest.raises(InputError, match="syllables"):
        TrackSetSettings(syllables=(3, 2))


def test_without_held_out_speakers_there_is_no_truth(tmp_path):
    list(write_track_set(dataclasses.replace(TINY, speakers=1, validation_speakers=0), tmp_path / "t"))
    with pytest.raises(InputError, match="no truth of held-out neutral clips"):
        read_truth(tmp_path / "t")


def test_the_typical_intensity_is_the_mean_of_what_is_acted():
    assert pytest.approx(np.mean(INTENSITY)) == TYPICAL_INTENSITY
