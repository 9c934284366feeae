"""Command line of the bridge: `python -m DECA_torch_bridge precompute|render|edit|import-tracks ...`."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from asccl_jax.errors import InputError, exit_on_input_error

__all__ = ["main"]

_HELP = """usage: python -m DECA_torch_bridge COMMAND [OPTIONS]     (COMMAND --help explains each)

  precompute     code dicts, NMFC and shape images of any video, with or without licensed files
  render         pictures or a video of a code dict, edited or not
  edit           what the neural renderer draws an edited clip from, aligned as its source
  import-tracks  tracks to train the manipulator on, of ACTOR_deca.pkl files or an Aff-Wild2 folder
"""


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
    if name == "precompute":
        from data_prep.reconstruct.reconstruct_command import main as precompute

        return precompute(rest)
    if name == "render":
        from data_prep.reconstruct.render_files import main as render

        return render(rest)
    if name == "edit":
        from data_prep.reconstruct.edit_command import main as edit

        return edit(rest)
    if name == "import-tracks":
        from data_prep.head_fit.import_tracks import main as import_tracks

        return import_tracks(rest)
    raise InputError(f"unknown command {name!r}: expected precompute, render, edit or import-tracks")


if __name__ == "__main__":
    sys.exit(main())
