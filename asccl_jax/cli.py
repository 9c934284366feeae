"""The `asccl` command: one name for every tool of the project, each of which is also a module of its own."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence
from typing import NamedTuple

from asccl_jax import __version__, process
from asccl_jax.errors import InputError, exit_on_input_error
from asccl_jax.train.faults import ends

__all__ = ["COMMANDS", "Command", "main"]


class Command(NamedTuple):
    """A tool behind `asccl NAME`.

    Attributes:
      module: Module with a function `main(arguments) -> exit status`; imported only when called.
      summary: One line for `asccl --help`.
      extra: Optional dependency group the tool needs, or None.
    """

    module: str
    summary: str
    extra: str | None = None


COMMANDS: dict[str, Command] = {
    "synthesise": Command("data_prep.synthetic.__main__", "make videos of synthetic talking heads", "prep"),
    "prepare": Command("data_prep.__main__", "turn videos into training records", "prep"),
    "inspect": Command("asccl_jax.data.__main__", "summarise and verify a directory of records"),
    "train": Command("asccl_jax.main", "train a model from a config"),
    "checkpoint": Command(
        "asccl_jax.train.checkpoints.checkpoint_command", "list, describe or export what a training has saved"
    ),
    "evaluate-metric": Command("asccl_jax.evals.evaluate_metric", "score a trained metric against baselines"),
    "assets": Command(
        "data_prep.head_fit.assets_check", "check the head model's files, or write the built-in ones", "prep"
    ),
    "reconstruct": Command(
        "data_prep.reconstruct.reconstruct_command", "turn videos into code dicts and renders", "prep"
    ),
    "import-tracks": Command(
        "data_prep.head_fit.import_tracks", "turn published coefficient files into tracks to train on", "prep"
    ),
    "manipulate": Command("data_prep.video.manipulate", "give the face in a video another emotion", "prep"),
    "compose": Command("data_prep.video.compose_command", "lay rendered faces back into their video", "prep"),
    "train-renderer": Command("data_prep.video.train_renderer", "train a renderer for the person in a video", "prep"),
    "manipulate-coefficients": Command("asccl_jax.infer.manipulate_command", "give code dicts another emotion"),
    "evaluate-manipulator": Command(
        "asccl_jax.evals.evaluate_manipulator", "score trained manipulators against exact truth"
    ),
    "edit-conditioning": Command(
        "data_prep.reconstruct.edit_command", "draw edited code dicts as the renderer's input", "prep"
    ),
    "render": Command("asccl_jax.infer.render_command", "draw faces from what was reconstructed, edited or not"),
    "evaluate-renderer": Command("asccl_jax.evals.evaluate_renderer", "score trained renderers against true frames"),
    "evaluate": Command(
        "data_prep.evaluate.evaluate_command", "score manipulated videos as the papers do, and more", "prep"
    ),
    "convert": Command("DECA_torch_bridge.convert", "convert weights between PyTorch and Flax", "bridge"),
    "bench": Command("asccl_jax.bench.__main__", "measure speed and memory"),
}


@exit_on_input_error
def main(arguments: Sequence[str] | None = None) -> int:
    """Runs `asccl COMMAND ...` and returns its exit status.

    Args:
      arguments: Words after `asccl`; None takes those of the process.

    Raises:
      InputError: Unknown command, or one whose optional dependencies are not installed.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    if not words or words[0] in ("-h", "--help"):
        sys.stdout.write(_help())
        return 0
    if words[0] == "--version":
        sys.stdout.write(f"asccl-jax {__version__}\n")
        return 0
    name, *rest = words
    if name not in COMMANDS:
        raise InputError(f"unknown command {name!r}: expected one of {', '.join(COMMANDS)}")
    command = COMMANDS[name]
    process.apply_xla_flags()
    try:
        module = importlib.import_module(command.module)
    except ModuleNotFoundError as error:
        if command.extra is None or (error.name or "").startswith("asccl_jax"):
            raise
        raise InputError(
            f"asccl {name} needs the Python package {error.name!r}: install the optional dependencies with"
            f' pip install "asccl-jax[{command.extra}]"'
        ) from error
    if arguments is None and name == "train":
        # As `python -m asccl_jax.main` ends: another start is worth it after some ends, which the status tells apart.
        sys.excepthook = ends.crash
        ends.leave(module.main(rest))
    return int(module.main(rest) or 0)


def _help() -> str:
    width = max(len(name) for name in COMMANDS)
    lines = [f"  {name:<{width}}  {command.summary}" for name, command in COMMANDS.items()]
    return "\n".join(
        [
            "usage: asccl COMMAND [OPTIONS]     (asccl COMMAND --help explains each)",
            "",
            "Speech-preserving facial expression manipulation in JAX.",
            "",
            *lines,
            "",
        ]
    )


if __name__ == "__main__":
    sys.exit(main())
