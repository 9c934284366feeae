"""A run of the toy task on examples with numbers, as a process of its own that notes which ones it draws at each step.

    python -m tests.train.elastic_run WORKDIR IDS STEPS [COORDINATOR PROCESSES PROCESS]

Appends to IDS a line of JSON a batch: its number, the number of processes, which one this is, and its examples.
"""

import dataclasses
import json
import sys
import time
from pathlib import Path

import jax
import numpy as np

from asccl_jax.data.loader import training_batches
from asccl_jax.train.loop import fit
from tests.train.toy import experiment

EXAMPLES = 37
PACE_S = 0.02  # a step; without it a run would be over before anybody could disturb it


class Numbered:
    """Rows of which each follows from its number."""

    def __len__(self):
        return EXAMPLES

    def batch(self, indices):
        x = np.stack([np.random.default_rng(int(index)).normal(size=3) for index in indices]).astype(np.float32)
        return {"x": x, "y": x @ np.arange(1, 4, dtype=np.float32), "index": np.asarray(indices, np.int32)}


class Noted:
    """Batches that leave a note of what was drawn before they are handed out."""

    def __init__(self, path, *, process_index=0, process_count=1, pace_s=0.0):
        self.path, self.place, self.number, self.pace_s = path, (process_count, process_index), 0, pace_s
        self.batches = training_batches(
            Numbered(), batch_size=8, seed=5, threads=2, process_index=process_index, process_count=process_count
        )

    def __next__(self):
        batch = next(self.batches)
        self.number += 1
        time.sleep(self.pace_s)
        with self.path.open("a") as file:
            file.write(json.dumps([self.number, *self.place, batch["index"].tolist()]) + "\n")
        return batch

    def get_state(self):
        return {"number": self.number, "batches": self.batches.get_state()}

    def set_state(self, state):
        self.number = state["number"]
        self.batches.set_state(state["batches"])

    def close(self):
        self.batches.close()


def run(workdir, ids, steps, **options):
    """Trains to the last step; goes on where an earlier process stopped."""
    settings = {"checkpoint_every": 5, "evaluate_every": 20, "keep_checkpoints": 2}
    made = experiment(steps=steps, **settings)
    return fit(dataclasses.replace(made, batches=Noted(ids, **options)), workdir)


if __name__ == "__main__":
    workdir, ids, steps, *processes = sys.argv[1:]
    options = {}
    if processes:
        coordinator, count, index = processes[0], int(processes[1]), int(processes[2])
        jax.distributed.initialize(coordinator, count, index)
        options = {"process_count": count, "process_index": index}
    run(Path(workdir), Path(ids), int(steps), pace_s=PACE_S, **options)
