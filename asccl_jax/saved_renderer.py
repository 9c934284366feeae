"""A trained renderer on disk: a folder with its settings and the weights of its generator and discriminators."""

from __future__ import annotations

from pathlib import Path

import jax

from asccl_jax.models.renderer import Renderer, init_networks
from asccl_jax.renderer_settings import RendererSettings
from asccl_jax.saved_weights import WeightsFormat, load_weights, save_weights

__all__ = ["Renderer", "load_renderer", "save_renderer"]

_LAYOUT = WeightsFormat("renderer", 1, saver="save_renderer")


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
    save_weights(directory, _LAYOUT, variables=renderer.params, settings=renderer.settings.to_dict())


def load_renderer(path: str | Path) -> Renderer:
    """Returns the renderer saved in a folder, or in `best/` (else `last/`) of a training run's folder.

    Raises:
      InputError: No renderer there, another format version, or weights that do not fit its settings; all that do not
        fit are listed.
    """
    params, settings = load_weights(
        path,
        _LAYOUT,
        read_settings=RendererSettings.from_dict,
        fresh_variables=lambda settings: init_networks(settings, jax.random.key(0)),
    )
    return Renderer(params=params, settings=settings)
