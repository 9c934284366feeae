"""Output folders that remember what made them, so that no run mixes its results with another's."""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from asccl_jax.data.atomic import write_atomically
from asccl_jax.errors import InputError, writing

__all__ = ["claim_folder", "fingerprint"]


def claim_folder(output: Path, name: str, settings: Mapping[str, Any], *, overwrite: bool) -> None:
    """Marks a folder, which is made if need be, as holding results of some settings.

    Args:
      output: The folder.
      name: File in it that tells the settings.
      settings: What decides the results, as JSON has it.
      overwrite: Take it over from others.

    Raises:
      InputError: It holds results of others.
    """
    path = output / name
    content = json.dumps(settings, indent=1) + "\n"
    if path.is_file() and not overwrite and path.read_text(encoding="utf-8") != content:
        raise InputError(
            f"--output {output}: {name} there tells of other settings; give another folder, or --overwrite to make all"
            " of it again"
        )
    with writing(path):
        output.mkdir(parents=True, exist_ok=True)
        write_atomically(path, content)


def fingerprint(weights: Any) -> str:
    """Returns a number that other weights do not have, as text."""
    found = 0
    for leaf in jax.tree.leaves(weights):
        found = zlib.crc32(np.ascontiguousarray(leaf).data.cast("B"), found)
    return f"{found:08x}"
