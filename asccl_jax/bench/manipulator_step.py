"""The JAX side of `bench manipulator`: a worker that trains, and manipulates clips both ways."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from asccl_jax import process
from asccl_jax.bench.harness import StepOptions, serve
from asccl_jax.models.manipulator import Manipulator
from asccl_jax.settings import ManipulatorSettings
from asccl_jax.tasks.manipulator_task import ManipulatorTask
from asccl_jax.train.optimizer import adam, rate_schedule
from asccl_jax.types import WindowBatch

__all__ = ["build"]

_LEARNING_RATE = 1e-4


def build(options: StepOptions) -> tuple[Callable[[int, str], None], dict[str, Any], Callable[[], dict[str, Any]]]:
    """Returns the steps, description and closing measurements that `worker.serve` asks for."""
    fields = dict(options.settings)
    frames = fields.pop("frames")
    settings = ManipulatorSettings.from_dict(fields)
    task = ManipulatorTask(settings, adam(1.0, b1=0.0, b2=0.99), rate_schedule(_LEARNING_RATE))
    batch = _batch(settings, options)
    state = jax.jit(task.init)(jax.random.key(options.seed))
    start = time.perf_counter()
    compiled = jax.jit(task.update, donate_argnums=0).lower(state, batch).compile()
    compile_s = time.perf_counter() - start
    manipulator = Manipulator(jax.device_get(state.params), settings)
    manipulator = jax.device_put(manipulator)
    clip = jnp.asarray(np.random.default_rng(options.seed).normal(size=(frames, settings.coefficients)), jnp.float32)
    style = jnp.zeros((1, settings.style_size), jnp.float32)

    @jax.jit
    def together(networks: Manipulator) -> jax.Array:
        rows = jnp.arange(frames - settings.window + 1)[:, None] + jnp.arange(settings.window)[None]
        return networks.finish(networks.prepare(clip, jnp.broadcast_to(style, (frames, settings.style_size)))[rows])

    @jax.jit
    def one(networks: Manipulator, first: jax.Array) -> jax.Array:
        return networks.generate(jax.lax.dynamic_slice_in_dim(clip, first, settings.window)[None], style)

    def steps(count: int, part: str) -> None:
        nonlocal state
        for _ in range(count):
            if part == "train":
                state, _ = compiled(state, batch)
                jax.block_until_ready(state)
            elif part == "clip":
                jax.block_until_ready(together(manipulator))
            else:
                for first in range(frames - settings.window + 1):
                    np.asarray(one(manipulator, jnp.asarray(first)))

    memory = compiled.memory_analysis()
    device = jax.devices()[0]
    description = {
        "framework": "jax",
        "versions": {"jax": jax.__version__, "jaxlib": jax.lib.__version__},
        "platform": device.platform,
        "device": device.device_kind,
        "compile_s": compile_s,
        "xla_temporary_bytes": getattr(memory, "temp_size_in_bytes", None),
        "xla_argument_bytes": getattr(memory, "argument_size_in_bytes", None),
    }
    return steps, description, _peak_device_memory


def _batch(settings: ManipulatorSettings, options: StepOptions) -> WindowBatch:
    random = np.random.default_rng(options.seed)
    shape = (2, options.batch_size, settings.window, settings.coefficients)
    source, reference = jnp.asarray(random.normal(size=shape), jnp.float32)
    emotions = jnp.asarray(random.integers(0, settings.emotions, (2, options.batch_size)), jnp.int32)
    rows = jnp.arange(options.batch_size, dtype=jnp.int32)
    return WindowBatch(source, emotions[0], reference, emotions[1], rows, rows)


def _peak_device_memory() -> dict[str, Any]:
    statistics = jax.devices()[0].memory_stats() or {}
    return {"peak_device_bytes": statistics.get("peak_bytes_in_use")}


if __name__ == "__main__":
    process.keep_freed_memory()  # as training does
    sys.exit(serve(build))
