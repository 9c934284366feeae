"""`asccl video manipulate-coefficients`: code dicts in, the same clips with another expression out."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from asccl_jax import process
from asccl_jax.data.schema import EMOTIONS
from asccl_jax.errors import InputError, exit_on_input_error, writing
from asccl_jax.paths import is_litter
from asccl_jax.process import command_name
from asccl_jax.progress import ProgressBar
from asccl_jax.work import require_writable_file, require_writable_folder, sole_writer

if TYPE_CHECKING:
    import numpy as np

    from asccl_jax.data.codes import CodeDict
    from asccl_jax.models.manipulator import Manipulator

__all__ = ["main"]

_SETTINGS_FILE = "manipulation.json"
_VERSION = 1
"""Raised when equal sources and settings give other results, so that old ones are not taken for them."""
_SUFFIX = ".npz"

_DESCRIPTION = """\
Gives clips another expression: jaw opening and expression coefficients are edited, all else of the code dicts stays.
What is wanted is told by label, or shown by reference clips; several follow each other along the clip.
"""

_EXAMPLES = """\
examples:
  asccl video manipulate-coefficients clip.npz --checkpoint runs/manipulator --emotion happy --output happy.npz
  asccl video manipulate-coefficients clip.npz --checkpoint runs/manipulator --emotion neutral angry \\
      --transition linear --intensity 1.3 --output rising.npz
  asccl video manipulate-coefficients reconstruction --checkpoint runs/manipulator --reference actor.npz --output edited
  asccl head draw happy.npz --output happy.mp4
"""


@exit_on_input_error
def main(arguments: Sequence[str] | None = None) -> int:
    """Edits the code dicts that the command line names and returns the exit status: 0, or 2 for bad input.

    Args:
      arguments: Words after the command's name; None takes those of the process.

    Raises:
      InputError: Anything wrong with what the user gave.
    """
    options = _parser().parse_args(arguments)
    _check(options)
    # Before the first import of JAX: XLA reads its flags once.
    process.apply_xla_flags()
    from asccl_jax.weights import load_manipulator

    sources = _files(options.codes)
    manipulator = load_manipulator(options.checkpoint)
    edit = _editor(manipulator, options)
    if not options.codes.is_dir():
        codes = _load(options.codes)
        options.output.parent.mkdir(parents=True, exist_ok=True)
        with writing(options.output):
            edit(codes, options.codes).save(options.output)
        sys.stdout.write(f"{options.output}: {len(codes)} frames\n")
        return 0
    with sole_writer(options.output, "--output"):
        return _edit_folder(sources, edit, options, _settings(manipulator, options))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=command_name(),
        description=_DESCRIPTION,
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("codes", type=Path, metavar="CODES", help="code dict (.npz), or a folder of them, or what reconstruct wrote")
    add("--checkpoint", type=Path, required=True, metavar="DIR", help="manipulator, or workdir of a run (its best)")
    wanted = parser.add_mutually_exclusive_group(required=True)
    wanted.add_argument("--emotion", nargs="+", choices=EMOTIONS, metavar="E", help=f"some of {', '.join(EMOTIONS)}")
    wanted.add_argument("--reference", nargs="+", type=Path, metavar="CODES", help="code dicts of clips to take after")
    add("--intensity", type=float, default=1.0, metavar="X", help="0 (none) to 1.5 (exaggerated); default: 1")
    add(
        "--base",
        choices=("neutral", "source"),
        help="what intensity 0 is: the neutral label's style (default with --emotion), or the source clip's own"
        " (default with --reference)",
    )
    add("--transition", choices=("steps", "linear"), default="steps", help="how several follow each other")
    add("--seed", type=int, default=0, metavar="N", help="another seed is another variety of the emotion (default: 0)")
    add("--compat", choices=("paper", "released"), default="paper", help="released: the published programme's rules")
    add("--output", type=Path, required=True, metavar="OUT", help="code dict to write (.npz); a folder for a folder")
    add("--overwrite", action="store_true", help="edit clips of a folder again that are already there")
    return parser


def _check(options: argparse.Namespace) -> None:
    if not options.codes.exists():
        raise InputError(f"{options.codes}: no such file; expected a code dict (.npz) or a folder of them")
    if options.codes.is_dir():
        if options.output.is_file():
            raise InputError(f"--output {options.output}: is a file; a folder of clips needs a folder")
        if _folder(options.codes).resolve() == options.output.resolve():
            raise InputError(f"--output {options.output}: holds the sources; give another folder")
    elif options.output.suffix != _SUFFIX or options.output.is_dir():
        raise InputError(f"--output {options.output}: expected the name of a {_SUFFIX} file")
    require_writable = require_writable_folder if options.codes.is_dir() else require_writable_file
    require_writable(options.output)
    if options.compat == "released" and options.transition != "steps":
        raise InputError(f"--transition {options.transition}: --compat released knows steps only")
    if not 0 <= options.intensity <= 1.5:
        raise InputError(f"--intensity {options.intensity:g}: expected 0 (no change of emotion) to 1.5")


def _folder(directory: Path) -> Path:
    """Where the code dicts of a folder lie: below the output of a reconstruction they have a folder of their own."""
    return directory / "codes" if (directory / "codes").is_dir() else directory


def _files(codes: Path) -> list[Path]:
    if not codes.is_dir():
        return [codes]
    found = sorted(path for path in _folder(codes).glob(f"*{_SUFFIX}") if not is_litter(path.name))
    if not found:
        raise InputError(
            f"{codes}: no code dicts ({_SUFFIX}) there, nor in its codes/; make some with asccl data reconstruct"
        )
    return found


def _load(path: Path) -> CodeDict:
    from asccl_jax.data.codes import CodeDict

    codes = CodeDict.load(path)
    if not len(codes):
        raise InputError(f"{path}: a code dict of 0 frames, expected at least one")
    return codes


def _coefficients(path: Path, codes: CodeDict) -> np.ndarray:
    from asccl_jax.data.tracks import coefficients_of

    try:
        return coefficients_of(codes)
    except InputError as error:
        raise InputError(f"{path}: {error}") from error


def _editor(manipulator: Manipulator, options: argparse.Namespace) -> Callable[[CodeDict, Path], CodeDict]:
    """Returns what edits a clip."""
    import jax

    from asccl_jax.infer.manipulation import (
        draw_latent,
        label_styles,
        manipulate_coefficients,
        reference_style,
        with_intensity,
    )

    z = draw_latent(manipulator, jax.random.key(options.seed))
    if options.emotion:
        styles = label_styles(manipulator, [EMOTIONS.index(emotion) for emotion in options.emotion], z)
    else:
        styles = _reference_styles(manipulator, options.reference)
    neutral = label_styles(manipulator, [EMOTIONS.index("neutral")], z)[0]
    base = options.base or ("neutral" if options.emotion else "source")

    def edit(codes: CodeDict, path: Path) -> CodeDict:
        source = _coefficients(path, codes)
        start = neutral
        if base == "source" and options.intensity != 1:
            start = reference_style(manipulator, source, frame_index=codes.frame_index)
        edited = manipulate_coefficients(
            manipulator,
            source,
            with_intensity(styles, start, options.intensity),
            compat=options.compat,
            transition=options.transition,
            frame_index=codes.frame_index,
        )
        return codes.edited(edited[:, 1:], edited[:, 0])

    return edit


def _reference_styles(manipulator: Manipulator, references: Sequence[Path]) -> np.ndarray:
    import numpy as np

    from asccl_jax.infer.manipulation import reference_style

    clips = [(path, _load(path)) for path in references]
    return np.stack(
        [
            reference_style(manipulator, _coefficients(path, codes), frame_index=codes.frame_index)
            for path, codes in clips
        ]
    )


def _settings(manipulator: Manipulator, options: argparse.Namespace) -> dict[str, Any]:
    """What decides the result of a folder's clips, for a later run to compare."""
    from asccl_jax.data.records import file_sha256
    from asccl_jax.work import fingerprint

    names = ("emotion", "intensity", "base", "transition", "seed", "compat")
    references = [[str(path), file_sha256(path)] for path in options.reference or ()]
    chosen = {name: getattr(options, name) for name in names}
    return {
        "checkpoint": str(options.checkpoint),
        "weights": fingerprint(manipulator.variables),
        "reference": references,
        "version": _VERSION,
        **chosen,
    }


def _edit_folder(
    sources: Sequence[Path],
    edit: Callable[[CodeDict, Path], CodeDict],
    options: argparse.Namespace,
    settings: dict[str, Any],
) -> int:
    """Edits every clip that is not there yet, or was edited as another one; a bad one does not stop the others."""
    from asccl_jax.data.records import file_sha256
    from asccl_jax.work import claim_folder, is_made, making

    claim_folder(options.output, _SETTINGS_FILE, settings, overwrite=options.overwrite)
    made_of = {path: {**settings, "source": file_sha256(path)} for path in sources}
    wanted = [path for path in sources if options.overwrite or not is_made(options.output / path.name, made_of[path])]
    faults = []
    for path in ProgressBar(wanted, unit="clip"):
        try:
            edited = edit(_load(path), path)
        except InputError as error:
            faults.append(str(error))
            continue
        with writing(options.output / path.name), making(options.output / path.name, made_of[path]):
            edited.save(options.output / path.name)
    done = f"{options.output}: {len(wanted) - len(faults)} clips written, {len(sources) - len(wanted)} already there"
    sys.stdout.write(f"{done}\n")
    if faults:
        raise InputError(f"{len(faults)} of {len(sources)} clips left out: {'; '.join(faults[:3])}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
