"""`python -m asccl_jax.main` on the toy task, which compiles in a second: for what happens around training.

    python -m tests.train.toy_training --config configs/asccl.py:smoke FLAGS

`TOY_PAUSE_S` is the time a batch takes. `TOY_HANG=PROCESS:STEP:FILE` has the loader of a process hang once before a
step, and makes the file, so that it does not do so again.
"""

import dataclasses
import os
import sys
import time
from pathlib import Path

from asccl_jax import main
from asccl_jax.train.faults import ends

WIDTH = 4096
"""Weights, so that a checkpoint is larger than all that is logged between two."""


class PacedBatches:
    """This process's rows of the toy's batches, at a pace that leaves time to interfere."""

    def __init__(self, batches, process, processes):
        self.batches, self.process, self.processes = batches, process, processes

    def __next__(self):
        time.sleep(float(os.environ.get("TOY_PAUSE_S", "0")))
        process, step, mark = os.environ.get("TOY_HANG", "-1:0:").split(":")
        if (int(process), int(step)) == (self.process, self.batches.position + 1) and not Path(mark).exists():
            Path(mark).touch()
            time.sleep(1000)
        return {name: self.rows(values) for name, values in next(self.batches).items()}

    def rows(self, values):
        share = len(values) // self.processes
        return values[self.process * share :][:share]

    def get_state(self):
        return self.batches.get_state()

    def set_state(self, state):
        self.batches.set_state(state)

    def close(self):
        self.batches.close()


def build_experiment(config):
    import jax

    from tests.train.toy import experiment

    names = ("steps", "evaluate_every", "checkpoint_every", "keep_checkpoints")
    toy = experiment(width=WIDTH, **{name: config[name] for name in names})
    batches = PacedBatches(toy.batches, jax.process_index(), jax.process_count())

    def held_out():
        for rows, real in toy.held_out():
            yield {name: batches.rows(values) for name, values in rows.items()}, batches.rows(real)

    return dataclasses.replace(toy, batches=batches, held_out=held_out)


def train_toy(command, train=main._train):
    from asccl_jax.train import recipes  # no sooner: the parent of a restarted run has no JAX

    recipes.build_experiment = build_experiment
    return train(command)


if __name__ == "__main__":
    main._train = train_toy
    sys.excepthook = ends.crash
    ends.leave(main.main())
