"""The correlation metric replayed from a golden's seed and size: what `asccl_jax` computes under the golden's names."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.typing import DTypeLike

from asccl_jax.convert.metric_entries import TRUNK, blocks_of_keys, flax_from_state_dict, state_dict_from_flax
from asccl_jax.losses.contrastive import CorrelationParts, correlation_loss, neighbour_disparities
from asccl_jax.models.correlation import CorrelationMetric
from asccl_jax.settings import MetricSettings
from asccl_jax.types import Variables
from tests.parity import recipe
from tests.parity.switches import aligned, exactly, lightly_compiled, recorded

__all__ = [
    "LEARNING_RATE",
    "MANIFEST",
    "Replayed",
    "published_statistics",
    "replay",
    "settings_of_state_dict",
    "trajectory_steps",
]

MANIFEST = "metric"
LEARNING_RATE = 1e-3
_PREFIX = "metric."
# The unused BatchNorm after the trunk: in the state dict, but not in our tree.
_UNUSED = f"{_PREFIX}resnet50.bn2."

# The goldens feed both networks the same channels, so no order is turned; one batch is one BatchNorm group.
_RELEASED = MetricSettings.from_compat("released", channel_order="rgb", bn_group_size=None)
_STAGES = range(1, 5)
_FORMS = {
    "released": _RELEASED,
    "perloc_wdetached": dataclasses.replace(_RELEASED, weighting="per_location", weight_gradient="stopped"),
    "perloc_wdiff": dataclasses.replace(_RELEASED, weighting="per_location", weight_gradient="flows"),
}
_GRADIENTS = {form: f"train/{form}_grad" for form in _FORMS} | {"released": "train/grad"}


@dataclasses.dataclass
class Replayed:
    """Results in the reference's layout.

    Attributes:
      tensors: Whole arrays by name; the golden may hold them sampled, strided or summarised.
      collections: Sets of parameter-shaped arrays by name, each by state-dict key; an absent key received no gradient.
      weight_jumps: Per part ("eval", "train") and stage, the share of weights that lie on one side of their jump in
        this run and on the other in the exact one.
      exact: Computes the same in float64, or what of it the reference has no float64 run of: how far this run is from
        that is the spread of arrays of which nobody states one.
      grey_levels: By how much arrays of grey levels may differ; other arrays of whole numbers must be equal.
      unknown: Entries, marked by array, whose float64 twins come of random choices that the golden does not hold, or of
        rounding alone.
      again: The same from weights off by the reference's rounding: what that makes of several updates in float64.
    """

    tensors: dict[str, np.ndarray] = dataclasses.field(default_factory=dict)
    collections: dict[str, dict[str, np.ndarray]] = dataclasses.field(default_factory=dict)
    weight_jumps: dict[str, np.ndarray] = dataclasses.field(default_factory=dict)
    exact: Callable[[], Replayed] | None = None
    grey_levels: dict[str, float] = dataclasses.field(default_factory=dict)
    unknown: dict[str, np.ndarray] = dataclasses.field(default_factory=dict)
    again: Replayed | None = None


@dataclasses.dataclass
class _Golden:
    """Inputs of one golden: images, weights and the stored random choices."""

    arrays: Mapping[str, np.ndarray]
    state_dict: dict[str, np.ndarray]
    variables: Variables
    source: jax.Array
    target: jax.Array

    def choices(self, part: str, suffix: str = "") -> tuple[tuple[jax.Array, ...], tuple[jax.Array, ...]]:
        """Locations and permutations, one of each a stage."""
        centres = tuple(jnp.asarray(self.arrays[f"{part}/centres{stage}{suffix}"], jnp.int32) for stage in _STAGES)
        permutations = tuple(jnp.asarray(self.arrays[f"{part}/perm{stage}{suffix}"], jnp.int32) for stage in _STAGES)
        return centres, permutations


def trajectory_steps(arrays: Mapping[str, np.ndarray]) -> int:
    """Adam steps of the golden's trajectory; 0 if it has none."""
    return len(arrays["traj/loss"]) if "traj/loss" in arrays else 0


def replay(
    arrays: Mapping[str, np.ndarray], manifest: Sequence[Mapping[str, Any]], *, dtype: DTypeLike = jnp.float32
) -> Replayed:
    """Everything a metric golden holds, computed by `asccl_jax`.

    Args:
      arrays: Arrays of the file; only its configuration, locations and permutations are read.
      manifest: Entries of the metric's state dict.
      dtype: float32, with rectifiers aligned to an exact run; or float64, the exact run itself, where JAX has 64 bits.
    """
    golden = _make_golden(arrays, manifest, dtype)
    results = Replayed()
    _replay_evaluation(results, golden)
    gradient = lightly_compiled(jax.value_and_grad(_training_loss, has_aux=True))
    _replay_training(results, golden, gradient)
    if trajectory_steps(arrays):
        _replay_trajectory(results, golden, gradient)
    return results


def settings_of_state_dict(state_dict: Mapping[str, np.ndarray]) -> MetricSettings:
    """The released loss on the network whose sizes a state dict tells."""
    widths = tuple(len(state_dict[f"mlp.{3 * (stage - 1)}.bias"]) for stage in _STAGES)
    blocks = blocks_of_keys(state_dict, prefix=TRUNK)
    return dataclasses.replace(_RELEASED, stage_blocks=blocks, stage_widths=widths)


def _settings_of(params: Variables) -> MetricSettings:
    """The same of a network's parameters."""
    blocks = tuple(len(params["trunk"][f"stage{stage}"]) for stage in _STAGES)
    widths = tuple(len(params["heads"][f"stage{stage}"]["hidden"]["bias"]) for stage in _STAGES)
    return dataclasses.replace(_RELEASED, stage_blocks=blocks, stage_widths=widths)


def _make_golden(arrays: Mapping[str, np.ndarray], manifest: Sequence[Mapping[str, Any]], dtype: DTypeLike) -> _Golden:
    seed, batch, size = (int(value) for value in arrays["cfg"])
    state_dict = recipe.make_weights(manifest, seed, prefix=_PREFIX)
    source, noise = (
        recipe.make_input(f"metric.{name}", (batch, 3, size, size), seed, "uniform") for name in ("source", "noise")
    )
    target = recipe.make_pair(source, noise)
    variables = flax_from_state_dict(state_dict, settings_of_state_dict(state_dict))
    return _Golden(
        arrays,
        state_dict,
        jax.tree.map(lambda leaf: jnp.asarray(leaf, dtype), variables),
        jnp.asarray(source.transpose(0, 2, 3, 1), dtype),
        jnp.asarray(target.transpose(0, 2, 3, 1), dtype),
    )


def _replay_evaluation(results: Replayed, golden: _Golden) -> None:
    centres, permutations = golden.choices("eval")
    arguments = (golden.variables, golden.source, golden.target, centres, permutations)
    features, forms, large = lightly_compiled(_evaluation_losses)(*arguments)
    for stage, feature in enumerate(features, start=1):
        results.tensors[f"eval/feat{stage}"] = np.asarray(feature).transpose(0, 3, 1, 2)
    # The published trunk returns the fourth map twice; ours returns each once.
    results.tensors["n_returned_features"] = np.asarray(len(features) + 1)
    _record_released(results, "eval", forms["released"])
    loss, parts = forms["perloc_wdetached"]
    results.tensors |= {
        "eval/perloc_loss": np.asarray(loss),
        "eval/perloc_level_losses": np.asarray(parts.stage_losses),
    }
    exact_features, _, exact_large = exactly(_evaluation_losses, *arguments)
    results.weight_jumps["eval"] = _jumps(large, exact_large)
    exact = {f"eval/feat{stage}": feature.transpose(0, 3, 1, 2) for stage, feature in enumerate(exact_features, 1)}
    results.exact = lambda: Replayed(exact)


def _evaluation_losses(
    variables: Variables,
    source: jax.Array,
    target: jax.Array,
    centres: Sequence[jax.Array],
    permutations: Sequence[jax.Array],
) -> Any:
    module = CorrelationMetric(_settings_of(variables["params"]), dtype=source.dtype)
    query = module.apply(variables, source, train=False, method="features")
    key = module.apply(variables, target, train=False, method="features")
    return query, _all_forms(module, variables, query, key, centres, permutations), _large_disparities(query, centres)


def _all_forms(
    module: CorrelationMetric, variables: Variables, query: Any, key: Any, centres: Any, permutations: Any
) -> dict[str, tuple[jax.Array, CorrelationParts]]:
    def embed(level: int, disparities: jax.Array) -> jax.Array:
        return module.apply(variables, level, disparities, method="embed")

    return {
        form: correlation_loss(query, key, embed, tuple(centres), settings, permutations=permutations)
        for form, settings in _FORMS.items()
    }


def _large_disparities(features: Sequence[jax.Array], centres: Sequence[jax.Array]) -> list[jax.Array]:
    """Where disparities are beyond the weight's jump at ln 4."""
    pairs = zip(features, centres, strict=True)
    return [jnp.abs(neighbour_disparities(feature, centre)) > math.log(4) for feature, centre in pairs]


def _training_loss(
    params: Variables,
    batch_stats: Variables,
    source: jax.Array,
    target: jax.Array,
    centres: Sequence[jax.Array],
    permutations: Sequence[jax.Array],
    signs: Sequence[jax.Array] | None,
    selection: Mapping[str, jax.Array],
) -> Any:
    """One of the loss forms by a selection of 0 and 1, so that all gradients and the trajectory share a compilation."""
    if signs is None:
        forms, moved, large = _training_forms(params, batch_stats, source, target, centres, permutations)
    else:
        with aligned(signs):
            forms, moved, large = _training_forms(params, batch_stats, source, target, centres, permutations)
    total = sum(selection[form] * loss for form, (loss, _) in forms.items())
    return total, (forms, moved, large)


def _training_forms(
    params: Variables, batch_stats: Variables, source: jax.Array, target: jax.Array, centres: Any, permutations: Any
) -> Any:
    module = CorrelationMetric(_settings_of(params), dtype=source.dtype)

    def features(stats: Variables, image: jax.Array) -> Any:
        variables = {"params": params, "batch_stats": stats}
        return module.apply(variables, image, train=True, method="features", mutable=["batch_stats"])

    query, moved = features(batch_stats, source)
    key, moved = features(moved["batch_stats"], target)
    forms = _all_forms(module, {"params": params}, query, key, centres, permutations)
    return forms, moved["batch_stats"], _large_disparities(query, centres)


def _training_switches(*arguments: Any) -> Any:
    signs: list[jax.Array] = []
    with recorded(signs):
        _, _, large = _training_forms(*arguments)
    return signs, large


def _jumps(found: Sequence[jax.Array], exact: Sequence[np.ndarray]) -> np.ndarray:
    return np.array([np.mean(np.asarray(ours) != theirs) for ours, theirs in zip(found, exact, strict=True)])


def _take_gradient(golden: _Golden, gradient: Any, arguments: tuple[Any, ...], forms: Sequence[str]) -> Any:
    """Results for each of the forms, and the exact run's side of every weight's jump."""
    dtype = golden.source.dtype
    signs, large = (None, None) if dtype == np.float64 else exactly(_training_switches, *arguments)
    selections = [{name: jnp.asarray(name == form, dtype) for name in _FORMS} for form in forms]
    return [gradient(*arguments, signs, selection) for selection in selections], large


def _replay_training(results: Replayed, golden: _Golden, gradient: Any) -> None:
    arguments = (*_both(golden.variables), golden.source, golden.target, *golden.choices("train"))
    taken, exact_large = _take_gradient(golden, gradient, arguments, tuple(_GRADIENTS))
    # Whatever form the gradient is of, losses of all forms and the statistics are the same.
    (_, (forms, moved, large)), _ = taken[0]
    for name, (_, grads) in zip(_GRADIENTS.values(), taken, strict=True):
        published = _published_names({"params": grads, "batch_stats": moved})
        results.collections[name] = {key: value for key, value in published.items() if not _is_statistic(key)}
    results.collections["train/bn"] = _statistics(published, golden.state_dict)
    _record_released(results, "train", forms["released"])
    results.tensors["train/perloc_level_losses"] = np.asarray(forms["perloc_wdetached"][1].stage_losses)
    for form in ("perloc_wdetached", "perloc_wdiff"):
        results.tensors[f"train/{form}_loss"] = np.asarray(forms[form][0])
    results.weight_jumps["train"] = _jumps(large, large if exact_large is None else exact_large)


def _replay_trajectory(results: Replayed, golden: _Golden, gradient: Any) -> None:
    optimizer = optax.adam(LEARNING_RATE, b1=0.9, b2=0.999, eps=1e-8, eps_root=0.0)

    @lightly_compiled
    def step(params: Variables, grads: Variables, state: optax.OptState) -> tuple[Variables, optax.OptState]:
        with jax.numpy_dtype_promotion("standard"):  # Optax counts steps in integers
            updates, state = optimizer.update(grads, state, params)
        return optax.apply_updates(params, updates), state

    params, stats = _both(golden.variables)
    state = optimizer.init(params)
    history: dict[str, list[np.ndarray]] = {"loss": [], "pos": [], "neg": []}
    for number in range(trajectory_steps(golden.arrays)):
        arguments = (params, stats, golden.source, golden.target, *golden.choices("traj", f"_step{number}"))
        [((loss, (forms, stats, _)), grads)], _ = _take_gradient(golden, gradient, arguments, ("released",))
        params, state = step(params, grads, state)
        parts = forms["released"][1]
        history["loss"].append(np.asarray(loss))
        history["pos"].append(np.asarray(jnp.mean(parts.corresponding_similarity)))
        history["neg"].append(np.asarray(jnp.mean(parts.other_similarity)))
    results.tensors |= {f"traj/{name}": np.stack(values) for name, values in history.items()}
    published = _published_names({"params": params, "batch_stats": stats})
    moved = {key: value for key, value in published.items() if not _is_statistic(key)}
    results.collections["traj/final_params"] = _unmoved(golden.state_dict, statistics=False) | moved
    results.collections["traj/final_bn"] = _statistics(published, golden.state_dict)


def _record_released(results: Replayed, part: str, form: tuple[jax.Array, CorrelationParts]) -> None:
    loss, parts = form
    results.tensors |= {
        f"{part}/loss": np.asarray(loss),
        f"{part}_loss": np.asarray(loss),
        f"{part}/level_losses": np.asarray(parts.stage_losses),
        f"{part}/level_mean_weight": np.asarray(parts.mean_weight),
        f"{part}/pos": np.asarray(jnp.mean(parts.corresponding_similarity)),
        f"{part}/neg": np.asarray(jnp.mean(parts.other_similarity)),
    }


def _both(variables: Variables) -> tuple[Variables, Variables]:
    return variables["params"], variables["batch_stats"]


def _published_names(variables: Variables) -> dict[str, np.ndarray]:
    """The tree's arrays under the golden's keys, without the BatchNorm that the network never calls.

    The converter writes float32; a float64 tree passes through it as two float32 halves, which keep 48 of 53 bits.
    """
    settings = _settings_of(variables["params"])
    high = jax.tree.map(lambda leaf: np.asarray(leaf, np.float32), variables)
    published = state_dict_from_flax(high, settings)
    if jax.tree.leaves(variables)[0].dtype == np.float64:
        low = jax.tree.map(lambda leaf, half: np.asarray(np.asarray(leaf) - half, np.float32), variables, high)
        rest = state_dict_from_flax(low, settings)
        published = {key: value.astype(np.float64) + rest[key] for key, value in published.items()}
    named = {f"{_PREFIX}{key}": value for key, value in published.items() if not key.endswith("num_batches_tracked")}
    return {key: value for key, value in named.items() if not key.startswith(_UNUSED)}


def _is_statistic(key: str) -> bool:
    return key.endswith(("running_mean", "running_var"))


def _unmoved(state_dict: Mapping[str, np.ndarray], *, statistics: bool) -> dict[str, np.ndarray]:
    """Entries of the BatchNorm that is never called: they stay what the recipe makes them."""
    named = {f"{_PREFIX}{key}": value for key, value in state_dict.items() if value.dtype == np.float32}
    return {key: value for key, value in named.items() if key.startswith(_UNUSED) and _is_statistic(key) == statistics}


def published_statistics(variables: Variables, state_dict: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Running statistics under the golden's keys, with those of the BatchNorm that is never called.

    Args:
      variables: The metric's collections "params" and "batch_stats".
      state_dict: What the recipe makes.
    """
    return _statistics(_published_names(variables), state_dict)


def _statistics(published: Mapping[str, np.ndarray], state_dict: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    moved = {key: value for key, value in published.items() if _is_statistic(key)}
    return _unmoved(state_dict, statistics=True) | moved
