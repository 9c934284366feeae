"""An exported head is the part of the assets that JAX draws with, whatever they were read from."""

import numpy as np
import pytest

from asccl_jax.errors import InputError
from asccl_jax.head.flame import load_head_model
from DECA_torch_bridge.assets_check import main
from DECA_torch_bridge.flame import Flame
from DECA_torch_bridge.head_assets import builtin_assets, load_flame_assets
from tests.bridge.tiny_head import write_tiny_head


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
