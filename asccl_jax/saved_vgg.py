"""VGG-19's convolutions on disk: a folder with their widths and weights."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax

from asccl_jax.errors import InputError
from asccl_jax.models.vgg import Vgg, init_vgg
from asccl_jax.saved_weights import WeightsFormat, load_weights, save_weights

__all__ = ["load_vgg", "save_vgg"]

_LAYOUT = WeightsFormat("vgg19", 1, saver="save_vgg")


def save_vgg(directory: str | Path, vgg: Vgg) -> None:
    """Writes the convolutions as `vgg19.json` and `variables/`, replacing what was there once the new ones are whole.

    Raises:
      WriteError: The disk is full, or access is denied; what was there is as it was.
    """
    save_weights(directory, _LAYOUT, variables=vgg.params, settings={"widths": list(vgg.widths)})


def load_vgg(path: str | Path) -> Vgg:
    """Returns the convolutions saved in a folder.

    Raises:
      InputError: None there, another format version, or weights that do not fit their widths; all that do not fit are
        listed.
    """
    params, widths = load_weights(
        path,
        _LAYOUT,
        read_settings=_read_widths,
        fresh_variables=lambda widths: init_vgg(jax.random.key(0), widths),
    )
    return Vgg(params=params, widths=widths)


def _read_widths(settings: Mapping[str, Any]) -> tuple[int, ...]:
    widths = settings.get("widths")
    if not isinstance(widths, list) or len(widths) != 5 or not all(isinstance(width, int) for width in widths):
        raise InputError(f"vgg19 setting widths={widths!r}: expected five integers")
    return tuple(widths)
