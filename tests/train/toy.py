"""A task of a few weights and its data: the loop's behaviour without a network to compile."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import optax

from asccl_jax.train.experiment import Experiment, LoopSettings
from asccl_jax.train.optimizer import adam
from asccl_jax.types import TrainState


@jax.tree_util.register_static
class ToyTask:
    """Fits y = x w; like the real task it draws with a key folded by step."""

    loss = "toy/loss"
    score = "eval/error"

    def __init__(self, learning_rate=0.1, width=3):
        self.optimizer = adam(learning_rate)
        self.width = width

    def init(self, key):
        params = {"w": jnp.zeros((self.width,), jnp.float32)}
        return TrainState(jnp.zeros((), jnp.int32), params, {}, self.optimizer.init(params), key)

    def update(self, state, batch, *, axis_name=None):
        noise = 0.01 * jax.random.normal(jax.random.fold_in(state.key, state.step), (self.width,))

        def loss_of(params):
            return jnp.mean((batch["x"] @ (params["w"] + noise) - batch["y"]) ** 2)

        loss, grads = jax.value_and_grad(loss_of)(state.params)
        updates, opt_state = self.optimizer.update(grads, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        new = TrainState(state.step + 1, params, {}, opt_state, state.key)
        return new, {"toy/loss": loss, "toy/weight_norm": optax.tree.norm(params)}

    def evaluate(self, state, batch):
        return {"eval/error": jnp.abs(batch["x"] @ state.params["w"] - batch["y"])}

    def export(self, state, directory):
        directory.mkdir(parents=True, exist_ok=True)
        (directory / "w.json").write_text(
            json.dumps({"step": int(state.step), "w": np.asarray(state.params["w"]).tolist()})
        )


class ToyBatches:
    """Batch n is a function of n; `at_batch` lets a test interfere when batch n is drawn."""

    def __init__(self, batch_size=8, width=3, at_batch=None):
        self.position = 0
        self.batch_size, self.width = batch_size, width
        self.at_batch = at_batch or {}

    def __next__(self):
        self.position += 1
        if self.position in self.at_batch:
            self.at_batch[self.position]()
        return rows(self.position, self.batch_size, self.width)

    def get_state(self):
        return {"next_index": self.position}

    def set_state(self, state):
        self.position = state["next_index"]

    def close(self):
        pass


def rows(seed, count, width=3):
    x = np.random.default_rng(seed).normal(size=(count, width)).astype(np.float32)
    return {"x": x, "y": x @ np.arange(1, width + 1, dtype=np.float32)}


def experiment(*, steps, learning_rate=0.1, width=3, at_batch=None, **settings):
    def held_out():
        yield rows(1000, 8, width), np.ones(8, bool)
        # The last batch has three real rows; the filling must not count.
        yield rows(1001, 8, width), np.arange(8) < 3

    every = {"log_every": 1, "evaluate_every": 2, "checkpoint_every": 2, "keep_checkpoints": 2, **settings}
    return Experiment(
        task=ToyTask(learning_rate, width),
        batches=ToyBatches(width=width, at_batch=at_batch),
        held_out=held_out,
        settings=LoopSettings(steps=steps, batch_size=8, seed=0, **every),
        config={"steps": steps, "learning_rate": learning_rate, "model": {"width": width}},
        baseline=lambda state, mesh: state,
    )
