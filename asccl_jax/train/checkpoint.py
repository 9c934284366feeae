"""Checkpoints of a run: state, position in the data, config and progress, saved whole in the background.

The only module that knows Orbax's manager. A folder `<step>` appears by a rename once all of it is on disk, so a run
killed at any moment finds its last complete checkpoint.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp
from jax.sharding import Sharding

from asccl_jax.errors import InputError, writing
from asccl_jax.trees import named_shapes, shape_differences
from asccl_jax.types import TrainState

__all__ = ["Checkpoints", "Restored", "config_differences", "newest_on_disk"]

CHANGEABLE = (
    "steps",
    "learning_rate",
    "log_every",
    "evaluate_every",
    "checkpoint_every",
    "keep_checkpoints",
    "init_from",
    "report_groups",
    "compilation_cache_dir",
    "data.dir",
    "data.threads",
    "data.prefetch",
)
"""Config entries that a continued run may change: they name no other network, data order or score.

`steps` is among them only where the learning rate does not depend on it.
"""


@dataclasses.dataclass(frozen=True)
class Restored:
    """What a checkpoint gives back.

    Attributes:
      state: State after `state.step` updates, on the devices.
      data: State of the input iterator that draws the next batch.
      progress: What the loop noted beside it (best score so far).
    """

    state: TrainState
    data: dict[str, Any]
    progress: dict[str, Any]


class Checkpoints:
    """The checkpoints of one run.

    Args:
      directory: Folder that holds one folder a step; made if absent.
      keep: How many of the newest to keep.
    """

    def __init__(self, directory: Path, *, keep: int) -> None:
        self.directory = directory.resolve()
        with writing(self.directory):
            self.directory.mkdir(parents=True, exist_ok=True)
        self._keep = keep
        self._manager = self._new_manager()

    def latest_step(self) -> int | None:
        """Returns the step of the newest complete checkpoint, or None."""
        return self._manager.latest_step()

    def save(
        self,
        step: int,
        state: TrainState,
        *,
        data: dict[str, Any],
        config: dict[str, Any],
        progress: dict[str, Any],
    ) -> None:
        """Starts to save; returns when the state has left the devices, so that it may be donated.

        Raises:
          WriteError: This save cannot start, or the one before has failed in the background.
        """
        parts = ocp.args.Composite(
            state=ocp.args.StandardSave(state),
            data=ocp.args.JsonSave(data),
            config=ocp.args.JsonSave(config),
            progress=ocp.args.JsonSave(progress),
        )
        with writing(self.directory):
            try:
                self._manager.save(step, args=parts, force=True)
            except FileNotFoundError:
                # The first save waits until Orbax has removed what an unfinished one left. Where that one's writer is
                # still at work, a file may go before Orbax comes to it: it begins anew, once.
                with contextlib.suppress(FileNotFoundError):
                    self._manager.close()
                self._manager = self._new_manager()
                self._manager.save(step, args=parts, force=True)

    def restore(self, like: TrainState, *, config: dict[str, Any], sharding: Sharding) -> Restored | None:
        """Returns the newest checkpoint, or None where there is none.

        Args:
          like: Shapes and dtypes of the state (`jax.eval_shape` of the task's init).
          config: Config of this run.
          sharding: Where the restored arrays shall live.

        Raises:
          InputError: The checkpoint is of another network or config; every difference is listed.
        """
        step = self.latest_step()
        if step is None:
            return None
        names = ocp.args.Composite(
            data=ocp.args.JsonRestore(), config=ocp.args.JsonRestore(), progress=ocp.args.JsonRestore()
        )
        notes = self._manager.restore(step, args=names)
        differences = config_differences(notes["config"], config)
        if not differences:
            differences = shape_differences(
                named_shapes(self._manager.item_metadata(step)["state"].tree), named_shapes(like)
            )
        if differences:
            raise InputError(
                f"{self.directory / str(step)} is a checkpoint of another run ({'; '.join(differences)}):"
                " give another --workdir, or the config it was made with"
            )
        abstract = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding), like)
        state = self._manager.restore(step, args=ocp.args.Composite(state=ocp.args.StandardRestore(abstract)))["state"]
        return Restored(state=state, data=notes["data"], progress=notes["progress"])

    def wait(self) -> None:
        """Returns once everything started is on disk; raises `WriteError` where a save in the background failed."""
        with writing(self.directory):
            self._manager.wait_until_finished()

    def close(self) -> None:
        """Waits, as `wait` does, and releases the background threads."""
        with writing(self.directory):
            self._manager.close()

    def _new_manager(self) -> ocp.CheckpointManager:
        return ocp.CheckpointManager(
            self.directory,
            item_handlers={
                "state": ocp.StandardCheckpointHandler(),
                "data": ocp.JsonCheckpointHandler(),
                "config": ocp.JsonCheckpointHandler(),
                "progress": ocp.JsonCheckpointHandler(),
            },
            options=ocp.CheckpointManagerOptions(
                max_to_keep=self._keep,
                enable_async_checkpointing=True,
                cleanup_tmp_directories=True,
            ),
        )


def newest_on_disk(directory: Path) -> int | None:
    """Returns the step of the newest complete checkpoint in a folder, whatever became of the run that wrote it."""
    return max((int(path.name) for path in directory.glob("*") if path.name.isdigit()), default=None)


def config_differences(saved: Mapping[str, Any], current: Mapping[str, Any]) -> list[str]:
    """Returns one phrase for every config entry that differs and may not.

    Entries that only one side knows are left to the comparison of the states: they come from another version.

    Args:
      saved: Config of the checkpoint, nested.
      current: Config of this run, nested.
    """
    before, now = dict(_flat(saved)), dict(_flat(current))
    fixed_length = now.get("learning_rate_schedule", "constant") != "constant"
    changeable = [name for name in CHANGEABLE if name != "steps" or not fixed_length]
    return [
        f"config.{name} was {before[name]!r}, now {now[name]!r}"
        for name in sorted(before.keys() & now.keys())
        if name not in changeable and before[name] != now[name]
    ]


def _flat(tree: Mapping[str, Any], prefix: str = "") -> Iterable[tuple[str, Any]]:
    for name, value in tree.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", list(value) if isinstance(value, tuple) else value
