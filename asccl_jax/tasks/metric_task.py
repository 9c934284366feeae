"""Learning the correlation metric: corresponding regions of a neutral and an emotional face should embed alike."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax
from jaxtyping import Array, DTypeLike, Key

from asccl_jax.errors import InputError
from asccl_jax.losses.contrastive import CorrelationParts, correlation_loss, location_scores
from asccl_jax.models.correlation import CorrelationMetric, FrozenMetric, init_variables, prepare_images
from asccl_jax.models.normalisation import BatchNorm
from asccl_jax.sampling import map_sizes, sample_locations
from asccl_jax.settings import MetricSettings
from asccl_jax.tasks import Scalars, check_accumulation, over_parts, task_with
from asccl_jax.trees import named_shapes, shape_differences
from asccl_jax.types import Locations, PairBatch, TrainState, Variables
from asccl_jax.weights import save_metric

__all__ = ["MetricTask"]


@task_with()
@dataclasses.dataclass(frozen=True, eq=False)
class MetricTask:
    """Trains trunk and heads with the coherent-correlation loss, as a `tasks.Task`.

    Attributes:
      settings: Network and loss.
      optimizer: Transformation of the gradients.
      dtype: Type of the computation, float32 or bfloat16; weights, statistics and losses are float32 either way.
      start: Variables to start from, in place of random ones.
      evaluation_draws: Fixed draws of locations that held-out scores average over; one draw alone is noisy.
      accumulation: Passes over equal parts of the batch that make an update, that of one pass as far as the loss is a
        mean over pairs. What else is taken over the batch is taken over a part: groups of BatchNorm, or the whole
        batch, and the released weighting's factor of a stage. Running statistics move pass by pass.
      loss: Scalar to show while training.
      score: Held-out scalar that marks the best state.
    """

    settings: MetricSettings
    optimizer: optax.GradientTransformation
    dtype: DTypeLike = jnp.float32
    start: Variables | None = None
    evaluation_draws: int = 8
    accumulation: int = 1
    loss: str = "metric/loss"
    score: str = "eval/nce"

    def __post_init__(self) -> None:
        """Checks the counts, and compares `start` with the network, entry by entry."""
        check_accumulation(self.accumulation)
        if self.evaluation_draws < 1:
            raise InputError(f"config.evaluation.draws={self.evaluation_draws}: expected at least 1")
        if self.start is not None:
            _check_same_network(self.start, self.settings)

    def init(self, key: Key[Array, ""]) -> TrainState:
        """Returns the state before the first update."""
        weights_key, locations_key = jax.random.split(key)
        fresh = init_variables(self.settings, weights_key) if self.start is None else self.start
        variables = jax.tree.map(jnp.asarray, fresh)
        return TrainState(
            step=jnp.zeros((), jnp.int32),
            params=variables["params"],
            batch_stats=variables["batch_stats"],
            opt_state=self.optimizer.init(variables["params"]),
            key=locations_key,
        )

    def update(
        self, state: TrainState, batch: PairBatch, *, axis_name: str | None = None
    ) -> tuple[TrainState, Scalars]:
        """Returns the state after one step of the optimiser, and that step's scalars.

        Locations are drawn from the state's key and step, so a step repeats exactly wherever it runs; all passes
        share them.

        Args:
          state: State before the step.
          batch: Pairs; the global batch under `jit`, this device's share under `pmap`.
          axis_name: Mapped axis under `pmap`; None under `jit`.
        """
        locations = _draw(jax.random.fold_in(state.key, state.step), self.settings)
        gradient = jax.value_and_grad(self._loss, has_aux=True)

        def one_pass(batch_stats: Variables, part: PairBatch) -> tuple[Variables, Any, Any]:
            (loss, (parts, batch_stats)), grads = gradient(state.params, batch_stats, part, locations, axis_name)
            return batch_stats, (loss, parts, grads), ()

        batch_stats, (loss, parts, grads), _ = over_parts(one_pass, state.batch_stats, batch, parts=self.accumulation)
        if axis_name is not None:
            loss, parts, grads = lax.pmean((loss, parts, grads), axis_name)
        updates, opt_state = self.optimizer.update(grads, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        scalars = {
            "metric/loss": loss,
            **_part_scalars(parts),
            "metric/gradient_norm": optax.tree.norm(grads),
            "metric/weight_norm": optax.tree.norm(params),
        }
        new = TrainState(
            step=state.step + 1, params=params, batch_stats=batch_stats, opt_state=opt_state, key=state.key
        )
        return new, scalars

    def evaluate(self, state: TrainState, batch: PairBatch) -> Scalars:
        """Returns held-out scores of each pair: unweighted NCE, retrieval and similarity gap, by stage.

        Running statistics, all neighbours inside the map, and the same draws of locations for every run, state and
        batch: the protocol is the same whatever the metric is trained with.
        """
        settings = dataclasses.replace(self.settings, border="inside", mask_same_centre=False)
        variables = {"params": state.params, "batch_stats": state.batch_stats}
        module = CorrelationMetric(self.settings, dtype=self.dtype)
        # With running statistics images do not influence each other: one pass for both branches.
        both = jnp.concatenate([batch.query_image, batch.key_image])
        maps: Any = module.apply(variables, prepare_images(both, self.settings), train=False, method="features")
        queries, keys = zip(*(jnp.split(features, 2) for features in maps), strict=True)

        def embed(level: int, disparities: Array) -> Any:
            return module.apply(variables, level, disparities, method="embed")

        def draw_scores(draw: Array) -> Scalars:
            locations = _draw(jax.random.fold_in(jax.random.key(0), draw), settings)
            stages = location_scores(queries, keys, embed, locations, settings)
            scores = {}
            for number, stage in enumerate(stages, start=1):
                scores[f"eval/nce_stage{number}"] = jnp.mean(stage.nce, axis=1)
                scores[f"eval/top1_stage{number}"] = jnp.mean(stage.hit.astype(stage.nce.dtype), axis=1)
                scores[f"eval/gap_stage{number}"] = jnp.mean(stage.corresponding - stage.other, axis=1)
            total = jnp.sum(jnp.stack([scores[f"eval/nce_stage{number}"] for number in range(1, 5)]), axis=0)
            return {"eval/nce": total, **scores}

        draws = lax.map(draw_scores, jnp.arange(self.evaluation_draws))
        return jax.tree.map(lambda values: jnp.mean(values, axis=0), draws)

    def export(self, state: TrainState, directory: Path) -> None:
        """Writes weights and statistics in the format of `asccl_jax.weights.load_metric`."""
        variables = jax.device_get({"params": state.params, "batch_stats": state.batch_stats})
        save_metric(directory, FrozenMetric(variables=variables, settings=self.settings))

    def settle_statistics(self, state: TrainState, batches: Iterable[PairBatch]) -> TrainState:
        """Returns the state with the running statistics that its weights have on these batches.

        Freshly drawn weights come with the statistics 0 and 1, which are nobody's: an untrained network is scored
        with settled ones.

        Args:
          state: State whose weights stay as they are.
          batches: At least one batch, on the devices.
        """
        move = jax.jit(self._move_statistics)
        moved = jax.tree.map(jnp.zeros_like, state.batch_stats)
        weight = 0.0
        for batch in batches:
            moved = move(state.params, moved, batch)
            weight = 1 - (1 - weight) * (1 - BatchNorm.momentum) ** 2
        # An average that started at zero, divided by the sum of its weights, has forgotten the start.
        return dataclasses.replace(state, batch_stats=jax.tree.map(lambda statistic: statistic / weight, moved))

    def _move_statistics(self, params: Variables, batch_stats: Variables, batch: PairBatch) -> Variables:
        for image in (batch.query_image, batch.key_image):
            _, batch_stats = self._features(params, batch_stats, image, axis_name=None)
        return batch_stats

    def _features(
        self, params: Variables, batch_stats: Variables, image_u8: Array | np.ndarray, *, axis_name: str | None
    ) -> tuple[tuple[Array, ...], Variables]:
        module = CorrelationMetric(self.settings, dtype=self.dtype, axis_name=axis_name)
        maps, moved = module.apply(
            {"params": params, "batch_stats": batch_stats},
            prepare_images(jnp.asarray(image_u8), self.settings),
            train=True,
            method="features",
            mutable=["batch_stats"],
        )
        return maps, moved["batch_stats"]

    def _loss(
        self, params: Variables, batch_stats: Variables, batch: PairBatch, locations: Locations, axis_name: str | None
    ) -> tuple[Array, tuple[CorrelationParts, Variables]]:
        # The published order: each branch by its own statistics, the running ones moved by the query, then the key.
        query, batch_stats = self._features(params, batch_stats, batch.query_image, axis_name=axis_name)
        # Cuts the key branch's gradient into the trunk: the key is the target.
        target = lax.stop_gradient(params)
        key, batch_stats = self._features(target, batch_stats, batch.key_image, axis_name=axis_name)

        def embed(level: int, disparities: Array) -> Any:
            module = CorrelationMetric(self.settings, dtype=self.dtype)
            return module.apply({"params": params}, level, disparities, method="embed")

        loss, parts = correlation_loss(query, key, embed, locations, self.settings)
        return loss, (parts, batch_stats)


def _draw(key: Key[Array, ""], settings: MetricSettings) -> Locations:
    return sample_locations(key, map_sizes(settings.image_size), settings.centre_counts, border=settings.border)


def _part_scalars(parts: CorrelationParts) -> Scalars:
    scalars = {"metric/nce": jnp.sum(parts.stage_nce)}
    for stage in range(4):
        number = stage + 1
        scalars[f"metric/nce_stage{number}"] = parts.stage_nce[stage]
        scalars[f"metric/top1_stage{number}"] = parts.top1[stage]
        scalars[f"metric/weight_stage{number}"] = parts.mean_weight[stage]
        scalars[f"metric/corresponding_stage{number}"] = parts.corresponding_similarity[stage]
        scalars[f"metric/other_stage{number}"] = parts.other_similarity[stage]
    return scalars


def _check_same_network(variables: Variables, settings: MetricSettings) -> None:
    expected = jax.eval_shape(lambda key: init_variables(settings, key), jax.random.key(0))
    differences = shape_differences(named_shapes(variables), named_shapes(expected))
    if differences:
        raise InputError(f"the weights to start from are of another network: {'; '.join(differences)}")
