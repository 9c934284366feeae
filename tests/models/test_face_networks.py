"""The networks that score faces have their published sizes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from asccl_jax.errors import InputError
from asccl_jax.models.face_networks import EfficientFace
from asccl_jax.weights import face_module
from tests.models.tiny_face_networks import drawn_network

DEPTH_100 = {"stage_blocks": [3, 13, 30, 3]}


@pytest.mark.parametrize(
    ("name", "settings", "weights", "outputs"),
    [
        ("resnet-face", {}, 25_627_081, [(2, 512)]),
        ("efficient-face", {}, 1_275_293, [(2, 1024), (2, 7)]),
        ("arcface", {}, 43_590_848, [(2, 512)]),
        ("arcface", DEPTH_100, 65_156_160, [(2, 512)]),
        ("syncnet", {}, 13_631_616, [(2, 1024), (2, 1024)]),
    ],
)
def test_published_networks_have_their_published_sizes(name, settings, weights, outputs):
    module = face_module(name, settings)
    inputs = [jnp.zeros((2, *shape), jnp.float32) for shape in module.input_shapes]
    made, variables = jax.eval_shape(lambda: module.init_with_output(jax.random.key(0), *inputs))
    assert sum(leaf.size for leaf in jax.tree.leaves(variables["params"])) == weights
    assert [output.shape for output in jax.tree.leaves(made)] == outputs


def test_one_slope_serves_all_channels_and_both_places_of_a_block():
    params = drawn_network("resnet-face").variables["params"]
    assert params["stem_activation"]["slope"].shape == (1,)
    assert [key for key in params["stage2_block0"] if "activation" in key] == ["activation"]


def test_each_quadrant_has_convolutions_of_its_own():
    # The joined map of local features, seen through a network whose other parts are silent.
    network = drawn_network("efficient-face")
    image = jnp.asarray(np.random.default_rng(1).normal(size=(1, 64, 64, 3)).astype(np.float32))

    @jax.jit
    def maps_of(variables):
        _, kept = network.module.apply(variables, image, capture_intermediates=lambda module, _: module.name == "local")
        return kept["intermediates"]["local"]["__call__"][0][0]

    def local(variables):
        return np.asarray(maps_of(variables))

    whole = local(jax.tree.map(jnp.asarray, network.variables))
    assert whole.shape == (8, 8, 10)
    halves = {"top": slice(0, 4), "bottom": slice(4, 8), "left": slice(0, 4), "right": slice(4, 8)}
    for quadrant in ("top_left", "bottom_left", "top_right", "bottom_right"):
        variables = jax.tree.map(jnp.asarray, network.variables)
        norm = variables["params"]["local"][f"{quadrant}2"]["norm"]
        norm["bias"] = norm["bias"] + 1
        changed = (local(variables) != whole).any(axis=-1)
        rows, columns = (halves[word] for word in quadrant.split("_"))
        assert changed[rows, columns].any()
        changed[rows, columns] = False
        assert not changed.any()


def test_settings_no_network_has_are_named():
    with pytest.raises(InputError, match=r"face network 'vgg': expected one of resnet-face, efficient-face"):
        face_module("vgg")
    with pytest.raises(InputError, match=r"arcface setting depth=50, stage_widths=\(1, 2\): expected positive"):
        face_module("arcface", {"depth": 50, "stage_widths": [1, 2], "embedding": 3})
    assert face_module("efficient-face", {"classes": 7}) == EfficientFace()
