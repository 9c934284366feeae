"""Speed of the renderer: a frame, its gradient, a clip and the training step, beside PyTorch's."""

from __future__ import annotations

import argparse
import dataclasses
import os
import statistics
from contextlib import ExitStack
from typing import Any

from asccl_jax.bench.harness import (
    TORCH_LEFT_OUT,
    Report,
    StepOptions,
    Turn,
    Worker,
    align,
    describe_machine,
    format_quantity,
    forward_flops,
    has_torch_side,
    start_worker,
)
from asccl_jax.errors import InputError
from asccl_jax.infer.rendering import CHUNK
from asccl_jax.models.renderer import IMAGE_CHANNELS, scale_widths
from asccl_jax.models.vgg import PUBLISHED_WIDTHS, STAGE_CONVOLUTIONS
from asccl_jax.settings import MetricSettings, RendererSettings

__all__ = [
    "STEP_FRAMES",
    "add_arguments",
    "generator_flops",
    "metric_settings",
    "renderer_step_flops",
    "run",
    "vgg_widths",
]

# Arithmetic of the renderer's networks and of its training step, counted by hand from the shapes.
#
# A multiply and an add are two operations; only convolutions count. See `bench.flops`.

STEP_FRAMES = 4
"""Frames of the training step, as published."""


def metric_settings(settings: RendererSettings) -> MetricSettings:
    """Returns the metric that supervises: the published one, narrower as the generator is."""
    widths = tuple(max(4, width * settings.generator_width // 64) for width in MetricSettings().stage_widths)
    return MetricSettings.from_compat("released", stage_widths=widths)


def vgg_widths(settings: RendererSettings) -> tuple[int, ...]:
    """Returns the widths of the perceptual loss's VGG-19, narrower as the generator is."""
    return tuple(max(4, width * settings.generator_width // 64) for width in PUBLISHED_WIDTHS)


def generator_flops(settings: RendererSettings) -> int:
    """Returns the operations of drawing one frame.

    >>> round(generator_flops(RendererSettings()) / 1e9, 1)
    171.8
    """
    size, width, levels = settings.image_size, settings.generator_width, settings.downsamplings
    conditioning = settings.context_frames * settings.conditioning_channels
    wide = 49 * size**2 * width * (conditioning + IMAGE_CHANNELS * settings.previous_frames + IMAGE_CHANNELS)
    # A doubling does as many products as the halving it turns round; there are two encoders and a decoder.
    halvings = (9 * (size >> level) ** 2 * (width << level) * (width << level) // 2 for level in range(1, levels + 1))
    between = 3 * sum(halvings)
    blocks = 2 * settings.encoder_blocks + settings.decoder_blocks
    residual = blocks * 2 * 9 * (size >> levels) ** 2 * (width << levels) ** 2
    return 2 * (wide + between + residual)


def renderer_step_flops(settings: RendererSettings) -> int:
    """Returns the operations that a training step on four frames needs, with VGG-19 and metric on whole frames.

    Generated frames go forward through everything and back; the frozen networks need no gradient of their weights, and
    of real frames none at all. A discriminator's pass over generated frames is pulled back to the frames for the
    generator as well as to its weights.

    >>> round(renderer_step_flops(RendererSettings()) / 1e12, 2)
    3.72
    """
    metric = forward_flops(metric_settings(settings), settings.image_size)
    judges = _discriminator_flops(settings, settings.image_size)
    judges += (len(settings.discriminators) - 1) * _discriminator_flops(settings, settings.roi_size)
    return STEP_FRAMES * (3 * (generator_flops(settings) + _vgg_flops(settings) + metric) + 7 * judges)


def _vgg_flops(settings: RendererSettings) -> int:
    size, channels, total = settings.image_size, IMAGE_CHANNELS, 0
    for width, convolutions in zip(vgg_widths(settings), STAGE_CONVOLUTIONS, strict=True):
        total += 9 * size**2 * (channels * width + (convolutions - 1) * width**2)
        size, channels = size // 2, width
    return 2 * total


def _discriminator_flops(settings: RendererSettings, size: int) -> int:
    total = 0
    for scale in range(settings.discriminator_scales):
        side, channels = size, settings.conditioning_channels + IMAGE_CHANNELS
        widths = scale_widths(settings, scale)
        for layer, width in enumerate(widths):
            side = side // 2 + 1 if layer < len(widths) - 2 else side + 1
            total += 16 * side**2 * channels * width
            channels = width
        size = -(-size // 2)
    return 2 * total


_MODULES = {"jax": "asccl_jax.bench.renderer_step", "torch": "tests.twins.renderer_step"}
_TURN_S = 1.0
"""A turn lasts at least about this long, so that short steps are not lost in the noise of asking."""

PARTS = {
    "forward": "generator forward",
    "backward": "generator forward + backward",
    "forward_8": "generator forward, 8 clips",
    "video": "clip",
    "frame_by_frame": "clip, frame by frame",
    "step": "training step",
}
TARGETS = {"forward": 0.9, "backward": 0.85, "step": 0.9}
"""Least ratio of PyTorch's time to JAX's."""

_DESCRIPTION = """
Times the generator on a frame, forward and with its gradient, and over a clip: by JAX in chunks and frame by frame, by
PyTorch frame by frame. JAX and PyTorch are built in processes of their own on the same cores and take turns, so that
whatever else the machine does falls on both. Judge by processor seconds on a shared CPU and by wall seconds on an
accelerator.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the options of `bench renderer`."""
    parser.description = _DESCRIPTION
    parser.add_argument("--size", type=int, default=256, help="side of the frames in pixels (default: 256)")
    parser.add_argument("--batch", type=int, default=1, help="frames drawn at once (default: 1)")
    parser.add_argument("--frames", type=int, default=CHUNK, help=f"frames of the clip (default: {CHUNK})")
    parser.add_argument("--chunk", type=int, default=CHUNK, help=f"frames JAX renders in one go (default: {CHUNK})")
    parser.add_argument("--width", type=int, default=64, help="width of the networks, for smaller ones (default: 64)")
    parser.add_argument(
        "--step", action="store_true", help="also the training step on 4 frames with VGG-19 and metric: minutes on CPU"
    )
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32", help="default: float32")
    parser.add_argument("--rounds", type=int, default=3, help="turns each framework takes (default: 3)")
    parser.add_argument("--threads", type=int, help="cores to use (default: all this process may use)")
    parser.add_argument("--no-torch", action="store_true", help="measure JAX alone")


def run(options: argparse.Namespace) -> Report:
    """Measures and returns the report.

    Raises:
      InputError: An option no step can be built from.
    """
    for name in ("batch", "frames", "chunk", "width", "rounds", "threads"):
        value = getattr(options, name)
        if value is not None and value < 1:
            raise InputError(f"--{name}={value}: expected at least 1")
    settings = RendererSettings(
        image_size=options.size,
        generator_width=options.width,
        discriminator_width=min(options.width, 64),
        roi_size=min(RendererSettings().roi_size, options.size // 4 * 2),
    )
    threads = options.threads or (len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count())
    machine = describe_machine(threads or 1)
    with_torch = not options.no_torch and has_torch_side()
    frameworks = ["jax", "torch"] if with_torch else ["jax"]
    fields = {**settings.to_dict(), "frames": options.frames, "chunk": options.chunk, "step": options.step}
    step = StepOptions(fields, options.batch, options.size, options.dtype, threads or 1)
    rows = _measure(step, frameworks, options.rounds)
    data = {
        "benchmark": "renderer",
        "machine": machine,
        "settings": settings.to_dict(),
        "dtype": options.dtype,
        "batch": options.batch,
        "frames": options.frames,
        "chunk": options.chunk,
        "generator_flops": generator_flops(settings),
        "step_flops": renderer_step_flops(settings),
        "rows": rows,
        "ratios": _ratios(rows),
    }
    return Report(_text(data, torch_left_out=not with_torch and not options.no_torch), data)


def _measure(step: StepOptions, frameworks: list[str], rounds: int) -> list[dict[str, Any]]:
    """Returns one row a framework, each part measured in turns."""
    turns: dict[str, dict[str, list[Turn]]] = {name: {} for name in frameworks}
    with ExitStack() as stack:
        workers = {name: stack.enter_context(start_worker(_MODULES[name], step)) for name in frameworks}
        for part in PARTS:
            able = [name for name in frameworks if part in workers[name].description["parts"]]
            counts = {name: _steps_a_turn(workers[name], part) for name in able}
            for turn in range(rounds):
                # The one who starts changes, so that neither always follows the other.
                for name in able if turn % 2 == 0 else reversed(able):
                    turns[name].setdefault(part, []).append(workers[name].turn(counts[name], part=part))
        closing = {name: worker.finish() for name, worker in workers.items()}
    return [
        {
            **workers[name].description,
            **closing[name],
            "parts": {part: _summary(measured) for part, measured in turns[name].items()},
        }
        for name in frameworks
    ]


def _steps_a_turn(worker: Worker, part: str) -> int:
    worker.turn(1, part=part)  # compiles, or warms up
    return max(1, round(_TURN_S / max(worker.turn(1, part=part).wall_s, 1e-6)))


def _summary(turns: list[Turn]) -> dict[str, Any]:
    medians = {field: statistics.median(getattr(turn, field) for turn in turns) for field in ("wall_s", "cpu_s")}
    return {**medians, "turns": [dataclasses.asdict(turn) for turn in turns]}


def _ratios(rows: list[dict[str, Any]]) -> dict[str, dict[str, float]]:
    """Returns PyTorch's time over JAX's, turn by turn, of every part that both know."""
    if len(rows) < 2:
        return {}
    jax, torch = (row["parts"] for row in rows)
    return {
        part: {
            field: statistics.median(
                theirs[field] / ours[field]
                for theirs, ours in zip(torch[part]["turns"], jax[part]["turns"], strict=True)
            )
            for field in ("wall_s", "cpu_s")
        }
        for part in jax.keys() & torch.keys()
    }


def _frames(data: dict[str, Any], part: str) -> int:
    """Returns how many frames one go of a part makes."""
    known = {"forward_8": 8, "video": data["frames"], "frame_by_frame": data["frames"], "step": STEP_FRAMES}
    return int(known.get(part, data["batch"]))


def _flops(data: dict[str, Any], part: str) -> int:
    if part == "step":
        return int(data["step_flops"])
    return int(data["generator_flops"]) * _frames(data, part) * (3 if part == "backward" else 1)


def _text(data: dict[str, Any], *, torch_left_out: bool) -> str:
    machine, settings = data["machine"], data["settings"]
    lines = [
        f"renderer: frames of {settings['image_size']} px, generator {settings['generator_width']} wide,"
        f" {data['dtype']}, {data['batch']} at once, clips of {data['frames']} frames, JAX {data['chunk']} in one go",
        f"counted: a frame {format_quantity(data['generator_flops'], 'FLOP')}, a training step on {STEP_FRAMES} frames"
        f" {format_quantity(data['step_flops'], 'FLOP')}",
        f"{machine['processor']}, {machine['threads']} of {machine['cores']} cores, load {machine['load_before']:.1f}"
        " before",
        "",
    ]
    field = "cpu_s" if data["rows"][0]["platform"] == "cpu" else "wall_s"
    unit = "cpu s" if field == "cpu_s" else "s"
    table = [["", "", "cpu s", "wall s", f"frames / {unit}", f"FLOP / {unit}"]]
    for row in data["rows"]:
        version = f"{row['framework']} {row['versions'][row['framework']]} {row['device']}"
        for part, measured in row["parts"].items():
            seconds = measured[field]
            table.append(
                [
                    *(version, PARTS[part], f"{measured['cpu_s']:.3f}", f"{measured['wall_s']:.3f}"),
                    f"{_frames(data, part) / seconds:.3g}",
                    format_quantity(_flops(data, part) / seconds),
                ]
            )
    lines += [*align(table), ""]
    for part, ratios in ((part, data["ratios"][part]) for part in PARTS if part in data["ratios"]):
        line = (
            f"{PARTS[part]}, torch / jax: {ratios['cpu_s']:.2f} in processor time, {ratios['wall_s']:.2f} in wall time"
        )
        if part in TARGETS:
            line += f"; target {TARGETS[part]:g}: {'reached' if ratios[field] >= TARGETS[part] else 'MISSED'}"
        lines.append(line)
    for row in data["rows"]:
        memory = format_quantity(row["peak_device_bytes"] or row["peak_rss_bytes"], "B")
        lines.append(f"memory of {row['framework']}: {memory} at most")
    jax = data["rows"][0]
    lines += [
        f"XLA: {PARTS[part]} compiled in {seconds:.1f} s, plans"
        f" {format_quantity(jax['xla_temporary_bytes'][part], 'B')} of temporaries"
        for part, seconds in jax["compile_s"].items()
    ]
    if torch_left_out:
        lines.append(TORCH_LEFT_OUT)
    return "\n".join(lines) + "\n"
