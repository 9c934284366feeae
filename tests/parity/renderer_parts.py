"""The renderer's networks, losses, regions and recurrence replayed from a golden's seed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike

from asccl_jax.convert.renderer_entries import params_from_state_dicts, renderer_settings, statistics_from_state_dicts
from asccl_jax.losses.generator import (
    VGG_WEIGHTS,
    crop_regions,
    feature_matching,
    judged_fake,
    judged_real,
    passed_as_real,
    perceptual_distance,
)
from asccl_jax.models.renderer import MultiscaleDiscriminator, Renderer, RendererGenerator, conditioning_windows
from asccl_jax.models.vgg import Vgg
from tests.parity import recipe
from tests.parity.metric import Replayed
from tests.parity.renderer import Manifests, as_published, channels_first, channels_last, state_dict, vgg_of, widened
from tests.parity.switches import aligned_gradient, lightly_compiled

__all__ = ["INPUTS", "MANIFESTS", "NAMES", "replay"]

NAMES = r"renderer_parts.*"
MANIFESTS = ("renderer_G_small", "renderer_D_small", "renderer_Dm_small", "vgg19")
INPUTS = r"cfg|roi/centres|zero_start/upstream_out"
"""What is not compared. The reference's first frame from zeros is rounding noise: no two computations agree there."""

_FRAMES = 10
_GENERATED = 4
_FEATURE_WEIGHT = 10.0
_ROUNDING = 1.5e-3
"""Bound of the generated frames (ten times the README's spread), of the range 2."""


def replay(arrays: Mapping[str, np.ndarray], manifests: Manifests, *, exact: bool) -> Replayed:
    """Everything a golden of the renderer's parts holds, computed by `asccl_jax`.

    Gradients in float32 are taken with every switch that is near zero on the side on which an exact run has it.

    Args:
      arrays: Arrays of the file; its configuration, points and keys are read.
      manifests: Entries of the networks' state dicts.
      exact: Compute in float64.
    """
    # Accelerators would multiply in TensorFloat-32 or bfloat16 otherwise.
    with jax.default_matmul_precision("highest"), jax.enable_x64(exact):
        golden = _Golden(arrays, manifests, np.float64 if exact else np.float32)
        results = Replayed(exact=lambda: replay(arrays, manifests, exact=True))
        _replay_generator(results, golden)
        _replay_discriminator(results, golden)
        _replay_vgg(results, golden)
        _replay_regions(results, golden)
        _replay_recurrence(results, golden)
    return results


class _Golden:
    """Weights and inputs of one golden."""

    def __init__(self, arrays: Mapping[str, np.ndarray], manifests: Manifests, dtype: DTypeLike) -> None:
        self.arrays, self.dtype = arrays, dtype
        self.seed, self.size, self.roi = (int(value) for value in arrays["cfg"][:3])
        networks = {"generator": "renderer_G_small", "discriminator": "renderer_D_small"}
        networks["mouth_discriminator"] = "renderer_Dm_small"
        state_dicts = {name: state_dict(manifests, manifest, name, self.seed) for name, manifest in networks.items()}
        self.settings = renderer_settings(state_dicts, image_size=self.size, roi_size=self.roi)
        self.params = widened(params_from_state_dicts(state_dicts, self.settings), dtype)
        self.statistics = widened(statistics_from_state_dicts(state_dicts, self.settings), dtype)
        self.vgg = vgg_of(manifests, self.seed, dtype)
        self.renderer = Renderer(self.params, self.settings, dtype)

    def drawn(self, name: str, *shape: int, low: float = -1.0) -> jax.Array:
        """Uniform images, channels last."""
        full = (*shape, self.size, self.size)
        return channels_last(recipe.make_input(f"render.{name}", full, self.seed, "uniform", low, 1), self.dtype)

    def mask(self, *shape: int) -> jax.Array:
        full = (*shape, 1, self.size, self.size)
        return channels_last(recipe.make_input("render.parts.mask", full, self.seed, "disc"), self.dtype)


def _replay_generator(results: Replayed, golden: _Golden) -> None:
    blocks, mask = golden.drawn("parts.A", 2, 27, low=0.0), golden.mask(2)
    previous = golden.drawn("parts.prev", 2, 6)
    noise = recipe.make_input("render.parts.cotangent", (2, 3, golden.size, golden.size), golden.seed)
    cotangent = channels_last(noise, golden.dtype)
    network = RendererGenerator(golden.settings, golden.dtype)

    def loss(params: Any, previous: jax.Array, blocks: jax.Array, mask: jax.Array, cotangent: jax.Array) -> Any:
        image = RendererGenerator(golden.settings, blocks.dtype).apply({"params": params}, blocks, previous, mask)
        return jnp.mean(image * cotangent), image

    def with_statistics(params: Any, statistics: Any, blocks: jax.Array, previous: jax.Array) -> Any:
        variables = {"params": params, "instance_stats": statistics}
        used = network.apply(variables, blocks, previous, mask)
        _, moved = network.apply(variables, blocks, previous, mask, mutable=["instance_stats"])
        return used, moved["instance_stats"]

    params, statistics = golden.params["generator"], golden.statistics["generator"]
    given = (params, previous, blocks, mask, cotangent)
    (_, image), (by_params, by_previous) = aligned_gradient(loss, *given, argnums=(0, 1))
    evaluated, moved = lightly_compiled(with_statistics)(params, statistics, blocks, previous)
    # From zeros the second item of nothing else is asked: the first one alone.
    fresh = lightly_compiled(golden.renderer.decode)(
        golden.renderer.encode(blocks[:1]), jnp.zeros_like(previous[:1]), mask[:1]
    )
    results.tensors |= {
        "G/train_out": channels_first(image),
        "G/eval_out": channels_first(evaluated),
        "G/grad_prev": channels_first(by_previous),
        "zero_start/exact_limit_out": channels_first(fresh[0]),
    }
    for name, params, kept in (
        ("G/grad", {**golden.params, "generator": by_params}, golden.statistics),
        ("G/instance_norm_stats_after_one", golden.params, {**golden.statistics, "generator": moved}),
    ):
        keys = golden.arrays[f"{name}/keys"].tolist()
        results.collections[name] = as_published(params, golden.settings, keys, statistics=kept)


def _replay_discriminator(results: Replayed, golden: _Golden) -> None:
    block = golden.drawn("parts.A", 2, 27, low=0.0)[..., 18:]
    real, fake = golden.drawn("parts.B", 2, 3), golden.drawn("parts.F", 2, 3)

    def judge(params: Any, image: jax.Array, block: jax.Array, **collections: Any) -> Any:
        network = MultiscaleDiscriminator(golden.settings, image.dtype)
        return network.apply({"params": params, **collections}, jnp.concatenate([block, image], axis=-1))

    def losses(params: Any, fake: jax.Array, real: jax.Array, block: jax.Array) -> dict[str, jax.Array]:
        of_real, of_fake = judge(params, real, block), judge(params, fake, block)
        return {
            "D_real": judged_real(of_real),
            "D_fake": judged_fake(of_fake),
            "G_GAN": passed_as_real(of_fake),
            "G_GAN_Feat": _FEATURE_WEIGHT * feature_matching(of_fake, of_real),
            "hinge_D_real": judged_real(of_real, mode="hinge"),
            "hinge_D_fake": judged_fake(of_fake, mode="hinge"),
            "hinge_G": passed_as_real(of_fake, mode="hinge"),
        }

    # All images are arguments: XLA would take minutes to compute what follows from constants while it compiles.
    def both_maps(params: Any, statistics: Any, *given: jax.Array) -> Any:
        return {"train": judge(params, *given), "eval": judge(params, *given, instance_stats=statistics)}

    # The two losses have different arguments: of their sum each has the gradient of its own.
    def loss(fake: jax.Array, params: Any, fixed_fake: jax.Array, fixed_params: Any, *given: jax.Array) -> Any:
        parts = losses(fixed_params, fake, *given)
        opposed = losses(params, fixed_fake, *given)
        return parts["G_GAN"] + parts["G_GAN_Feat"] + 0.5 * (opposed["D_real"] + opposed["D_fake"]), parts

    params, statistics = golden.params["discriminator"], golden.statistics["discriminator"]
    maps = lightly_compiled(both_maps)(params, statistics, real, block)
    arguments = (fake, params, fake, params, real, block)
    (_, parts), (by_fake, by_params) = aligned_gradient(loss, *arguments, argnums=(0, 1))
    for mode, scales in maps.items():
        for scale, layers in enumerate(scales):
            for layer, found in enumerate(layers):
                results.tensors[f"D/{mode}_scale{scale}_layer{layer}"] = channels_first(found)
    results.tensors |= {f"loss/{name}": np.asarray(value) for name, value in parts.items()}
    results.tensors["loss/grad_fake_of_GAN_plus_Feat"] = channels_first(by_fake)
    keys = golden.arrays["loss/grad_D_of_half_sum/keys"].tolist()
    gradient = as_published({**golden.params, "discriminator": by_params}, golden.settings, keys)
    results.collections["loss/grad_D_of_half_sum"] = gradient


def _replay_vgg(results: Replayed, golden: _Golden) -> None:
    real, fake = golden.drawn("parts.B", 2, 3), golden.drawn("parts.F", 2, 3)

    def loss(fake: jax.Array, real: jax.Array, params: Any) -> Any:
        vgg = Vgg(params, golden.vgg.widths, fake.dtype)
        taps = vgg.features(real)
        return perceptual_distance(vgg.features(fake), taps, VGG_WEIGHTS), taps

    (value, taps), gradient = aligned_gradient(loss, fake, real, golden.vgg.params)
    results.tensors |= {"vgg/loss": np.asarray(value), "vgg/grad_fake": channels_first(gradient)}
    results.tensors |= {f"vgg/relu{number}": channels_first(tap) for number, tap in enumerate(taps, 1)}


def _replay_regions(results: Replayed, golden: _Golden) -> None:
    images, centres = golden.drawn("parts.roi", 6, 3), jnp.asarray(golden.arrays["roi/centres"])
    crops = channels_first(crop_regions(images, centres, golden.roi))
    results.tensors |= {
        "roi/crop": crops,
        "roi/corner_values": np.stack([crops[:, :, 0, 0], crops[:, :, -1, -1]]),
        "roi/clamped": np.clip(golden.arrays["roi/centres"], golden.roi // 2, golden.size - golden.roi // 2).astype(
            np.int64
        ),
    }


def _replay_recurrence(results: Replayed, golden: _Golden) -> None:
    clip = [golden.drawn(f"item0.{name}", 1, _FRAMES, 3, low=0.0) for name in ("nmfc", "eye", "shape")]
    mask, image = golden.mask(1, _FRAMES), golden.drawn("item0.rgb", 1, _FRAMES, 3)
    real = image * mask - (1 - mask)
    windows = conditioning_windows(jnp.concatenate(clip, axis=-1))[0, :_GENERATED]
    encoded = lightly_compiled(golden.renderer.encode)(windows)
    decode, previous, frames = lightly_compiled(golden.renderer.decode), [real[0, 0], real[0, 1]], []
    for number in range(_GENERATED):
        before = jnp.concatenate(previous[-2:], axis=-1)[None]
        previous.append(decode(encoded[number][None], before, mask[0, number + 2][None])[0])
        frames.append(channels_first(previous[-1]))
    results.tensors |= {"inference/frames": np.stack(frames), "inference/frame0": frames[0]}
    for name in golden.arrays:
        if name.startswith("util/tensor2im_frame"):
            number = int(name.removeprefix("util/tensor2im_frame"))
            results.tensors[name] = _as_bytes(frames[number].transpose(1, 2, 0), golden.arrays[name])


def _as_bytes(image: np.ndarray, expected: np.ndarray) -> np.ndarray:
    """An image in 0..255, cut to integers; where it lies within rounding of two of them, the expected one of these."""
    value, slack = (image + 1) / 2 * 255, _ROUNDING / 2 * 255
    either = (np.floor(value - slack) <= expected) & (expected <= np.floor(value + slack))
    return np.where(either, expected, np.clip(value, 0, 255).astype(np.uint8))
