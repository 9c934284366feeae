"""The renderer's networks at their published widths and size, replayed from a golden's seed: one pass forward."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from asccl_jax.convert.renderer_entries import params_from_state_dicts, renderer_settings
from asccl_jax.models.renderer import MultiscaleDiscriminator, Renderer
from tests.parity import recipe
from tests.parity.metric import Replayed
from tests.parity.renderer import Manifests, channels_first, channels_last, state_dict, widened
from tests.parity.switches import lightly_compiled

__all__ = ["INPUTS", "MANIFESTS", "NAMES", "replay"]

NAMES = r"renderer_default.*"
MANIFESTS = ("renderer_G_default", "renderer_D_default")
INPUTS = r"cfg"


def replay(arrays: Mapping[str, np.ndarray], manifests: Manifests, *, exact: bool) -> Replayed:
    """Everything the golden holds, computed by `asccl_jax`.

    Args:
      arrays: Arrays of the file; its configuration is read.
      manifests: Entries of the networks' state dicts.
      exact: Compute in float64.
    """
    seed, size = (int(value) for value in arrays["cfg"])
    dtype = np.float64 if exact else np.float32
    state_dicts = {
        name: state_dict(manifests, manifest, name, seed)
        for name, manifest in zip(("generator", "discriminator"), MANIFESTS, strict=True)
    }
    # Accelerators would multiply in TensorFloat-32 or bfloat16 otherwise.
    with jax.default_matmul_precision("highest"), jax.enable_x64(exact):
        settings = renderer_settings(state_dicts, image_size=size)
        renderer = Renderer(widened(params_from_state_dicts(state_dicts, settings), dtype), settings, dtype)

        def drawn(name: str, channels: int, *distribution: Any) -> jax.Array:
            shape = (1, channels, size, size)
            return channels_last(recipe.make_input(f"render.default.{name}", shape, seed, *distribution), dtype)

        blocks, mask = drawn("A", 27, "uniform", 0, 1), drawn("mask", 1, "disc")
        encoded = lightly_compiled(renderer.encode)(blocks)
        image = lightly_compiled(renderer.decode)(encoded, drawn("prev", 6, "uniform", -1, 1), mask)
        judged = jnp.concatenate([blocks[..., 18:], image], axis=-1)
        network = MultiscaleDiscriminator(settings, dtype)
        maps = lightly_compiled(network.apply)({"params": renderer.params["discriminator"]}, judged)
    tensors = {"down_seg": channels_first(encoded), "out": channels_first(image)}
    results = Replayed(tensors, exact=lambda: replay(arrays, manifests, exact=True))
    results.tensors["out_strided2"] = results.tensors["out"][0, :, ::2, ::2]
    for scale, layers in enumerate(maps):
        for layer, found in enumerate(layers):
            results.tensors[f"D_scale{scale}_layer{layer}"] = channels_first(found)
    return results
