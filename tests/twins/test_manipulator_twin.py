"""The manipulator in PyTorch and in Flax are the same networks, and checkpoints go there and back."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from asccl_jax.convert.manipulator_entries import variables_from_state_dicts
from asccl_jax.models.manipulator import NETWORKS, Manipulator
from asccl_jax.weights import load_manipulator
from tests.models.tiny_manipulator import TINY_MANIPULATOR

torch = pytest.importorskip("torch")

from DECA_torch_bridge.convert import main  # noqa: E402
from tests.twins.manipulator_twin import ManipulatorTwin  # noqa: E402

PUBLISHED = dataclasses.replace(
    TINY_MANIPULATOR, window=10
)  # a file does not say its window: the published one is taken


@pytest.fixture
def twin():
    torch.manual_seed(3)
    return ManipulatorTwin(PUBLISHED)


@pytest.fixture
def checkpoint(twin, tmp_path):
    torch.save({name: getattr(twin, name).state_dict() for name in NETWORKS}, tmp_path / "02_nets_finetuned.pth")
    return tmp_path / "02_nets_finetuned.pth"


def test_all_four_networks_compute_the_same(twin):
    state_dicts = {
        name: {key: value.numpy() for key, value in getattr(twin, name).state_dict().items()} for name in NETWORKS
    }
    manipulator = jax.tree.map(jnp.asarray, Manipulator(variables_from_state_dicts(state_dicts, PUBLISHED), PUBLISHED))
    random = np.random.default_rng(0)
    x, style, z = (random.normal(size=shape).astype(np.float32) for shape in ((3, 10, 5), (3, 3), (3, 2)))
    emotion = np.array([6, 0, 2])
    with torch.no_grad():
        tensors = [torch.from_numpy(array) for array in (x, style, z, emotion)]
        expected = [
            twin.generate(tensors[0], tensors[1]),
            twin.mapping_network(tensors[2], tensors[3]),
            twin.style_of(tensors[0]),
            twin.judge(tensors[0], tensors[3]),
        ]
    x, style, z, emotion = (jnp.asarray(array) for array in (x, style, z, emotion.astype(np.int32)))
    found = [
        manipulator.generate(x, style),
        manipulator.style_of_label(z, emotion),
        manipulator.style_of(x),
        manipulator.judge(x, emotion),
    ]
    for ours, theirs in zip(found, expected, strict=True):
        np.testing.assert_allclose(ours, theirs.numpy(), atol=2e-6)


def test_published_checkpoint_to_flax_and_back(twin, checkpoint, tmp_path, capsys):
    assert main(["manipulator", str(checkpoint), str(tmp_path / "saved")]) == 0
    assert "windows of 10 frames (as published; the file does not say)" in capsys.readouterr().out
    assert load_manipulator(tmp_path / "saved").settings == PUBLISHED
    assert main(["manipulator", str(tmp_path / "saved"), str(tmp_path / "back.pth")]) == 0
    back = torch.load(tmp_path / "back.pth", weights_only=True)
    assert list(back) == list(NETWORKS)
    for name in NETWORKS:
        network = getattr(ManipulatorTwin(PUBLISHED), name)
        network.load_state_dict(back[name], strict=True)
        for ours, theirs in zip(network.state_dict().values(), getattr(twin, name).state_dict().values(), strict=True):
            assert torch.equal(ours, theirs)


def test_mistakes_are_one_line_and_status_two(checkpoint, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    torch.save({"weight": torch.ones(2)}, "single.pth")
    networks = torch.load(checkpoint, weights_only=True)
    del networks["generator"]["seq2.4.weight"], networks["style_encoder"]["LSTM.bias_hh_l0"]
    torch.save(networks, "short.pth")
    for arguments, said in (
        (["gone.pth", "new"], "gone.pth: no such file"),
        (["single.pth", "new"], "not a checkpoint of several networks: weight: it holds a Tensor"),
        (["short.pth", "new"], "generator.seq2.4.weight is missing; style_encoder.LSTM.bias_hh_l0 is missing"),
        (["a", "b"], "exactly one of the two must be a PyTorch file"),
        (["02_nets_finetuned.pth", "."], "exists already"),
        (["02_nets_finetuned.pth", ".", "--overwrite"], "a directory that is no manipulator is never replaced"),
    ):
        assert main(["manipulator", *arguments]) == 2
        error = capsys.readouterr().err
        assert error.startswith("error: ")
        assert error.count("\n") == 1
        assert said in error
    assert not (tmp_path / "new").exists()
