"""The lower face reaches from the lips to the chin of the face's box, wherever the camera puts it."""

import numpy as np

from asccl_jax.data.codes import CodeDict
from asccl_jax.geometry.face_box import landmark_box
from asccl_jax.geometry.face_regions import lower_face
from data_prep.head_fit.head_drawing import HeadRenderer
from DECA_torch_bridge.head_assets import builtin_assets
from DECA_torch_bridge.head_export import head_model


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
