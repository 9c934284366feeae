"""What `asccl bench bridge` times: a worker that does steps of each stage from crops or landmarks to files."""

from __future__ import annotations

import platform
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from asccl_jax.bench.harness import StepOptions, serve
from asccl_jax.data.codes import CodeDict
from asccl_jax.data.records import RecordWriter
from asccl_jax.data.schema import RenderRecord
from asccl_jax.head.drawing_rules import DEPTH_OFFSET
from data_prep.head_fit.clip_fit import LandmarkFitter
from data_prep.head_fit.head_assets import HeadAssets, builtin_assets, head_model, load_flame_assets
from data_prep.head_fit.head_drawing import HeadRenderer, Renderer, image_u8, nmfc_colours
from data_prep.head_fit.view import crop_view
from data_prep.media.crop import encode_jpeg
from data_prep.reconstruct.drawing import encode_png
from DECA_torch_bridge.deca_model import IMAGE_SIZE, coarse_encoder
from DECA_torch_bridge.flame import Flame, place_in_picture, to_image_space
from DECA_torch_bridge.raster import Rasteriser, TorchRasteriser
from DECA_torch_bridge.renderer import TorchRenderer, fastest_backend, vertex_normals
from DECA_torch_bridge.shading import Shader, TorchShader
from tests.acceptance.synthetic_truth import act_speaker

__all__ = ["STAGES", "build"]

_SCALE = 9.0  # The head fills the crop as DECA's crops are filled.

Step = Callable[[], object]


class _Bench:
    """The inputs that stages share, made from a seed."""

    def __init__(self, options: StepOptions) -> None:
        self.device = torch.device(options.settings["device"])
        self.frames, self.size, self.seed = options.batch_size, options.image_size, options.seed
        self.clip_frames: int = options.settings["clip_frames"]
        folder = options.settings["assets"]
        self.assets: HeadAssets = builtin_assets() if folder is None else load_flame_assets(Path(folder))
        rng = np.random.default_rng(options.seed)
        pose = np.zeros((self.frames, 6), np.float32)
        pose[:, :3], pose[:, 3] = rng.normal(0, 0.15, (self.frames, 3)), rng.uniform(0, 0.25, self.frames)
        self.codes = CodeDict(
            frame_index=np.arange(self.frames),
            shape=np.repeat(rng.normal(0, 0.5, (1, self.assets.shape_size)), self.frames, axis=0).astype(np.float32),
            exp=rng.normal(0, 0.2, (self.frames, self.assets.expression_size)).astype(np.float32),
            pose=pose,
            cam=np.tile(np.array([_SCALE, 0, 0.02], np.float32), (self.frames, 1)),
        )

    def tensor(self, values: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(values).to(self.device)


def _encode(bench: _Bench) -> tuple[Step, int]:
    torch.manual_seed(bench.seed)
    encoder = coarse_encoder().eval().to(bench.device)
    images = torch.rand(bench.frames, IMAGE_SIZE, IMAGE_SIZE, 3, device=bench.device)
    return lambda: encoder(images), bench.frames


def _fit(bench: _Bench) -> tuple[Step, int]:
    fitter = LandmarkFitter(bench.assets, "synthetic")
    neutral, happy = act_speaker(bench.seed, emotions=("neutral", "happy"), syllables=(10, 13))
    speaker = fitter.fit_speaker([neutral.landmarks[: bench.clip_frames]])
    landmarks = happy.landmarks[: bench.clip_frames]
    return lambda: fitter.fit_clip(landmarks, speaker), len(landmarks)


def _decode(bench: _Bench) -> tuple[Step, int]:
    flame = Flame(bench.assets).to(bench.device)
    codes = [bench.tensor(values) for values in (bench.codes.shape, bench.codes.exp, bench.codes.pose)]
    return lambda: flame(*codes), bench.frames


def _backend(bench: _Bench, *, compiled: bool) -> tuple[Rasteriser, Shader]:
    return fastest_backend(bench.device) if compiled else (TorchRasteriser(), TorchShader())


def _drawing(bench: _Bench, *, compiled: bool) -> tuple[Step, Step]:
    """Rasterising and shading, apart."""
    rasteriser, shader = _backend(bench, compiled=compiled)
    flame = Flame(bench.assets).to(bench.device)
    kept = np.setdiff1d(np.arange(len(bench.assets.faces)), bench.assets.mouth_faces)
    faces = flame.faces[torch.from_numpy(kept).to(bench.device)]
    vertices = flame(*(bench.tensor(values) for values in (bench.codes.shape, bench.codes.exp, bench.codes.pose)))[0]
    view = crop_view(bench.codes, bench.size)
    in_crop = to_image_space(vertices, bench.tensor(bench.codes.cam))
    placed = place_in_picture(in_crop, bench.tensor(view.placement.astype(np.float32)), view.size)
    placed[..., 2] += DEPTH_OFFSET
    normals = vertex_normals(vertices, flame.faces)
    colours = bench.tensor(nmfc_colours(bench.assets.v_template))
    fragments = rasteriser(placed, faces, view.size)
    return (
        lambda: rasteriser(placed, faces, view.size),
        lambda: shader.paint(fragments, faces, normals, -normals[..., 2], colours),
    )


def _raster(bench: _Bench, *, compiled: bool) -> tuple[Step, int]:
    return _drawing(bench, compiled=compiled)[0], bench.frames


def _shade(bench: _Bench, *, compiled: bool) -> tuple[Step, int]:
    return _drawing(bench, compiled=compiled)[1], bench.frames


def _render(bench: _Bench, *, compiled: bool) -> tuple[Step, int]:
    renderer: Renderer
    if compiled and bench.device.type == "cpu":
        renderer = HeadRenderer(head_model(bench.assets), chunk=bench.frames, threads=torch.get_num_threads())
    else:
        renderer = TorchRenderer(bench.assets, device=bench.device, chunk=bench.frames)
    view = crop_view(bench.codes, bench.size)

    def step() -> None:
        renders = renderer.renders(bench.codes, view=view)
        image_u8(renders.nmfc)
        image_u8(renders.shape)

    return step, bench.frames


def _write_records(bench: _Bench) -> tuple[Step, int]:
    """Pictures as PNG in the crop and in aligned coordinates, records written to a temporary folder."""
    renderer = HeadRenderer(head_model(bench.assets))
    drawn = [renderer.renders(bench.codes, view=crop_view(bench.codes, size)) for size in (IMAGE_SIZE, 256)]
    pictures = [(image_u8(renders.nmfc), image_u8(renders.shape), renders.alpha) for renders in drawn]
    none = np.zeros(0, np.float32)

    def record(row: int) -> bytes:
        crop, aligned = ([encode_png(images[row]) for images in kinds] for kinds in pictures)
        return RenderRecord(
            clip="bench/happy/0",
            frame=row,
            flags=0,
            nmfc_image=crop[0],
            shape_image=crop[1],
            detail_image=b"",
            alpha_image=crop[2],
            aligned_image=encode_jpeg(pictures[1][1][row]),
            aligned_nmfc_image=aligned[0],
            aligned_shape_image=aligned[1],
            aligned_detail_image=b"",
            aligned_alpha_image=aligned[2],
            aligned_landmarks=drawn[1].landmarks[row],
            crop_transform=np.eye(3, dtype=np.float32),
            align_transform=np.eye(2, 3, dtype=np.float32),
            shape=bench.codes.shape[row],
            exp=bench.codes.exp[row],
            pose=bench.codes.pose[row],
            cam=bench.codes.cam[row],
            tex=none,
            light=none,
            detail=none,
        ).encode()

    def step() -> None:
        with tempfile.TemporaryDirectory() as folder, RecordWriter(Path(folder) / "renders") as writer:
            for row in range(bench.frames):
                writer.write(record(row))

    return step, bench.frames


def _write_codes(bench: _Bench) -> tuple[Step, int]:
    def step() -> None:
        with tempfile.TemporaryDirectory() as folder:
            bench.codes.save(Path(folder) / "codes.npz")

    return step, bench.frames


STAGES: dict[str, Callable[[_Bench], tuple[Step, int]]] = {
    "encode": _encode,
    "fit": _fit,
    "decode": _decode,
    "raster": lambda bench: _raster(bench, compiled=True),
    "raster-torch": lambda bench: _raster(bench, compiled=False),
    "shade": lambda bench: _shade(bench, compiled=True),
    "shade-torch": lambda bench: _shade(bench, compiled=False),
    "write-records": _write_records,
    "write-codes": _write_codes,
    "render": lambda bench: _render(bench, compiled=True),
    "render-torch": lambda bench: _render(bench, compiled=False),
}
"""What can be timed: a function that prepares a stage and returns its step and the frames of a step."""


def build(options: StepOptions) -> tuple[Callable[[int, str], None], dict[str, Any], Callable[[], dict[str, Any]]]:
    """Returns the steps, description and closing measurements that `asccl_jax.bench.harness.serve` asks for."""
    torch.set_num_threads(options.threads)
    torch.set_grad_enabled(False)
    bench = _Bench(options)
    stages = {name: STAGES[name](bench) for name in options.settings["stages"]}
    on_gpu = bench.device.type == "cuda"

    def steps(count: int, stage: str) -> None:
        for _ in range(count):
            stages[stage][0]()
        if on_gpu:
            torch.cuda.synchronize()

    description = {
        "frames_a_step": {name: frames for name, (_, frames) in stages.items()},
        "versions": {"torch": torch.__version__},
        "platform": bench.device.type,
        "device": torch.cuda.get_device_name() if on_gpu else platform.machine(),
        "head": bench.assets.source,
        "triangles": len(bench.assets.faces),
    }
    return steps, description, lambda: {"peak_device_bytes": torch.cuda.max_memory_allocated() if on_gpu else None}


if __name__ == "__main__":
    sys.exit(serve(build))
