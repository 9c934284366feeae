"""Command line of the bridge: `python -m DECA_torch_bridge precompute|render|edit|import-tracks ...`."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence

from asccl_jax.errors import InputError, exit_on_input_error
from asccl_jax.process import called_as

__all__ = ["main"]

_HELP = """usage: python -m DECA_torch_bridge COMMAND [OPTIONS]     (COMMAND --help explains each)

  precompute     code dicts, NMFC and shape images of any video, with or without licensed files
  render         pictures or a video of a code dict, edited or not
  edit           what the neural renderer draws an edited clip from, aligned as its source
  import-tracks  tracks to train the manipulator on, of ACTOR_deca.pkl files or an Aff-Wild2 folder
"""

_MODULES = {
    "precompute": "data_prep.reconstruct.reconstruct_command",
    "render": "data_prep.reconstruct.render_files",
    "edit": "data_prep.reconstruct.edit_command",
    "import-tracks": "data_prep.head_fit.import_tracks",
}


@exit_on_input_error
def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one of the commands and returns the exit status.

    Args:
      arguments: Words of the command line; None takes those of the process.

    Raises:
      InputError: There is no such command.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    if not words or words[0] in ("-h", "--help"):
        sys.stdout.write(_HELP)
        return 0
    name, *rest = words
    if name not in _MODULES:
        raise InputError(f"unknown command {name!r}: expected one of {', '.join(_MODULES)}")
    with called_as(name):
        return int(importlib.import_module(_MODULES[name]).main(rest))


if __name__ == "__main__":
    sys.exit(main())
