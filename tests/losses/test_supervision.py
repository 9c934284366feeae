"""`asccl_loss` as the author of another generator meets it: any size, any transformation, no stray gradient."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from asccl_jax.errors import InputError
from asccl_jax.losses import asccl_loss, crop_faces, landmark_box
from asccl_jax.losses.supervision import Metric
from asccl_jax.models.correlation import init_variables
from asccl_jax.sampling import map_sizes, sample_locations
from asccl_jax.settings import MetricSettings
from asccl_jax.weights import FrozenMetric

SETTINGS = MetricSettings(stage_blocks=(1, 1, 1, 1), stage_widths=(4, 4, 8, 8), image_size=40)

traced_loss = jax.jit(asccl_loss)


@pytest.fixture(scope="module")
def metric():
    return FrozenMetric(variables=init_variables(SETTINGS, jax.random.key(0)), settings=SETTINGS)


def random_pair(size=40, batch=2):
    return jax.random.uniform(jax.random.key(1), (2, batch, size, size, 3), minval=-1.0, maxval=1.0)


def test_frozen_metric_is_a_metric(metric):
    assert isinstance(metric, Metric)


@pytest.mark.parametrize("size", [33, 40, 65])
def test_images_of_any_size_are_compared(metric, size):
    loss, parts = traced_loss(metric, *random_pair(size), jax.random.key(0))
    assert loss.shape == ()
    assert np.isfinite(loss)
    np.testing.assert_allclose(loss, SETTINGS.loss_scale * parts.stage_losses.sum(), rtol=1e-6)


def test_gradient_reaches_the_query_image_alone(metric):
    def scalar(query, key, variables):
        return asccl_loss(metric.replace(variables=variables), query, key, jax.random.key(0))[0]

    query, key = random_pair()
    query_gradient, key_gradient, weight_gradient = jax.jit(jax.grad(scalar, argnums=(0, 1, 2)))(
        query, key, metric.variables
    )
    assert np.isfinite(query_gradient).all()
    assert float(jnp.abs(query_gradient).max()) > 0
    for leaf in (key_gradient, *jax.tree.leaves(weight_gradient)):
        np.testing.assert_array_equal(leaf, jnp.zeros_like(leaf))


def test_a_batch_over_the_devices_of_a_mesh_has_the_gradient_of_one_device(metric):
    query, key = random_pair()
    box = jnp.asarray([[2.0, 3.0, 38.0, 36.0], [4.0, 1.0, 36.0, 37.5]])

    def scalar(metric, query, key, box):
        return asccl_loss(metric, query, key, jax.random.key(0), face_box=box)[0]

    run = jax.jit(jax.value_and_grad(scalar, argnums=1), compiler_options={"xla_backend_optimization_level": 0})
    expected_loss, expected = run(metric, query, key, box)
    # Explicit is what `jax.make_mesh` gives unless told otherwise.
    for axis_type in (AxisType.Explicit, AxisType.Auto):
        mesh = jax.make_mesh((2,), ("d",), axis_types=(axis_type,), devices=jax.devices()[:2])
        placed = jax.device_put((query, key, box), NamedSharding(mesh, PartitionSpec("d")))
        loss, gradient = run(metric, *placed)
        assert gradient.sharding.is_equivalent_to(placed[0].sharding, 4)
        np.testing.assert_allclose(loss, expected_loss, rtol=1e-5)
        np.testing.assert_allclose(gradient, expected, rtol=0, atol=1e-4 * float(jnp.abs(expected).max()))


def test_a_constant_image_has_finite_gradients(metric):
    flat = jnp.zeros((1, 40, 40, 3))
    gradient = jax.jit(jax.grad(lambda image: asccl_loss(metric, image, flat, jax.random.key(0))[0]))(flat)
    assert np.isfinite(gradient).all()


def test_vmap_equals_a_loop(metric):
    queries, keys = random_pair(batch=3)
    draws = jax.random.split(jax.random.key(5), 3)

    def single(query, key, draw):
        return asccl_loss(metric, query[None], key[None], draw)[0]

    mapped = jax.jit(jax.vmap(single))(queries, keys, draws)
    looped = [traced_loss(metric, queries[i : i + 1], keys[i : i + 1], draws[i])[0] for i in range(3)]
    np.testing.assert_allclose(mapped, jnp.stack(looped), rtol=1e-4)


def test_given_locations_replace_the_drawn_ones(metric):
    query, key = random_pair()
    chosen = sample_locations(jax.random.key(9), map_sizes(40), SETTINGS.centre_counts, border="inside")
    first, _ = traced_loss(metric, query, key, jax.random.key(0), locations=chosen)
    second, _ = traced_loss(metric, query, key, jax.random.key(1), locations=chosen)
    drawn, _ = traced_loss(metric, query, key, jax.random.key(0))
    assert float(first) == float(second)
    assert float(first) != float(drawn)


def test_a_face_box_cuts_both_images_to_what_the_metric_knows(metric):
    query, key = random_pair(size=70)
    landmarks = jax.random.uniform(jax.random.key(2), (2, 68, 2), minval=10.0, maxval=60.0)

    def graded(query, landmarks):
        return asccl_loss(metric, query, key, jax.random.key(0), face_box=landmark_box(landmarks))[0]

    found, gradient = jax.jit(jax.value_and_grad(graded))(query, landmarks)
    cut = [crop_faces(image, landmark_box(landmarks), 40) for image in (query, key)]
    np.testing.assert_allclose(found, traced_loss(metric, *cut, jax.random.key(0))[0], rtol=1e-5)
    moved = np.abs(gradient).sum(-1) > 0
    assert moved[:, 10:60, 10:60].all()
    assert not moved[:, [0, 1, 2, 67, 68, 69]].any()


def test_one_box_for_images_of_two_sizes_is_refused(metric):
    (query, _), (key, _) = random_pair(size=70), random_pair(size=40)
    with pytest.raises(InputError, match="cut out the faces with crop_faces"):
        asccl_loss(metric, query, key, jax.random.key(0), face_box=jnp.ones((2, 4)))


@pytest.mark.parametrize("name", ["query_image", "key_image"])
def test_images_of_whole_numbers_or_of_0_to_255_are_refused(metric, name):
    def compare(image):
        images = {"query_image": good[: len(image)], "key_image": good[: len(image)], name: image}
        return asccl_loss(metric, **images, key=jax.random.key(0))[0]

    good, _ = random_pair()
    levels = jnp.round((good + 1) * 127.5)
    for call in (compare, jax.jit(compare), jax.vmap(lambda image: compare(image[None]))):
        with pytest.raises(InputError, match=f"{name}: uint8, expected floating-point"):
            call(levels.astype(jnp.uint8))
    with pytest.raises(InputError, match=rf"{name}: values up to 25\d, expected RGB in \[-1, 1\]"):
        compare(levels)


def test_a_batch_of_no_images_is_refused(metric):
    nothing = jnp.zeros((0, 40, 40, 3))
    with pytest.raises(InputError, match="query_image: shape"):
        asccl_loss(metric, nothing, nothing, jax.random.key(0))


def test_as_many_generated_faces_as_real_ones_are_compared(metric):
    query, key = random_pair()
    with pytest.raises(InputError, match="query_image and key_image: 1 and 2 images"):
        asccl_loss(metric, query[:1], key, jax.random.key(0))


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_images_of_values_that_are_no_numbers_are_refused(metric, value):
    query, key = random_pair()
    with pytest.raises(InputError, match="key_image: NaN or infinite values"):
        asccl_loss(metric, query, key.at[1, 0, 0, 0].set(value), jax.random.key(0))


def test_an_image_is_nearer_to_itself_than_to_another(metric):
    query, key = random_pair()
    itself, parts = traced_loss(metric, query, query, jax.random.key(0))
    other, _ = traced_loss(metric, query, key, jax.random.key(0))
    assert float(itself) < float(other)
    np.testing.assert_allclose(parts.corresponding_similarity, 1.0, rtol=1e-4)


def test_released_behaviour_compares_by_the_statistics_of_each_batch(metric):
    released = metric.replace(settings=dataclasses.replace(SETTINGS, frozen_statistics="batch"))
    query, key = random_pair()
    # Statistics of a batch undo a shift of all its images; running statistics do not.
    shifted, _ = traced_loss(released, query + 0.5, key, jax.random.key(0))
    loss, _ = traced_loss(released, query, key, jax.random.key(0))
    running, _ = traced_loss(metric, query, key, jax.random.key(0))
    # The zero padding at the edges does not shift.
    assert abs(float(shifted) - float(loss)) < 0.1 * float(loss)
    assert float(loss) != float(running)
