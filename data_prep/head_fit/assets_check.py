"""Which files of a head and of DECA there are, what each is for, where a person gets it, and whether it is sound."""

from __future__ import annotations

import argparse
import dataclasses
import sys
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from asccl_jax.errors import InputError, exit_on_input_error, require_torch
from asccl_jax.process import command_name
from asccl_jax.work import require_writable_file, sole_writer
from data_prep.head_fit import flame_files
from data_prep.head_fit.flame_files import DECA_MODEL
from data_prep.head_fit.head_assets import export_head, load_assets, write_builtin_assets

__all__ = ["ASSET_FILES", "AssetFile", "AssetState", "check_assets", "main"]


class AssetFile(NamedTuple):
    """A file a person has to get.

    Attributes:
      name: Its name in the folder.
      purpose: What it is for.
      origin: Where to get it.
      licence: On which terms.
      needed_by: Encoders that cannot do without it.
    """

    name: str
    purpose: str
    origin: str
    licence: str
    needed_by: tuple[str, ...]


ENCODERS = ("landmarks", "deca")

_FLAME_LICENCE = "FLAME's model licence, non-commercial research; registration"
_DECA_LICENCE = "DECA's licence, non-commercial research"
_DECA_DATA = "folder data/ of https://github.com/yfeng95/DECA"

ASSET_FILES = (
    AssetFile(
        flame_files.MODEL,
        "head model: mesh, identity, expression, joints",
        "FLAME 2020 of https://flame.is.tue.mpg.de/download.php, from its zip file",
        _FLAME_LICENCE,
        ENCODERS,
    ),
    AssetFile(flame_files.LANDMARK_EMBEDDING, "where the 68 landmarks lie on it", _DECA_DATA, _DECA_LICENCE, ENCODERS),
    AssetFile(flame_files.HEAD_TEMPLATE, "its texture coordinates", _DECA_DATA, _DECA_LICENCE, ENCODERS),
    AssetFile(flame_files.UV_FACE_EYE_MASK, "where fine wrinkles may be", _DECA_DATA, _DECA_LICENCE, ENCODERS),
    AssetFile(flame_files.FIXED_DISPLACEMENT, "relief that every face has", _DECA_DATA, _DECA_LICENCE, ENCODERS),
    AssetFile(
        DECA_MODEL,
        "weights of DECA's encoders and detail decoder",
        "`fetch_data.sh` of https://github.com/yfeng95/DECA names the download",
        _DECA_LICENCE,
        ("deca",),
    ),
    AssetFile(
        flame_files.ALBEDO,
        "skin colours, for textured pictures only",
        "made from the Basel Face Model 2017 by https://github.com/TimoBolkart/BFM_to_FLAME",
        "the Basel Face Model's licence, non-commercial research; registration",
        (),
    ),
)


@dataclasses.dataclass(frozen=True)
class AssetState:
    """What was found of a file.

    Attributes:
      file: Which.
      there: Whether the folder has it.
      problem: What is wrong with it; empty for a sound file and for one that is not there.
      needed: Whether the encoder that was asked about cannot do without it.
    """

    file: AssetFile
    there: bool
    problem: str
    needed: bool

    @property
    def acceptable(self) -> bool:
        """Whether work can go on: sound, or absent and not needed."""
        return not self.problem if self.there else not self.needed


def check_assets(directory: Path, *, encoder: str) -> list[AssetState]:
    """Reads every file there is, as the programs will, and returns what was found.

    Args:
      directory: Folder with the files.
      encoder: One of `ENCODERS`, which decides what is needed.

    Raises:
      InputError: No such folder.
    """
    if not directory.is_dir():
        raise InputError(f"{directory}: no such folder; `asccl head write-builtin {directory}` makes a free head")
    _, problems = flame_files.survey(directory)
    states = []
    for file in ASSET_FILES:
        path = directory / file.name
        there = path.is_file()
        if there and file.name == DECA_MODEL:
            try:
                require_torch("Reading it")
                from DECA_torch_bridge.deca_model import read_deca_model

                read_deca_model(path)
            except InputError as error:
                problems[file.name] = str(error)
        states.append(AssetState(file, there, problems.get(file.name, "") if there else "", encoder in file.needed_by))
    return states


def _report(directory: Path, states: Sequence[AssetState], *, encoder: str) -> str:
    name_width = max(len(state.file.name) for state in states)
    purpose_width = max(len(state.file.purpose) for state in states)
    lines = [f"{'file':<{name_width}}  {'needed':6}  {'there':5}  {'sound':5}  what it is for"]
    lines.append(f"{'-' * name_width}  ------  -----  -----  {'-' * purpose_width}")
    for state in states:
        needed, there = ("yes" if answer else "no" for answer in (state.needed, state.there))
        sound = ("NO" if state.problem else "yes") if state.there else "-"
        there = "NO" if state.needed and not state.there else there
        lines.append(f"{state.file.name:<{name_width}}  {needed:6}  {there:5}  {sound:5}  {state.file.purpose}")
    wrong = [state for state in states if state.problem]
    if wrong:
        lines += ["", "Not sound:", *(_indented(state.problem) for state in wrong)]
    absent = [state for state in states if not state.there or state.problem]
    if absent:
        lines += ["", "Where to get what is missing or not sound:"]
        lines += [_indented(f"{state.file.name}: {state.file.origin} ({state.file.licence})") for state in absent]
    count = sum(not state.acceptable for state in states)
    verdict = f"{count} file(s) stand in the way of" if count else "All that is needed is there for"
    lines += ["", f"{verdict} the encoder `{encoder}` in {directory}."]
    return "\n".join(lines) + "\n"


def _indented(text: str) -> str:
    return textwrap.fill(
        text, 118, initial_indent="  ", subsequent_indent="    ", break_long_words=False, break_on_hyphens=False
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=command_name(),
        description="The head that code dicts are about: check a folder of FLAME's and DECA's files, write the free"
        " built-in head in the same files, or export a head for programs without PyTorch. No command needs these files:"
        " without a folder, the built-in head is used.",
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    check = commands.add_parser(
        "check",
        help="list the files, what each is for, where to get it, whether it is there and sound",
        description="Reads every file in DIR as the programs will (pickles as data only: nothing in them is run) and"
        " prints a table. Exit status 0: all that is needed is sound; 1: something is missing or unsound.",
    )
    check.add_argument("directory", metavar="DIR", type=Path, help="folder with the files")
    check.add_argument(
        "--encoder",
        choices=ENCODERS,
        default=ENCODERS[0],
        help=f"what the files are wanted for: `landmarks` fits the head to landmarks, `deca` runs DECA's networks and"
        f" also needs {DECA_MODEL} (default: %(default)s)",
    )
    write = commands.add_parser(
        "write-builtin",
        help="write the built-in head in FLAME's file format",
        description="Writes the synthetic head of this project, free of licences, as the files that FLAME and DECA"
        " use, 120 MB, for programs that read those. Files that are there already are never written over.",
    )
    write.add_argument("directory", metavar="DIR", type=Path, help="folder to write into; made if it does not exist")
    export = commands.add_parser(
        "export",
        help="write one file with what training and evaluation of manipulators need of a head",
        description="Writes mesh, blend shapes, joints and landmarks of a head as one npz file, some 25 MB, which JAX"
        " reads without PyTorch. What was made from licensed files is under their licence.",
    )
    export.add_argument(
        "directory",
        metavar="DIR",
        type=Path,
        nargs="?",
        help="folder with FLAME's and DECA's files (default: the built-in head)",
    )
    export.add_argument("--output", metavar="FILE", type=Path, required=True, help="file to write, as head.npz")
    return parser


@exit_on_input_error
def main(arguments: Sequence[str] | None = None) -> int:
    """Runs `asccl head check`, `write-builtin` or `export`; returns the exit status."""
    options = _parser().parse_args(arguments)
    if options.command == "export":
        require_writable_file(options.output)
        export_head(load_assets(options.directory), options.output)
        sys.stdout.write(f"The head is in {options.output}\n")
        return 0
    if options.command == "write-builtin":
        with sole_writer(options.directory, "DIR"):
            write_builtin_assets(options.directory)
        sys.stdout.write(f"The built-in head is in {options.directory}\n")
        return 0
    states = check_assets(options.directory, encoder=options.encoder)
    sys.stdout.write(_report(options.directory, states, encoder=options.encoder))
    return 0 if all(state.acceptable for state in states) else 1


if __name__ == "__main__":
    sys.exit(main())
