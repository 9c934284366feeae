"""Checkpoints of a run: state, position in the data, config and progress, saved whole in the background.

The only module that knows Orbax's manager. A folder `<step>` appears by a rename once all of it is on disk, so a run
killed at any moment finds its last complete checkpoint. A newest one that a failing disk has damaged is moved aside,
not deleted, and the run goes on from the one before: nobody may be there to decide.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import logging
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from jax.experimental import multihost_utils
from jax.sharding import Sharding
from orbax.checkpoint import checkpoint_managers as policies

from asccl_jax.buckets import AnyPath, remote_address
from asccl_jax.errors import InputError, writing
from asccl_jax.train.checkpoints.checkpoint_folder import (
    STATE,
    DamagedError,
    Entry,
    list_entries,
    newest_on_disk,
    read_entry,
    reading,
    scores,
    set_aside_name,
)
from asccl_jax.trees import named_shapes, shape_differences
from asccl_jax.types import TrainState

__all__ = [
    "BestScored",
    "Checkpoints",
    "Restored",
    "abandoned_io_unheard",
    "best_scored",
    "config_differences",
    "newest_on_disk",
    "retention",
]

# Reads and writes that Orbax gives up: where one array of many fails, nobody waits for the answers to the others.


@contextlib.contextmanager
def abandoned_io_unheard() -> Iterator[None]:
    """Keeps quiet what is said to nobody any more: each would print a traceback beside the one error that matters.

    TensorStore's threads say that the event loop which asked has closed; Orbax takes the end of a coroutine that is
    thrown away for an error of the disk.
    """
    heard = sys.unraisablehook

    def hook(unraisable: Any) -> None:
        if not _is_of_abandoned_io(unraisable.exc_value):
            heard(unraisable)

    sys.unraisablehook = hook
    yield
    # Not after an error: the answers are still to come.
    sys.unraisablehook = heard


def _is_of_abandoned_io(error: BaseException | None) -> bool:
    if isinstance(error, RuntimeError):
        return str(error) == "Event loop is closed"
    return type(error) is Exception and isinstance(error.__cause__, GeneratorExit)


# Which checkpoints stay: the newest ones, one every so many steps for good, and the best one scored.


def retention(*, newest: int, every: int, scores: Mapping[int, float]) -> policies.AnyPreservationPolicy:
    """Returns the rule by which Orbax removes checkpoints, as one that keeps what any of its parts keeps.

    Args:
      newest: How many of the newest stay.
      every: Checkpoints at a multiple of so many steps stay for good; 0 for none.
      scores: Held-out score of the checkpoints that have one, lower is better; may grow while it is in use.
    """
    rules: list[Any] = [policies.LatestN(newest), BestScored(scores)]
    if every:
        rules.append(policies.EveryNSteps(every))
    return policies.AnyPreservationPolicy(rules)


@dataclasses.dataclass(frozen=True)
class BestScored:
    """Keeps the checkpoint of the lowest score, the earliest of several; none where none is scored.

    Orbax's `BestN` takes scores that Orbax itself has written beside the weights, and keeps a checkpoint without one
    for good or lets it replace the best; ours are among the notes of the loop.

    Attributes:
      scores: Score of each checkpoint that has one.
    """

    scores: Mapping[int, float]

    def should_preserve(self, checkpoints: Sequence[Any], *, context: policies.PreservationContext) -> Sequence[bool]:
        """Returns for each checkpoint, whatever has a `step`, whether it stays."""
        del context
        steps = [int(checkpoint.step) for checkpoint in checkpoints]
        best = best_scored({step: self.scores[step] for step in steps if step in self.scores})
        return [step == best for step in steps]


def best_scored(scores: Mapping[int, float]) -> int | None:
    """Returns the step of the lowest score, the earliest of several; None where there is no score.

    >>> best_scored({100: 0.5, 200: 0.4, 300: 0.4})
    200
    """
    return min(scores, key=lambda step: (scores[step], step), default=None)


CHANGEABLE = (
    "epochs",
    "steps",
    "learning_rate",
    "log_every",
    "evaluate_every",
    "checkpoint_every",
    "keep_checkpoints",
    "keep_every",
    "fsdp",
    "accumulation",
    "init_from",
    "report_groups",
    "compilation_cache_dir",
    "data.dir",
    "data.threads",
    "data.prefetch",
)
"""Config entries that a continued run may change: they name no other network, data order or score.

`epochs` and `steps` are among them only where the learning rate does not depend on them.
"""

_LOG = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Restored:
    """What a checkpoint gives back.

    Attributes:
      state: State after `state.step` updates, on the devices.
      data: State of the input iterator that draws the next batch.
      config: Config of the run that saved it.
      progress: What the loop noted beside it (best score so far, score of this state).
    """

    state: TrainState
    data: dict[str, Any]
    config: dict[str, Any]
    progress: dict[str, Any]


class Checkpoints:
    """The checkpoints of one run.

    Args:
      directory: Folder that holds one folder a step; made if absent.
      keep: How many of the newest to keep.
      keep_every: Those at a multiple of so many steps are kept for good; 0 for none. So is the best one scored.

    Raises:
      InputError: Something else than a checkpoint of this program stands under the name of one, or cannot be read.
    """

    def __init__(self, directory: AnyPath, *, keep: int, keep_every: int = 0) -> None:
        # Orbax wants an absolute path; one in a bucket is, and cannot be resolved on a disk.
        self.directory = directory if remote_address(directory) else directory.resolve()
        with writing(self.directory):
            self.directory.mkdir(parents=True, exist_ok=True)
        entries = list_entries(self.directory)
        _refuse_strangers(entries)
        self._keep, self._keep_every = keep, keep_every
        self._scores = scores(entries)
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

        Args:
          step: Updates done.
          state: The state after them.
          data: State of the input iterator.
          config: Config of the run.
          progress: Notes of the loop; "score", the held-out score of this state, decides which checkpoint is the best.

        Raises:
          WriteError: This save cannot start, or the one before has failed in the background.
        """
        parts = ocp.args.Composite(
            state=ocp.args.StandardSave(state),
            data=ocp.args.JsonSave(data),
            config=ocp.args.JsonSave(config),
            progress=ocp.args.JsonSave(progress),
        )
        if (score := progress.get("score")) is not None:
            self._scores[step] = score
        with writing(self.directory):
            try:
                self._manager.save(step, args=parts, force=True)
            except OSError as error:
                # The first save waits until Orbax has removed what an unfinished one left. Where that one's writer is
                # still at work, files come and go while Orbax removes them: it begins anew, once.
                if not _is_race_of_removal(error):
                    raise
                self._reopen()
                self._manager.save(step, args=parts, force=True)

    def restore(self, like: TrainState, *, config: dict[str, Any], sharding: Any) -> Restored | None:
        """Returns the newest checkpoint that can be read, or None where there is none at all.

        Newer ones that are damaged are moved aside, with a warning each. Where all are damaged they stay as they are.

        Args:
          like: Shapes and dtypes of the state (`jax.eval_shape` of the task's init).
          config: Config of this run.
          sharding: Where the restored arrays shall live: one `Sharding` for all, or a pytree of them like the state.

        Raises:
          InputError: The checkpoint is of another network or config, and every difference is listed; all checkpoints
            are damaged; or the system refuses to read them.
        """
        damaged: dict[int, str] = {}
        for step in reversed(self._manager.all_steps()):
            restored, problem = None, ""
            try:
                restored = self._restore(step, like, config, sharding)
            except DamagedError as error:
                problem = str(error)
            # The processes go on from one checkpoint together, or none of them does.
            if _on_any_process(restored is None):
                damaged[step] = problem or "another process cannot read it"
                continue
            self._set_aside(damaged, good=step)
            return restored
        if damaged:
            raise InputError(
                f"no checkpoint in {self.directory} is whole: {'; '.join(damaged.values())}: move them away to train"
                " from the beginning, or give another --workdir"
            )
        return None

    def _restore(self, step: int, like: TrainState, config: dict[str, Any], sharding: Any) -> Restored:
        folder = self.directory / str(step)
        entry = read_entry(folder)
        if entry is None or entry.notes is None:
            raise DamagedError(f"{folder} is damaged ({entry.problem if entry else 'it has gone'})")
        notes = entry.notes
        differences = config_differences(notes.config, config)
        if not differences:
            with reading(folder):
                saved = self._manager.item_metadata(step)[STATE]
                if saved is None:
                    raise DamagedError(f"{folder} does not say which arrays it holds")
                differences = shape_differences(named_shapes(saved.tree), named_shapes(like))
        if differences:
            raise InputError(
                f"{folder} is a checkpoint of another run ({'; '.join(differences)}):"
                " give another --workdir, or the config it was made with"
            )
        placed = jax.tree.map(lambda _: sharding, like) if isinstance(sharding, Sharding) else sharding
        abstract = jax.tree.map(
            lambda leaf, at: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=at), like, placed
        )
        with abandoned_io_unheard(), reading(folder):
            items = self._manager.restore(step, args=ocp.args.Composite(state=ocp.args.StandardRestore(abstract)))
        return Restored(state=items[STATE], data=notes.data, config=notes.config, progress=notes.progress)

    def _set_aside(self, damaged: Mapping[int, str], *, good: int) -> None:
        """Moves damaged checkpoints away from their names, which the run will need again."""
        if not damaged:
            return
        if jax.process_index() == 0:
            for step, problem in damaged.items():
                folder = self.directory / str(step)
                name = set_aside_name(folder)
                with writing(name):
                    folder.rename(name)
                _LOG.warning(
                    "DAMAGED CHECKPOINT: %s; going on from checkpoint %d, %d steps before; what is left of the damaged"
                    " one is kept as %s",
                    *(problem, good, step - good, name),
                )
        if jax.process_count() > 1:
            multihost_utils.sync_global_devices("asccl_jax.train.checkpoints.checkpoint.set_aside")
        for step in damaged:
            self._scores.pop(step, None)
        self._manager.reload()

    def wait(self) -> None:
        """Returns once everything started is on disk; raises `WriteError` where a save in the background failed."""
        with writing(self.directory):
            self._manager.wait_until_finished()

    def close(self) -> None:
        """Waits, as `wait` does, and releases the background threads."""
        with writing(self.directory):
            self._manager.close()

    def _reopen(self) -> None:
        try:
            self._manager.close()
        except OSError as error:
            if not _is_race_of_removal(error):
                raise
        self._manager = self._new_manager()

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
                preservation_policy=retention(newest=self._keep, every=self._keep_every, scores=self._scores),
                enable_async_checkpointing=True,
                cleanup_tmp_directories=True,
            ),
        )


def _is_race_of_removal(error: OSError) -> bool:
    return isinstance(error, FileNotFoundError) or error.errno == errno.ENOTEMPTY


def _refuse_strangers(entries: Iterable[Entry]) -> None:
    strangers = [entry for entry in entries if entry.kind == "foreign" and not entry.path.name.startswith(".")]
    for entry in strangers:
        if entry.blocks:
            raise InputError(
                f"{entry.path} is not a checkpoint of this program ({entry.problem}): move it away, or give another"
                " --workdir"
            )
    if strangers and jax.process_index() == 0:
        names = ", ".join(entry.path.name for entry in strangers[:3]) + (", ..." if strangers[3:] else "")
        _LOG.warning("%s: ignored %s, not from this program", strangers[0].path.parent, names)


def _on_any_process(condition: bool) -> bool:
    if jax.process_count() == 1:
        return condition
    return bool(multihost_utils.process_allgather(np.asarray(condition)).any())


def config_differences(
    saved: Mapping[str, Any], current: Mapping[str, Any], *, changeable: Sequence[str] = CHANGEABLE
) -> list[str]:
    """Returns one phrase for every config entry that differs and may not.

    Entries that only one side knows are left to the comparison of the states: they come from another version.

    Args:
      saved: Config of the checkpoint, nested.
      current: Config of this run, nested.
      changeable: Entries that may; () names all that differ.
    """
    before, now = dict(_flat(saved)), dict(_flat(current))
    fixed_length = now.get("learning_rate_schedule", "constant") != "constant"
    changeable = [name for name in changeable if name not in ("epochs", "steps") or not fixed_length]
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
