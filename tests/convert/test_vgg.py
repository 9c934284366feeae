"""The converter of VGG-19: published positions, the rest of the file ignored, strict about what is needed."""

import numpy as np
import pytest

from asccl_jax.convert.vgg import vgg_from_state_dict
from asccl_jax.errors import InputError

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
