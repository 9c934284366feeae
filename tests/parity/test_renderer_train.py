"""What the judges of the renderer's first training step say of the frames that the golden holds."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

from asccl_jax.models.normalisation import InstanceNorm
from asccl_jax.tasks.frame_chunks import in_one_row
from asccl_jax.tasks.frame_losses import judged_frames
from tests.parity import recipe, renderer_train
from tests.parity.comparison import compare
from tests.parity.metric import Replayed
from tests.parity.renderer import as_published
from tests.parity.tolerances import known_spreads

GOLDENS = Path(__file__).resolve().parent.parent / "goldens"


@pytest.mark.slow
def test_losses_and_discriminator_gradients_of_the_first_step_are_met():
    with np.load(GOLDENS / "renderer_train.npz") as file:
        golden = dict(file)
    manifests = {name: recipe.read_manifest(GOLDENS, name) for name in renderer_train.MANIFESTS}
    training = renderer_train.Training(golden, manifests, np.float32)
    chunk, _ = training.chunk(0, 0)
    metric, vgg = training.frozen
    centres, _ = training.locations("step0/full")
    discriminators = {name: training.params[name] for name in training.settings.discriminators}

    def judge(frozen, discriminators, fake):
        task = training.task(*frozen)
        _, (terms, _) = task.supervision(
            fake, in_one_row(chunk.real), metric.variables["batch_stats"], jax.random.key(0), locations=centres
        )
        _, opposed, _, gradients = task.adversaries(
            task._discriminator, discriminators, judged_frames(chunk), fake, roi_size=training.settings.roi_size
        )
        return {**terms, **opposed}, gradients

    fake = jnp.asarray(np.moveaxis(golden["step0/fake_B"], 1, -1))
    quick = {"xla_backend_optimization_level": 0}
    terms, gradients = jax.jit(judge, compiler_options=quick)((metric, vgg), discriminators, fake)
    losses = [weight * float(terms[name]) for name, weight in renderer_train.COLUMNS.values()]
    # The reference's own float32 and float64 runs are 3e-6 apart here; ten times that.
    np.testing.assert_allclose(losses, golden["losses"][0], rtol=3e-5)
    name = "step0/grad_D"
    keys = golden[f"{name}/keys"].tolist()
    replayed = Replayed(collections={name: as_published({**training.params, **gradients}, training.settings, keys)})
    stored = {key: value for key, value in golden.items() if key.startswith(f"{name}/")}
    lines = list(compare(stored, replayed, known_spreads(GOLDENS / "README.md", "renderer_train", golden)))
    assert [line.name for line in lines if line.passed] == [f"{name}/keys", f"{name}/l2", f"{name}/samples"]


@pytest.mark.parametrize("mean", [0.0, 3.0])
def test_reference_norm_rounds_by_a_side_of_the_map_and_ours_by_far_less(mean):
    # What the nudge of the float64 replay rests on: maps of the size of the golden's frames.
    side = 64
    maps = np.random.default_rng(0).standard_normal((1, side, side, 8)) + mean
    exact = maps.astype(np.longdouble)
    centred = exact - exact.mean((1, 2), keepdims=True)
    exact = centred / np.sqrt(np.square(centred).mean((1, 2), keepdims=True) + np.longdouble(1e-5))
    channels_first = torch.as_tensor(np.ascontiguousarray(np.moveaxis(maps, -1, 1)))
    reference = np.moveaxis(torch.nn.functional.instance_norm(channels_first).numpy(), 1, -1)
    with jax.enable_x64(True):
        ours = np.asarray(InstanceNorm(dtype=jnp.float64).apply({}, jnp.asarray(maps)))
    off = float(np.abs(reference - exact).max()) / np.finfo(np.float64).epsneg
    assert side / 4 < off < side * 4
    assert float(np.abs(ours - exact).max()) / np.finfo(np.float64).epsneg < side / 4
