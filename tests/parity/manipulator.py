"""The expression manipulator replayed from a golden's seed: networks, losses, gradients and whole training steps."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike

from asccl_jax.convert.manipulator_entries import (
    manipulator_settings,
    state_dicts_from_variables,
    variables_from_state_dicts,
)
from asccl_jax.models.manipulator import NETWORKS, Manipulator
from asccl_jax.settings import ManipulatorSettings
from asccl_jax.tasks.manipulator_task import MODES, ManipulatorTask, discriminator_loss, generator_loss, target_style
from asccl_jax.train.optimizer import adam, rate_schedule
from asccl_jax.types import Variables, WindowBatch
from tests.parity import recipe
from tests.parity.metric import Replayed
from tests.parity.switches import aligned_gradient, lightly_compiled

__all__ = ["INPUTS", "LEARNING_RATE", "MANIFESTS", "NAMES", "replay"]

NAMES = r"manipulator(?!_inference).*"
MANIFESTS = tuple(f"manip_{name}" for name in NETWORKS)
INPUTS = r"cfg"
LEARNING_RATE = 1e-4

_SHORT = {"latent": "latent", "reference": "ref"}
_PARTS = {"adversarial": "adv", "style": "sty", "cycle": "cyc", "mouth": "mouth"}


def replay(
    arrays: Mapping[str, np.ndarray], manifests: Mapping[str, Sequence[Mapping[str, Any]]], *, exact: bool
) -> Replayed:
    """Everything a manipulator golden holds, computed by `asccl_jax`.

    Args:
      arrays: Arrays of the file; its configuration and the number of training steps are read.
      manifests: Entries of the four networks' state dicts.
      exact: Compute in float64.
    """
    # Accelerators would multiply in TensorFloat-32 or bfloat16 otherwise.
    with jax.default_matmul_precision("highest"), jax.enable_x64(exact):
        golden = _Golden(arrays, manifests, np.float64 if exact else np.float32)
        results = Replayed()
        _replay_evaluation(results, golden)
        _replay_losses(results, golden)
        _replay_trajectory(results, golden, len(arrays["traj/losses"]))
    return results


class _Golden:
    """Weights and inputs of one golden."""

    def __init__(self, arrays: Mapping[str, np.ndarray], manifests: Mapping[str, Any], dtype: DTypeLike) -> None:
        self.seed, self.rows, self.frames = (int(value) for value in arrays["cfg"])
        self.dtype = dtype
        state_dicts = {
            name: recipe.make_weights(manifests[f"manip_{name}"], self.seed, prefix=f"manip.{name}.")
            for name in NETWORKS
        }
        self.settings = dataclasses.replace(manipulator_settings(state_dicts), window=self.frames)
        variables = variables_from_state_dicts(state_dicts, self.settings)
        self.manipulator = Manipulator(jax.tree.map(lambda leaf: jnp.asarray(leaf, dtype), variables), self.settings)

    def inputs(self, step: int) -> tuple[WindowBatch, jax.Array]:
        """Windows and noise of one step."""

        def drawn(name: str, *shape: int) -> jax.Array:
            return jnp.asarray(
                recipe.make_input(f"manip.step{step}.{name}", (self.rows, *shape), self.seed), self.dtype
            )

        def label(name: str) -> jax.Array:
            emotions = self.settings.emotions
            values = recipe.make_input(f"manip.step{step}.{name}", (self.rows,), self.seed, "int", 0, emotions)
            return jnp.asarray(values, jnp.int32)

        window = (self.frames, self.settings.coefficients)
        rows = jnp.arange(self.rows, dtype=jnp.int32)
        batch = WindowBatch(
            source=drawn("x_src", *window),
            source_emotion=label("y_src"),
            reference=drawn("x_ref", *window),
            reference_emotion=label("y_ref"),
            index=rows,
            reference_index=rows,
        )
        return batch, drawn("z_trg", self.settings.latent_size)


def _replay_evaluation(results: Replayed, golden: _Golden) -> None:
    def evaluated(manipulator: Manipulator, batch: WindowBatch, latents: jax.Array) -> dict[str, jax.Array]:
        styles = {mode: target_style(manipulator, mode, batch, latents) for mode in MODES}
        fakes = {mode: manipulator.generate(batch.source, styles[mode]) for mode in MODES}
        return {
            "eval/mapping_out": styles["latent"],
            "eval/style_encoder_out": styles["reference"],
            "eval/generator_latent": fakes["latent"],
            "eval/generator_reference": fakes["reference"],
            "eval/discriminator_src": manipulator.judge(batch.source, batch.source_emotion),
            "eval/discriminator_fake": manipulator.judge(fakes["latent"], batch.reference_emotion),
        }

    results.tensors |= jax.device_get(lightly_compiled(evaluated)(golden.manipulator, *golden.inputs(0)))


def _replay_losses(results: Replayed, golden: _Golden) -> None:
    inputs = golden.inputs(0)
    for mode in MODES:
        for part, function in (("d", discriminator_loss), ("g", generator_loss)):
            name = f"{part}_{mode}"
            loss_of = functools.partial(_loss, function, mode, golden.settings)
            arguments = (golden.manipulator.variables, *inputs)
            (loss, parts), grads = jax.device_get(aligned_gradient(loss_of, *arguments))
            results.tensors[f"{name}/loss"] = loss
            results.tensors |= {f"{name}/{_PARTS.get(key, key)}": value for key, value in parts.items()}
            # PyTorch leaves networks that no path leads to without a gradient; here theirs is zero throughout.
            reached = [network for network in NETWORKS if any(leaf.any() for leaf in jax.tree.leaves(grads[network]))]
            published = state_dicts_from_variables(grads, golden.settings)
            results.collections[f"{name}/grad"] = {
                f"manip.{network}.{key}": value for network in reached for key, value in published[network].items()
            }


def _loss(
    function: Any,
    mode: Any,
    settings: ManipulatorSettings,
    variables: Variables,
    batch: WindowBatch,
    latents: jax.Array,
) -> Any:
    loss, parts = function(Manipulator(variables, settings), mode, batch, latents)
    return loss, parts[0] if isinstance(parts, tuple) else parts


def _replay_trajectory(results: Replayed, golden: _Golden, steps: int) -> None:
    task = ManipulatorTask(
        golden.settings,
        optimizer=adam(1.0, b1=0.0, b2=0.99),
        learning_rate=rate_schedule(LEARNING_RATE),
        start=golden.manipulator.variables,
    )
    state, update = task.init(jax.random.key(0)), lightly_compiled(task.update_with)
    columns = [f"D_{_SHORT[mode]}_{part}" for mode in MODES for part in ("real", "fake")]
    columns += [f"G_{_SHORT[mode]}_{short}" for mode in MODES for short in _PARTS.values()]
    names = [f"manipulator/{mode}/{part}" for mode in MODES for part in ("real", "fake")]
    names += [f"manipulator/{mode}/{part}" for mode in MODES for part in _PARTS]
    losses = []
    for step in range(steps):
        state, scalars = update(state, *golden.inputs(step))
        losses.append([np.asarray(scalars[name]) for name in names])
    results.tensors |= {"traj/losses": np.array(losses), "traj/columns": np.array(columns)}
    published = state_dicts_from_variables(jax.device_get(state.params), golden.settings)
    for network, arrays in published.items():
        results.collections[f"traj/final_{network}"] = {
            f"manip.{network}.{key}": value for key, value in arrays.items()
        }
