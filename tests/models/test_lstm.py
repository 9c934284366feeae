"""The bidirectional LSTM against a loop over frames in NumPy, written from its definition."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from asccl_jax.models.lstm import BiLSTM


def drawn(module, inputs, seed=0):
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
    variables = drawn(module, 3)
    x = np.random.default_rng(1).normal(size=(2, 6, 3)).astype(np.float32)
    wide = jax.tree.map(lambda leaf: leaf.astype(np.float64), variables["params"])
    # Float32 through a dozen steps.
    np.testing.assert_allclose(module.apply(variables, jnp.asarray(x)), naive(wide, x, layers), atol=3e-6)


def test_two_biases_receive_equal_gradients():
    module = BiLSTM(inputs=3, width=4)
    variables = drawn(module, 3)
    x = jnp.asarray(np.random.default_rng(1).normal(size=(2, 5, 3)), jnp.float32)
    grads = jax.grad(lambda v: jnp.sum(jnp.square(module.apply(v, x))))(variables)
    for layer in grads["params"].values():
        for side in layer.values():
            np.testing.assert_array_equal(side["input_bias"], side["recurrent_bias"])
            assert float(jnp.abs(side["input_bias"]).max()) > 1e-3
