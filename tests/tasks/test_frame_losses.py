"""The frozen judges of frames: paper and released use of the metric, one pass shared by its two terms."""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from asccl_jax.errors import InputError
from asccl_jax.image.face_crop import crop_faces
from asccl_jax.losses import asccl_loss, correlation_loss
from asccl_jax.losses.generator import STAGE_WEIGHTS, relative_distance
from asccl_jax.models.correlation import CorrelationMetric
from asccl_jax.models.renderer import masked
from asccl_jax.sampling import map_sizes, sample_locations
from asccl_jax.settings import MetricSettings
from asccl_jax.tasks.frame_losses import FrameSupervision, Scene
from asccl_jax.weights import FrozenMetric
from tests.tasks.drawn import drawn_variables
from tests.tasks.traced_flops import traced_flops

SETTINGS = MetricSettings(
    stage_blocks=(1, 1, 1, 1),
    stage_widths=(8, 8, 8, 8),
    image_size=36,
    centre_counts=(8, 4, 2, 1),
    bn_group_size=2,
    channel_order="bgr",
)
METRIC = FrozenMetric(drawn_variables(SETTINGS), SETTINGS, conv_implementation="xla")
RANDOM = np.random.default_rng(0)
MASK = jnp.zeros((3, 48, 48, 1)).at[:, 4:42, 10:40].set(1.0)
BOX = jnp.asarray([[8, 9, 40, 41.5], [6.5, 5, 38, 46], [12, 8, 50, 44]], jnp.float32)
DRAWN, IMAGE = (jnp.asarray(RANDOM.uniform(-1, 1, (3, 48, 48, 3)), jnp.float32) for _ in range(2))
FAKE, REAL, SCENE = masked(DRAWN, MASK), masked(IMAGE, MASK), Scene(IMAGE, MASK, BOX)
KEY = jax.random.key(4)
QUICK = {"xla_backend_optimization_level": 0}


def run(function, *arguments):
    return jax.jit(function).lower(*arguments).compile(QUICK)(*arguments)


def graded(supervision, statistics=None, scene=SCENE):
    statistics = supervision.statistics() if statistics is None else statistics

    def judge(fake, real, statistics, key):
        return supervision(fake, real, statistics, key, scene=scene)

    return run(jax.value_and_grad(judge, has_aux=True, argnums=(0, 1)), FAKE, REAL, statistics, KEY)


def crops(*images):
    return [crop_faces(image, BOX, SETTINGS.image_size) for image in images]


def test_paper_is_the_metric_on_crops_of_whole_frames_by_fixed_statistics():
    # A checkpoint of the released code asks for batch statistics; the paper's use does not take them.
    metric = dataclasses.replace(METRIC, settings=dataclasses.replace(SETTINGS, frozen_statistics="batch"))
    (total, (terms, statistics)), (to_fake, to_real) = graded(FrameSupervision(metric, metric_weight=3.0))
    inserted = jnp.where(MASK > 0, DRAWN, IMAGE)
    expected, _ = run(asccl_loss, METRIC, *crops(inserted, IMAGE), KEY)
    np.testing.assert_allclose(terms["metric"], expected, rtol=1e-5)
    np.testing.assert_allclose(total, 3 * expected, rtol=1e-5)
    assert terms.keys() == {"metric"}
    assert statistics == {}
    assert not to_real.any()
    # Every pixel of the face that lies in its box, and but for neighbours no other: the rest is the real frame's.
    moved, face = np.abs(to_fake).sum(-1) > 0, np.asarray(MASK[..., 0] > 0)
    for frame, (left, top, right, bottom) in enumerate(np.asarray(BOX)):
        inside, near = np.zeros((2, 48, 48), bool)
        inside[math.ceil(top) : int(bottom), math.ceil(left) : int(right)] = True
        near[int(top) - 1 : math.ceil(bottom) + 1, int(left) - 1 : math.ceil(right) + 1] = True
        assert moved[frame][inside & face[frame]].all()
        assert not moved[frame][~(near & face[frame])].any()


def test_what_was_drawn_outside_the_mask_does_not_matter():
    unmasked = run(lambda fake: FrameSupervision(METRIC)(fake, REAL, {}, KEY, scene=SCENE)[0], DRAWN)
    (expected, _), _ = graded(FrameSupervision(METRIC))
    np.testing.assert_allclose(unmasked, expected, rtol=1e-6)


def test_paper_without_a_scene_is_refused_and_released_needs_none():
    with pytest.raises(InputError, match="needs the scene"):
        FrameSupervision(METRIC)(FAKE, REAL, {}, KEY)


def test_released_feeds_frames_as_they_are_and_moves_statistics_by_fake_then_real():
    supervision = FrameSupervision(METRIC, compat="released")
    (total, (_, statistics)), (to_fake, _) = graded(supervision, scene=None)
    settings = MetricSettings.from_compat("released", **_network(SETTINGS), channel_order="rgb", bn_group_size=None)
    module = CorrelationMetric(settings, conv_implementation="xla")

    def reference(fake, real):
        variables = METRIC.variables
        moved, maps = variables["batch_stats"], []
        for image in (fake, real):
            features, changed = module.apply(
                {"params": variables["params"], "batch_stats": moved},
                image,
                train=True,
                method="features",
                mutable=["batch_stats"],
            )
            maps.append(features)
            moved = changed["batch_stats"]

        def embed(level, disparities):
            return module.apply(variables, level, disparities, method="embed")

        locations = sample_locations(KEY, map_sizes(48), settings.centre_counts, border="wrap")
        return correlation_loss(*maps, embed, locations, settings)[0], moved

    (expected, moved), gradient = run(jax.value_and_grad(reference, has_aux=True), FAKE, REAL)
    np.testing.assert_allclose(total, expected, rtol=1e-5)
    for found, wanted in zip(jax.tree.leaves(statistics), jax.tree.leaves(moved), strict=True):
        np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-6)
    # Float32 through ten BatchNorms, summed in another order.
    np.testing.assert_allclose(to_fake, gradient, atol=1e-3 * float(jnp.abs(gradient).max()))


def _network(settings):
    return {name: getattr(settings, name) for name in ("stage_blocks", "stage_widths", "image_size", "centre_counts")}


def test_the_trunks_own_distance_shares_the_metrics_pass():
    both = FrameSupervision(METRIC, perceptual="trunk", perceptual_weight=0.5)
    (total, (terms, _)), (to_fake, _) = graded(both)
    shown = crops(jnp.where(MASK > 0, DRAWN, IMAGE), IMAGE)
    maps = run(lambda *images: [METRIC.features(image) for image in images], *shown)
    np.testing.assert_allclose(terms["perceptual"], relative_distance(*maps, STAGE_WEIGHTS), rtol=1e-5)
    np.testing.assert_allclose(total, terms["metric"] + 0.5 * terms["perceptual"], rtol=1e-6)
    alone = FrameSupervision(METRIC, metric_weight=0.0, perceptual="trunk", perceptual_weight=0.5)
    (_, (parts, _)), (of_trunk, _) = graded(alone)
    (_, (_, _)), (of_metric, _) = graded(FrameSupervision(METRIC))
    assert parts.keys() == {"perceptual"}
    np.testing.assert_allclose(to_fake, of_trunk + of_metric, atol=1e-4 * float(jnp.abs(to_fake).max()))
    counts = [
        traced_flops(jax.grad(lambda x, s=s: s(x, REAL, {}, KEY, scene=SCENE)[0]), FAKE)
        for s in (both, alone, FrameSupervision(METRIC))
    ]
    # The trunk is all there is to count but the heads, on some tens of locations.
    assert counts[0] < 1.05 * counts[1]
    assert counts[0] < 1.05 * counts[2]


def test_a_given_distance_is_taken_with_its_weight():
    supervision = FrameSupervision(perceptual=lambda fake, real: jnp.mean(jnp.square(fake - real)))
    (total, (terms, _)), (to_fake, _) = graded(supervision)
    np.testing.assert_allclose(total, 10 * jnp.mean(jnp.square(FAKE - REAL)), rtol=1e-6)
    np.testing.assert_allclose(to_fake, 20 * (FAKE - REAL) / FAKE.size, rtol=1e-5, atol=1e-9)
    assert terms.keys() == {"perceptual"}


def test_nothing_to_judge_by_is_nothing():
    for empty in (FrameSupervision(), FrameSupervision(METRIC, metric_weight=0.0, compat="released")):
        assert empty.empty
        assert empty.statistics() == {}
        total, (terms, _) = empty(FAKE, REAL, {}, KEY)
        assert (float(total), terms) == (0.0, {})


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"metric_weight": -1.0}, "metric_weight=-1.0"),
        ({"perceptual_weight": float("nan")}, "perceptual_weight=nan"),
        ({"perceptual": "trunk"}, "there is no metric"),
    ],
)
def test_bad_fields_are_refused(fields, said):
    with pytest.raises(InputError, match=said):
        FrameSupervision(**fields)
