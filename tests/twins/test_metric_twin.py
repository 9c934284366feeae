"""Flax and PyTorch hold the same network and loss: values, gradients and statistics, on weights of any seed."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from asccl_jax.convert.metric_entries import flax_from_state_dict, state_dict_from_flax
from asccl_jax.losses.contrastive import correlation_loss
from asccl_jax.models.correlation import CorrelationMetric
from asccl_jax.settings import MetricSettings

torch = pytest.importorskip("torch")

from tests.bridge.networks import NETWORK, SIZE, arrays_of, random_twin  # noqa: E402
from tests.twins.metric_twin import CorrelationMetricTwin, draw_centres  # noqa: E402

FORMS = {
    "paper": {"compat": "paper"},
    "released": {"compat": "released", "channel_order": "rgb"},
    "others": {"weight_reduction": "norm", "weight_gradient": "flows", "mask_same_centre": True},
}


def images(settings: MetricSettings, seed: int) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    query = random.uniform(-1, 1, (2, SIZE, SIZE, 3)).astype(np.float32)
    return query, (0.7 * query + 0.3 * random.uniform(-1, 1, query.shape)).astype(np.float32)


def to_torch(image: np.ndarray) -> "torch.Tensor":
    return torch.from_numpy(np.ascontiguousarray(image.transpose(0, 3, 1, 2)))


# Most of the time would go into optimising code that runs twice.
FAST_COMPILE = {"xla_backend_optimization_level": 0, "xla_cpu_use_fusion_emitters": False}


@functools.partial(jax.jit, static_argnames="settings", compiler_options=FAST_COMPILE)
def flax_step(variables, query, key, centres, *, settings):
    """Loss, its parts and gradient, and the moved statistics; query first, as in training."""
    module = CorrelationMetric(settings)

    def features(params, batch_stats, image):
        maps, moved = module.apply(
            {"params": params, "batch_stats": batch_stats},
            image,
            train=True,
            method="features",
            mutable=["batch_stats"],
        )
        return maps, moved["batch_stats"]

    def loss_of(params):
        def embed(level, disparities):
            return module.apply({"params": params}, level, disparities, method="embed")

        query_maps, batch_stats = features(params, variables["batch_stats"], query)
        key_maps, batch_stats = features(params, batch_stats, key)
        loss, parts = correlation_loss(query_maps, key_maps, embed, centres, settings)
        return loss, (parts, batch_stats)

    (loss, (parts, batch_stats)), grads = jax.value_and_grad(loss_of, has_aux=True)(variables["params"])
    return loss, parts, grads, batch_stats


@pytest.mark.parametrize("seed", [11, 12])
def test_features_agree_in_evaluation_mode(seed):
    settings = MetricSettings(**NETWORK)
    twin = random_twin(settings, seed=seed).eval()
    variables = flax_from_state_dict(arrays_of(twin), settings)
    query, _ = images(settings, seed)
    with torch.no_grad():
        expected = [maps.numpy().transpose(0, 2, 3, 1) for maps in twin.features(to_torch(query))]
    variables = jax.tree.map(jnp.asarray, variables)
    actual = CorrelationMetric(settings).apply(variables, jnp.asarray(query), train=False, method="features")
    for ours, theirs in zip(actual, expected, strict=True):
        # float32 rounding of two orders of summation, relative to the map's largest value.
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-5 * np.abs(theirs).max())


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("seed", [21, 22])
def test_loss_gradient_and_statistics_agree_in_training_mode(form, seed):
    settings = MetricSettings.from_compat(**NETWORK, **FORMS[form])
    twin = random_twin(settings, seed=seed).train()
    variables = flax_from_state_dict(arrays_of(twin), settings)
    query, key = images(settings, seed)
    centres = draw_centres(settings, SIZE, np.random.default_rng(seed))

    result = twin(to_torch(query), to_torch(key), centres)
    result.loss.backward()
    loss, parts, grads, batch_stats = flax_step(
        variables,
        jnp.asarray(query),
        jnp.asarray(key),
        tuple(jnp.asarray(each, jnp.int32) for each in centres),
        settings=settings,
    )

    np.testing.assert_allclose(loss, result.loss.item(), rtol=1e-5)
    np.testing.assert_allclose(parts.stage_losses, [each.item() for each in result.stage_losses], rtol=1e-5)
    np.testing.assert_allclose(parts.stage_nce, [each.item() for each in result.stage_nce], rtol=1e-5)

    ours = state_dict_from_flax({"params": grads, "batch_stats": batch_stats}, settings)
    theirs = {name: parameter.grad for name, parameter in twin.named_parameters()}
    largest = max(float(grad.abs().max()) for grad in theirs.values() if grad is not None)
    for name, grad in theirs.items():
        if name.startswith("resnet50.bn2."):
            assert grad is None  # never called
            continue
        # Relative to the tensor's norm; the floor is for gradients that are zero in exact arithmetic (biases before a
        # BatchNorm), of which rounding alone is left.
        error = np.linalg.norm(ours[name] - grad.numpy())
        assert error <= 1e-5 * np.linalg.norm(grad.numpy()) + 1e-6 * largest, name
    for name, buffer in twin.named_buffers():
        if "running" in name and not name.startswith("resnet50.bn2."):
            np.testing.assert_allclose(ours[name], buffer.numpy(), rtol=1e-5, atol=1e-6, err_msg=name)


def test_statistics_move_twice_query_first():
    settings = MetricSettings.from_compat("released", **NETWORK)
    twin = random_twin(settings, seed=5).train()
    query, key = (to_torch(image) for image in images(settings, 5))
    before = twin.resnet50.bn1.running_mean.clone()
    twin(query, key, draw_centres(settings, SIZE, np.random.default_rng(0)))
    with torch.no_grad():
        means = [twin.resnet50.conv1(image).mean(dim=(0, 2, 3)) for image in (query, key)]
    expected = 0.9 * (0.9 * before + 0.1 * means[0]) + 0.1 * means[1]
    torch.testing.assert_close(twin.resnet50.bn1.running_mean, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("border", ["wrap", "inside"])
@pytest.mark.parametrize("size", [224, 256, 72, 48])
def test_drawn_centres_are_distinct_and_in_the_region(border, size):
    settings = MetricSettings(border=border)
    for stage, centres in enumerate(draw_centres(settings, size, np.random.default_rng(1))):
        side = -(-size // 2 ** (stage + 1))
        assert len({tuple(centre) for centre in centres}) == len(centres)
        lowest, highest = (1, side - 2) if border == "inside" else (0, side - 1)
        assert centres.min() >= lowest
        assert centres.max() <= highest


def test_written_state_dict_loads_strictly_into_the_published_names():
    settings = MetricSettings(depth=50, image_size=SIZE)
    arrays = arrays_of(CorrelationMetricTwin(settings))
    back = state_dict_from_flax(flax_from_state_dict(arrays, settings), settings)
    twin = CorrelationMetricTwin(settings)
    twin.load_state_dict({key: torch.from_numpy(array) for key, array in back.items()}, strict=True)
    assert len(back) == 484
    assert sum(parameter.numel() for parameter in twin.parameters()) == 31_180_656
