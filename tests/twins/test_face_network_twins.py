"""The networks that score faces are the same in PyTorch and in Flax, and their published files become folders."""

import hashlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from asccl_jax.convert.face_network_entries import face_variables
from asccl_jax.weights import face_module, load_face_network
from tests.models.tiny_face_networks import TINY_FACE_NETWORKS

torch = pytest.importorskip("torch")

from DECA_torch_bridge.convert import main  # noqa: E402
from tests.twins.face_twins import TWINS, arrays_of, drawn_twin, forward  # noqa: E402


def drawn_inputs(module, count):
    random = np.random.default_rng(7)
    inputs = [random.normal(size=(count, *shape)).astype(np.float32) for shape in module.input_shapes]
    # SyncNet sees levels of 0..255.
    return [array * 60 + 128 if array.ndim == 5 else array for array in inputs]


def assert_same(name, settings, *, count):
    twin, module = drawn_twin(name, settings), face_module(name, settings)
    variables = jax.tree.map(jnp.asarray, face_variables(module, arrays_of(twin)))
    inputs = drawn_inputs(module, count)
    ours = jax.tree.leaves(jax.jit(module.apply)(variables, *map(jnp.asarray, inputs)))
    for actual, expected in zip(ours, forward(name, twin, inputs), strict=True):
        error = np.linalg.norm(actual - expected) / np.linalg.norm(expected)
        # The bound asked for; float32 sums in another order give about 3e-6.
        assert error < 1e-4
        assert np.abs(np.diff(expected, axis=0)).max() > 1e-2  # the twin tells pictures apart, or this says nothing


@pytest.mark.parametrize("name", TINY_FACE_NETWORKS)
def test_small_networks_agree(name):
    assert_same(name, TINY_FACE_NETWORKS[name], count=2)


@pytest.mark.slow
@pytest.mark.parametrize("name", TWINS)
def test_published_networks_agree(name):
    assert_same(name, {}, count=2)


@pytest.mark.parametrize(
    ("name", "settings", "keys", "weights"),
    [
        ("resnet-face", {}, 181, 25_627_081),
        ("efficient-face", {}, 418, 1_275_293),
        ("arcface", {}, 475, 43_590_848),
        ("arcface", {"stage_blocks": (3, 13, 30, 3)}, 925, 65_156_160),
        ("syncnet", {}, 102, 13_631_616),
    ],
)
def test_twins_have_the_published_numbers_of_tensors_and_weights(name, settings, keys, weights):
    with torch.device("meta"):
        twin = TWINS[name](**settings)
    assert len(twin.state_dict()) == keys
    assert sum(parameter.numel() for parameter in twin.parameters()) == weights


def as_published(name, twin):
    """What the published file holds, as far as is known: wrapped, with prefix, or without counters."""
    tensors = twin.state_dict()
    if name == "efficient-face":
        return {"epoch": 9, "state_dict": {f"module.{key}": tensor for key, tensor in tensors.items()}}
    if name == "resnet-face":
        return {f"module.{key}": tensor for key, tensor in tensors.items()}
    if name == "syncnet":
        return {key: tensor for key, tensor in tensors.items() if not key.endswith("num_batches_tracked")}
    return tensors


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("efficient-face", "EfficientFace_Trained_on_AffectNet7.pth.tar"),
        ("syncnet", "syncnet_v2.model"),
        pytest.param("resnet-face", "resnet18_110.pth", marks=pytest.mark.slow),
        pytest.param("arcface", "backbone.pth", marks=pytest.mark.slow),
    ],
)
def test_a_published_file_becomes_a_folder(tmp_path, capsys, name, file):
    twin, path = drawn_twin(name), tmp_path / file
    # SyncNet's file is of PyTorch 0.4, from before the zip archives.
    torch.save(as_published(name, twin), path, _use_new_zipfile_serialization=name != "syncnet")
    assert main([name, str(path), str(tmp_path / "net")]) == 0
    file_hash = hashlib.sha256(path.read_bytes()).hexdigest()
    said = capsys.readouterr().out
    assert f"SHA-256 {file_hash}" in said
    assert f"{tmp_path / 'net'}: written; it serves" in said
    network = load_face_network(tmp_path / "net", name)
    assert (network.module, network.file_hash) == (face_module(name), file_hash)
    jax.tree.map(np.testing.assert_array_equal, network.variables, face_variables(network.module, arrays_of(twin)))

    assert main([name, str(path), str(tmp_path / "net")]) == 2
    assert "exists already; choose another name or add --overwrite" in capsys.readouterr().err
    assert main([name, str(path), str(tmp_path / "net"), "--overwrite"]) == 0


def test_the_file_of_another_network_is_one_line_with_every_difference(tmp_path, capsys):
    path = tmp_path / "backbone.pth"
    torch.save(drawn_twin("efficient-face", TINY_FACE_NETWORKS["efficient-face"]).state_dict(), path)
    assert main(["syncnet", str(path), str(tmp_path / "net")]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert f"error: {path}: not a checkpoint of SyncNet: netcnnaud.0.bias is missing" in said
    assert "stage2.0.branch1.0.weight is unexpected" in said
    assert main(["arcface", str(path), str(tmp_path / "net")]) == 2
    assert "not a checkpoint of ArcFace: (0, 0, 0, 0) residual blocks" in capsys.readouterr().err
    assert not (tmp_path / "net").exists()
