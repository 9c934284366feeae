"""Networks that score faces, on disk: there and back, and never one for another."""

import json

import jax
import numpy as np
import pytest

from asccl_jax.errors import InputError
from asccl_jax.saved_face_network import (
    FACE_NETWORK_FILES,
    load_face_network,
    missing_face_network,
    save_face_network,
)
from tests.models.tiny_face_networks import TINY, drawn_network


@pytest.mark.parametrize("name", TINY)
def test_a_network_comes_back_as_it_was(tmp_path, name):
    network = drawn_network(name)
    save_face_network(tmp_path / "net", network)
    loaded = load_face_network(tmp_path / "net", name)
    assert (loaded.name, loaded.file_hash, loaded.settings) == (name, network.file_hash, network.settings)
    assert loaded.module == network.module
    assert hash(loaded.module) == hash(network.module)
    jax.tree.map(np.testing.assert_array_equal, loaded.variables, network.variables)
    assert all(isinstance(leaf, jax.Array) for leaf in jax.tree.leaves(loaded.variables))


def test_another_network_or_settings_that_do_not_fit_are_named(tmp_path):
    save_face_network(tmp_path / "net", drawn_network("resnet-face"))
    with pytest.raises(InputError, match=r"no syncnet\.json there.*`asccl convert syncnet`"):
        load_face_network(tmp_path / "net", "syncnet")
    file = tmp_path / "net" / "resnet-face.json"
    description = json.loads(file.read_text())
    description["settings"]["network"]["widths"] = [4, 6, 8, 11]
    file.write_text(json.dumps(description))
    with pytest.raises(
        InputError, match=r"do not fit its settings: .*map_norm/mean has shape \(10,\), expected \(11,\)"
    ):
        load_face_network(tmp_path / "net", "resnet-face")
    description["settings"]["network"]["widths"] = "wide"
    file.write_text(json.dumps(description))
    with pytest.raises(InputError, match="widths='wide': expected positive integers"):
        load_face_network(tmp_path / "net", "resnet-face")
    del description["settings"]["network"]
    file.write_text(json.dumps(description))
    with pytest.raises(InputError, match="convert it again"):
        load_face_network(tmp_path / "net", "resnet-face")


@pytest.mark.parametrize("name", FACE_NETWORK_FILES)
def test_who_has_no_file_is_told_where_it_is_and_what_to_do(name):
    said = missing_face_network(name)
    file, origin, purpose = FACE_NETWORK_FILES[name]
    assert f"`asccl convert {name} {file} {name}`" in said
    assert origin in said
    assert purpose in said
