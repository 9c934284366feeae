"""The manipulator's networks: sizes, independence of rows, styles by label, and the part that windows share."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from asccl_jax.errors import InputError
from asccl_jax.models.manipulator import BiLSTM, Manipulator, init_manipulator
from asccl_jax.settings import ManipulatorSettings
from tests.models.tiny_manipulator import TINY_MANIPULATOR, drawn_manipulator


@pytest.fixture(scope="module")
def manipulator():
    return Manipulator(jax.tree.map(jnp.asarray, drawn_manipulator(TINY_MANIPULATOR)), TINY_MANIPULATOR)


def drawn(*shape, seed=0):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


def test_networks_have_the_published_number_of_weights():
    shapes = jax.eval_shape(lambda: init_manipulator(ManipulatorSettings(), jax.random.key(0)))
    counts = {name: sum(leaf.size for leaf in jax.tree.leaves(tree)) for name, tree in shapes.items()}
    published = {"generator": 12951091, "mapping_network": 45040, "style_encoder": 990672, "discriminator": 990087}
    assert counts == published


def test_fresh_weights_are_distributed_as_published():
    sizes = ManipulatorSettings(generator_width=64, generator_head_width=64, encoder_widths=(200, 100))
    networks = init_manipulator(sizes, jax.random.key(4))
    kernel = networks["style_encoder"]["seq1"]["linear1"]["kernel"]
    # 20,000 draws: the deviation is known to half a percent; a truncated normal would end at 2 deviations.
    np.testing.assert_allclose(kernel.std(), (2 / 200) ** 0.5, rtol=0.02)
    assert float(jnp.abs(kernel).max()) > 3 * (2 / 200) ** 0.5
    branches = networks["mapping_network"]["unshared0"]["kernel"]
    np.testing.assert_allclose(branches.std(), (2 / 64) ** 0.5, rtol=0.03)
    assert not np.array_equal(branches[0], branches[1])
    assert not np.any(networks["generator"]["seq2"]["linear0"]["bias"])
    for name, width in (("generator", 64), ("discriminator", 128)):
        recurrent = networks[name]["lstm"]["layer1"]["backward"]
        for leaf in recurrent.values():
            assert 0.95 * width**-0.5 < float(jnp.abs(leaf).max()) <= width**-0.5
        np.testing.assert_allclose(recurrent["recurrent_kernel"].std(), width**-0.5 / 3**0.5, rtol=0.02)


def test_windows_do_not_influence_each_other_and_frames_of_one_do(manipulator):
    x, style = drawn(3, 4, 5), drawn(3, 3, seed=1)
    plain = manipulator.generate(x, style)
    assert plain.shape == (3, 4, 5)
    changed = manipulator.generate(x.at[1, 0].add(1.0), style)
    np.testing.assert_allclose(changed[::2], plain[::2], atol=1e-6)
    assert float(jnp.abs(changed - plain)[1].min(axis=-1).max()) > 1e-4  # the last frame hears of the first
    assert not np.allclose(changed[1, 3], plain[1, 3], atol=1e-4)


def test_prepared_frames_finish_as_the_windows_they_are_cut_to(manipulator):
    frames, style = drawn(7, 5), drawn(1, 3, seed=1)
    rows = jnp.arange(4)[:, None] + jnp.arange(4)[None]
    prepared = manipulator.prepare(frames, jnp.broadcast_to(style, (7, 3)))
    finished = manipulator.finish(prepared[rows])
    expected = manipulator.generate(frames[rows], jnp.broadcast_to(style, (4, 3)))
    np.testing.assert_allclose(finished, expected, atol=2e-6)  # the same products in another grouping


def test_a_label_picks_its_own_branch(manipulator):
    z = jnp.broadcast_to(drawn(1, 2), (7, 2))
    styles = manipulator.style_of_label(z, jnp.arange(7))
    reordered = manipulator.style_of_label(z, jnp.array([6, 0, 1, 2, 3, 4, 5]))
    np.testing.assert_allclose(reordered, jnp.roll(styles, 1, axis=0), atol=1e-6)
    weights = manipulator.variables["mapping_network"]
    bias = weights["unshared1"]["bias"].at[2].add(1.0)
    moved = manipulator.with_networks(
        {"mapping_network": {**weights, "unshared1": {**weights["unshared1"], "bias": bias}}}
    ).style_of_label(z, jnp.arange(7))
    np.testing.assert_allclose(moved - styles, jnp.zeros((7, 3)).at[2].set(1.0), atol=1e-6)


def test_scores_are_of_the_emotion_asked_about(manipulator):
    window = jnp.broadcast_to(drawn(1, 4, 5), (7, 4, 5))
    scores = manipulator.judge(window, jnp.arange(7))
    assert scores.shape == (7,)
    assert len(np.unique(np.round(np.asarray(scores), 5))) == 7
    np.testing.assert_allclose(manipulator.judge(window[:1], jnp.array([5])), scores[5:6], atol=1e-6)


def test_it_passes_through_jit(manipulator):
    x = drawn(2, 4, 5)
    np.testing.assert_allclose(
        jax.jit(lambda networks, x: networks.style_of(x))(manipulator, x), manipulator.style_of(x), atol=1e-6
    )


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"style": 3}, "unknown manipulator settings style; known: coefficients"),
        ({"style_size": 0}, "style_size=0: expected a positive integer"),
        ({"hidden_size": -2}, "hidden_size=-2: expected a positive integer"),
        ({"encoder_widths": [3, 0]}, r"encoder_widths=\(3, 0\): expected two positive integers"),
        ({"lstm_biases": 3}, "lstm_biases=3: expected 1 or 2"),
        ({"window": 1}, "window=1: a correlation along time needs at least 2"),
    ],
)
def test_bad_settings_are_named(fields, said):
    with pytest.raises(InputError, match=said):
        ManipulatorSettings.from_dict(fields)


def test_settings_survive_json():
    assert ManipulatorSettings.from_dict(json.loads(json.dumps(TINY_MANIPULATOR.to_dict()))) == TINY_MANIPULATOR


def drawn_lstm(module, inputs, seed=0):
    random = np.random.default_rng(seed)
    shapes = jax.eval_shape(lambda: module.init(jax.random.key(0), jnp.zeros((1, 2, inputs))))
    return jax.tree.map(lambda leaf: random.normal(0, 0.5, leaf.shape).astype(np.float32), shapes)


def naive(params, x, layers):
    def sigmoid(value):
        return 1 / (1 + np.exp(-value))

    def direction(weights, x):
        width = weights["recurrent_kernel"].shape[0]
        hidden = cell = np.zeros((len(x), width))
        bias = weights["input_bias"] + weights.get("recurrent_bias", 0)
        states = []
        for frame in range(x.shape[1]):
            gates = x[:, frame] @ weights["input_kernel"] + hidden @ weights["recurrent_kernel"] + bias
            i, f, g, o = (gates[:, k * width : (k + 1) * width] for k in range(4))
            cell = sigmoid(f) * cell + sigmoid(i) * np.tanh(g)
            hidden = sigmoid(o) * np.tanh(cell)
            states.append(hidden)
        return np.stack(states, axis=1)

    for number in range(layers):
        layer = params[f"layer{number}"]
        back = direction(layer["backward"], x[:, ::-1])[:, ::-1]
        x = np.concatenate([direction(layer["forward"], x), back], axis=-1)
    return x


@pytest.mark.parametrize(("layers", "biases"), [(1, 1), (2, 2)])
def test_states_are_those_of_the_definition(layers, biases):
    module = BiLSTM(inputs=3, width=4, layers=layers, biases=biases)
    variables = drawn_lstm(module, 3)
    x = np.random.default_rng(1).normal(size=(2, 6, 3)).astype(np.float32)
    wide = jax.tree.map(lambda leaf: leaf.astype(np.float64), variables["params"])
    # Float32 through a dozen steps.
    np.testing.assert_allclose(module.apply(variables, jnp.asarray(x)), naive(wide, x, layers), atol=3e-6)


def test_two_biases_receive_equal_gradients():
    module = BiLSTM(inputs=3, width=4)
    variables = drawn_lstm(module, 3)
    x = jnp.asarray(np.random.default_rng(1).normal(size=(2, 5, 3)), jnp.float32)
    grads = jax.grad(lambda v: jnp.sum(jnp.square(module.apply(v, x))))(variables)
    for layer in grads["params"].values():
        for side in layer.values():
            np.testing.assert_array_equal(side["input_bias"], side["recurrent_bias"])
            assert float(jnp.abs(side["input_bias"]).max()) > 1e-3
