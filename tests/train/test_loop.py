"""The loop: exact continuation, a safe end on NaN and on signals, the right files."""

import dataclasses
import errno
import json
import os
import shutil
import signal

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
import pytest

from asccl_jax.errors import DivergedError, InputError, WriteError
from asccl_jax.metrics_file import read_metrics
from asccl_jax.train.experiment import LoopSettings
from asccl_jax.train.loop import fit
from asccl_jax.train.run.writer import ScalarWriter
from tests.train.toy import ToyTask, experiment


def metrics(workdir, *, timed=False):
    lines = read_metrics(workdir / "metrics.jsonl")
    return [{name: value for name, value in line.items() if timed or not name.startswith("speed/")} for line in lines]


def checkpoint_steps(workdir):
    return sorted(int(path.name) for path in (workdir / "checkpoints").iterdir() if path.name.isdigit())


def test_two_steps_then_on_to_four_equal_four_straight(tmp_path):
    fit(experiment(steps=4), tmp_path / "straight")
    fit(experiment(steps=2), tmp_path / "halves")
    result = fit(experiment(steps=4), tmp_path / "halves")
    assert result.step == 4
    assert metrics(tmp_path / "halves") == metrics(tmp_path / "straight")  # bit for bit: the same program and inputs
    assert (tmp_path / "halves/last/w.json").read_text() == (tmp_path / "straight/last/w.json").read_text()


def test_a_run_cut_off_between_checkpoints_repeats_the_lost_steps_exactly(tmp_path):
    class Cut(Exception):
        pass

    def cut():
        raise Cut

    fit(experiment(steps=9, checkpoint_every=4), tmp_path / "straight")
    with pytest.raises(Cut):
        fit(experiment(steps=9, checkpoint_every=4, at_batch={8: cut}), tmp_path / "cut")
    assert checkpoint_steps(tmp_path / "cut") == [4]
    with (tmp_path / "cut/metrics.jsonl").open("a") as file:
        file.write('{"step": 7, "toy/lo')  # as a kill in the middle of a write leaves it
    fit(experiment(steps=9, checkpoint_every=4), tmp_path / "cut")
    assert metrics(tmp_path / "cut") == metrics(tmp_path / "straight")


def test_a_finished_run_started_again_does_nothing_and_keeps_its_files(tmp_path):
    fit(experiment(steps=4), tmp_path)
    before = (tmp_path / "metrics.jsonl").read_text()
    result = fit(experiment(steps=4), tmp_path)
    assert (result.step, result.steps_per_s) == (4, 0.0)
    assert (tmp_path / "metrics.jsonl").read_text() == before


def history(workdir):
    path = workdir / "config_history.json"
    if not path.is_file():
        return None
    return [(entry["after_step"], entry["config"]["learning_rate"]) for entry in json.loads(path.read_text())]


def test_settings_that_train_nothing_leave_what_the_weights_were_made_with(tmp_path, caplog):
    fit(experiment(steps=4), tmp_path)
    before = (tmp_path / "config.json").read_text()
    with caplog.at_level("WARNING", "asccl_jax"):
        fit(experiment(steps=4, learning_rate=0.5), tmp_path)
    assert (tmp_path / "config.json").read_text() == before
    assert "no effect (config.learning_rate was 0.1, now 0.5)" in caplog.text
    assert history(tmp_path) is None


def test_a_continued_run_notes_which_steps_were_made_with_which_settings(tmp_path, caplog):
    fit(experiment(steps=2), tmp_path)
    with caplog.at_level("WARNING", "asccl_jax"):
        fit(experiment(steps=4, learning_rate=0.5), tmp_path)
    assert (
        "after step 2 settings change: config.learning_rate was 0.1, now 0.5; config.steps was 2, now 4" in caplog.text
    )
    assert json.loads((tmp_path / "config.json").read_text())["learning_rate"] == 0.5
    fit(experiment(steps=6, learning_rate=0.25), tmp_path)
    assert history(tmp_path) == [(0, 0.1), (2, 0.5), (4, 0.25)]
    # Steps that are done again are no longer what they were.
    shutil.rmtree(tmp_path / "checkpoints/6")
    fit(experiment(steps=6, learning_rate=0.3), tmp_path)
    assert history(tmp_path) == [(0, 0.1), (2, 0.5), (4, 0.3)]


@jax.tree_util.register_static
class Halved(ToyTask):
    """Another update of the same state: the loss weighs half, and says so."""

    def update(self, state, batch, *, axis_name=None):
        new, scalars = super().update(state, {**batch, "y": batch["y"] / 2}, axis_name=axis_name)
        return new, {**scalars, "toy/halved": jnp.ones(())}


def test_another_task_may_take_over_at_a_step_and_a_continued_run_takes_the_same(tmp_path):
    def late(steps):
        begun = experiment(steps=steps)
        halved = Halved()
        return dataclasses.replace(begun, task_at=lambda step: halved if step >= 5 else begun.task)

    fit(late(9), tmp_path / "straight")
    logged = [line for line in metrics(tmp_path / "straight") if "toy/loss" in line]
    assert [line["step"] for line in logged if "toy/halved" in line] == [6, 7, 8, 9]
    fit(experiment(steps=9), tmp_path / "early")
    early = [line for line in metrics(tmp_path / "early") if "toy/loss" in line]
    assert logged[:5] == early[:5]
    assert all(one["toy/loss"] != other["toy/loss"] for one, other in zip(logged[5:], early[5:], strict=True))
    for steps in (4, 6, 9):
        fit(late(steps), tmp_path / "parts")
    assert metrics(tmp_path / "parts") == metrics(tmp_path / "straight")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_finishes_the_step_saves_and_the_next_start_goes_on(tmp_path, number):
    handler = signal.getsignal(number)
    fit(experiment(steps=9, checkpoint_every=100), tmp_path / "straight")
    stopping = experiment(steps=9, checkpoint_every=100, at_batch={5: lambda: os.kill(os.getpid(), number)})
    result = fit(stopping, tmp_path / "stopped")
    assert (result.stopped_by, result.step) == (number, 5)
    assert checkpoint_steps(tmp_path / "stopped") == [5]
    assert signal.getsignal(number) == handler
    result = fit(experiment(steps=9, checkpoint_every=100), tmp_path / "stopped")
    assert result.stopped_by is None
    assert metrics(tmp_path / "stopped") == metrics(tmp_path / "straight")


def test_a_non_finite_loss_stops_naming_scalar_and_step_and_leaves_the_last_checkpoint(tmp_path):
    fit(experiment(steps=4), tmp_path)
    good = (tmp_path / "last/w.json").read_text()
    with pytest.raises(DivergedError, match=r"toy/(loss|weight_norm) is (inf|nan) at step [56]; checkpoint 4"):
        fit(experiment(steps=20, learning_rate=1e38), tmp_path)
    assert checkpoint_steps(tmp_path) == [2, 4]
    assert (tmp_path / "last/w.json").read_text() == good
    assert all(np.isfinite(list(line.values())).all() for line in metrics(tmp_path))
    assert fit(experiment(steps=6), tmp_path).step == 6


SYSTEMS_ERRORS = [
    OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)),
    # What TensorStore makes of the same.
    ValueError("RESOURCE_EXHAUSTED: Failed to write 18 bytes: No space left on device [os_error_code='28']"),
]


@pytest.mark.parametrize("cause", SYSTEMS_ERRORS, ids=["system", "tensorstore"])
def test_a_disk_that_fills_during_a_background_save_is_one_line_and_leaves_the_last_checkpoint(
    tmp_path, monkeypatch, cause
):
    fit(experiment(steps=12), tmp_path / "straight")
    workdir = tmp_path / "full"
    real_save = ocp.JsonCheckpointHandler._save_fn  # runs in Orbax's background

    async def full_disk(self, item, directory):
        if any(part.startswith("6.") for part in directory.parts):
            raise cause
        return await real_save(self, item, directory)

    with monkeypatch.context() as patched:
        patched.setattr(ocp.JsonCheckpointHandler, "_save_fn", full_disk)
        with pytest.raises(WriteError) as error:
            fit(experiment(steps=12), workdir)
    message = str(error.value)
    assert "\n" not in message
    assert f"cannot write {workdir / 'checkpoints'}: No space left on device; checkpoint 4 is whole" in message
    assert checkpoint_steps(workdir) == [2, 4]
    assert fit(experiment(steps=12), workdir).step == 12
    assert metrics(workdir) == metrics(tmp_path / "straight")


@pytest.mark.parametrize(("owner", "method"), [(ScalarWriter, "_sync"), (ToyTask, "export")])
def test_a_full_disk_is_named_whatever_was_to_be_written(tmp_path, monkeypatch, owner, method):
    def full_disk(self, *_):
        raise SYSTEMS_ERRORS[0]

    monkeypatch.setattr(owner, method, full_disk)
    with pytest.raises(WriteError, match="No space left on device; there is no checkpoint yet"):
        fit(experiment(steps=4), tmp_path)


def test_held_out_means_ignore_the_filling_of_the_last_batch_and_best_is_the_lowest(tmp_path):
    fit(experiment(steps=6), tmp_path)
    scored = {line["step"]: line["eval/error"] for line in metrics(tmp_path) if "eval/error" in line}
    assert sorted(scored) == [0, 2, 4, 6]
    initial = json.loads((tmp_path / "initial/w.json").read_text())
    assert initial["w"] == [0, 0, 0]
    (first, _), (second, real) = list(experiment(steps=1).held_out())
    expected = np.abs(np.concatenate([first["y"], second["y"][real]])).mean()
    np.testing.assert_allclose(scored[0], expected, rtol=1e-6)  # float32 sums of eleven numbers
    best = json.loads((tmp_path / "best/w.json").read_text())
    assert best["step"] == min((step for step in scored if step), key=scored.get)


def test_the_best_score_is_remembered_when_a_run_goes_on(tmp_path):
    first = fit(experiment(steps=4), tmp_path)
    again = fit(experiment(steps=5, learning_rate=300.0), tmp_path)  # a wild step that makes things worse
    assert (again.best_step, again.best_score) == (first.best_step, first.best_score)
    assert json.loads((tmp_path / "best/w.json").read_text())["step"] == first.best_step


def test_only_every_nth_step_is_logged_and_old_checkpoints_go(tmp_path):
    fit(experiment(steps=8, log_every=4), tmp_path)
    assert [line["step"] for line in metrics(tmp_path) if "toy/loss" in line] == [4, 8]
    assert checkpoint_steps(tmp_path) == [6, 8]
    line = metrics(tmp_path, timed=True)[-2]
    assert line["speed/pairs_per_s"] > 0
    assert 0 < line["speed/input_wait_s"] < line["speed/step_s"]
    # Alone there is nobody slower to name.
    assert not {name for line in metrics(tmp_path, timed=True) for name in line if "slowest" in name}


def test_a_checkpoint_of_another_network_is_refused_with_every_difference(tmp_path):
    fit(experiment(steps=2), tmp_path)
    with pytest.raises(InputError, match=r"config.model.width was 3, now 4.*another --workdir"):
        fit(experiment(steps=2, width=4), tmp_path)
    # Equal configs, other shapes: what another version of the program would meet.
    other = experiment(steps=2, width=4)
    other.config["model"]["width"] = 3
    with pytest.raises(InputError, match=r"opt_state/0/mu/w has shape \(3,\), expected \(4,\).*params/w has shape"):
        fit(other, tmp_path)


def test_a_batch_that_does_not_divide_over_the_devices_is_refused(tmp_path):
    wrong = experiment(steps=1)
    object.__setattr__(wrong.settings, "batch_size", 12)
    with pytest.raises(InputError, match=f"batch_size=12 does not divide over {jax.device_count()} devices"):
        fit(wrong, tmp_path)


@pytest.mark.parametrize("field", ["steps", "log_every", "keep_checkpoints"])
def test_counts_below_one_are_refused_by_name(field):
    counts = dict.fromkeys(
        ("steps", "batch_size", "log_every", "evaluate_every", "checkpoint_every", "keep_checkpoints"), 1
    )
    with pytest.raises(InputError, match=rf"config\.{field}=0: expected at least 1"):
        LoopSettings(seed=0, **{**counts, field: 0})
