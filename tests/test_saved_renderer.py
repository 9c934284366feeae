"""A renderer on disk: exact, with all its networks, found in a training folder."""

import dataclasses

import jax
import numpy as np
import pytest

from asccl_jax.errors import InputError
from asccl_jax.saved_renderer import Renderer, load_renderer, save_renderer
from tests.models.tiny_renderer import TINY, drawn_networks


def test_round_trip_is_exact_and_stays_on_the_host(tmp_path):
    renderer = Renderer(drawn_networks(TINY), TINY)
    save_renderer(tmp_path / "run" / "best", renderer)
    loaded = load_renderer(tmp_path / "run")
    assert loaded.settings == TINY
    assert set(loaded.params) == {"generator", "discriminator", "mouth_discriminator"}
    jax.tree.map(np.testing.assert_array_equal, loaded.params, renderer.params)
    assert all(isinstance(leaf, np.ndarray) for leaf in jax.tree.leaves(loaded.params))


def test_weights_of_other_settings_are_named(tmp_path):
    wider = dataclasses.replace(TINY, generator_width=6, eyes=True)
    save_renderer(tmp_path / "renderer", Renderer(drawn_networks(TINY), wider))
    with pytest.raises(InputError, match=r"eyes_discriminator/scale0/layer0/bias is missing") as caught:
        load_renderer(tmp_path / "renderer")
    assert "generator/decoder/last/kernel has shape (7, 7, 4, 3), expected (7, 7, 6, 3)" in str(caught.value)
