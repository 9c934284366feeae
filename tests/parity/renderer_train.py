"""The renderer's training programme replayed from a golden's seed: two clips, two chunks each, an update a chunk."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.typing import DTypeLike

from asccl_jax.convert.metric_entries import flax_from_state_dict
from asccl_jax.convert.renderer_entries import params_from_state_dicts, renderer_settings, statistics_from_state_dicts
from asccl_jax.losses.contrastive import correlation_loss
from asccl_jax.losses.generator import crop_regions
from asccl_jax.models.correlation import CorrelationMetric
from asccl_jax.models.renderer import RendererGenerator, conditioning_windows, masked
from asccl_jax.models.vgg import Vgg
from asccl_jax.tasks.frame_chunks import FrameChunk, in_one_row, latest_frames
from asccl_jax.tasks.frame_losses import FrameSupervision, VggDistance
from asccl_jax.tasks.renderer_task import ChunkState, RendererTask
from asccl_jax.train.optimizer import adam, rate_schedule
from asccl_jax.types import Locations, Variables
from asccl_jax.weights import FrozenMetric
from tests.parity import metric as metric_goldens
from tests.parity import recipe
from tests.parity.metric import Replayed
from tests.parity.renderer import Manifests, as_published, channels_first, channels_last, state_dict, vgg_of, widened
from tests.parity.switches import NEAR_ZERO, Signs, aligned, lightly_compiled, recorded

__all__ = ["COLUMNS", "INPUTS", "LEARNING_RATE", "MANIFESTS", "NAMES", "Training", "replay"]

NAMES = r"renderer_train.*"
MANIFESTS = ("renderer_G_small", "renderer_D_small", "renderer_Dm_small", "vgg19", metric_goldens.MANIFEST)
INPUTS = r"cfg|step\d+/(full|mouth)_(centres|perm)\d"
LEARNING_RATE = 2e-4

_FRAMES, _CHUNK, _CONTEXT = 10, 4, 2
_NORMALISED_BIASES = r"renderer\.(G\.(?!model_final_img\.).*|Dm?\.scale\d_layer[123]\..*)\.bias"
"""Published keys of biases that an instance norm follows."""

COLUMNS = {
    "G_VGG": ("perceptual", 10),
    "G_GAN": ("adversarial", 1),
    "G_GAN_Feat": ("feature_matching", 10),
    "D_real": ("real", 1),
    "D_fake": ("fake", 1),
    "tccl_loss_back": ("metric", 1),
    "Gm_GAN": ("mouth_adversarial", 1),
    "Gm_GAN_Feat": ("mouth_feature_matching", 10),
    "Dm_real": ("mouth_real", 1),
    "Dm_fake": ("mouth_fake", 1),
}


def replay(arrays: Mapping[str, np.ndarray], manifests: Manifests, *, exact: bool) -> Replayed:
    """Everything a golden of the renderer's training holds, computed by `asccl_jax`.

    The released programme also calls the metric on the mouth's regions and throws the result away, but for the metric's
    running statistics, which that moves. `RendererTask` does not; here it is done to compare them.

    Gradients in float32 are those of the first step once more, with every switch that is near zero on the side on which
    an exact run has it; frames, losses and weights are those of updates in which nothing was moved.

    Args:
      arrays: Arrays of the file; its configuration, locations, permutations and keys are read.
      manifests: Entries of the networks' state dicts.
      exact: Compute in float64.
    """
    # Accelerators would multiply in TensorFloat-32 or bfloat16 otherwise.
    with jax.default_matmul_precision("highest"), jax.enable_x64(exact):
        training = Training(arrays, manifests, np.float64 if exact else np.float32)
        results = training.run(training.params, None if exact else _exact_switches(arrays, manifests))
        results.exact = lambda: replay(arrays, manifests, exact=True)
        if exact:
            # The float64 run of the reference drew permutations of its own for the similarity of what does not
            # correspond; the file holds those of the float32 run.
            results.unknown["tccl_loss_pos_neg"] = np.tile([False, False, True], (len(arrays["losses"]), 1))
            results.unknown |= training.without_gradient()
            results.again = training.run(_nudged(training.params, training.size))
    return results


class Training:
    """Networks and inputs of one golden."""

    def __init__(self, arrays: Mapping[str, np.ndarray], manifests: Manifests, dtype: DTypeLike) -> None:
        self.arrays, self.dtype = arrays, dtype
        self.seed, self.size, roi_size = (int(value) for value in arrays["cfg"][:3])
        networks = {"generator": "G", "discriminator": "D", "mouth_discriminator": "Dm"}
        published = {
            name: state_dict(manifests, f"renderer_{short}_small", name, self.seed) for name, short in networks.items()
        }
        self.settings = renderer_settings(published, image_size=self.size, roi_size=roi_size)
        self.params = widened(params_from_state_dicts(published, self.settings), dtype)
        self.norms = widened(statistics_from_state_dicts(published, self.settings), dtype)
        vgg = vgg_of(manifests, self.seed, dtype)
        self.unmoved = recipe.make_weights(manifests[metric_goldens.MANIFEST], self.seed, prefix="metric.")
        settings = metric_goldens.settings_of_state_dict(self.unmoved)
        metric = FrozenMetric(widened(flax_from_state_dict(self.unmoved, settings), dtype), settings, dtype)
        # Handed to what is compiled as arguments: as constants, XLA would fold millions of weights while compiling.
        self.frozen = (metric, vgg)
        self.compiled = [lightly_compiled(step) for step in (self._update, self._call_metric, self._move_norms)]

    def task(self, metric: FrozenMetric, vgg: Vgg) -> RendererTask:
        return RendererTask(
            self.settings,
            _recording(adam(1.0, b1=0.5)),
            rate_schedule(LEARNING_RATE),
            FrameSupervision(metric, perceptual=VggDistance(vgg), compat="released"),
            begin="real",
            dtype=self.dtype,
        )

    def start(self, params: Variables) -> ChunkState:
        """What the first update changes, of some weights."""
        optimizers = self.task(*self.frozen).init_optimizers(params)
        return ChunkState(params, optimizers, self.frozen[0].variables["batch_stats"], self.chunk(0, 0)[1])

    def switches(self) -> list[Signs]:
        """On which side every switch of the first step is."""

        def sides(*arguments: Any) -> list[Signs]:
            signs: list[Signs] = []
            with recorded(signs):
                self._update(*arguments)
            return signs

        chunk, (centres, _) = self.chunk(0, 0)[0], self.locations("step0/full")
        arguments = (self.frozen, self.start(self.params), chunk, centres, None, 0.0)
        signs: list[Signs] = jax.device_get(lightly_compiled(sides)(*arguments))
        return signs

    def run(self, params: Variables, switches: Sequence[Signs] | None = None) -> Replayed:
        """All steps, from some weights; given an exact run's switches, the first step's gradients are taken by them."""
        results = Replayed()
        steps = len(self.arrays["losses"])
        update, regions, norms = self.compiled
        metric, _ = self.frozen
        moving = self.start(params)
        generator_norms = self.norms["generator"]
        losses, similarities = [], []
        for step in range(steps):
            clip, number = divmod(step, 2)
            chunk, first = self.chunk(clip, number)
            if number == 0:
                moving = moving.replace(previous=first)
            generator_norms = norms(moving.params["generator"], generator_norms, chunk, moving.previous)
            full = self.locations(f"step{step}/full")
            arguments = (self.frozen, moving, chunk, full[0], switches)
            moved, scalars, fake = update(*arguments, 0.0)
            if step == 0:
                self._record_gradients(results, moved if switches is None else update(*arguments, NEAR_ZERO)[0])
            losses.append([weight * np.asarray(scalars[f"renderer/{name}"]) for name, weight in COLUMNS.values()])
            images = (in_one_row(fake), in_one_row(chunk.real))
            found, _ = regions(metric, moving.statistics, *images, *full)
            similarities.append(np.stack([np.asarray(value) for value in found]))
            # As the released programme: the mouth's regions, after the whole frames, for the statistics alone.
            centres = in_one_row(chunk.mouth_centre)
            cut = [crop_regions(image, centres, self.settings.roi_size) for image in images]
            _, statistics = regions(metric, moved.statistics, *cut, *self.locations(f"step{step}/mouth"))
            moving = moved.replace(statistics=statistics)
            results.tensors[f"step{step}/fake_B"] = channels_first(fake[0])
        results.tensors |= {
            "losses": np.array(losses),
            "tccl_loss_pos_neg": np.array(similarities),
            "columns": np.array(list(COLUMNS)),
        }
        self._record_final(results, moving, generator_norms)
        return results

    def _update(
        self,
        frozen: Any,
        moving: ChunkState,
        chunk: FrameChunk,
        locations: Locations,
        switches: Sequence[Signs] | None,
        near: float | jax.Array,
    ) -> Any:
        """One update; switches that are `near` zero are on the given side, where one is given."""
        rate = jnp.asarray(LEARNING_RATE, self.dtype)
        with contextlib.nullcontext() if switches is None else aligned(switches, near=near):
            return self.task(*frozen).update_chunk(moving, chunk, jax.random.key(0), rate, locations=locations)

    def _call_metric(
        self,
        metric: FrozenMetric,
        statistics: Variables,
        fake: jax.Array,
        real: jax.Array,
        centres: Locations,
        permutations: Any,
    ) -> Any:
        """The metric's loss and similarities, written as the released programme has them, and its statistics after."""
        module, params = CorrelationMetric(metric.settings, dtype=self.dtype), metric.variables["params"]
        maps = []
        for image in (fake, real):
            variables = {"params": params, "batch_stats": statistics}
            features, moved = module.apply(variables, image, train=True, method="features", mutable=["batch_stats"])
            maps.append(features)
            statistics = moved["batch_stats"]
        loss, parts = correlation_loss(*maps, metric.embed, centres, metric.settings, permutations=permutations)
        similarities = (jnp.mean(parts.corresponding_similarity), jnp.mean(parts.other_similarity))
        return (loss, *similarities), statistics

    def _move_norms(self, params: Variables, statistics: Variables, chunk: FrameChunk, previous: jax.Array) -> Any:
        """The generator's running statistics, moved by one frame after the other."""
        network = RendererGenerator(self.settings, self.dtype)
        windows = conditioning_windows(chunk.blocks, self.settings.context_frames)
        for number in range(_CHUNK):
            variables = {"params": params, "instance_stats": statistics}
            inputs = (windows[:, number], previous, chunk.mask[:, number])
            frame, moved = network.apply(variables, *inputs, mutable=["instance_stats"])
            statistics = moved["instance_stats"]
            previous = jnp.concatenate([previous[..., 3:], frame], axis=-1)
        return statistics

    def chunk(self, clip: int, number: int) -> tuple[FrameChunk, jax.Array]:
        """One chunk of a clip, and its two real frames before."""

        def drawn(name: str, channels: int, distribution: str, low: float = 0.0) -> jax.Array:
            shape = (1, _FRAMES, channels, self.size, self.size)
            array = recipe.make_input(f"render.item{clip}.{name}", shape, self.seed, distribution, low, 1)
            return channels_last(array, self.dtype)

        blocks = jnp.concatenate([drawn(name, 3, "uniform") for name in ("nmfc", "eye", "shape")], axis=-1)
        mask = drawn("mask", 1, "disc")
        real = masked(drawn("rgb", 3, "uniform", -1.0), mask)
        centres = recipe.make_input(f"render.item{clip}.mouth_centers", (1, _FRAMES, 2), self.seed, "int", 0, self.size)
        start = number * _CHUNK
        own = slice(start + _CONTEXT, start + _CONTEXT + _CHUNK)
        chunk = FrameChunk(
            blocks=blocks[:, start : own.stop],
            mask=mask[:, own],
            real=real[:, own],
            mouth_centre=jnp.asarray(centres[:, own], jnp.int32),
            face_box=jnp.zeros((1, _CHUNK, 4), self.dtype),
            scene=real[:, own],
        )
        return chunk, latest_frames(real[:, : own.start], _CONTEXT)

    def locations(self, name: str) -> tuple[Locations, tuple[jax.Array, ...]]:
        """Centres, and the permutations of the similarity's report; those of the mouth are not stored."""
        centres = tuple(jnp.asarray(self.arrays[f"{name}_centres{stage}"], jnp.int32) for stage in range(1, 5))
        stored = f"{name}_perm1" in self.arrays
        permutations = tuple(
            jnp.asarray(self.arrays[f"{name}_perm{stage}"], jnp.int32) if stored else jnp.arange(8 * len(places))
            for stage, places in enumerate(centres, start=1)
        )
        return centres, permutations

    def _record_gradients(self, results: Replayed, moved: ChunkState) -> None:
        gradients = {name: grads for state in moved.opt_state.values() for name, grads in state[1].items()}
        for name in ("step0/grad_G", "step0/grad_D"):
            results.collections[name] = self._published(gradients, name)

    def _record_final(self, results: Replayed, moving: ChunkState, generator_norms: Variables) -> None:
        for name in ("final/G", "final/D"):
            results.collections[name] = self._published(moving.params, name)
        keys = self.arrays["final/G_instance_norm_stats/keys"].tolist()
        norms = {**self.norms, "generator": generator_norms}
        results.collections["final/G_instance_norm_stats"] = as_published(
            moving.params, self.settings, keys, statistics=norms
        )
        results.collections["final/metric_bn"] = metric_goldens.published_statistics(
            {"params": self.frozen[0].variables["params"], "batch_stats": moving.statistics}, self.unmoved
        )

    def without_gradient(self) -> dict[str, np.ndarray]:
        """Which sampled entries of final parameters are biases that an instance norm takes out again.

        Their exact gradient is zero. What moves them is the rounding of a sum that should vanish, divided by Adam's
        epsilon; the golden's README leaves them out too. Their norms (`l2`) are compared all the same.
        """
        marked = {}
        for name in ("final/G", "final/D"):
            normalised = [bool(re.fullmatch(_NORMALISED_BIASES, key)) for key in self.arrays[f"{name}/keys"].tolist()]
            samples = self.arrays[f"{name}/samples"]
            marked[f"{name}/samples"] = np.repeat(np.array(normalised)[:, None], samples.shape[1], axis=1)
        return marked

    def _published(self, params: Variables, name: str) -> dict[str, np.ndarray]:
        return as_published(params, self.settings, self.arrays[f"{name}/keys"].tolist(), statistics=self.norms)


def _exact_switches(arrays: Mapping[str, np.ndarray], manifests: Manifests) -> list[Signs]:
    with jax.enable_x64(True):
        return Training(arrays, manifests, np.float64).switches()


def _nudged(params: Variables, side: int) -> Variables:
    """Weights off by as much as the reference's float64 run rounds in one layer.

    PyTorch's instance norm on CPU adds the n pixels of a map one after another: an error of about sqrt(n) roundings,
    which is a map's side of them, and ten times that of sums in pairs. It is much the same in every run of PyTorch:
    they agree better with each other than with exact arithmetic. Adam makes much of it where a gradient is below its
    epsilon: one that is off by d moves its weight by d * rate / epsilon. With seed 3, one weight whose gradient is
    2.5e-10 is off by 1e-9 after one update, and all that follows by more. PyTorch with the norm's sums in pairs is as
    far from the golden as this code, and agrees with this code.
    """
    random = np.random.default_rng(0)
    size = side * np.finfo(np.float64).epsneg

    def nudge(leaf: jax.Array) -> jax.Array:
        return leaf * (1 + size * random.uniform(-1, 1, leaf.shape))

    return jax.tree.map(nudge, params)


def _recording(inner: optax.GradientTransformation) -> optax.GradientTransformation:
    """An optimiser whose state also holds the last gradients."""

    def update(grads: Any, state: Any, params: Any = None) -> Any:
        updates, moved = inner.update(grads, state[0], params)
        return updates, (moved, grads)

    return optax.GradientTransformation(lambda params: (inner.init(params), params), update)
