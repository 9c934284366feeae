"""Published state dicts of the networks that score faces find their places, or are refused with every difference."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from asccl_jax.convert.entries import counter_of
from asccl_jax.convert.face_network_entries import arcface_of_keys, face_entries, face_variables
from asccl_jax.errors import InputError
from asccl_jax.trees import named_shapes
from asccl_jax.weights import face_module
from tests.models.tiny_face_networks import TINY_FACE_NETWORKS


def state_dict_of(module, seed=0):
    random = np.random.default_rng(seed)
    return {entry.key: random.normal(size=entry.shape).astype(np.float32) for entry in face_entries(module)}


@pytest.mark.parametrize(
    ("name", "settings", "keys"),
    [
        ("resnet-face", {}, 181),
        ("efficient-face", {}, 418),
        ("arcface", {}, 475),
        ("arcface", {"stage_blocks": (3, 13, 30, 3)}, 925),
        ("syncnet", {}, 102),
    ],
)
def test_published_files_have_so_many_tensors(name, settings, keys):
    entries = [entry.key for entry in face_entries(face_module(name, settings))]
    counters = [counter_of(key) for key in entries if key.endswith("running_var")]
    assert len({*entries, *counters}) == len(entries) + len(counters) == keys


@pytest.mark.parametrize("name", TINY_FACE_NETWORKS)
def test_a_state_dict_fills_the_network_and_nothing_else(name):
    module = face_module(name, TINY_FACE_NETWORKS[name])
    inputs = [jnp.zeros((1, *shape), jnp.float32) for shape in module.input_shapes]
    expected = jax.eval_shape(lambda: module.init(jax.random.key(0), *inputs))
    assert named_shapes(face_variables(module, state_dict_of(module))) == named_shapes(expected)


@pytest.mark.parametrize("name", TINY_FACE_NETWORKS)
def test_every_entry_goes_there_and_back(name):
    random = np.random.default_rng(0)
    for entry in face_entries(face_module(name, TINY_FACE_NETWORKS[name])):
        array = random.normal(size=entry.shape).astype(np.float32)
        there = entry.to_flax(array)
        assert there.shape == entry.flax_shape
        np.testing.assert_array_equal(entry.to_torch(there), array)


def test_layers_behind_flattened_maps_are_permuted():
    module = face_module("resnet-face", TINY_FACE_NETWORKS["resnet-face"])
    state_dict = state_dict_of(module)
    kernel = face_variables(module, state_dict)["params"]["embedding"]["kernel"]
    # 10 channels of 2 x 2: output 7, channel 4, row 1, column 0.
    assert kernel[(1 * 2 + 0) * 10 + 4, 7] == state_dict["fc5.weight"][7, 4 * 4 + 1 * 2 + 0]


def test_frames_of_the_first_convolution_become_channels():
    module = face_module("syncnet", TINY_FACE_NETWORKS["syncnet"])
    state_dict = state_dict_of(module)
    towers = face_variables(module, state_dict)["params"]
    # Output 2, colour 1, frame 4, row 6, column 3.
    published = state_dict["netcnnlip.0.weight"][2, 1, 4, 6, 3]
    assert towers["lip_tower"]["conv0"]["conv"]["kernel"][6, 3, 4 * 3 + 1, 2] == published
    assert towers["audio_tower"]["conv5"]["conv"]["kernel"].shape == (5, 4, 9, 8)


def test_counters_may_be_there_and_everything_wrong_is_listed_at_once():
    module = face_module("efficient-face", TINY_FACE_NETWORKS["efficient-face"])
    state_dict = state_dict_of(module)
    counted = state_dict | {counter_of(key): np.int64(3) for key in state_dict if key.endswith("running_var")}
    assert jax.tree.all(
        jax.tree.map(np.array_equal, face_variables(module, state_dict), face_variables(module, counted))
    )
    del state_dict["local.bn3_2.running_var"]
    state_dict |= {
        "fc.num_batches_tracked": np.int64(1),
        "stage2.0.branch1.0.weight": np.zeros((5, 1, 3, 5), np.float32),
        "conv5.1.bias": np.full(14, np.inf, np.float32),
    }
    with pytest.raises(InputError) as caught:
        face_variables(module, state_dict)
    assert str(caught.value) == (
        "not a checkpoint of EfficientFace: local.bn3_2.running_var is missing; fc.num_batches_tracked is unexpected;"
        " stage2.0.branch1.0.weight has shape (5, 1, 3, 5), expected (5, 1, 3, 3);"
        " conv5.1.bias holds values that are not finite"
    )


@pytest.mark.parametrize("blocks", [(3, 4, 14, 3), (3, 13, 30, 3)])
def test_the_depth_of_arcface_is_found_from_the_keys(blocks):
    keys = {
        f"layer{stage}.{block}.bn1.bias": np.zeros(1)
        for stage, count in enumerate(blocks, start=1)
        for block in range(count)
    }
    assert arcface_of_keys(keys) == face_module("arcface", {"stage_blocks": blocks})
    del keys["layer4.2.bn1.bias"]
    with pytest.raises(InputError, match=r", 2\) residual blocks in layer1 to layer4.*100: \(3, 13, 30, 3\)"):
        arcface_of_keys(keys)
