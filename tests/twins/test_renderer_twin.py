"""The renderer in PyTorch and in Flax are the same networks, and checkpoints go there and back."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from asccl_jax.convert.renderer_entries import FILE_NAMES, params_from_state_dicts, vgg_from_state_dict
from asccl_jax.models.renderer import MultiscaleDiscriminator, RendererGenerator
from asccl_jax.models.vgg import Vgg
from asccl_jax.weights import load_renderer, load_vgg
from tests.models.tiny_renderer import TINY_RENDERER, drawn_inputs

torch = pytest.importorskip("torch")

from DECA_torch_bridge.convert import main  # noqa: E402
from tests.twins.renderer_twin import DiscriminatorTwin, GeneratorTwin, VggTwin  # noqa: E402

SIZES = ["--image-size", "32", "--roi-size", "16"]
WIDTHS = (4, 6, 8, 8, 8)


def arrays_of(module):
    return {key: value.numpy() for key, value in module.state_dict().items()}


@pytest.fixture
def twins():
    torch.manual_seed(3)
    return {
        "generator": GeneratorTwin(TINY_RENDERER),
        "discriminator": DiscriminatorTwin(TINY_RENDERER),
        "mouth_discriminator": DiscriminatorTwin(TINY_RENDERER),
    }


@pytest.fixture
def checkpoint(twins, tmp_path):
    directory = tmp_path / "published"
    directory.mkdir()
    for name, twin in twins.items():
        torch.save(twin.state_dict(), directory / f"15_net_{FILE_NAMES[name]}.pth")
    return directory


def test_networks_and_their_gradients_are_the_same(twins):
    # Kernels a hundred times as large as fresh ones: else the last layer's images are all but grey.
    for twin in twins.values():
        for parameter in twin.parameters():
            parameter.data *= 5
    params = jax.tree.map(
        jnp.asarray, params_from_state_dicts({name: arrays_of(twin) for name, twin in twins.items()}, TINY_RENDERER)
    )
    inputs = drawn_inputs(2)
    blocks, previous, mask = (torch.from_numpy(array.transpose(0, 3, 1, 2)) for array in inputs)
    previous.requires_grad_()
    expected = twins["generator"](blocks, previous, mask)
    judged = twins["discriminator"](torch.cat([blocks[:, 18:], expected], dim=1))
    sum(maps.square().mean() for layers in judged for maps in layers).backward()

    given = [jnp.asarray(inputs[0]), jnp.asarray(inputs[2])]

    @jax.jit
    def computed(params, previous):
        def loss(params, previous):
            image = RendererGenerator(TINY_RENDERER).apply(
                {"params": params["generator"]}, *given[:1], previous, *given[1:]
            )
            seen = jnp.concatenate([given[0][..., 18:], image], axis=-1)
            maps = MultiscaleDiscriminator(TINY_RENDERER).apply({"params": params["discriminator"]}, seen)
            return sum(jnp.mean(found**2) for layers in maps for found in layers), (image, maps)

        return jax.grad(loss, argnums=(0, 1), has_aux=True)(params, previous)

    (by_params, by_previous), (image, maps) = computed(params, jnp.asarray(inputs[1]))
    np.testing.assert_allclose(image, expected.detach().numpy().transpose(0, 2, 3, 1), atol=2e-4)
    for layers, theirs in zip(maps, judged, strict=True):
        for found, other in zip(layers, theirs, strict=True):
            np.testing.assert_allclose(found, other.detach().numpy().transpose(0, 2, 3, 1), atol=2e-3)
    for ours, theirs in (
        (by_previous, previous.grad.numpy().transpose(0, 2, 3, 1)),
        (
            by_params["generator"]["decoder"]["up0"]["kernel"],
            twins["generator"].model_up_img[0].weight.grad.numpy()[:, :, ::-1, ::-1].transpose(2, 3, 0, 1),
        ),
        (
            by_params["discriminator"]["scale1"]["layer1"]["kernel"],
            twins["discriminator"].scale0_layer1[0].weight.grad.numpy().transpose(2, 3, 1, 0),
        ),
    ):
        # A rectifier near zero may fall on either side: a per cent of the largest entry.
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-2 * np.abs(theirs).max())


def test_features_of_vgg_are_the_same():
    torch.manual_seed(0)
    twin, image = VggTwin(WIDTHS), np.random.default_rng(0).uniform(-1, 1, (2, 34, 32, 3)).astype(np.float32)
    vgg = jax.tree.map(jnp.asarray, Vgg(vgg_from_state_dict(arrays_of(twin), WIDTHS), WIDTHS))
    with torch.no_grad():
        expected = twin(torch.from_numpy(image.transpose(0, 3, 1, 2)))
    for found, other in zip(jax.jit(Vgg.features)(vgg, image), expected, strict=True):
        np.testing.assert_allclose(found, other.numpy().transpose(0, 2, 3, 1), atol=1e-5)


def test_published_checkpoint_to_flax_and_back(twins, checkpoint, tmp_path, capsys):
    (checkpoint / "5_net_G.pth").write_bytes(b"an earlier one")
    assert main(["renderer", str(checkpoint), str(tmp_path / "saved"), *SIZES]) == 0
    assert "15_net_Dm.pth" in capsys.readouterr().out
    assert load_renderer(tmp_path / "saved").settings == TINY_RENDERER
    assert main(["renderer", str(tmp_path / "saved"), str(tmp_path / "back")]) == 0
    for name, twin in twins.items():
        back = torch.load(tmp_path / "back" / f"latest_net_{FILE_NAMES[name]}.pth", weights_only=True)
        fresh = type(twin)(TINY_RENDERER)
        fresh.load_state_dict(back, strict=True)
        for key, value in twin.state_dict().items():
            assert torch.equal(fresh.state_dict()[key], value), key


def test_one_file_of_a_directory_names_its_epoch_and_vgg_is_converted(checkpoint, tmp_path, capsys):
    assert main(["renderer", str(checkpoint / "15_net_G.pth"), str(tmp_path / "saved"), *SIZES]) == 0
    assert load_renderer(tmp_path / "saved").settings == TINY_RENDERER
    torch.save(VggTwin().state_dict(), tmp_path / "vgg19.pth")
    assert main(["vgg19", str(tmp_path / "vgg19.pth"), str(tmp_path / "vgg")]) == 0
    assert load_vgg(tmp_path / "vgg").params["conv5_1"]["kernel"].shape == (3, 3, 512, 512)


def test_mistakes_are_one_line_and_status_two(checkpoint, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    alone = tmp_path / "alone"
    alone.mkdir()
    (alone / "latest_net_G.pth").write_bytes((checkpoint / "15_net_G.pth").read_bytes())
    wide = GeneratorTwin(dataclasses.replace(TINY_RENDERER, generator_width=6)).state_dict()
    del wide["model_final_img.1.bias"]
    torch.save(wide, alone / "1_net_G.pth")
    (alone / "1_net_D.pth").write_bytes((checkpoint / "15_net_D.pth").read_bytes())
    for arguments, said in (
        (["renderer", "gone.pth", "new"], "gone.pth: expected a directory, or a file EPOCH_net_G.pth"),
        (["renderer", "empty", "new"], "no renderer.json there"),
        (["renderer", "alone", "new"], "latest_net_D.pth: no such file"),
        (["renderer", "alone/1_net_G.pth", "new", *SIZES], "generator.model_final_img.1.bias is missing"),
        (["renderer", "published", "empty", *SIZES], "exists already"),
        (["renderer", "published", "empty", "--overwrite"], "what is no renderer is never replaced"),
        (["vgg19", "published/15_net_D.pth", "new"], "not a VGG-19 checkpoint: features.0.bias is missing"),
    ):
        assert main(arguments) == 2
        error = capsys.readouterr().err
        assert error.startswith("error: ")
        assert error.count("\n") == 1
        assert said in error
    assert not (tmp_path / "new").exists()
