"""Learning to draw talking faces frame by frame: generator against discriminators, one update of each a chunk."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any, Literal, no_type_check

import jax
import jax.numpy as jnp
import optax
from flax import struct
from jax import lax
from jaxtyping import Array, DTypeLike, Float, Key

from asccl_jax.errors import InputError
from asccl_jax.losses.generator import crop_regions
from asccl_jax.models.renderer import (
    IMAGE_CHANNELS,
    MultiscaleDiscriminator,
    Renderer,
    RendererGenerator,
    init_renderer,
)
from asccl_jax.settings import RendererSettings
from asccl_jax.tasks import Scalars, check_accumulation, over_parts, task_with
from asccl_jax.tasks.frame_chunks import FrameChunk, chunk_count, cut_chunk, generate_chunk, in_one_row, latest_frames
from asccl_jax.tasks.frame_losses import FrameAdversaries, FrameSupervision, Scene, judged_frames
from asccl_jax.trees import named_shapes, shape_differences
from asccl_jax.types import Locations, SequenceBatch, TrainState, Variables
from asccl_jax.weights import save_renderer

__all__ = ["ChunkState", "RendererTask"]


@no_type_check  # a tree map puts axes, shapes and None where arrays were
@struct.dataclass
class ChunkState:
    """What the update of a chunk changes.

    Attributes:
      params: Weights by network.
      opt_state: Optimisers of "generator" and of "discriminators", which share one.
      statistics: The metric's, where they move.
      previous: The last frames drawn, side by side, oldest first.
    """

    params: Variables
    opt_state: dict[str, optax.OptState]
    statistics: Variables
    previous: Float[Array, "b h w p"]


@task_with("supervision")
@dataclasses.dataclass(frozen=True, eq=False)
class RendererTask:
    """Trains the renderer's networks, as a `tasks.Task`; `params` has an entry for each.

    Attributes:
      settings: Sizes of the networks, and which regions have a discriminator of their own.
      optimizer: Transformation of gradients at rate 1: Adam with betas 0.5 and 0.999 as published. One instance moves
        the generator, another all discriminators.
      learning_rate: Rate by the steps done, for all networks.
      supervision: What frozen networks say of the frames.
      adversaries: How much the generator minds the discriminators.
      pixel_weight: Weight of the mean absolute difference of the pixels; the published code has no such term.
      chunk: Frames generated, judged and learnt from at once.
      sequences: Rows of the global batch: of so many the state keeps the last frames.
      backpropagate_frames: Frames after which the gradient through frames drawn before is cut; divides the chunk.
      begin: What stands for the frames before the first: "zeros", as at test time, or "real" frames, but where a
        sequence shows the beginning of a video. Upstream: renderer/ has both, but its option cannot be switched.
      remat: Whether the backward pass computes the generator's activations anew instead of keeping them.
      accumulation: Passes over equal parts of the sequences that make an update. With the supervision's "released"
        form, the metric's statistics and weights are those of a part, and running ones move pass by pass.
      dtype: Type of the computation, float32 or bfloat16; weights, frames and losses are float32 either way.
      conv_implementation: See `convolution.convolve`.
      start: Networks to start from, such as a renderer of many actors, in place of random ones. Discriminators may be
        absent; those start afresh.
      loss: Scalar to show while training.
      score: Held-out scalar that marks the best state.
    """

    settings: RendererSettings
    optimizer: optax.GradientTransformation
    learning_rate: optax.Schedule
    supervision: FrameSupervision = dataclasses.field(default_factory=FrameSupervision)
    adversaries: FrameAdversaries = dataclasses.field(default_factory=FrameAdversaries)
    pixel_weight: float = 0.0
    chunk: int = 4
    sequences: int = 1
    backpropagate_frames: int = 1
    begin: Literal["zeros", "real"] = "zeros"
    remat: bool = False
    accumulation: int = 1
    dtype: DTypeLike = jnp.float32
    conv_implementation: str = "auto"
    start: Variables | None = None
    loss: str = "renderer/loss"
    score: str = "eval/score"

    def __post_init__(self) -> None:
        """Checks the fields, and compares `start` with the networks, entry by entry."""
        check_accumulation(self.accumulation)
        if not 0 <= self.pixel_weight < float("inf"):
            raise InputError(f"pixel_weight={self.pixel_weight}: expected a number of at least 0")
        if self.supervision.empty and self.adversaries.empty and self.pixel_weight == 0:
            raise InputError("every term of the renderer's loss has weight 0 or lacks its network: nothing to learn")
        if self.begin not in ("zeros", "real"):
            raise InputError(f"begin={self.begin!r}: expected zeros or real")
        if self.sequences < 1:
            raise InputError(f"sequences={self.sequences}: expected at least 1")
        if self.chunk < self.settings.previous_frames:
            raise InputError(f"chunk={self.chunk}: expected at least {self.settings.previous_frames} frames")
        if self.backpropagate_frames < 1 or self.chunk % self.backpropagate_frames:
            raise InputError(f"backpropagate_frames={self.backpropagate_frames}: expected a divisor of {self.chunk}")
        self._check_start()

    def init(self, key: Key[Array, ""]) -> TrainState:
        """Returns the state before the first update."""
        weights_key, locations_key = jax.random.split(key)
        fresh = init_renderer(self.settings, weights_key)
        params = jax.tree.map(jnp.asarray, {**fresh, **(self.start or {})})
        return TrainState(
            step=jnp.zeros((), jnp.int32),
            params=params,
            batch_stats={"metric": self.supervision.statistics(), "previous": jnp.zeros(self._previous_shape)},
            opt_state=self.init_optimizers(params),
            key=locations_key,
        )

    def init_optimizers(self, params: Variables) -> dict[str, optax.OptState]:
        """Returns the optimisers before the first update: one of the generator, one of all discriminators."""
        groups = {"generator": ("generator",), "discriminators": self.settings.discriminators}
        return {group: self.optimizer.init({name: params[name] for name in names}) for group, names in groups.items()}

    def update(
        self, state: TrainState, batch: SequenceBatch, *, axis_name: str | None = None
    ) -> tuple[TrainState, Scalars]:
        """Returns the state after the update of one chunk of some sequences, and its scalars.

        Sequences that go on take the frames that the state keeps of the chunk before. The metric's locations follow
        from the state's key and the step, so a step repeats exactly wherever it runs.

        Args:
          state: State before the step.
          batch: One chunk with the frames before it; the global batch under `jit`, this device's rows under `pmap`.
          axis_name: Mapped axis under `pmap`; None under `jit`.
        """
        context = self.settings.context_frames - 1
        if (chunks := chunk_count(batch, chunk=self.chunk, context=context)) != 1:
            raise InputError(f"a batch of {chunks} chunks: an update takes one, of {context} + {self.chunk} frames")
        chunk = cut_chunk(batch, 0, chunk=self.chunk, context=context)
        begins = jnp.asarray(batch.begins)[:, None, None, None]
        moving = ChunkState(
            params=state.params,
            opt_state=state.opt_state,
            statistics=state.batch_stats["metric"],
            previous=jnp.where(begins, self._before(batch), self._kept(state, chunk.mask.shape[0], axis_name)),
        )
        key = jax.random.fold_in(state.key, state.step)
        rate = jnp.asarray(self.learning_rate(state.step))
        moved, scalars, _ = self.update_chunk(moving, chunk, key, rate, axis_name=axis_name)
        last = moved.previous
        if axis_name is not None:
            last = lax.all_gather(last, axis_name, tiled=True)
        new = TrainState(
            step=state.step + 1,
            params=moved.params,
            batch_stats={"metric": moved.statistics, "previous": last},
            opt_state=moved.opt_state,
            key=state.key,
        )
        return new, scalars

    def update_chunk(
        self,
        moving: ChunkState,
        chunk: FrameChunk,
        key: Key[Array, ""],
        rate: Float[Array, ""],
        *,
        locations: Locations | None = None,
        axis_name: str | None = None,
    ) -> tuple[ChunkState, Scalars, Float[Array, "b k h w 3"]]:
        """Returns what one chunk's update of all networks leaves, its scalars and the frames drawn.

        As published: every loss is taken before any update; then the generator moves, then the discriminators. Nothing
        is computed twice for it: the discriminators' pass over the generated frames is pulled back twice, for the
        generator to the frames, for themselves to their weights.

        Args:
          moving: Networks and the frames before the chunk.
          chunk: What is drawn, and the real frames.
          key: Draws the metric's locations.
          rate: Learning rate.
          locations: Replaces the drawn locations.
          axis_name: Mapped axis under `pmap`.
        """

        def one_pass(statistics: Variables, rows: tuple[FrameChunk, Array]) -> tuple[Variables, Any, Array]:
            return self._gradients(moving.params, statistics, *rows, key, locations, axis_name)

        statistics, (scalars, to_weights, gradients), frames = over_parts(
            one_pass, moving.statistics, (chunk, moving.previous), parts=self.accumulation
        )
        if axis_name is not None:
            scalars, to_weights, gradients = lax.pmean((scalars, to_weights, gradients), axis_name)
        params, opt_state = dict(moving.params), dict(moving.opt_state)
        # Losses were taken before either moved.
        self._descend(params, opt_state, "generator", {"generator": to_weights}, rate)
        if gradients:
            self._descend(params, opt_state, "discriminators", gradients, rate)
        previous = latest_frames(frames, self.settings.previous_frames)
        named = {f"renderer/{name}": value for name, value in scalars.items()}
        return ChunkState(params, opt_state, statistics, previous), named, frames

    def evaluate(self, state: TrainState, batch: SequenceBatch) -> Scalars:
        """Returns held-out scores of each sequence, drawn from nothing before it: means over its frames.

        Differences are of colours 0..1, over the whole frame with its black background: `eval/l1` (also `eval/score`),
        `eval/first_l1` of the first frame alone, `eval/mouth_l1` round the mouth; `eval/psnr` in decibels.
        """
        fake, real, centres = self._drawn(state.params, batch)
        scores = self._scores(fake, real, centres)
        means = {name: jnp.mean(values, axis=1) for name, values in scores.items()}
        return {"eval/score": means["eval/l1"], "eval/first_l1": scores["eval/l1"][:, 0], **means}

    def draw(
        self, params: Variables, batch: SequenceBatch
    ) -> tuple[Float[Array, "b t h w 3"], Float[Array, "b t h w 3"]]:
        """Returns the frames drawn of some sequences, from nothing before them, and the real ones; both -1..1."""
        fake, real, _ = self._drawn(params, batch)
        return fake, real

    def export(self, state: TrainState, directory: Path) -> None:
        """Writes the networks in the format of `asccl_jax.weights.load_renderer`."""
        save_renderer(directory, Renderer(jax.device_get(state.params), self.settings))

    @property
    def _generator(self) -> RendererGenerator:
        return RendererGenerator(self.settings, dtype=self.dtype, conv_implementation=self.conv_implementation)

    @property
    def _discriminator(self) -> MultiscaleDiscriminator:
        return MultiscaleDiscriminator(self.settings, dtype=self.dtype, conv_implementation=self.conv_implementation)

    @property
    def _previous_shape(self) -> tuple[int, int, int, int]:
        size = self.settings.image_size
        return self.sequences, size, size, IMAGE_CHANNELS * self.settings.previous_frames

    def _gradients(
        self,
        params: Variables,
        statistics: Variables,
        chunk: FrameChunk,
        previous: Array,
        key: Key[Array, ""],
        locations: Locations | None,
        axis_name: str | None,
    ) -> tuple[Variables, tuple[Scalars, Variables, Variables], Array]:
        """Returns the metric's statistics, then scalars and gradients of generator and discriminators, and frames."""

        def generate(weights: Variables) -> Array:
            return generate_chunk(
                self._generator,
                weights,
                chunk,
                previous,
                backpropagate_frames=self.backpropagate_frames,
                remat=self.remat,
            )

        frames, to_generator = jax.vjp(generate, params["generator"])
        fake, judged = in_one_row(frames), judged_frames(chunk)
        scene = Scene(*map(in_one_row, (chunk.scene, chunk.mask, chunk.face_box)))

        def supervise(fake: Array) -> Any:
            return self._supervise(fake, judged.real, scene, statistics, key, locations, axis_name)

        (loss, (scalars, statistics)), to_fake = jax.value_and_grad(supervise, has_aux=True)(fake)
        scalars = {"l1": jnp.mean(jnp.abs(fake - judged.real)), **scalars}
        gradients: Variables = {}
        if not self.adversaries.empty:
            opponents = {name: params[name] for name in self.settings.discriminators}
            opposed, terms, pulled, gradients = self.adversaries(
                self._discriminator, opponents, judged, fake, roi_size=self.settings.roi_size
            )
            loss, to_fake = loss + opposed, to_fake + pulled
            judging = [value for name, value in terms.items() if name.endswith(("real", "fake"))]
            scalars = {"discriminator": 0.5 * jnp.sum(jnp.stack(judging)), **scalars, **terms}
        (to_weights,) = to_generator(to_fake.reshape(frames.shape))
        return statistics, ({"loss": loss, **scalars}, to_weights, gradients), frames

    def _drawn(self, params: Variables, batch: SequenceBatch) -> tuple[Array, Array, Array]:
        """Returns frames drawn of whole sequences, the real ones, and where the mouths are, each "b t ..."."""
        context = self.settings.context_frames - 1
        count = chunk_count(batch, chunk=self.chunk, context=context)

        def run(previous: Array, number: Array) -> tuple[Array, tuple[Array, Array, Array]]:
            chunk = cut_chunk(batch, number, chunk=self.chunk, context=context)
            frames = generate_chunk(self._generator, params["generator"], chunk, previous)
            return latest_frames(frames, self.settings.previous_frames), (frames, chunk.real, chunk.mouth_centre)

        _, by_chunk = lax.scan(run, jnp.zeros_like(self._before(batch)), jnp.arange(count))

        def in_order(values: Array) -> Array:
            return values.swapaxes(0, 1).reshape(values.shape[1], -1, *values.shape[3:])

        fake, real, centres = map(in_order, by_chunk)
        return fake, real, centres

    def _kept(self, state: TrainState, rows: int, axis_name: str | None) -> Float[Array, "b h w p"]:
        """Returns the frames that the state keeps of so many sequences, this device's ones under `pmap`."""
        previous = state.batch_stats["previous"]
        devices = 1 if axis_name is None else lax.axis_size(axis_name)
        if devices * rows != previous.shape[0]:
            # One row would serve all of a batch, and a slice beyond the end would be moved back, without a word.
            raise InputError(
                f"a batch of {devices * rows} sequences: the state keeps the frames of {previous.shape[0]}"
            )
        if axis_name is None:
            return previous
        return lax.dynamic_slice_in_dim(previous, lax.axis_index(axis_name) * rows, rows)

    def _before(self, batch: SequenceBatch) -> Float[Array, "b h w p"]:
        """Returns what stands for the frames before the first that is generated."""
        count = self.settings.previous_frames
        real = cut_chunk(batch, 0, chunk=count, context=0).real
        before = latest_frames(real, count)
        if self.begin == "zeros":
            return jnp.zeros_like(before)
        fresh = jnp.asarray(batch.fresh_start)[:, None, None, None]
        return jnp.where(fresh, jnp.zeros_like(before), before)

    def _supervise(
        self,
        fake: Array,
        real: Array,
        scene: Scene,
        statistics: Variables,
        key: Key[Array, ""],
        locations: Locations | None,
        axis_name: str | None,
    ) -> tuple[Array, tuple[Scalars, Variables]]:
        total, (terms, statistics) = self.supervision(
            fake, real, statistics, key, scene=scene, locations=locations, axis_name=axis_name
        )
        if self.pixel_weight > 0:
            terms = {**terms, "pixel": jnp.mean(jnp.abs(fake - real))}
            total = total + self.pixel_weight * terms["pixel"]
        return total, (terms, statistics)

    def _descend(
        self,
        params: Variables,
        opt_state: dict[str, optax.OptState],
        optimizer: str,
        gradients: Variables,
        rate: Float[Array, ""],
    ) -> None:
        """Moves the networks of one optimiser, in place."""
        moving = {name: params[name] for name in gradients}
        updates, opt_state[optimizer] = self.optimizer.update(gradients, opt_state[optimizer], moving)
        rated = jax.tree.map(lambda update: update * rate.astype(update.dtype), updates)
        params.update(optax.apply_updates(moving, rated))

    def _scores(self, fake: Array, real: Array, mouth_centre: Array) -> Scalars:
        """Returns each frame's scores, "b t"."""
        rows, count = fake.shape[:2]
        difference = 0.5 * (in_one_row(fake) - in_one_row(real))
        squares = jnp.mean(jnp.square(difference), axis=(1, 2, 3))
        mouth = crop_regions(difference, in_one_row(mouth_centre), self.settings.roi_size)
        scores = {
            "eval/l1": jnp.mean(jnp.abs(difference), axis=(1, 2, 3)),
            # At most 80 dB: one value in 1500 off by one of 8 bits.
            "eval/psnr": -10 * jnp.log10(jnp.maximum(squares, 1e-8)),
            "eval/mouth_l1": jnp.mean(jnp.abs(mouth), axis=(1, 2, 3)),
        }
        return {name: values.reshape(rows, count) for name, values in scores.items()}

    def _check_start(self) -> None:
        if self.start is None:
            return
        fresh = jax.eval_shape(lambda: init_renderer(self.settings, jax.random.key(0)))
        expected = {name: fresh[name] for name in fresh if name == "generator" or name in self.start}
        differences = shape_differences(named_shapes(self.start), named_shapes(expected))
        if differences:
            raise InputError(f"the weights to start from are of other networks: {'; '.join(differences)}")
