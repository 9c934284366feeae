"""The lips are the whole head's lips, computed from a part of it."""

import jax.numpy as jnp
import numpy as np
import pytest

from asccl_jax.errors import InputError
from asccl_jax.geometry.flame import posed_head
from asccl_jax.geometry.mouth_points import LIPS, mouth_points
from DECA_torch_bridge.head_assets import builtin_assets
from DECA_torch_bridge.head_export import head_model
from tests.evals.tiny_deliveries import make_delivery
from tests.geometry.heads import golden_head


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
