"""The probe learns from real clips with landmarks and reads mouths where the eyes say they are."""

import numpy as np
import pytest

from asccl_jax.errors import InputError
from data_prep.evaluate.landmark_sources import SIDE, KnownClip, MouthProbe, _moved, _upright, fitted_probe
from tests.data_prep.evaluate.tiny_clips import course, face, write_clip


class _Middle:
    """In place of a trained network: all points lie in the middle of the picture."""

    def locate(self, images):
        return np.full((len(images), 20, 2), (SIDE - 1) / 2, np.float32)


def test_eyes_lie_level_at_their_place_and_points_come_back():
    points = face(5.0, 200)
    turn = np.array([[np.cos(0.3), -np.sin(0.3)], [np.sin(0.3), np.cos(0.3)]], np.float32)
    turned = ((points - 100) @ turn.T * 1.5 + 100).astype(np.float32)
    image = np.zeros((200, 200, 3), np.uint8)
    x, y = np.rint(turned[30]).astype(int)
    image[y - 2 : y + 3, x - 2 : x + 3] = 255
    picture, matrix = _upright(image, turned)
    back = np.linalg.inv(np.vstack([matrix, [0, 0, 1]]))[:2]
    placed = _moved(turned, back)
    right, left = placed[36:42].mean(axis=0), placed[42:48].mean(axis=0)
    assert right[1] == pytest.approx(left[1], abs=1e-3)
    assert (right[0] + left[0]) / 2 == pytest.approx((SIDE - 1) / 2, abs=1e-3)
    rows, columns = np.nonzero(picture[..., 0] > 128)
    # The bright square was drawn at a whole pixel.
    np.testing.assert_allclose([columns.mean(), rows.mean()], placed[30], atol=0.7)


def test_the_mouth_alone_is_replaced_and_rows_without_a_face_stay():
    points = np.stack([face(3.0), np.full((68, 2), np.nan, np.float32)])
    probe = MouthProbe(_Middle(), 0.0, 1, "k")
    found = probe.with_mouths([np.zeros((64, 64, 3), np.uint8)] * 2, points)
    np.testing.assert_array_equal(found[0, :48], points[0, :48])
    assert np.ptp(found[0, 48:], axis=0).max() < 1e-4
    assert np.isnan(found[1]).all()


def test_too_few_frames_to_learn_from_say_what_to_give(tmp_path):
    video = write_clip(tmp_path, "a", frames=8)
    known = KnownClip(video, np.stack([face(opening) for opening in course(8)]), "a")
    with pytest.raises(InputError, match=r"put an npz .* beside real or source clips"):
        fitted_probe([known], tmp_path / "probe.npz")


@pytest.mark.slow
def test_a_trained_probe_is_kept_and_tells_its_error(tmp_path):
    video = write_clip(tmp_path, "a", frames=40)
    known = KnownClip(video, np.stack([face(opening) for opening in course(40)]), "a")
    first = fitted_probe([known], tmp_path / "probe.npz", steps=30)
    again = fitted_probe([known], tmp_path / "probe.npz", steps=30)
    assert first.error == again.error > 0
    assert first.frames == 8
