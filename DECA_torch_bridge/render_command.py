"""Command line of the render-only entry: `python -m DECA_torch_bridge render CODES.npz --output DIR|VIDEO`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from asccl_jax.data.codes import CodeDict
from asccl_jax.errors import InputError, exit_on_input_error
from asccl_jax.work import require_writable_file, require_writable_folder
from DECA_torch_bridge.reconstruct.drawing import make_renderer
from DECA_torch_bridge.reconstruct.one_thread import available_cores
from DECA_torch_bridge.render_files import PICTURES, VIEWS, choose_view, read_alignment, render_files

__all__ = ["main"]

_EXAMPLES = """examples:
  a video of NMFC and shape, side by side, of codes that `asccl reconstruct` has made:
    python -m DECA_torch_bridge render codes/CLIP.npz --output head.mp4
  edited codes of the same clip as files, aligned as the source was:
    python -m DECA_torch_bridge render edited.npz --output renders --view aligned --track tracks/CLIP.npz"""


@exit_on_input_error
def main(arguments: Sequence[str] | None = None) -> int:
    """Renders a code dict and returns the exit status.

    Args:
      arguments: Words of the command line; None takes those of the process.

    Raises:
      InputError: Something the user gave is wrong.
    """
    options = _parser().parse_args(arguments)
    codes = CodeDict.load(options.codes)
    alignment = None
    if options.view == "aligned":
        if options.track is None:
            raise InputError("--view aligned: needs --track, the file of OUTPUT/tracks that belongs to the clip")
        alignment = read_alignment(options.track, codes)
    renderer = make_renderer(
        options.assets,
        detail=codes.detail is not None,
        device=options.device,
        batch=options.batch,
        threads=available_cores(),
    )
    view = choose_view(options.view, codes, size=options.size, alignment=alignment)
    pictures = tuple(options.pictures.split(","))
    if unknown := [name for name in pictures if name not in PICTURES]:
        raise InputError(f"--pictures {','.join(unknown)}: expected some of {', '.join(PICTURES)}")
    require_writable = require_writable_file if options.output.suffix else require_writable_folder
    require_writable(options.output)
    count = render_files(renderer, codes, options.output, view=view, pictures=pictures, fps=options.fps)
    sys.stdout.write(f"{options.output}: {count} frames of {', '.join(pictures)}\n")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m DECA_torch_bridge render",
        description="Draws a code dict, edited or not, as pictures or as a video.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("codes", type=Path, help="code dict (.npz)")
    parser.add_argument("--output", required=True, type=Path, help="folder, or name of a video (.mp4)")
    parser.add_argument("--pictures", default="nmfc,shape", help=f"some of {','.join(PICTURES)} (nmfc,shape)")
    parser.add_argument("--view", choices=VIEWS, default="crop", help="coordinates of the pictures (crop)")
    parser.add_argument("--size", type=int, help="side of crops (224) and aligned pictures (256)")
    parser.add_argument("--track", type=Path, help="for --view aligned: the clip's file of OUTPUT/tracks")
    parser.add_argument("--assets", type=Path, help="folder of FLAME's and DECA's files (default: the built-in head)")
    parser.add_argument("--fps", type=float, default=30.0, help="frame rate of a video (30)")
    parser.add_argument("--device", default="cpu", help="PyTorch device (cpu)")
    parser.add_argument("--batch", type=int, default=16, help="frames drawn at a time (16)")
    return parser


if __name__ == "__main__":
    sys.exit(main())
