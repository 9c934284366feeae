"""Converters of the manipulator: lossless both ways, and strict about everything that does not fit."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from asccl_jax.convert.manipulator_entries import (
    manipulator_settings,
    state_dicts_from_variables,
    variables_from_state_dicts,
)
from asccl_jax.errors import InputError
from asccl_jax.models.manipulator import Manipulator, init_manipulator
from asccl_jax.settings import ManipulatorSettings
from tests.models.tiny_manipulator import TINY_MANIPULATOR


def shapes_of(settings):
    """The published keys, spelt out here independently of the converter's table."""

    def linear(key, inputs, outputs):
        return {f"{key}.weight": (outputs, inputs), f"{key}.bias": (outputs,)}

    def lstm(inputs, width):
        shapes = {}
        for layer, size in enumerate([inputs, *[2 * width] * (settings.lstm_layers - 1)]):
            for suffix in (f"l{layer}", f"l{layer}_reverse"):
                shapes |= {
                    f"LSTM.weight_ih_{suffix}": (4 * width, size),
                    f"LSTM.weight_hh_{suffix}": (4 * width, width),
                }
                shapes |= {f"LSTM.bias_ih_{suffix}": (4 * width,), f"LSTM.bias_hh_{suffix}": (4 * width,)}
        return shapes

    def encoder(outputs):
        (one, two), (three, four) = settings.encoder_widths, settings.encoder_head_widths
        width = settings.encoder_lstm_width
        return (
            linear("seq1.0", settings.coefficients, one)
            | linear("seq1.2", one, two)
            | lstm(two, width)
            | linear("seq2.0", 2 * width, three)
            | linear("seq2.2", three, four)
            | linear("seq2.4", four, outputs)
        )

    wide, head, hidden = settings.generator_width, settings.generator_head_width, settings.hidden_size
    mapping = linear("shared.0", settings.latent_size, hidden)
    mapping |= linear("shared.2", hidden, hidden) | linear("shared.4", hidden, hidden)
    for emotion in range(settings.emotions):
        mapping |= linear(f"unshared.{emotion}.0", hidden, hidden)
        mapping |= linear(f"unshared.{emotion}.2", hidden, settings.style_size)
    return {
        "generator": linear("seq1.0", settings.coefficients + settings.style_size, wide)
        | linear("seq1.2", wide, wide)
        | lstm(wide, wide)
        | linear("seq2.0", 2 * wide, head)
        | linear("seq2.2", head, head)
        | linear("seq2.4", head, settings.coefficients),
        "mapping_network": mapping,
        "style_encoder": encoder(settings.style_size),
        "discriminator": encoder(settings.emotions),
    }


def state_dicts_of(settings, seed=0):
    random = np.random.default_rng(seed)
    return {
        name: {key: random.standard_normal(shape, dtype=np.float32) for key, shape in shapes.items()}
        for name, shapes in shapes_of(settings).items()
    }


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_there_and_back_is_bit_equal_in_value_order_and_type(dtype):
    state_dicts = {
        name: {key: array.astype(dtype) for key, array in part.items()}
        for name, part in state_dicts_of(TINY_MANIPULATOR).items()
    }
    back = state_dicts_from_variables(variables_from_state_dicts(state_dicts, TINY_MANIPULATOR), TINY_MANIPULATOR)
    assert list(back) == list(state_dicts)
    for name, part in state_dicts.items():
        assert list(back[name]) == list(part)
        for key, array in part.items():
            np.testing.assert_array_equal(back[name][key], array, strict=True)


@pytest.mark.parametrize(
    "settings", [TINY_MANIPULATOR, ManipulatorSettings(), dataclasses.replace(TINY_MANIPULATOR, lstm_layers=3)]
)
def test_the_tree_is_that_of_the_networks_and_sizes_are_found_from_shapes(settings):
    shapes = shapes_of(settings)
    # Zeros of one number: sizes without the memory.
    state_dicts = {
        name: {key: np.broadcast_to(np.float32(0), shape) for key, shape in part.items()}
        for name, part in shapes.items()
    }
    found = manipulator_settings(state_dicts)
    assert found == dataclasses.replace(settings, window=10)
    expected = jax.eval_shape(lambda: init_manipulator(settings, jax.random.key(0)))
    variables = variables_from_state_dicts(state_dicts, settings)
    assert jax.tree.map(np.shape, variables) == jax.tree.map(lambda leaf: leaf.shape, expected)


def test_layouts_follow_the_two_frameworks():
    state_dicts = state_dicts_of(TINY_MANIPULATOR)
    variables = variables_from_state_dicts(state_dicts, TINY_MANIPULATOR)
    backward = variables["generator"]["lstm"]["layer1"]["backward"]
    assert backward["input_kernel"][5, 9] == state_dicts["generator"]["LSTM.weight_ih_l1_reverse"][9, 5]
    assert backward["recurrent_bias"][3] == state_dicts["generator"]["LSTM.bias_hh_l1_reverse"][3]
    branches = variables["mapping_network"]["unshared1"]["kernel"]
    assert branches[4, 6, 2] == state_dicts["mapping_network"]["unshared.4.2.weight"][2, 6]


def test_one_bias_computes_what_two_do_and_writes_zeros_for_the_second():
    state_dicts, one = state_dicts_of(TINY_MANIPULATOR), dataclasses.replace(TINY_MANIPULATOR, lstm_biases=1)
    variables = variables_from_state_dicts(state_dicts, one)
    window = jnp.asarray(np.random.default_rng(1).standard_normal((2, 4, 5), dtype=np.float32))
    both = Manipulator(variables_from_state_dicts(state_dicts, TINY_MANIPULATOR), TINY_MANIPULATOR)
    np.testing.assert_allclose(
        Manipulator(variables, one).style_of(window), both.style_of(window), rtol=1e-5, atol=1e-6
    )
    back = state_dicts_from_variables(variables, one)["style_encoder"]
    first = state_dicts["style_encoder"]
    np.testing.assert_array_equal(back["LSTM.bias_hh_l0"], np.zeros(24, np.float32), strict=True)
    np.testing.assert_array_equal(back["LSTM.bias_ih_l0"], first["LSTM.bias_ih_l0"] + first["LSTM.bias_hh_l0"])


def test_all_that_does_not_fit_is_listed_in_one_error():
    state_dicts = state_dicts_of(TINY_MANIPULATOR)
    del state_dicts["mapping_network"]["unshared.3.2.bias"]
    state_dicts["generator"]["extra"] = np.zeros(1, np.float32)
    state_dicts["style_encoder"]["seq1.2.bias"] = np.zeros(9, np.float32)
    state_dicts["discriminator"]["seq2.4.bias"] = np.full(7, np.nan, np.float32)
    state_dicts["discriminator"]["seq2.2.bias"] = np.zeros(7, np.int64)
    with pytest.raises(InputError) as caught:
        variables_from_state_dicts(state_dicts, TINY_MANIPULATOR)
    message = str(caught.value)
    assert "\n" not in message
    for problem in (
        "mapping_network.unshared.3.2.bias is missing",
        "generator.extra is unexpected",
        "style_encoder.seq1.2.bias has shape (9,), expected (8,)",
        "discriminator.seq2.4.bias holds values that are not finite",
        "discriminator.seq2.2.bias holds int64, expected real numbers",
    ):
        assert problem in message
    assert message.count(";") == 4


def test_a_file_of_something_else_is_named():
    with pytest.raises(InputError, match=r"not a manipulator checkpoint: generator\.seq1\.0\.weight is missing"):
        manipulator_settings({"generator": {}})
    state_dicts = state_dicts_of(TINY_MANIPULATOR)
    state_dicts["generator"]["seq1.0.weight"] = np.zeros(3, np.float32)
    with pytest.raises(InputError, match=r"generator\.seq1\.0\.weight has shape \(3,\), expected 2 axes"):
        manipulator_settings(state_dicts)


def test_a_tree_that_does_not_fit_is_listed_in_one_error():
    variables = variables_from_state_dicts(state_dicts_of(TINY_MANIPULATOR), TINY_MANIPULATOR)
    del variables["generator"]["seq1"]["linear0"]
    variables["discriminator"]["lstm"]["layer0"]["forward"]["input_bias"] = np.zeros(3, np.float32)
    with pytest.raises(InputError) as caught:
        state_dicts_from_variables(variables, TINY_MANIPULATOR)
    assert "generator/seq1/linear0/bias is missing; generator/seq1/linear0/kernel is missing" in str(caught.value)
    assert "discriminator/lstm/layer0/forward/input_bias has shape (3,), expected (24,)" in str(caught.value)
