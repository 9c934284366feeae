"""The procedural head keeps FLAME's file format and the promises about what moves what."""

import numpy as np
import pytest

from asccl_jax.data.schema import EMOTIONS
from asccl_jax.errors import InputError
from data_prep.synthetic.action_units import (
    ACTION_UNITS,
    EMOTION_UNITS,
    UPPER_FACE_UNITS,
    VISEMES,
    expression_vector,
    speech_units,
)
from data_prep.synthetic.head import EXPRESSION_START, SyntheticHead, build_head, rotation_matrix
from data_prep.synthetic.head import MATERIALS
from data_prep.synthetic.skin_surface import EYE_RADIUS, EYE_X, EYE_Y, EYE_Z


@pytest.fixture(scope="module")
def head() -> SyntheticHead:
    return build_head()


def landmarks_at_rest(head: SyntheticHead) -> np.ndarray:
    corners = head.v_template[head.f[head.landmark_faces]]
    return (corners * head.landmark_weights[:, :, None]).sum(axis=1)


def test_arrays_have_the_shapes_of_flames_files(head: SyntheticHead):
    n = len(head.v_template)
    assert head.v_template.shape == (n, 3) and head.shapedirs.shape == (n, 3, 400)
    assert head.posedirs.shape == (n, 3, 36) and head.J_regressor.shape == (5, n) and head.weights.shape == (n, 5)
    assert head.f.min() == 0 and head.f.max() == n - 1 and len(head.label) == len(head.f)
    assert head.kintree_table.tolist() == [[-1, 0, 1, 1, 1], [0, 1, 2, 3, 4]]
    assert np.abs(head.shapedirs[:, :, :300]).max(axis=(0, 1)).min() > 1e-5, "an identity component moves nothing"
    assert not head.shapedirs[:, :, EXPRESSION_START + 50 :].any()
    # Weights are shares of float32 rounding.
    np.testing.assert_allclose(head.weights.sum(axis=1), 1, atol=1e-6)
    assert head.weights.min() >= 0


def test_rest_pose_reproduces_the_template(head: SyntheticHead):
    posed = head.posed(np.zeros(5), np.zeros(50), np.zeros((5, 3)))
    # FLAME's epsilon turns a zero rotation into one of 1e-8 rad; the rest is float32 rounding of 0.3 m.
    np.testing.assert_allclose(posed, head.v_template, atol=1e-6)


def test_root_rotation_turns_the_whole_head_about_its_joint(head: SyntheticHead):
    pose = np.zeros((5, 3))
    pose[0] = 0.1, -0.3, 0.2
    posed = head.posed(np.zeros(5), np.zeros(50), pose)
    joint = head.J_regressor[0] @ head.v_template
    expected = (head.v_template - joint) @ rotation_matrix(pose[0]).T + joint
    np.testing.assert_allclose(posed, expected, atol=2e-6)  # float32 weights against float64


def test_eye_joints_follow_the_eyeballs_of_any_identity(head: SyntheticHead):
    identity = np.random.default_rng(3).standard_normal(60)
    shaped = head.shaped(identity)
    for joint, side in ((3, 1), (4, -1)):
        rest_joint = head.J_regressor[joint] @ head.v_template
        np.testing.assert_allclose(rest_joint, [side * EYE_X, EYE_Y, EYE_Z], atol=1e-5)
        ball = np.unique(head.f[head.label == MATERIALS.index("eye")])
        ball = ball[head.v_template[ball, 0] * side > 0]
        middle = 0.5 * (shaped[ball].max(axis=0) + shaped[ball].min(axis=0))
        assert np.abs(head.J_regressor[joint] @ shaped - middle).max() < 0.1 * EYE_RADIUS


def test_identity_basis_is_symmetric_smooth_and_ordered(head: SyntheticHead):
    rows, columns = head.grid_shape
    grid = head.shapedirs[: rows * columns, :, :300].reshape(rows, columns, 3, 300)
    mirrored = grid[:, ::-1] * np.array([-1, 1, 1], np.float32)[:, None]
    np.testing.assert_allclose(grid, mirrored, atol=2e-5)  # metres: the lids' slits leave 20 micrometres
    size = np.square(grid).sum(axis=(0, 1, 2))
    assert size[:20].mean() > 5 * size[100:120].mean()
    face = grid[20:100, 30:70]
    # The shortest length scale is 18 mm at 1.2 mm: neighbours 1.5 mm apart differ by a fraction of that.
    assert np.abs(np.diff(face, axis=1)).max() < 0.0008


def test_saved_model_loads_equal(head: SyntheticHead, tmp_path):
    head.save(tmp_path / "head.npz")
    loaded = SyntheticHead.load(tmp_path / "head.npz")
    assert all(np.array_equal(getattr(head, name), getattr(loaded, name)) for name in vars(head))
    np.savez(tmp_path / "other.npz", f=head.f)
    with pytest.raises(InputError, match="lacks v_template"):
        SyntheticHead.load(tmp_path / "other.npz")
    with pytest.raises(InputError, match="no such head model"):
        SyntheticHead.load(tmp_path / "none.npz")


def test_landmarks_are_mirror_images_and_the_middle_ones_lie_in_the_midplane(head: SyntheticHead):
    points = landmarks_at_rest(head) * [1000, 1000, 1000]
    number = {k: points[k - 17] for k in range(17, 68)}
    pairs = [
        (17, 26),
        (19, 24),
        (21, 22),
        (31, 35),
        (36, 45),
        (37, 44),
        (39, 42),
        (41, 46),
        (48, 54),
        (50, 52),
        (60, 64),
        (61, 63),
    ]
    for right, left in pairs:
        np.testing.assert_allclose(number[right] * [-1, 1, 1], number[left], atol=0.4)  # mm: triangles are not mirrored
        assert number[right][0] < 0
    for middle in (27, 28, 29, 30, 33, 51, 57, 62, 66):
        assert abs(number[middle][0]) < 0.05
    assert number[37][1] > number[41][1] + 6, "upper lid over lower lid"
    assert number[51][1] > number[62][1] >= number[66][1] > number[57][1], "lips in order"


def test_speech_leaves_everything_above_the_nose_still(head: SyntheticHead):
    above = head.v_template[:, 1] > -0.005
    moved = 0.0
    for shape in VISEMES.values():
        pose = np.zeros((5, 3))
        pose[2, 0] = shape[0]
        expression = expression_vector(speech_units(np.array(shape)))
        posed = head.posed(np.zeros(3), expression, pose)
        moved = max(moved, float(np.abs(posed - head.v_template)[above].max()))
    anger = head.posed(np.zeros(3), expression_vector(EMOTION_UNITS["angry"]), np.zeros((5, 3)))
    assert moved < 0.0015
    assert np.abs(anger - head.v_template)[above].max() > 4 * moved


def test_upper_face_units_leave_the_mouth_still(head: SyntheticHead):
    below = head.v_template[:, 1] < -0.030
    units = expression_vector(dict.fromkeys(UPPER_FACE_UNITS, 1.0))
    assert np.abs(head.shaped(np.zeros(1), units) - head.v_template)[below].max() < 2e-4


def test_left_units_add_on_the_left_what_they_take_on_the_right(head: SyntheticHead):
    rows, columns = head.grid_shape
    for name in ("smile", "brow_inner_up", "blink"):
        both, left = (head.shaped(np.zeros(1), expression_vector({unit: 1.0})) for unit in (name, f"{name}_left"))
        x = head.v_template[: rows * columns, 0]
        for sign in (1, -1):
            side = np.flatnonzero(x * sign > 0.02)
            np.testing.assert_allclose((left - head.v_template)[side], sign * (both - head.v_template)[side], atol=2e-5)


def test_every_unit_is_named_once_and_an_unknown_name_is_refused():
    assert len(set(ACTION_UNITS)) == len(ACTION_UNITS) <= 50
    assert tuple(EMOTION_UNITS) == EMOTIONS
    with pytest.raises(KeyError):
        expression_vector({"grin": 1.0})
    track = expression_vector({"smile": np.linspace(0, 1, 4)}, {"smile": 0.5, "blink": 1.0})
    assert track.shape == (4, 50)
    np.testing.assert_allclose(track[:, ACTION_UNITS.index("smile")], np.linspace(0.5, 1.5, 4), rtol=1e-6)


def test_rims_of_the_lids_face_the_viewer(head: SyntheticHead):
    """They close the gap between lid and eyeball; turned away they would not be drawn."""
    corners = head.v_template[head.f[head.label == MATERIALS.index("rim")]]
    normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    assert (normals[:, 2] > 0).mean() > 0.95
