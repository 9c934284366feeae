"""The networks that score faces, on disk: which there are, where to get their files, and a folder with one of them."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from asccl_jax.errors import InputError
from asccl_jax.models.arcface import ArcFace
from asccl_jax.models.efficient_face import EfficientFace
from asccl_jax.models.resnet_face import ResNetFace
from asccl_jax.models.syncnet import SyncNet
from asccl_jax.saved_weights import WeightsFormat, load_weights, save_weights
from asccl_jax.types import Variables

__all__ = [
    "FACE_NETWORK_FILES",
    "FaceModule",
    "FaceNetwork",
    "FaceNetworkFile",
    "face_module",
    "load_face_network",
    "missing_face_network",
    "module_settings",
    "save_face_network",
]

FaceModule = ResNetFace | EfficientFace | ArcFace | SyncNet

_MODULES: Mapping[str, type[FaceModule]] = {
    "resnet-face": ResNetFace,
    "efficient-face": EfficientFace,
    "arcface": ArcFace,
    "syncnet": SyncNet,
}
_OF_EVERY_MODULE = ("parent", "name")
_FORMAT_VERSION = 1


class FaceNetworkFile(NamedTuple):
    """A file of weights a person has to get.

    Attributes:
      file: Its published name.
      origin: Where to get it.
      purpose: What it serves.
    """

    file: str
    origin: str
    purpose: str


FACE_NETWORK_FILES: Mapping[str, FaceNetworkFile] = {
    "resnet-face": FaceNetworkFile(
        "resnet18_110.pth",
        "https://github.com/ronghuaiyang/arcface-pytorch, whose README names the download",
        "ResNetFace-18 embeddings: the Fréchet distance of the published tables (fad_resnetface18)",
    ),
    "efficient-face": FaceNetworkFile(
        "EfficientFace_Trained_on_AffectNet7.pth.tar",
        "https://github.com/zengqunzhao/EfficientFace, whose README and issues name the download",
        "EfficientFace features and classes: expression similarity and emotion accuracy (expression_csim,"
        " emotion_accuracy_efficientface)",
    ),
    "arcface": FaceNetworkFile(
        "backbone.pth",
        "https://github.com/deepinsight/insightface, recognition/arcface_torch: a model of IResNet-50 or IResNet-100",
        "ArcFace embeddings: identity similarity and the Fréchet distance by identity (identity_csim, fad_arcface)",
    ),
    "syncnet": FaceNetworkFile(
        "syncnet_v2.model",
        "https://github.com/joonson/syncnet_python, whose download_model.sh names the download",
        "SyncNet embeddings of mouth and sound: lip synchrony (lse_d_25fps, lse_c_25fps, lse_d_30fps, lse_c_30fps)",
    ),
}
"""What there is to get, by the name that `asccl convert` takes."""


@dataclasses.dataclass(frozen=True)
class FaceNetwork:
    """A network with its weights.

    Attributes:
      name: Which one: a key of `FACE_NETWORK_FILES`.
      variables: Collections "params" and "batch_stats".
      settings: Attributes of its module.
      file_hash: SHA-256 of the PyTorch file its weights come from, in hexadecimal, to be quoted beside scores.
    """

    name: str
    variables: Variables
    settings: Mapping[str, Any]
    file_hash: str

    @property
    def module(self) -> FaceModule:
        """The network without weights; equal and of equal hash for equal settings."""
        return face_module(self.name, self.settings)


def save_face_network(directory: str | Path, network: FaceNetwork) -> None:
    """Writes a network as `NAME.json` and `variables/`, replacing what was there once the new one is whole.

    Raises:
      WriteError: The disk is full, or access is denied; what was there is as it was.
    """
    settings = {"network": dict(network.settings), "file_hash": network.file_hash}
    save_weights(directory, _layout(network.name), variables=network.variables, settings=settings)


def load_face_network(directory: str | Path, expected: str) -> FaceNetwork:
    """Returns a network with its weights on the device.

    Args:
      directory: Folder that `save_face_network` wrote.
      expected: Name of the network that must be there.

    Raises:
      InputError: Another network or none there, another format version, or weights that do not fit its settings; all
        that do not fit are listed.
    """
    variables, (module, file_hash) = load_weights(
        directory,
        _layout(expected),
        read_settings=lambda settings: _read_settings(expected, settings),
        fresh_variables=lambda read: _fresh(read[0]),
    )
    # Moved once: every batch would else send them anew.
    return FaceNetwork(expected, jax.device_put(variables), module_settings(module), file_hash)


def missing_face_network(name: str) -> str:
    """Returns how to get a network, for whoever has none: file, origin, command and what it serves.

    >>> missing_face_network("syncnet").split(";")[0]
    'get syncnet_v2.model from https://github.com/joonson/syncnet_python, whose download_model.sh names the download'
    """
    file, origin, purpose = FACE_NETWORK_FILES[name]
    return f"get {file} from {origin}; then `asccl convert {name} {file} {name}`; it serves {purpose}"


def face_module(name: str, settings: Mapping[str, Any] | None = None) -> FaceModule:
    """Returns a network without weights.

    Args:
      name: Which one: a key of `FACE_NETWORK_FILES`.
      settings: Its attributes; what is not named is as published.

    Raises:
      InputError: No such network, or settings it does not have.
    """
    if name not in _MODULES:
        raise InputError(f"face network {name!r}: expected one of {', '.join(_MODULES)}")
    published = _MODULES[name]()
    given = {key: tuple(value) if isinstance(value, list) else value for key, value in (settings or {}).items()}
    known = module_settings(published)
    wrong = [key for key, value in given.items() if not _is_like(value, known.get(key))]
    if wrong:
        listed = ", ".join(f"{key}={given[key]!r}" for key in wrong)
        raise InputError(f"{name} setting {listed}: expected positive integers as in {known}")
    return type(published)(**{**known, **given})


def _is_like(value: Any, published: Any) -> bool:
    if isinstance(published, tuple):
        alike = isinstance(value, tuple) and len(value) == len(published)
        return alike and all(_is_like(entry, 1) for entry in value)
    return isinstance(published, int) and type(value) is int and value > 0


def module_settings(module: FaceModule) -> dict[str, Any]:
    """Returns the attributes that make a network what it is, as `FaceNetwork.settings` has them."""
    names = (field.name for field in dataclasses.fields(module))
    return {name: getattr(module, name) for name in names if name not in _OF_EVERY_MODULE}


def _layout(name: str) -> WeightsFormat:
    if name not in _MODULES:
        raise InputError(f"face network {name!r}: expected one of {', '.join(_MODULES)}")
    return WeightsFormat(name, _FORMAT_VERSION, saver="save_face_network")


def _read_settings(name: str, settings: Mapping[str, Any]) -> tuple[FaceModule, str]:
    network, file_hash = settings.get("network"), settings.get("file_hash")
    if not isinstance(network, dict) or not isinstance(file_hash, str):
        raise InputError(f"{name}: its settings are not those of a network; convert it again")
    return face_module(name, network), file_hash


def _fresh(module: FaceModule) -> Variables:
    inputs = (jnp.zeros((1, *shape), jnp.float32) for shape in module.input_shapes)
    variables: Any = module.init(jax.random.key(0), *inputs)
    return variables
