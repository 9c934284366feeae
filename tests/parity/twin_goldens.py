"""Goldens of any seed and size, made by the PyTorch twins: what the public set has of one seed, so that a replay that
knows its sizes by heart is seen. Networks are small, and their manifests are made with them.

The head's is the PyTorch bridge's, and is there for the geometry in JAX.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeAlias

import cv2
import numpy as np
import torch
from torch import Tensor, nn

from asccl_jax.manipulator_settings import ManipulatorSettings
from asccl_jax.models.manipulator import NETWORKS
from DECA_torch_bridge.manipulator_twin import ManipulatorTwin
from tests.parity import flame_deca, recipe

__all__ = ["Golden", "head", "manipulator_inference"]

Manifest: TypeAlias = list[dict[str, Any]]
Golden: TypeAlias = tuple[dict[str, np.ndarray], dict[str, Manifest]]
"""Arrays of a golden, and the manifests of its networks."""


def _manifest(network: nn.Module, prefix: str) -> Manifest:
    """Entries of a network's state dict; of a block that is registered twice, both names of each tensor."""
    kinds = {nn.Linear: "linear_w", nn.Conv2d: "conv_w", nn.ConvTranspose2d: "convT_w", nn.PReLU: "prelu_w"}
    modules = dict(network.named_modules(remove_duplicate=False))
    entries = []
    for key, tensor in network.state_dict().items():
        owner, _, leaf = key.rpartition(".")
        module = modules[owner]
        if isinstance(module, nn.LSTM):
            kind = "bias" if leaf.startswith("bias") else "lstm_w"
        elif isinstance(module, nn.BatchNorm2d) and leaf in ("weight", "bias"):
            kind = {"weight": "norm_w", "bias": "norm_b"}[leaf]
        else:
            named = {"running_mean": "run_mean", "running_var": "run_var", "num_batches_tracked": "counter"}
            kind = named.get(leaf) or ("bias" if leaf == "bias" else kinds[type(module)])
        entry = {"key": f"{prefix}{key}", "shape": list(tensor.shape), "kind": kind}
        if ".conv_block." in key:
            entry["alias_of"] = entry["key"].replace(".conv_block.", ".resnetblock_sequential.")
        entries.append(entry)
    return entries


def _loaded(network: nn.Module, manifest: Manifest, prefix: str, seed: int, dtype: torch.dtype) -> nn.Module:
    weights = recipe.make_weights(manifest, seed, prefix=prefix)
    network.load_state_dict({key: torch.from_numpy(np.asarray(value)) for key, value in weights.items()})
    return network.to(dtype)


def manipulator_inference(settings: ManipulatorSettings, *, seed: int, frames: int) -> Golden:
    """A golden of the manipulator's test programme; as the public one in float32 alone."""
    twin, window = ManipulatorTwin(settings), settings.window
    manifests = _manipulator_manifests(twin)
    _load_manipulator(twin, manifests, seed, torch.float32)
    emotions = {"infer_label": [4], "infer_label3": [4, 5, 1]}
    arrays: dict[str, np.ndarray] = {"cfg": np.array([seed, frames, window])}
    styles = {}

    def clip(name: str, length: int) -> Tensor:
        return torch.from_numpy(recipe.make_input(f"manip.infer.{name}", (length, settings.coefficients), seed))

    with torch.no_grad():
        for name, labels in emotions.items():
            z = torch.from_numpy(recipe.make_input(f"{name}.z", (1, settings.latent_size), seed))
            arrays[f"{name}/z"] = z.numpy()
            styles[name] = twin.mapping_network(z.expand(len(labels), -1), torch.tensor(labels))
        medians = []
        for number in range(2):
            windows = clip(f"ref{number}", window + 4 + number).unfold(0, window, 1).transpose(1, 2)
            medians.append(_median(twin.style_of(windows).double()).float())
        styles |= {"infer_reference": medians[0][None], "infer_reference_multi": torch.stack(medians)}
        # OpenCV's kernel with automatic deviation, as the published programme weights its windows.
        weights = torch.from_numpy(cv2.getGaussianKernel(window, 0, cv2.CV_32F))
        windows = clip("src", frames).unfold(0, window, 1).transpose(1, 2)
        for name, own in styles.items():
            choice = [min(int(first // (frames / len(own))), len(own) - 1) for first in range(len(windows))]
            made = twin.generate(windows, own[choice])
            output = torch.zeros(frames, settings.coefficients)
            for first, part in enumerate(made):
                output[first : first + window] += weights * part
            output[: window - 1] = made[0][: window - 1]
            output[1 - window :] = twin.generate(windows[-1:], own[-1:])[0][1 - window :]
            arrays[f"{name}/styles"], arrays[f"{name}/output"] = own.numpy(), output.numpy()
            arrays[f"{name}/gaussian_window"] = weights[:, 0].numpy()
    return arrays, manifests


def _median(points: Tensor) -> Tensor:
    """The geometric median as the published programme finds it: Weiszfeld's steps from the mean, to one below 1e-5."""
    found, moved = points.mean(dim=0), torch.inf
    while moved >= 1e-5:
        weights = 1 / (points - found).norm(dim=1, keepdim=True)
        before, found = found, (weights * points).sum(dim=0) / weights.sum()
        moved = float((found - before).norm())
    return found


def _manipulator_manifests(twin: ManipulatorTwin) -> dict[str, Manifest]:
    return {f"manip_{name}": _manifest(getattr(twin, name), f"manip.{name}.") for name in NETWORKS}


def _load_manipulator(twin: ManipulatorTwin, manifests: Mapping[str, Manifest], seed: int, dtype: torch.dtype) -> None:
    for name in NETWORKS:
        _loaded(getattr(twin, name), manifests[f"manip_{name}"], f"manip.{name}.", seed, dtype)


def head(arrays: Mapping[str, np.ndarray], manifest: Manifest, *, seed: int, size: int, batch: int) -> Golden:
    """A golden of another seed, size and batch of a golden's head, as the PyTorch bridge computes and draws it."""
    kept = {name: array for name, array in arrays.items() if name.startswith(("model/", "embedding/"))}
    _, rows, columns, _, _ = arrays["cfg"].tolist()
    random = np.random.default_rng(seed)
    scales = {"shape": (100, 1.0), "exp": (50, 1.0), "pose": (6, 0.2), "eye_pose": (6, 0.2)}
    drawn = {f"in/{name}": scale * random.standard_normal((batch, count)) for name, (count, scale) in scales.items()}
    drawn["in/cam"] = np.array([7.0, 0, 0]) + 0.05 * random.standard_normal((batch, 3))
    drawn["rot/axis"] = random.standard_normal((7, 3))
    texture = arrays["in/albedo"].shape[1:]
    drawn |= {"in/albedo": random.random((batch, *texture)), "in/light": 0.5 * random.standard_normal((batch, 9, 3))}
    drawn["in/uv_detail_normals"] = random.uniform(-1, 1, (batch, *texture))
    kept["cfg"] = np.array([seed, rows, columns, size, batch])
    for name, array in drawn.items():
        kept[name] = array.astype(np.float32)
        if name in arrays and f"f64/{name}" in arrays:
            kept[f"f64/{name}"] = kept[name].astype(np.float64)
    manifests = {"deca_D_detail": manifest}
    exact = flame_deca.replay(kept, manifests, exact=True).tensors
    kept |= {f"f64/{name}": value for name, value in exact.items() if value.dtype == np.float64}
    # What is drawn starts from the golden's own vertices, and shading from its own normals, which earlier runs make.
    kept |= {name: exact[name].astype(np.float32) for name in ("out/verts", "proj/trans_verts")}
    kept |= {"detail/uv_detail_normals": kept["in/uv_detail_normals"]}
    kept |= {name: arrays[name] for name in ("render/world2uv", "mesh/dense_faces_head")}
    for _ in range(3):
        kept |= flame_deca.replay(kept, manifests, exact=False).tensors
    return {name: value for name, value in kept.items() if "D_detail" not in name}, manifests
