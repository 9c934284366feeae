"""Learning to change the expression of windows of coefficients: four networks, four updates a step, as published."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

import jax
import jax.numpy as jnp
import optax
from jax import lax
from jaxtyping import Array, Float, Key

from asccl_jax.errors import InputError
from asccl_jax.head.shape_images import ShapeRenderer
from asccl_jax.image.face_box import landmark_box
from asccl_jax.losses import asccl_loss
from asccl_jax.losses.generator import absolute_error, least_squares, mouth_correlation
from asccl_jax.models.manipulator import NETWORKS, Manipulator, init_manipulator
from asccl_jax.sampling import Box, map_sizes, sample_locations
from asccl_jax.settings import ManipulatorSettings
from asccl_jax.tasks import Scalars, check_accumulation, over_parts, task_with
from asccl_jax.trees import named_shapes, shape_differences
from asccl_jax.types import TrainState, Variables, WindowBatch
from asccl_jax.weights import FrozenMetric, save_manipulator

__all__ = [
    "MODES",
    "ManipulatorTask",
    "MeshLoss",
    "MeshSupervision",
    "Mode",
    "discriminator_loss",
    "generator_loss",
    "target_style",
]

Mode = Literal["latent", "reference"]
"""Where the wanted style comes from: noise and a label through the mapping network, or a window that has it."""

MODES: tuple[Mode, ...] = ("latent", "reference")
"""In the order in which a step takes them."""

MeshLoss = Callable[[Float[Array, "b t c"], Float[Array, "b t c"], Key[Array, ""]], Float[Array, ""]]
"""Loss of generated windows beside their sources, with a key for what it draws; a pytree of what it looks at."""

_TRAINED = {"latent": ("generator", "mapping_network", "style_encoder"), "reference": ("generator",)}
"""Networks that the generator's update of a mode moves."""


def target_style(
    manipulator: Manipulator, mode: Mode, batch: WindowBatch, latents: Float[Array, "b z"]
) -> Float[Array, "b s"]:
    """Returns the style each source is to get: that of its reference's label, or of its reference itself."""
    if mode == "latent":
        return manipulator.style_of_label(latents, batch.reference_emotion)
    return manipulator.style_of(batch.reference)


def discriminator_loss(
    manipulator: Manipulator, mode: Mode, batch: WindowBatch, latents: Float[Array, "b z"]
) -> tuple[Float[Array, ""], Scalars]:
    """Returns what the discriminator minimises: sources judged real as what they are, fakes as what they should be.

    `mean((D(x, y_source) - 1)^2) + mean(D(G(x, s), y_wanted)^2)`, without a gradient penalty, as published.
    """
    # Cuts the gradient into the generator and whatever made the style: here only the discriminator learns.
    fake = lax.stop_gradient(manipulator.generate(batch.source, target_style(manipulator, mode, batch, latents)))
    # One pass over both: rows do not influence each other.
    scores = manipulator.judge(
        jnp.concatenate([batch.source, fake]), jnp.concatenate([batch.source_emotion, batch.reference_emotion])
    )
    real, generated = jnp.split(scores, 2)
    parts = {"real": least_squares(real, 1.0), "fake": least_squares(generated, 0.0)}
    return parts["real"] + parts["fake"], parts


def generator_loss(
    manipulator: Manipulator, mode: Mode, batch: WindowBatch, latents: Float[Array, "b z"]
) -> tuple[Float[Array, ""], tuple[Scalars, Float[Array, "b t c"]]]:
    """Returns what the generator minimises, its parts and the generated windows.

    Adversarial + style + cycle - mouth, all with weight 1 as published. The gradient of the style loss flows into both
    its sides.
    """
    style = target_style(manipulator, mode, batch, latents)
    fake = manipulator.generate(batch.source, style)
    kept = _held_to(manipulator, batch, style, fake)
    parts = {
        "adversarial": least_squares(manipulator.judge(fake, batch.reference_emotion), 1.0),
        **{name: jnp.mean(values) for name, values in kept.items()},
    }
    return parts["adversarial"] + parts["style"] + parts["cycle"] - parts["mouth"], (parts, fake)


def _held_to(
    manipulator: Manipulator, batch: WindowBatch, style: Float[Array, "b s"], fake: Float[Array, "b t c"]
) -> Scalars:
    """Returns how far each generated window is from the style and the way back, and how well its jaw follows."""
    source = jnp.asarray(batch.source)
    restored = manipulator.generate(fake, manipulator.style_of(source))
    return {
        "style": absolute_error(manipulator.style_of(fake), style),
        "cycle": absolute_error(restored, source),
        "mouth": mouth_correlation(source, fake, restored),
    }


@task_with("mesh_loss")
@dataclasses.dataclass(frozen=True, eq=False)
class ManipulatorTask:
    """Trains the four networks, as a `tasks.Task`; `params` and `opt_state` have an entry for each.

    Attributes:
      settings: Sizes of the networks.
      optimizer: Transformation of each network's gradients at rate 1: Adam with betas 0 and 0.99 as published.
      learning_rate: Rate by the steps done, for all four. A step moves generator and discriminator twice, so the rate
        is not left to the optimiser, which would count that as two.
      start: Weights to start from, in place of random ones.
      mesh_loss: Supervision of the meshes that generated windows make, beside their sources'; None for none.
      mesh_weight: Its weight in the generator's loss.
      mesh_modes: Modes in whose generator update it takes part.
      accumulation: Passes over equal parts of the batch that make each of a step's four updates.
      loss: Scalar to show while training.
      score: Held-out scalar that marks the best state.
    """

    settings: ManipulatorSettings
    optimizer: optax.GradientTransformation
    learning_rate: optax.Schedule
    start: Variables | None = None
    mesh_loss: MeshLoss | None = None
    mesh_weight: float = 1.0
    mesh_modes: tuple[str, ...] = MODES
    accumulation: int = 1
    loss: str = "manipulator/loss"
    score: str = "eval/score"

    def __post_init__(self) -> None:
        """Compares `start` with the networks, entry by entry, and checks the other fields."""
        check_accumulation(self.accumulation)
        unknown = [mode for mode in self.mesh_modes if mode not in MODES]
        if unknown:
            raise InputError(f"mesh supervision in modes {', '.join(unknown)}: expected some of {', '.join(MODES)}")
        if not 0 <= self.mesh_weight < float("inf"):
            raise InputError(f"mesh supervision weighs {self.mesh_weight}: expected a number of at least 0")
        if self.start is None:
            return
        expected = jax.eval_shape(lambda: init_manipulator(self.settings, jax.random.key(0)))
        differences = shape_differences(named_shapes(self.start), named_shapes(expected))
        if differences:
            raise InputError(f"the weights to start from are of other networks: {'; '.join(differences)}")

    def init(self, key: Key[Array, ""]) -> TrainState:
        """Returns the state before the first update."""
        weights_key, draws_key = jax.random.split(key)
        fresh = init_manipulator(self.settings, weights_key) if self.start is None else self.start
        params = jax.tree.map(jnp.asarray, fresh)
        return TrainState(
            step=jnp.zeros((), jnp.int32),
            params=params,
            batch_stats={},
            opt_state={name: self.optimizer.init(params[name]) for name in NETWORKS},
            key=draws_key,
        )

    def update(
        self, state: TrainState, batch: WindowBatch, *, axis_name: str | None = None
    ) -> tuple[TrainState, Scalars]:
        """Returns the state after one step, and that step's scalars.

        The noise of a row follows from the state's key, the step and the row's place in the global batch, so a step
        repeats exactly wherever it runs.

        Args:
          state: State before the step.
          batch: Windows; the global batch under `jit`, this device's rows under `pmap`.
          axis_name: Mapped axis under `pmap`; None under `jit`.
        """
        key = jax.random.fold_in(jax.random.fold_in(state.key, state.step), 0)
        rows = batch.source.shape[0]
        devices = 1 if axis_name is None else lax.axis_size(axis_name)
        latents = jax.random.normal(key, (devices * rows, self.settings.latent_size), jnp.float32)
        if axis_name is not None:
            latents = lax.dynamic_slice_in_dim(latents, lax.axis_index(axis_name) * rows, rows)
        return self.update_with(state, batch, latents, axis_name=axis_name)

    def update_with(
        self, state: TrainState, batch: WindowBatch, latents: Float[Array, "b z"], *, axis_name: str | None = None
    ) -> tuple[TrainState, Scalars]:
        """Returns what `update` does, with noise given in place of drawn.

        The published order: the discriminator by the latent, then by the reference mode; generator, mapping network and
        style encoder by the latent mode; the generator alone by the reference mode. Each sees what those before it
        changed; all four see the same windows and noise.
        """
        run = _Step(self, state, batch, latents, axis_name)
        scalars: Scalars = {}
        for mode in MODES:
            judging = functools.partial(discriminator_loss, mode=mode)
            parts = run.descend(("discriminator",), judging)
            scalars |= {f"manipulator/{mode}/{name}": value for name, value in parts.items()}
        for number, mode in enumerate(MODES, start=1):
            key = jax.random.fold_in(jax.random.fold_in(state.key, state.step), number)
            generating = functools.partial(self._generator_loss, mode=mode, key=key)
            parts = run.descend(_TRAINED[mode], generating)
            scalars |= {f"manipulator/{mode}/{name}": value for name, value in parts.items()}
        new = TrainState(step=state.step + 1, params=run.params, batch_stats={}, opt_state=run.opt_state, key=state.key)
        return new, {**_totals(scalars), **scalars}

    def evaluate(self, state: TrainState, batch: WindowBatch) -> Scalars:
        """Returns held-out scores of each window: style, cycle and mouth, each the mean of both modes, and their score.

        The noise depends on the window alone, so that all states and batches are judged alike. `eval/score` is style +
        cycle - mouth: what the generator minimises but for the discriminator's opinion, which is another at each step.
        """
        manipulator = Manipulator(state.params, self.settings)
        keys = jax.vmap(jax.random.fold_in, in_axes=(None, 0))(jax.random.key(0), jnp.asarray(batch.index))
        latents = jax.vmap(lambda key: jax.random.normal(key, (self.settings.latent_size,), jnp.float32))(keys)
        scores: Scalars = {}
        for mode in MODES:
            style = target_style(manipulator, mode, batch, latents)
            kept = _held_to(manipulator, batch, style, manipulator.generate(batch.source, style))
            scores |= {f"eval/{mode}/{name}": values for name, values in kept.items()}
        means = {
            f"eval/{name}": 0.5 * (scores[f"eval/latent/{name}"] + scores[f"eval/reference/{name}"])
            for name in ("style", "cycle", "mouth")
        }
        return {"eval/score": means["eval/style"] + means["eval/cycle"] - means["eval/mouth"], **means, **scores}

    def export(self, state: TrainState, directory: Path) -> None:
        """Writes the networks in the format of `asccl_jax.weights.load_manipulator`."""
        save_manipulator(directory, Manipulator(jax.device_get(state.params), self.settings))

    def _generator_loss(
        self, manipulator: Manipulator, mode: Mode, batch: WindowBatch, latents: Array, key: Key[Array, ""]
    ) -> tuple[Array, Scalars]:
        loss, (parts, fake) = generator_loss(manipulator, mode, batch, latents)
        if self.mesh_loss is None or mode not in self.mesh_modes:
            return loss, parts
        mesh = self.mesh_loss(fake, jnp.asarray(batch.source), key)
        return loss + self.mesh_weight * mesh, {**parts, "mesh": mesh}


class _Step:
    """Networks and optimisers in the middle of a step."""

    def __init__(
        self, task: ManipulatorTask, state: TrainState, batch: WindowBatch, latents: Array, axis_name: str | None
    ) -> None:
        self.params: Variables = dict(state.params)
        self.opt_state: dict[str, optax.OptState] = dict(state.opt_state)
        self._task = task
        self._rows = batch, latents
        self._rate = task.learning_rate(state.step)
        self._axis_name = axis_name

    def descend(self, names: tuple[str, ...], loss: Callable[..., tuple[Array, Scalars]]) -> Scalars:
        """Moves some networks by the gradient of a loss, of all passes together, and returns its parts."""
        moving = {name: self.params[name] for name in names}

        def of_moving(moving: Mapping[str, Any], batch: WindowBatch, latents: Array) -> tuple[Array, Scalars]:
            manipulator = Manipulator({**self.params, **moving}, self._task.settings)
            return loss(manipulator, batch=batch, latents=latents)

        def one_pass(carried: tuple[()], rows: tuple[WindowBatch, Array]) -> tuple[tuple[()], Any, tuple[()]]:
            (_, parts), grads = jax.value_and_grad(of_moving, has_aux=True)(moving, *rows)
            return carried, (parts, grads), ()

        _, (parts, grads), _ = over_parts(one_pass, (), self._rows, parts=self._task.accumulation)
        if self._axis_name is not None:
            parts, grads = lax.pmean((parts, grads), self._axis_name)
        for name in names:
            updates, self.opt_state[name] = self._task.optimizer.update(
                grads[name], self.opt_state[name], self.params[name]
            )
            rated = jax.tree.map(lambda update: update * jnp.asarray(self._rate, update.dtype), updates)
            self.params[name] = optax.apply_updates(self.params[name], rated)
        return parts


def _totals(scalars: Scalars) -> Scalars:
    """Returns what training shows: the generator's loss without the supervision, the discriminator's, the mesh's."""
    signs = {"adversarial": 1.0, "style": 1.0, "cycle": 1.0, "mouth": -1.0}
    generator = [sign * scalars[f"manipulator/{mode}/{name}"] for mode in MODES for name, sign in signs.items()]
    judged = [scalars[f"manipulator/{mode}/{name}"] for mode in MODES for name in ("real", "fake")]
    totals = {
        "manipulator/loss": jnp.sum(jnp.stack(generator)),
        "manipulator/discriminator": jnp.sum(jnp.stack(judged)),
    }
    meshes = [scalars[f"manipulator/{mode}/mesh"] for mode in MODES if f"manipulator/{mode}/mesh" in scalars]
    return {**totals, "manipulator/mesh": jnp.mean(jnp.stack(meshes))} if meshes else totals


# The correlation metric as a judge of coefficients: heads drawn from generated ones against heads drawn from sources.
#
# The paper's supervision of the manipulator. Upstream: absent from the released code; CDRL, which it builds on, draws
# wrinkled heads of 224 pixels from one template and takes its loss in one of the two modes only.


@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=("renderer", "metric"),
    meta_fields=("frames_per_step", "within"),
)
@dataclasses.dataclass(frozen=True, eq=False)
class MeshSupervision:
    """Draws windows of coefficients on one template head and compares them by the metric; a pytree of both.

    Attributes:
      renderer: Draws them; both pictures are cut to the box of the source's face, as the metric's training data is, and
        resized to the metric's size.
      metric: The judge; it does not move.
      frames_per_step: How many frames of a batch are compared, other ones at each call; all if None. Under `pmap`, so
        many of each device's rows; where an update takes several passes, so many of each pass's.
      within: Part of the face's box in which places are compared; all of it if None, as in the paper.
    """

    renderer: ShapeRenderer
    metric: FrozenMetric
    frames_per_step: int | None = 8
    within: Box | None = None

    def __post_init__(self) -> None:
        if self.frames_per_step is not None and self.frames_per_step < 1:
            raise InputError(f"frames_per_step: {self.frames_per_step}, expected 1 or more, or None for all")

    def __call__(
        self, generated: Float[Array, "b t c"], source: Float[Array, "b t c"], key: Key[Array, ""]
    ) -> Float[Array, ""]:
        """Returns how far the drawn generated heads leave the speech of the drawn sources; see `asccl_loss`.

        Args:
          generated: Windows of the generator; the gradient goes to them.
          source: The windows that those were made from.
          key: Draws the frames, and the locations at which they are compared.
        """
        frame_key, location_key = jax.random.split(key)
        query, target = (values.reshape(-1, values.shape[-1]) for values in (generated, source))
        if self.frames_per_step is not None and self.frames_per_step < len(query):
            chosen = jax.random.choice(frame_key, len(query), (self.frames_per_step,), replace=False)
            query, target = query[chosen], target[chosen]
        # The source's gradient is cut here rather than after drawing it: nothing is kept to go back through.
        target = jax.lax.stop_gradient(target)
        settings = self.metric.settings
        sizes, counts = map_sizes(settings.image_size), settings.centre_counts
        locations = sample_locations(location_key, sizes, counts, border=settings.border, within=self.within)
        box = landmark_box(self.renderer.landmarks(target.astype(jnp.float32)))
        images = self._draw(query), self._draw(target)
        loss, _ = asccl_loss(self.metric, *images, location_key, face_box=box, locations=locations)
        return loss

    def _draw(self, coefficients: Float[Array, "n c"]) -> Float[Array, "n h w 3"]:
        return 2 * self.renderer(coefficients.astype(jnp.float32)) - 1
