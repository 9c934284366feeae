"""The JAX side of `bench metric`: a worker that does training steps of `MetricTask`."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from asccl_jax import process
from asccl_jax.bench.harness import StepOptions, serve
from asccl_jax.process import CPU_CONVOLUTION_FLAG
from asccl_jax.settings import MetricSettings
from asccl_jax.tasks.metric_task import MetricTask
from asccl_jax.types import PairBatch

__all__ = ["build"]

_MATMUL_SIDE = {"cpu": 2048, "gpu": 8192, "tpu": 8192}
_LEARNING_RATE = 1e-3


def build(options: StepOptions) -> tuple[Callable[[int], None], dict[str, Any], Callable[[], dict[str, Any]]]:
    """Returns the steps, description and closing measurements that `worker.serve` asks for."""
    settings = MetricSettings.from_dict(options.settings)
    dtype = jnp.dtype(options.dtype)
    task = MetricTask(settings, optax.adam(_LEARNING_RATE), dtype=dtype)
    weights_key, query_key, key_key = jax.random.split(jax.random.key(options.seed), 3)
    shape = (options.batch_size, options.image_size, options.image_size, 3)
    batch = PairBatch(
        query_image=jax.random.randint(query_key, shape, 0, 256, jnp.uint8),
        key_image=jax.random.randint(key_key, shape, 0, 256, jnp.uint8),
        index=jnp.arange(options.batch_size, dtype=jnp.int32),
    )
    state = jax.jit(task.init)(weights_key)
    start = time.perf_counter()
    compiled = jax.jit(task.update, donate_argnums=0).lower(state, batch).compile()
    compile_s = time.perf_counter() - start

    def steps(count: int) -> None:
        nonlocal state
        for _ in range(count):
            state, _ = compiled(state, batch)
        jax.block_until_ready(state)

    return steps, _describe(compiled, compile_s, dtype), _peak_device_memory


def _describe(compiled: jax.stages.Compiled, compile_s: float, dtype: jnp.dtype) -> dict[str, Any]:
    device = jax.devices()[0]
    memory = compiled.memory_analysis()
    cost = compiled.cost_analysis() or {}
    matmul_wall_s, matmul_cpu_s, flops = _fastest_matmul(dtype, _MATMUL_SIDE.get(device.platform, 2048))
    return {
        "framework": "jax",
        "versions": {"jax": jax.__version__, "jaxlib": jax.lib.__version__},
        "platform": device.platform,
        "device": device.device_kind,
        "cpu_flag_in_force": CPU_CONVOLUTION_FLAG in os.environ.get("XLA_FLAGS", ""),
        "compile_s": compile_s,
        "xla_flops": cost.get("flops"),
        "xla_temporary_bytes": getattr(memory, "temp_size_in_bytes", None),
        "xla_argument_bytes": getattr(memory, "argument_size_in_bytes", None),
        "matmul_flops_per_wall_s": flops / matmul_wall_s,
        "matmul_flops_per_cpu_s": flops / matmul_cpu_s,
    }


def _fastest_matmul(dtype: jnp.dtype, side: int) -> tuple[float, float, int]:
    """Returns wall and processor seconds of the best of some large matrix products, and their operations."""
    matrix = jnp.ones((side, side), dtype)
    product = jax.jit(lambda left: left @ left)
    jax.block_until_ready(product(matrix))
    walls, cpus = [], []
    for _ in range(5):
        wall, cpu = time.perf_counter(), time.process_time()
        jax.block_until_ready(product(matrix))
        walls.append(time.perf_counter() - wall)
        cpus.append(time.process_time() - cpu)
    return min(walls), max(min(cpus), 1e-9), 2 * side**3


def _peak_device_memory() -> dict[str, Any]:
    statistics = jax.devices()[0].memory_stats() or {}
    return {"peak_device_bytes": statistics.get("peak_bytes_in_use")}


if __name__ == "__main__":
    process.keep_freed_memory()  # as training does
    sys.exit(serve(build))
