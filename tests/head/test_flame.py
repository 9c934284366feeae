"""The posed head is the bridge's, and its gradients are those of finite differences, at rest as well."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

from asccl_jax.errors import InputError
from asccl_jax.head.flame import (
    contour_rows,
    crop_pixels,
    joint_rotations,
    landmarks_in_image_space,
    matrix_from_axis_angle,
    posed_head,
    to_image_space,
)
from asccl_jax.head.head_model import HeadModel, load_head_model, save_head_model
from asccl_jax.head.raster import vertex_normals
from data_prep.head_fit.head_assets import builtin_assets, head_model
from DECA_torch_bridge import flame as torch_camera
from DECA_torch_bridge.flame import Flame
from DECA_torch_bridge.renderer import vertex_normals as torch_vertex_normals
from tests.data_prep.head_fit.golden_head import golden_assets
from tests.head.heads import golden_head


def some_inputs(count=4):
    rng = np.random.default_rng(1)
    return {
        "shape": rng.standard_normal((count, 100)),
        "expression": rng.standard_normal((count, 50)),
        "pose": 0.4 * rng.standard_normal((count, 6)),
        "eye_pose": 0.2 * rng.standard_normal((count, 6)),
        "neck_pose": 0.2 * rng.standard_normal((count, 3)),
    }


@pytest.fixture(scope="module")
def both():
    """The same heads by JAX and by the bridge, in float64."""
    inputs = some_inputs()
    with jax.enable_x64(True):
        ours = jax.jit(lambda values: posed_head(golden_head(), **values))(inputs)
        ours = [np.asarray(values) for values in ours]
    reference = Flame(golden_assets()).double()(**{name: torch.from_numpy(value) for name, value in inputs.items()})
    return ours, [values.numpy() for values in reference]


@pytest.mark.parametrize(("which", "name"), [*enumerate(["vertices", "landmarks2d", "landmarks3d", "joints"])])
def test_heads_are_those_of_the_bridge(both, which, name):
    assert both[0][which].dtype == np.float64
    # The same products in another order, of metres.
    np.testing.assert_allclose(both[0][which], both[1][which], rtol=0, atol=1e-14, err_msg=name)


def test_float32_heads_are_as_exact_as_float32(both):
    inputs = {name: jnp.asarray(value, jnp.float32) for name, value in some_inputs().items()}
    found = jax.jit(lambda values: posed_head(golden_head(), **values))(inputs).vertices
    np.testing.assert_allclose(found, both[1][0], rtol=0, atol=1e-7)


def test_contour_rows_cover_both_sides_and_their_ends():
    degrees = np.array([0, 0.4, 0.6, 12, 39, 60, -1, -12, -39, -60])
    pose = np.zeros((len(degrees), 6), np.float32)
    pose[:, 1] = np.deg2rad(degrees)
    rows = contour_rows(joint_rotations(jnp.asarray(pose)))
    reference = Flame(golden_assets()).contour_rows(torch.from_numpy(pose))
    assert rows.tolist() == reference.tolist()
    assert {0, 1, 39, 78} <= set(rows.tolist())


def test_projection_and_normals_are_those_of_the_bridge():
    rng = np.random.default_rng(2)
    points, cam = rng.standard_normal((2, 216, 3)), np.array([[7.0, 0.1, -0.2], [5.0, 0, 0.3]])
    faces = golden_head().faces
    with jax.enable_x64(True):
        given = jnp.asarray(points), jnp.asarray(cam)
        placed, marks = (np.asarray(f(*given)) for f in (to_image_space, landmarks_in_image_space))
        pixels = np.asarray(crop_pixels(jnp.asarray(placed), crop_size=112))
        # Small enough for the least norm to count at some vertices.
        normals = np.asarray(vertex_normals(jnp.asarray(1e-3 * points), faces))
    reference = torch_camera.to_image_space(torch.from_numpy(points), torch.from_numpy(cam))
    np.testing.assert_allclose(placed, reference, rtol=1e-14)
    np.testing.assert_array_equal(marks, placed[..., :2])
    np.testing.assert_allclose(pixels, torch_camera.crop_pixels(reference, 112), atol=1e-10)
    expected = torch_vertex_normals(torch.from_numpy(1e-3 * points), torch.from_numpy(faces).long()).numpy()
    lengths = np.linalg.norm(expected, axis=-1)
    assert lengths.min() < 0.99
    assert lengths.max() > 0.999
    np.testing.assert_allclose(normals, expected, atol=1e-12)


def test_a_head_without_turns_has_finite_exact_gradients():
    with jax.enable_x64(True):
        zero = jnp.zeros(3)
        jacobian = jax.jacrev(matrix_from_axis_angle)(zero)
        # d R / d r at rest: the generators of rotations; the formula's 1e-8 moves them by as much.
        generators = np.zeros((3, 3, 3))
        for axis, (row, column) in enumerate([(2, 1), (0, 2), (1, 0)]):
            generators[row, column, axis], generators[column, row, axis] = 1, -1
        np.testing.assert_allclose(jacobian, generators, atol=1e-7)
        np.testing.assert_array_equal(matrix_from_axis_angle(zero), np.eye(3))
        # Where the formula itself divides by zero.
        there = jnp.full(3, -1e-8)
        assert np.isfinite(jax.jacrev(matrix_from_axis_angle)(there)).all()
        np.testing.assert_allclose(matrix_from_axis_angle(there), np.eye(3), atol=1e-7)


@pytest.mark.parametrize("turned", [True, False])
def test_gradients_are_finite_differences(turned):
    with jax.enable_x64(True):
        inputs = {name: jnp.asarray(value[:1] * (turned or name != "pose")) for name, value in some_inputs().items()}
        pull = jnp.asarray(np.random.default_rng(3).standard_normal((216, 3)))

        @jax.jit
        def total(expression, pose):
            return jnp.sum(pull * posed_head(golden_head(), inputs["shape"], expression, pose).vertices[0])

        at = inputs["expression"], inputs["pose"]
        gradients = jax.grad(total, argnums=(0, 1))(*at)
        step = 1e-5
        for which, count in ((0, 5), (1, 6)):
            for index in range(count):
                ahead, behind = (
                    [x.at[0, index].add(sign * step) if which == n else x for n, x in enumerate(at)] for sign in (1, -1)
                )
                difference = (total(*ahead) - total(*behind)) / (2 * step)
                # Central differences: the square of the step, and 1e-16 / 1e-5 of rounding.
                np.testing.assert_allclose(gradients[which][0, index], difference, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("count", [2, 8])
def test_compiled_heads_without_pose_blend_shapes_are_sound(count):
    # The built-in head's are all zero, out of which the compiler once made noise: see `posed_head`.
    assets = builtin_assets()
    inputs = {name: values.astype(np.float32) for name, values in some_inputs(count).items()}
    compiled = jax.jit(lambda values: posed_head(head_model(assets), **values).vertices)(inputs)
    expected = Flame(assets)(**{name: torch.from_numpy(value) for name, value in inputs.items()}).vertices
    # Metres: the same sums of 150 float32 products in another order.
    np.testing.assert_allclose(compiled, expected.numpy(), atol=1e-6)


def test_a_saved_head_comes_back_equal(tmp_path):
    save_head_model(tmp_path / "head.npz", golden_head())
    loaded = load_head_model(tmp_path / "head.npz")
    for field in dataclasses.fields(HeadModel):
        np.testing.assert_array_equal(getattr(loaded, field.name), getattr(golden_head(), field.name))
    assert (loaded.shape_size, loaded.expression_size, loaded.source) == (100, 50, "flame")
    assert [file.name for file in tmp_path.iterdir()] == ["head.npz"]


def test_all_fields_that_do_not_fit_are_named_at_once():
    head = golden_head()
    with pytest.raises(InputError, match=r"faces has type float32; identity_basis has shape \(10, 3, 100\).*216"):
        dataclasses.replace(head, faces=head.faces.astype(np.float32), identity_basis=head.identity_basis[:10])
    bad = head.v_template.copy()
    bad[3] = np.nan
    with pytest.raises(InputError, match="v_template is not finite"):
        dataclasses.replace(head, v_template=bad)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("faces", 216, r"faces holds 1..216, expected 0..215"),
        ("full_landmark_faces", -1, r"full_landmark_faces holds -1..\d+, expected 0..373"),
        ("parents", 3, r"parents are \[3, 0, 1, 1, 1\]"),
    ],
)
def test_references_to_what_is_not_there_are_refused(field, value, message):
    changed = getattr(golden_head(), field).copy()
    changed.flat[0] = value
    with pytest.raises(InputError, match=message):
        dataclasses.replace(golden_head(), **{field: changed})


def test_files_that_are_no_heads_are_refused(tmp_path):
    path = tmp_path / "head.npz"
    with pytest.raises(InputError, match=r"no such file; `asccl head export"):
        load_head_model(path)
    path.write_bytes(b"nothing")
    with pytest.raises(InputError, match="damaged or no npz file"):
        load_head_model(path)
    np.savez(path, format=np.array("asccl-head-0"))
    with pytest.raises(InputError, match="format 'asccl-head-0', expected 'asccl-head-1'"):
        load_head_model(path)
    np.savez(path, format=np.array("asccl-head-1"), weight=np.zeros(1), faces=np.zeros((1, 3), np.int32))
    with pytest.raises(InputError, match=r"missing fields \['dynamic.*'v_template'\], unknown fields \['weight'\]"):
        load_head_model(path)
    np.savez(path, format=np.array("asccl-head-1"), faces=np.array([{}], dtype=object))
    with pytest.raises(InputError, match="damaged"):
        load_head_model(path)
