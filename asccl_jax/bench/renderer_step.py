"""The JAX side of `bench renderer`: a worker that draws frames and a clip, and trains."""

from __future__ import annotations

import dataclasses
import sys
import time
from collections import deque
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from asccl_jax import process
from asccl_jax.bench.harness import StepOptions, serve
from asccl_jax.bench.renderer_bench import STEP_FRAMES, metric_settings, vgg_widths
from asccl_jax.infer.rendering import render_frames
from asccl_jax.models.correlation import init_variables
from asccl_jax.models.renderer import IMAGE_CHANNELS, Renderer, RendererGenerator, init_renderer
from asccl_jax.models.vgg import Vgg, init_vgg
from asccl_jax.settings import RendererSettings
from asccl_jax.tasks.frame_losses import FrameSupervision, VggDistance
from asccl_jax.tasks.renderer_task import RendererTask
from asccl_jax.train.optimizer import adam, rate_schedule
from asccl_jax.types import SequenceBatch
from asccl_jax.weights import FrozenMetric

__all__ = ["build"]


@dataclasses.dataclass(frozen=True)
class _Frame:
    """What a frame is drawn from; see `infer.render.Conditioning`."""

    nmfc_image: np.ndarray
    eyes_image: np.ndarray
    shape_image: np.ndarray
    mask: np.ndarray


def build(options: StepOptions) -> tuple[Callable[[int, str], None], dict[str, Any], Callable[[], dict[str, Any]]]:
    """Returns the steps, description and closing measurements that `worker.serve` asks for."""
    fields = dict(options.settings)
    frames, chunk, with_step = fields.pop("frames"), fields.pop("chunk"), fields.pop("step")
    settings = RendererSettings.from_dict(fields)
    dtype = jnp.dtype(options.dtype)
    networks = init_renderer(settings, jax.random.key(options.seed))
    random = np.random.default_rng(options.seed)
    compiled: dict[str, Callable[[], Any]] = {}
    description: dict[str, Any] = {"compile_s": {}, "xla_temporary_bytes": {}}

    def compile_part(part: str, function: Callable[..., Any], *arguments: Any) -> Any:
        start = time.perf_counter()
        result = jax.jit(function).lower(*arguments).compile()
        description["compile_s"][part] = time.perf_counter() - start
        memory = result.memory_analysis()
        description["xla_temporary_bytes"][part] = getattr(memory, "temp_size_in_bytes", None)
        return result

    generator = RendererGenerator(settings, dtype)

    def draw(params: Any, inputs: Any) -> Any:
        return generator.apply({"params": params}, *inputs)

    def differentiate(params: Any, inputs: Any) -> Any:
        return jax.grad(lambda params: jnp.mean(jnp.square(draw(params, inputs))))(params)

    device = jax.devices()[0]
    sizes = {"forward": options.batch_size, "backward": options.batch_size}
    if device.platform != "cpu":
        sizes["forward_8"] = 8
    for part, count in sizes.items():
        inputs = _inputs(settings, count, random)
        step = compile_part(part, differentiate if part == "backward" else draw, networks["generator"], inputs)
        compiled[part] = lambda step=step, inputs=inputs: step(networks["generator"], inputs)  # type: ignore[misc]
    clip = _clip(settings, frames, random)
    renderer = jax.device_put(Renderer({"generator": networks["generator"]}, settings, dtype))

    def render(chunk: int) -> None:
        deque(render_frames(renderer, clip, chunk=chunk), maxlen=0)

    compiled |= {"video": lambda: render(chunk), "frame_by_frame": lambda: render(1)}
    if with_step:
        task, batch = _task(settings, dtype, options.seed), _batch(settings, random)
        state = jax.jit(task.init)(jax.random.key(options.seed))
        task = jax.device_put(task)
        step = compile_part("step", RendererTask.update, task, state, batch)
        compiled["step"] = lambda: step(task, state, batch)

    def steps(count: int, part: str) -> None:
        for _ in range(count):
            jax.block_until_ready(compiled[part]())

    description |= {
        "framework": "jax",
        "versions": {"jax": jax.__version__, "jaxlib": jax.lib.__version__},
        "platform": device.platform,
        "device": device.device_kind,
        "parts": list(compiled),
    }
    return steps, description, _peak_device_memory


def _inputs(settings: RendererSettings, count: int, random: np.random.Generator) -> tuple[jax.Array, ...]:
    channels = (
        settings.context_frames * settings.conditioning_channels,
        settings.previous_frames * IMAGE_CHANNELS,
        1,
    )
    side = settings.image_size
    return tuple(jnp.asarray(random.random((count, side, side, depth), np.float32)) for depth in channels)


def _clip(settings: RendererSettings, frames: int, random: np.random.Generator) -> list[_Frame]:
    shape = (frames, 3, settings.image_size, settings.image_size, 3)
    pictures = random.integers(0, 256, shape, np.uint8)
    mask = np.full((*shape[2:4], 1), 255, np.uint8)
    return [_Frame(nmfc, eyes, surface, mask) for nmfc, eyes, surface in pictures]


def _task(settings: RendererSettings, dtype: jnp.dtype, seed: int) -> RendererTask:
    metric, key = metric_settings(settings), jax.random.key(seed)
    widths = vgg_widths(settings)
    vgg = Vgg(jax.jit(lambda: init_vgg(key, widths))(), widths, dtype)
    supervision = FrameSupervision(
        FrozenMetric(jax.jit(lambda: init_variables(metric, key))(), metric, dtype),
        perceptual=VggDistance(vgg),
        compat="released",
    )
    return RendererTask(settings, adam(1.0, b1=0.5), rate_schedule(2e-4), supervision, chunk=STEP_FRAMES, dtype=dtype)


def _batch(settings: RendererSettings, random: np.random.Generator) -> SequenceBatch:
    side, frames = settings.image_size, settings.context_frames - 1 + STEP_FRAMES
    image, nmfc, eyes, surface = jnp.asarray(random.integers(0, 256, (4, 1, frames, side, side, 3), np.uint8))
    return SequenceBatch(
        image=image,
        nmfc_image=nmfc,
        eyes_image=eyes,
        shape_image=surface,
        mask=jnp.full((1, frames, side, side, 1), 255, jnp.uint8),
        mouth_centre=jnp.full((1, frames, 2), side // 2, jnp.int32),
        face_box=jnp.full((1, frames, 4), 0.8 * side, jnp.float32).at[..., :2].set(0.2 * side),
        begins=jnp.ones((1,), bool),
        fresh_start=jnp.zeros((1,), bool),
        index=jnp.zeros((1,), jnp.int32),
    )


def _peak_device_memory() -> dict[str, Any]:
    statistics = jax.devices()[0].memory_stats() or {}
    return {"peak_device_bytes": statistics.get("peak_bytes_in_use")}


if __name__ == "__main__":
    process.keep_freed_memory()  # as training does
    sys.exit(serve(build))
