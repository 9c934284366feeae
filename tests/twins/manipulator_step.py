"""The PyTorch side of `asccl bench manipulator`: a worker that trains, and manipulates clips window by window."""

from __future__ import annotations

import platform
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from asccl_jax.bench.harness import StepOptions, serve
from asccl_jax.settings import ManipulatorSettings
from tests.twins.manipulator_twin import ManipulatorTwin, TwinBatch, train_step

__all__ = ["build"]

_LEARNING_RATE = 1e-4


def build(options: StepOptions) -> tuple[Callable[[int, str], None], dict[str, Any], Callable[[], dict[str, Any]]]:
    """Returns the steps, description and closing measurements that `asccl_jax.bench.harness.serve` asks for."""
    torch.set_num_threads(options.threads)
    torch.manual_seed(options.seed)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    fields = dict(options.settings)
    frames = fields.pop("frames")
    settings = ManipulatorSettings.from_dict(fields)
    twin = ManipulatorTwin(settings).to(device)
    optimizers: dict[str, torch.optim.Optimizer] = {
        name: torch.optim.Adam(network.parameters(), lr=_LEARNING_RATE, betas=(0.0, 0.99))
        for name, network in twin.named_children()
    }
    random = np.random.default_rng(options.seed)

    def normal(*shape: int) -> torch.Tensor:
        return torch.from_numpy(random.standard_normal(shape, dtype=np.float32)).to(device)

    def labels() -> torch.Tensor:
        return torch.from_numpy(random.integers(0, settings.emotions, options.batch_size)).to(device)

    window = (options.batch_size, settings.window, settings.coefficients)
    source, reference = normal(*window), normal(*window)
    batch = TwinBatch(source, labels(), reference, labels(), normal(options.batch_size, settings.latent_size))
    clip, style = normal(frames, settings.coefficients), torch.zeros(1, settings.style_size, device=device)

    def manipulate(*, together: bool) -> None:
        with torch.no_grad():
            if together:
                windows = clip.unfold(0, settings.window, 1).transpose(1, 2)
                twin.generate(windows, style.expand(len(windows), -1)).cpu()
                return
            for first in range(frames - settings.window + 1):
                twin.generate(clip[None, first : first + settings.window], style).cpu()

    def steps(count: int, part: str) -> None:
        for _ in range(count):
            if part == "train":
                train_step(twin, optimizers, batch)
            else:
                manipulate(together=part == "clip")
        if device.type == "cuda":
            torch.cuda.synchronize()

    description = {
        "framework": "torch",
        "versions": {"torch": torch.__version__},
        "platform": device.type,
        "device": torch.cuda.get_device_name() if device.type == "cuda" else platform.machine(),
    }
    on_gpu = device.type == "cuda"
    return steps, description, lambda: {"peak_device_bytes": torch.cuda.max_memory_allocated() if on_gpu else None}


if __name__ == "__main__":
    sys.exit(serve(build))
