"""The `asccl` command: one name for every tool of the project, each of which is also a module of its own."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from asccl_jax import __version__, process
from asccl_jax.errors import InputError, exit_on_input_error
from asccl_jax.train.faults import ends

__all__ = ["COMMANDS", "GROUPS", "Command", "main"]


class Command(NamedTuple):
    """A tool behind `asccl NAME`.

    Attributes:
      module: Module with a function `main(arguments) -> exit status`; imported only when called.
      summary: One line for `--help`.
      extra: Optional dependency group the tool needs, or None.
      everyday: Its short name, which `asccl --help` lists first, or None.
      old: The name it had before it came into its group, which still works, or None. A second word is a verb that the
        module takes itself.
    """

    module: str
    summary: str
    extra: str | None = None
    everyday: str | None = None
    old: str | None = None


GROUPS = {
    "video": "the face in a video",
    "data": "what networks learn from",
    "eval": "scores and reports",
    "weights": "trained networks on disk",
    "head": "the head model, its files and pictures",
}
"""What the commands of a group are about."""

_CHECKPOINTS = "asccl_jax.train.checkpoints.checkpoint_command"
_HEAD = "data_prep.head_fit.assets_check"

COMMANDS: dict[str, Command] = {
    "video manipulate": Command(
        "data_prep.video.manipulate", "give the face in a video another emotion", "prep", everyday="manipulate"
    ),
    "video train-renderer": Command(
        "data_prep.video.train_renderer", "train a renderer for the person in a video", "prep", old="train-renderer"
    ),
    "video manipulate-coefficients": Command(
        "asccl_jax.infer.manipulate_command", "give code dicts another emotion", old="manipulate-coefficients"
    ),
    "video render": Command(
        "asccl_jax.infer.render_command", "draw faces from what was reconstructed, edited or not", old="render"
    ),
    "video compose": Command(
        "data_prep.video.compose_command", "lay rendered faces back into their video", "prep", old="compose"
    ),
    "video side-by-side": Command(
        "data_prep.video.side_by_side", "show versions of one video beside each other", "prep"
    ),
    "data synthesise": Command(
        "data_prep.synthetic.__main__", "make videos of synthetic talking heads", "prep", old="synthesise"
    ),
    "data prepare": Command("data_prep.__main__", "turn videos into training records", "prep", everyday="prepare"),
    "data inspect": Command("asccl_jax.data.__main__", "summarise and verify a directory of records", old="inspect"),
    "data reconstruct": Command(
        "data_prep.reconstruct.reconstruct_command",
        "turn videos into code dicts and renders",
        "prep",
        old="reconstruct",
    ),
    "data import-tracks": Command(
        "data_prep.head_fit.import_tracks",
        "turn published coefficient files into tracks to train on",
        "prep",
        old="import-tracks",
    ),
    "data edit-conditioning": Command(
        "data_prep.reconstruct.edit_command",
        "draw edited code dicts as the renderer's input",
        "prep",
        old="edit-conditioning",
    ),
    "train": Command("asccl_jax.main", "train a model from a config", everyday="train"),
    "eval videos": Command(
        "data_prep.evaluate.evaluate_command",
        "score manipulated videos as the papers do, and more",
        "prep",
        everyday="evaluate",
    ),
    "eval metric": Command(
        "asccl_jax.evals.evaluate_metric", "score a trained metric against baselines", old="evaluate-metric"
    ),
    "eval manipulator": Command(
        "asccl_jax.evals.evaluate_manipulator",
        "score trained manipulators against exact truth",
        old="evaluate-manipulator",
    ),
    "eval renderer": Command(
        "asccl_jax.evals.evaluate_renderer", "score trained renderers against true frames", old="evaluate-renderer"
    ),
    "weights convert": Command(
        "DECA_torch_bridge.convert", "convert weights between PyTorch and Flax", "bridge", everyday="convert"
    ),
    "weights ls": Command(_CHECKPOINTS, "list the checkpoints and weights of a run", old="checkpoint ls"),
    "weights show": Command(_CHECKPOINTS, "describe one checkpoint or folder of weights", old="checkpoint show"),
    "weights export": Command(_CHECKPOINTS, "write weights as a safetensors file", old="checkpoint export"),
    "head check": Command(_HEAD, "list the files and whether they are there and sound", "prep", old="assets check"),
    "head write-builtin": Command(
        _HEAD, "write the built-in head in FLAME's file format", "prep", old="assets write-builtin"
    ),
    "head draw": Command("data_prep.reconstruct.render_files", "draw code dicts, as pictures or as a video", "prep"),
    "head export": Command(_HEAD, "write what training and evaluation need of a head", "prep", old="assets export"),
    "bench": Command("asccl_jax.bench.__main__", "measure speed and memory", everyday="bench"),
}
"""Every command by its full name: a group and a verb; training and benchmarks are groups by themselves."""

_EVERYDAY = {command.everyday: name for name, command in COMMANDS.items() if command.everyday}
_OLD = {command.old: name for name, command in COMMANDS.items() if command.old}
_HELP = ("-h", "--help")


@exit_on_input_error
def main(arguments: Sequence[str] | None = None) -> int:
    """Runs `asccl COMMAND ...` or `asccl GROUP COMMAND ...` and returns its exit status.

    Args:
      arguments: Words after `asccl`; None takes those of the process.

    Raises:
      InputError: Unknown command, or one whose optional dependencies are not installed.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    if not words or words[0] in _HELP:
        sys.stdout.write(_help())
        return 0
    if words[0] == "--version":
        sys.stdout.write(f"asccl-jax {__version__}\n")
        return 0
    if words[0] in GROUPS and (len(words) == 1 or words[1] in _HELP):
        sys.stdout.write(_group_help(words[0]))
        return 0
    command, typed, rest = _find(words)
    process.apply_xla_flags()
    try:
        module = importlib.import_module(command.module)
    except ModuleNotFoundError as error:
        if command.extra is None or (error.name or "").startswith("asccl_jax"):
            raise
        raise InputError(
            f"asccl {typed} needs the Python package {error.name!r}: install the optional dependencies with"
            f' pip install "asccl-jax[{command.extra}]"'
        ) from error
    with process.called_as(typed):
        if arguments is None and typed == "train":
            # As `python -m asccl_jax.main` ends: another start is worth it after some ends, which the status tells.
            sys.excepthook = ends.crash
            ends.leave(module.main(rest))
        return int(module.main(rest) or 0)


def _find(words: Sequence[str]) -> tuple[Command, str, list[str]]:
    """Returns the command, its name as it was typed, and the words that its module takes; names what was renamed."""
    first, *rest = words
    if first in _EVERYDAY:
        return COMMANDS[_EVERYDAY[first]], first, rest
    if first in GROUPS:
        name = f"{first} {rest[0]}"
        if name not in COMMANDS:
            raise InputError(f"unknown command {name!r}: expected one of {', '.join(_of_group(first))}")
        command = COMMANDS[name]
        return (command, first, rest) if _takes_verb(command) else (command, name, rest[1:])
    renamed = [name for old, name in _OLD.items() if old.split()[0] == first]
    if not renamed:
        raise InputError(f"unknown command {first!r}: expected one of {', '.join([*_EVERYDAY, *GROUPS])}")
    command = COMMANDS[renamed[0]]
    new = _OLD.get(" ".join(words[:2]), renamed[0].split()[0]) if _takes_verb(command) else renamed[0]
    sys.stderr.write(f"asccl {first} is now asccl {new}; the old name goes with the next release\n")
    return command, first, rest


def _takes_verb(command: Command) -> bool:
    return command.old is not None and " " in command.old


def _of_group(group: str) -> list[str]:
    return [name for name in COMMANDS if name.split()[0] == group]


def _help() -> str:
    verbs = {group: ", ".join(name.split()[1] for name in _of_group(group)) for group in GROUPS}
    return "\n".join(
        [
            f"usage: {process.command_name()} COMMAND [OPTIONS]     (COMMAND --help explains each)",
            f"       {process.command_name()} GROUP COMMAND [OPTIONS]     (GROUP --help lists its commands)",
            "",
            "Speech-preserving facial expression manipulation in JAX.",
            "",
            "commands for every day:",
            *_table({everyday: COMMANDS[name].summary for everyday, name in _EVERYDAY.items()}),
            "",
            "groups of all commands:",
            *_table({group: f"{summary}: {verbs[group]}" for group, summary in GROUPS.items()}),
            "",
        ]
    )


def _group_help(group: str) -> str:
    summaries = {}
    for name in _of_group(group):
        everyday = COMMANDS[name].everyday
        summaries[name.split()[1]] = COMMANDS[name].summary + (f" (also asccl {everyday})" if everyday else "")
    return "\n".join(
        [
            f"usage: {process.command_name()} {group} COMMAND [OPTIONS]     (COMMAND --help explains each)",
            "",
            f"{GROUPS[group][0].upper()}{GROUPS[group][1:]}.",
            "",
            *_table(summaries),
            "",
        ]
    )


def _table(summaries: Mapping[str, str]) -> list[str]:
    width = max(map(len, summaries))
    return [f"  {name:<{width}}  {summary}" for name, summary in summaries.items()]


if __name__ == "__main__":
    sys.exit(main())
