"""The built-in head: complete, consistent, and the same when written as FLAME's files and read back."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numba
import numpy as np
import pytest

from asccl_jax.errors import InputError
from asccl_jax.head.head_model import load_head_model
from data_prep.head_fit.assets_check import main
from data_prep.head_fit.head_assets import (
    YAWS,
    HeadAssets,
    builtin_assets,
    load_assets,
    load_flame_assets,
    write_builtin_assets,
)
from data_prep.synthetic.head import build_head
from DECA_torch_bridge.flame import Flame
from tests.data_prep.head_fit.tiny_head import write_tiny_head


@pytest.fixture(scope="module")
def assets() -> HeadAssets:
    """The built-in head."""
    return builtin_assets()


def test_files_of_the_built_in_head_hold_it_exactly(tmp_path: Path, assets: HeadAssets) -> None:
    write_builtin_assets(tmp_path / "head")
    read = load_flame_assets(tmp_path / "head")
    for field in dataclasses.fields(HeadAssets):
        ours, theirs = getattr(assets, field.name), getattr(read, field.name)
        if isinstance(ours, np.ndarray):
            assert theirs.dtype == ours.dtype, field.name
            np.testing.assert_array_equal(theirs, ours, err_msg=field.name)
        else:
            assert theirs == ours, field.name
    with pytest.raises(InputError, match="already has"):
        write_builtin_assets(tmp_path / "head")


def test_without_a_folder_the_built_in_head_is_used(tmp_path: Path, assets: HeadAssets) -> None:
    assert load_assets(None) is assets
    with pytest.raises(InputError, match="no such folder"):
        load_assets(tmp_path / "none")


def test_sizes_and_types_are_those_announced(assets: HeadAssets) -> None:
    vertices, faces = len(assets.v_template), len(assets.faces)
    assert assets.shapedirs.shape == (vertices, 3, 400)
    assert assets.posedirs.shape == (vertices, 3, 36)
    assert assets.joint_regressor.shape == (5, vertices)
    assert assets.parents.tolist() == [-1, 0, 1, 1, 1]
    np.testing.assert_allclose(assets.skinning_weights.sum(axis=1), 1, atol=1e-6)
    assert assets.uv_faces.shape == assets.faces.shape == (faces, 3)
    assert assets.uv_faces.max() < len(assets.uv)
    for name in ("static", "dynamic", "full"):
        triangles = getattr(assets, f"{name}_landmark_faces")
        weights = getattr(assets, f"{name}_landmark_weights")
        assert triangles.min() >= 0
        assert triangles.max() < faces
        assert weights.min() >= 0
        np.testing.assert_allclose(weights.sum(axis=-1), 1, atol=1e-6)
    for field in dataclasses.fields(HeadAssets):
        value = getattr(assets, field.name)
        if isinstance(value, np.ndarray):
            assert value.dtype in (np.float32, np.int32), field.name


def test_no_two_triangles_overlap_in_texture_space(assets: HeadAssets) -> None:
    size = 1024
    corners = np.stack([assets.uv[:, 0], 1 - assets.uv[:, 1]], -1)[assets.uv_faces].astype(np.float64) * size - 0.5
    assert corners.min() > 0
    assert corners.max() < size - 1
    cover = _coverage(corners, size)
    assert cover.max() == 1
    assert (cover > 0).mean() > 0.8


def test_no_triangle_is_mirrored_in_texture_space(assets: HeadAssets) -> None:
    """Normals that are taken from the texture's grid would look inward there."""
    corners = assets.uv[assets.uv_faces].astype(np.float64)
    along, across = corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]
    assert (along[:, 0] * across[:, 1] - along[:, 1] * across[:, 0]).min() > 0


@numba.njit
def _coverage(corners, size):  # type: ignore[no-untyped-def]
    """How many triangles hold the centre of each texel."""
    cover = np.zeros((size, size), np.int32)
    for f in range(len(corners)):
        (ax, ay), (bx, by), (cx, cy) = corners[f, 0], corners[f, 1], corners[f, 2]
        area = (bx - ax) * (cy - ay) - (cx - ax) * (by - ay)
        if area == 0:
            continue
        for y in range(int(min(ay, by, cy)), int(max(ay, by, cy)) + 2):
            for x in range(int(min(ax, bx, cx)), int(max(ax, bx, cx)) + 2):
                first = ((bx - x) * (cy - y) - (cx - x) * (by - y)) / area
                second = ((cx - x) * (ay - y) - (ax - x) * (cy - y)) / area
                if first > 1e-6 and second > 1e-6 and 1 - first - second > 1e-6:
                    cover[y, x] += 1
    return cover


def _contour(assets: HeadAssets, yaw: int) -> np.ndarray:
    """Landmarks 0..16 of the mean head turned by `yaw` degrees, x and y."""
    row = YAWS.index(yaw)
    corners = assets.v_template[assets.faces[assets.dynamic_landmark_faces[row]]]
    points = (corners * assets.dynamic_landmark_weights[row][..., None]).sum(axis=1)
    angle = np.radians(yaw)
    return np.stack([np.cos(angle) * points[:, 0] + np.sin(angle) * points[:, 2], points[:, 1]], -1)


def test_contour_lies_on_the_outline_of_the_turned_face(assets: HeadAssets) -> None:
    """No part of the face proper reaches further from between the eyes than the landmark on its ray."""
    head = build_head()
    face = np.unique(head.f[head.face_faces])
    eyes = (head.J_regressor @ head.v_template)[3:]
    for yaw in (0, 17, 39, -17, -39):
        angle = np.radians(yaw)
        turned, ends = (
            np.stack([np.cos(angle) * points[:, 0] + np.sin(angle) * points[:, 2], points[:, 1]], -1)
            for points in (head.v_template[face], eyes)
        )
        landmarks, places = _contour(assets, yaw) - ends.mean(axis=0), turned - ends.mean(axis=0)
        reach = np.hypot(*landmarks.T)
        distance = np.hypot(*places.T)
        between = (places @ landmarks.T) / (distance[:, None] * reach)
        for index in range(17):
            near = between[:, index] > np.cos(np.radians(0.7))
            # Beside the ray, 1.3 mm at the chin, an outline that runs steeply reaches about as much further.
            assert distance[near].max() < reach[index] + 0.0020, (yaw, index)


def test_contour_at_a_yaw_mirrors_that_at_the_opposite_yaw(assets: HeadAssets) -> None:
    for yaw in range(40):
        left, right = _contour(assets, yaw), _contour(assets, -yaw)
        # 0.1 mm: the mesh's diagonals are not mirrored.
        np.testing.assert_allclose(left * [-1, 1], right[::-1], atol=1e-4)


def test_contour_moves_smoothly_with_yaw(assets: HeadAssets) -> None:
    contours = np.stack([_contour(assets, yaw) for yaw in range(-39, 40)])
    assert np.abs(np.diff(contours, axis=0)).max() < 0.004


def test_full_landmarks_are_those_of_the_frontal_face(assets: HeadAssets) -> None:
    points = (
        assets.v_template[assets.faces[assets.full_landmark_faces]] * assets.full_landmark_weights[..., None]
    ).sum(1)
    np.testing.assert_allclose(points[:17, :2], _contour(assets, 0), atol=1e-7)
    np.testing.assert_array_equal(assets.full_landmark_faces[17:], assets.static_landmark_faces)
    assert points[0, 0] < -0.05 < 0.05 < points[16, 0]  # from the picture's left to its right
    assert points[8, 1] == points[:, 1].min()  # the chin


def test_wrinkles_are_kept_to_the_face_and_off_lids_and_lips(assets: HeadAssets) -> None:
    mask = assets.uv_face_eye_mask
    assert mask.shape == (256, 256)
    assert mask.min() == 0
    assert mask.max() == 1
    assert 0.2 < mask.mean() < 0.6

    def at(landmark: int) -> float:
        corners = assets.uv[assets.uv_faces[assets.full_landmark_faces[landmark]]]
        u, v = assets.full_landmark_weights[landmark] @ corners
        return float(mask[int((1 - v) * 256), int(u * 256)])

    assert all(at(landmark) < 0.5 for landmark in (37, 38, 43, 44, 62))  # upper lids, inner lip
    assert all(at(landmark) == 1 for landmark in (19, 24, 30, 57))  # brows, tip of the nose, under the lower lip
    assert not mask[:, :5].any()
    assert not mask[int(0.82 * 256) :].any()


def test_albedo_varies_with_its_coefficients(assets: HeadAssets) -> None:
    assert assets.albedo_mean is not None
    assert assets.albedo_basis is not None
    assert assets.albedo_mean.shape == (256, 256, 3)
    assert assets.albedo_basis.shape[:3] == (256, 256, 3)
    strength = np.abs(assets.albedo_basis).mean(axis=(0, 1, 2))
    assert (np.diff(strength) < 0.01).all()
    assert strength[0] > 0.05  # from fair to deep skin
    assert assets.albedo_mean.min() >= 0
    assert assets.albedo_mean.max() <= 1


def test_the_built_in_head_is_exported_by_default(tmp_path, capsys):
    path = tmp_path / "new" / "head.npz"
    assert main(["export", "--output", str(path)]) == 0
    assert str(path) in capsys.readouterr().out
    head, assets = load_head_model(path), builtin_assets()
    assert (head.source, head.shape_size, head.expression_size) == ("builtin", 100, 50)
    for name in ("v_template", "faces", "skinning_weights", "parents", "mouth_faces", "dynamic_landmark_faces"):
        np.testing.assert_array_equal(getattr(head, name), getattr(assets, name))
    # Coefficients are the bridge's own: the first of identity and the first of expression.
    basis = np.concatenate([head.identity_basis, head.expression_basis], axis=2)
    np.testing.assert_array_equal(basis.transpose(2, 0, 1), Flame(assets)._basis.numpy())
    # 38 MB of numbers, most of them zero or smooth.
    assert path.stat().st_size < 30e6


def test_a_folder_of_licensed_files_is_exported(tmp_path):
    directory = write_tiny_head(tmp_path / "head")
    assert main(["export", str(directory), "--output", str(tmp_path / "head.npz")]) == 0
    head = load_head_model(tmp_path / "head.npz")
    assets = load_flame_assets(directory)
    np.testing.assert_array_equal(head.v_template, np.float32(assets.v_template))
    np.testing.assert_array_equal(head.expression_basis, np.float32(assets.shapedirs[:, :, 300:350]))
    assert head.source == assets.source


def test_a_folder_without_a_head_writes_nothing(tmp_path, capsys):
    assert main(["export", str(tmp_path), "--output", str(tmp_path / "head.npz")]) == 2
    assert "generic_model.pkl" in capsys.readouterr().err
    with pytest.raises(InputError, match="no such file"):
        load_head_model(tmp_path / "head.npz")
