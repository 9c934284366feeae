"""The PyTorch side of `asccl bench metric`: a worker that does training steps of the published form."""

from __future__ import annotations

import contextlib
import platform
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from asccl_jax.bench.harness import StepOptions, serve
from asccl_jax.settings import MetricSettings
from tests.twins.metric_twin import CorrelationMetricTwin, draw_centres

__all__ = ["build"]

_LEARNING_RATE = 1e-3


def build(options: StepOptions) -> tuple[Callable[[int], None], dict[str, Any], Callable[[], dict[str, Any]]]:
    """Returns the steps, description and closing measurements that `asccl_jax.bench.harness.serve` asks for."""
    torch.set_num_threads(options.threads)
    torch.manual_seed(options.seed)
    random = np.random.default_rng(options.seed)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    settings = MetricSettings.from_dict(options.settings)
    # Half precision on a GPU is only fast with channels last; float32 keeps the published layout.
    layout = torch.channels_last if options.dtype == "bfloat16" else torch.contiguous_format
    network = CorrelationMetricTwin(settings).to(device).train()
    network.to(memory_format=layout)  # type: ignore[call-overload]  # torch's own stubs leave this form out
    optimizer = torch.optim.Adam(network.parameters(), lr=_LEARNING_RATE)
    shape = (options.batch_size, 3, options.image_size, options.image_size)
    query_u8, key_u8 = (
        torch.from_numpy(random.integers(0, 256, shape, np.uint8)).to(device, memory_format=layout) for _ in range(2)
    )
    precision = torch.autocast(device.type, torch.bfloat16) if options.dtype == "bfloat16" else contextlib.nullcontext()

    def steps(count: int) -> None:
        for _ in range(count):
            optimizer.zero_grad(set_to_none=True)
            centres = draw_centres(settings, options.image_size, random)
            with precision:
                result = network(query_u8.float() / 127.5 - 1, key_u8.float() / 127.5 - 1, centres)
            result.loss.backward()
            optimizer.step()
        if device.type == "cuda":
            torch.cuda.synchronize()

    description = {
        "framework": "torch",
        "versions": {"torch": torch.__version__},
        "platform": device.type,
        "device": torch.cuda.get_device_name() if device.type == "cuda" else platform.machine(),
        "layout": "NHWC" if layout == torch.channels_last else "NCHW, as published",
    }
    return steps, description, lambda: _peak_device_memory(device)


def _peak_device_memory(device: torch.device) -> dict[str, Any]:
    return {"peak_device_bytes": torch.cuda.max_memory_allocated() if device.type == "cuda" else None}


if __name__ == "__main__":
    sys.exit(serve(build))
