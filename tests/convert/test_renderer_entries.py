"""Converters of the renderer: lossless both ways, both names of doubled entries, strict about all the rest."""

import dataclasses

import jax
import numpy as np
import pytest

from asccl_jax.convert.renderer_entries import (
    params_from_state_dicts,
    renderer_settings,
    state_dicts_from_params,
    statistics_from_state_dicts,
    vgg_from_state_dict,
)
from asccl_jax.errors import InputError
from tests.models.tiny_renderer import TINY_RENDERER, drawn_renderer

SETTINGS = dataclasses.replace(TINY_RENDERER, eyes=True)


@pytest.fixture(scope="module")
def params():
    return drawn_renderer(SETTINGS)


@pytest.fixture
def state_dicts(params):
    return state_dicts_from_params(params, SETTINGS)


def recognised(state_dicts):
    return renderer_settings(state_dicts, image_size=TINY_RENDERER.image_size, roi_size=TINY_RENDERER.roi_size)


def test_there_and_back_is_lossless_and_shapes_tell_the_settings(params, state_dicts):
    assert recognised(state_dicts) == SETTINGS
    jax.tree.map(np.testing.assert_array_equal, params_from_state_dicts(state_dicts, SETTINGS), params)


def test_networks_without_regions_are_recognised(state_dicts):
    del state_dicts["eyes_discriminator"], state_dicts["mouth_discriminator"]
    assert recognised(state_dicts) == dataclasses.replace(TINY_RENDERER, mouth=False)


def test_published_keys_have_their_places(params, state_dicts):
    generator = state_dicts["generator"]
    # Two halvings: convolutions at 1, 4, 7, blocks from 10 on; kernels (out, in, rows, columns).
    ours = params["generator"]["previous_encoder"]["block1"]["conv1"]["kernel"]
    np.testing.assert_array_equal(generator["model_down_img.11.conv_block.5.weight"], ours.transpose(3, 2, 0, 1))
    # PyTorch's transposed kernels are (in, out, rows, columns) and turned.
    ours = params["generator"]["decoder"]["up1"]["kernel"]
    np.testing.assert_array_equal(generator["model_up_img.3.weight"][5, 2], ours[::-1, ::-1, 5, 2])
    # The full resolution has the highest number.
    ours = params["discriminator"]["scale0"]["layer2"]["bias"]
    np.testing.assert_array_equal(state_dicts["discriminator"]["scale1_layer2.0.bias"], ours)
    assert state_dicts["discriminator"]["scale0_layer0.0.bias"].shape == (8,)


def test_entries_are_written_under_both_names_and_either_will_do(params, state_dicts):
    generator = state_dicts["generator"]
    doubled = [key for key in generator if ".conv_block." in key]
    # Two and two and one blocks of two convolutions and two norms.
    assert len(doubled) == 5 * 2 * (2 + 3)
    for key in doubled:
        np.testing.assert_array_equal(generator[key.replace("conv_block", "resnetblock_sequential")], generator[key])
    for dropped in (".conv_block.", ".resnetblock_sequential."):
        single = {key: value for key, value in generator.items() if dropped not in key}
        found = params_from_state_dicts({**state_dicts, "generator": single}, SETTINGS)
        jax.tree.map(np.testing.assert_array_equal, found, params)
    generator["model_res_img.0.conv_block.1.bias"] = generator["model_res_img.0.conv_block.1.bias"] + 1
    with pytest.raises(InputError, match=r"model_res_img.0.conv_block.1.bias and .*sequential.1.bias differ"):
        params_from_state_dicts(state_dicts, SETTINGS)


def test_running_statistics_are_fresh_if_there_are_none_and_kept_if_asked(params, state_dicts):
    state_dict = state_dicts["discriminator"]
    np.testing.assert_array_equal(state_dict["scale0_layer1.1.running_var"], np.ones(16))
    assert state_dict["scale0_layer1.1.num_batches_tracked"].dtype == np.int64
    state_dict["scale0_layer1.1.running_mean"] = np.arange(16, dtype=np.float32)
    statistics = statistics_from_state_dicts(state_dicts, SETTINGS)
    np.testing.assert_array_equal(statistics["discriminator"]["scale1"]["norm1"]["mean"], np.arange(16))
    again = state_dicts_from_params(params, SETTINGS, statistics=statistics)
    np.testing.assert_array_equal(again["discriminator"]["scale0_layer1.1.running_mean"], np.arange(16))


def test_all_that_does_not_fit_is_in_one_error(state_dicts):
    del state_dicts["discriminator"]["scale1_layer4.0.bias"]
    del state_dicts["generator"]["model_res_img.0.conv_block.1.bias"]
    del state_dicts["generator"]["model_res_img.0.resnetblock_sequential.1.bias"]
    state_dicts["generator"]["model_up_img.0.weight"] = np.full((16, 8, 3, 3), np.nan, np.float32)
    state_dicts["generator"]["model_final_img.1.bias"] = np.zeros(4, np.float32)
    state_dicts["mouth_discriminator"]["extra"] = np.zeros(1, np.float32)
    with pytest.raises(InputError) as caught:
        params_from_state_dicts(state_dicts, SETTINGS)
    for phrase in (
        "discriminator.scale1_layer4.0.bias is missing",
        "generator.model_res_img.0.conv_block.1.bias is missing",
        "generator.model_up_img.0.weight holds values that are not finite",
        "generator.model_final_img.1.bias has shape (4,), expected (3,)",
        "mouth_discriminator.extra is unexpected",
    ):
        assert phrase in str(caught.value)


def test_what_is_no_renderer_is_said(params):
    with pytest.raises(InputError, match=r"not a renderer checkpoint: generator.model_down_seg.1.weight is missing"):
        renderer_settings({"discriminator": {}})
    with pytest.raises(InputError, match="generator/decoder/last/bias is missing"):
        last = {key: value for key, value in params["generator"]["decoder"].items() if key != "last"}
        state_dicts_from_params({**params, "generator": {**params["generator"], "decoder": last}}, SETTINGS)


WIDTHS = (2, 3, 4, 5, 6)
# Spelt out here independently of the converter's table.
POSITIONS = (0, 2, 5, 7, 10, 12, 14, 16, 19, 21, 23, 25, 28, 30, 32, 34)
OUTPUTS = (2, 2, 3, 3, 4, 4, 4, 4, 5, 5, 5, 5, 6, 6, 6, 6)


def torchvisions(widths=OUTPUTS):
    random, inputs, arrays = np.random.default_rng(0), 3, {}
    for position, outputs in zip(POSITIONS, widths, strict=True):
        arrays[f"features.{position}.weight"] = random.normal(size=(outputs, inputs, 3, 3)).astype(np.float32)
        arrays[f"features.{position}.bias"] = random.normal(size=outputs).astype(np.float32)
        inputs = outputs
    return arrays | {"classifier.0.weight": np.zeros((7, 7), np.float32)}


def test_weights_find_their_places():
    arrays = torchvisions()
    params = vgg_from_state_dict(arrays, WIDTHS)
    assert len(params) == 13
    for key, name in (("features.0", "conv1_1"), ("features.16", "conv3_4"), ("features.28", "conv5_1")):
        np.testing.assert_array_equal(params[name]["kernel"], arrays[f"{key}.weight"].transpose(2, 3, 1, 0))
        np.testing.assert_array_equal(params[name]["bias"], arrays[f"{key}.bias"])


def test_faults_are_listed_and_the_file_of_features_alone_will_do():
    arrays = torchvisions()
    del arrays["features.10.bias"]
    arrays |= {"features.5.bias": np.zeros(9, np.float32), "features.1.weight": np.zeros(1, np.float32)}
    with pytest.raises(InputError) as caught:
        vgg_from_state_dict(arrays, WIDTHS)
    assert str(caught.value) == (
        "not a VGG-19 checkpoint: features.10.bias is missing; features.1.weight is unexpected;"
        " features.5.bias has shape (9,), expected (3,)"
    )
    used = {key: value for key, value in torchvisions().items() if key.split(".")[1] in map(str, POSITIONS[:13])}
    del used["classifier.0.weight"]
    assert set(vgg_from_state_dict(used, WIDTHS)) == set(vgg_from_state_dict(torchvisions(), WIDTHS))
