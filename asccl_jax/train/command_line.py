"""The words of `python -m asccl_jax.main ...`: parsed without JAX, every mistake one clear line."""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Iterator, Sequence
from pathlib import Path

from absl import flags
from ml_collections import ConfigDict, config_flags

from asccl_jax.errors import InputError
from asccl_jax.paths import expand_home, find_recipe
from asccl_jax.process import command_name
from asccl_jax.train.faults import ends
from asccl_jax.train.run.profile import ProfiledSteps, parse_profiled_steps

__all__ = ["TrainCommand", "help_text", "parse"]

_INTRODUCTION = f"""\
 --config configs/asccl.py[:VARIANT] [--workdir DIR] [--config.KEY=VALUE ...]

Trains what a recipe describes. The same command goes on from the newest checkpoint in DIR; SIGTERM or Ctrl-C saves
and stops.

  python -m asccl_jax.main --config configs/asccl.py:demo --workdir runs/demo --config.data.dir=records
  python -m asccl_jax.main --config configs/asccl.py --config.init_from=backbone --config.batch_size=64
  python -m asccl_jax.main --config configs/asccl.py --multihost     (once on every host of a TPU slice or Slurm job)

The recipe's file explains every key; --config.epochs takes the place of steps that a variant gives. DIR gets
config.json (and config_history.json, where settings change on the way), metrics.jsonl, tensorboard/, checkpoints/,
initial/, best/, last/, report/ and summary.json.

{ends.SUMMARY}
options:
"""


@dataclasses.dataclass(frozen=True)
class TrainCommand:
    """A parsed command line.

    Attributes:
      config: The recipe with its overrides.
      recipe: Its file, with the variant after a colon.
      workdir: Folder of the run.
      multihost: Whether to start JAX's multi-process runtime.
      coordinator: Address of process 0 as host:port; None lets JAX find it (Cloud TPU, Slurm, Open MPI, Kubernetes).
      num_processes: Number of processes, or None.
      process_id: Index of this one, or None.
      profile: Steps to trace, or None.
      max_restarts: Starts after the first, where an attempt ends unexpectedly.
      stall_timeout: Seconds without anything moving after which a process ends; 0: never.
      heartbeat_timeout: Seconds of silence after which another process counts as lost.
      join_timeout: Seconds to wait for the others at the start.
    """

    config: ConfigDict
    recipe: str
    workdir: Path
    multihost: bool
    coordinator: str | None
    num_processes: int | None
    process_id: int | None
    profile: ProfiledSteps | None
    max_restarts: int
    stall_timeout: int
    heartbeat_timeout: int
    join_timeout: int


def parse(words: Sequence[str]) -> TrainCommand:
    """Returns what the words after the program's name ask for.

    Raises:
      InputError: No or an unreadable recipe, an unknown variant, flag or config key, or a value of a wrong type.
    """
    words = list(_with_recipe(words))
    values = _flag_values(words)
    try:
        rest = values(["main", *words])
    except (AttributeError, KeyError) as error:
        raise InputError(_unknown_key_message(words)) from error
    except OSError as error:
        raise InputError(f"cannot read the recipe of --config: {_last_line(error)}") from error
    except flags.Error as error:
        raise InputError(_last_line(error)) from error
    if rest[1:]:
        raise InputError(f"unexpected argument {rest[1]!r}; see --help")
    if values.config is None:
        raise InputError("no recipe: give --config configs/asccl.py, or configs/asccl.py:demo to try; see --help")
    # Reading any entry of a recipe that failed to load raises; do it here, for its message.
    try:
        config = ConfigDict(values.config)
    except OSError as error:
        raise InputError(f"cannot read the recipe of --config: {_last_line(error)}") from error
    if (values.coordinator or values.num_processes is not None) and not values.multihost:
        raise InputError("--coordinator, --num_processes and --process_id need --multihost")
    asked = config_flags.get_override_values(values["config"])
    if "epochs" in asked and "steps" not in asked:
        config.steps = 0  # A variant may give steps; epochs that are asked for count instead.
    _expand_home_folders(config)
    return TrainCommand(
        config=config,
        recipe=_recipes(words)[-1],
        workdir=Path(expand_home(values.workdir)),
        multihost=values.multihost,
        coordinator=values.coordinator,
        num_processes=values.num_processes,
        process_id=values.process_id,
        profile=None if values.profile is None else parse_profiled_steps(values.profile),
        max_restarts=values.max_restarts,
        stall_timeout=values.stall_timeout,
        heartbeat_timeout=values.heartbeat_timeout,
        join_timeout=values.join_timeout,
    )


def _expand_home_folders(config: ConfigDict) -> None:
    for name, value in config.items():
        if isinstance(value, ConfigDict):
            _expand_home_folders(value)
        elif isinstance(value, str):
            config[name] = expand_home(value)


def help_text() -> str:
    """Returns what `--help` prints."""
    values = _flag_values(())
    names = ["config", "workdir", "multihost", "coordinator", "num_processes", "process_id", "profile"]
    names += ["max_restarts", "stall_timeout", "heartbeat_timeout", "join_timeout"]
    return f"usage: {command_name()}{_INTRODUCTION}" + "".join(
        f"  --{name:<17} {values[name].help}\n" for name in names
    )


def _flag_values(words: Sequence[str]) -> flags.FlagValues:
    values = flags.FlagValues()
    config_flags.DEFINE_config_file(
        "config",
        None,
        "recipe, with an optional variant after a colon; --config.KEY=VALUE overrides",
        flag_values=values,
        sys_argv=["main", *words],
    )
    flags.DEFINE_string(
        "workdir", "runs/asccl", "folder of the run, or gs://BUCKET/FOLDER (default runs/asccl)", flag_values=values
    )
    flags.DEFINE_boolean("multihost", False, "one of several processes that train together", flag_values=values)
    flags.DEFINE_string("coordinator", None, "host:port of process 0, where JAX cannot find it", flag_values=values)
    flags.DEFINE_integer("num_processes", None, "number of processes, with --coordinator", flag_values=values)
    flags.DEFINE_integer("process_id", None, "index of this process, with --coordinator", flag_values=values)
    flags.DEFINE_string(
        "profile",
        None,
        "profiler trace into DIR/profile: of N steps after the first few, or FIRST:LAST",
        flag_values=values,
    )
    _define_count("max_restarts", 0, "starts again after a crash or a lost process, at most so often", values)
    _define_count("stall_timeout", 600, "seconds without a step until it ends with 75; 0: never", values)
    _define_count("heartbeat_timeout", 100, "seconds of silence until another process is lost", values, least=5)
    _define_count("join_timeout", 300, "seconds to wait for the other processes at the start", values, least=5)
    return values


def _define_count(name: str, default: int, text: str, values: flags.FlagValues, *, least: int = 0) -> None:
    """Defines a flag of a whole number, which may be spelled with dashes as well."""
    flags.DEFINE_integer(name, default, f"{text} (default {default})", flag_values=values, lower_bound=least)
    flags.DEFINE_alias(name.replace("_", "-"), name, flag_values=values)


def _last_line(error: Exception) -> str:
    """Returns the last line that says something: absl wraps a recipe's own error in a traceback."""
    return [line for line in str(error).splitlines() if line.strip()][-1].strip()


def _unknown_key_message(words: Sequence[str]) -> str:
    """Names the override that the recipe does not know, and the nearest key it does."""
    recipes = _recipes(words)
    values = _flag_values(())
    values(["main", "--config", recipes[-1]])
    known = list(_keys(values.config))
    for word in words:
        key = word.removeprefix("--").partition("=")[0].removeprefix("config.")
        if word.lstrip("-").startswith("config.") and key not in known:
            near = difflib.get_close_matches(key, known, n=1)
            hint = f"did you mean config.{near[0]}?" if near else f"it has {', '.join(sorted(known))}"
            return f"unknown config key config.{key} in recipe {recipes[-1]}: {hint}"
    return f"a --config override does not fit recipe {recipes[-1]}"


def _with_recipe(words: Sequence[str]) -> Iterator[str]:
    """The words, a recipe that came with this package named by its place."""
    names = False
    for word in words:
        option, assigned, value = word.partition("=")
        if names:
            yield find_recipe(word) or word
        elif option.lstrip("-") == "config" and assigned:
            yield f"{option}={find_recipe(value) or value}"
        else:
            yield word
        names = word in ("-config", "--config")


def _recipes(words: Sequence[str]) -> list[str]:
    return [word.partition("=")[2] if "=" in word else following for word, following in _config_words(words)]


def _config_words(words: Sequence[str]) -> Iterator[tuple[str, str]]:
    for word, following in zip(words, [*words[1:], ""], strict=True):
        if word.lstrip("-").partition("=")[0] == "config":
            yield word, following


def _keys(config: ConfigDict, prefix: str = "") -> Iterator[str]:
    for name, value in config.items():
        yield prefix + name
        if isinstance(value, ConfigDict):
            yield from _keys(value, f"{prefix}{name}.")
