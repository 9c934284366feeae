"""Mesh supervision draws generated and source heads alike, compares some frames, and moves the generated ones only."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from asccl_jax.errors import InputError
from asccl_jax.frozen_metric import FrozenMetric
from asccl_jax.geometry.face_box import landmark_box
from asccl_jax.geometry.face_crop import crop_faces
from asccl_jax.geometry.shape_images import ShapeRenderer
from asccl_jax.losses import asccl_loss
from asccl_jax.sampling import map_sizes, sample_locations
from asccl_jax.settings import MetricSettings
from asccl_jax.tasks.mesh_supervision import MeshSupervision
from tests.geometry.heads import coefficients_of, golden_head, golden_template
from tests.tasks.drawn import drawn_variables

SETTINGS = MetricSettings(
    stage_blocks=(1, 1, 1, 1), stage_widths=(8, 8, 8, 8), image_size=36, centre_counts=(8, 4, 2, 1), bn_group_size=None
)
METRIC = FrozenMetric(drawn_variables(SETTINGS), SETTINGS)


@pytest.fixture(scope="module")
def renderer():
    return ShapeRenderer(golden_head(), golden_template(), size=36)


@pytest.fixture(scope="module")
def windows():
    generated, source = (jnp.asarray(coefficients_of(6, seed=seed).reshape(2, 3, 51)) for seed in (1, 2))
    return generated, source


def faces(renderer, generated, source):
    """Both drawn heads, cut to the faces of the source."""
    box = landmark_box(renderer.landmarks(source.reshape(6, 51)))
    return [crop_faces(2 * renderer(values.reshape(6, 51)) - 1, box, 36) for values in (generated, source)]


def test_it_is_the_metric_of_the_drawn_faces(renderer, windows):
    generated, source = windows
    key = jax.random.key(4)
    found = jax.jit(MeshSupervision(renderer, METRIC, None).__call__)(generated, source, key)
    expected, _ = jax.jit(asccl_loss)(METRIC, *faces(renderer, generated, source), jax.random.split(key)[1])
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    assert found > 0


def test_gradients_reach_generated_coefficients_of_the_chosen_frames_only(renderer, windows):
    supervision = MeshSupervision(renderer, METRIC, 2)
    gradients = jax.jit(jax.grad(supervision.__call__, argnums=(0, 1)))
    chosen = set()
    for number in range(6):
        generated, source = gradients(*windows, jax.random.key(number))
        assert (source == 0).all()
        assert jnp.isfinite(generated).all()
        moved = np.abs(generated.reshape(6, 51)).max(axis=1) > 0
        assert moved.sum() == 2
        # Jaw and expression alike.
        assert (generated.reshape(6, 51)[moved][:, [0, 1, 50]] != 0).all()
        chosen |= set(np.flatnonzero(moved).tolist())
    assert len(chosen) > 3


def test_a_part_of_the_picture_is_compared_alone(renderer, windows):
    generated, source = windows
    box = (0.5, 1.0, 0.0, 1.0)
    found = jax.jit(MeshSupervision(renderer, METRIC, None, box).__call__)(generated, source, jax.random.key(4))
    images = faces(renderer, generated, source)
    location_key = jax.random.split(jax.random.key(4))[1]
    sizes = map_sizes(SETTINGS.image_size)
    places = sample_locations(location_key, sizes, SETTINGS.centre_counts, border=SETTINGS.border, within=box)
    expected, _ = jax.jit(asccl_loss)(METRIC, *images, location_key, locations=places)
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    assert found != jax.jit(MeshSupervision(renderer, METRIC, None).__call__)(generated, source, jax.random.key(4))


def test_no_frames_are_refused(renderer):
    with pytest.raises(InputError, match="frames_per_step: 0"):
        MeshSupervision(renderer, METRIC, 0)
