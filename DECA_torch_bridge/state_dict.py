"""PyTorch checkpoint files as plain NumPy arrays, read without running anything a file may carry."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from asccl_jax.errors import InputError, require_torch
from asccl_jax.work import atomic_file

__all__ = [
    "load_tensors",
    "read_state_dict",
    "read_state_dicts",
    "write_state_dict",
    "write_state_dicts",
]

_WRAPPERS = ("state_dict", "model_state_dict", "model")


def load_tensors(path: Path) -> Any:
    """Returns what `torch.save` stored: containers, numbers, text and tensors, on the CPU. PyTorch must be there.

    Raises:
      InputError: An unreadable or damaged file, or one that names anything to run (it is told, and not run).
    """
    import torch

    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except (FileNotFoundError, IsADirectoryError, PermissionError) as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from error
    # A damaged file can fail anywhere in the unpickler, and as an OSError where an archive is cut off.
    except Exception as error:
        message = str(error).strip()
        forbidden = re.search(r"GLOBAL (\S+)", message)
        if forbidden:
            raise InputError(
                f"{path}: refused, nothing was run: it names {forbidden[1]}, and only tensors are read; get the file"
                " again from where it was published, or have its owner save model.state_dict()"
            ) from error
        detail = re.search(r"WeightsUnpickler error: *([^\n]+)", message)
        reason = (detail[1] if detail else message.split("\n")[0])[:160].strip() or type(error).__name__
        raise InputError(f"{path}: damaged or not a PyTorch checkpoint: {reason}; get the file again") from error


def read_state_dict(path: str | os.PathLike[str]) -> dict[str, np.ndarray]:
    """Returns the tensors of a checkpoint under their own names.

    Reads `torch.save` files old and new, on the CPU, with PyTorch's restricted unpickler: a file that would run code is
    refused. A mapping wrapped in "state_dict" (as training scripts save) is unwrapped, and so is the `module.` that
    `DataParallel` puts before every name. Half-precision tensors come back as float32.

    Raises:
      InputError: No such file, PyTorch is missing, a file that is damaged, unsafe or holds no state dict.
    """
    path = Path(path)
    state_dict = _unwrapped(_load(path))
    problem = _problem_with(state_dict)
    if problem:
        raise InputError(f"{path}: not a PyTorch state dict: {problem}; expected a mapping of names to tensors")
    return _as_arrays(state_dict)


def read_state_dicts(path: str | os.PathLike[str]) -> dict[str, dict[str, np.ndarray]]:
    """Returns the tensors of a checkpoint of several networks, by network and by their own names.

    Such a file is a mapping of networks to state dicts; each is read as `read_state_dict` reads a single one.

    Raises:
      InputError: No such file, PyTorch is missing, a file that is damaged, unsafe or not such a mapping.
    """
    path = Path(path)
    content = _load(path)
    if not isinstance(content, Mapping) or not content:
        raise InputError(f"{path}: not a checkpoint of several networks; expected a mapping of names to state dicts")
    problems = {str(name): _problem_with(state_dict) for name, state_dict in content.items()}
    if any(problems.values()):
        listed = "; ".join(f"{name}: {problem}" for name, problem in problems.items() if problem)
        raise InputError(f"{path}: not a checkpoint of several networks: {listed[:400]}; expected state dicts by name")
    return {str(name): _as_arrays(state_dict) for name, state_dict in content.items()}


def write_state_dict(path: str | os.PathLike[str], arrays: Mapping[str, np.ndarray]) -> None:
    """Writes arrays as a PyTorch state dict; the file appears whole or not at all.

    Args:
      path: File to write; an existing one is replaced.
      arrays: Values in the order the file is to have.

    Raises:
      InputError: PyTorch is missing, or there is no such folder.
    """
    _save(Path(path), arrays)


def write_state_dicts(path: str | os.PathLike[str], networks: Mapping[str, Mapping[str, np.ndarray]]) -> None:
    """Writes a checkpoint of several networks, a mapping of state dicts; the file appears whole or not at all.

    Args:
      path: File to write; an existing one is replaced.
      networks: Values of each network, in the order the file is to have.

    Raises:
      InputError: PyTorch is missing, or there is no such folder.
    """
    _save(Path(path), networks)


def _load(path: Path) -> Any:
    if not path.is_file():
        raise InputError(f"{path}: no such file; expected a PyTorch checkpoint (.pth, .pt, .tar)")
    require_torch(f"{path}: reading it")
    return load_tensors(path)


def _save(path: Path, arrays: Mapping[str, Any]) -> None:
    require_torch(f"{path}: writing it")
    import torch

    def as_tensors(value: Any) -> Any:
        if isinstance(value, Mapping):
            return {key: as_tensors(entry) for key, entry in value.items()}
        return torch.from_numpy(np.array(value))

    if not path.parent.is_dir():
        raise InputError(f"{path}: the folder {path.parent} does not exist; make it first")
    with atomic_file(path) as file:
        torch.save(as_tensors(arrays), file)


def _as_arrays(state_dict: Mapping[str, Any]) -> dict[str, np.ndarray]:
    arrays = {key: _as_array(tensor) for key, tensor in state_dict.items()}
    if all(key.startswith("module.") for key in arrays):
        arrays = {key.removeprefix("module."): array for key, array in arrays.items()}
    return arrays


def _unwrapped(content: Any) -> Any:
    for _ in _WRAPPERS:
        inner = [content[key] for key in _WRAPPERS if isinstance(content, Mapping) and key in content]
        if not inner or not isinstance(inner[0], Mapping):
            return content
        content = inner[0]
    return content


def _problem_with(state_dict: Any) -> str:
    """Returns what keeps an object from being a state dict, or nothing."""
    import torch

    if not isinstance(state_dict, Mapping):
        return f"it holds a {type(state_dict).__name__}"
    if not state_dict:
        return "it is empty"
    strange = [str(key) for key, value in state_dict.items() if not isinstance(value, torch.Tensor)]
    if strange:
        return f"{len(strange)} entries are no tensors ({', '.join(strange[:5])})"
    if any(not isinstance(key, str) for key in state_dict):
        return "some names are no strings"
    return ""


def _as_array(tensor: Any) -> np.ndarray:
    import torch

    dense = tensor.detach().to_dense() if tensor.layout != torch.strided else tensor.detach()
    if dense.dtype in (torch.bfloat16, torch.float16):
        dense = dense.float()
    return dense.contiguous().numpy()
