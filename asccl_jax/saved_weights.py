"""Trained weights on disk: a folder with a network's settings and its variables, which appears whole or not at all."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import jax
import numpy as np
import orbax.checkpoint as ocp

from asccl_jax.data.sole_writer import sole_writer
from asccl_jax.errors import InputError, writing
from asccl_jax.remote_folder import AnyPath, open_remote, reading, remote_address
from asccl_jax.trees import named_shapes, shape_differences
from asccl_jax.types import Variables

__all__ = ["SavedWeights", "WeightsFormat", "describe_weights", "load_weights", "replaced_name", "save_weights"]

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
