"""DECA's networks and the segmenter have the published names and sizes; their numbers are held by the golden."""

import json
import math
from pathlib import Path

import pytest
import torch

from asccl_jax.errors import InputError
from DECA_torch_bridge.deca_model import DetailDecoder, coarse_encoder, detail_encoder, split_coarse
from DECA_torch_bridge.segmenter import Segmenter, face_mask

MANIFESTS = Path(__file__).resolve().parent.parent / "goldens" / "manifests"


@pytest.mark.parametrize(
    ("network", "manifest", "prefix"),
    [
        (coarse_encoder, "deca_E_flame", "deca.E_flame."),
        (DetailDecoder, "deca_D_detail", "deca.D_detail."),
        (lambda: Segmenter(reduction=4), "segmentation_unet_scale4", "seg."),
    ],
)
def test_state_dict_has_the_published_names_and_shapes(network, manifest, prefix):
    entries = json.loads((MANIFESTS / f"{manifest}.json").read_text())
    published = {entry["key"].removeprefix(prefix): tuple(entry["shape"]) for entry in entries}
    assert {key: tuple(value.shape) for key, value in network().state_dict().items()} == published


@pytest.mark.parametrize(
    ("network", "parameters"),
    [(coarse_encoder, 25_848_108), (detail_encoder, 25_737_408), (DetailDecoder, 1_773_345), (Segmenter, 28_950_851)],
)
def test_parameters_are_as_many_as_published(network, parameters):
    with torch.device("meta"):
        module = network()
    assert sum(math.prod(parameter.shape) for parameter in module.parameters()) == parameters


def test_coarse_codes_are_split_in_the_published_order():
    codes = split_coarse(torch.arange(236.0)[None])
    assert [part.flatten()[0].item() for part in codes] == [0, 100, 150, 200, 206, 209]
    assert codes.light[0, 1].tolist() == [212, 213, 214]


def test_crops_of_another_size_are_refused():
    with pytest.raises(InputError, match="expected RGB crops of 224 x 224"):
        coarse_encoder()(torch.zeros(1, 256, 256, 3))


def test_decoder_stays_within_a_centimetre():
    with torch.no_grad():
        displacement = DetailDecoder().eval()(torch.randn(1, 3), torch.randn(1, 50), 100 * torch.randn(1, 128))
    assert displacement.shape == (1, 256, 256)
    assert displacement.abs().max() <= 0.01


def test_instance_statistics_do_not_drift_and_see_each_picture_alone():
    torch.manual_seed(0)
    segmenter = Segmenter(reduction=16, bn_mode="instance")
    pictures = torch.rand(2, 32, 32, 3)
    before = {key: value.clone() for key, value in segmenter.state_dict().items()}
    with torch.no_grad():
        both = segmenter(pictures)
        alone = segmenter(pictures[1:])
        by_running = Segmenter(reduction=16)
        by_running.load_state_dict(before)
        in_training = by_running.train()(pictures[1:])
    # Upstream's way: train mode, one picture at a time. Same arithmetic in another order.
    torch.testing.assert_close(alone, in_training, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(both[1:], alone, atol=1e-4, rtol=1e-4)
    assert all(torch.equal(value, before[key]) for key, value in segmenter.state_dict().items())
    assert face_mask(torch.tensor([[[[0.0, 2, 1], [3, 2, 1]]]])).tolist() == [[[True, False]]]
