"""DECA's published checkpoint, read as the weights of its three networks and checked to the last name and size."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from asccl_jax.errors import InputError
from DECA_torch_bridge.detail_decoder import DetailDecoder
from DECA_torch_bridge.encoders import coarse_encoder, detail_encoder
from DECA_torch_bridge.state_dict import load_tensors

__all__ = ["DecaWeights", "read_deca_model"]

_NETWORKS = {"E_flame": coarse_encoder, "E_detail": detail_encoder, "D_detail": DetailDecoder}


class DecaWeights(NamedTuple):
    """State dicts that fit `coarse_encoder()`, `detail_encoder()` and `DetailDecoder()`.

    Attributes:
      E_flame: Coarse encoder: shape, texture, expression, pose, camera, light.
      E_detail: Detail encoder.
      D_detail: Detail decoder.
    """

    E_flame: dict[str, Tensor]
    E_detail: dict[str, Tensor]
    D_detail: dict[str, Tensor]


def read_deca_model(path: Path) -> DecaWeights:
    """Returns the weights of a `deca_model.tar`, on the CPU.

    The file is read as tensors alone: one that carries anything to run is refused. DECA itself skips weights that are
    missing or of another size and then computes with random ones; here they are an error.

    Raises:
      InputError: No such file, a damaged, unsafe or foreign one; all keys that are wrong are listed.
    """
    if not path.is_file():
        raise InputError(f"{path}: no such file; `asccl assets check {path.parent}` says where to get it")
    content = load_tensors(path)
    if not isinstance(content, Mapping):
        raise InputError(f"{path}: holds a {type(content).__name__}, expected DECA's dictionary of networks")
    absent = [name for name in _NETWORKS if not isinstance(content.get(name), Mapping)]
    if absent:
        found = ", ".join(str(key) for key in list(content)[:8]) or "nothing"
        raise InputError(f"{path}: lacks the networks {', '.join(absent)} (it has {found}): not DECA's checkpoint")
    problems = [problem for name in _NETWORKS for problem in _problems(name, content[name])]
    if problems:
        raise InputError(f"{path}: not DECA's weights: {'; '.join(problems)}")
    return DecaWeights(*({str(key): tensor.detach() for key, tensor in content[name].items()} for name in _NETWORKS))


def _problems(network: str, weights: Mapping[Any, Any]) -> list[str]:
    """What keeps weights from fitting their network."""
    with torch.device("meta"):
        expected = {key: tuple(tensor.shape) for key, tensor in _NETWORKS[network]().state_dict().items()}
    misshapen = []
    for key, shape in expected.items():
        weight = weights.get(key)
        if isinstance(weight, Tensor) and tuple(weight.shape) != shape:
            misshapen.append(f"{key} ({_size(weight.shape)}, expected {_size(shape)})")
        elif key in weights and not isinstance(weight, Tensor):
            misshapen.append(f"{key} ({type(weight).__name__}, expected a tensor)")
        elif isinstance(weight, Tensor) and not torch.isfinite(weight).all():
            misshapen.append(f"{key} (has values that are not finite)")
    kinds = {
        "lacks": [key for key in expected if key not in weights],
        "has unexpected": [str(key) for key in weights if key not in expected],
        "has unfit": misshapen,
    }
    if len(kinds["lacks"]) == len(expected):
        return [f"{network} has none of its {len(expected)} weights, but {', '.join(map(str, list(weights)[:8]))}"]
    return [f"{network} {kind} {', '.join(names)}" for kind, names in kinds.items() if names]


def _size(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape)) or "one value"
