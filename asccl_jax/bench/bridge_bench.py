"""Speed of the DECA bridge: crops or landmarks to codes, codes to pictures, pictures to files."""

from __future__ import annotations

import argparse
import dataclasses
import statistics
from pathlib import Path
from typing import Any

from asccl_jax.bench.harness import (
    Report,
    StepOptions,
    Worker,
    align,
    describe_machine,
    format_quantity,
    has_torch_side,
    start_worker,
)
from asccl_jax.errors import InputError

__all__ = ["STAGES", "add_arguments", "run"]

_MODULE = "tests.twins.bridge_step"

STAGES = {
    "encode": "DECA's coarse encoder, random weights",
    "fit": "landmarks encoder, a clip of a known speaker",
    "decode": "head layer: codes to vertices and landmarks",
    "raster": "rasteriser, compiled",
    "raster-torch": "rasteriser, torch",
    "shade": "NMFC and shape image, compiled",
    "shade-torch": "NMFC and shape image, torch",
    "write-records": "pictures of crop and alignment to PNG, into records",
    "write-codes": "code dict (npz)",
    "render": "codes to NMFC + shape pictures, compiled",
    "render-torch": "codes to NMFC + shape pictures, torch",
}
"""What is timed, in the order of the work; the last two are decode, raster and shade together."""

_TARGETS = {"render": 25.0, "fit": 20.0}
"""Frames a second and core that the project promises."""

_TARGET_SIZE = 256
_ON_A_GPU = ("encode", "decode", "raster-torch", "shade-torch", "render-torch")
_TURN_S = 1.0
_QUICK = {"batch": 2, "clip_frames": 30, "rounds": 1, "size": 64}

_DESCRIPTION = """
Times each stage of the DECA bridge on made-up frames: random crops, landmarks of an acted synthetic speaker, random
codes. The figure to judge by on a CPU is frames a second and core (processor seconds), which
other users of the machine hardly change; on a GPU it is frames a wall second.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the options of `bench bridge`."""
    parser.description = _DESCRIPTION
    parser.add_argument("--assets", type=Path, metavar="DIR", help="FLAME's files (default: the built-in head)")
    parser.add_argument("--stage", action="append", choices=STAGES, help="only this stage (repeatable; default: all)")
    parser.add_argument("--size", type=int, default=_TARGET_SIZE, help="side of the pictures in pixels (default: 256)")
    parser.add_argument("--batch", type=int, default=16, help="frames a step (default: 16)")
    parser.add_argument("--clip-frames", type=int, default=100, help="frames of the fitted clip (default: 100)")
    parser.add_argument("--rounds", type=int, default=3, help="turns each stage takes (default: 3)")
    parser.add_argument("--threads", type=int, default=1, help="cores to use (default: 1)")
    parser.add_argument(
        "--device", choices=("cpu", "cuda"), default="cpu", help="where torch computes; cuda times torch's stages alone"
    )
    parser.add_argument("--quick", action="store_true", help="tiny sizes: shows that it runs, says nothing of speed")


def run(options: argparse.Namespace) -> Report:
    """Measures and returns the report.

    Raises:
      InputError: PyTorch is missing, or an option is out of range.
    """
    if options.quick:
        vars(options).update(_QUICK)
    for name in ("size", "batch", "clip_frames", "rounds", "threads"):
        if getattr(options, name) < 1:
            raise InputError(f"--{name.replace('_', '-')}={getattr(options, name)}: expected at least 1")
    if not has_torch_side():
        raise InputError(
            "bench bridge needs PyTorch (pip install 'asccl-jax[bridge]') and a checkout with its tests/twins"
        )
    if options.assets is not None and not options.assets.is_dir():
        raise InputError(f"--assets={options.assets}: no such folder; `asccl head check` says what belongs there")
    possible = _ON_A_GPU if options.device == "cuda" else tuple(STAGES)
    stages = [name for name in possible if options.stage is None or name in options.stage]
    if not stages:
        raise InputError(f"--stage: {', '.join(options.stage)}: no GPU form; expected one of {', '.join(possible)}")
    machine = describe_machine(options.threads)
    description, rows = _measure(stages, options)
    data = {
        "benchmark": "bridge",
        "machine": machine,
        "image_size": options.size,
        "quick": options.quick,
        **description,
        "rows": rows,
    }
    return Report(_text(data), data)


def _measure(stages: list[str], options: argparse.Namespace) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Returns what was measured on, and one row a stage."""
    settings = {
        "stages": stages,
        "device": options.device,
        "assets": None if options.assets is None else str(options.assets),
        "clip_frames": options.clip_frames,
    }
    step = StepOptions(settings, options.batch, options.size, "float32", options.threads)
    with start_worker(_MODULE, step) as worker:
        description = dict(worker.description)
        frames = description.pop("frames_a_step")
        rows = [_row(worker, stage, frames[stage], options) for stage in stages]
        description |= worker.finish()
    return description, rows


def _row(worker: Worker, stage: str, frames: int, options: argparse.Namespace) -> dict[str, Any]:
    first = worker.turn(1, part=stage)  # compiles
    count = 1 if options.quick else max(1, round(_TURN_S / max(worker.turn(1, part=stage).wall_s, 1e-6)))
    turns = [worker.turn(count, part=stage) for _ in range(options.rounds)]
    wall, cpu = (statistics.median(getattr(turn, field) for turn in turns) for field in ("wall_s", "cpu_s"))
    on_gpu = options.device == "cuda"
    promised = not on_gpu and (stage != "render" or options.size == _TARGET_SIZE)
    return {
        "stage": stage,
        "frames_a_step": frames,
        "turns": [dataclasses.asdict(turn) for turn in turns],
        "first_step_wall_s": first.wall_s,
        "wall_s_a_frame": wall / frames,
        "cpu_s_a_frame": cpu / frames,
        "frames_per_s": frames / (wall if on_gpu else cpu),
        "target_frames_per_s": _TARGETS.get(stage) if promised else None,
    }


def _text(data: dict[str, Any]) -> str:
    machine, rows = data["machine"], data["rows"]
    unit = "frames / wall s" if data["platform"] == "cuda" else "frames / s / core"
    header = ["", unit, "cpu ms a frame", "wall ms a frame", "frames a step"]
    cells = [
        [
            f"{row['stage']}: {STAGES[row['stage']]}",
            f"{row['frames_per_s']:.1f}",
            f"{1e3 * row['cpu_s_a_frame']:.2f}",
            f"{1e3 * row['wall_s_a_frame']:.2f}",
            str(row["frames_a_step"]),
        ]
        for row in rows
    ]
    lines = [
        f"DECA bridge: {data['image_size']} px, {data['head']} head of {data['triangles']} triangles, torch"
        f" {data['versions']['torch']} on {data['device']},"
        f" {format_quantity(data['peak_device_bytes'] or data['peak_rss_bytes'], 'B')} at most",
        f"{machine['processor']}, {machine['threads']} of {machine['cores']} cores, load {machine['load_before']:.1f}"
        " before",
        "",
        *align([header, *cells]),
        "",
        *[_verdict(row) for row in rows if row["target_frames_per_s"] is not None and not data["quick"]],
    ]
    if data["quick"]:
        lines.append("--quick: sizes too small to say anything of speed")
    return "\n".join(lines).rstrip("\n") + "\n"


def _verdict(row: dict[str, Any]) -> str:
    rate, target = row["frames_per_s"], row["target_frames_per_s"]
    name = f"NMFC + shape at {_TARGET_SIZE} px" if row["stage"] == "render" else "landmark fit"
    return f"{name}: {rate:.1f} frames/s/core, target {target:.0f}: {'reached' if rate >= target else 'MISSED'}"
