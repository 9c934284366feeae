"""`asccl weights`: what the checkpoints and weights of a run are, and their arrays as a file for other programs."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from asccl_jax.errors import InputError, exit_on_input_error, writing
from asccl_jax.process import command_name
from asccl_jax.work import require_writable_file

if TYPE_CHECKING:
    from asccl_jax.train.checkpoints.checkpoint_listing import Row, Source

__all__ = ["main"]

_DESCRIPTION = """\
Lists what a training run has saved, describes one checkpoint or folder of weights, or writes its arrays as a
safetensors file. Nothing in the run's folder is changed, so a run may be looked at while it trains.
"""

_EXAMPLES = """\
examples:
  asccl weights ls runs/asccl
  asccl weights show runs/asccl                        the newest checkpoint
  asccl weights show runs/asccl/checkpoints/95 --shapes
  asccl weights export runs/asccl/best metric.safetensors
  asccl weights export runs/asccl whole.safetensors --step 95 --optimizer
"""


@exit_on_input_error
def main(arguments: Sequence[str] | None = None) -> int:
    """Does what the command line asks for and returns the exit status: 0, 1 (full disk) or 2 (bad input).

    Args:
      arguments: Words after the command's name; None takes those of the process.

    Raises:
      InputError: Anything wrong with what the user gave.
    """
    options = _parser().parse_args(arguments)
    # Before the first import of JAX: a training that runs on this machine keeps its devices to itself.
    os.environ["JAX_PLATFORMS"] = "cpu"
    sys.stdout.write(options.run(options))
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=command_name(),
        description=_DESCRIPTION,
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(required=True, metavar="ls|show|export")

    ls = commands.add_parser("ls", help="list the checkpoints and weights of a run")
    ls.add_argument("run_folder", type=Path, metavar="RUN", help="--workdir of a run, or its checkpoints/")
    ls.set_defaults(run=_list)

    show = commands.add_parser("show", help="describe one checkpoint or folder of weights")
    show.add_argument("--shapes", action="store_true", help="name every array")
    show.set_defaults(run=_show)

    export = commands.add_parser("export", help="write weights as a safetensors file")
    export.add_argument("--optimizer", action="store_true", help="the optimiser's state too, of a checkpoint")
    export.set_defaults(run=_export)

    for command in (show, export):
        command.add_argument(
            "source",
            type=Path,
            metavar="SOURCE",
            help="a run (its newest checkpoint), RUN/checkpoints/STEP or RUN/best",
        )
        command.add_argument("--step", type=int, metavar="N", help="checkpoint of a run (default: the newest)")
    export.add_argument("output", type=Path, metavar="OUT.safetensors", help="file to write, or to replace")
    for command in (ls, show):
        command.add_argument("--json", action="store_true", help="for programs")
    return parser


def _list(options: argparse.Namespace) -> str:
    from asccl_jax.train.checkpoints.checkpoint_listing import checkpoint_rows, find_checkpoints, table, weights_rows

    directory = find_checkpoints(options.run_folder)
    checkpoints, weights = checkpoint_rows(directory), weights_rows(directory.parent)
    if options.json:
        found = {"checkpoints": checkpoints, "weights": weights}
        return _as_json({name: [row.to_dict() for row in rows] for name, rows in found.items()})
    head = ("CHECKPOINT", "WRITTEN", "SIZE", "SCORE", "")
    shown = table(head, map(_line, checkpoints), right=(2, 3)) if checkpoints else f"no checkpoint in {directory}\n"
    if weights:
        shown += "\n" + table(("WEIGHTS", "WRITTEN", "SIZE", "KIND"), map(_weights_line, weights), right=(2,))
    return shown


def _line(row: Row) -> tuple[str, ...]:
    remark = ", ".join(row.marks) + (f": {row.problem}" if row.problem else "")
    return (row.name, *_when_and_size(row), "" if row.score is None else f"{row.score:.6g}", remark)


def _weights_line(row: Row) -> tuple[str, ...]:
    return (f"{row.name}/", *_when_and_size(row), row.kind)


def _when_and_size(row: Row) -> tuple[str, str]:
    from asccl_jax.train.checkpoints.checkpoint_listing import readable_bytes

    return f"{row.written.astimezone():%Y-%m-%d %H:%M:%S}", readable_bytes(row.bytes)


def _show(options: argparse.Namespace) -> str:
    from asccl_jax.train.checkpoints.checkpoint_listing import describe_arrays, find_source

    source = find_source(options.source, options.step)
    arrays = describe_arrays(source.arrays)
    if options.json:
        groups = [{"name": name, **figures} for name, figures in source.groups(arrays).items()]
        listed = [{"name": array.name, "shape": array.shape, "dtype": array.dtype} for array in arrays]
        return _as_json({**source.describe(), "groups": groups, **({"arrays": listed} if options.shapes else {})})
    return "".join(_shown(source, arrays, shapes=options.shapes))


def _shown(source: Source, arrays: Sequence[Any], *, shapes: bool) -> Iterator[str]:
    from asccl_jax.train.checkpoints.checkpoint_listing import readable_bytes, table

    told = source.describe()
    config = told.pop("config", None) or told.pop("settings", {})
    told["bytes"] = readable_bytes(told["bytes"])
    told = {name: value for name, value in told.items() if value is not None}
    for name, value in told.items():
        yield f"{name + ':':<10} {_plain(value)}\n"
    yield f"\n{'config' if source.step is not None else 'settings'}:\n"
    yield from _nested(config, "  ")
    lines = [
        (name, f"{group['numbers']:,}", readable_bytes(group["bytes"]), ", ".join(group["dtypes"]))
        for name, group in source.groups(arrays).items()
    ]
    yield "\n" + table(("ARRAYS OF", "NUMBERS", "SIZE", "TYPES"), lines, right=(1, 2))
    if shapes:
        yield "\n" + table(("ARRAY", "SHAPE", "TYPE"), ((a.name, str(a.shape), a.dtype) for a in arrays))


def _plain(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {_plain(entry)}" for name, entry in value.items())
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _nested(config: Mapping[str, Any], indent: str) -> Iterator[str]:
    for name, value in config.items():
        if isinstance(value, Mapping):
            yield f"{indent}{name}:\n"
            yield from _nested(value, indent + "  ")
        else:
            yield f"{indent}{name}: {value if isinstance(value, str) and value else json.dumps(value)}\n"


def _export(options: argparse.Namespace) -> str:
    from asccl_jax.train.checkpoints.checkpoint_listing import find_source, safetensors_bytes
    from asccl_jax.work import write_atomically

    if options.output.suffix != ".safetensors":
        raise InputError(f"{options.output}: expected a name that ends in .safetensors")
    require_writable_file(options.output)
    source = find_source(options.source, options.step)
    content, count = safetensors_bytes(source, optimizer=options.optimizer)
    with writing(options.output):
        options.output.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(options.output, content)
    return f"{options.output}: {count} arrays of {source.path}, {len(content):,} bytes\n"


def _as_json(found: Any) -> str:
    return json.dumps(found, indent=2) + "\n"
