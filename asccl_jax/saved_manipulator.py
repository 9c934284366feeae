"""A trained manipulator on disk: a folder with its settings and the weights of its four networks."""

from __future__ import annotations

from pathlib import Path

import jax

from asccl_jax.manipulator_settings import ManipulatorSettings
from asccl_jax.models.manipulator import Manipulator, init_networks
from asccl_jax.saved_weights import WeightsFormat, load_weights, save_weights

__all__ = ["Manipulator", "load_manipulator", "save_manipulator"]

_LAYOUT = WeightsFormat("manipulator", 1, saver="save_manipulator")


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
    save_weights(directory, _LAYOUT, variables=manipulator.variables, settings=manipulator.settings.to_dict())


def load_manipulator(path: str | Path) -> Manipulator:
    """Returns the manipulator saved in a folder, or in `best/` (else `last/`) of a training run's folder.

    Raises:
      InputError: No manipulator there, another format version, or weights that do not fit its settings; all that do not
        fit are listed.
    """
    variables, settings = load_weights(
        path,
        _LAYOUT,
        read_settings=ManipulatorSettings.from_dict,
        fresh_variables=lambda settings: init_networks(settings, jax.random.key(0)),
    )
    return Manipulator(variables=variables, settings=settings)
