"""Eye images, pupils and middles: equal to the published code's own results."""

from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest

from asccl_jax.data.codes import CodeDict
from asccl_jax.errors import InputError
from asccl_jax.head.eyes import draw_eyes, edited_eye_points, eye_points, median_point, noisy_eye_points, pupil_centre
from asccl_jax.head.face_points import LIPS, lower_face, mouth_points
from asccl_jax.head.flame import posed_head
from asccl_jax.image.face_box import landmark_box
from data_prep.head_fit.head_assets import builtin_assets, head_model
from data_prep.head_fit.head_drawing import HeadRenderer
from tests.evals.tiny_deliveries import make_delivery
from tests.head.heads import golden_head


@pytest.fixture(scope="module")
def golden():
    """The parts on eyes and mouths of the golden file `postprocess.npz`, of the published code with OpenCV."""
    with np.load(Path(__file__).with_name("golden_eyes.npz")) as archive:
        return dict(archive)


@pytest.mark.parametrize("case", range(4))
def test_eye_image_is_the_published_one(golden, case):
    image = golden[f"eyes_image{case}"]
    assert image.any()
    np.testing.assert_array_equal(draw_eyes(golden[f"eyes_pts{case}"], image.shape[:2]), image)


def test_noise_is_the_published_one(golden):
    noisy = noisy_eye_points(golden["eyes_pts1"], golden["f64_eyes_noise_draws"])
    np.testing.assert_array_equal(draw_eyes(noisy, (72, 64)), golden["eyes_image_noise"])
    np.testing.assert_array_equal(noisy_eye_points(golden["eyes_pts1"], np.zeros(3)), golden["eyes_pts1"])


def test_pupil_is_the_published_one(golden):
    centre = pupil_centre(golden["f64_pupil_gray"], golden["pupil_poly"])
    np.testing.assert_allclose(centre, golden["f64_pupil_mass_center"], rtol=0, atol=1e-12)  # order of a float64 sum


def test_middles_are_the_published_ones(golden):
    points = golden["f64_centres_keypoints"]
    np.testing.assert_array_equal(median_point(points[14:]), golden["centres_mouth"][0])
    np.testing.assert_array_equal(median_point(points[:14]), golden["centres_eyes"][0])


def test_pupil_is_where_the_eye_is_dark():
    rng = np.random.default_rng(0)
    landmarks = rng.uniform(5, 90, (68, 2))
    landmarks[36:42] = [[20, 40], [25, 36.7], [31, 36], [36, 40], [31, 44], [25, 44]]
    landmarks[42:48] = landmarks[36:42] + np.array([40.9, 0])
    image = np.full((96, 96, 3), 250, np.uint8)
    image[39:42, 26:29] = 2
    image[38:41, 67:70] = 2
    points = eye_points(image, landmarks)
    np.testing.assert_array_equal(points[:12], np.trunc(landmarks[36:48]))
    assert np.abs(points[12:] - [[27, 40], [68, 39]]).max() <= 1
    black = eye_points(np.zeros_like(image), landmarks)
    np.testing.assert_array_equal(black[12], np.trunc(np.trunc(landmarks[36:42]).mean(axis=0)))


def test_edited_pupils_move_with_their_contours():
    rng = np.random.default_rng(1)
    landmarks = rng.integers(10, 90, (68, 2)).astype(float)
    source = np.concatenate([landmarks[36:48], [[30, 31], [60, 33]]])
    np.testing.assert_array_equal(edited_eye_points(source, landmarks), source)
    moved = landmarks.copy()
    moved[36:42] += [3, -2]
    expected = source.copy()
    expected[[0, 1, 2, 3, 4, 5, 12]] += [3, -2]
    np.testing.assert_array_equal(edited_eye_points(source, moved), expected)


def template(camera):
    zeros = {"shape": np.zeros((1, 100)), "exp": np.zeros((1, 50)), "pose": np.zeros((1, 6)), "cam": np.array([camera])}
    return CodeDict(np.arange(1), **{name: values.astype(np.float32) for name, values in zeros.items()})


def test_it_is_where_the_bridge_draws_lips_and_chin():
    assets = builtin_assets()
    codes = template((8.0, 0.01, -0.01))
    marks = HeadRenderer(head_model(assets)).renders(codes).landmarks[0]
    left, top, right, bottom = landmark_box(marks)
    places = (marks + 0.5 - (left, top)) / (right - left, bottom - top)
    first_row, last_row, first_column, last_column = lower_face(head_model(assets), codes)
    lips, chin = places[48:68], places[8]
    # The bridge's outline is what a camera sees of the chin, the box ends at the chin's own landmark.
    np.testing.assert_allclose(first_row, lips[:, 1].mean(), atol=1e-3)
    np.testing.assert_allclose(last_row, chin[1], atol=0.02)
    assert first_column < lips[:, 0].min() < lips[:, 0].max() < last_column


def test_it_is_a_part_of_the_face_whatever_the_camera_and_stays_in_it():
    head = head_model(builtin_assets())
    region = lower_face(head, template((8.0, 0.0, 0.0)))
    for camera in ((8.0, -0.02, 0.01), (40.0, 0.0, 0.0)):
        np.testing.assert_allclose(lower_face(head, template(camera)), region, atol=1e-5)
    assert all(0 <= value <= 1 for value in region)


def test_points_are_the_lips_of_the_whole_head_that_is_not_turned():
    delivery = make_delivery("a/neutral/s", frames=5)
    codes = delivery.codes
    pose = np.concatenate([np.zeros_like(codes.pose[:, :3]), codes.pose[:, 3:]], axis=1)
    arrays = (jnp.asarray(values, jnp.float32) for values in (codes.shape, codes.exp, pose))
    expected = posed_head(golden_head(), *arrays).landmarks3d[:, LIPS]
    # Metres: a tenth of a micrometre.
    np.testing.assert_allclose(mouth_points(golden_head())(delivery.source, codes), expected, rtol=0, atol=1e-7)


def test_points_of_the_built_in_head_are_its_lips_too():
    # It has no pose blend shapes.
    head = head_model(builtin_assets())
    delivery = make_delivery("a/neutral/s", frames=60)
    codes = delivery.codes
    points = mouth_points(head)(delivery.source, codes)
    lips = head.full_landmark_faces[LIPS]
    coefficients = np.concatenate([codes.shape, codes.exp], axis=1).astype(np.float64)
    basis = np.concatenate([head.identity_basis, head.expression_basis], axis=2)
    corners = head.faces[lips]
    rest = head.v_template[corners] + np.einsum("bk,lvck->blvc", coefficients, basis[corners])
    rest = np.einsum("blvc,lv->blc", rest, head.full_landmark_weights[LIPS])
    # Upper lips do not move with the jaw, which opens by 0.25 radians at most about a joint some 10 cm away.
    moves = np.linalg.norm(points - rest, axis=2)
    assert moves[:, head.skinning_weights[corners, 2].max(axis=1) == 0].max(initial=0) < 1e-6
    assert 0.005 < moves.max() < 0.04


def test_another_size_of_head_is_refused():
    delivery = make_delivery("a/neutral/s", frames=3)
    with pytest.raises(InputError, match="40 expression coefficients: this head takes"):
        mouth_points(golden_head())(delivery.source[:, :41], delivery.codes)
