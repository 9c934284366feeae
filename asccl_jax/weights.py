"""Weights on disk: networks of every kind saved, loaded and described."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp

from asccl_jax.buckets import AnyPath, open_remote, reading, remote_address
from asccl_jax.errors import InputError, writing
from asccl_jax.models.correlation import FrozenMetric, init_variables
from asccl_jax.models.face_networks import ArcFace, EfficientFace, ResNetFace, SyncNet
from asccl_jax.models.manipulator import Manipulator, init_manipulator
from asccl_jax.models.renderer import Renderer, init_renderer
from asccl_jax.models.vgg import Vgg, init_vgg
from asccl_jax.settings import ManipulatorSettings, MetricSettings, RendererSettings
from asccl_jax.trees import named_shapes, shape_differences
from asccl_jax.types import Variables
from asccl_jax.work import sole_writer

__all__ = [
    "FACE_NETWORK_FILES",
    "FORMAT_VERSION",
    "FaceModule",
    "FaceNetwork",
    "FaceNetworkFile",
    "FrozenMetric",
    "Manipulator",
    "Renderer",
    "SavedWeights",
    "WeightsFormat",
    "describe_weights",
    "face_module",
    "load_face_network",
    "load_manipulator",
    "load_metric",
    "load_renderer",
    "load_vgg",
    "load_weights",
    "missing_face_network",
    "module_settings",
    "replaced_name",
    "save_face_network",
    "save_manipulator",
    "save_metric",
    "save_renderer",
    "save_vgg",
    "save_weights",
]

Settings = TypeVar("Settings")
_VARIABLES = "variables"


@dataclasses.dataclass(frozen=True)
class WeightsFormat:
    """What tells one kind of saved network from another.

    Attributes:
      kind: What it is, as error messages call it and `asccl convert` knows it; its settings are in `KIND.json`.
      version: Version of the layout, compared on reading.
      saver: Function that writes it, for error messages.
    """

    kind: str
    version: int
    saver: str

    @property
    def description(self) -> str:
        """Name of the file with version and settings; a folder that has one is whole."""
        return f"{self.kind}.json"


class SavedWeights(NamedTuple):
    """What a folder of weights says of itself.

    Attributes:
      kind: `WeightsFormat.kind` of what is there.
      settings: As they were saved.
      variables: Folder of the arrays, as Orbax writes them.
    """

    kind: str
    settings: dict[str, Any]
    variables: Path


def save_weights(
    directory: str | Path, layout: WeightsFormat, *, variables: Variables, settings: Mapping[str, Any]
) -> None:
    """Writes settings and `variables/`, replacing what was there only once the new one is whole.

    Killed at any moment it leaves a whole network, the old one or the new one, where `load_weights` finds it.
    With several processes every one may call this; the first writes.

    Args:
      directory: Folder to make or replace.
      layout: Kind of network.
      variables: Its arrays.
      settings: What JSON can hold and the reader makes the settings of.

    Raises:
      InputError: The folder is in a bucket.
      WriteError: The disk is full, or access is denied; what was there is as it was.
    """
    if (address := remote_address(directory)) is not None:
        raise InputError(f"{address}: weights are saved to a disk only; copy them with `gcloud storage cp -r`")
    if jax.process_index() != 0:
        return
    directory = Path(directory).absolute()
    with writing(directory):
        _save(directory, layout, variables, settings)


def _save(directory: Path, layout: WeightsFormat, variables: Variables, settings: Mapping[str, Any]) -> None:
    directory.parent.mkdir(parents=True, exist_ok=True)
    unfinished = directory.with_name(f".{directory.name}.unfinished")
    replaced = _replaced(directory)
    if not directory.exists() and (replaced / layout.description).is_file():
        replaced.rename(directory)  # an earlier save was killed between its two renames
    with sole_writer(unfinished, f"{directory}:"):
        _empty(unfinished, layout)
        _remove(replaced, layout)
        with _checkpointer(layout) as checkpointer:
            checkpointer.save(unfinished / _VARIABLES, jax.device_get(variables))
        description = {"format_version": layout.version, "settings": settings}
        (unfinished / layout.description).write_text(json.dumps(description, indent=2) + "\n")
        if directory.exists():
            directory.rename(replaced)
        unfinished.rename(directory)
        _remove(replaced, layout)


def load_weights(
    path: str | Path,
    layout: WeightsFormat,
    *,
    read_settings: Callable[[Mapping[str, Any]], Settings],
    fresh_variables: Callable[[Settings], Variables],
) -> tuple[Variables, Settings]:
    """Returns variables, as NumPy arrays, and settings of a folder, or of `best/` (else `last/`) of a training run's.

    Args:
      path: Folder that `save_weights` wrote, or a training run's; one in a bucket is `gs://BUCKET/FOLDER`.
      layout: Kind of network.
      read_settings: Makes the settings of what was saved.
      fresh_variables: Makes variables of some settings; only their shapes are asked for.

    Raises:
      InputError: No such network there, another version, or weights that do not fit its settings; all that do not fit
        are listed.
    """
    address = remote_address(path)
    if address is None:
        return _load(Path(path).absolute(), layout, read_settings, fresh_variables)
    with reading(address):
        # Orbax's kind of path does here what pathlib's does.
        return _load(open_remote(address).path, layout, read_settings, fresh_variables)


def _load(
    path: AnyPath,
    layout: WeightsFormat,
    read_settings: Callable[[Mapping[str, Any]], Settings],
    fresh_variables: Callable[[Settings], Variables],
) -> tuple[Variables, Settings]:
    directory = _find(path, layout)
    settings = read_settings(_read_description(directory / layout.description, layout)["settings"])
    expected = jax.eval_shape(lambda: fresh_variables(settings))
    with _checkpointer(layout) as checkpointer:
        _check_shapes(checkpointer, expected, directory, layout)
        # NumPy arrays as the target: the weights come back on the host, whatever devices saved them.
        target = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), expected)
        return checkpointer.restore(directory / _VARIABLES, target), settings


def describe_weights(directory: Path) -> SavedWeights | None:
    """Returns what `save_weights` wrote to a folder, of whatever kind; None where it did not.

    Raises:
      InputError: Its description is cut short.
    """
    for place in (directory, _replaced(directory)):
        if not (place / _VARIABLES).is_dir():
            continue
        for file in sorted(place.glob("*.json")):
            description = _read_json(file, file.stem)
            if isinstance(description, dict) and isinstance(description.get("settings"), dict):
                return SavedWeights(file.stem, description["settings"], place / _VARIABLES)
    return None


def _checkpointer(layout: WeightsFormat) -> ocp.StandardCheckpointer:
    # The calling process works alone: no barrier with the others, which may be elsewhere.
    alone = jax.process_index()
    options = ocp.options.MultiprocessingOptions(
        primary_host=alone, active_processes={alone}, barrier_sync_key_prefix=f"{layout.kind}{alone}"
    )
    return ocp.StandardCheckpointer(multiprocessing_options=options)


def _replaced(directory: AnyPath) -> AnyPath:
    """Returns where a network stands while the one that replaces it takes its name."""
    return directory.with_name(replaced_name(directory.name))


def replaced_name(name: str) -> str:
    """Returns the name that a folder of weights bears while the one that replaces it takes its own."""
    return f".{name}.replaced"


def _remove(directory: Path, layout: WeightsFormat) -> None:
    # The description goes first: what has none is never taken for a whole network.
    (directory / layout.description).unlink(missing_ok=True)
    shutil.rmtree(directory, ignore_errors=True)


def _empty(directory: Path, layout: WeightsFormat) -> None:
    (directory / layout.description).unlink(missing_ok=True)
    for path in directory.iterdir():
        shutil.rmtree(path) if path.is_dir() else path.unlink()


def _find(path: AnyPath, layout: WeightsFormat) -> AnyPath:
    for directory in (path, path / "best", path / "last"):
        for candidate in (directory, _replaced(directory)):
            if (candidate / layout.description).is_file():
                return candidate
    if not path.is_dir():
        raise InputError(f"{layout.kind} {path}: no such directory; give one that {layout.saver} or training wrote")
    raise InputError(
        f"{layout.kind} {path}: no {layout.description} there, nor in its best/ or last/; give a directory that"
        f" {layout.saver} or training wrote, or convert a PyTorch checkpoint with `asccl convert {layout.kind}`"
    )


def _read_description(file: AnyPath, layout: WeightsFormat) -> dict[str, Any]:
    description = _read_json(file, layout.kind)
    version = description.get("format_version") if isinstance(description, dict) else None
    if version != layout.version or not isinstance(description.get("settings"), dict):
        raise InputError(f"{file}: format version {version}, expected {layout.version} with settings; save it again")
    return description


def _read_json(file: AnyPath, kind: str) -> Any:
    try:
        return json.loads(file.read_text())
    except ValueError as error:
        raise InputError(f"{file}: not valid JSON ({error}); save the {kind} again") from error


def _check_shapes(
    checkpointer: ocp.StandardCheckpointer, expected: Variables, directory: AnyPath, layout: WeightsFormat
) -> None:
    if not (directory / _VARIABLES).is_dir():
        raise InputError(f"{layout.kind} {directory}: its {_VARIABLES}/ is missing; copy or save it again")
    saved = checkpointer.metadata(directory / _VARIABLES).item_metadata.tree
    differences = shape_differences(named_shapes(saved), named_shapes(expected))
    if differences:
        raise InputError(f"{layout.kind} {directory}: its weights do not fit its settings: {'; '.join(differences)}")


# A trained metric on disk: a folder with its settings and its weights, which appears whole or not at all.

FORMAT_VERSION = 1
_LAYOUT = WeightsFormat("metric", FORMAT_VERSION, saver="save_metric")


def save_metric(directory: str | Path, metric: FrozenMetric) -> None:
    """Writes a metric as `metric.json` and `variables/`, replacing what was there only once the new one is whole.

    Killed at any moment it leaves a whole metric, the old one or the new one, where `load_metric` finds it.
    With several processes every one may call this; the first writes.

    Args:
      directory: Folder to make or replace.
      metric: Metric whose variables and settings are saved.

    Raises:
      WriteError: The disk is full, or access is denied; what was there is as it was.
    """
    save_weights(directory, _LAYOUT, variables=metric.variables, settings=metric.settings.to_dict())


def load_metric(path: str | Path) -> FrozenMetric:
    """Returns the metric saved in a folder, or in `best/` (else `last/`) of a training run's folder.

    Raises:
      InputError: No metric there, another format version, or weights that do not fit its settings; all that do not fit
        are listed.
    """
    variables, settings = load_weights(
        path,
        _LAYOUT,
        read_settings=MetricSettings.from_dict,
        fresh_variables=lambda settings: init_variables(settings, jax.random.key(0)),
    )
    return FrozenMetric(variables=variables, settings=settings)


# A trained manipulator on disk: a folder with its settings and the weights of its four networks.

_MANIPULATOR_LAYOUT = WeightsFormat("manipulator", 1, saver="save_manipulator")


def save_manipulator(directory: str | Path, manipulator: Manipulator) -> None:
    """Writes a manipulator as `manipulator.json` and `variables/`, replacing what was there once the new one is whole.

    Killed at any moment it leaves a whole one, old or new. With several processes every one may call this; the first
    writes.

    Args:
      directory: Folder to make or replace.
      manipulator: What is saved.

    Raises:
      WriteError: The disk is full, or access is denied; what was there is as it was.
    """
    save_weights(
        directory, _MANIPULATOR_LAYOUT, variables=manipulator.variables, settings=manipulator.settings.to_dict()
    )


def load_manipulator(path: str | Path) -> Manipulator:
    """Returns the manipulator saved in a folder, or in `best/` (else `last/`) of a training run's folder.

    Raises:
      InputError: No manipulator there, another format version, or weights that do not fit its settings; all that do not
        fit are listed.
    """
    variables, settings = load_weights(
        path,
        _MANIPULATOR_LAYOUT,
        read_settings=ManipulatorSettings.from_dict,
        fresh_variables=lambda settings: init_manipulator(settings, jax.random.key(0)),
    )
    return Manipulator(variables=variables, settings=settings)


# A trained renderer on disk: a folder with its settings and the weights of its generator and discriminators.

_RENDERER_LAYOUT = WeightsFormat("renderer", 1, saver="save_renderer")


def save_renderer(directory: str | Path, renderer: Renderer) -> None:
    """Writes a renderer as `renderer.json` and `variables/`, replacing what was there once the new one is whole.

    Killed at any moment it leaves a whole one, old or new. With several processes every one may call this; the first
    writes. The discriminators go with it: training on another actor starts from them too.

    Args:
      directory: Folder to make or replace.
      renderer: What is saved, the weights of all its settings' networks.

    Raises:
      WriteError: The disk is full, or access is denied; what was there is as it was.
    """
    save_weights(directory, _RENDERER_LAYOUT, variables=renderer.params, settings=renderer.settings.to_dict())


def load_renderer(path: str | Path) -> Renderer:
    """Returns the renderer saved in a folder, or in `best/` (else `last/`) of a training run's folder.

    Raises:
      InputError: No renderer there, another format version, or weights that do not fit its settings; all that do not
        fit are listed.
    """
    params, settings = load_weights(
        path,
        _RENDERER_LAYOUT,
        read_settings=RendererSettings.from_dict,
        fresh_variables=lambda settings: init_renderer(settings, jax.random.key(0)),
    )
    return Renderer(params=params, settings=settings)


# VGG-19's convolutions on disk: a folder with their widths and weights.

_VGG_LAYOUT = WeightsFormat("vgg19", 1, saver="save_vgg")


def save_vgg(directory: str | Path, vgg: Vgg) -> None:
    """Writes the convolutions as `vgg19.json` and `variables/`, replacing what was there once the new ones are whole.

    Raises:
      WriteError: The disk is full, or access is denied; what was there is as it was.
    """
    save_weights(directory, _VGG_LAYOUT, variables=vgg.params, settings={"widths": list(vgg.widths)})


def load_vgg(path: str | Path) -> Vgg:
    """Returns the convolutions saved in a folder.

    Raises:
      InputError: None there, another format version, or weights that do not fit their widths; all that do not fit are
        listed.
    """
    params, widths = load_weights(
        path,
        _VGG_LAYOUT,
        read_settings=_read_widths,
        fresh_variables=lambda widths: init_vgg(jax.random.key(0), widths),
    )
    return Vgg(params=params, widths=widths)


def _read_widths(settings: Mapping[str, Any]) -> tuple[int, ...]:
    widths = settings.get("widths")
    if not isinstance(widths, list) or len(widths) != 5 or not all(isinstance(width, int) for width in widths):
        raise InputError(f"vgg19 setting widths={widths!r}: expected five integers")
    return tuple(widths)


# The networks that score faces, on disk: which there are, where to get their files, and a folder with one of them.

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
