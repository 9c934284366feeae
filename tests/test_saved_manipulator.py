"""A manipulator on disk: exact, found in a training folder, never taken for a metric."""

import jax
import numpy as np
import pytest

from asccl_jax.errors import InputError
from asccl_jax.frozen_metric import load_metric
from asccl_jax.models.manipulator import Manipulator
from asccl_jax.saved_manipulator import load_manipulator, save_manipulator
from tests.models.tiny_manipulator import TINY, drawn_networks


@pytest.fixture(scope="module")
def manipulator():
    return Manipulator(drawn_networks(TINY), TINY)


def test_round_trip_is_exact_and_stays_on_the_host(manipulator, tmp_path):
    save_manipulator(tmp_path / "saved", manipulator)
    loaded = load_manipulator(tmp_path / "saved")
    assert loaded.settings == TINY
    assert jax.tree.structure(loaded.variables) == jax.tree.structure(manipulator.variables)
    jax.tree.map(np.testing.assert_array_equal, loaded.variables, manipulator.variables)
    assert all(isinstance(leaf, np.ndarray) for leaf in jax.tree.leaves(loaded.variables))


def test_a_training_folder_gives_its_best_and_else_its_last(manipulator, tmp_path):
    def first(found):
        return jax.tree.leaves(load_manipulator(found).variables)[0]

    save_manipulator(tmp_path / "last", manipulator)
    np.testing.assert_array_equal(first(tmp_path), jax.tree.leaves(manipulator.variables)[0])
    doubled = manipulator.replace(variables=jax.tree.map(lambda leaf: 2 * leaf, manipulator.variables))
    save_manipulator(tmp_path / "best", doubled)
    np.testing.assert_array_equal(first(tmp_path), jax.tree.leaves(doubled.variables)[0])


def test_a_manipulator_is_no_metric_and_faults_are_named(manipulator, tmp_path):
    save_manipulator(tmp_path / "m", manipulator)
    with pytest.raises(InputError, match=r"metric .*m: no metric\.json there"):
        load_metric(tmp_path / "m")
    with pytest.raises(InputError, match=r"nowhere: no such directory; give one that save_manipulator or training"):
        load_manipulator(tmp_path / "nowhere")
    description = tmp_path / "m" / "manipulator.json"
    description.write_text(description.read_text().replace('"style_size": 3', '"style_size": 5'))
    with pytest.raises(InputError) as error:
        load_manipulator(tmp_path / "m")
    message = str(error.value)
    assert "\n" not in message
    assert "style_encoder/seq2/linear2/bias has shape (3,), expected (5,)" in message
    assert "mapping_network/unshared1/kernel has shape (7, 8, 3), expected (7, 8, 5)" in message
