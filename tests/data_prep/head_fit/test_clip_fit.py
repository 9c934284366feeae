import dataclasses
import itertools

import numpy as np
import pytest

from asccl_jax.errors import InputError
from data_prep.head_fit.clip_fit import (
    FLAG_MISSING,
    FLAG_PARTIAL,
    LandmarkFitter,
    SpeakerShape,
    code_dict,
    join_windows,
    split_windows,
)
from data_prep.head_fit.head_assets import builtin_assets
from data_prep.head_fit.landmark_tables import LandmarkTable, load_table, read_table, save_table
from tests.acceptance.synthetic_truth import TruthClip, act_clip


@pytest.fixture(scope="module")
def fitter() -> LandmarkFitter:
    return LandmarkFitter(builtin_assets(), "synthetic")


@pytest.fixture(scope="module")
def clip() -> TruthClip:
    return act_clip(7, "neutral", take=0, syllables=(4, 5))


@pytest.fixture(scope="module")
def speaker(fitter: LandmarkFitter, clip: TruthClip) -> SpeakerShape:
    return fitter.fit_speaker([clip.landmarks])


def test_frames_without_a_face_are_interpolated_and_flagged(
    fitter: LandmarkFitter, clip: TruthClip, speaker: SpeakerShape
) -> None:
    whole = fitter.fit_clip(clip.landmarks, speaker, neutral=True)
    holes = clip.landmarks.copy()
    holes[0], holes[20:23], holes[30, 60:68] = np.nan, np.nan, np.nan
    fit = fitter.fit_clip(holes, speaker, neutral=True)
    assert len(fit.pose) == len(clip.landmarks)
    np.testing.assert_array_equal(fit.frame_index, np.arange(len(clip.landmarks)))
    np.testing.assert_array_equal(np.flatnonzero(fit.flags & FLAG_MISSING), [0, 20, 21, 22])
    np.testing.assert_array_equal(np.flatnonzero(fit.flags & FLAG_PARTIAL), [30])
    assert np.isnan(fit.residual_px[[0, 20, 21, 22]]).all()
    assert np.isfinite(fit.residual_px[1])
    assert any("4 of" in note for note in fit.notes)
    # The head hardly moves in three frames, the mouth does: half a degree, and 4 px in the mean.
    np.testing.assert_allclose(fit.pose[20:23, :3], whole.pose[20:23, :3], atol=0.01)
    assert np.linalg.norm(fit.landmarks[20:23, 17:] - clip.landmarks[20:23, 17:], axis=-1).mean() < 4


def test_a_clip_without_a_face_says_so(fitter: LandmarkFitter, speaker: SpeakerShape) -> None:
    nothing = np.full((5, 68, 2), np.nan)
    with pytest.raises(InputError, match="no face"):
        fitter.fit_clip(nothing, speaker)
    with pytest.raises(InputError, match="neutral clip"):
        fitter.fit_speaker([nothing])


def test_without_a_neutral_clip_units_are_not_reported(fitter: LandmarkFitter, clip: TruthClip) -> None:
    fit = fitter.fit_clip(clip.landmarks, None)
    assert not fit.units_valid
    assert any("no neutral clip" in note for note in fit.notes)


@pytest.mark.parametrize("frames", [1, 2])
def test_a_clip_of_a_frame_or_two_is_fitted(
    fitter: LandmarkFitter, clip: TruthClip, speaker: SpeakerShape, frames: int
) -> None:
    fit = fitter.fit_clip(clip.landmarks[:frames], speaker, neutral=True)
    assert fit.pose.shape == (frames, 6)
    assert fit.residual_px.max() < 1


def test_fit_does_not_depend_on_the_size_of_the_picture(
    fitter: LandmarkFitter, clip: TruthClip, speaker: SpeakerShape
) -> None:
    small = fitter.fit_clip(clip.landmarks, speaker, neutral=True)
    large = fitter.fit_clip(4 * clip.landmarks, speaker, neutral=True)
    # The same sums in other units: rounding, and the tolerance that ends the iterations.
    np.testing.assert_allclose(large.pose, small.pose, atol=1e-4)
    np.testing.assert_allclose(large.camera[:, 0], 4 * small.camera[:, 0], rtol=1e-4)


def test_cameras_of_frame_and_crop_put_the_head_in_the_same_place(
    fitter: LandmarkFitter, clip: TruthClip, speaker: SpeakerShape
) -> None:
    """The posed head through either camera: an independent pose through the head's own skinning."""
    from data_prep.synthetic.head import build_head

    fit = fitter.fit_clip(clip.landmarks, speaker, neutral=True)
    head, frame = build_head(), 11
    pose = np.zeros((5, 3))
    pose[0], pose[2] = fit.pose[frame, :3], fit.pose[frame, 3:]
    vertices = head.posed(fit.shape, fit.expression[frame], pose)
    points = (vertices[head.f[head.landmark_faces]] * head.landmark_weights[:, :, None]).sum(1)
    scale, x, y = fit.camera[frame]
    pixels = np.stack([x + scale * points[:, 0], y - scale * points[:, 1]], -1)
    # float32 vertices.
    np.testing.assert_allclose(pixels, fit.landmarks[frame, 17:], atol=1e-3)
    crop_scale, crop_x, crop_y = fit.crop_camera[frame]
    in_crop = np.stack([1 + crop_scale * (points[:, 0] + crop_x), 1 - crop_scale * (points[:, 1] + crop_y)], -1)
    transform = fit.crop_transform[frame]
    np.testing.assert_allclose(112 * in_crop - 0.5, pixels @ transform[:2, :2].T + transform[:2, 2], atol=1e-3)
    assert (112 * in_crop).min() > 0
    assert (112 * in_crop).max() < 224


def test_code_dict_has_a_row_per_frame(fitter: LandmarkFitter, clip: TruthClip, speaker: SpeakerShape) -> None:
    codes = code_dict(fitter.fit_clip(clip.landmarks, speaker), original_size=(256, 256))
    assert len(codes) == len(clip.landmarks)
    assert codes.exp.shape[1] == 50
    assert codes.shape.shape[1] == 100
    assert codes.original_size == (256, 256)


def test_detectors_with_anothers_table_or_none_say_so(clip: TruthClip, speaker: SpeakerShape) -> None:
    fitter = LandmarkFitter(builtin_assets(), "face-alignment")
    assert any("not measured itself" in note for note in fitter.fit_clip(clip.landmarks, speaker).notes)
    np.testing.assert_array_equal(load_table("face-alignment").offsets_m, load_table("dlib").offsets_m)
    assert "no table for mediapipe on a flame head" in load_table("mediapipe", head="flame").remark
    with pytest.raises(InputError, match="expected one of"):
        load_table("openface")


def test_a_head_without_action_units_is_fitted_too(clip: TruthClip) -> None:
    """Expression coefficients without names or signs, as FLAME's are."""
    assets = dataclasses.replace(builtin_assets(), source="flame")
    fitter = LandmarkFitter(assets, "synthetic")
    fit = fitter.fit_clip(clip.landmarks, fitter.fit_speaker([clip.landmarks]))
    assert not fit.units_valid
    assert np.nanmedian(fit.residual_px) < 1
    assert np.corrcoef(fit.pose[:, 3], clip.jaw)[0, 1] > 0.9


def test_table_survives_its_file(tmp_path) -> None:
    rng = np.random.default_rng(0)
    table = LandmarkTable("mediapipe", 0.001 * rng.standard_normal((51, 3)), np.zeros(17), "at random")
    save_table(table, tmp_path / "table.json")
    back = read_table(tmp_path / "table.json")
    np.testing.assert_allclose(back.offsets_m, table.offsets_m, atol=1e-6)
    assert back.made == "at random"
    (tmp_path / "table.json").write_text('{"detector": "mediapipe", "offsets_m": [1], "insets_m": [], "made": ""}')
    with pytest.raises(InputError, match="not a landmark table"):
        read_table(tmp_path / "table.json")


@pytest.mark.parametrize("detector", ["mediapipe", "dlib"])
def test_stored_tables_are_symmetric_and_small(detector: str) -> None:
    from data_prep.head_fit.calibrate import MIRROR

    table = load_table(detector)
    assert not table.remark
    partner = np.array(MIRROR[17:]) - 17
    np.testing.assert_allclose(table.offsets_m[partner] * (-1, 1, 1), table.offsets_m, atol=2e-6)
    assert np.abs(table.offsets_m).max() < 0.006


def test_windows_cover_a_clip_and_each_has_a_face() -> None:
    rng = np.random.default_rng(0)
    for share in (1.0, 0.1, 0.005):
        for frames in (1, 50, 99, 100, 101, 500):
            seen = rng.random(frames) < share
            seen[rng.integers(frames)] = True
            windows = split_windows(seen, length=100, overlap=10)
            assert windows[0].start == 0
            assert windows[-1].stop == frames
            assert all(seen[window].any() for window in windows)
            assert all(later.start < earlier.stop for earlier, later in itertools.pairwise(windows))


def test_joined_windows_of_one_track_are_the_track() -> None:
    track = np.random.default_rng(0).standard_normal((230, 3))
    windows = split_windows(np.ones(230, bool), length=100, overlap=10)
    assert len(windows) > 2
    np.testing.assert_allclose(join_windows([track[window] for window in windows], windows), track, atol=1e-12)
