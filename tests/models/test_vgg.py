"""VGG-19's convolutions: where maps are taken, that they are frozen, and their place on disk."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from asccl_jax.errors import InputError
from asccl_jax.models.vgg import Vgg, VggFeatures, init_vgg
from asccl_jax.weights import load_vgg, save_vgg

WIDTHS = (2, 3, 4, 5, 6)


def drawn_vgg():
    random = np.random.default_rng(0)
    shapes = jax.eval_shape(lambda: init_vgg(jax.random.key(0), WIDTHS))
    return Vgg(jax.tree.map(lambda leaf: random.normal(0, 0.3, leaf.shape).astype(np.float32), shapes), WIDTHS)


def test_the_published_network_has_its_published_size():
    shapes = jax.eval_shape(lambda: init_vgg(jax.random.key(0)))
    assert sum(leaf.size for leaf in jax.tree.leaves(shapes)) == 12_944_960


@pytest.mark.parametrize(("height", "width", "first"), [(32, 48, (32, 48)), (18, 33, (18, 33)), (32, 1026, (16, 513))])
def test_maps_halve_and_too_wide_images_are_halved_first(height, width, first):
    image = jax.ShapeDtypeStruct((1, height, width, 3), jnp.float32)
    taps = jax.eval_shape(lambda x: VggFeatures(WIDTHS).init_with_output(jax.random.key(0), x)[0], image)
    expected = [(1, first[0] // 2**level, first[1] // 2**level, WIDTHS[level]) for level in range(5)]
    assert [tap.shape for tap in taps] == expected


def test_gradients_reach_the_image_and_not_the_weights():
    vgg, image = jax.tree.map(jnp.asarray, drawn_vgg()), jnp.ones((1, 16, 16, 3)) * 0.5

    def total(params, image):
        return sum(jnp.sum(tap) for tap in vgg.replace(params=params).features(image))

    by_params, by_image = jax.jit(jax.grad(total, argnums=(0, 1)))(vgg.params, image)
    assert not any(leaf.any() for leaf in jax.tree.leaves(by_params))
    assert by_image.any()


def test_round_trip_on_disk_and_faults(tmp_path):
    vgg = drawn_vgg()
    save_vgg(tmp_path / "vgg", vgg)
    loaded = load_vgg(tmp_path / "vgg")
    assert loaded.widths == WIDTHS
    jax.tree.map(np.testing.assert_array_equal, loaded.params, vgg.params)
    description = tmp_path / "vgg" / "vgg19.json"
    description.write_text(description.read_text().replace("6", '"six"'))
    with pytest.raises(InputError, match="expected five integers"):
        load_vgg(tmp_path / "vgg")
